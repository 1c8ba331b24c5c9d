"""NTGA: the closed forms are those of wide networks, their gradient is right, and the noise ascends the loss."""

import importlib
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import miue_lib as mi
from miue_lib.noise.ntga import held_out_loss, ntga, relaxed, tangent_kernel
from miue_lib.noise.random import random

module = importlib.import_module("miue_lib.noise.ntga")  # the package has a function of that name

QUICK = {"steps": 2, "step": 4.4 / 255, "block_size": 64, "held_out": 64}


def pictures(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.rand((n, d), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_kernel_is_that_of_the_integrals() -> None:
    """E[erf(u) erf(v)] and E[erf'(u) erf'(v)] over Gaussian (u, v), by quadrature, in place of their closed forms."""
    x = pictures(3, 7)
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(80))
    weights = weights / weights.sum()

    def mean(f, covariance: torch.Tensor) -> float:  # type: ignore[no-untyped-def]
        root = torch.linalg.cholesky(covariance)
        u, v = root[0, 0] * nodes[:, None], root[1, 0] * nodes[:, None] + root[1, 1] * nodes
        return float((weights[:, None] * weights * f(u) * f(v)).sum())

    def slope(u: torch.Tensor) -> torch.Tensor:
        return 2 / math.sqrt(math.pi) * torch.exp(-u.square())

    for i, j in ((0, 1), (0, 2), (1, 2)):
        pair = x[[i, j]]
        cov, theta = pair @ pair.T / 7, 0.0
        for _ in range(5):
            cov = 1.76 * cov + 0.18
            theta = (float(cov[0, 1]) + 1.76 * theta) * mean(slope, cov)
            own = [mean(torch.erf, cov[[k, k]][:, [k, k]] + 1e-14 * torch.eye(2)) for k in (0, 1)]
            both = mean(torch.erf, cov)
            cov = torch.tensor([[own[0], both], [both, own[1]]], dtype=torch.float64)
        assert float(tangent_kernel(pair, pair, 5)[0, 1]) == pytest.approx(theta, rel=1e-6)  # √(1e-14), and quadrature


def test_the_kernel_is_that_of_wide_networks() -> None:
    """The mean over outputs and networks of ⟨∂f(x), ∂f(x')⟩ is Θ, up to a bias of order 1/width."""
    width, outputs, networks = 128, 32, 12
    x = pictures(2, 9)
    expected = tangent_kernel(x, x, 3)
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(networks):
        shapes = [(width, 9), (width, width), (outputs, width)]
        weights = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
        biases = [torch.randn(s[0], generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
        slopes = []
        for h in x:
            for w, b in zip(weights, biases, strict=True):
                h = torch.erf(math.sqrt(1.76 / len(h)) * w @ h + math.sqrt(0.18) * b)
            one_each = torch.eye(outputs, dtype=torch.float64)
            of_each = torch.autograd.grad(h, [*weights, *biases], one_each, is_grads_batched=True)
            slopes.append(torch.cat([part.flatten(1) for part in of_each], 1))
        found.append(torch.stack([(a * b).sum(1) for a in slopes for b in slopes], 1).view(outputs, 2, 2))
    each = torch.cat(found)
    error = each.std(0) / math.sqrt(len(each))
    # Four standard errors: a chance of 2e-4 in all. The bias, some 1/128 of Θ, is a fraction of one.
    assert ((each.mean(0) - expected).abs() < 4 * error).all()
    assert (error < 0.06 * expected).all(), "tight enough to tell a layer or a factor more"


@pytest.mark.parametrize("values", [[0.0, 0.0, 1e-9, 2e-5], [1.0, 1.0, 1.0, 1.0], [0.3, 0.3 + 1e-5, 4.0, 200.0]])
def test_the_matrix_function_has_the_right_gradient_also_where_eigenvalues_meet(values: list[float]) -> None:
    basis = torch.linalg.qr(pictures(4, 4)).Q
    matrix = basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T

    def of_symmetric(part: torch.Tensor) -> torch.Tensor:
        return relaxed((part + part.T) / 2)

    assert torch.autograd.gradcheck(of_symmetric, (matrix.requires_grad_(),), eps=1e-5, atol=1e-8, rtol=1e-6)


def test_the_matrix_function_is_the_solution_of_gradient_flow() -> None:
    """df/ds = A (y − f) from 0 is, at s = 1, (I − e^−A) y = A φ(A) y."""
    x = pictures(6, 5)
    a = 3 * tangent_kernel(x, x, 2)
    assert torch.allclose(a @ relaxed(a), torch.eye(6) - torch.linalg.matrix_exp(-a), atol=1e-12)
    assert torch.equal(relaxed(torch.zeros(3, 3)), torch.eye(3))


def test_the_predictor_is_gradient_descent_on_the_mean_squared_error(easy: tuple[mi.ImageSet, mi.ImageSet]) -> None:
    """In function space, with small steps, and the loss over n·K numbers that the authors' library takes."""
    block, others = easy[0].subset(slice(0, 24)), easy[0].subset(slice(24, 60))
    x, v = (part.floats().double().flatten(1) for part in (block, others))
    y = F.one_hot(block.labels, 3).double()
    own = tangent_kernel(x, x, 5)
    own += 1e-4 * own.diagonal().mean() * torch.eye(24)
    across = tangent_kernel(v, x, 5)
    here, there = torch.zeros_like(y), torch.zeros(36, 3, dtype=torch.float64)
    substeps = 4000
    for _ in range(substeps):
        residual = (here - y) / y.numel() * (64 / substeps)
        here, there = here - own @ residual, there - across @ residual
    expected = F.cross_entropy(there, others.labels)
    found, _ = held_out_loss(block.floats().double(), block.labels, others, 64.0, 5)
    # Euler's method errs by h/2 · f'', and the loss moves by at most as much as the largest output.
    assert float(found) == pytest.approx(float(expected), abs=1e-3)
    assert abs(float(found) - math.log(3)) > 0.02, "training has moved the outputs"


def test_the_gradient_is_that_of_finite_differences(
    easy: tuple[mi.ImageSet, mi.ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the held-out pictures come in parts."""
    monkeypatch.setattr(module, "_ENTRIES", 80)
    block, others = easy[0].subset(slice(0, 8)), easy[0].subset(slice(8, 40))
    noisy = block.floats().double()
    direction = pictures(8, 144, seed=3).view(8, 1, 12, 12) - 0.5
    _, gradient = held_out_loss(noisy, block.labels, others, 64.0, 5)
    above, below = (held_out_loss(noisy + h * direction, block.labels, others, 64.0, 5)[0] for h in (1e-4, -1e-4))
    assert float((gradient * direction).sum()) == pytest.approx(float(above - below) / 2e-4, rel=1e-5)


def test_single_precision_gives_the_same_signs(easy: tuple[mi.ImageSet, mi.ImageSet]) -> None:
    block, others = easy[0].subset(slice(0, 64)), easy[0].subset(slice(64, 192))
    single, double = (
        held_out_loss(block.floats().to(dtype), block.labels, others, 64.0, 5)[1]
        for dtype in (torch.float32, torch.float64)
    )
    assert (single.sign() == double.sign()).float().mean() > 0.998


def test_noise_raises_the_loss_on_pictures_that_it_was_not_made_with(easy: tuple[mi.ImageSet, mi.ImageSet]) -> None:
    train, test = easy
    crafted, control = ntga(train, **QUICK | {"held_out": 128}), random(train)

    def loss(noise: mi.Perturbation | None) -> float:
        published = train if noise is None else train.with_(noise)
        return float(held_out_loss(published.floats(), train.labels, test, 64.0, 5)[0])

    clean = loss(None)
    assert loss(crafted) - clean > 5 * abs(loss(control) - clean)
    first, second = crafted.curves["held_out_loss"]
    assert second > first


def test_held_out_pictures_are_others_and_every_picture_is_in_one_block(
    tiny: mi.ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    measured = module.held_out_loss

    def spy(noisy: torch.Tensor, labels: torch.Tensor, others: mi.ImageSet, t: float, layers: int):  # type: ignore[no-untyped-def]
        seen.append((noisy.mul(255).round().to(torch.uint8).flatten(1), others.images.flatten(1)))
        return measured(noisy, labels, others, t, layers)

    monkeypatch.setattr(module, "held_out_loss", spy)
    for block_size, held_out, blocks in ((40, 20, 3), (500, 10_000, 2)):
        seen.clear()
        ntga(tiny, steps=1, block_size=block_size, held_out=held_out)
        assert len(seen) == blocks
        ours = torch.cat([own for own, _ in seen])
        assert len(ours.unique(dim=0)) == len(ours) == 96, "every picture, once"
        for own, others in seen:
            assert len(others) == min(held_out, 96 - len(own))
            assert len(torch.cat([own, others]).unique(dim=0)) == len(own) + len(others)


def test_one_whole_step_is_the_released_program(tiny: mi.ImageSet) -> None:
    """It starts from the clean pictures, so every pixel with room and a gradient moves by the whole budget."""
    grey = mi.ImageSet(tiny.images // 4 + 96, tiny.labels, tiny.classes)
    levels = ntga(grey, steps=1, step=8 / 255).levels
    assert (levels.abs() == 8).float().mean() > 0.99
    assert (levels > 0).any()
    assert (levels < 0).any()


@pytest.mark.parametrize("epsilon", [8 / 255, 1 / 255, 0.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_budget_holds_in_published_pictures(tiny: mi.ImageSet, epsilon: float, channels: int) -> None:
    given = mi.ImageSet(tiny.images.expand(-1, channels, -1, -1)[..., :9], tiny.labels, tiny.classes)
    change = given.with_(ntga(given, epsilon=epsilon, **QUICK)).images.int() - given.images.int()
    assert 0 < change.max() <= 255 * epsilon + 1e-6, "positive noise is there"
    assert 0 < -change.min() <= 255 * epsilon + 1e-6, "and so is negative noise"


def test_noise_is_of_the_picture() -> None:
    """Also of two pictures of one class."""
    noise = ntga(
        mi.ImageSet(torch.arange(96 * 64).remainder(251).view(96, 1, 8, 8).byte(), torch.arange(96) % 2), **QUICK
    )
    assert len(noise.levels.flatten(1).unique(dim=0)) > 48


def test_a_seed_repeats_the_noise_and_leaves_other_generators_alone(tiny: mi.ImageSet) -> None:
    state = torch.get_rng_state()
    one, again, other = (ntga(tiny, seed=seed, **QUICK) for seed in (0, 0, 1))
    assert torch.equal(one.levels, again.levels)
    assert not torch.equal(one.levels, other.levels)
    assert torch.equal(state, torch.get_rng_state())


def test_each_setting_reaches_the_method(tiny: mi.ImageSet) -> None:
    plain = ntga(tiny, **QUICK).levels
    for change in (
        {"epsilon": 4 / 255},
        {"step": 1 / 255},
        {"steps": 1},
        {"t": 1000.0},
        {"layers": 2},
        {"block_size": 20},
        {"held_out": 20},
    ):
        noise = ntga(tiny, **QUICK | change)
        assert not torch.equal(noise.levels, plain), change
        assert noise.settings.items() >= change.items()


def test_it_says_how_far_it_is(tiny: mi.ImageSet) -> None:
    lines: list[str] = []
    ntga(tiny, progress=lines.append, **QUICK)
    assert lines[-1].startswith("ntga block 2/2: ")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epsilon": 0.001}, "epsilon: got 0.001, expected at least 1/255"),
        ({"step": 0.0}, "step: got 0.0, expected a number in"),
        ({"steps": 0}, "steps: got 0, expected a whole number >= 1"),
        ({"t": 0}, "t: got 0, expected a finite number > 0"),
        ({"layers": 0}, "layers: got 0, expected a whole number >= 1"),
        ({"block_size": 1.5}, "block_size: got 1.5, expected a whole number >= 1"),
        ({"held_out": 0}, "held_out: got 0, expected a whole number >= 1"),
        ({"seed": -1}, "seed: got -1, expected a whole number >= 0"),
    ],
)
def test_bad_settings_are_refused(tiny: mi.ImageSet, wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ntga(tiny, **wrong)


def test_one_class_is_refused(tiny: mi.ImageSet) -> None:
    with pytest.raises(ValueError, match="images: got pictures of one class, expected two classes or more"):
        ntga(tiny.subset(tiny.labels == 0), **QUICK)
