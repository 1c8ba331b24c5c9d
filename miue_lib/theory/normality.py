"""How far the features of a class are from Gaussian, in nats, through random slices.

Along a direction θ the divergence KL(p_θ ‖ N_θ) from the Gaussian with the slice's own mean and variance s² is a
difference of entropies, ½ log 2πe s² − h(p_θ), and h is estimated from spacings of order statistics (Vasicek 1976).
Its mean over directions is a lower bound on the d-dimensional KL(p ‖ N): projecting loses divergence. The estimate's
bias, and its noise, are read off its null distribution: samples of N(0, Σ) of the same size, Σ the class's own
covariance, seen through the same directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import bad, check_count
from .moments import by_class

_OWN = 0x6E6F726D


@dataclass(frozen=True, eq=False)
class Gaussianity:
    """For each of K classes, float64.

    divergence: `(K,)` nats a slice, the mean over slices less the mean under the null: about 0 for Gaussian features,
        ∞ where a slice repeats one value more than about 2√n times, as no density does.
    null: `(K, repeats)` the same for Gaussian samples of the class's size and covariance, with mean 0.
    p_value: `(K,)` how often a Gaussian sample looks at least as far from Gaussian; at least 1/(repeats + 1).
    """

    divergence: Tensor
    null: Tensor
    p_value: Tensor


def gaussianity(features: Tensor, labels: Tensor, *, slices: int = 50, repeats: int = 99, seed: int = 0) -> Gaussianity:
    """Compare each class of `features` `(N, d)` with Gaussian samples of its size and covariance.

    labels: int64 `(N,)`, at least 20 of each class. slices: random directions. repeats: samples under the null.
    Raises `ValueError` for a class that does not vary.
    """
    parts = by_class(features, labels)
    smallest = min(len(part) for part in parts)
    if smallest < 20:
        raise bad("labels", f"a class of {smallest} pictures", "at least 20 of each class")
    check_count("slices", slices)
    check_count("repeats", repeats, 2)
    # Not `seed` itself: somebody's Gaussian features, drawn with the same one, would be the null's own samples.
    generator = torch.Generator().manual_seed(check_count("seed", seed, 0) ^ _OWN)
    d = features.shape[1]
    theta = F.normalize(torch.randn(slices, d, generator=generator, dtype=torch.float64), dim=1).to(features.device)
    divergence, null, p_values = [], [], []
    for z in parts:
        n = len(z)
        projected = theta @ (z - z.mean(0)).T
        if not bool((projected.amax(1) > projected.amin(1)).all()):
            raise bad("features", "a class that does not vary", "classes that vary")
        projected = projected / projected.amax()  # so that no square overflows or vanishes
        observed = _divergence(projected)
        # Slices of a Gaussian sample with the class's covariance: correlated as the class's own slices are
        values, axes = torch.linalg.eigh(projected @ projected.T / n)
        factor = axes * values.clamp_min(0).sqrt()
        of_gaussian = torch.stack(
            [
                _divergence(factor @ torch.randn(slices, n, generator=generator, dtype=torch.float64).to(z.device))
                for _ in range(repeats)
            ]
        )
        divergence.append(observed - of_gaussian.mean())
        null.append(of_gaussian - of_gaussian.mean())
        p_values.append((1 + (of_gaussian >= observed).sum().double()) / (1 + repeats))
    return Gaussianity(torch.stack(divergence), torch.stack(null), torch.stack(p_values))


def _divergence(slices: Tensor) -> Tensor:
    """The mean over slices `(m, n)` of ½ log 2πe s² − h, h from spacings over ⌊√n + ½⌋ ranks."""
    n = slices.shape[1]
    ascending = slices.sort(1).values
    window = int(math.sqrt(n) + 0.5)
    padded = F.pad(ascending, (window, window), mode="replicate")
    entropy = (n / (2 * window) * (padded[:, 2 * window :] - padded[:, : -2 * window])).log().mean(1)
    variance = slices.var(1, correction=0)
    return (0.5 * (2 * math.pi * math.e * variance).log() - entropy).mean()
