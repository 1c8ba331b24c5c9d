"""Models whose answer to every attack, and whose bend, is known in closed form."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import miue_lib as mi
from miue_lib.attack import Attack
from miue_lib.explain import local_linearity, robust_accuracy


class Features(nn.Module):
    """Logits that are `of` the pixels `(n, d)`, plus, for every class alike, `extra` times their sum of squares."""

    def __init__(self, of: nn.Module, extra: float = 0.0) -> None:
        super().__init__()
        self.of, self.extra = of, extra

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def head(self, features: Tensor) -> Tensor:
        return self.of(features) + self.extra * features.square().sum(1, keepdim=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class Opposite(nn.Module):
    """The logits (0, g) of pictures of one pixel."""

    def __init__(self, g: object) -> None:
        super().__init__()
        self.g = g

    def forward(self, pixel: Tensor) -> Tensor:
        return torch.cat((torch.zeros_like(pixel), self.g(pixel)), 1)


def linear(pixels: int, classes: int, seed: int = 0) -> nn.Linear:
    """A fixed linear layer of weights in quarters from −1 to 1, which every precision holds."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(pixels, classes, bias=False)
    layer.weight.data = torch.randint(-4, 5, (classes, pixels), generator=generator) / 4
    return layer


def pictures(n: int, side: int, classes: int, seed: int = 0) -> mi.ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 1, side, side), generator=generator, dtype=torch.uint8)
    return mi.ImageSet(images, torch.arange(n) % classes)


def grey(n: int, level: int) -> mi.ImageSet:
    """Pictures of one pixel, all of the first of two classes."""
    images = torch.full((n, 1, 1, 1), level, dtype=torch.uint8)
    return mi.ImageSet(images, torch.zeros(n, dtype=torch.int64), ("a", "b"))


@pytest.fixture(scope="module")
def learnt(easy: tuple[mi.ImageSet, mi.ImageSet]) -> mi.Classifier:
    """A network that knows the bands."""
    model = mi.build("small_resnet", easy[0])
    mi.fit(model, easy[0], epochs=1, batch_size=32, crop=0, flip=False)
    return model


@pytest.fixture(scope="module")
def some_wrong(easy: tuple[mi.ImageSet, mi.ImageSet]) -> mi.ImageSet:
    """Bands, every fourth with the label of another one."""
    images = easy[1]
    return mi.ImageSet(images.images, (images.labels + (torch.arange(len(images)) % 4 == 0)) % 3)


@pytest.mark.parametrize("radius", [0.04, 0.1])
def test_a_linear_model_falls_exactly_where_the_closed_form_says(radius: float) -> None:
    layer, images = linear(64, 2), pictures(1500, 8, 2)  # three batches, the last not full
    x, weight = images.floats().flatten(1).double(), layer.weight.detach().double()
    toward = weight[1 - images.labels] - weight[images.labels]  # w_j − w_y, where the strongest attack goes
    room = torch.where(toward > 0, 1 - x, x).clamp_max(radius)  # radius · ‖w_j − w_y‖₁, but for the pixels' range
    margin = -(toward * x).sum(1)
    left = margin - (toward.abs() * room).sum(1)
    # Autocast rounds a pixel and a logit by at most 2⁻⁹ of its size: a margin of two logits, by four such roundings.
    rounding = 4 * 2**-9 * ((x + radius) @ weight.abs().sum(0))
    sure = torch.minimum(margin.abs(), left.abs()) > rounding
    chosen = images.subset(sure)
    expected, plain = (float((kept[sure] > 0).double().mean()) for kept in (left, margin))
    assert len(chosen) > 1100
    assert 0.01 < expected < plain - 0.05
    assert robust_accuracy(Features(layer), chosen, radius=radius) == expected
    assert robust_accuracy(Features(layer), chosen, radius=radius, steps=3, seed=5) == expected


def test_radius_0_is_accuracy(learnt: mi.Classifier, some_wrong: mi.ImageSet) -> None:
    plain = mi.accuracy(learnt, some_wrong)
    assert 1 / 3 < plain < 1
    assert robust_accuracy(learnt, some_wrong, radius=0) == plain
    assert robust_accuracy(learnt, some_wrong, radius=0.2) < plain


def test_the_step_is_that_of_madry(learnt: mi.Classifier, some_wrong: mi.ImageSet) -> None:
    steps = (None, 2.5 * 0.1 / 4, 0.001)
    found = [robust_accuracy(learnt, some_wrong, radius=0.1, step=step, steps=4) for step in steps]
    assert found[0] == found[1] < found[2]
    assert robust_accuracy(learnt, some_wrong, radius=1, steps=1) <= found[0]  # where 2.5 · 1 is more than a pixel has


def test_a_wrong_picture_that_the_attack_puts_right_stays_wrong() -> None:
    # Wrong only within 0.1 of 0.5. One step of 1 toward the peak overshoots it, to the other end of the budget.
    model, images = Features(Opposite(lambda pixel: 0.1 - (pixel - 0.5).abs())), grey(50, 127)
    attack = Attack(radius=0.25, step=1, steps=1)
    moved = attack(model, images.floats(), images.labels, torch.Generator().manual_seed(0))
    assert bool((model(moved).argmax(1) == images.labels).all())
    assert robust_accuracy(model, images, radius=0.25, step=1, steps=1) == 0


def test_a_linear_model_is_linear() -> None:
    layer, images, radius = linear(64, 5), pictures(600, 8, 5), 8 / 255
    weight = layer.weight.detach()
    # A sum of d products is off by at most (d + 1) u Σ|w||x|, u = 2⁻²⁴, and f(x + d), f(x) and J d are three of
    # them; centring at most doubles that. d itself is rounded with x + d: one more u for each product.
    off = (
        2 * 3 * (64 + 2) * 2**-24 * float((weight.abs() @ (images.floats().flatten(1) + radius).T).max()) * math.sqrt(5)
    )
    # A centred logit changes by radius · Σ ±v, with v its weight less the mean; E|Σ ±v| ≥ ‖v‖/√2 (Khinchin).
    change = radius * float((weight - weight.mean(0)).norm(dim=1).max()) / math.sqrt(2)
    assert off / change < 0.02
    assert abs(local_linearity(Features(layer), images, radius=radius) - 1) < off / change


def test_a_parabola_is_as_linear_as_it_should_be() -> None:
    n, radius, level = 2000, 0.2, 128
    x = level / 255
    found = local_linearity(Features(Opposite(torch.square)), grey(n, level), radius=radius)
    # (x ± r)² − x² = ±2xr + r², of which r² is missed; with s the mean of n signs the mean change is r (2x + r s). The
    # deviation of s is 1/√n, and the ratio r / (2x + r s) moves by r² / (2x)² as s does.
    assert abs(found - (1 - radius / (2 * x))) < 3 / math.sqrt(n) * radius**2 / (2 * x) ** 2 + 1e-5
    assert local_linearity(Features(Opposite(torch.square)), grey(n, 0), radius=radius) == pytest.approx(0, abs=1e-6)


def test_a_derivative_can_be_worse_than_none() -> None:
    # sin(8πx) at 0 rises steeply and is back at 0 after 1/8; at r = 0.12 it changes by sin(0.96π), not by 0.96π.
    wave = Features(Opposite(lambda pixel: (8 * math.pi * pixel).sin()))
    right = math.sin(0.96 * math.pi)
    expected = 1 - (0.96 * math.pi - right) / right
    # Float32: the angle is off by less than 1e-6 and the sine as much, beside a change of 0.125, 24 times over.
    assert local_linearity(wave, grey(20, 0), radius=0.12) == pytest.approx(expected, abs=2 * 24 * 1e-6 / 0.125)


def test_what_is_added_to_all_logits_does_not_count() -> None:
    layer, images = linear(16, 3), pictures(100, 4, 3)
    bent = local_linearity(Features(layer, extra=10), images, radius=0.1)
    # Rounding of logits near 10 · Σx² ≈ 60, by 16 u each, against changes of 0.1 and more.
    assert abs(bent - 1) < 6 * 16 * 2**-24 * 200 / 0.1
    assert abs(local_linearity(Features(layer), images, radius=0.1) - 1) < 1e-4


# The largest take minutes in float64, and are made of the same layers as the small ones.
@pytest.mark.parametrize("name", [name for name in mi.MODELS if name not in ("vit_b", "densenet121", "resnet50")])
def test_it_agrees_with_a_difference_quotient(name: str, tiny: mi.ImageSet) -> None:
    x, radius, h = tiny.floats().double(), 0.05, 1e-9
    model, seen = mi.build(name, tiny, seed=2), []
    hook = model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    found = local_linearity(model, tiny, radius=radius)
    hook.remove()
    moves = (seen[-1].double() - x) / radius  # what it was asked for last is x + d
    assert torch.allclose(moves.abs(), torch.ones_like(x), atol=2**-24 / radius)
    # Whether a pixel rises is a coin: half of the pixels, a standard error of half the root of their number.
    assert abs(int((moves > 0).sum()) - x.numel() / 2) < 3 * math.sqrt(x.numel()) / 2
    exact = model.double().eval()

    def f(step: float) -> Tensor:
        logits = exact(x + step * moves)
        return logits - logits.mean(1, keepdim=True)

    with torch.no_grad():
        change, slope = f(radius) - f(0), (f(h) - f(-h)) / (2 * h)
    expected = 1 - (change - radius * slope).norm(dim=1).sum() / change.norm(dim=1).sum()
    if name == "linear":
        assert expected == pytest.approx(1, abs=1e-6)  # rounding in the slope: 1e-16 / h
    else:
        assert 0.05 < expected < 0.95  # neither straight nor all bends: something is measured
    # Float32 is off by about 1e-6, so of a million rectified units about one lies on the other side of 0, and moves the
    # derivative of its picture by a few per cent. Three such pictures of 96 that are off by 5 % make 0.0016.
    assert found == pytest.approx(float(expected), abs=2e-3)


@pytest.mark.parametrize("measure", [robust_accuracy, local_linearity])
def test_a_seed_decides_and_everything_stays(measure: object, learnt: mi.Classifier, some_wrong: mi.ImageSet) -> None:
    model = copy.deepcopy(learnt).train()
    model.body[3].eval()  # a part that its owner has set apart
    modes = [module.training for module in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.body[2].weight.grad = torch.ones_like(model.body[2].weight)
    slopes = [parameter.grad for parameter in model.parameters()]
    before = torch.random.get_rng_state()

    assert measure(model, some_wrong, radius=0.03, seed=4) == measure(model, some_wrong, radius=0.03, seed=4)
    if measure is local_linearity:  # ten steps of an attack end in the same place wherever they start
        assert measure(model, some_wrong, radius=0.03, seed=4) != measure(model, some_wrong, radius=0.03, seed=5)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(one.grad is other for one, other in zip(model.parameters(), slopes, strict=True))
    assert bool((model.body[2].weight.grad == 1).all())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.is_grad_enabled()
    assert torch.equal(torch.random.get_rng_state(), before)


class Fails(Features):
    """Breaks off on more than one picture: after `check_model` tried it."""

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > 1:
            raise RuntimeError("out of memory")
        return super().forward(images)


@pytest.mark.parametrize("measure", [robust_accuracy, local_linearity])
def test_after_an_error_everything_is_as_it_was(measure: object) -> None:
    model = Fails(linear(16, 2)).train()
    with pytest.raises(RuntimeError, match="out of memory"):
        measure(model, pictures(20, 4, 2), radius=0.1)
    assert model.training
    assert model.of.weight.requires_grad
    assert torch.is_grad_enabled()
    assert F.linear(torch.ones(1, 16), model.of.weight).requires_grad


@pytest.mark.parametrize(
    ("measure", "settings", "message"),
    [
        (robust_accuracy, {"radius": 1.5}, r"radius: got 1.5, expected a number in \[0, 1\]"),
        (robust_accuracy, {"radius": 0.1, "step": 0}, r"step: got 0, expected a number in \(0, 1\]"),
        (robust_accuracy, {"radius": 0.1, "steps": 0}, "steps: got 0, expected a whole number >= 1"),
        (robust_accuracy, {"radius": 0.1, "seed": -1}, "seed: got -1"),
        (local_linearity, {"radius": 0}, r"radius: got 0, expected a number in \(0, 1\]"),
        (local_linearity, {"radius": float("nan")}, "radius: got nan"),
        (local_linearity, {"radius": 0.1, "seed": 0.5}, "seed: got 0.5"),
        (
            robust_accuracy,
            {"radius": 0.1, "model": nn.Flatten()},
            "model: got Flatten, expected a module with features",
        ),
        (
            local_linearity,
            {"radius": 0.1, "model": Features(linear(16, 1))},
            "model: got 1 logits, expected one for each",
        ),
        (
            local_linearity,
            {"radius": 0.1, "model": Features(Opposite(torch.zeros_like))},
            "model: got logits that do not change within 0.1",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(measure: object, settings: dict, message: str) -> None:
    images = grey(9, 3) if isinstance(getattr(settings.get("model"), "of", None), Opposite) else pictures(9, 4, 2)
    with pytest.raises(ValueError, match=message):
        measure(**{"model": Features(linear(16, 2)), "images": images} | settings)
