"""Cutout, CutMix and MixUp: what goes where, with which weight, and how much of it on average."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import miue_lib as mi
from miue_lib.defenses.mixing import CutMix, Cutout, MixUp, seeded

DEFENSES = [Cutout(size=4), CutMix(), MixUp()]


@pytest.fixture(scope="module")
def model(tiny: mi.ImageSet) -> mi.Classifier:
    return mi.build("small_resnet", tiny).train()


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def distinct(n: int, side: int, channels: int = 1) -> Tensor:
    """Pictures in (0, 1) of which no two share a pixel value anywhere."""
    order = torch.randperm(n * channels * side * side, generator=seed(7)).view(n, channels, side, side)
    return (order + 1) / (order.numel() + 1)


def rectangle(pixels: Tensor) -> bool:
    """Whether true pixels `(H, W)` fill a rectangle."""
    return torch.equal(pixels, pixels.any(1)[:, None] & pixels.any(0)[None, :])


@pytest.mark.parametrize("size", [1, 4, 5])
def test_cutout_blanks_a_square_of_each_picture(tiny: mi.ImageSet, model: mi.Classifier, size: int) -> None:
    pictures = distinct(96, 12)
    cut, targets = Cutout(size=size)(model, pictures, tiny.labels, seed())
    assert torch.equal(targets, tiny.labels)
    blank = (cut != pictures)[:, 0]
    assert torch.equal(cut[:, 0][blank], model.mean.expand_as(cut)[:, 0][blank])
    heights, widths = blank.any(2).sum(1), blank.any(1).sum(1)
    assert all(map(rectangle, blank))
    assert heights.max() == widths.max() == size
    # A square of s whose centre is at an edge keeps s // 2 (or, of an odd s, one more) of its pixels there.
    assert min(int(heights.min()), int(widths.min())) >= max(1, size // 2)
    assert len({tuple(square.flatten().tolist()) for square in blank}) > 40, "each its own, of 144 centres"


def test_cutout_is_as_large_as_its_centre_allows(model: mi.Classifier) -> None:
    pictures = distinct(2000, 28)
    cut, _ = Cutout()(model, pictures, torch.zeros(2000, dtype=torch.int64), seed())
    area = (cut != pictures).double().sum((1, 2, 3))
    # Along a side s − s²/(4L), the two sides independent. An area is between s²/4 and s²: its standard deviation is at
    # most half of that range, 3s²/8. Kept inside, the square would have 256 pixels, not 188.
    assert float(area.mean()) == pytest.approx((16 - 16**2 / (4 * 28)) ** 2, abs=4 * 3 * 16**2 / 8 / 2000**0.5)


def test_cutout_of_a_square_larger_than_the_picture(tiny: mi.ImageSet, model: mi.Classifier) -> None:
    cut, _ = Cutout(size=24)(model, tiny.floats(), tiny.labels, seed())
    assert torch.equal(cut, model.mean.expand_as(cut))


def test_cutout_takes_the_mean_colour_of_the_batch_from_any_other_model() -> None:
    pictures = distinct(32, 12, channels=3) * torch.tensor([0.2, 0.5, 1.0]).view(3, 1, 1)
    cut, _ = Cutout(size=24)(nn.Identity(), pictures, torch.zeros(32, dtype=torch.int64), seed())
    assert torch.equal(cut, pictures.mean((0, 2, 3), keepdim=True).expand_as(cut))


def test_cutmix_pastes_a_rectangle_and_weighs_by_its_area(model: mi.Classifier) -> None:
    pictures, labels = distinct(3, 12), torch.tensor([0, 1, 2])
    shares = set()
    for number in range(50):
        mixed, targets = CutMix()(model, pictures, labels, seed(number))
        pasted = mixed == pictures.roll(1, 0)
        assert torch.equal(pasted, mixed != pictures), "a pixel is of one or of the other"
        assert torch.equal(pasted, pasted[:1].expand_as(pasted))
        assert rectangle(pasted[0, 0])
        share = float(pasted[0].double().mean())
        expected = (1 - share) * torch.eye(3, dtype=torch.float64) + share * torch.eye(3, dtype=torch.float64).roll(
            1, 0
        )
        # Half a unit in the last place of a float32 below 1, for each of the two factors and for their product.
        torch.testing.assert_close(targets.double(), expected, rtol=0, atol=2**-23)
        shares.add(share)
    assert len(shares) > 10


def test_cutmix_pastes_what_its_distribution_says(model: mi.Classifier) -> None:
    side, n = 12, 1500
    # λ is uniform, so √(1 − λ) is below r with probability r². Half of the rectangle is that times side / 2, rounded
    # down to k; it then covers s − s²/(4L) along a side on average, s = 2k.
    expected = 0.0
    for k in range(side // 2):
        probability = ((2 * k + 2) ** 2 - (2 * k) ** 2) / side**2
        expected += probability * ((2 * k - (2 * k) ** 2 / (4 * side)) / side) ** 2
    pictures, labels = torch.zeros(2, 1, side, side), torch.tensor([0, 1])
    generator = seed()
    pasted = torch.tensor([float(CutMix()(model, pictures, labels, generator)[1][0, 1]) for _ in range(n)])
    # A share is in [0, 1]: at most ½ of standard deviation.
    assert float(pasted.mean()) == pytest.approx(expected, abs=4 * 0.5 / n**0.5)
    assert 0.2 < expected < 0.3


def test_mixup_mixes_pictures_and_targets_alike(model: mi.Classifier) -> None:
    pictures, labels = distinct(3, 12), torch.tensor([2, 0, 1])
    mixed, targets = MixUp()(model, pictures, labels, seed())
    share = targets[0, 2]
    one_hot = torch.eye(3)[labels]
    # Three roundings of numbers below 1.
    assert torch.allclose(mixed, share * pictures + (1 - share) * pictures.roll(1, 0), rtol=0, atol=3 * 2**-24)
    assert torch.allclose(targets, share * one_hot + (1 - share) * one_hot.roll(1, 0), rtol=0, atol=3 * 2**-24)
    assert 0 < share < 1


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixup_draws_from_the_beta_distribution(model: mi.Classifier, alpha: float) -> None:
    generator, n = seed(), 1500
    pictures, labels = torch.zeros(2, 1, 2, 2), torch.tensor([0, 1])
    drawn = [float(MixUp(alpha=alpha)(model, pictures, labels, generator)[1][0, 0]) for _ in range(n)]
    shares = torch.tensor(drawn, dtype=torch.float64)
    variance = 1 / (4 * (2 * alpha + 1))  # of Beta(α, α)
    assert float(shares.mean()) == pytest.approx(0.5, abs=4 * (variance / n) ** 0.5)
    # (λ − ½)² is in [0, ¼] with the mean v, so its variance is at most v(¼ − v).
    error = (variance * (0.25 - variance) / n) ** 0.5
    assert float((shares - 0.5).square().mean()) == pytest.approx(variance, abs=4 * error)


@pytest.mark.parametrize("defense", [CutMix(), MixUp()])
def test_targets_are_as_wide_as_the_logits(tiny: mi.ImageSet, defense: Any) -> None:
    model = mi.Classifier(nn.Flatten(), 144, 7, torch.zeros(1), torch.ones(1))
    _, targets = defense(model, tiny.floats(), tiny.labels, seed())
    assert targets.shape == (96, 7)
    assert targets.dtype == torch.float32
    assert torch.allclose(targets.sum(1), torch.ones(96), rtol=0, atol=3 * 2**-24)
    assert not targets[:, 3:].any()
    with pytest.raises(ValueError, match="model: got Identity, expected a module with head.out_features"):
        defense(nn.Identity(), tiny.floats(), tiny.labels, seed())


@pytest.mark.parametrize("defense", DEFENSES)
def test_nothing_else_changes(tiny: mi.ImageSet, model: mi.Classifier, defense: Any) -> None:
    pictures, labels = tiny.floats(), tiny.labels.clone()
    state, torch_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    one = defense(model, pictures, labels, seed(1))
    assert torch.equal(torch.get_rng_state(), torch_state)
    torch.manual_seed(5)
    same, other = defense(model, pictures, labels, seed(1)), defense(model, pictures, labels, seed(2))
    torch.set_rng_state(torch_state)
    assert torch.equal(one[0], same[0])
    assert torch.equal(one[1], same[1])
    assert not torch.equal(one[0], other[0])
    assert one[0].shape == pictures.shape
    assert one[0].dtype == torch.float32
    assert 0 <= one[0].min() <= one[0].max() <= 1
    assert torch.equal(pictures, tiny.floats()), "not in place"
    assert torch.equal(labels, tiny.labels)
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_torch_draws_as_before_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no"), seeded(seed()):
        torch.rand(3)
        raise RuntimeError("no")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (Cutout, {"size": 0}, "size: got 0, expected a whole number >= 1"),
        (Cutout, {"size": 1.5}, r"size: got 1\.5, expected a whole number >= 1"),
        (CutMix, {"alpha": 0}, "alpha: got 0, expected a finite number > 0"),
        (MixUp, {"alpha": float("nan")}, "alpha: got nan, expected a finite number > 0"),
    ],
)
def test_bad_settings_are_refused(make: Any, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)
