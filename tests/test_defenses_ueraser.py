"""UEraser: its augmentations are those of the literature, and the draw that it takes is the worst."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

import miue_lib as mi
from miue_lib.defenses.ueraser import OPERATIONS, UEraser, plasma, trivial_augment

Bands = tuple[mi.ImageSet, mi.ImageSet]
BILINEAR = InterpolationMode.BILINEAR


@pytest.fixture(scope="module")
def model(easy: Bands) -> mi.Classifier:
    model = mi.build("small_resnet", easy[0])
    mi.fit(model, easy[0], epochs=6, batch_size=32, crop=0, flip=False)
    return model.train()


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def affine(picture: Tensor, x: float = 0, y: float = 0, shear: tuple[float, float] = (0, 0)) -> Tensor:
    degrees = [math.degrees(math.atan(slope)) for slope in shear]
    return tv.affine(picture, 0.0, [x, y], 1.0, degrees, interpolation=BILINEAR)


# What an operation does to one picture, in torchvision's words; strength t from 0 to 1.
REFERENCE: dict[str, Callable[[Tensor, float], Tensor]] = {
    "rotate": lambda picture, t: tv.rotate(picture, 30 * (2 * t - 1), interpolation=BILINEAR),
    "shear x": lambda picture, t: affine(picture, shear=(0.3 * (2 * t - 1), 0)),
    "shear y": lambda picture, t: affine(picture, shear=(0, 0.3 * (2 * t - 1))),
    "translate x": lambda picture, t: affine(picture, x=(0.5 - t) * picture.shape[-1]),
    "translate y": lambda picture, t: affine(picture, y=(0.5 - t) * picture.shape[-2]),
    "brightness": lambda picture, t: tv.adjust_brightness(picture, 0.1 + 1.8 * t),
    "contrast": lambda picture, t: tv.adjust_contrast(picture, 0.1 + 1.8 * t),
    "sharpness": lambda picture, t: tv.adjust_sharpness(picture, 0.1 + 1.8 * t),
    "posterize": lambda picture, t: tv.posterize(picture, min(4, 1 + int(4 * t))),
    "solarize": tv.solarize,
    "autocontrast": lambda picture, t: tv.autocontrast(picture),
    "equalize": lambda picture, t: tv.equalize(picture),
}


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_goes_through_torchvisions_operations_picture_by_picture(channels: int) -> None:
    strengths = [0, 0.125, 0.3125, 0.5, 0.75, 1]  # exact in float32
    mixed = torch.randperm(72, generator=seed(1))  # each operation at each strength, in any order
    operation, strength = mixed % 12, torch.tensor(strengths)[mixed // 12]
    pictures = torch.rand((72, channels, 14, 18), generator=seed()) * 0.8 + 0.1
    before = pictures.clone()
    changed = trivial_augment(pictures, operation, strength)
    assert torch.equal(pictures, before), "not in place"
    assert list(REFERENCE) == list(OPERATIONS)
    names = list(OPERATIONS)
    for row, (picture, number, t) in enumerate(zip(pictures, operation.tolist(), strength.tolist(), strict=True)):
        # A place that is read from is up to 18 pixels away, and rounded a few times: by less than 8 · 18 · 2⁻²³ of a
        # pixel along each side, over which a picture changes by less than 1. Other operations round numbers below 4.
        error = (changed[row] - REFERENCE[names[number]](picture, t)).abs().max()
        assert error <= 2 * 8 * 18 * 2**-23, names[number]
    assert 0 <= changed.min() <= changed.max() <= 1


@pytest.mark.parametrize("side", [(1, 1), (5, 9), (28, 28), (32, 33)])
def test_a_fractal_lies_in_range_and_is_one_half_on_average(side: tuple[int, int]) -> None:
    n = 1000
    maps = plasma(torch.rand(n, generator=seed()), *side, seed(1))
    assert maps.shape == (n, *side)
    assert 0 <= maps.min() <= maps.max() <= 1
    # Each point is a mean of uniform numbers: a standard deviation of at most 1/√12. 5 of them, for a thousand points.
    assert (maps.double().mean(0) - 0.5).abs().max() < 5 / (12 * n) ** 0.5


def test_a_fractal_without_roughness_is_smooth_and_with_all_of_it_noise() -> None:
    n = 4000
    smooth, rough = plasma(torch.zeros(n), 5, 5, seed()), plasma(torch.ones(n), 5, 5, seed())
    corners = smooth[:, ::4, ::4]
    torch.testing.assert_close(smooth[:, 2, 2], corners.mean((1, 2)))
    torch.testing.assert_close(smooth[:, 0, 2], (corners[:, 0].sum(1) + smooth[:, 2, 2]) / 3)
    torch.testing.assert_close(smooth[:, 2, 4], (corners[:, :, 1].sum(1) + smooth[:, 2, 2]) / 3)
    torch.testing.assert_close(smooth[:, 1, 1], smooth[:, :3:2, :3:2].mean((1, 2)))
    inner = (smooth[:, 0, 2] + smooth[:, 2, 2] + smooth[:, 1, 1] + smooth[:, 1, 3]) / 4
    torch.testing.assert_close(smooth[:, 1, 2], inner)
    # New points of the 5 × 5 grid are then uniform and independent. A product of two that are centred has the standard
    # deviation 1/12, a square (x − ½)² has √(1/180).
    one, other = rough[:, 1, 2].double() - 0.5, rough[:, 1, 1].double() - 0.5
    assert float((one * other).mean()) == pytest.approx(0, abs=4 / 12 / n**0.5)
    assert float(one.square().mean()) == pytest.approx(1 / 12, abs=4 * (1 / 180 / n) ** 0.5)


def test_noise_shrinks_from_grid_to_grid() -> None:
    n, r = 2000, 0.5
    maps = plasma(torch.full((n,), r), 9, 9, seed())
    for spacing, share in ((4, r), (2, r**2)):
        grid = maps[:, ::spacing, ::spacing]
        mean = (grid[:, :-1, :-1] + grid[:, 1:, :-1] + grid[:, :-1, 1:] + grid[:, 1:, 1:]) / 4
        noise = (maps[:, spacing // 2 :: spacing, spacing // 2 :: spacing] - (1 - share) * mean) / share
        # Uniform in [0, 1], up to the rounding of numbers below 1, divided by a share of at least ¼. Of 8,000 the
        # largest is below 0.99 with the probability 0.99⁸⁰⁰⁰ = 10⁻³⁵.
        assert -4 * 4 * 2**-24 <= noise.min() < 0.01
        assert 0.99 < noise.max() <= 1 + 4 * 4 * 2**-24


@pytest.mark.parametrize(
    ("grey", "unchanged"),
    # Of twelve operations six change nothing in a picture that is all 0.5, and no contrast does; half are brightened.
    # In one that is all 0.3 four change nothing, and solarisation with the probability 0.7; a quarter gets neither.
    [(0.5, 6 / 12 / 2), (0.3, (4 + 0.7) / 12 / 4)],
)
def test_half_of_the_pictures_get_each_fractal(grey: float, unchanged: float) -> None:
    n = 4096
    pictures = torch.full((n, 1, 12, 12), grey)
    seen, _ = UEraser(draws=1)(nn.Identity(), pictures, torch.zeros(n, dtype=torch.int64), seed())
    # Equalisation rounds to 8 bits. Within 0.01 are also the least moves: below a fortieth of those of six operations.
    same = ((seen - pictures).abs() < 0.01).flatten(1).all(1).double().mean()
    error = (unchanged * (1 - unchanged) / n) ** 0.5
    assert -4 * error < float(same) - unchanged < 4 * error + 6 / 12 / 4 / 40


def test_channels_are_shuffled() -> None:
    n = 4096
    pictures = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1).expand(n, 3, 12, 12)
    seen, _ = UEraser(draws=1)(nn.Identity(), pictures, torch.zeros(n, dtype=torch.int64), seed())
    flat = (seen.flatten(2) - seen[:, :, :1, 0]).abs().amax((1, 2)) < 0.01
    sorted_ = (seen[:, :, 0, 0].sort(1).values - pictures[:, :, 0, 0]).abs().amax(1) < 0.01
    moved = (seen[:, :, 0, 0] - pictures[:, :, 0, 0]).abs().amax(1) > 0.01
    # No fractal (1/4), and one of twelve operations that leaves the values: sharpening, equalising, stretching, or
    # solarisation above 0.8 (0.2), after half · 5/6 were shuffled; or solarisation below 0.2 (0.2), which reverses
    # them, if that is not what the shuffling undoes (1/12).
    expected = (3.2 * 5 / 12 + 0.2 * 11 / 12) / 12 / 4
    error = (expected * (1 - expected) / n) ** 0.5
    assert float((flat & sorted_ & moved).double().mean()) == pytest.approx(expected, abs=4 * error)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_draw_that_is_taken_is_the_worst(easy: Bands, model: mi.Classifier, channels: int) -> None:
    pictures, labels = easy[1].floats().repeat(1, channels, 1, 1), easy[1].labels
    if channels == 3:
        colour = mi.ImageSet(easy[0].images.repeat(1, 3, 1, 1), easy[0].labels)
        model = mi.build("small_resnet", colour).train()
    worst, targets = UEraser(draws=4)(model, pictures, labels, seed())
    assert torch.equal(targets, labels)
    generator = seed()
    draws = [UEraser(draws=1)(model, pictures, labels, generator)[0] for _ in range(4)]
    with torch.no_grad():
        # All draws in one batch, whose statistics batch normalisation uses.
        logits = copy.deepcopy(model)(torch.cat(draws).contiguous(memory_format=torch.channels_last))
    losses = F.cross_entropy(logits, labels.repeat(4), reduction="none").view(4, -1)
    taken = losses.argmax(0)
    top = losses.sort(0, descending=True).values
    clear = top[0] - top[1] > 0.05 * (1 + top[0])  # half precision, where there is some, may order others differently
    assert clear.double().mean() > 0.5
    assert len(taken[clear].unique()) == 4
    rows = clear.nonzero()[:, 0]
    assert all(torch.equal(worst[row], draws[taken[row]][row]) for row in rows.tolist())


def test_one_draw_asks_no_model(easy: Bands) -> None:
    class Failing(nn.Module):
        def forward(self, pictures: Tensor) -> Tensor:
            raise RuntimeError("asked")

    pictures, labels = easy[1].floats(), easy[1].labels
    seen, targets = UEraser(draws=1)(Failing(), pictures, labels, seed())
    assert seen.shape == pictures.shape
    assert torch.equal(targets, labels)
    with pytest.raises(RuntimeError, match="asked"):
        UEraser()(Failing(), pictures, labels, seed())


@pytest.mark.parametrize("draws", [1, 3])
def test_nothing_else_changes(easy: Bands, model: mi.Classifier, draws: int) -> None:
    pictures, labels = easy[1].floats(), easy[1].labels.clone()
    F.cross_entropy(model(pictures), labels).backward()
    state, torch_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    slopes = [parameter.grad.clone() for parameter in model.parameters()]
    one, same, other = (UEraser(draws=draws)(model, pictures, labels, seed(number))[0] for number in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == pictures.shape
    assert one.dtype == torch.float32
    assert not one.requires_grad
    assert 0 <= one.min() <= one.max() <= 1
    assert torch.equal(pictures, easy[1].floats()), "not in place"
    assert torch.equal(labels, easy[1].labels)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items()), "running statistics too"
    assert all(torch.equal(p.grad, slope) for p, slope in zip(model.parameters(), slopes, strict=True))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.is_grad_enabled()


def test_dropout_while_scoring_is_drawn_from_the_generator(easy: Bands) -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(144, 3)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, pictures: Tensor) -> Tensor:
            self.calls += 1
            if pictures.isnan().any():
                raise RuntimeError("no")
            return self.head(F.dropout(pictures.flatten(1), 0.5, self.training))

    model, before = Dropping(), torch.get_rng_state()
    one, same = (UEraser()(model, easy[1].floats(), easy[1].labels, seed())[0] for _ in range(2))
    assert torch.equal(one, same)
    buffer = model.calls
    with pytest.raises(RuntimeError, match="no"):
        UEraser()(model, torch.full((4, 1, 12, 12), math.nan), torch.zeros(4, dtype=torch.int64), seed())
    assert torch.equal(torch.get_rng_state(), before)
    assert model.calls is buffer
    assert buffer == 0


def test_bad_settings_are_refused(model: mi.Classifier) -> None:
    with pytest.raises(ValueError, match="draws: got 0, expected a whole number >= 1"):
        UEraser(draws=0)
    with pytest.raises(ValueError, match="pictures: got 4 channels, expected 1 or 3"):
        UEraser()(model, torch.zeros(2, 4, 12, 12), torch.zeros(2, dtype=torch.int64), seed())
