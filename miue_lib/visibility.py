"""How visible noise is in the released 8-bit pictures: ‖δ‖∞, ‖δ‖₂, the share of changed pixels, PSNR and SSIM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._errors import bad
from .data import ImageSet
from .perturbation import Perturbation

WINDOW, _SIGMA = 11, 1.5  # of SSIM, in pixels
_C1, _C2 = 0.01**2, 0.03**2  # its two constants, for pixel values in [0, 1]
_BLOCK = 1 << 18  # pixel values at once: a map of them in float64 is 2 MB, which stays in a processor's cache


@dataclass(frozen=True, eq=False)
class Visibility:
    """What the noise of each picture does to it; `summary` says it of the set.

    All fields are float64 `(N,)`, on the pictures' device:

    linf: ‖δ‖∞, in pixel values in [0, 1].
    l2: ‖δ‖₂ over all channels and pixels, in pixel values.
    l0: the share of the H·W pixels of which any channel has changed.
    psnr: −10 log₁₀ of the mean squared δ, in dB for a data range of 1; infinite for a picture without noise.
    ssim: structural similarity, 1 for a picture without noise.
    """

    linf: Tensor
    l2: Tensor
    l0: Tensor
    psnr: Tensor
    ssim: Tensor

    @property
    def summary(self) -> dict[str, float]:
        """Of the set, under the fields' names: the largest ‖δ‖∞; the mean of ‖δ‖₂, of the share changed and of SSIM.

        PSNR is that of the mean squared δ over all pictures. The mean of the pictures' own would be infinite as soon
        as one of them has no noise; without such, it is never below this one (Jensen).
        """
        squared = (10 ** (-self.psnr / 10)).mean()
        return {
            "linf": float(self.linf.max()),
            "l2": float(self.l2.mean()),
            "l0": float(self.l0.mean()),
            "psnr": float(-10 * squared.log10()),
            "ssim": float(self.ssim.mean()),
        }


def visibility(images: ImageSet, noise: Perturbation) -> Visibility:
    """How much the noise changes each of `images` when they are published.

    SSIM is that of Wang, Bovik, Sheikh and Simoncelli (2004): a Gaussian window of 11 × 11 pixels with σ = 1.5,
    K₁ = 0.01, K₂ = 0.03, windows that lie within the picture only, each channel for itself and then the mean.

    Memory beyond one 8-bit copy of the pictures is O(1) in N. Raises `ValueError` for noise of other pictures, and for
    pictures that the window does not fit in.
    """
    _, channels, height, width = images.images.shape
    if not len(images) or min(height, width) < WINDOW:
        given = f"{len(images)} pictures of {channels}×{height}×{width}"
        raise bad("images", given, f"at least one, of at least {WINDOW} × {WINDOW} pixels, the window of SSIM")
    published = images.with_(noise)
    rows = max(1, _BLOCK // images.images[0].numel())
    parts = [slice(start, start + rows) for start in range(0, len(images), rows)]
    return Visibility(*map(torch.cat, zip(*(_of(images.images[p], published.images[p]) for p in parts), strict=True)))


def _of(clean: Tensor, published: Tensor) -> tuple[Tensor, ...]:
    """The fields of `Visibility` for uint8 pictures `(n, C, H, W)`, each `(n,)`."""
    x, y = clean.double() / 255, published.double() / 255
    delta = y - x
    squared = delta.square().flatten(1)
    linf = delta.abs().flatten(1).amax(1)
    l0 = (delta != 0).any(1).double().flatten(1).mean(1)
    return linf, squared.sum(1).sqrt(), l0, -10 * squared.mean(1).log10(), ssim(x, y)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """The structural similarity `(n,)` of float64 pictures `(n, C, H, W)` with values in [0, 1], as in `visibility`.

    float64, because σ² is a difference of second moments of about 1, and what it is added to is K₂² = 0.0009.
    """
    down, along = _window(x.shape[-2], x), _window(x.shape[-1], x)

    def local(map_: Tensor) -> Tensor:
        return down @ map_ @ along.T  # the Gaussian is separable: one banded matrix a side

    mx, my = local(x), local(y)
    vx, vy, vxy = local(x * x) - mx * mx, local(y * y) - my * my, local(x * y) - mx * my
    luminance = (2 * mx * my + _C1) / (mx * mx + my * my + _C1)
    contrast_and_structure = (2 * vxy + _C2) / (vx + vy + _C2)
    return (luminance * contrast_and_structure).flatten(1).mean(1)


def _window(size: int, like: Tensor) -> Tensor:
    """`(size − 10, size)`: row i has the Gaussian window's weights, of sum 1, in columns i to i + 10."""
    places = torch.arange(size, device=like.device, dtype=like.dtype)
    offset = places - places[: size - WINDOW + 1, None] - WINDOW // 2
    weights = torch.exp(-offset.square() / (2 * _SIGMA**2)) * (offset.abs() <= WINDOW // 2)
    return weights / weights.sum(1, keepdim=True)
