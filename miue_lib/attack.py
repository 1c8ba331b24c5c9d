"""Adversarial examples: pictures moved, within a small budget, to where a model errs most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._errors import check_count, check_number
from .train import autocast, gradient_scale


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Projected gradient ascent on cross-entropy in L∞ (Madry et al. 2018), from a random start.

    radius: the budget ρ. step: of one sign-gradient step. Both in pixel values in [0, 1].
    steps: of them, each a forward and backward pass; 0 leaves the random start: uniform noise in the budget.

    Raises `ValueError` for a setting out of range.
    """

    radius: float
    step: float = 0.0
    steps: int = 0

    def __post_init__(self) -> None:
        check_number("radius", self.radius, 0, 1)
        check_count("steps", self.steps, 0)
        check_number("step", self.step, 0, 1, open_low=self.steps > 0)

    def __call__(self, model: nn.Module, pictures: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures `(n, C, H, W)` in [0, 1] like those given, no pixel further than ρ from them; a new tensor.

        The model is used in the mode that it is in; neither it nor its gradients are changed.
        """
        start = torch.rand(pictures.shape, generator=generator, device=pictures.device)
        moved = self._within(pictures, pictures + self.radius * (2 * start - 1))
        with _weights_fixed(model):
            for _ in range(self.steps):
                moved.requires_grad_(True)
                with autocast(pictures.device):
                    logits = model(moved)
                loss = F.cross_entropy(logits.float(), labels) * gradient_scale(pictures.device, len(pictures))
                (gradient,) = torch.autograd.grad(loss, moved)
                moved = self._within(pictures, moved.detach() + self.step * gradient.sign())
        return moved

    def _within(self, pictures: Tensor, moved: Tensor) -> Tensor:
        low, high = (pictures - self.radius).clamp_min(0), (pictures + self.radius).clamp_max(1)
        return torch.minimum(torch.maximum(moved, low), high).contiguous(memory_format=torch.channels_last)


@contextmanager
def _weights_fixed(model: nn.Module) -> Iterator[None]:
    """Inside, no weight wants a gradient: what it would be computed from need not be kept."""
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in moving:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in moving:
            parameter.requires_grad_(True)
