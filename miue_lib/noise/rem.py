"""REM: error-minimising noise that survives adversarial training (Fu, He, Liu, Shen and Tao 2022)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .._errors import check_count, check_number
from ..attack import Attack
from ..data import ImageSet
from ..perturbation import Perturbation
from .bilevel import bilevel
from .execution import Execution
from .ranks import Batch


def rem(
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
    """Noise that minimises the cross-entropy of a surrogate under attack: min over θ, min over δ, max over ρ.

    An adversary moves every noisy view by up to `attack_radius` (ρ, in pixel values; `attack_steps` sign-gradient
    steps of `attack_step`) before the surrogate is trained on it, and before the noise is moved to make it easier.
    Each of `epochs` rounds is one epoch of that adversarial training, and then, for each batch, `steps` steps of size
    `step` from uniform noise, each along the mean gradient of `draws` random crops and flips. Norm: L∞ ≤ `epsilon`, in
    pixel values. Sample-wise. Cost: epochs · (1 + steps · draws) · (1 + attack_steps) passes over the data; as
    released 7,293, 6.6 times MI-UE's: the most expensive method here.

    The defaults are the released CIFAR-10 settings, whose 5,000 batches of 128 are 12.8 epochs. Deviations: the noise
    of all pictures is made anew once an epoch, where the original does it for each batch just before the surrogate is
    trained on that batch. The cost is the same, but in the first epoch the surrogate sees no noise, and later noise
    that is up to an epoch old. The learning rate follows a cosine, where the original divides it by ten twice.

    Raises `ValueError` for a class with one picture, as the engine's batches want partners for each.
    """
    settings = {name: value for name, value in locals().items() if name not in ("images", "execution")}
    adversary = Attack(
        radius=check_number("attack_radius", attack_radius, 0, 1),
        step=check_number("attack_step", attack_step, 0, 1, open_low=True),
        steps=check_count("attack_steps", attack_steps),
    )
    against = {"train_against": adversary, "craft_against": adversary}
    return error_minimising(images, "rem", settings, execution, **against)


def error_minimising(
    images: ImageSet, method: str, settings: dict[str, Any], execution: Execution | None, **against: Any
) -> Perturbation:
    """What REM and SEM share: the cross-entropy of the surrogate on what `craft_against` makes of the noisy views."""

    def objective(model: Any, views: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(model(views).float(), batch.labels)

    return bilevel(
        images,
        objective,
        method=method,
        settings=settings,
        execution=execution or Execution(),
        start_anew=True,
        **against,
    )
