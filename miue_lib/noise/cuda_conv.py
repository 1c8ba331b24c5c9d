"""CUDA: a secret blur for each class (Sadasivan, Soltanolkotabi and Feizi 2023); no relation to the GPU language."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import bad, check_count, check_number
from ..data import ImageSet
from ..perturbation import Perturbation


def cuda_conv(images: ImageSet, *, blur: float = 0.3, size: int = 3, seed: int = 0) -> Perturbation:
    """Every picture convolved with its class's filter: a network learns to tell the filters, not the pictures.

    blur: p_b, the largest entry of a filter off its centre; 0.3 is for CIFAR-10. size: k, odd; the paper takes 3 for
        CIFAR and more for larger pictures.

    A filter `(k, k)` has 1 in the centre and elsewhere draws from U[0, p_b); all channels share it. The result is
    divided by the picture's maximum. Norm: none; the filters are class-wise, the noise is the picture's own. Free: no
    pass over the data. Filters depend on seed, settings and the number of classes only: other pictures get the noise
    of the same filters with the same seed, and the noise of some of the pictures is that part of the noise of all.

    Written from the paper, whose program may not be reused. What it leaves open: the border, which is padded with
    zeros here, and which maximum brings a picture back to [0, 1]: here its own over all channels, so colours keep
    their proportions. A picture of one black colour stays as it is.
    """
    check_number("blur", blur, 0, 1, open_low=True)
    check_count("size", size, 2)
    if size % 2 == 0:
        raise bad("size", size, "an odd number, so that a filter has a centre")
    check_count("seed", seed, 0)
    settings = {"blur": blur, "size": size, "seed": seed}
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the filters are few, and alike on every device
    filters = blur * torch.rand((len(images.classes), size, size), generator=generator)
    filters[:, size // 2, size // 2] = 1
    filters = filters.to(images.device)

    levels = torch.empty(images.images.shape, dtype=torch.int16, device=images.device)
    rows = max(1, (1 << 22) // images.images[0].numel())
    for start in range(0, len(images), rows):
        part = slice(start, start + rows)
        clean = images.images[part].float()
        changed = _convolved(clean, filters[images.labels[part]])
        changed *= 255 / changed.amax((1, 2, 3), keepdim=True).clamp_min(1)
        levels[part] = (changed.round_() - clean).to(torch.int16)
    return Perturbation.of_levels(images, levels, epsilon=1.0, method="cuda_conv", settings=settings)


def _convolved(pictures: Tensor, filters: Tensor) -> Tensor:
    """Each of `(n, C, H, W)` with its own filter of `(n, k, k)`, the same for all channels.

    Added up tap by tap: a picture's result is then the same in every batch, which no library convolution promises.
    """
    size = filters.shape[-1]
    padded = F.pad(pictures, [size // 2] * 4)
    height, width = pictures.shape[2:]
    total = torch.zeros_like(pictures)
    for y in range(size):
        for x in range(size):
            total.addcmul_(padded[:, :, y : y + height, x : x + width], filters[:, y, x, None, None, None])
    return total
