"""The class-similarity loss: its formula in every tile and precision, in little memory, and clear about bad input."""

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from miue_lib import similarity_loss
from miue_lib.kernels import similarity


def by_formula(
    g: torch.Tensor, y: torch.Tensor, tau: float, zeta: float, omega: float, self_pairs: bool, others: bool
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
        losses.append(-omega * torch.log(same / everyone) + zeta * torch.log1p(distances))
    return torch.stack(losses).mean()


def materialised(g: torch.Tensor, y: torch.Tensor, tau: float, zeta: float) -> torch.Tensor:
    """The loss in the manner of the paper's released code: B × B × d cosines, a loop over anchors for distances.

    The distances go through NumPy, so that no gradient does. This is what benchmarks measure against.
    """
    similar = torch.exp(F.cosine_similarity(g[:, None], g[None], dim=2) / tau)
    same = (y[:, None] == y[None, :]).to(g.dtype)
    loss = -torch.log((similar * same).sum(1) / similar.sum(1))
    if zeta:
        points, classes = g.detach().cpu().numpy(), y.cpu().numpy()
        sums = [
            np.linalg.norm(points[classes == own] - point, axis=1).sum()
            for point, own in zip(points, classes, strict=True)
        ]
        loss = loss + zeta * torch.log1p(torch.tensor(np.array(sums)).to(g) / g.shape[1])
    return loss.mean()


def random_batch(b: int, d: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of length about 1, labels in no order (some negative) of classes of uneven sizes, none empty."""
    generator = torch.Generator().manual_seed(b + classes)
    g = torch.randn(b, d, generator=generator, dtype=torch.float64) / d**0.5
    y = torch.cat([torch.arange(classes), (classes * torch.rand(b - classes, generator=generator) ** 2).long()])
    return g, 7 * y[torch.randperm(b, generator=generator)] - 20


def value_and_gradient(loss, g: torch.Tensor, *arguments) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[no-untyped-def]
    """And the gradient is that of −2.5 times the loss: what comes from above must not be lost."""
    g = g.detach().requires_grad_()
    value = loss(g, *arguments)
    return value.detach(), torch.autograd.grad(-2.5 * value, g)[0]


def assert_equals_reference(features: torch.Tensor, labels: torch.Tensor, tolerance: float, *options) -> None:  # type: ignore[no-untyped-def]
    """`unchecked` of these features, as rounded as they are, beside the plain formula in float64.

    That one, a difference of logarithms, loses digits below 10⁻¹⁴; half precision, below its least number.
    """
    wanted, wanted_gradient = value_and_gradient(similarity.reference, features.double(), labels, *options)
    value, gradient = value_and_gradient(similarity.unchecked, features, labels, *options)
    assert value.dtype == torch.promote_types(features.dtype, torch.float32)
    assert gradient.dtype == features.dtype
    assert abs(float(value.double() - wanted)) <= tolerance * abs(float(wanted)) + 1e-14
    least = torch.finfo(features.dtype).smallest_normal * torch.finfo(features.dtype).eps * features.numel() ** 0.5
    error = float((gradient.double() - wanted_gradient).norm())
    assert error <= tolerance * float(wanted_gradient.norm()) + least


def assert_all_equal_reference(features: torch.Tensor, labels: torch.Tensor, tolerance: float, tau: float) -> None:
    """Batches of length 10⁻³ and 10³, and without a distance term a batch with both, which distances cannot resolve.

    Each with another weight of the first line.
    """
    lengths = torch.logspace(-3, 3, len(features), device=features.device)[:, None].to(features.dtype)
    for scale, zeta, omega, others in (
        (1e-3, 0.1, 1.0, False),
        (1e3, 0.1, 2.0, True),
        (lengths, 0.0, 0.5, False),
        (1.0, 0.1, 0.0, False),
    ):
        assert_equals_reference(features * scale, labels, tolerance, tau, zeta, omega, True, others)


# A gradient in half precision is rounded to it: 2⁻⁹ of each number in bfloat16. The loss itself is not rounded.
TOLERANCES = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("classes", [2, 10, 203])
@pytest.mark.parametrize("tau", [0.05, 1.0])
@pytest.mark.parametrize("kept", [0, 1024])
def test_tiles_equal_the_reference(
    dtype: torch.dtype, classes: int, tau: float, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "_ROWS", 48)  # several tiles, and the last of another size
    monkeypatch.setattr(similarity, "_KEPT", kept)
    features, labels = random_batch(203, 37, classes)
    assert_all_equal_reference(features.to(dtype), labels, TOLERANCES[dtype], tau)
    if classes == 2:
        assert_equals_reference(features.to(dtype), labels, TOLERANCES[dtype], tau, 0.1, 1.0, False, False)


def test_a_thousand_classes() -> None:
    features, labels = random_batch(1500, 16, 1000)
    assert_equals_reference(features.float(), labels, 1e-5, 0.1, 0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("b", "d", "classes"), [(43, 21, 4), (17, 16, 17), (16, 5, 1), (2, 3, 2)])
@pytest.mark.parametrize(("tau", "programs"), [(0.05, 1), (1.0, 256)])
@pytest.mark.filterwarnings("ignore:divide by zero")  # NumPy, for the interpreter: log 0 = −∞ is meant
def test_triton_equals_the_reference(
    dtype: torch.dtype,
    b: int,
    d: int,
    classes: int,
    tau: float,
    programs: int,
    gpu: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One program takes all columns, or many share them: with 43 rows in blocks of 16, three programs a row."""
    monkeypatch.setattr(similarity, "_in_triton", lambda features: True)
    monkeypatch.setattr(similarity, "_BLOCK", 16)
    monkeypatch.setattr(similarity, "_PROGRAMS", programs)
    features, labels = random_batch(b, d, classes)
    features, labels = features.to(gpu, dtype), labels.to(gpu)
    if classes > 1:
        assert_all_equal_reference(features, labels, TOLERANCES[dtype], tau)
    if classes in (1, 4):
        assert_equals_reference(features, labels, TOLERANCES[dtype], tau, 0.1, 1.0, False, False)


@pytest.mark.parametrize("kept", [0, 1024])
@pytest.mark.parametrize(("self_pairs", "others"), [(True, False), (False, False), (True, True), (False, True)])
@pytest.mark.parametrize("omega", [0.0, 1.0, 1.7])
def test_gradcheck(kept: int, self_pairs: bool, others: bool, omega: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "_ROWS", 4)
    monkeypatch.setattr(similarity, "_KEPT", kept)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(11, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(11) % 3
    options = 0.3, 0.5, omega, self_pairs, others
    assert torch.autograd.gradcheck(lambda g: similarity.unchecked(g, labels, *options), features)


def test_one_class_has_the_distance_term_only() -> None:
    features, labels = random_batch(9, 4, 1)
    assert_equals_reference(features, labels, 1e-11, 0.1, 0.1)
    value, gradient = value_and_gradient(similarity.unchecked, features, labels, 0.1, 0.0)
    assert value == 0
    assert gradient.abs().max() == 0


@pytest.mark.parametrize("self_pairs", [True, False])
def test_one_class_without_others(self_pairs: bool) -> None:
    """The sum over the other classes is empty and its logarithm −∞, which a weight of 0 takes out: not as 0 · ∞."""
    features, labels = random_batch(9, 4, 1)
    assert_equals_reference(features, labels, 1e-11, 0.1, 0.1, 0.0, self_pairs, True)
    for loss in (similarity.unchecked, similarity.reference):
        assert loss(features, labels, 0.1, 0.1, 0.5, self_pairs, True) == -math.inf


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(("self_pairs", "others"), [(True, False), (False, False), (True, True), (False, True)])
def test_without_its_weight_the_first_line_is_gone(
    dtype: torch.dtype, classes: int, self_pairs: bool, others: bool
) -> None:
    """Also where it would be infinite: of one class without others, or of a picture without partners."""
    features, labels = random_batch(9, 4, classes)
    labels[0] = 100 if classes > 1 else labels[0]

    def distance_term(g: torch.Tensor) -> torch.Tensor:
        apart = [sum((g[j] - g[k]).norm() for k in range(9) if k != j and labels[k] == labels[j]) for j in range(9)]
        return 0.3 * torch.stack([torch.log1p(torch.as_tensor(distances) / 4) for distances in apart]).mean()

    wanted, wanted_gradient = value_and_gradient(distance_term, features)
    value, gradient = value_and_gradient(
        similarity.unchecked, features.to(dtype), labels, 0.1, 0.3, 0.0, self_pairs, others
    )
    assert abs(float(value - wanted)) <= TOLERANCES[dtype] * float(wanted)
    assert float((gradient - wanted_gradient).norm()) <= TOLERANCES[dtype] * float(wanted_gradient.norm())
    value, gradient = value_and_gradient(
        similarity.unchecked, features.to(dtype), labels, 0.1, 0.0, 0.0, self_pairs, others
    )
    assert value == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_equals_the_released_code() -> None:
    features, labels = random_batch(40, 8, 4)
    assert float(similarity_loss(features, labels, distance_weight=0.1)) == pytest.approx(
        float(materialised(features, labels, 0.1, 0.1)), rel=1e-12
    )


class _Launch:
    """A kernel that does nothing."""

    def __getitem__(self, grid: tuple[int, int]) -> Callable[..., None]:
        return lambda *arguments, **constants: None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_no_gpu_is_waited_for(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake tensors have a device and a shape but no numbers: code that asks for one, as waiting does, raises."""
    monkeypatch.setattr(similarity, "available", True)
    monkeypatch.setattr(similarity, "_forward_kernel", _Launch())
    monkeypatch.setattr(similarity, "_backward_kernel", _Launch())
    options = similarity._Options(0.1, 0.1, 1.0, True, False)
    with FakeTensorMode():
        features = torch.ones(300, 8, device="cuda", dtype=dtype)
        labels = torch.ones(300, device="cuda", dtype=torch.int64)
        assert similarity.unchecked(features, labels, *options).shape == ()
        batch = similarity._sorted(features, labels, labels, options)
        anchors = [batch.scale] * 3
        if dtype == torch.float64:
            sums = similarity._torch_backward(batch, options, *anchors, None)
        else:
            sums = similarity._triton_backward(batch, options, *anchors)
        assert [part.shape for part in sums if part is not None] == [features.shape] * 2


MEMORY = """
import re, sys, torch
from miue_lib.kernels import similarity
torch.set_num_threads(1)

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

def run(b, d):
    features = torch.randn(b, d, requires_grad=True)
    similarity.unchecked(features, torch.arange(b) % 10, 0.1, 0.1).backward()

run(64, 64)
before = peak()
run(int(sys.argv[1]), int(sys.argv[2]))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_grows_with_the_batch_not_with_its_square() -> None:
    """B × B float32 would be 64 MB. Of B × d, 1 MB each here, there are about ten; of a tile, 2 MB, about five."""
    done = subprocess.run([sys.executable, "-c", MEMORY, "4096", "64"], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 32


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
@pytest.mark.parametrize(("zeta", "omega"), [(0.0, 1.0), (0.1, 1.0), (0.1, 0.5), (0.1, 0.0), (0.0, 2.0)])
@pytest.mark.parametrize("self_pairs", [True, False])
@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize("classes", [2, 5])
def test_value_and_gradient_equal_the_formula(
    tau: float, zeta: float, omega: float, self_pairs: bool, others: bool, classes: int
) -> None:
    generator = torch.Generator().manual_seed(classes)
    y = torch.arange(13) % classes
    g = torch.randn(13, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    options = {"temperature": tau, "distance_weight": zeta, "similarity_weight": omega}
    options |= {"self_pairs": self_pairs, "other_classes_only": others}
    wanted = by_formula(g, y, tau, zeta, omega, self_pairs, others)
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
    # A value that a difference of two logarithms near 21 could not hold in float32.
    assert float(similarity_loss(g, y, temperature=0.05)) == pytest.approx(math.exp(-40), rel=1e-5)


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
        (
            torch.ones(4, 2),
            [0, 0, 1, 1],
            {"similarity_weight": math.nan},
            "similarity_weight: got nan, expected a finite number >= 0",
        ),
    ],
)
def test_bad_input_is_refused(features: torch.Tensor, labels: list[int], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        similarity_loss(features, torch.tensor(labels), **options)
