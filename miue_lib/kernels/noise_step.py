"""One sign-gradient step on the noise, in place and in one pass (projected gradient descent in L∞: Madry et al. 2018).

For stored bytes u, pixel values x = u/255, noise δ and the gradient g of what is descended,

    δ ← clamp(x + clamp(δ − α sign(g), −ε, ε), 0, 1) − x.

The inner clamp keeps the budget, the outer one keeps the noisy picture a picture. One operation after the other, these
nine move 81 bytes a pixel; here 13: δ, u and a gradient in float32 are read, and δ is written.

*Rounding.* All paths do the same operations of float32 in the same order and agree to the last bit; α sign(g) is exact,
so that a fused multiply-add would change nothing. The sum x + … and the last subtraction round by up to 2⁻²⁵ each, half
a unit in the last place of numbers below 1. So |δ| ≤ ε + 2⁻²⁴, with ε in float32, and x + δ, in float32, is in [0, 1].

*Not a number.* sign(NaN) is 0 here, as in PyTorch: the noise stays. Callers that want to know look at the gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import bad
from ._cpu import as_numpy, compiled, each
from ._triton import available, jit, tl
from .crop_flip import pixel_values


def noise_step(delta: Tensor, images: Tensor, gradient: Tensor, *, step: float, epsilon: float) -> None:
    """Move `delta`, the noise on `images`, by one step, as above.

    delta: float32, contiguous, changed in place. images: uint8. gradient: float32, float16 or bfloat16. All three of
    one shape and on one device.
    step: α, and epsilon: ε, in pixel values.

    Raises `ValueError` for other shapes and types.
    """
    if delta.dtype != torch.float32 or not delta.is_contiguous():
        raise bad("delta", f"{delta.dtype} with strides {delta.stride()}", "contiguous float32")
    if images.dtype != torch.uint8 or images.shape != delta.shape:
        raise bad("images", f"shape {tuple(images.shape)} {images.dtype}", f"uint8 of shape {tuple(delta.shape)}")
    if gradient.dtype not in (torch.float32, torch.float16, torch.bfloat16) or gradient.shape != delta.shape:
        given = f"shape {tuple(gradient.shape)} {gradient.dtype}"
        raise bad("gradient", given, f"float32, float16 or bfloat16 of shape {tuple(delta.shape)}")
    if delta.is_cuda and available:
        _cuda(delta, images, gradient, step, epsilon)
    elif delta.device.type == "cpu":
        _cpu(delta, images, gradient, step, epsilon)
    else:
        delta.copy_(reference(delta, images, gradient, step, epsilon))
    torch.autograd.graph.increment_version(delta)  # so that autograd notices if it had kept δ for a derivative


def reference(delta: Tensor, images: Tensor, gradient: Tensor, step: float, epsilon: float) -> Tensor:
    """The noise after the step, in plain PyTorch."""
    x = pixel_values(images)
    moved = (delta - step * gradient.sign().float()).clamp(-epsilon, epsilon)
    return (x + moved).clamp(0, 1) - x


def _cpu(delta: Tensor, images: Tensor, gradient: Tensor, step: float, epsilon: float) -> None:
    arrays = [as_numpy(part).reshape(-1) for part in (delta, images, gradient.float())]
    size = delta.numel()
    parts = torch.get_num_threads()

    def work(part: int) -> None:
        here = slice(size * part // parts, size * (part + 1) // parts)
        _step(*(array[here] for array in arrays), np.float32(step), np.float32(epsilon))

    each(work, parts, 0.25 * size / parts)


@compiled
def _step(delta: np.ndarray, images: np.ndarray, gradient: np.ndarray, step: np.float32, epsilon: np.float32) -> None:
    zero, one = np.float32(0), np.float32(1)
    # Comparisons and choices, which a processor does for 16 pixels at once; numba's min and max would branch.
    for i in range(len(delta)):
        x = np.float32(images[i]) / np.float32(255)
        g = gradient[i]
        d = delta[i] - step * (np.float32(g > zero) - np.float32(g < zero))
        d = -epsilon if d < -epsilon else d
        d = epsilon if d > epsilon else d
        noisy = x + d
        noisy = zero if noisy < zero else noisy
        noisy = one if noisy > one else noisy
        delta[i] = noisy - x


def _cuda(delta: Tensor, images: Tensor, gradient: Tensor, step: float, epsilon: float, block: int = 1024) -> None:
    size = delta.numel()
    if size:
        images, gradient = images.contiguous(), gradient.detach().contiguous()
        _kernel[(-(-size // block),)](delta, images, gradient, size, step, epsilon, BLOCK=block)


@jit
def _kernel(delta, images, gradient, size, step, epsilon, BLOCK: tl.constexpr) -> Any:  # type: ignore[no-untyped-def]
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    x = tl.div_rn(tl.load(images + i, mask=inside, other=0).to(tl.float32), 255.0)  # the plain division is approximate
    g = tl.load(gradient + i, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(delta + i, mask=inside, other=0.0)
    d -= tl.where(g > 0, step, tl.where(g < 0, -step, 0.0))
    d = tl.minimum(tl.maximum(d, -epsilon), epsilon)
    tl.store(delta + i, tl.minimum(tl.maximum(x + d, 0.0), 1.0) - x, mask=inside)
