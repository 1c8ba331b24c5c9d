"""How much mutual information the covariance of poisoned features leaves room for.

Z = g(X) are features of clean pictures, Z' = g(X') of poisoned ones, Y labels. Three results, all proved in the chapter
*The Gaussian-covariance theorem*:

*The paper's* (Zhu et al. 2026, theorem 5.1). If the density p_y of Z' within class y is so close to some N(μ_y, Σ_y)
that KL(N(μ_y, Σ_y) ‖ p_y) ≤ ε < 1, and m_y ≤ p_y ≤ M_y, then

    I(Z; Z') ≤ d/2 log 2πe + ½ E log det Σ_Y + E C_Y √ε + constant,   C_y = √2 max_{m_y ≤ u ≤ M_y} |log u| + 1.

*At a resolution.* With N ~ N(0, I_d) independent of all else and σ > 0, for any distribution whatever,

    I(Z; Z' + σN) ≤ min{I(Z; Y), I(Z' + σN; Y)} + ½ E log det(I + Σ_Y/σ²)
                  ≤       "                      + d/2 E log(1 + tr Σ_Y/(dσ²)),

and for features of unit length tr Σ_y = 1 − c̄_y, c̄_y the mean cosine within the class. Both information terms are at
most H(Y). Without labels, I(Z; Z' + σN) ≤ ½ log det(I + Σ/σ²) with the covariance Σ of all classes together.

*From the loss.* Features that are never negative, K classes of equal size: a similarity loss of L nats forces the mean
cosine up to at least c(L), and so the bound down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._errors import bad, check_count, check_number
from ._checks import elements
from .moments import ClassMoments, by_class, log_det_at, log_dets, unit_by_class


@dataclass(frozen=True)
class MIBound:
    """What I(Z; Z' + σN) can't exceed, term by term, in nats.

    label_information: the information about the label that was given, or H(Y).
    covariance: ½ E log det(I + Σ_Y/σ²). total: their sum, the bound.
    trace: the looser total with d/2 E log(1 + tr Σ_Y/(dσ²)).
    mean_trace: still looser, with d/2 log(1 + E tr Σ_Y/(dσ²)): for unit length d/2 log(1 + (1 − c̄)/(dσ²)).
    unlabelled: ½ log det(I + Σ/σ²), another bound, which needs no labels: the smaller of it and `total` holds.
    resolution: σ.
    """

    label_information: float
    covariance: float
    total: float
    trace: float
    mean_trace: float
    unlabelled: float
    resolution: float


def mi_bound(features: Tensor, labels: Tensor, *, resolution: float, label_information: float | None = None) -> MIBound:
    """The bound on I(Z; Z' + σN) for a data set with these poisoned features, whatever the clean ones Z are.

    features: Z' `(N, d)`, finite. labels: int64 `(N,)`, at least two of each class. resolution: σ > 0, in the units of
    the features: bring those to one scale first (unit length, say), or the bound measures their scale.
    label_information: I(Z; Y) or I(Z' + σN; Y), in [0, H(Y)], if one is known; by default H(Y).

    Eigenvalues are squared singular values of the centred features: also small ones are right, and so is a resolution
    far below the largest.
    """
    parts = by_class(features, labels)
    n, d = features.shape
    means = torch.stack([z.mean(0) for z in parts])
    counts = torch.tensor([len(z) for z in parts], dtype=torch.float64, device=means.device)
    # A triangular factor has the singular values of the centred features it stands for, in at most d rows.
    factors = [torch.linalg.qr(z - mean, mode="r").R for z, mean in zip(parts, means, strict=True)]
    between = counts.sqrt()[:, None] * (means - counts @ means / n)
    within = [torch.linalg.svdvals(factor).square() / len(z) for factor, z in zip(factors, parts, strict=True)]
    total = torch.linalg.svdvals(torch.cat((*factors, between))).square() / n
    return _assemble(counts / n, within, total, d, resolution, label_information)


def moments_bound(moments: ClassMoments, *, resolution: float, label_information: float | None = None) -> MIBound:
    """As `mi_bound`, for a distribution of which the class moments are known (see `log_dets_at` on small σ)."""
    within, total = torch.linalg.eigvalsh(moments.covariances), torch.linalg.eigvalsh(moments.total_covariance)
    return _assemble(moments.shares, list(within), total, moments.means.shape[1], resolution, label_information)


def _assemble(
    shares: Tensor, within: list[Tensor], total: Tensor, d: int, resolution: float, label_information: float | None
) -> MIBound:
    """From the eigenvalues of each Σ_y and of Σ."""
    sigma = check_number("resolution", resolution, 0, open_low=True)
    of_labels = _label_information(shares, label_information)
    spread = torch.stack([spectrum.clamp_min(0).sum() for spectrum in within]) / sigma / sigma / d
    covariance = float(0.5 * shares @ torch.stack([log_det_at(spectrum, sigma) for spectrum in within]))
    return MIBound(
        label_information=of_labels,
        covariance=covariance,
        total=of_labels + covariance,
        trace=of_labels + float(d / 2 * shares @ spread.log1p()),
        mean_trace=of_labels + float(d / 2 * torch.log1p(shares @ spread)),
        unlabelled=float(0.5 * log_det_at(total, sigma)),
        resolution=sigma,
    )


def _label_information(shares: Tensor, given: float | None) -> float:
    entropy = float(-torch.xlogy(shares, shares).sum())
    if given is None:
        return entropy
    known = check_number("label_information", given, 0)
    if known > entropy + 1e-9:
        raise bad("label_information", f"{known:.6g} nats", f"at most H(Y) = {entropy:.6g}")
    return known


def cosine_bound(
    features: Tensor, labels: Tensor, *, resolution: float, label_information: float | None = None
) -> float:
    """The bound in the terms of the loss: H(Y) + d/2 log(1 + (1 − c̄)/(dσ²)), c̄ the mean cosine within classes.

    features: `(N, d)` of unit length up to rounding, which is undone, or a `ValueError`; of exactly unit length it
    equals `mi_bound(…).mean_trace`. The other arguments are those of `mi_bound`.
    """
    sigma = check_number("resolution", resolution, 0, open_low=True)
    parts = unit_by_class(features, labels)
    shares = torch.tensor([len(z) for z in parts], dtype=torch.float64, device=features.device) / len(features)
    cosine = shares @ torch.stack([z.mean(0).square().sum() for z in parts])
    d = features.shape[1]
    spread = (1 - cosine).clamp_min(0) / sigma / sigma / d
    return _label_information(shares, label_information) + float(d / 2 * spread.log1p())


def entropy_continuity(divergence: float | Tensor, least: float | Tensor, most: float | Tensor) -> Tensor:
    """C √ε: how far the entropies of p and q can be apart if KL(q ‖ p) ≤ ε < 1 and m ≤ p ≤ M wherever p > 0.

    |h(p) − h(q)| = |∫ (q − p) log p + KL(q ‖ p)| ≤ max |log p| ‖q − p‖₁ + ε, and ‖q − p‖₁ ≤ √(2ε) by Pinsker.

    divergence: ε in [0, 1). least, most: m and M, 0 ≤ m ≤ M; m = 0, as for every density on all of ℝᵈ, gives ∞.
    Element by element.
    """
    e = elements("divergence", divergence, "values in [0, 1)", lambda e: (e >= 0) & (e < 1))
    low = elements("least", least, "finite values >= 0", lambda m: (m >= 0) & m.isfinite())
    high = elements("most", most, "finite values > 0", lambda m: (m > 0) & m.isfinite())
    if bool((low > high).any()):
        raise bad("least", "a value above most", "m <= M")
    constant = math.sqrt(2) * torch.maximum(low.log().abs(), high.log().abs()) + 1
    return torch.where(e > 0, constant * e.sqrt(), 0.0)  # no divergence, no difference: also where C is infinite


def covariance_reduction_bound(
    moments: ClassMoments,
    *,
    constant: float,
    divergence: float | Tensor = 0.0,
    least: float | Tensor = 1.0,
    most: float | Tensor = 1.0,
) -> float:
    """Theorem 5.1 of Zhu et al. (2026): d/2 log 2πe + ½ E log det Σ_Y + E C_Y √ε + constant, in nats.

    constant: the conditional-entropy term, which the paper treats as fixed; by the proof it is I(Z'; Y) − h(Z' | Z).
    divergence, least, most: ε and the density's extremes, a number or one for each class; see `entropy_continuity`.
    """
    d = moments.means.shape[1]
    entropies = d / 2 * math.log(2 * math.pi * math.e) + 0.5 * log_dets(moments.covariances)
    continuity = entropy_continuity(divergence, least, most).to(entropies.device)
    if continuity.ndim and continuity.shape != entropies.shape:
        raise bad("divergence, least, most", f"shape {tuple(continuity.shape)}", f"numbers, or ({len(entropies)},)")
    fixed = check_number("constant", constant, -math.inf)
    there = moments.shares > 0
    if bool(continuity.expand_as(entropies)[there].isinf().any()):
        return math.inf  # also where another term is −∞: a price that is not finite bounds nothing
    return float(moments.shares[there] @ (entropies + continuity)[there]) + fixed


def least_mean_cosine(loss: float | Tensor, classes: int, temperature: float) -> Tensor:
    """How large a similarity loss of L nats forces the mean cosine within classes to be: c̄ ≥ c(L).

    For features without negative entries, as after ReLU and averaging, and K classes equally large in the batch, with
    A = K − 1 and B = e^{1/τ} − 1, each anchor's loss is at least log(1 + A/(1 + B c̄_j)): cosines between classes are at
    least 0, and e^{c/τ} ≤ 1 + B c on [0, 1]. That is convex in c̄_j, so by Jensen

        c̄ ≥ c(L) = (A/(e^L − 1) − 1)/B.

    loss: L > 0, element by element; self-pairs counted and no distance term, as by default in `similarity_loss`.
    temperature: τ > 0. Values below 0 say nothing, and none is above 1 for a loss that can be reached.
    """
    losses = elements("loss", loss, "finite values > 0", lambda value: (value > 0) & value.isfinite())
    others = check_count("classes", classes, 2) - 1
    tau = check_number("temperature", temperature, 0, open_low=True)
    ratio = others / torch.expm1(losses) - 1
    # (…)/(e^{1/τ} − 1), with e^{−1/τ} where that would overflow
    return ratio * math.exp(-1 / tau) / -math.expm1(-1 / tau)
