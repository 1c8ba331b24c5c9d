"""Random noise: what a perturbation of the same size does when nothing is optimised."""

from __future__ import annotations

import torch

from .._errors import bad, check_count, check_number
from ..data import ImageSet
from ..perturbation import Perturbation, budget_in_levels


def random(images: ImageSet, *, epsilon: float = 8 / 255, seed: int = 0) -> Perturbation:
    """Every pixel independently and uniformly one of the levels in [−ε, ε], clipped to the pictures' range.

    epsilon: L∞ budget in pixel values, in (0, 1] and at least one level. Sample-wise; no pass over the data.
    """
    epsilon = check_epsilon(epsilon)
    check_count("seed", seed, 0)
    most = budget_in_levels(epsilon)
    generator = torch.Generator(images.device).manual_seed(seed)
    shape = images.images.shape
    dtype = torch.int8 if most < 128 else torch.int16
    levels = torch.randint(-most, most + 1, shape, generator=generator, device=images.device, dtype=dtype)
    settings = {"epsilon": epsilon, "seed": seed}
    return Perturbation.of_levels(images, levels, epsilon=epsilon, method="random", settings=settings)


def check_epsilon(epsilon: float) -> float:
    """`epsilon` if it is a usable budget: in (0, 1], and at least one of the 255 levels of a stored picture."""
    epsilon = check_number("epsilon", epsilon, 0, 1, open_low=True)
    if budget_in_levels(epsilon) < 1:
        raise bad("epsilon", epsilon, "at least 1/255, the smallest change that an 8-bit picture can hold")
    return epsilon
