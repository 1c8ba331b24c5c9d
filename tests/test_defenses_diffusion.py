"""Diffusion as a purifier: at time 0 nothing is lost, and later what the prior knows comes back."""

import pytest
import torch

from miue_lib import ImageSet
from miue_lib.defenses.diffusion import diffusion

QUICK = {"training_steps": 2, "width": 8, "batch_size": 8}


def pictures(n: int = 32, height: int = 8, width: int = 8, channels: int = 1, seed: int = 0) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 256, (n, channels, height, width), generator=generator, dtype=torch.uint8)
    return ImageSet(values, torch.arange(n) % 2, ("cat", "dog"), "small")


def distance(a: ImageSet, b: ImageSet) -> float:
    """The root mean square difference, in pixel values."""
    return float((a.floats() - b.floats()).square().mean().sqrt())


@pytest.mark.parametrize("steps", [1, 3])
def test_at_time_0_nothing_changes(steps: int) -> None:
    given = pictures()
    # σ² = 0.1 · 1e-6: pixel values move by σ/2 |ε − ε̂| = 1.6e-4 |ε − ε̂|, and half a level is 2e-3: twelve deviations.
    found = diffusion(given, time=1e-6, steps=steps, **QUICK)
    assert torch.equal(found.images, given.images)


def test_only_the_pixels_and_the_name_change() -> None:
    given = pictures(channels=3)
    before = given.images.clone()
    found = diffusion(given, **QUICK)
    assert found.images.dtype == torch.uint8 and found.images.shape == given.images.shape
    assert not torch.equal(found.images, before) and torch.equal(given.images, before)
    assert torch.equal(found.labels, given.labels) and found.classes == given.classes
    assert found.name == "small, diffusion"


def test_what_the_prior_does_not_hold_is_lost() -> None:
    known = pictures(1, seed=1)
    prior = known.subset([0] * 32)
    # At time 1, α² = e^−10.05: x_t hardly depends on the picture, and E[x | x_t] is the one that the prior holds.
    learnt, unlearnt = (
        diffusion(
            pictures(), prior=prior, time=1.0, steps=4, training_steps=n, width=8, batch_size=16, learning_rate=1e-2
        )
        for n in (120, 1)
    )
    wanted = known.subset([0] * 32)
    assert distance(learnt, wanted) < 2 / 3 * min(distance(unlearnt, wanted), distance(pictures(), wanted))


def test_pictures_of_a_simple_prior_come_back_from_noise() -> None:
    levels = torch.randint(64, 192, (32, 1, 1, 1), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    flat = ImageSet(levels.expand(32, 1, 8, 8), torch.zeros(32, dtype=torch.int64))
    found = diffusion(flat, time=0.1, training_steps=120, batch_size=16, width=8, learning_rate=1e-2)
    # Noise of σ/2α = 0.171 was added. The best estimate from 64 pixels would leave an eighth of it;
    # two thirds are asked of a minute network.
    assert distance(found, flat) < 0.171 * 2 / 3


def test_the_seed_decides_and_nothing_global_moves() -> None:
    given = pictures()
    state = torch.random.get_rng_state()
    with torch.no_grad():
        first = diffusion(given, **QUICK)
        assert not torch.is_grad_enabled()
    torch.rand(7)
    second = diffusion(given, prior=given, **QUICK)  # which no prior means
    assert torch.equal(first.images, second.images)
    assert not torch.equal(first.images, diffusion(given, seed=1, **QUICK).images)
    torch.random.set_rng_state(state)
    diffusion(given, **QUICK)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("height", "width"), [(7, 9), (1, 2)])
def test_any_size_fits(height: int, width: int) -> None:
    assert diffusion(pictures(8, height, width), **QUICK).images.shape == (8, 1, height, width)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": pictures(height=9)}, r"prior: got pictures \(32, 1, 9, 8\), expected some of \(1, 8, 8\) pixels"),
        ({"prior": pictures().subset([])}, r"prior: got pictures \(0, 1, 8, 8\)"),
        ({"time": 0}, r"time: got 0, expected a number in \(0, 1\]"),
        ({"time": 1.5}, "time: got 1.5"),
        ({"steps": 0}, "steps: got 0"),
        ({"training_steps": 0}, "training_steps: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"width": 0}, "width: got 0"),
        ({"learning_rate": 0}, "learning_rate: got 0"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diffusion(pictures(), **QUICK | settings)


def test_training_that_fails_is_told() -> None:
    with pytest.raises(FloatingPointError, match="a smaller learning_rate may help"):
        diffusion(pictures(), **QUICK | {"learning_rate": 1e30})


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="images: got an empty set, expected at least one picture"):
        diffusion(pictures().subset([]))
