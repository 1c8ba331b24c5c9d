"""How purifiers are trained, and restore pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._errors import check_count, check_number
from ..data import ImageSet
from ..train import precision, repeatable

_AT_ONCE = 500  # pictures that are restored together
Network = TypeVar("Network", bound=nn.Module)


def initialised(make: Callable[[], Network], seed: int, device: torch.device) -> Network:
    """The network that `make` makes, its weights drawn from `seed` on the CPU, on `device`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(check_count("seed", seed, 0))
        network = make()
    network.to(device)
    network.to(memory_format=torch.channels_last)
    return network


def descend(network: nn.Module, loss: Callable[[], Tensor], *, training_steps: int, learning_rate: float) -> None:
    """Lower `loss()`, which draws its own batch, by steps of Adam, the learning rate falling to 0 along half a cosine.

    A tenth of the steps, at most a hundred, raise it first: Adam's own averages are of too few steps until then.

    Raises `FloatingPointError` when the loss stops being finite.
    """
    check_number("learning_rate", learning_rate, 0, open_low=True)
    rise = max(1, min(100, check_count("training_steps", training_steps) // 10))
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), learning_rate, fused=device.type == "cuda")
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / rise) * (0.5 + 0.5 * math.cos(math.pi * step / training_steps))
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision(device) == torch.float16)
    with torch.enable_grad(), repeatable():
        for _ in range(training_steps):
            value = loss()
            optimizer.zero_grad()
            scaler.scale(value).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
    if not bool(value.isfinite()):  # once lost it stays lost, and asking at every step would hold up a GPU
        raise FloatingPointError(f"the loss became {float(value.detach())}: a smaller learning_rate may help")


def restored(images: ImageSet, restore: Callable[[slice], Tensor], name: str) -> ImageSet:
    """`images` as `restore` gives them, some rows at a time, in [0, 1] or beyond: clipped, and rounded to 8 bits."""
    stored = torch.empty_like(images.images)
    with torch.no_grad(), repeatable():
        for start in range(0, len(images), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            stored[rows] = restore(rows).clamp(0, 1).mul(255).round()
    return replace(images, images=stored, name=f"{images.name}, {name}")


def padded(pictures: Tensor, multiple: int) -> Tensor:
    """Pictures `(n, C, H, W)` whose last row and column are repeated until both sides are multiples of `multiple`."""
    height, width = pictures.shape[2:]
    return F.pad(pictures, (0, -width % multiple, 0, -height % multiple), "replicate")
