"""Random crop and flip of a whole batch, differentiable, in one pass over the pictures.

Out of view v = (dy, dx, flip) of a picture x padded by p zeros on each side, pixel (i, j) is

    (V x)[i, j] = x_padded[i + dy, dx + (W−1−j if flip else j)],     0 ≤ dy, dx ≤ 2p.

V only moves pixels and drops those that leave the frame, so its adjoint moves the gradient back: with the offset
2p − dy, and in a row with 2p − dx or, as a mirror image is shifted the other way, with dx again if the view is
flipped. The adjoint of a view is thus a view, (2p − dy, dx if flip else 2p − dx, flip): a gather, which is faster
than the scatter that automatic differentiation would derive, and has nothing to sum.

A noise step looks at x + δ, with x stored as bytes. `View.noisy` adds where it moves, so that neither x in float32 nor
the sum is ever stored: 9 bytes read and written a pixel, where one operation after the other moves 41 (x in float32 5,
its division 8, the sum 12, padding 8, the view 8).

A view is written channels-last, as convolutions want it, the adjoint contiguous, as the noise is stored; both are
read in whichever of the two they come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import bad
from ._cpu import compiled, each
from ._triton import available, jit, tl

# Moving pixels is the same work for all types of a size, so it is compiled for these alone.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class View:
    """One crop and flip for each of n pictures.

    dy, dx: int64 `(n,)` in [0, 2 · pad]: the corner of the crop in the padded picture; flip: bool `(n,)`.

    Its methods raise `ValueError` for anything but n pictures `(n, C, H, W)`.
    """

    dy: Tensor
    dx: Tensor
    flip: Tensor
    pad: int

    @classmethod
    def random(cls, n: int, pad: int, flip: bool, generator: torch.Generator) -> View:
        """Uniform offsets, and a flip with probability ½ if `flip`, on the generator's device."""
        dy, dx = torch.randint(0, 2 * pad + 1, (2, n), generator=generator, device=generator.device)
        coin = torch.rand(n, generator=generator, device=generator.device) < 0.5
        return cls(dy, dx, coin if flip else torch.zeros_like(coin), pad)

    def __call__(self, images: Tensor) -> Tensor:
        """The view of `(n, C, H, W)` pictures of any dtype, same shape, channels-last in memory."""
        self._check("images", images)
        seen: Tensor = _CropFlip.apply(images, None, self, False)
        return seen

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Vᵀ of a gradient `(n, C, H, W)` with respect to the view: that with respect to the pictures, contiguous."""
        self._check("gradient", gradient)
        back: Tensor = _CropFlip.apply(gradient, None, self, True)
        return back

    def noisy(self, images: Tensor, delta: Tensor) -> Tensor:
        """The view of x + δ: images uint8, x their `pixel_values`; delta float32; both `(n, C, H, W)`.

        float32, channels-last in memory, differentiable in `delta`. Beyond the edge there are zeros, without noise.
        """
        self._check("delta", delta)
        if images.dtype != torch.uint8 or images.shape != delta.shape:
            raise bad("images", f"shape {tuple(images.shape)} {images.dtype}", f"uint8 of shape {tuple(delta.shape)}")
        if delta.dtype != torch.float32:
            raise bad("delta", f"dtype {delta.dtype}", "float32")
        seen: Tensor = _CropFlip.apply(delta, images, self, False)
        return seen

    def _check(self, argument: str, pictures: Tensor) -> None:
        if pictures.ndim != 4 or len(pictures) != len(self.dy):
            raise bad(argument, f"shape {tuple(pictures.shape)}", f"({len(self.dy)}, C, H, W): a picture for each view")


def pixel_values(images: Tensor) -> Tensor:
    """u/255 of bytes u, rounded to the nearest float32 on every device.

    Dividing by a plain number, torch multiplies by its reciprocal when it runs on a GPU. That rounds differently for
    126 of the 256 levels.
    """
    return images.float() / torch.full((), 255.0, device=images.device)


class _CropFlip(torch.autograd.Function):
    """V, or Vᵀ if `transposed`, of `values` (+ `images` in pixel values); either is the other's derivative."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, images: Tensor | None, view: View, transposed: bool) -> Tensor:
        ctx.view, ctx.transposed = view, transposed
        if values.is_cuda and available:
            return _cuda(values, images, view, transposed)
        if values.device.type == "cpu":
            return _cpu(values, images, view, transposed)
        return reference(values, images, view, transposed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        back = ctx.view if ctx.transposed else ctx.view.adjoint
        return back(gradients[0]), None, None, None


def reference(values: Tensor, images: Tensor | None, view: View, transposed: bool) -> Tensor:
    """The same in plain PyTorch, by indexing the padded pictures."""
    if images is not None:
        values = pixel_values(images) + values
    n, _, height, width = values.shape
    dy, dx, flip, pad = view.dy, view.dx, view.flip, view.pad
    if transposed:
        dy, dx = 2 * pad - dy, torch.where(flip, dx, 2 * pad - dx)
    padded = F.pad(values, (pad, pad, pad, pad))
    columns = torch.arange(width, device=values.device)
    columns = dx[:, None] + torch.where(flip[:, None], columns.flip(0), columns)
    rows = dy[:, None] + torch.arange(height, device=values.device)
    sample = torch.arange(n, device=values.device)
    # Indices around a slice put it last: (n, H, W, C), which seen as (n, C, H, W) is channels-last.
    picked = padded[sample[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return picked.contiguous() if transposed else picked


def _empty_like(values: Tensor, transposed: bool) -> Tensor:
    layout = torch.contiguous_format if transposed else torch.channels_last
    return torch.empty(values.shape, dtype=values.dtype, device=values.device, memory_format=layout)


# CPU


def _cpu(values: Tensor, images: Tensor | None, view: View, transposed: bool) -> Tensor:
    target = _empty_like(values, transposed)
    bits = torch.float32 if images is not None else _BITS[values.itemsize]
    # As they lie in memory: numba compiles a version for each layout.
    arrays = [part.detach().view(bits).numpy() for part in (values, target)]
    where = [part.numpy() for part in (view.dy, view.dx, view.flip)]
    parts = max(1, min(torch.get_num_threads(), len(values)))

    def work(part: int) -> None:
        if images is not None:
            _add_and_move(images.numpy(), *arrays, *where, view.pad, part, parts)
        else:
            _move(*arrays, *where, view.pad, transposed, part, parts)

    each(work, parts, 0.5 * values.numel() / parts)
    return target


@compiled
def _move(
    source: np.ndarray,
    target: np.ndarray,
    dy: np.ndarray,
    dx: np.ndarray,
    flip: np.ndarray,
    pad: int,
    transposed: bool,
    part: int,
    parts: int,
) -> None:
    n, channels, height, width = source.shape
    for s in range(n * part // parts, n * (part + 1) // parts):
        down, right = dy[s] - pad, dx[s] - pad
        if transposed:
            down, right = -down, right if flip[s] else -right
        left = max(0, right)
        kept = max(0, width - abs(right))
        for c in range(channels):
            for i in range(height):
                if 0 <= i + down < height:
                    _put(source[s, c, i + down, left : left + kept], target[s, c, i], right, flip[s])
                else:
                    target[s, c, i] = 0


@compiled
def _add_and_move(
    images: np.ndarray,
    delta: np.ndarray,
    target: np.ndarray,
    dy: np.ndarray,
    dx: np.ndarray,
    flip: np.ndarray,
    pad: int,
    part: int,
    parts: int,
) -> None:
    n, channels, height, width = delta.shape
    row = np.empty(width, np.float32)  # the sums side by side: eight divisions at once, whatever the target's layout
    for s in range(n * part // parts, n * (part + 1) // parts):
        down, right = dy[s] - pad, dx[s] - pad
        left = max(0, right)
        kept = max(0, width - abs(right))
        for c in range(channels):
            for i in range(height):
                if 0 <= i + down < height:
                    levels = images[s, c, i + down, left : left + kept]
                    noise = delta[s, c, i + down, left : left + kept]
                    for j in range(kept):
                        row[j] = np.float32(levels[j]) / np.float32(255) + noise[j]
                    _put(row[:kept], target[s, c, i], right, flip[s])
                else:
                    target[s, c, i] = 0


@numba.njit(inline="always")  # a call would cost as much as moving the few pixels of a row
def _put(kept: np.ndarray, row: np.ndarray, right: int, flip: bool) -> None:
    """The pixels that stay, into their places of a row; zeros into the others."""
    m = len(kept)
    first = max(0, right if flip else -right)
    row[:first] = 0
    row[first + m :] = 0
    among = row[first : first + m]
    if flip:
        for j in range(m):
            among[j] = kept[np.uint64(m - 1 - j)]  # unsigned: never counted from the end, which would cost a branch
    else:
        for j in range(m):
            among[j] = kept[j]


# GPU


def _cuda(values: Tensor, images: Tensor | None, view: View, transposed: bool, block: int = 1024) -> Tensor:
    target = _empty_like(values, transposed)
    if not (values.is_contiguous() or values.is_contiguous(memory_format=torch.channels_last)):
        values = values.contiguous()
    bits = torch.float32 if images is not None else _BITS[values.itemsize]
    source = values.detach().view(bits)
    n, channels, height, width = values.shape
    if target.numel():
        _kernel[(n, -(-(channels * height * width) // block))](
            source,
            source if images is None else images.contiguous(),
            target.view(bits),
            *(part.contiguous() for part in (view.dy, view.dx, view.flip.view(torch.uint8))),
            view.pad,
            *source.stride(),
            C=channels,
            H=height,
            W=width,
            NOISY=images is not None,
            TRANSPOSED=transposed,
            BLOCK=block,
        )
    return target


@jit
def _kernel(  # type: ignore[no-untyped-def]
    source,
    images,
    target,
    dy,
    dx,
    flip,
    pad,
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    C: tl.constexpr,  # and H, W: divisions by constants are multiplications
    H: tl.constexpr,
    W: tl.constexpr,
    NOISY: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> Any:
    s = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # in the target's memory, so that it is written in order
    inside = place < C * H * W
    if TRANSPOSED:  # (C, H, W)
        c = place // (H * W)
        i = place // W % H
        j = place % W
    else:  # (H, W, C)
        c = place % C
        i = place // (W * C)
        j = place // C % W
    flipped = tl.load(flip + s) != 0
    down = tl.load(dy + s).to(tl.int32) - pad
    right = tl.load(dx + s).to(tl.int32) - pad
    if TRANSPOSED:
        down = -down
        right = tl.where(flipped, right, -right)
    row = i + down
    column = tl.where(flipped, W - 1 - j, j) + right
    stays = inside & (row >= 0) & (row < H) & (column >= 0) & (column < W)
    start = source + s * stride_n
    value = tl.load(start + c * stride_c + row * stride_h + column * stride_w, mask=stays, other=0)
    if NOISY:
        level = tl.load(images + s * (C * H * W) + (c * H + row) * W + column, mask=stays, other=0)
        value += tl.div_rn(level.to(tl.float32), 255.0)  # the plain division is approximate
    tl.store(target + s * (C * H * W) + place, value, mask=inside)
