"""How visible the noise in one photograph of any size is: what `miue_lib.visibility` says, without its memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from .._errors import bad
from ..kernels._cpu import compiled
from ..visibility import _C1, _C2, WINDOW, _window
from .spread import check_pixels

_TILE = 1 << 9  # windows side by side: four sums of each in float64 are 16 kB, which stay in a core's first cache


@dataclass(frozen=True)
class Seen:
    """What publishing did to a picture.

    linf: ‖δ‖∞ in levels of 1/255. psnr: in dB, None where nothing has changed (it is infinite, which JSON has no word
    for). ssim: structural similarity, None where the window of 11 × 11 pixels does not fit in.
    """

    linf: int
    psnr: float | None
    ssim: float | None


def compare(pixels: np.ndarray, published: np.ndarray) -> Seen:
    """How much the pictures, uint8 `(H, W, C)` both, differ: the fields of `visibility` within float rounding.

    Memory is O(1) where both are contiguous, and the result the same on every call. Raises `ValueError` for anything
    but two pictures alike.
    """
    height, width, channels = check_pixels("pixels", pixels)
    check_pixels("published", published)
    if published.shape != pixels.shape:
        raise bad("published", f"shape {published.shape}", f"that of pixels, {pixels.shape}")
    x, y = (np.ascontiguousarray(side).reshape(height, width * channels) for side in (pixels, published))
    for side in (x, y):
        side.flags.writeable = False  # of these views; one type to compile for, whichever the caller's pictures are
    linf, squares = _differences(x, y)
    psnr = -10 * math.log10(squares / x.size / 255**2) if squares else None
    if min(height, width) < WINDOW:
        return Seen(linf, psnr, None)
    weights = _window(WINDOW, torch.empty(0, dtype=torch.float64))[0].numpy()
    of_rows = np.empty(height - WINDOW + 1)
    _ssim_of_rows(x, y, weights, channels, 255**2 * _C1, 255**2 * _C2, of_rows)
    return Seen(linf, psnr, math.fsum(of_rows) / (len(of_rows) * (width - WINDOW + 1) * channels))


@compiled
def _differences(x: np.ndarray, y: np.ndarray) -> tuple[int, int]:
    """The largest |y − x|, and the sum of (y − x)², of uint8 `(H, values)`."""
    largest, squares = 0, 0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            delta = int(np.int64(y[i, j]) - np.int64(x[i, j]))
            largest = max(largest, abs(delta))
            squares += delta * delta
    return largest, squares


@compiled
def _ssim_of_rows(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, channels: int, c1: float, c2: float, of_rows: np.ndarray
) -> None:
    """Into `of_rows` `(H − 10,)`: the sum of SSIM over the windows whose first rows these are.

    x, y: uint8 `(H, W · C)`. weights: of the window, along a side. SSIM asks for four local means: of x, of y, of
    x² + y² (σx² and σy² come in their sum only) and of xy. Pixels are whole numbers, so pairs of rows that weigh the
    same are added first, exactly.
    """
    reach = 10 * channels
    last = x.shape[1] - reach
    down, local, similar = np.empty((4, _TILE + reach)), np.empty((4, _TILE)), np.empty(_TILE)
    for top in range(of_rows.size):
        total = 0.0
        for left in range(0, last, _TILE):
            count = min(_TILE, last - left)
            columns = slice(left, left + count + reach)
            down[:], local[:] = 0, 0
            for k in range(6):
                near, far = top + k, top + 10 - k
                weight = weights[k] if k < 5 else weights[k] / 2  # the middle is its own partner
                _add_rows(x[near, columns], x[far, columns], y[near, columns], y[far, columns], weight, down)
            for k in range(6):
                near, far = k * channels, (10 - k) * channels
                weight = weights[k] if k < 5 else weights[k] / 2
                for i in range(4):
                    _add_columns(down[i, near : near + count], down[i, far : far + count], weight, local[i])
            _ssim(local, c1, c2, similar[:count])
            for j in range(count):
                total += similar[j]
        of_rows[top] = total


@compiled
def _add_rows(x0: np.ndarray, x1: np.ndarray, y0: np.ndarray, y1: np.ndarray, weight: float, down: np.ndarray) -> None:
    """Adds two rows of pixels, which weigh the same, to the means of x, y, x² + y² and xy down the columns."""
    for j in range(x0.size):
        a, b, c, d = np.float32(x0[j]), np.float32(x1[j]), np.float32(y0[j]), np.float32(y1[j])  # exact up to 2²⁴
        down[0, j] += weight * np.float64(a + b)
        down[1, j] += weight * np.float64(c + d)
        down[2, j] += weight * np.float64(a * a + b * b + c * c + d * d)
        down[3, j] += weight * np.float64(a * c + b * d)


@compiled
def _add_columns(near: np.ndarray, far: np.ndarray, weight: float, local: np.ndarray) -> None:
    """Adds, to one of the local means, what is `near` and `far` of each window, two columns that weigh the same."""
    for j in range(near.size):
        local[j] += weight * (near[j] + far[j])


@compiled
def _ssim(local: np.ndarray, c1: float, c2: float, similar: np.ndarray) -> None:
    """The SSIM of windows side by side, of which these are the local means."""
    below = np.empty_like(similar)
    for j in range(similar.size):
        both, cross = local[0, j] * local[0, j] + local[1, j] * local[1, j], local[0, j] * local[1, j]
        similar[j] = (2 * cross + c1) * (2 * (local[3, j] - cross) + c2)
        below[j] = (both + c1) * (local[2, j] - both + c2)
    similar /= below  # all at once: a quotient of numbers is checked for zero, which keeps it from being vectorised
