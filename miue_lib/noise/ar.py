"""AR: autoregressive noise (Sandoval-Segura, Singla, Geiping, Goldblum, Goldstein and Jacobs 2022)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import bad, check_count, check_number
from ..data import ImageSet
from ..perturbation import Perturbation
from .l2 import check_radius, levels_in_ball

_MARGIN = 4  # rows and columns generated before those that are used: the random start is not part of the noise
_BATCH = 512  # filters tried at once
_TRIALS = 3  # random starts from which a filter must stay bounded


def ar(
    images: ImageSet,
    *,
    radius: float = 1.0,
    most_norm: float = 50.0,
    response: float = 10.0,
    tries: int = 1_000_000,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Perturbation:
    """Noise in which every pixel is a weighted sum of the pixels before it, with the weights of its class.

    radius: L2 budget in pixel values; 1 is theirs for 3×32×32, a root mean square of 4.6/255.
    most_norm: the largest norm that a filter's noise may have before scaling, from standard normal starts; keeps out
        filters whose noise grows from pixel to pixel.
    response: the least that the filter of one class must answer to the noise, of norm 1, of each class found after it.
        10 is for ten classes of colour pictures, 3 the authors' for a hundred. Both limits are for 3×32×32, and are
        scaled to other shapes: by √(C·H·W) and by √((H − 2)(W − 2)).
    tries: how many random filters are tried before the search gives up.
    progress: called with one line every few seconds of the search; the noise itself is generated in a moment.

    A class has one filter `(3, 3)` a channel: eight random coefficients that sum to 1, and 0 at the pixel's own place.
    A picture's noise starts from random first rows and columns of its own, is generated 4 rows and columns larger than
    the picture, cropped, and scaled to the radius. A convolution with the class's filter, less the pixel itself, is
    near 0 wherever nothing was clipped, so a network's first layer can tell the class. Norm: L2 ≤ `radius` after
    rounding. Sample-wise, by class-wise filters. Free: no pass over the data.

    Filters depend on seed, settings, shape and the number of classes only: other pictures get the noise of the same
    filters with the same seed, from other starts.

    Deviations: the filters are searched anew, by the authors' program's rule, rather than read from its table. As
    there, only the filters found earlier are asked for their response to a new one's noise, not the other way round.

    Raises `ValueError` where the search fails, or the radius rounds to hardly anything.
    """
    check_radius(radius, images)
    check_number("most_norm", most_norm, 0, open_low=True)
    check_number("response", response, 0)
    check_count("tries", tries)
    check_count("seed", seed, 0)
    settings = {"radius": radius, "most_norm": most_norm, "response": response, "tries": tries, "seed": seed}
    shape = images.images.shape[1:]
    search = torch.Generator().manual_seed(seed)  # on the CPU: filters are few, and alike on every device
    filters = _find(len(images.classes), shape, most_norm, response, tries, search, progress).to(images.device)
    starts = torch.Generator(images.device).manual_seed(int(torch.randint(1 << 62, (), generator=search)))

    def noise(rows: slice) -> Tensor:
        return _generate(filters[images.labels[rows]], shape[1:], starts)

    levels = levels_in_ball(images, noise, radius)
    return Perturbation.of_levels(images, levels, epsilon=1.0, method="ar", settings=settings)


def _generate(filters: Tensor, size: torch.Size, generator: torch.Generator) -> Tensor:
    """Noise `(n, C, *size)` from filters `(n, C, 3, 3)`, each from a random start of its own.

    x[i, j] = Σ_ab f[a, b] · x[i − 2 + a, j − 2 + b], where f[2, 2], the pixel's own place, is 0; the first two rows
    and columns are standard normal. A pixel needs only pixels of smaller i + j, so a whole diagonal is computed at
    once: `skewed[i + j, i]` holds x[i, j] of all the pictures and channels, and a diagonal is a row.
    """
    n, channels = filters.shape[:2]
    height, width = size[0] + _MARGIN, size[1] + _MARGIN
    skewed = torch.randn((height + width - 1, height, n * channels), generator=generator, device=filters.device)
    taps = filters.flatten(0, 1).flatten(1).T.contiguous()
    for diagonal in range(4, height + width - 1):
        first, after = max(2, diagonal - width + 1), min(height, diagonal - 1)  # j = diagonal − i lies in [2, width)
        total = torch.zeros_like(skewed[diagonal, first:after])
        for tap, (up, left) in zip(taps, [(a, b) for a in (2, 1, 0) for b in (2, 1, 0)], strict=True):
            if up or left:
                total.addcmul_(tap, skewed[diagonal - up - left, first - up : after - up])
        skewed[diagonal, first:after] = total
    rows = torch.arange(_MARGIN, height, device=filters.device)[:, None]
    columns = torch.arange(_MARGIN, width, device=filters.device)
    return skewed[rows + columns, rows].permute(2, 0, 1).reshape(n, channels, *size)


def _find(
    classes: int,
    shape: torch.Size,
    most_norm: float,
    response: float,
    tries: int,
    generator: torch.Generator,
    progress: Callable[[str], None] | None = None,
) -> Tensor:
    """Filters `(classes, C, 3, 3)`: bounded, and each with noise to which those found before it respond.

    Raises `ValueError` if `tries` random ones do not hold enough.
    """
    channels, height, width = shape
    if min(height, width) < 3:
        raise bad("images", f"{height}×{width} pixels", "3×3 or more, the size of a filter")
    # The authors' limits are for 3×32×32 pictures. The norm grows with the root of the pixels; the response of a filter
    # of C channels to noise of norm 1, of which a pixel has the share 1/√(C·H·W), with that of the places H·W.
    most_norm = most_norm * math.sqrt(math.prod(shape) / 3072)
    response = response * math.sqrt((height - 2) * (width - 2)) / 30
    found: list[Tensor] = []
    begin = told = time.perf_counter()
    for tried in range(0, tries, _BATCH):
        filters = torch.randn((min(_BATCH, tries - tried), channels, 3, 3), generator=generator)
        filters[..., 2, 2] = 0
        filters /= filters.sum((2, 3), keepdim=True)
        for _ in range(_TRIALS):
            noise = _generate(filters, shape[1:], generator)
            norms = noise.flatten(1).norm(dim=1)
            bounded = norms <= most_norm  # False for NaN
            filters, noise = filters[bounded], noise[bounded] / norms[bounded, None, None, None]
        for other in found:
            filters, noise = _that_differ(filters, noise, other, response)
        while len(filters):
            found.append(filters[0])
            if len(found) == classes:
                return torch.stack(found)
            filters, noise = _that_differ(filters, noise, found[-1], response)
        if progress and (now := time.perf_counter()) - told > 5:
            progress(f"ar: {len(found)} of {classes} filters, {tried + _BATCH:,} tried, {now - begin:.0f} s")
            told = now
    raise bad("tries", tries, f"more, or milder limits: {len(found)} filters were found for {classes} classes")


def _that_differ(filters: Tensor, noise: Tensor, other: Tensor, response: float) -> tuple[Tensor, Tensor]:
    """Those of `filters` `(n, C, 3, 3)`, with their `noise` `(n, C, H, W)`, to which the filter `other` responds.

    Less the pixel itself, a filter answers its own noise with 0 everywhere.
    """
    matching = other.clone()
    matching[:, 2, 2] = -1
    loud = F.conv2d(noise, matching[None]).relu_().sum((1, 2, 3)) >= response
    return filters[loud], noise[loud]
