"""MI-UE: noise that collapses a class's features to one direction (Zhu, Miao, Dong and Gao 2026, algorithm 1)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from .._errors import check_count
from ..data import ImageSet
from ..kernels import similarity
from ..kernels.jpeg import compressed
from ..perturbation import Perturbation
from .bilevel import bilevel
from .execution import Execution
from .ranks import Batch


def miue(
    images: ImageSet,
    *,
    epsilon: float = 8 / 255,
    step: float = 0.2 / 255,
    steps: int = 10,
    epochs: int = 100,
    temperature: float = 0.1,
    distance_weight: float = 0.1,
    similarity_weight: float = 1.0,
    surrogate: str | nn.Module = "resnet18",
    batch_size: int = 128,
    noise_batch_size: int = 512,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    schedule: str = "cosine",
    fresh_every: int | None = None,
    step_decay: bool = False,
    crop: int = 4,
    flip: bool = True,
    jpeg: int | None = None,
    seed: int = 0,
    execution: Execution | None = None,
) -> Perturbation:
    """Noise that minimises `similarity_loss` of a surrogate's features, while the surrogate learns from the noise.

    Each of `epochs` rounds trains the surrogate for one epoch on the noisy pictures, then takes `steps` sign-gradient
    steps of size `step` on the noise of every batch. Norm: L∞ ≤ `epsilon`, in pixel values. Sample-wise. Cost:
    epochs · (1 + steps) passes over the data.

    With `fresh_every` the surrogate starts afresh after that many rounds, with its learning-rate schedule. The paper
    keeps one surrogate for 100 rounds; in a few rounds, noise that several young networks agreed on is the stronger,
    since every victim begins young. With `step_decay` the step falls in a line over the rounds.

    The loss has two terms, of weights ω = `similarity_weight` and ζ = `distance_weight`; the paper's ablation leaves
    one of them out, which is a weight of 0. Without either the noise stays 0.

    With `jpeg`, a quality from 1 to 100, the noise is crafted for victims who compress the published pictures: in both
    phases the surrogate sees them as JPEG of that quality leaves them, with the gradient of `kernels.jpeg`. An adaptive
    variant that is not in the paper. It costs no further passes.

    The defaults are the paper's settings for CIFAR-10. Deviations from the released code, each a parameter: ζ is
    the text's 0.1 (the code's default is 0); the step does not grow while it runs; crops are real ones, and noise is
    optimised through them; every batch of the noise phase holds partners of each of its classes.
    """
    settings = {name: value for name, value in locals().items() if name not in ("images", "execution")}
    similarity.check_weights(temperature, distance_weight, similarity_weight)
    through = None if jpeg is None else partial(compressed, quality=check_count("jpeg", jpeg, 1, 100))

    def objective(model: Any, views: Tensor, batch: Batch) -> Tensor:
        features = batch.all_features(model.features(views))
        return similarity.unchecked(features, batch.all_labels, temperature, distance_weight, similarity_weight)

    execution = execution or Execution()
    return bilevel(images, objective, method="miue", settings=settings, execution=execution, through=through)
