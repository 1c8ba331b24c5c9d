"""OPS: one-pixel shortcut (Wu, Chen, Xie and Huang 2023)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from .._errors import bad, check_count
from ..data import ImageSet
from ..perturbation import Perturbation

_ROUNDING = 1 / (255 * 12**0.5)  # standard deviation of rounding to 256 levels, in pixel values


def ops(images: ImageSet, *, pixels: int = 1, seed: int = 0) -> Perturbation:
    """One pixel of each class's pictures set to one of the extreme colours: where that changes them most reliably.

    pixels: how many positions a class, the authors' `sparsity`, 1 in the paper; more make the shortcut survive crops.

    For a class, every position p and every corner ξ ∈ {0, 1}^C of the colours is scored by the mean of |ξ − x_p| over
    its pictures and channels, divided by the standard deviation; the best pair that no other class has becomes the
    class's pixel. Norm: L0 ≤ `pixels` positions, all channels of each; L∞ up to 1. Position and colour are class-wise.
    Free: no pass over the data. Two classes may share a position with different colours, but never both.

    `class_pixels` gives the pairs and `painted` uses them: that is how *other* pictures get the same shortcut. They are
    measured on pictures, so crafting a part of the pictures may find other ones.

    Deviations: the variance of rounding to 256 levels is added to the variance, since where a class is constant, as
    the border of Fashion-MNIST is, the original divides by zero: it then prefers 0/0, which changes nothing. Among
    equal scores, which only such constant pixels have, `seed` chooses; the original takes the last it has sorted. Of
    several pixels each is at a position of its own; in the original one can paint over another.
    """
    settings = {"pixels": pixels, "seed": seed}
    levels = painted(images, *class_pixels(images, pixels=pixels, seed=seed))
    return Perturbation.of_levels(images, levels, epsilon=1.0, method="ops", settings=settings)


def class_pixels(images: ImageSet, *, pixels: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Of each class, the positions y · W + x `(K, pixels)` and their colours `(K, pixels, C)` of 0 or 1, in int64."""
    _, channels, height, width = images.images.shape
    # Each class leaves so many fewer pairs of position and colour; that many positions still have one free.
    most = int(height * width / (1 + (len(images.classes) - 1) / 2**channels))
    if most < 1:
        raise bad("images", f"{len(images.classes)} classes of {height}×{width} pixels", "a pixel for each class")
    check_count("pixels", pixels, 1, most)
    check_count("seed", seed, 0)
    corners = torch.tensor([*itertools.product((0, 1), repeat=channels)], device=images.device)
    generator = torch.Generator().manual_seed(seed)
    taken = torch.zeros((len(corners), height * width), dtype=torch.bool, device=images.device)
    positions = torch.empty((len(images.classes), pixels), dtype=torch.int64, device=images.device)
    colours = torch.empty((*positions.shape, channels), dtype=torch.int64, device=images.device)
    for c, (means, squares) in enumerate(zip(*_moments(images), strict=True)):
        # |ξ − x| is x where ξ = 0 and 1 − x where ξ = 1, so all its moments come from those of x.
        mean = (corners[:, :, None] - means).abs().mean(1)
        square = (corners[:, :, None] * (1 - 2 * means) + squares).mean(1)
        spread = (square - mean.square()).clamp_min(0).add(_ROUNDING**2).sqrt()
        score, corner = (mean / spread).masked_fill(taken, -1.0).max(0)  # of each position, its best colour
        shuffled = torch.randperm(len(score), generator=generator).to(images.device)
        places = shuffled[score[shuffled].sort(stable=True, descending=True).indices[:pixels]]
        taken[corner[places], places] = True
        positions[c], colours[c] = places, corners[corner[places]]
    return positions, colours


def painted(images: ImageSet, positions: Tensor, colours: Tensor) -> Tensor:
    """The levels int16 `(N, C, H, W)` that paint `class_pixels` onto pictures by their labels."""
    channels = images.images.shape[1]
    places = positions[images.labels][:, None].expand(-1, channels, -1)
    values = 255 * colours[images.labels].transpose(1, 2)
    levels = torch.zeros(images.images.shape, dtype=torch.int16, device=images.device)
    change = values - images.images.flatten(2).gather(2, places)
    levels.flatten(2).scatter_(2, places, change.to(torch.int16))
    return levels


def _moments(images: ImageSet) -> tuple[Tensor, Tensor]:
    """Mean and mean square of every pixel over the pictures of each class: float64 `(K, C, H·W)`, in [0, 1].

    Sums of whole numbers are exact in any order. A class without pictures has zeros.
    """
    classes, pixels = len(images.classes), images.images[0].numel()
    sums, squares = torch.zeros((2, classes, pixels), dtype=torch.int64, device=images.device)
    rows = max(1, (1 << 20) // pixels)
    for start in range(0, len(images), rows):
        values = images.images[start : start + rows].flatten(1).long()
        labels = images.labels[start : start + rows]
        sums.index_add_(0, labels, values)
        squares.index_add_(0, labels, values.square())
    counts = torch.bincount(images.labels, minlength=classes).clamp_min(1)[:, None].double()
    shape = (classes, images.images.shape[1], -1)
    return (sums / (255 * counts)).view(shape), (squares / (255**2 * counts)).view(shape)
