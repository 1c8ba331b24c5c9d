"""EM: error-minimising noise (Huang, Ma, Erfani, Bailey and Wang 2021)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..data import ImageSet
from ..perturbation import Perturbation
from .bilevel import bilevel
from .execution import Execution
from .ranks import Batch


def em(
    images: ImageSet,
    *,
    epsilon: float = 8 / 255,
    step: float = 0.8 / 255,
    steps: int = 20,
    epochs: int = 50,
    model_batches: int | None = 10,
    until_accuracy: float | None = 0.99,
    surrogate: str | nn.Module = "resnet18",
    batch_size: int = 128,
    noise_batch_size: int = 128,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    schedule: str = "cosine",
    crop: int = 0,
    flip: bool = False,
    seed: int = 0,
    execution: Execution | None = None,
) -> Perturbation:
    """Noise that minimises the cross-entropy of a surrogate trained on it: nothing is left to learn from the picture.

    Rounds of `model_batches` SGD batches and `steps` sign-gradient steps of size `step` over all the data, until the
    surrogate classifies the share `until_accuracy` of the noisy pictures, or `epochs` rounds are over. Norm: L∞ ≤
    `epsilon`, in pixel values. Sample-wise. Cost: a round is
    steps + model_batches · batch_size / N passes, and a forward pass where `until_accuracy` is asked for.

    The defaults are the released sample-wise CIFAR-10 settings (three programs circulate under this name; this is the
    authors'). Deviations: the rounds are bounded, where the original runs on until the accuracy is reached; the
    learning rate follows a cosine over them; no gradient clipping.
    """
    settings = {name: value for name, value in locals().items() if name not in ("images", "execution")}

    def objective(model: Any, views: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(model(views).float(), batch.labels)

    return bilevel(images, objective, method="em", settings=settings, execution=execution or Execution())
