"""Leave-one-out Gaussian kernel sums of m slices, by binning.

Points t_i in d dimensions, in units of the kernel's width, have the sums, and the sums of squares,

    S_i = Σ_{j ≠ i} exp(−½ |t_i − t_j|²),     Q_i = Σ_{j ≠ i} exp(−½ |t_i − t_j|²)².

S is the kernel density estimate at t_i without t_i itself, up to a constant, and Q/S² its relative variance.
`reference` adds the n² terms. For d = 1 and 2 the fast path puts the points on a grid of spacing δ, the same for every
slice (Silverman 1982; Wand 1994):

1. *Spread.* Each point gives its weight to the 2^d grid points around it, linearly: H.
2. *Smooth.* One matrix K of kernel values between grid points does a whole batch: K H, then (K H) K for d = 2.
3. *Read.* Interpolate linearly at the points, and subtract what a point gave to itself, which is known exactly.

Spreading linearly is, on average over where a point lies in its cell, a convolution with a triangle of variance δ²/6,
and so is reading. Both would widen a kernel of variance v to v + δ²/3. So K holds the kernel of variance v − δ²/3 (v
is 1 for S, ½ for Q), and what is left is of order δ⁴, where plain binning leaves δ².

A point outside the grid gives nothing and reads 0, as if it had no neighbours.

The GPU spreads by atomic additions of floating-point numbers, whose order varies: its last bits do, too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._cpu import as_numpy, compiled, each
from ._triton import available, jit, tl

_PAIRS = 1 << 22  # differences that `reference` holds at once
_REACH = 8.0  # kernel widths: exp(−32) is 1e-14


def kernel_sums(points: Tensor, grid: int, spacing: float) -> tuple[Tensor, Tensor]:
    """S and Q, `(m, n)` each, of points `(m, n, d)`; binned for d ≤ 2, exact for d > 2.

    grid: points an axis, centred on 0. spacing: δ ≤ 1, in kernel widths. Points beyond ±δ (grid − 1)/2 count as alone.
    """
    if points.shape[2] > 2 or not (points.device.type == "cpu" or (points.is_cuda and available)):
        return reference(points)
    points = points.contiguous()
    table = torch.zeros(
        len(points), grid, grid if points.shape[2] == 2 else 1, dtype=points.dtype, device=points.device
    )
    spread, read = (_spread_cuda, _read_cuda) if points.is_cuda else (_spread_cpu, _read_cpu)
    spread(points, table, spacing)
    sums = []
    for variance in (1.0, 0.5):
        smooth, at_zero, at_one = _smoother(grid, spacing, variance, points)
        smoothed = smooth @ table if points.shape[2] == 1 else smooth @ table @ smooth
        sums.append(read(points, smoothed, spacing, at_zero, at_one))
    return sums[0], sums[1]


def reference(points: Tensor) -> tuple[Tensor, Tensor]:
    """The definition above in plain PyTorch: O(n²) time, O(n) memory."""
    m, n, d = points.shape
    sums, squares = torch.empty(2, m, n, dtype=points.dtype, device=points.device)
    for s in range(m):
        for i in torch.split(torch.arange(n, device=points.device), max(1, _PAIRS // n)):
            apart = (points[s, i, None, 0] - points[s, None, :, 0]).square()
            for c in range(1, d):
                apart += (points[s, i, None, c] - points[s, None, :, c]).square()
            kernel = apart.mul_(-0.5).exp_()
            sums[s, i] = kernel.sum(1) - 1
            squares[s, i] = kernel.square_().sum(1) - 1
    return sums, squares


def _smoother(grid: int, spacing: float, variance: float, like: Tensor) -> tuple[Tensor, float, float]:
    """K `(grid, grid)` for a kernel of this variance, and its values at distances of no and one grid point."""
    narrowed = variance - spacing**2 / 3
    steps = torch.arange(grid, dtype=torch.float64, device="cpu")
    kernel = torch.exp(-((steps * spacing) ** 2) / (2 * narrowed)) * math.sqrt(variance / narrowed)
    kernel[steps * spacing > _REACH * math.sqrt(narrowed)] = 0  # float32 would hold slow subnormal numbers there
    apart = (steps[:, None] - steps[None, :]).abs().long()
    return kernel[apart].to(like.device, like.dtype), float(kernel[0]), float(kernel[1])


# CPU


def _spread_cpu(points: Tensor, table: Tensor, spacing: float) -> None:
    p, t = as_numpy(points), table.numpy()
    spread = _spread_2d if points.shape[2] == 2 else _spread_1d
    each(lambda s: spread(p[s], t[s], spacing), len(points), 10 * points.shape[1])


def _read_cpu(points: Tensor, table: Tensor, spacing: float, at_zero: float, at_one: float) -> Tensor:
    sums = torch.empty(points.shape[:2], dtype=points.dtype, device="cpu")
    p, t, out = as_numpy(points), as_numpy(table), sums.numpy()
    read = _read_2d if points.shape[2] == 2 else _read_1d
    each(lambda s: read(p[s], t[s], spacing, at_zero, at_one, out[s]), len(points), 15 * points.shape[1])
    return sums


@compiled
def _spread_1d(points: np.ndarray, table: np.ndarray, spacing: float) -> None:
    grid = len(table)
    for i in range(len(points)):
        u = points[i, 0] / spacing + (grid - 1) / 2
        if 0 <= u < grid - 1:
            a = int(u)
            f = u - a
            table[a, 0] += 1 - f
            table[a + 1, 0] += f


@compiled
def _read_1d(
    points: np.ndarray, table: np.ndarray, spacing: float, at_zero: float, at_one: float, sums: np.ndarray
) -> None:
    grid = len(table)
    for i in range(len(points)):
        u = points[i, 0] / spacing + (grid - 1) / 2
        sums[i] = 0
        if 0 <= u < grid - 1:
            a = int(u)
            f = u - a
            total = (1 - f) * table[a, 0] + f * table[a + 1, 0]
            sums[i] = total - (((1 - f) ** 2 + f**2) * at_zero + 2 * f * (1 - f) * at_one)


@compiled
def _spread_2d(points: np.ndarray, table: np.ndarray, spacing: float) -> None:
    grid = len(table)
    for i in range(len(points)):
        u = points[i, 0] / spacing + (grid - 1) / 2
        v = points[i, 1] / spacing + (grid - 1) / 2
        if 0 <= u < grid - 1 and 0 <= v < grid - 1:
            a, b = int(u), int(v)
            f, g = u - a, v - b
            table[a, b] += (1 - f) * (1 - g)
            table[a, b + 1] += (1 - f) * g
            table[a + 1, b] += f * (1 - g)
            table[a + 1, b + 1] += f * g


@compiled
def _read_2d(
    points: np.ndarray, table: np.ndarray, spacing: float, at_zero: float, at_one: float, sums: np.ndarray
) -> None:
    grid = len(table)
    for i in range(len(points)):
        u = points[i, 0] / spacing + (grid - 1) / 2
        v = points[i, 1] / spacing + (grid - 1) / 2
        sums[i] = 0
        if 0 <= u < grid - 1 and 0 <= v < grid - 1:
            a, b = int(u), int(v)
            f, g = u - a, v - b
            total = (1 - f) * ((1 - g) * table[a, b] + g * table[a, b + 1])
            total += f * ((1 - g) * table[a + 1, b] + g * table[a + 1, b + 1])
            own = ((1 - f) ** 2 + f**2) * at_zero + 2 * f * (1 - f) * at_one
            own *= ((1 - g) ** 2 + g**2) * at_zero + 2 * g * (1 - g) * at_one
            sums[i] = total - own


# GPU: one kernel for both numbers of dimensions; in one, the second coordinate is absent


def _spread_cuda(points: Tensor, table: Tensor, spacing: float, block: int = 1024) -> None:
    m, n, d = points.shape
    _spread_kernel[(-(-n // block), m)](points, table, n, table.shape[1], 1 / spacing, D=d, BLOCK=block)


def _read_cuda(
    points: Tensor, table: Tensor, spacing: float, at_zero: float, at_one: float, block: int = 1024
) -> Tensor:
    m, n, d = points.shape
    sums = torch.empty(m, n, dtype=points.dtype, device=points.device)
    _read_kernel[(-(-n // block), m)](
        points, table.contiguous(), sums, n, table.shape[1], 1 / spacing, at_zero, at_one, D=d, BLOCK=block
    )
    return sums


@jit
def _spread_kernel(points, table, n, grid, scale, D: tl.constexpr, BLOCK: tl.constexpr) -> Any:  # type: ignore[no-untyped-def]
    s = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a, f, inside = _cell(points + s * n * D, i, i < n, grid, scale, 0, D)
    if D == 2:
        b, g, inside_too = _cell(points + s * n * D, i, i < n, grid, scale, 1, D)
        inside = inside & inside_too
        corner = table + s * grid * grid + a * grid + b
        tl.atomic_add(corner, (1 - f) * (1 - g), mask=inside)
        tl.atomic_add(corner + 1, (1 - f) * g, mask=inside)
        tl.atomic_add(corner + grid, f * (1 - g), mask=inside)
        tl.atomic_add(corner + grid + 1, f * g, mask=inside)
    else:
        tl.atomic_add(table + s * grid + a, 1 - f, mask=inside)
        tl.atomic_add(table + s * grid + a + 1, f, mask=inside)


@jit
def _read_kernel(  # type: ignore[no-untyped-def]
    points, table, sums, n, grid, scale, at_zero, at_one, D: tl.constexpr, BLOCK: tl.constexpr
) -> Any:
    s = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a, f, inside = _cell(points + s * n * D, i, i < n, grid, scale, 0, D)
    own = ((1 - f) * (1 - f) + f * f) * at_zero + 2 * f * (1 - f) * at_one
    if D == 2:
        b, g, inside_too = _cell(points + s * n * D, i, i < n, grid, scale, 1, D)
        inside = inside & inside_too
        corner = table + s * grid * grid + a * grid + b
        total = (1 - f) * (
            (1 - g) * tl.load(corner, mask=inside, other=0.0) + g * tl.load(corner + 1, mask=inside, other=0.0)
        )
        total += f * (
            (1 - g) * tl.load(corner + grid, mask=inside, other=0.0)
            + g * tl.load(corner + grid + 1, mask=inside, other=0.0)
        )
        own *= ((1 - g) * (1 - g) + g * g) * at_zero + 2 * g * (1 - g) * at_one
    else:
        corner = table + s * grid + a
        total = (1 - f) * tl.load(corner, mask=inside, other=0.0) + f * tl.load(corner + 1, mask=inside, other=0.0)
    tl.store(sums + s * n + i, tl.where(inside, total - own, 0.0), mask=i < n)


@jit
def _cell(points, i, valid, grid, scale, axis: tl.constexpr, D: tl.constexpr):  # type: ignore[no-untyped-def]
    """The grid point below a coordinate, how far beyond it (0 to 1), and whether the grid holds it."""
    t = tl.load(points + i * D + axis, mask=valid, other=0.0)
    u = t * scale + (grid - 1) / 2
    inside = valid & (u >= 0) & (u < grid - 1)
    u = tl.where(inside, u, 0.0)
    a = u.to(tl.int32)
    return a, u - a.to(u.dtype), inside
