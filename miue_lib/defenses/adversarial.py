"""Adversarial training: a victim that is trained on the worst pictures within a budget of those it was given."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attack import Attack
from ..train import evaluating


@dataclass(frozen=True, kw_only=True)
class AdversarialTraining:
    """Train on adversarial examples of the model as it is now (Madry, Makelov, Schmidt, Tsipras and Vladu 2018).

    radius: the budget ρ in L∞. step: of one sign-gradient step. Both in pixel values in [0, 1]. steps: of them, from a
    uniform random start in the budget, each a forward and backward pass. The defaults are the authors' for CIFAR-10,
    with whom ρ is 8/255.

    Noise of a budget ε ≤ ρ is noise that the adversary could undo: what is lost in training so bounds the loss on clean
    pictures (Tao, Feng, Yi, Huang and Chen 2021). REM makes noise that is to withstand a smaller ρ.

    Raises `ValueError` for a setting out of range.
    """

    radius: float
    step: float = 2 / 255
    steps: int = 10

    def __post_init__(self) -> None:
        self._attack()

    def _attack(self) -> Attack:
        return Attack(radius=self.radius, step=self.step, steps=self.steps)

    def __call__(
        self, model: nn.Module, pictures: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """New pictures `(n, C, H, W)` in [0, 1], no pixel further than ρ from those given, and the labels `(n,)`.

        The model is attacked in evaluation mode: in training mode each of the steps would move the running statistics
        of its batch normalisation. Afterwards it is in the mode that it was in.
        """
        with evaluating(model), torch.enable_grad():
            return self._attack()(model, pictures, labels, generator), labels
