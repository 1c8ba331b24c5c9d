"""The class-similarity loss: equal to its formula, finite where the formula overflows, and clear about bad input."""

import math

import pytest
import torch

from miue_lib import similarity_loss


def by_formula(
    g: torch.Tensor, y: torch.Tensor, tau: float, zeta: float, self_pairs: bool, others: bool
) -> torch.Tensor:
    """The loss as its docstring writes it, anchor by anchor, pair by pair."""
    losses = []
    for j in range(len(g)):
        same = everyone = distances = torch.zeros((), dtype=g.dtype)
        for k in range(len(g)):
            similarity = torch.exp(torch.dot(g[j], g[k]) / g[j].norm() / g[k].norm() / tau)
            counts = self_pairs or j != k
            if y[j] == y[k]:
                same = same + similarity * counts
                distances = distances + (0 if j == k else (g[j] - g[k]).norm() / g.shape[1])
            everyone = everyone + similarity * (y[j] != y[k] if others else counts)
        losses.append(-torch.log(same / everyone) + zeta * torch.log1p(distances))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("zeta", [0.0, 0.1])
@pytest.mark.parametrize("self_pairs", [True, False])
@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize("classes", [2, 5])
def test_value_and_gradient_equal_the_formula(
    tau: float, zeta: float, self_pairs: bool, others: bool, classes: int
) -> None:
    generator = torch.Generator().manual_seed(classes)
    y = torch.arange(13) % classes
    g = torch.randn(13, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    options = {"temperature": tau, "distance_weight": zeta, "self_pairs": self_pairs, "other_classes_only": others}
    wanted = by_formula(g, y, tau, zeta, self_pairs, others)
    (wanted_gradient,) = torch.autograd.grad(wanted, g, torch.tensor(-2.5, dtype=torch.float64))
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        features = g.detach().to(dtype).requires_grad_()
        value = similarity_loss(features, y, **options)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(value, features, torch.tensor(-2.5, dtype=dtype))
        assert (value - wanted).abs() <= tolerance * wanted.abs().clamp_min(1)
        assert float((gradient - wanted_gradient).norm() / wanted_gradient.norm()) <= tolerance


def test_collapsed_classes_reach_the_least_value() -> None:
    # Two classes of n pictures each, pointing opposite ways: −log(n e^{1/τ} / (n e^{1/τ} + n e^{−1/τ})).
    g = torch.tensor([[3.0, 0.0]] * 4 + [[-3.0, 0.0]] * 4)
    y = torch.tensor([0] * 4 + [1] * 4)
    assert float(similarity_loss(g, y, temperature=0.5)) == pytest.approx(math.log1p(math.exp(-4)), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_finite_at_low_precision_and_any_scale(dtype: torch.dtype, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    features = (scale * torch.randn(32, 16, generator=generator)).to(dtype).requires_grad_()
    value = similarity_loss(features, torch.arange(32) % 4, temperature=0.05, distance_weight=0.1)
    (gradient,) = torch.autograd.grad(value, features)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_autocast_does_not_reach_it() -> None:
    """Within a training loop, in a class that has nearly collapsed, bfloat16 products would be off by half."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(250) % 10
    centres = torch.randn(10, 64, generator=generator)
    features = (centres[labels] + 0.05 * torch.randn(250, 64, generator=generator)).requires_grad_()
    value = similarity_loss(features, labels, distance_weight=0.1)
    (gradient,) = torch.autograd.grad(value, features)
    with torch.autocast("cpu", torch.bfloat16):
        inside = similarity_loss(features, labels, distance_weight=0.1)
    (gradient_inside,) = torch.autograd.grad(inside, features)
    assert torch.equal(inside, value)
    assert torch.equal(gradient_inside, gradient)


def test_distances_survive_a_common_offset() -> None:
    """Near neighbours far from the origin: ‖u‖² + ‖v‖² − 2 u·v alone would lose them."""
    generator = torch.Generator().manual_seed(0)
    near = 1e-2 * torch.randn(24, 8, generator=generator, dtype=torch.float64)
    labels = torch.arange(24) % 3

    def distance_term(g: torch.Tensor) -> torch.Tensor:
        full, without = (similarity_loss(g, labels, distance_weight=weight) for weight in (1.0, 0.0))
        return full - without

    far = (near + 100).float().requires_grad_()
    wanted = distance_term(far.detach().double())
    # The inputs carry a rounding error of 100 · 2⁻²⁴ each, against distances of about 0.04.
    assert abs(float(distance_term(far).detach() - wanted)) < 1e-3 * float(wanted)


def test_duplicates_and_zero_features_have_a_finite_gradient() -> None:
    features = torch.zeros(6, 4)
    features[3:] = 1
    features.requires_grad_()
    value = similarity_loss(features, torch.tensor([0, 0, 1, 1, 0, 1]), distance_weight=0.1)
    (gradient,) = torch.autograd.grad(value, features)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("features", "labels", "options", "message"),
    [
        (
            torch.ones(4, 2, 1),
            [0, 0, 1, 1],
            {},
            r"features: got shape \(4, 2, 1\) .*, expected a floating",
        ),
        (torch.ones(4, 2, dtype=torch.int64), [0, 0, 1, 1], {}, r"features: got shape \(4, 2\) torch.int64"),
        (torch.ones(4, 2), [0, 1], {}, r"labels: got shape \(2,\), expected one label a row: \(4,\)"),
        (torch.ones(4, 2), [1, 1, 1, 1], {}, "labels: got one class only, expected a batch of at least two"),
        (torch.ones(3, 2), [0, 0, 1], {"self_pairs": False}, "labels: got a class with one picture in the batch"),
        (torch.ones(4, 2), [0, 0, 1, 1], {"temperature": 0}, "temperature: got 0, expected a finite number > 0"),
        (
            torch.ones(4, 2),
            [0, 0, 1, 1],
            {"distance_weight": -1},
            "distance_weight: got -1, expected a finite",
        ),
    ],
)
def test_bad_input_is_refused(features: torch.Tensor, labels: list[int], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        similarity_loss(features, torch.tensor(labels), **options)
