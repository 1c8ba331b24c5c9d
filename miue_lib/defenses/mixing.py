"""Victims that cut out or mix their training pictures: regularisers, which poisoners are asked to withstand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import bad, check_count, check_number
from ..models import Classifier


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """Blank a square of `size` pixels in each picture (DeVries and Taylor 2017); targets stay the labels.

    The centre is uniform over the pixels, so part of the square may lie outside: of an even size s ≤ L it covers, along
    a side of L pixels, s − s²/(4L) of them on average. The defaults are the authors' for CIFAR-10.

    What is cut out gets the mean colour, as with the authors, who write zeros after normalisation: that of the model's
    own normalisation if it is a `Classifier`, else that of the batch. torchvision's `RandomErasing` does something
    else: its rectangle is always inside, and it may erase nothing.

    Raises `ValueError` for a size that is no whole number ≥ 1.
    """

    size: int = 16

    def __post_init__(self) -> None:
        check_count("size", self.size)

    def __call__(
        self, model: nn.Module, pictures: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """New pictures `(n, C, H, W)`, each with its own square, and the labels `(n,)`."""
        n, _, height, width = pictures.shape
        rows, columns = self._covered(n, height, generator), self._covered(n, width, generator)
        mean = model.mean if isinstance(model, Classifier) else pictures.mean((0, 2, 3), keepdim=True)
        return torch.where(rows[:, None, :, None] & columns[:, None, None, :], mean, pictures), labels

    def _covered(self, n: int, side: int, generator: torch.Generator) -> Tensor:
        """Which pixels along a side the squares of n pictures cover: bool `(n, side)`."""
        centre = torch.randint(side, (n, 1), generator=generator, device=generator.device)
        after = torch.arange(side, device=generator.device) - (centre - self.size // 2)  # the square's first pixel
        return (after >= 0) & (after < self.size)


@dataclass(frozen=True, kw_only=True)
class CutMix:
    """Paste a rectangle of another picture into each (Yun, Han, Oh, Chun, Choe and Yoo 2019).

    torchvision's transform, which is the authors' procedure: one λ ~ Beta(alpha, alpha) and one rectangle a batch, of
    √(1 − λ) of each side around a uniform centre, cut off at the edges; targets weigh both classes with the shares of
    the area that are left. It differs in the partner: the picture before it in the batch, which is as random, as the
    batches that `fit` makes are shuffled, and is never the picture itself. Every batch is mixed, the authors' setting
    for ImageNet; for CIFAR they mixed every other one.

    Raises `ValueError` for an alpha that is not > 0.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0, open_low=True)

    def __call__(
        self, model: nn.Module, pictures: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """New pictures `(n, C, H, W)` and probabilities `(n, K)`.

        Raises `ValueError` for a model whose `head.out_features` does not tell K, the number of its logits.
        """
        from torchvision.transforms import v2

        return _mixed(v2.CutMix(alpha=self.alpha, num_classes=_logits(model)), pictures, labels, generator)


@dataclass(frozen=True, kw_only=True)
class MixUp:
    """Train on λ x + (1 − λ) x′ with the targets λ y + (1 − λ) y′ (Zhang, Cisse, Dauphin and Lopez-Paz 2018).

    torchvision's transform, which is the authors' procedure: one λ ~ Beta(alpha, alpha) a batch. It differs in the
    partner x′ as in `CutMix`.

    Raises `ValueError` for an alpha that is not > 0.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0, open_low=True)

    def __call__(
        self, model: nn.Module, pictures: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """New pictures `(n, C, H, W)` and probabilities `(n, K)`.

        Raises `ValueError` for a model whose `head.out_features` does not tell K, the number of its logits.
        """
        from torchvision.transforms import v2

        return _mixed(v2.MixUp(alpha=self.alpha, num_classes=_logits(model)), pictures, labels, generator)


def _mixed(transform: Any, pictures: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    with seeded(generator):
        mixed, targets = transform(pictures, labels)
    return mixed, targets


def _logits(model: nn.Module) -> int:
    """How many logits a model has, without running it: a pass in training mode would move its statistics."""
    found = getattr(getattr(model, "head", None), "out_features", None)
    if not isinstance(found, int):
        raise bad("model", type(model).__name__, "a module with head.out_features, the number of its logits")
    return found


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Inside, torch's own generators, of the CPU and of the device of `generator`, draw what that decides.

    Afterwards, and after an error, they are as they were. For what takes no generator.
    """
    device = generator.device
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device=device))
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every GPU's generator as well
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield
