"""AR: noise is what its filter says, filters are bounded and differ, and the budget holds as published."""

import importlib
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import miue_lib as mi
from miue_lib.noise.ar import _find, _generate, ar

QUICK: dict[str, Any] = {"radius": 0.2, "response": 1.0}


def pictures(n: int, shape: tuple[int, ...], value: int | None = None) -> mi.ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)
    return mi.ImageSet(images if value is None else torch.full_like(images, value), torch.arange(n) % 3)


def normalised(n: int, channels: int, seed: int) -> torch.Tensor:
    filters = torch.randn((n, channels, 3, 3), generator=torch.Generator().manual_seed(seed))
    filters[..., 2, 2] = 0
    return filters / filters.abs().sum((2, 3), keepdim=True)  # of sum at most 1, so that nothing grows


@pytest.mark.parametrize(("channels", "size"), [(1, (12, 12)), (3, (5, 9)), (3, (9, 5))])
def test_every_pixel_is_the_filters_weighted_sum_of_those_before_it(channels: int, size: tuple[int, int]) -> None:
    filters = normalised(7, channels, 0).double()
    torch.set_default_dtype(torch.float64)  # so that the noise, which dies out under these filters, keeps its digits
    try:
        noise = _generate(filters, torch.Size(size), torch.Generator().manual_seed(1))
    finally:
        torch.set_default_dtype(torch.float32)
    assert noise.shape == (7, channels, *size)
    windows = F.unfold(noise, 3).view(7, channels, 9, -1)
    predicted = (windows * filters.flatten(2)[..., None]).sum(2)
    torch.testing.assert_close(predicted, windows[:, :, 8], rtol=1e-9, atol=1e-12)
    assert (noise.flatten(1).norm(dim=1) > 0).all()


def test_starts_are_random_for_every_picture_and_channel() -> None:
    same = normalised(1, 1, 0).expand(500, 3, 3, 3)
    noise = _generate(same, torch.Size((6, 6)), torch.Generator().manual_seed(1)).flatten(2)[:, :, 0]
    spread = noise.std(0)
    assert torch.allclose(spread, spread.mean().expand(3), rtol=0.2)  # √(2/500)/√2 = 4.5 %: far beyond chance
    assert (torch.corrcoef(noise.T) - torch.eye(3)).abs().max() < 5 / 500**0.5


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 9, 13)])
def test_filters_sum_to_one_stay_bounded_and_respond_to_the_noise_of_later_ones(shape: tuple[int, ...]) -> None:
    response = 5.0
    filters = _find(4, torch.Size(shape), 50.0, response, 100_000, torch.Generator().manual_seed(0))
    assert filters.shape == (4, shape[0], 3, 3)
    torch.testing.assert_close(filters.sum((2, 3)), torch.ones(4, shape[0]))
    assert not filters[..., 2, 2].any()
    noise = _generate(filters.repeat_interleave(100, 0), torch.Size(shape[1:]), torch.Generator().manual_seed(5))
    norms = noise.flatten(1).norm(dim=1)
    limit = 50 * (torch.tensor(shape).prod() / 3072) ** 0.5
    assert (norms <= limit).float().mean() > 0.5, "starts other than those that were tried"
    unit = noise / norms[:, None, None, None]
    matching = filters.clone()
    matching[..., 2, 2] = -1
    heard = F.conv2d(unit, matching).relu().sum((2, 3)).view(4, 100, 4).median(1).values
    assert heard.diagonal().max() < 1e-4, "a filter answers its own noise with 0"
    later = torch.tril(torch.ones(4, 4), -1).bool()
    assert heard[later].min() > 0.5 * response * ((shape[1] - 2) * (shape[2] - 2)) ** 0.5 / 30


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 9, 13)])
@pytest.mark.parametrize("radius", [0.2, 1.0, 5.0])
def test_the_budget_holds_as_published(shape: tuple[int, ...], radius: float) -> None:
    images = pictures(60, shape)
    noise = ar(images, **QUICK | {"radius": radius})
    change = (images.with_(noise).images.int() - images.images.int()).double() / 255
    norms = change.flatten(1).norm(dim=1)
    assert 0.4 * radius < norms.max() <= radius * (1 + 1e-8)
    assert noise.levels.min() < 0 < noise.levels.max()


def test_a_class_has_one_filter_and_a_picture_its_own_noise() -> None:
    """On grey pictures nothing is clipped: least squares reads the same filter off every picture of a class."""
    images = pictures(60, (1, 28, 28), 128)
    delta = ar(images, radius=5.0, response=1.0, seed=2).delta
    assert len(delta.flatten(1).unique(dim=0)) == 60
    windows = F.unfold(delta, 3)

    def residual(fit: torch.Tensor, judge: torch.Tensor) -> float:
        """Of predicting the last pixel of `judge`'s windows with the filter that fits `fit`'s, as a share."""
        before, last = (part.transpose(0, 1).flatten(1) for part in (fit[:, :8], fit[:, 8:]))
        weights = torch.linalg.lstsq(before.T, last.T).solution
        before, last = (part.transpose(0, 1).flatten(1) for part in (judge[:, :8], judge[:, 8:]))
        return float((weights.T @ before - last).norm() / last.norm())

    one, other = windows[images.labels == 0], windows[images.labels == 1]
    assert residual(one[:10], one[10:]) < 0.1 < 0.3 < residual(one[:10], other)


def test_filters_answer_their_class_less_than_random_noise() -> None:
    """What AR is for: the class's filter, less the pixel itself, is near 0 on its noise, and not on random noise."""
    images = pictures(60, (1, 28, 28), 128)
    filters = _find(3, torch.Size((1, 28, 28)), 50.0, 5.0, 100_000, torch.Generator().manual_seed(0))
    filters[..., 2, 2] = -1
    noise = ar(images, radius=2.0, response=5.0).delta
    random = torch.randn(noise.shape, generator=torch.Generator().manual_seed(0))
    random *= noise.flatten(1).norm(dim=1)[:, None, None, None] / random.flatten(1).norm(dim=1)[:, None, None, None]
    own, control = (F.conv2d(x, filters).abs().mean((2, 3))[torch.arange(60), images.labels] for x in (noise, random))
    assert own.max() < 0.25 * control.min()


def test_new_pictures_get_the_same_filters_and_a_seed_repeats_the_noise() -> None:
    images = pictures(60, (1, 12, 12), 128)
    state = torch.get_rng_state()
    one, again, other = (ar(images, **QUICK | {"radius": 3.0, "seed": seed}) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.levels, again.levels)
    assert not torch.equal(one.levels, other.levels)
    # Which starts a picture gets is its place's matter, so the noise differs; the filter answers both with nearly 0.
    part = images.subset(torch.arange(30, 60))
    filters = _find(3, torch.Size((1, 12, 12)), 50.0, 1.0, 100_000, torch.Generator().manual_seed(0))
    filters[..., 2, 2] = -1
    new = ar(part, **QUICK | {"radius": 3.0}).delta
    own = F.conv2d(new, filters).abs().mean((2, 3))
    assert torch.equal(own.argmin(1), part.labels)


@pytest.mark.parametrize("setting", [{"radius": 0.4}, {"response": 6.0}, {"most_norm": 25.0}])
def test_each_setting_reaches_the_method(setting: dict[str, Any]) -> None:
    images = pictures(30, (1, 12, 12))
    noise = ar(images, **QUICK | setting)
    assert not torch.equal(noise.levels, ar(images, **QUICK).levels)
    assert noise.settings == {"radius": 0.2, "most_norm": 50.0, "response": 1.0, "tries": 10**6, "seed": 0} | setting


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": 0}, r"radius: got 0, expected a number in \(0, 12\]"),
        ({"radius": 0.02}, r"radius: got 0\.02, expected at least 0\.04706 for 1×12×12"),
        ({"most_norm": 0}, "most_norm: got 0, expected a finite number > 0"),
        ({"response": -1}, "response: got -1, expected a finite number >= 0"),
        ({"tries": 0}, "tries: got 0, expected a whole number >= 1"),
        (
            {"tries": 600, "response": 1e6},
            "tries: got 600, expected more, or milder limits: 1 filters were found for 3",
        ),
        ({"seed": -1}, "seed: got -1, expected a whole number >= 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ar(pictures(30, (1, 12, 12)), **QUICK | settings)


def test_a_picture_smaller_than_a_filter_is_refused() -> None:
    with pytest.raises(ValueError, match="images: got 2×12 pixels, expected 3×3 or more"):
        ar(pictures(30, (1, 2, 12)), **QUICK)


def test_the_search_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 10_000, 3))
    module = importlib.import_module("miue_lib.noise.ar")  # the package has a function of that name
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(seconds)))
    lines: list[str] = []
    with pytest.raises(ValueError, match="tries: got 2048"):
        ar(pictures(30, (1, 12, 12)), progress=lines.append, **QUICK | {"response": 1e6, "tries": 2048})
    assert lines == ["ar: 1 of 3 filters, 1,024 tried, 6 s", "ar: 1 of 3 filters, 2,048 tried, 12 s"]
