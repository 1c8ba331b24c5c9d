"""Orthogonal projection: take from the pictures what a linear model tells their classes by.

Sandoval-Segura, Singla, Geiping, Goldblum and Goldstein (2023).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import bad, check_number
from ..data import ImageSet
from .pictures import check_pictures

_ROWS = 1 << 22  # pixels at once: nothing but memory depends on it
_STEPS = 200  # of L-BFGS


@torch.inference_mode(False)
def directions_of(images: ImageSet, *, decay: float = 0.02) -> Tensor:
    """The directions in pixel space by which a logistic regression tells the pictures' classes.

    Returns float64 `(k, C·H·W)` on the pictures' device, orthonormal rows, those that the classifier makes most of
    first: k = K − 1 for K classes that have pictures (fewer only if there are fewer pixels), because what is added to
    the weights of all classes alike changes no probability.

    decay: λ > 0 in mean cross-entropy + λ/2 ‖W‖², with pixel values in [0, 1], where W `(K, C·H·W)` has no bias and
        sees the pictures minus their mean. A smaller one fits the pictures more closely, and tells classes by
        directions in which they vary less.

    The authors train for 20 epochs of SGD on 50,000 pictures, from random weights and without a decay, where the
    result depends on when it stops: its learning rates sum up to 52, so it gets about as far as the minimum for
    λ = 1/52. That minimum is unique, so it needs neither a seed nor an order. Their K-th direction is what is common to
    all classes, which training leaves as it was drawn; and their pictures keep the mean, so that W has to tell classes
    across it.

    Cost: about 40 passes over the pictures at the default, 200 at most, each two products with W. Float64, in parts
    of some megabytes.

    Raises `ValueError` for no pictures, those of one class only, and another `decay`.
    """
    check_pictures(images)
    check_number("decay", decay, 0, open_low=True)
    # A class that has no pictures is told by nothing.
    present, labels = torch.unique(images.labels, return_inverse=True)
    if len(present) < 2:
        raise bad("images", "pictures of one class", "two or more classes")
    mean = _mean(images)
    weights = torch.zeros((len(present), len(mean)), dtype=torch.float64, device=images.device, requires_grad=True)
    # Ten past steps, since each is as large as the weights, and those are large for large pictures.
    settings: Any = {"tolerance_grad": 1e-6, "history_size": 10, "line_search_fn": "strong_wolfe"}
    optimizer: Any = torch.optim.LBFGS([weights], max_iter=_STEPS, **settings)

    def objective() -> Any:  # the optimizer calls it with gradients on
        optimizer.zero_grad()
        value: Any = decay / 2 * weights.square().sum()
        value.backward()
        for part in _parts(images):
            logits = _centred(images, part, mean) @ weights.T
            loss: Any = F.cross_entropy(logits, labels[part], reduction="sum") / len(images)
            loss.backward()
            value = value.detach() + loss.detach()
        return value

    optimizer.step(objective)
    found = weights.detach()
    return _orthonormal("images", found - found.mean(0))


def project_out(images: ImageSet, *, directions: Tensor | None = None, decay: float = 0.02) -> ImageSet:
    """The pictures without their component along some directions, in 8 bits again.

    directions: `(k, C·H·W)` or `(k, C, H, W)`, of any length and at any angles: what is taken out is their span.
        By default those of `directions_of(images, decay=decay)`.
    decay: of that; without a meaning where directions are given.

    A picture x becomes m + (1 − QQᵀ)(x − m), where m is the mean picture and the columns of Q are orthonormal and span
    the directions, clipped to [0, 255] and rounded to the nearest level. Deviations: the authors take the component of
    x itself, which moves every picture by the same QQᵀm. The pictures that the victim is tested on are not projected,
    and m is where they lie. And they train on the floating-point numbers, of which many lie outside [0, 1]; these
    are pictures, and clipping puts some back of what was taken. (4,000 pictures of Fashion-MNIST with its black
    background, clean or with the noise of LSP, PIL or TUE: at the default 15 to 17 % of the pixels are clipped, and of
    the components along the directions, as a root mean square, 9 % are left.)

    What a linear model tells classes by is not only noise. Where it tells clean classes too, as those of Fashion-MNIST,
    the projection takes from what the victim should learn, the more so for a large `decay`: clean pictures of norm 12
    move by 4.6 at the default and by 1.5 for 1e-5.

    Raises `ValueError` for directions of another width, without a value other than 0, or not finite; and, where they
    are to be found, whatever `directions_of` raises.
    """
    check_pictures(images)
    if directions is None:
        basis = directions_of(images, decay=decay)
    else:
        basis = _orthonormal("directions", _rows(directions, images))
    mean = _mean(images)
    projected = torch.empty_like(images.images)
    for part in _parts(images):
        pixels = _centred(images, part, mean)
        levels = (pixels - (pixels @ basis.T) @ basis + mean).mul_(255)
        projected[part] = levels.clamp_(0, 255).round_().to(torch.uint8).view_as(projected[part])
    return replace(images, images=projected, name=f"{images.name}, projected")


def _rows(directions: Tensor, images: ImageSet) -> Tensor:
    """`directions` as float64 `(k, C·H·W)` on the pictures' device, each of length 1, or a `ValueError`."""
    shape = tuple(images.images.shape[1:])
    if not isinstance(directions, Tensor) or not directions.is_floating_point():
        given = f"dtype {directions.dtype}" if isinstance(directions, Tensor) else type(directions).__name__
        raise bad("directions", given, "a tensor of floating-point numbers")
    width = images.images[0].numel()
    if len(directions.shape) < 2 or len(directions) == 0 or directions.shape[1:] not in ((width,), shape):
        expected = f"(k, {width}) or (k, {', '.join(map(str, shape))})"
        raise bad("directions", f"shape {tuple(directions.shape)}", expected)
    rows = directions.detach().to(images.device, torch.float64).flatten(1)
    if not bool(torch.isfinite(rows).all()):
        raise bad("directions", "NaN or infinite values", "finite values")
    if not bool(rows.any(1).all()):
        raise bad("directions", "a direction of zeros", "values other than 0 in each")
    # By the largest first: squares of huge or tiny numbers have no place in float64.
    return F.normalize(rows / rows.abs().amax(1, keepdim=True))


def _orthonormal(argument: str, rows: Tensor) -> Tensor:
    """An orthonormal basis of the span of `rows` `(k, d)`, of as many rows as that has dimensions."""
    _, sizes, basis = torch.linalg.svd(rows, full_matrices=False)
    if not bool(sizes[0] > 0):
        raise bad(argument, "pictures that nothing linear tells apart", "classes whose pictures differ")
    kept: Tensor = basis[sizes > sizes[0] * max(rows.shape) * torch.finfo(rows.dtype).eps]
    return kept


def _parts(images: ImageSet) -> list[slice]:
    rows = max(1, _ROWS // images.images[0].numel())
    return [slice(start, start + rows) for start in range(0, len(images), rows)]


def _mean(images: ImageSet) -> Tensor:
    """The mean picture, float64 `(C·H·W,)`: sums of whole numbers, exact in any order."""
    total = torch.zeros(images.images[0].numel(), dtype=torch.int64, device=images.device)
    for part in _parts(images):
        total += images.images[part].flatten(1).sum(0)
    return total.double() / (255 * len(images))


def _centred(images: ImageSet, part: slice, mean: Tensor) -> Tensor:
    """Pictures minus the mean one, float64 `(n, C·H·W)`."""
    return images.images[part].flatten(1).double().div_(255).sub_(mean)
