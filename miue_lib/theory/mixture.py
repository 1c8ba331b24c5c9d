"""Mutual information of Gaussian mixtures by Monte Carlo: no bias, and a standard error. The referee of all bounds.

The entropy of a mixture has no closed form, but its density has, so that −log p is averaged over samples. A data set
seen through Gaussian noise is a mixture, too: one component a picture, all with covariance σ²I.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from .._errors import bad, check_count, check_number
from ._checks import float64
from .moments import by_class

_VALUES = 1 << 22  # distances held at once


@dataclass(frozen=True)
class MonteCarlo:
    """A mean of n independent terms, and its standard error."""

    value: float
    stderr: float
    n: int

    @classmethod
    def of(cls, terms: Tensor) -> MonteCarlo:
        return cls(float(terms.mean()), float(terms.std()) / math.sqrt(len(terms)), len(terms))


@dataclass(frozen=True)
class MixtureInformation:
    """Of (X, Y) and the component K that they were drawn from, in nats: I(X; Y), I(X; K) and I(Y; K)."""

    between: MonteCarlo
    label_x: MonteCarlo
    label_y: MonteCarlo


def mixture_mi(
    weights: Tensor, means: Tensor, covariances: Tensor, dx: int, *, n: int = 10_000, seed: int = 0
) -> MixtureInformation:
    """I(X; Y) for (X, Y) ~ Σ_k w_k N(μ_k, Σ_k), and what each side knows of k, from the same n samples.

    weights: `(K,)`, positive, adding up to 1. means: `(K, dx + dy)`. covariances: `(K, dx + dy, dx + dy)`, symmetric
    and positive definite. dx: how many coordinates, the first ones, are X's. For Z' + σN in the place of Y, add σ² to
    Y's variances. n ≥ 2 samples; seed: of the samples.
    """
    w, mu, sigma = (
        float64(name, value, "numbers")
        for name, value in (("weights", weights), ("means", means), ("covariances", covariances))
    )
    if w.ndim != 1 or not len(w) or not bool((w > 0).all()) or abs(float(w.sum()) - 1) > 1e-6:
        raise bad("weights", f"{w.tolist()}"[:80], "positive numbers (K,) that add up to 1")
    if mu.ndim != 2 or len(mu) != len(w):
        raise bad("means", f"shape {tuple(mu.shape)}", f"({len(w)}, dx + dy)")
    d = mu.shape[1]
    if sigma.shape != (len(w), d, d):
        raise bad("covariances", f"shape {tuple(sigma.shape)}", f"{(len(w), d, d)}")
    for name, value in (("means", mu), ("covariances", sigma)):
        if not bool(value.isfinite().all()):
            raise bad(name, "NaN or infinite values", "finite numbers")
    if bool(((sigma - sigma.mT).abs().amax((1, 2)) > 1e-5 * sigma.abs().amax((1, 2))).any()):
        raise bad("covariances", "a matrix that differs from its transpose", "symmetric matrices")
    sigma = (sigma + sigma.mT) / 2
    factors, failed = torch.linalg.cholesky_ex(sigma)
    if bool(failed.any()):
        least = float(torch.linalg.eigvalsh(sigma).min())
        raise bad("covariances", f"a matrix whose least eigenvalue is {least:.3g}", "positive definite matrices")
    if check_count("dx", dx) >= d:
        raise bad("dx", dx, f"a whole number from 1 to {d - 1}, with coordinates left for Y")
    check_count("n", n, 2)

    generator = torch.Generator().manual_seed(check_count("seed", seed, 0))
    k = torch.multinomial(w.cpu(), n, replacement=True, generator=generator).to(w.device)
    samples = torch.randn(n, d, generator=generator, dtype=torch.float64).to(w.device)
    for c, factor in enumerate(factors):
        samples[k == c] = mu[c] + samples[k == c] @ factor.T
    of_all, of_x, of_y = (
        _log_densities(samples[:, part], mu[:, part], sigma[:, part, part])
        for part in (slice(0, d), slice(0, dx), slice(dx, d))
    )
    log_w = w.log()
    p_xy, p_x, p_y = (torch.logsumexp(log_w + values, 1) for values in (of_all, of_x, of_y))
    own = torch.arange(n, device=w.device), k
    return MixtureInformation(
        between=MonteCarlo.of(p_xy - p_x - p_y),
        label_x=MonteCarlo.of(of_x[own] - p_x),
        label_y=MonteCarlo.of(of_y[own] - p_y),
    )


def _log_densities(samples: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    """Of each sample `(n, d)` under each component, one after another: `(n, K)`."""
    normals: list[Any] = [MultivariateNormal(mean, sigma) for mean, sigma in zip(means, covariances, strict=True)]
    return torch.stack([normal.log_prob(samples) for normal in normals], 1)


@dataclass(frozen=True)
class ResolvedInformation:
    """Of a picture drawn from a data set and its features seen at a resolution, Z'_σ = Z' + σN, in nats.

    picture: I(i; Z'_σ) of which picture it is; that is I(Z; Z'_σ) if no two pictures have the same clean features Z.
    label: I(Y; Z'_σ).
    """

    picture: MonteCarlo
    label: MonteCarlo


def resolved_information(
    features: Tensor, labels: Tensor, *, resolution: float, draws: int = 1, seed: int = 0
) -> ResolvedInformation:
    """What the features Z' of a data set tell at the resolution σ: nothing is estimated but a mean over the noise N.

    features: `(N, d)`. labels: int64 `(N,)`, at least two of each class. resolution: σ > 0, in units of the features.
    draws: of N for each picture; the standard errors are those of drawing N, from two draws on (of a single one they
    are too large, as pictures differ). At most log N and H(Y) can be told. O(N²d) time, O(N) memory.
    """
    parts = by_class(features, labels)
    sigma = check_number("resolution", resolution, 0, open_low=True)
    check_count("draws", draws)
    z = torch.cat(parts)
    z = (z - z.mean(0)) / sigma
    n, d = z.shape
    sizes = [len(part) for part in parts]
    own_class = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(z.device)
    log_sizes = torch.tensor(sizes, dtype=torch.float64, device=z.device).log()
    norms = z.square().sum(1)
    # −½|s − z_j|² by one product, if what cancels leaves nine digits; far from the origin by differences
    by_product = float(norms.max()) < 1e6
    generator = torch.Generator().manual_seed(check_count("seed", seed, 0))
    picture, label = [], []
    for _ in range(draws):
        seen = z + torch.randn(n, d, generator=generator, dtype=torch.float64).to(z.device)
        for i in torch.split(torch.arange(n, device=z.device), max(1, _VALUES // n)):
            if by_product:
                logs = seen[i] @ z.T - 0.5 * norms  # without the |s|² that all j share
            else:
                logs = -0.5 * torch.cdist(seen[i], z, compute_mode="donot_use_mm_for_euclid_dist").square()
            of_classes = torch.stack([part.logsumexp(1) for part in torch.split(logs, sizes, 1)], 1)
            of_all = of_classes.logsumexp(1)
            picture.append(logs.gather(1, i[:, None])[:, 0] - of_all + math.log(n))
            c = own_class[i]
            label.append(of_classes.gather(1, c[:, None])[:, 0] - log_sizes[c] - of_all + math.log(n))
    return ResolvedInformation(*(_over_noise(torch.cat(terms).view(draws, n)) for terms in (picture, label)))


def _over_noise(terms: Tensor) -> MonteCarlo:
    """Of `(draws, n)` terms, of which the n pictures are given and the draws are random."""
    variance = terms.var(0).mean() if len(terms) > 1 else terms.var()
    return MonteCarlo(float(terms.mean()), math.sqrt(float(variance) / terms.numel()), terms.numel())
