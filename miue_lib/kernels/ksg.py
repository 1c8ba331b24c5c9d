"""Nearest neighbours and marginal counts, as the estimator of Kraskov, Stögbauer and Grassberger (2004) needs them.

For each of n points z_i = (x_i, y_i), with the maximum norm throughout,

    ε_i   = the k-th smallest of max(|x_j − x_i|, |y_j − y_i|) over j ≠ i,
    n_x,i = #{j ≠ i : |x_j − x_i| < ε_i},     n_y,i = #{j ≠ i : |y_j − y_i| < ε_i}.

`reference` does just that, n² differences in blocks of rows. The fast paths return the same numbers to the last bit,
ties included, because they compare the same floating-point differences and only leave out pairs that cannot matter:

*Neighbours, by strips.* Sort by x and cut into strips of about √(nk) points; sort each strip by y. In its own strip a
point looks at the others in the order of |y_j − y_i|, until that alone reaches its k-th distance so far. Then it does
the same in the strips to the left and right, until the gap in x to a strip reaches the k-th distance. A strip is about
as wide as √k typical neighbour distances times a constant, so a few dozen candidates decide a point at any n. Equal x
are sorted by y before cutting, so that a point passes over the strips of a long tie by their range of y.

*Counts.* Sort x once; both ends of the window {j : |x_j − x_i| < ε_i} are found by search. What is compared is the
difference x_j − x_i, which is monotone in x_j also when rounded. Searching for x_i ± ε_i instead rounds twice, often
onto the k-th neighbour itself, and biases the estimate (by −0.02 nats at n = 1000).

A CPU gives each slice a thread. On a GPU a lane has a point, and a block's lanes walk in step until the last is done.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ._cpu import as_numpy, compiled, each
from ._triton import available, jit, tl

_PAIRS = 1 << 22  # differences that `reference` holds at once
_MOST_NEAREST = 256  # k that Triton's kernel holds for each point; compiling it for more takes very long


class Neighbours(NamedTuple):
    """`(m, n)` each: distance to the k-th neighbour, and int64 numbers of strictly nearer points on each side."""

    eps: Tensor
    n_x: Tensor
    n_y: Tensor


def neighbours(x: Tensor, y: Tensor, k: int) -> Neighbours:
    """Of m slices of n pairs: x, y `(m, n)`, or `(m, n, d_x)` and `(m, n, d_y)` for vectors; n > k.

    On a GPU `reference` takes vectors and k > 256.
    """
    if x.ndim == 3 or y.ndim == 3:
        return _cpu_vectors(x, y, k) if x.device.type == "cpu" else reference(x, y, k)
    if x.is_cuda and available and k <= _MOST_NEAREST:
        return _cuda(x, y, k)
    return _cpu(x, y, k) if x.device.type == "cpu" else reference(x, y, k)


def reference(x: Tensor, y: Tensor, k: int) -> Neighbours:
    """The definition above in plain PyTorch: O(n²) time, O(n) memory."""
    x, y = (part if part.ndim == 3 else part[:, :, None] for part in (x, y))
    m, n, _ = x.shape
    rows = max(1, _PAIRS // n)
    found = []
    for s in range(m):
        for i in torch.split(torch.arange(n, device=x.device), rows):
            apart_x = _maximum_norm(x[s, i], x[s])
            apart_y = _maximum_norm(y[s, i], y[s])
            apart = torch.maximum(apart_x, apart_y)
            self_pairs = (torch.arange(len(i), device=x.device), i)
            for each_side in (apart, apart_x, apart_y):
                each_side[self_pairs] = torch.inf
            eps = apart.kthvalue(k, dim=1).values
            found.append((eps, (apart_x < eps[:, None]).sum(1), (apart_y < eps[:, None]).sum(1)))
    return Neighbours(*(torch.cat(parts).view(m, n) for parts in zip(*found, strict=True)))


def _maximum_norm(a: Tensor, b: Tensor) -> Tensor:
    """max_c |a_ic − b_jc| as `(len(a), len(b))`, one coordinate at a time: no third dimension in memory."""
    largest = (a[:, None, 0] - b[None, :, 0]).abs()
    for c in range(1, a.shape[1]):
        largest = torch.maximum(largest, (a[:, None, c] - b[None, :, c]).abs())
    return largest


def _strip_length(n: int, k: int) -> int:
    return max(1, min(n, math.isqrt(n * k)))


# CPU, one-dimensional sides


def _cpu(x: Tensor, y: Tensor, k: int) -> Neighbours:
    found = _empty(x)
    a, b, eps, n_x, n_y = (as_numpy(part) for part in (x, y, *found))
    each(lambda s: _slice(a[s], b[s], eps[s], n_x[s], n_y[s], k), len(x), 300 * x.shape[1])
    return found


def _empty(x: Tensor) -> Neighbours:
    shape, device = x.shape[:2], x.device
    counts = [torch.empty(shape, dtype=torch.int64, device=device) for _ in range(2)]
    return Neighbours(torch.empty(shape, dtype=x.dtype, device=device), *counts)


def _slice(x: np.ndarray, y: np.ndarray, eps: np.ndarray, n_x: np.ndarray, n_y: np.ndarray, k: int) -> None:
    n, length = len(x), _strip_length(len(x), k)
    by_x = np.argsort(x)  # numpy's sort is vectorised: five times as fast as torch's
    ascending = x[by_x]
    if (ascending[length:] == ascending[:-length]).any():  # a tie longer than a strip
        by_x = np.lexsort((y, x))
    whole = n // length * length
    in_strips = np.empty_like(by_x)
    in_strips[:whole] = np.take_along_axis(
        by_x[:whole].reshape(-1, length), np.argsort(y[by_x[:whole]].reshape(-1, length), axis=1), axis=1
    ).ravel()
    in_strips[whole:] = by_x[whole:][np.argsort(y[by_x[whole:]])]
    _search_strips(x[in_strips], y[in_strips], ascending, in_strips, length, k, eps)
    _count_nearer(ascending, by_x, eps, n_x)
    by_y = np.argsort(y)
    _count_nearer(y[by_y], by_y, eps, n_y)


@compiled
def _search_strips(
    x: np.ndarray, y: np.ndarray, ascending: np.ndarray, index: np.ndarray, length: int, k: int, eps: np.ndarray
) -> None:
    n = len(x)
    strips = (n + length - 1) // length
    nearest = np.empty(k, x.dtype)
    # In each strip, the first point that is not below the current one in y. Points come in the order of y within
    # their strip, so it only moves up.
    level = np.empty(strips, np.int64)
    for own in range(strips):
        for t in range(strips):
            level[t] = t * length
        for p in range(own * length, min(n, own * length + length)):
            nearest[:] = np.inf
            _search_one(x, y, p, p, p + 1, own * length, min(n, own * length + length), nearest)
            for t in range(own - 1, -1, -1):
                if x[p] - ascending[t * length + length - 1] >= nearest[k - 1]:
                    break  # strips farther left are farther away
                _search_strip(x, y, p, level, t, t * length, t * length + length, nearest)
            for t in range(own + 1, strips):
                if ascending[t * length] - x[p] >= nearest[k - 1]:
                    break
                _search_strip(x, y, p, level, t, t * length, min(n, t * length + length), nearest)
            eps[index[p]] = nearest[k - 1]


@compiled
def _search_strip(
    x: np.ndarray, y: np.ndarray, p: int, level: np.ndarray, t: int, first: int, last: int, nearest: np.ndarray
) -> None:
    worst = nearest[len(nearest) - 1]
    if y[first] - y[p] >= worst or y[p] - y[last - 1] >= worst:
        return
    start = level[t]
    while start < last and y[start] < y[p]:
        start += 1
    level[t] = start
    _search_one(x, y, p, start, start, first, last, nearest)


@compiled
def _search_one(
    x: np.ndarray, y: np.ndarray, p: int, below: int, above: int, first: int, last: int, nearest: np.ndarray
) -> None:
    """Look from `below` (exclusive) down to `first` and from `above` up to `last`, nearest in y first."""
    k = len(nearest)
    infinity = nearest.dtype.type(np.inf)  # a float64 here would make float32 comparisons slow
    down = y[p] - y[below - 1] if below > first else infinity
    up = y[above] - y[p] if above < last else infinity
    while min(down, up) < nearest[k - 1]:
        if down <= up:
            below -= 1
            distance = max(abs(x[below] - x[p]), down)
            down = y[p] - y[below - 1] if below > first else infinity
        else:
            distance = max(abs(x[above] - x[p]), up)
            above += 1
            up = y[above] - y[p] if above < last else infinity
        if distance < nearest[k - 1]:
            _insert(nearest, distance)


@compiled
def _insert(nearest: np.ndarray, distance: float) -> None:
    """Put `distance` in its place among the k nearest, which are in order, and drop the last."""
    q = len(nearest) - 1
    while q > 0 and nearest[q - 1] > distance:
        nearest[q] = nearest[q - 1]
        q -= 1
    nearest[q] = distance


@compiled
def _count_nearer(ascending: np.ndarray, index: np.ndarray, eps: np.ndarray, counts: np.ndarray) -> None:
    """counts[index[p]] = how many others are strictly within eps[index[p]] of the p-th value in ascending order."""
    n = len(ascending)
    lowest = ascending[0]
    extent = ascending[n - 1] - lowest
    scale = n / extent if extent > 0 else 0.0
    # n equal cells over the range; where each begins in `ascending`. They only say where to start looking, so that a
    # bad guess (all of a heavy-tailed sample in one cell) costs time and nothing else.
    begins = np.empty(n + 1, np.int64)
    j = 0
    for cell in range(n + 1):
        while j < n - 1 and (ascending[j] - lowest) * scale < cell:
            j += 1
        begins[cell] = j
    for p in range(n):
        radius = eps[index[p]]
        if radius > 0:
            low = begins[_cell((ascending[p] - radius - lowest) * scale, n)]
            high = begins[_cell((ascending[p] + radius - lowest) * scale, n)]
            low = _last_within(ascending, p, min(low, p), -1, radius)
            counts[index[p]] = _last_within(ascending, p, max(high, p), 1, radius) - low
        else:
            counts[index[p]] = 0


@compiled
def _cell(place: float, n: int) -> int:
    """The cell of a place in 0 … n; 0 for NaN, which extents that overflow or underflow give."""
    if place >= n:
        return n
    return int(place) if place > 0 else 0


@compiled
def _last_within(ascending: np.ndarray, p: int, guess: int, direction: int, radius: float) -> int:
    """The farthest j from p in `direction` with |ascending[j] − ascending[p]| < radius, looking from `guess`."""
    n = len(ascending)
    v = ascending[p]
    step = 1
    if abs(ascending[guess] - v) < radius:
        inside = guess
        outside = guess + direction
        while 0 <= outside < n and abs(ascending[outside] - v) < radius:
            inside = outside
            step *= 2
            outside += direction * step
        outside = min(max(outside, -1), n)
    else:
        outside = guess
        inside = guess - direction
        while abs(ascending[inside] - v) >= radius:  # ends at p at the latest
            outside = inside
            step *= 2
            inside -= direction * step
            if (inside - p) * direction < 0:
                inside = p
    while abs(outside - inside) > 1:
        middle = (inside + outside) >> 1
        if abs(ascending[middle] - v) < radius:
            inside = middle
        else:
            outside = middle
    return inside


# CPU, vectors: every pair within reach along the first coordinate, left as soon as one coordinate is too far


def _cpu_vectors(x: Tensor, y: Tensor, k: int) -> Neighbours:
    x, y = (part if part.ndim == 3 else part[:, :, None] for part in (x, y))
    found = _empty(x)
    n = x.shape[1]
    parts = min(n, 4 * torch.get_num_threads())  # of unequal cost, so more than one a thread
    cost = n * n / parts  # about a nanosecond a pair
    bounds = np.linspace(0, n, parts + 1).astype(np.int64)
    for s in range(len(x)):
        eps, n_x, n_y = (as_numpy(part[s]) for part in found)
        u, v = as_numpy(x[s]), as_numpy(y[s])
        by_x, by_y = np.argsort(u[:, 0]), np.argsort(v[:, 0])
        both, first = np.concatenate([u, v], axis=1)[by_x], u[by_x]
        each(lambda i: _search_vectors(both, by_x, bounds[i], bounds[i + 1], k, eps), parts, cost)  # noqa: B023
        each(lambda i: _count_vectors(first, by_x, bounds[i], bounds[i + 1], eps, n_x), parts, cost)  # noqa: B023
        second = v[by_y]
        each(lambda i: _count_vectors(second, by_y, bounds[i], bounds[i + 1], eps, n_y), parts, cost)  # noqa: B023
    return found


@compiled
def _search_vectors(z: np.ndarray, index: np.ndarray, start: int, stop: int, k: int, eps: np.ndarray) -> None:
    n = len(z)
    nearest = np.empty(k, z.dtype)
    infinity = z.dtype.type(np.inf)
    for p in range(start, stop):
        nearest[:] = infinity
        below, above = p, p + 1
        down = z[p, 0] - z[below - 1, 0] if below > 0 else infinity
        up = z[above, 0] - z[p, 0] if above < n else infinity
        while min(down, up) < nearest[k - 1]:
            if down <= up:
                below -= 1
                distance = _apart(z, below, p, nearest[k - 1])
                down = z[p, 0] - z[below - 1, 0] if below > 0 else infinity
            else:
                distance = _apart(z, above, p, nearest[k - 1])
                above += 1
                up = z[above, 0] - z[p, 0] if above < n else infinity
            if distance < nearest[k - 1]:
                _insert(nearest, distance)
        eps[index[p]] = nearest[k - 1]


@compiled
def _count_vectors(
    z: np.ndarray, index: np.ndarray, start: int, stop: int, eps: np.ndarray, counts: np.ndarray
) -> None:
    n = len(z)
    for p in range(start, stop):
        radius = eps[index[p]]
        count = 0
        j = p - 1
        while j >= 0 and z[p, 0] - z[j, 0] < radius:
            count += _apart(z, j, p, radius) < radius
            j -= 1
        j = p + 1
        while j < n and z[j, 0] - z[p, 0] < radius:
            count += _apart(z, j, p, radius) < radius
            j += 1
        counts[index[p]] = count


@compiled
def _apart(z: np.ndarray, i: int, j: int, enough: float) -> float:
    """max_c |z_ic − z_jc|, or any value that is at least `enough` once a coordinate reaches it."""
    largest: float = abs(z[i, 0] - z[j, 0])
    for c in range(1, z.shape[1]):
        if largest >= enough:
            break
        largest = max(largest, abs(z[i, c] - z[j, c]))
    return largest


# GPU


def _cuda(x: Tensor, y: Tensor, k: int, block: int = 128) -> Neighbours:
    m, n = x.shape
    x, y = x.contiguous(), y.contiguous()  # sorting keeps strides
    length = _strip_length(n, k)
    found = _empty(x)
    ascending, by_x = x.sort(1)
    if length < n and bool((ascending[:, length:] == ascending[:, :-length]).any()):  # a tie longer than a strip
        by_y = y.argsort(1)
        by_x = by_y.gather(1, x.gather(1, by_y).argsort(dim=1, stable=True))
    strips = -(-n // length)
    index = F.pad(by_x, (0, strips * length - n))
    padding = torch.arange(strips * length, device=x.device) >= n
    heights = y.gather(1, index).masked_fill(padding, torch.inf).view(m, strips, length)
    heights, within = heights.sort(2)  # padding stays last
    index = index.view(m, strips, length).gather(2, within).view(m, -1)[:, :n].contiguous()
    heights = heights.view(m, -1)[:, :n].contiguous()
    steps = length.bit_length()
    _search_kernel[(-(-n // block), m)](
        x.gather(1, index),
        heights,
        ascending,
        index,
        found.eps,
        n,
        length,
        strips,
        steps,
        k,
        KPAD=_power_of_two(k),
        BLOCK=block,
    )
    steps = n.bit_length()
    for values, order, counts in ((ascending, by_x, found.n_x), (*y.sort(1), found.n_y)):
        eps = found.eps.gather(1, order)
        _count_kernel[(-(-n // block), m)](values, order, eps, counts, n, steps, BLOCK=block)
    return found


def _power_of_two(k: int) -> int:
    return 1 << (k - 1).bit_length()


@jit
def _search_kernel(  # type: ignore[no-untyped-def]
    x, y, ascending, index, eps, n, length, strips, steps, k, KPAD: tl.constexpr, BLOCK: tl.constexpr
) -> Any:
    s = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = p < n
    x += s * n
    y += s * n
    ascending += s * n
    index += s * n
    xp = tl.load(x + p, mask=valid, other=0.0)
    yp = tl.load(y + p, mask=valid, other=0.0)
    own = p // length
    # The k nearest so far, in no order; a column beyond k holds −∞ and never is the largest.
    slots = tl.arange(0, KPAD)[None, :]
    nearest = tl.where(slots < k, float("inf"), float("-inf")) + tl.zeros([BLOCK, KPAD], xp.dtype)
    worst = tl.max(nearest, 1)
    # away: 0 is the own strip, then 1 to the left, 1 to the right, 2 to the left, …
    go_left = valid
    go_right = valid
    turn = 0
    while tl.max((go_left | go_right).to(tl.int32), 0) > 0:
        away = (turn + 1) // 2
        leftwards = turn % 2 == 1
        strip = tl.where(leftwards, own - away, own + away)
        inside = (strip >= 0) & (strip < strips)
        first = tl.where(inside, strip * length, 0)
        last = tl.minimum(first + length, n)
        edge = tl.load(ascending + tl.where(leftwards, last - 1, first), mask=inside, other=0.0)
        gap = tl.where(leftwards, xp - edge, edge - xp)
        near = inside & ((turn == 0) | (gap < worst))
        go_left = tl.where(leftwards, go_left & near, go_left)
        go_right = tl.where(leftwards, go_right, go_right & near)
        walk = valid & tl.where(leftwards, go_left, go_right)
        # The first point of the strip that is not below in y; in the own strip, the point itself.
        low = first
        high = tl.where(walk, last, first)
        for _ in range(steps):
            middle = (low + high) // 2
            open_ = low < high
            below_it = tl.load(y + middle, mask=open_, other=0.0) < yp
            low = tl.where(open_ & below_it, middle + 1, low)
            high = tl.where(open_ & (below_it == 0), middle, high)
        below = tl.where(turn == 0, p, low) - 1
        above = tl.where(turn == 0, p + 1, low)
        walk_down = walk
        walk_up = walk
        while tl.max((walk_down | walk_up).to(tl.int32), 0) > 0:
            walk_down = walk_down & (below >= first)
            height = tl.load(y + below, mask=walk_down, other=0.0)
            walk_down = walk_down & (yp - height < worst)
            distance = tl.maximum(tl.abs(tl.load(x + below, mask=walk_down, other=0.0) - xp), yp - height)
            nearest, worst = _keep(nearest, worst, distance, walk_down, slots)
            below -= 1
            walk_up = walk_up & (above < last)
            height = tl.load(y + above, mask=walk_up, other=0.0)
            walk_up = walk_up & (height - yp < worst)
            distance = tl.maximum(tl.abs(tl.load(x + above, mask=walk_up, other=0.0) - xp), height - yp)
            nearest, worst = _keep(nearest, worst, distance, walk_up, slots)
            above += 1
        turn += 1
    tl.store(eps + s * n + tl.load(index + p, mask=valid, other=0), worst, mask=valid)


@jit
def _keep(nearest, worst, distance, candidate, slots):  # type: ignore[no-untyped-def]
    """Put `distance` in the place of the largest of the k nearest, where it is smaller."""
    place = tl.argmax(nearest, 1)
    better = candidate & (distance < worst)
    nearest = tl.where((slots == place[:, None]) & better[:, None], distance[:, None], nearest)
    return nearest, tl.max(nearest, 1)


@jit
def _count_kernel(values, order, eps, counts, n, steps, BLOCK: tl.constexpr) -> Any:  # type: ignore[no-untyped-def]
    s = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = p < n
    values += s * n
    v = tl.load(values + p, mask=valid, other=0.0)
    radius = tl.load(eps + s * n + p, mask=valid, other=0.0)
    # The first value within the radius lies in [low, high], and the last in [bottom, top].
    low = tl.zeros([BLOCK], tl.int32)
    high = tl.where(valid, p, 0)
    bottom = tl.where(valid, p, 0)
    top = tl.zeros([BLOCK], tl.int32) + n - 1
    for _ in range(steps):
        middle = (low + high) // 2
        near = v - tl.load(values + middle, mask=valid, other=0.0) < radius
        high = tl.where(near, middle, high)
        low = tl.where(near, low, tl.minimum(middle + 1, high))
        middle = (bottom + top + 1) // 2
        near = tl.load(values + middle, mask=valid, other=0.0) - v < radius
        bottom = tl.where(near, middle, bottom)
        top = tl.where(near, top, tl.maximum(middle - 1, bottom))
    count = tl.where(radius > 0, bottom - low, 0)
    tl.store(counts + s * n + tl.load(order + s * n + p, mask=valid, other=0), count.to(tl.int64), mask=valid)
