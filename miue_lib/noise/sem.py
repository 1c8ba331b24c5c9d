"""SEM: stable error-minimising noise, REM without its costly adversary (Liu, Xu, Chen and Sun 2024)."""

from __future__ import annotations

from torch import nn

from .._errors import check_count, check_number
from ..attack import Attack
from ..data import ImageSet
from ..perturbation import Perturbation
from .execution import Execution
from .rem import error_minimising


def sem(
    images: ImageSet,
    *,
    epsilon: float = 8 / 255,
    step: float = 1.6 / 255,
    steps: int = 10,
    draws: int = 5,
    attack_radius: float = 4 / 255,
    attack_step: float = 0.8 / 255,
    attack_steps: int = 10,
    epochs: int = 13,
    surrogate: str | nn.Module = "resnet18",
    batch_size: int = 128,
    noise_batch_size: int = 128,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    schedule: str = "cosine",
    crop: int = 4,
    flip: bool = True,
    seed: int = 0,
    execution: Execution | None = None,
) -> Perturbation:
    """Noise that minimises the cross-entropy of a surrogate on randomly disturbed views, instead of attacked ones.

    As REM, with one thing exchanged: while the noise is moved, every pixel of a view is disturbed by uniform noise in
    [−`attack_radius`, `attack_radius`], in pixel values. REM's adversary knows the present surrogate and so protects
    the noise against that one; random noise stands for all. The surrogate is still trained against the adversary
    (`attack_steps` sign-gradient steps of `attack_step`). Norm: L∞ ≤ `epsilon`, in pixel values. Sample-wise. Cost:
    epochs · (1 + attack_steps + steps · draws) passes over the data; as released 793.

    The defaults are the released CIFAR-10 settings. Deviations and errors: those of REM.
    """
    settings = {name: value for name, value in locals().items() if name not in ("images", "execution")}
    radius = check_number("attack_radius", attack_radius, 0, 1)
    step_size = check_number("attack_step", attack_step, 0, 1, open_low=True)
    against = {
        "train_against": Attack(radius=radius, step=step_size, steps=check_count("attack_steps", attack_steps)),
        "craft_against": Attack(radius=radius),
    }
    return error_minimising(images, "sem", settings, execution, **against)
