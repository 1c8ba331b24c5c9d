"""LSP: patches that a linear classifier separates (Yu, Zhang, Chen, Yin and Liu 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._errors import bad, check_count, check_number
from ..data import ImageSet
from ..perturbation import Perturbation
from .l2 import check_radius, levels_in_ball

_PRIME = (1 << 20) - 3  # below 2²⁰, so that float64 holds the sums in `_normals` exactly up to 2²⁵ pixels


def lsp(
    images: ImageSet,
    *,
    radius: float = 6 / 255 * 3072**0.5,
    patch: int = 8,
    separation: float = 10.0,
    seed: int = 0,
) -> Perturbation:
    """Noise of flat patches whose colours tell the class to a linear classifier, drawn without looking at a picture.

    radius: L2 budget in pixel values; theirs, 1.30, is a root mean square of 6/255 over 3 × 32 × 32.
    patch: side of a patch in pixels. separation: half the distance between two classes' centres along one colour,
        where a class spreads by about √(F/3): 4 for the F = 48 colours of 4 × 4 patches in 3 channels.

    The F = C · ⌈H/patch⌉ · ⌈W/patch⌉ patch colours of a picture of class c are A_c z + μ_c, where μ_c has random signs
    (no two classes alike) times `separation`, A_c `(F, F)` is uniform in [−1, 1] and z is a standard normal of the
    picture's own: scikit-learn's `make_classification`, which the authors call. Each is then scaled to the radius.
    Norm: L2 ≤ `radius` after rounding. Sample-wise around a pattern of the class. Free: no pass over the data.

    μ and A depend on seed, settings, shape and the number of classes only, and z on seed and the picture: other
    pictures get the noise of the same classes with the same seed, and the noise of some pictures is that part of the
    noise of all.

    Deviations: z is read off the picture (theirs is drawn in order); a patch over the border is cut off (theirs fails
    where the patch does not divide the picture); rounding is to the nearest level (theirs truncates).

    Memory beyond the pictures: F · C·H·W + K · F² numbers; 2 MB here and 5.6 GB for 100 classes of 3 × 224 × 224,
    where a patch of 32 needs 0.3 GB.

    Raises `ValueError` where there are more classes than 2^F patterns of signs, or the radius rounds to nothing.
    """
    check_radius(radius, images)
    check_count("patch", patch)
    check_number("separation", separation, 0)
    check_count("seed", seed, 0)
    settings = {"radius": radius, "patch": patch, "separation": separation, "seed": seed}
    channels, height, width = images.images.shape[1:]
    grid = (channels, math.ceil(height / patch), math.ceil(width / patch))
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the classes are few, and alike on every device
    centres = separation * _distinct_signs(len(images.classes), math.prod(grid), generator, patch)
    spreads = 2 * torch.rand((len(centres), *centres.shape[1:] * 2), generator=generator, dtype=torch.float64) - 1
    multipliers = torch.randint(_PRIME, (height * width * channels, math.prod(grid)), generator=generator)
    shift = torch.randint(_PRIME, (math.prod(grid),), generator=generator).double().to(images.device)
    centres, spreads = centres.to(images.device), spreads.to(images.device)
    multipliers = multipliers.double().to(images.device)

    def noise(rows: slice) -> Tensor:
        labels, own = images.labels[rows], _normals(images.images[rows], multipliers, shift)
        colours = centres[labels]
        for c, spread in enumerate(spreads):
            colours[labels == c] += own[labels == c] @ spread.T
        patches = colours.float().view(-1, *grid)
        return patches.repeat_interleave(patch, 2).repeat_interleave(patch, 3)[:, :, :height, :width]

    levels = levels_in_ball(images, noise, radius)
    return Perturbation.of_levels(images, levels, epsilon=1.0, method="lsp", settings=settings)


def _distinct_signs(classes: int, length: int, generator: torch.Generator, patch: int) -> Tensor:
    """`(classes, length)` of ±1 in float64, no two rows alike."""
    if classes > 2**length:
        raise bad("patch", patch, f"smaller patches: {length} colours have {2**length} signs for {classes} classes")
    rows: list[tuple[int, ...]] = []
    while len(rows) < classes:
        row = tuple(torch.randint(2, (length,), generator=generator).tolist())
        if row not in rows:
            rows.append(row)
    return 2.0 * torch.tensor(rows, dtype=torch.float64) - 1


def _normals(pictures: Tensor, multipliers: Tensor, shift: Tensor) -> Tensor:
    """Standard normals `(n, F)` in float64 that depend on each of uint8 `(n, C, H, W)` alone.

    multipliers, shift: whole numbers `(C·H·W, F)` and `(F,)` drawn from [0, p) for a prime p. Modulo p, the weighted
    sum of the pixels, shifted, is uniform, and for two different pictures independent (Carter and Wegman 1979).
    """
    hashed = (pictures.flatten(1).double() @ multipliers + shift).remainder_(_PRIME)
    normals: Tensor = torch.special.ndtri((hashed + 0.5) / _PRIME)
    return normals
