"""A budget in L2: noise of a given shape, scaled so that what is published, whole levels within [0, 255], keeps it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .._errors import bad, check_number
from ..data import ImageSet


def check_radius(radius: float, images: ImageSet) -> float:
    """`radius` if it is a usable budget: at most the whole range of every pixel, and at least a level a pixel.

    Below, rounding would decide: noise of 0.6 levels everywhere is 1 or 0.
    """
    most = math.sqrt(images.images[0].numel())
    radius = check_number("radius", radius, 0, most, open_low=True)
    if radius < most / 255:
        shape = "×".join(map(str, images.images.shape[1:]))
        raise bad("radius", radius, f"at least {most / 255:.4g} for {shape}: a level a pixel, or rounding takes most")
    return radius


def levels_in_ball(images: ImageSet, noise: Callable[[slice], Tensor], radius: float) -> Tensor:
    """Whole levels `(N, C, H, W)` along `noise`, whose published ‖δ‖₂ is at most `radius` for every picture.

    noise: gives some rows of floating-point noise, of any scale; asked for a few megabytes at a time, in order.
    radius: in pixel values. Returned is int16, in 1/255.

    Each picture's noise is scaled to the radius, rounded to the nearest level and clipped where the picture would leave
    [0, 255]. Clipping only shortens it, but rounding may lengthen it by a little: where it does, the noise is scaled
    down before it is rounded again, until what is published lies in the ball.
    """
    limit = 255 * radius * (1 + 1e-9)  # forgives the rounding of a radius such as 6/255 · √3072
    levels = torch.empty(images.images.shape, dtype=torch.int16, device=images.device)
    rows = max(1, (1 << 22) // images.images[0].numel())
    for start in range(0, len(images), rows):
        part = slice(start, start + rows)
        clean = images.images[part].float()
        wanted = noise(part)
        wanted = wanted * (255 * radius / _norms(wanted).clamp_min(1e-30)).float()
        while True:
            change = (clean + wanted.round()).clamp_(0, 255).sub_(clean)
            excess = _norms(change) / limit
            if not bool((excess > 1).any()):
                break
            wanted = torch.where(excess > 1, wanted * (0.9995 / excess).float(), wanted)
        levels[part] = change.to(torch.int16)
    return levels


def _norms(noise: Tensor) -> Tensor:
    """‖·‖₂ of each picture, `(n, 1, 1, 1)`, in float64: there the squares of whole levels add up exactly."""
    norms: Tensor = torch.linalg.vector_norm(noise, dim=(1, 2, 3), keepdim=True, dtype=torch.float64)
    return norms
