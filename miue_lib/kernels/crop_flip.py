"""Random crop and flip of a whole batch, differentiable in the pictures.

Out of view v = (dy, dx, flip) of a picture x padded by p zeros on each side, pixel (i, j) is

    (V x)[i, j] = x_padded[i + dy, dx + (W−1−j if flip else j)],     0 ≤ dy, dx ≤ 2p.

V only moves pixels and drops those that leave the frame, so its adjoint moves the gradient back: undo the flip, then
shift by the opposite offset, (2p − dy, 2p − dx), again with zeros outside. The gradient is thus one more gather,
which is faster than the scatter that automatic differentiation would derive, and has a fixed order of summation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class View:
    """One crop and flip for each of n pictures.

    dy, dx: int64 `(n,)` in [0, 2 · pad]: the corner of the crop in the padded picture; flip: bool `(n,)`.
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
        if images.requires_grad:
            result: Tensor = _CropFlip.apply(images, self)
            return result
        return _gather(images, self.dy, self.dx, self.flip, self.pad)

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Vᵀ of a gradient `(n, C, H, W)` with respect to the view: the gradient with respect to the pictures."""
        unflipped = torch.where(self.flip[:, None, None, None], gradient.flip(3), gradient)
        return _gather(unflipped, 2 * self.pad - self.dy, 2 * self.pad - self.dx, torch.zeros_like(self.flip), self.pad)


class _CropFlip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, view: View) -> Tensor:
        ctx.view = view
        return _gather(images, view.dy, view.dx, view.flip, view.pad)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.view.adjoint(gradients[0]), None


def _gather(images: Tensor, dy: Tensor, dx: Tensor, flip: Tensor, pad: int) -> Tensor:
    n, _, height, width = images.shape
    padded = F.pad(images, (pad, pad, pad, pad))
    columns = torch.arange(width, device=images.device)
    columns = dx[:, None] + torch.where(flip[:, None], columns.flip(0), columns)
    rows = dy[:, None] + torch.arange(height, device=images.device)
    sample = torch.arange(n, device=images.device)
    # Indices around a slice put it last: (n, H, W, C), which seen as (n, C, H, W) is channels-last.
    picked = padded[sample[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)
