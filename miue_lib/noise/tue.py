"""TUE: noise whose classes lie far apart, whatever picture it is added to (Ren, Xu, Wan, Ma, Sun and Tang 2023)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import bad, check_count, check_flag, check_number
from ..data import ImageSet
from ..kernels.crop_flip import View
from ..kernels.noise_step import noise_step
from ..perturbation import Perturbation
from .random import check_epsilon

_SMALL = 1e-5  # the authors': keeps the ratio finite where two centroids coincide


def tue(
    images: ImageSet,
    *,
    epsilon: float = 8 / 255,
    step: float = 0.8 / 255,
    steps: int = 20,
    rounds: int = 200,
    batch_size: int = 512,
    crop: int = 0,
    flip: bool = False,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Perturbation:
    """Noise that minimises its own class-wise separability discriminant: classes that a line can tell apart.

    For the noise δ_i `(C·H·W,)` of a batch, with centroid μ_c and spread s_c = mean ‖δ_i − μ_c‖₂ of each of its
    classes, each round takes `steps` sign-gradient steps of size `step` on

        mean over pairs c ≠ k of (s_c + s_k) / ‖μ_c − μ_k‖₂,        s_c and s_k held fixed,

    from uniform noise. Norm: L∞ ≤ `epsilon`, in pixel values. Sample-wise, although all pictures of a class in a batch
    move alike, and so end with the same signs wherever [0, 1] leaves them room. Cost: no pass, there is no network.

    batch_size: pictures whose centroids are compared; memory is that of the noise, and of a few such batches.
    crop, flip: measure the separability of random views of the noise, as victims see it, in place of the noise
        itself. Patterns finer than `crop` pixels average out over the views, so coarse ones are left. On 4,000
        natural pictures the fine ones of the default stopped only victims that neither crop nor flip.

    The published objective adds a contrastive loss of SimCLR, MoCo or SimSiam. This is what the authors released for
    SimCLR and SimSiam: there the weight of that loss is 0, so that the network, although it is trained, never reaches
    the noise, and the spreads are constants to autograd, so that only the distances of centroids are optimised. For
    SimCLR their 40 epochs make five rounds each, 200 in all. Deviations: no network is trained; all batches are
    equally large; noise is clipped to the pictures' range after every step, not before the next; views are new.

    Raises `ValueError` for pictures of one class, and settings out of range.
    """
    settings = {name: value for name, value in locals().items() if name not in ("images", "progress")}
    _check(images, settings)
    device, labels, classes = images.device, images.labels, len(images.classes)
    generator = torch.Generator(device).manual_seed(seed)
    delta = torch.rand(images.images.shape, generator=generator, device=device).mul_(2 * epsilon).sub_(epsilon)
    curve: list[float] = []
    start = spoken = time.perf_counter()
    for round_ in range(1, rounds + 1):
        order = torch.randperm(len(images), generator=generator, device=device)
        total = torch.zeros((), device=device)
        for index in order.tensor_split(-(-len(images) // batch_size)):
            pictures, noise, members = images.images[index], delta[index], F.one_hot(labels[index], classes).float()
            for _ in range(steps):
                view = View.random(len(index), crop, flip, generator)  # the noise itself without crop and flip
                discriminant, gradient = separability(view(noise).flatten(1), members)
                gradient = view.adjoint(gradient.view(noise.shape))
                noise_step(noise, pictures, gradient, step=step, epsilon=epsilon)
            delta[index] = noise
            total += discriminant * (len(index) / len(images))  # as the last step found it
        curve.append(float(total))
        if not math.isfinite(curve[-1]):
            raise FloatingPointError(f"tue: the separability discriminant became {curve[-1]} in round {round_}")
        if progress is not None and (time.perf_counter() - spoken > 10 or round_ == rounds):
            spoken = time.perf_counter()
            progress(f"tue round {round_}/{rounds}: separability discriminant {curve[-1]:.3f}, {spoken - start:.0f} s")
    curves = {"separability": curve}
    return Perturbation.of(images, delta, epsilon=epsilon, method="tue", settings=settings, curves=curves)


def _check(images: ImageSet, settings: dict[str, float]) -> None:
    check_epsilon(settings["epsilon"])
    check_number("step", settings["step"], 0, 1, open_low=True)
    for name in ("steps", "rounds", "batch_size"):
        check_count(name, settings[name])
    check_count("crop", settings["crop"], 0, min(images.images.shape[2:]) - 1)
    check_flag("flip", settings["flip"])
    check_count("seed", settings["seed"], 0)
    if int(torch.bincount(images.labels).count_nonzero()) < 2:
        raise bad("images", "pictures of one class", "two classes or more")


def separability(noise: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """The discriminant of noise `(n, d)`, and its gradient `(n, d)` with the spreads held fixed.

    members: float `(n, K)`, 1 where a sample is of a class and 0 elsewhere; a class with no sample is left out.

    With D_ck = ‖μ_c − μ_k‖ and R the ratios, over m ordered pairs, the gradient with respect to μ_c is
    Σ_k −2/m · R_ck / D_ck · (μ_c − μ_k) / D_ck, and a sample's the share 1/n_c of its class's. Fewer than two classes
    have discriminant and gradient 0.
    """
    counts = members.sum(0).clamp_min(1)
    centres = members.T @ noise / counts[:, None]
    label = members.argmax(1)
    spread = (noise - centres[label]).norm(dim=1) @ members / counts
    there = members.any(0)
    pairs = (there[:, None] & there).fill_diagonal_(False)
    apart = torch.cdist(centres, centres)
    ratio = (spread[:, None] + spread + _SMALL) / (apart + _SMALL) * pairs
    m = pairs.to(noise.dtype).sum().clamp_min(1)
    pull = 2 / m * ratio / (apart + _SMALL) / apart.clamp_min(_SMALL)  # where two coincide: finite, times 0 below
    towards = (pull @ centres - pull.sum(1, keepdim=True) * centres) / counts[:, None]
    return ratio.sum() / m, towards[label]
