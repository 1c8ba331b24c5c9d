"""NTGA: noise that makes an infinitely wide network generalise badly, without training one (Yuan and Wu 2021).

*The network.* Pictures x of d pixels; fully connected layers of infinite width, each followed by the error function;
weights of variance σ_w² = 1.76, biases of variance σ_b² = 0.18. Its covariance Σ and neural tangent kernel Θ begin as
Σ(x, x') = x·x'/d and Θ = 0. Every layer, with Σ(x, x), Σ(x', x') beside Σ(x, x'), does
(Williams 1998; Jacot, Gabriel and Hongler 2018)

    Σ ← σ_w² Σ + σ_b²,   Θ ← Σ + σ_w² Θ;         then     Θ ← Θ · 4/π (q² − 4 Σ²)^−½,   Σ ← 2/π arcsin(2 Σ / q),

with q² = (1 + 2 Σ(x, x)) (1 + 2 Σ(x', x')). The authors' output is such a layer, too: no linear one follows. Then Θ is
only the mean over outputs of kernels that differ from output to output, at any width, and f_t a model of such networks
rather than their limit; it is what the authors compute.

*Its training.* Gradient descent with learning rate 1 on half the mean squared error of n pictures and K outputs (the
mean over all n·K), from outputs of 0, has reached at time t on other pictures v

    f_t(v) = τ Θ_vs φ(τ Θ_ss) y,        φ(λ) = (1 − e^−λ) / λ,        τ = t / (n·K).

*The derivative of φ.* A symmetric A with eigenvalues λ and eigenvectors U has φ(A) = U φ(λ) Uᵀ. To differentiate that
through U divides by λ_i − λ_j, although φ(A) is smooth where they meet. Daleckii and Krein (1965) give the gradient
with respect to A as U (Γ ∘ Uᵀ G U) Uᵀ, with G that with respect to φ(A), and Γ_ij = (φ(λ_i) − φ(λ_j)) / (λ_i − λ_j), or
φ' where the two meet.

*Precision.* float32 throughout: φ is bounded by 1 and smooth, nothing is inverted, and only the signs of the gradient
are used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import bad, check_count, check_number
from ..data import ImageSet
from ..kernels.crop_flip import pixel_values
from ..kernels.noise_step import noise_step
from ..perturbation import Perturbation
from .random import check_epsilon

_WEIGHTS, _BIASES = 1.76, 0.18  # variances, the authors'
_RIDGE = 1e-4  # of the mean of Θ's diagonal, added to it: the authors'
_ENTRIES = 1 << 20  # of Θ_vs at once: its derivative needs some fifty times as many numbers


def ntga(
    images: ImageSet,
    *,
    epsilon: float = 8 / 255,
    step: float = 0.88 / 255,
    steps: int = 10,
    t: float = 64.0,
    layers: int = 5,
    block_size: int = 512,
    held_out: int = 10_000,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Perturbation:
    """Noise that maximises the cross-entropy, on other pictures, of an infinitely wide network trained on it.

    The pictures are cut at random into blocks of up to `block_size`. For each, `steps` sign-gradient steps of size
    `step` ascend the cross-entropy of f_t, trained for the time `t` on the block x + δ alone, on `held_out` clean
    pictures of other blocks (all there are, if fewer): training pictures, never test pictures. f_t has a closed form,
    so the gradient is that through all of training. Norm: L∞ ≤ `epsilon`, in pixel values. Sample-wise. Cost: no
    pass, as no network of finite width is there, but steps · N · (held_out + block_size) entries of a kernel of
    `layers` layers, and an eigendecomposition a step and block.

    t: a small one makes coarse patterns that act early in a victim's training, a large one finer ones.

    The defaults are the authors' for CIFAR-10 and their fully connected surrogate. Deviations: the released loop
    begins each of its 10 iterations at the clean pictures and with the whole ε, so it is one step (`steps=1,
    step=epsilon`); here the steps accumulate, each the size that the authors pass and do not use, 1.1 ε / 10. They keep
    10,000 pictures for validation and drop those and the rest of the last block from what they publish; here every
    picture gets noise, and the pictures that follow a block in the random order are its held-out ones. They compute
    in float64 (see the module's docstring).

    Raises `ValueError` for fewer than two pictures or classes, and settings out of range.
    """
    settings = {name: value for name, value in locals().items() if name not in ("images", "progress")}
    _check(images, settings)
    device = images.device
    generator = torch.Generator(device).manual_seed(seed)
    order = torch.randperm(len(images), generator=generator, device=device)
    blocks = order.tensor_split(max(2, -(-len(images) // block_size)))
    delta = torch.zeros(images.images.shape, device=device)
    losses = torch.zeros(steps, device=device)
    start = spoken = time.perf_counter()
    end = 0
    for number, block in enumerate(blocks, 1):
        end += len(block)
        others = images.subset(order.roll(-end)[: min(held_out, len(images) - len(block))])
        pictures, noise = images.images[block], delta[block]
        for k in range(steps):
            noisy = pixel_values(pictures) + noise
            loss, gradient = held_out_loss(noisy, images.labels[block], others, t, layers)
            noise_step(noise, pictures, -gradient, step=step, epsilon=epsilon)
            losses[k] += loss / len(blocks)
        delta[block] = noise
        if progress is not None and (time.perf_counter() - spoken > 10 or number == len(blocks)):
            spoken = time.perf_counter()
            progress(f"ntga block {number}/{len(blocks)}: {spoken - start:.0f} s")
    curves = {"held_out_loss": losses.tolist()}
    if not bool(losses.isfinite().all()):
        raise FloatingPointError(f"ntga: the loss on held-out pictures became {curves['held_out_loss']}")
    return Perturbation.of(images, delta, epsilon=epsilon, method="ntga", settings=settings, curves=curves)


def _check(images: ImageSet, settings: dict[str, float]) -> None:
    check_epsilon(settings["epsilon"])
    check_number("step", settings["step"], 0, 1, open_low=True)
    check_number("t", settings["t"], 0, open_low=True)
    for name in ("steps", "layers", "block_size", "held_out"):
        check_count(name, settings[name])
    check_count("seed", settings["seed"], 0)
    if int(torch.bincount(images.labels).count_nonzero()) < 2:
        raise bad("images", "pictures of one class", "two classes or more")


def held_out_loss(noisy: Tensor, labels: Tensor, others: ImageSet, t: float, layers: int) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy (nats) of f_t on `others`, trained on `noisy` `(n, C, H, W)`, and its gradient in `noisy`."""
    classes = len(others.classes)
    x = noisy.flatten(1).requires_grad_()
    tau = t / (len(x) * classes)
    own = tangent_kernel(x, x, layers)
    own = own + _RIDGE * own.diagonal().mean() * torch.eye(len(x), device=x.device, dtype=x.dtype)
    fitted = tau * relaxed(tau * own) @ F.one_hot(labels, classes).to(x.dtype)
    # What follows is done in parts, each with its own backward pass, so the gradient is gathered here in between.
    weights = fitted.detach().requires_grad_()
    total = torch.zeros((), device=x.device, dtype=x.dtype)
    rows = max(1, _ENTRIES // len(x))
    for first in range(0, len(others), rows):
        part = slice(first, first + rows)
        outputs = tangent_kernel(others.floats(part).flatten(1).to(x.dtype), x, layers) @ weights
        loss = F.cross_entropy(outputs, others.labels[part], reduction="sum") / len(others)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    fitted.backward(weights.grad)  # type: ignore[no-untyped-call]
    assert x.grad is not None
    return total, x.grad.view(noisy.shape)


def tangent_kernel(x: Tensor, z: Tensor, layers: int) -> Tensor:
    """Θ between pictures `(n, d)` and `(m, d)`, `(n, m)`: the recursion of the module's docstring."""
    cov = x @ z.T / x.shape[1]
    of_x, of_z = x.square().mean(1)[:, None], z.square().mean(1)
    theta = torch.zeros_like(cov)
    for _ in range(layers):
        cov, of_x, of_z = (_WEIGHTS * part + _BIASES for part in (cov, of_x, of_z))
        theta = cov + _WEIGHTS * theta
        q_squared = (1 + 2 * of_x) * (1 + 2 * of_z)
        theta = theta * (4 / math.pi) * (q_squared - 4 * cov.square()).rsqrt()
        cov = 2 / math.pi * torch.asin(2 * cov * q_squared.rsqrt())
        of_x, of_z = (2 / math.pi * torch.asin(2 * part / (1 + 2 * part)) for part in (of_x, of_z))
    return theta


def relaxed(matrix: Tensor) -> Tensor:
    """φ(A) of a symmetric matrix `(n, n)`, differentiable once, also where eigenvalues meet."""
    value: Tensor = _Relaxed.apply(matrix)
    return value


class _Relaxed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        ctx.save_for_backward(values, vectors)
        result: Tensor = vectors * _phi(values) @ vectors.T
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        values, vectors = ctx.saved_tensors
        inside = vectors.T @ gradients[0] @ vectors
        inside = (inside + inside.T) / 2  # A is symmetric: only that part can act
        result: Tensor = vectors @ (_divided_differences(values) * inside) @ vectors.T
        return result


def _phi(values: Tensor) -> Tensor:
    """(1 − e^−λ) / λ, and 1 at 0."""
    zero = values == 0
    return torch.where(zero, 1.0, -torch.expm1(-values) / torch.where(zero, 1.0, values))


def _phi_slope(values: Tensor) -> Tensor:
    """φ'(λ) = (e^−λ − φ(λ)) / λ; for small λ, where that cancels, Σ_k −k (−λ)^(k−1) / (k + 1)!."""
    small = values.abs() < 0.1
    series = torch.zeros_like(values)
    for k in range(9, 0, -1):  # what is left out is below 1e-15
        series = series * -values - k / math.factorial(k + 1)
    safe = torch.where(small, 1.0, values)
    return torch.where(small, series, (torch.exp(-safe) - _phi(safe)) / safe)


def _divided_differences(values: Tensor) -> Tensor:
    """Γ `(n, n)`, as in the module's docstring, of φ at eigenvalues `(n,)`.

    A difference over a small gap h loses eps/h to rounding, φ' halfway between loses at most h²/96: they are equal
    at h³ = 96 eps.
    """
    gap = values[:, None] - values
    near = gap.abs() < (96 * torch.finfo(values.dtype).eps) ** (1 / 3)
    of_each = _phi(values)
    quotient = (of_each[:, None] - of_each) / torch.where(near, 1.0, gap)
    return torch.where(near, _phi_slope((values[:, None] + values) / 2), quotient)
