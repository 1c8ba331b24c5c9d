"""A rate-constrained VAE as a purifier: what is simple comes back, no more is told than the rate allows."""

import pytest
import torch

from miue_lib import ImageSet
from miue_lib.defenses.vae import vae

QUICK = {"training_steps": 2, "width": 8, "latent": 4, "batch_size": 8}
LEARNT = {"training_steps": 120, "width": 8, "latent": 4, "batch_size": 16, "learning_rate": 1e-2}


def pictures(n: int = 32, height: int = 8, width: int = 8, channels: int = 1) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (n, channels, height, width), generator=generator, dtype=torch.uint8)
    return ImageSet(values, torch.arange(n) % 2, ("cat", "dog"), "small")


def flat() -> ImageSet:
    """Pictures of one level each: one number tells all of them."""
    levels = torch.randint(0, 256, (64, 1, 1, 1), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return ImageSet(levels.expand(64, 1, 8, 8), torch.zeros(64, dtype=torch.int64))


def error(a: ImageSet, b: ImageSet) -> float:
    """The mean square difference, of pixel values."""
    return float((a.floats() - b.floats()).square().mean())


def test_training_brings_simple_pictures_back() -> None:
    given = flat()
    spread = float(given.floats().var())
    assert error(vae(given, **LEARNT, rate=0.25), given) < spread / 4
    assert error(vae(given, **LEARNT | {"training_steps": 1}, rate=0.25), given) > spread / 2


@pytest.mark.parametrize("nats", [0.5, 1.0])
def test_no_more_is_told_than_the_rate_allows(nats: float) -> None:
    given = flat()
    found = vae(given, **LEARNT, rate=nats / 64)
    # R nats leave a normal number at least e^(−2R) of its variance; a uniform one, whose entropy power is 6/(πe) of its
    # variance, that much of it (Shannon's lower bound). A tenth more nats are allowed for fluctuations.
    least = 6 / (torch.pi * torch.e) * torch.tensor(-2 * 1.1 * nats).exp()
    assert error(found, given) > least * float(given.floats().var())


def test_more_nats_tell_more() -> None:
    given = flat()
    assert error(vae(given, **LEARNT, rate=2 / 64), given) < error(vae(given, **LEARNT, rate=0.2 / 64), given) / 2


def test_blank_pictures_stay_finite() -> None:
    blank = ImageSet(torch.zeros((8, 1, 8, 8), dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))
    assert error(vae(blank, **LEARNT), blank) < 1e-2


def test_only_the_pixels_and_the_name_change() -> None:
    given = pictures(channels=3)
    before = given.images.clone()
    found = vae(given, **QUICK)
    assert found.images.dtype == torch.uint8 and found.images.shape == given.images.shape
    assert not torch.equal(found.images, before) and torch.equal(given.images, before)
    assert torch.equal(found.labels, given.labels) and found.classes == given.classes
    assert found.name == "small, D-VAE"


def test_the_seed_decides_and_nothing_global_moves() -> None:
    given, state = pictures(), torch.random.get_rng_state()
    with torch.no_grad():
        first = vae(given, **QUICK)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(vae(given, **QUICK).images, first.images)
    assert not torch.equal(vae(given, seed=1, **QUICK).images, first.images)


@pytest.mark.parametrize(("height", "width"), [(7, 9), (1, 2)])
def test_any_size_fits(height: int, width: int) -> None:
    assert vae(pictures(8, height, width), **QUICK).images.shape == (8, 1, height, width)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 0}, "rate: got 0, expected a finite number > 0"),
        ({"training_steps": 0}, "training_steps: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"width": 0}, "width: got 0"),
        ({"latent": 0}, "latent: got 0"),
        ({"learning_rate": 0}, "learning_rate: got 0"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vae(pictures(), **QUICK | settings)


def test_training_that_fails_is_told() -> None:
    with pytest.raises(FloatingPointError, match="a smaller learning_rate may help"):
        vae(pictures(), **QUICK | {"learning_rate": 1e30})


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="images: got an empty set, expected at least one picture"):
        vae(pictures().subset([]))
