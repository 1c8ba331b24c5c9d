"""PIL: noise that a linear classifier finds in place of the picture (Liu, Chen and Zhang 2026)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._errors import check_count, check_number
from ..data import ImageSet
from ..kernels.crop_flip import pixel_values
from ..kernels.noise_step import noise_step
from ..perturbation import Perturbation
from ..train import fit
from .random import check_epsilon

_ROWS = 4096  # pictures at once: nothing but memory depends on it


def pil(
    images: ImageSet,
    *,
    epsilon: float = 8 / 255,
    step: float = 0.8 / 255,
    steps: int = 30,
    obfuscation: float = 1 / 9,
    epochs: int = 30,
    batch_size: int = 512,
    learning_rate: float = 0.003,
    seed: int = 0,
) -> Perturbation:
    """Noise −n with which a linear classifier W sees nothing in the picture, and everything in the noise.

    W, without a bias, is trained on the clean pictures for `epochs`. Then, for each picture, from uniform noise on,
    `steps` sign-gradient steps of size `step` lower

        CE(W n, y) + obfuscation · KL(uniform ‖ softmax W (x − n)),

    and x − n is published: what W knew of the picture is subtracted, and the noise alone tells the class. A deep
    victim learns the linear rule first, and needs nothing else. Norm: L∞ ≤ `epsilon`, in pixel values. Sample-wise.
    Cost: no pass of a network; of the linear model epochs + steps, a matrix product each.

    The defaults are those of the authors' code, whose terms weigh 0.9 and 0.1. Deviations: there W is the product of
    two trained matrices, here it is one; here noise keeps x − n within [0, 1] at every step, there at the end.
    """
    settings = {name: value for name, value in locals().items() if name != "images"}
    epsilon = check_epsilon(epsilon)
    check_number("step", step, 0, 1, open_low=True)
    check_count("steps", steps)
    check_number("obfuscation", obfuscation, 0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(check_count("seed", seed, 0))
        linear = _Linear(images).to(images.device)
    fit(linear, images, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=0.0,
        crop=0, flip=False, seed=seed)  # fmt: skip
    weights = linear.head.weight.detach()
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(images.images.shape, generator=generator).sub_(0.5).mul_(2 * epsilon).to(images.device)
    for start in range(0, len(images), _ROWS):
        part = slice(start, start + _ROWS)
        pictures, labels = images.images[part].contiguous(), images.labels[part]
        seen = pixel_values(pictures).flatten(1) @ weights.T
        moved = noise[part]
        for _ in range(steps):
            told = (moved.flatten(1) @ weights.T).requires_grad_()  # by the published noise, so with the other sign
            value = F.cross_entropy(-told, labels, reduction="sum")
            value = value - obfuscation * F.log_softmax(seen + told, 1).mean(1).sum()
            (gradient,) = torch.autograd.grad(value, told)
            noise_step(moved, pictures, (gradient @ weights).view_as(moved), step=step, epsilon=epsilon)
        if not bool(value.isfinite()):
            raise FloatingPointError(f"pil: the objective became {float(value)}; a smaller learning_rate may help")
    return Perturbation.of(images, noise, epsilon=epsilon, method="pil", settings=settings)


class _Linear(nn.Module):
    """A bias-free linear classifier of raw pixel values, as `fit` wants a model."""

    def __init__(self, images: ImageSet) -> None:
        super().__init__()
        self.head: Any = nn.Linear(images.images[0].numel(), len(images.classes), bias=False)

    def features(self, pictures: Tensor) -> Tensor:
        return pictures.flatten(1)

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(pictures))
        return logits
