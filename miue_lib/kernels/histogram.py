"""A 2-D histogram of each of m slices.

Slice s holds n pairs (x_i, y_i), and each side has B − 1 ascending edges. A value's bin is the number of edges that
do not exceed it,

    b(v) = #{e : e ≤ v} ∈ {0, …, B − 1},        H_s[a, b] = #{i : b(x_i) = a, b(y_i) = b},

so bins are half-open on the right, nothing is out of range, and equal values share a bin whatever the edges are.

With 15 to 100 edges, counting them is faster than a binary search: it has no branches, and a processor compares 16
values with an edge at once. The GPU does the same, then adds into the slice's table by atomic additions of integers,
which give the same counts in any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._cpu import as_numpy, compiled, each
from ._triton import available, jit, tl

_BLOCK = 1024


def histogram2d(x: Tensor, y: Tensor, edges_x: Tensor, edges_y: Tensor) -> Tensor:
    """Counts int64 `(m, B_x, B_y)` of the pairs in x, y `(m, n)`; edges ascending `(m, B_x − 1)`, `(m, B_y − 1)`."""
    if x.is_cuda and available:
        return _cuda(x, y, edges_x, edges_y)
    if x.device.type == "cpu":
        return _cpu(x, y, edges_x, edges_y)
    return reference(x, y, edges_x, edges_y)


def quantile_edges(x: Tensor, bins: int) -> Tensor:
    """Edges `(m, bins − 1)` that put equally many of each row of x `(m, n)` into a bin, but equal values into one.

    They are the order statistics x_(p), p = ⌈bn/B⌉, b = 1 … B − 1, counted from 0; n ≥ B. Where x_(p) is repeated, an
    edge can lie below all its copies or above them, at the next larger value: it lies where fewer of them are in the
    wrong bin, but never below the smallest value or above the largest, where it would part nothing.
    """
    if x.device.type == "cpu":
        ascending = torch.empty_like(x, memory_format=torch.contiguous_format)
        source, target = as_numpy(x), ascending.numpy()

        def sort(s: int) -> None:
            target[s] = np.sort(source[s])  # vectorised: an order faster than torch's, and than selection

        each(sort, len(x), 4 * x.shape[1])
    else:
        ascending = x.contiguous().sort(1).values  # which keeps strides
    places = -(-torch.arange(1, bins, device=x.device) * x.shape[1] // bins)
    edges = ascending[:, places].contiguous()
    below, not_above = (torch.searchsorted(ascending, edges, right=right) for right in (False, True))
    up = (not_above < x.shape[1]) & ((below == 0) | (not_above - places < places - below))
    return ascending.gather(1, torch.where(up, not_above, below))


def reference(x: Tensor, y: Tensor, edges_x: Tensor, edges_y: Tensor) -> Tensor:
    """The same in plain PyTorch."""
    m, _ = x.shape
    rows, columns = edges_x.shape[1] + 1, edges_y.shape[1] + 1
    bins_x = torch.searchsorted(edges_x.contiguous(), x.contiguous(), right=True)
    bins_y = torch.searchsorted(edges_y.contiguous(), y.contiguous(), right=True)
    counts = torch.zeros(m, rows * columns, dtype=torch.int64, device=x.device)
    counts.scatter_add_(1, bins_x * columns + bins_y, torch.ones_like(bins_x))
    return counts.view(m, rows, columns)


def _cpu(x: Tensor, y: Tensor, edges_x: Tensor, edges_y: Tensor) -> Tensor:
    counts = torch.zeros(len(x), edges_x.shape[1] + 1, edges_y.shape[1] + 1, dtype=torch.int64, device="cpu")
    arrays = [as_numpy(part) for part in (x, y, edges_x, edges_y, counts)]
    each(lambda s: _count(*(array[s] for array in arrays)), len(x), 4 * x.shape[1])
    return counts


@compiled
def _count(x: np.ndarray, y: np.ndarray, edges_x: np.ndarray, edges_y: np.ndarray, counts: np.ndarray) -> None:
    bins_x, bins_y = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.int32)
    for start in range(0, len(x), _BLOCK):
        stop = min(start + _BLOCK, len(x))
        _bins(x[start:stop], edges_x, bins_x)
        _bins(y[start:stop], edges_y, bins_y)
        for i in range(stop - start):
            counts[bins_x[i], bins_y[i]] += 1


@compiled
def _bins(values: np.ndarray, edges: np.ndarray, bins: np.ndarray) -> None:
    for i in range(len(values)):
        bins[i] = 0
    whole = len(edges) // 4 * 4
    for e in range(0, whole, 4):  # four edges for one load and one store of the running count
        a, b, c, d = edges[e], edges[e + 1], edges[e + 2], edges[e + 3]
        for i in range(len(values)):
            v = values[i]
            bins[i] += np.int32(v >= a) + np.int32(v >= b) + np.int32(v >= c) + np.int32(v >= d)
    for e in range(whole, len(edges)):
        for i in range(len(values)):
            bins[i] += np.int32(values[i] >= edges[e])


def _cuda(x: Tensor, y: Tensor, edges_x: Tensor, edges_y: Tensor, block: int = _BLOCK) -> Tensor:
    m, n = x.shape
    x, y, edges_x, edges_y = (part.contiguous() for part in (x, y, edges_x, edges_y))
    counts = torch.zeros(m, edges_x.shape[1] + 1, edges_y.shape[1] + 1, dtype=torch.int32, device=x.device)
    if n:
        grid = (-(-n // block), m)
        _kernel[grid](x, y, edges_x, edges_y, counts, n, edges_x.shape[1], edges_y.shape[1], BLOCK=block)
    return counts.long()


@jit
def _kernel(  # type: ignore[no-untyped-def]
    x, y, edges_x, edges_y, counts, n, inner_x, inner_y, BLOCK: tl.constexpr
) -> Any:
    s = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    u = tl.load(x + s * n + i, mask=inside, other=0.0)
    v = tl.load(y + s * n + i, mask=inside, other=0.0)
    row = tl.zeros([BLOCK], tl.int32)
    for e in range(inner_x):
        row += (u >= tl.load(edges_x + s * inner_x + e)).to(tl.int32)
    column = tl.zeros([BLOCK], tl.int32)
    for e in range(inner_y):
        column += (v >= tl.load(edges_y + s * inner_y + e)).to(tl.int32)
    table = counts + s * (inner_x + 1) * (inner_y + 1)
    tl.atomic_add(table + row * (inner_y + 1) + column, 1, mask=inside)
