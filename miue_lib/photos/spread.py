"""Noise for a trainer's small square, spread over the whole photograph.

Noise is crafted for what a trainer makes of a photograph: its `square`, the shorter side resized to a few pixels and
the middle cut out. `spread` publishes the photograph so that its square shows that noise again. It resamples the noise
to the middle of the photograph, bicubically, and goes on beyond by reflection.

Shrinking averages, so noise comes back weaker. Measured with MI-UE noise of 8/255 for 1,000 CIFAR-10 pictures of a JPEG
copy, which were enlarged to 48 × 48 and 100 × 75 (100 of them each), 640 × 480 (20) and 4,000 × 3,000 (3): after plain
bicubic resampling, the square showed noise with a correlation of 0.95 to what was crafted and with 0.85 of its root
mean square; from nearest neighbours 0.92 to 0.97 and 0.87 (to 640 × 480), in blocks with edges. Hence noise is first
sharpened by what shrinking will take from it, in two steps of back-projection (Irani and Peleg 1991), and what then
exceeds the budget is clipped. That gave 0.984 to 0.989 and 0.93, at a PSNR lower by 1.2 to 1.4 dB; with other shrinking
(bilinear, box, Lanczos) the correlation rose too. More steps gained little, clipping takes the rest. Fashion-MNIST:
0.96 to 0.97 and 0.90 plain, 0.983 to 0.987 and 0.92 to 0.94 so; there, victims trained on the squares of 200 × 150
pixels learned as little either way (mean accuracy 0.60, six seeds; 0.80 from clean squares, two seeds).
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageOps

from .._errors import bad, check_count

_STEPS = 2  # of back-projection; see above
_FINE = 16  # pixels to a cell of the noise: what shrinking takes from it is the same with more
_COLUMNS, _VALUES = 1 << 13, 1 << 18  # pixels side by side and pixel values at once: 1 MB in float32, kept in cache


def square(pixels: np.ndarray, side: int) -> np.ndarray:
    """What a trainer sees of a picture `(H, W, C)`: uint8 `(side, side, 3)`.

    The shorter side is resized to `side` (bicubic, antialiased) and the middle cut out; grey becomes three equal
    channels. It is what `folder.read_tree` makes of an opaque picture. One with transparency that lays on white, while
    this shows the colours that are stored, also where they are transparent: `pixels` have no alpha.

    Raises `ValueError` for anything but uint8 pixels of 1 or 3 channels.
    """
    check_pixels("pixels", pixels)
    check_count("side", side)
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    fitted = np.asarray(ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC))
    return fitted if fitted.ndim == 3 else np.repeat(fitted[..., None], 3, axis=2)


def spread(pixels: np.ndarray, levels: np.ndarray, most: int) -> np.ndarray:
    """The picture to publish, uint8 `(H, W, C)`: its `square` of side s shows the noise `levels`, as well as it can.

    pixels: uint8 `(H, W, C)`, C of 1 or 3; a grey picture gets the channels' mean. levels: `(3, s, s)`, whole levels.
    most: the budget in levels, to which the noise is clipped wherever it has been resampled.

    A picture of s × s gets the levels themselves. In one smaller than s the noise is shrunk, with antialiasing. Noise
    is rounded to the nearest level, and the sum clipped to [0, 255].

    Memory beyond pixels and result is O(1) in the picture's size: 11 MB for s of 32, and more with s. The result is the
    same on every call: no sum is left to a library that would split it over threads, or by the shape of a strip.

    Raises `ValueError` for other shapes and types.
    """
    height, width, channels = check_pixels("pixels", pixels)
    if levels.dtype not in (np.int8, np.int16) or levels.shape != (3, *levels.shape[1:2] * 2) or not levels.size:
        raise bad("levels", f"{levels.dtype} {levels.shape}", "int8 or int16 (3, s, s)")
    check_count("most", most, 0, 255)
    noise = levels.astype(np.float64) if channels == 3 else levels.mean(0, dtype=np.float64, keepdims=True)
    cells, middle = noise.shape[1], min(height, width)
    noise = _sharpened(noise, _shown(height, middle, cells), _shown(width, middle, cells))
    published = np.empty_like(pixels)
    for left in range(0, width, _COLUMNS):
        columns = np.arange(left, min(left + _COLUMNS, width))
        along = _along(noise, columns, width, middle)
        rows = max(1, _VALUES // along.shape[1])
        for top in range(0, height, rows):
            part = slice(top, top + rows), slice(left, left + len(columns))
            change = _down(along, np.arange(top, min(top + rows, height)), height, middle)
            change = change.reshape(published[part].shape)
            np.clip(np.rint(change, out=change), -most, most, out=change)
            change += pixels[part]
            published[part] = np.clip(change, 0, 255, out=change)
    return published


def check_pixels(argument: str, pixels: np.ndarray) -> tuple[int, int, int]:
    """Height, width and channels of uint8 pixels `(H, W, 1 or 3)`, or a `ValueError`."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise bad(argument, f"{pixels.dtype} {pixels.shape}", "uint8 (H, W, C), C of 1 or 3, of a pixel or more")
    height, width, channels = pixels.shape
    return height, width, channels


def _taps(positions: np.ndarray, size: int, middle: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Which cells of the noise the pixels at `positions` of a side are made of: indices and weights, `(taps, n)`.

    The cells fill the `middle` pixels of the side's `size`. Keys' (1981) cubic, as Pillow's BICUBIC, with a support
    that widens where cells are smaller than pixels. The weights of a pixel sum to 1. Reflected at both ends, the noise
    repeats after twice the middle.
    """
    positions = positions % (2 * middle)
    wide = max(1.0, cells / middle)
    centres = (positions + 0.5 - (size - middle) / 2) * (cells / middle) - 0.5  # in cells: 0 is the first one's centre
    first = np.ceil(centres - 2 * wide)
    index = first + np.arange(math.ceil(4 * wide))[:, None]
    far = np.abs(index - centres) / wide
    near = (1.5 * far - 2.5) * far * far + 1
    weights = np.where(far < 1, near, np.where(far < 2, ((-0.5 * far + 2.5) * far - 4) * far + 2, 0))
    index = index.astype(np.int64) % (2 * cells)  # a reflection, and its reflection is the noise again
    return np.where(index < cells, index, 2 * cells - 1 - index), weights / weights.sum(0)


def _along(noise: np.ndarray, positions: np.ndarray, size: int, middle: int) -> np.ndarray:
    """The noise `(C, s, s)` resampled along its rows: float32 `(s, n · C)`, channels last, as pixels are stored."""
    across = np.ascontiguousarray(noise.transpose(1, 2, 0), dtype=np.float32)  # (s, s, C)
    index, weights = _taps(positions[: 2 * middle], size, middle, len(across))
    moved = np.zeros((len(across), index.shape[1], across.shape[2]), np.float32)
    for i, weight in zip(index, weights.astype(np.float32)[..., None], strict=True):
        moved += across[:, i] * weight
    if len(positions) > 2 * middle:
        moved = moved[:, np.arange(len(positions)) % (2 * middle)]
    return moved.reshape(len(across), -1)


def _down(along: np.ndarray, positions: np.ndarray, size: int, middle: int) -> np.ndarray:
    """What `_along` gives, resampled down its columns: float32 `(n, values)`."""
    index, weights = _taps(positions[: 2 * middle], size, middle, len(along))
    moved = np.zeros((index.shape[1], along.shape[1]), np.float32)
    for i, weight in zip(index, weights.astype(np.float32)[..., None], strict=True):
        term = along[i]
        term *= weight
        moved += term
    return moved[np.arange(len(positions)) % (2 * middle)] if len(positions) > 2 * middle else moved


def _shown(size: int, middle: int, cells: int) -> np.ndarray:
    """K, `(cells, cells)`: along one side, K z is what the square shows of noise z that is resampled and not clipped.

    It is measured: column j is what Pillow makes of noise that is 1 in cell j. For large pictures on a side with
    `_FINE` pixels to a cell. Beyond the middle Pillow looks two cells far.
    """
    beyond = size - middle
    if middle > _FINE * cells:
        beyond, middle = round(beyond * _FINE * cells / middle), _FINE * cells
    beyond = min(beyond, 4 * math.ceil(middle / cells) + 4 + beyond % 2)  # as even or odd as it was: half a pixel
    size = middle + beyond
    index, weights = _taps(np.arange(size), size, middle, cells)
    units = np.zeros((size, cells))
    np.add.at(units, (np.arange(size), index), weights)
    box = (0, beyond / 2, cells, beyond / 2 + middle)
    picture = Image.fromarray(units.astype(np.float32))
    return np.asarray(picture.resize((cells, cells), Image.Resampling.BICUBIC, box), dtype=np.float64)


def _sharpened(noise: np.ndarray, down: np.ndarray, along: np.ndarray) -> np.ndarray:
    """The noise `(C, s, s)` after back-projection: what the square would lack of it is added, a few times."""
    sharp = noise
    for _ in range(_STEPS):  # einsum of two: sums in one order, where a matrix product may split them over threads
        seen = np.einsum("caj,bj->cab", np.einsum("ai,cij->caj", down, sharp), along)
        sharp = sharp + noise - seen
    return sharp
