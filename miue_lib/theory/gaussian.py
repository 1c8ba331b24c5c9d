"""Mutual information in closed form: what estimators are tested against, and what the chapters compute by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import bad, check_count
from ._checks import covariance_and_factor, directions, elements, log_det_of


def gaussian_entropy(covariance: float | Tensor) -> Tensor:
    """Differential entropy of N(μ, Σ), whatever the mean: ½ log det(2πe Σ) (Shannon 1948).

    covariance: Σ, `(d, d)`, symmetric and positive definite; or a number, the variance of one variable.
    """
    _, factor = covariance_and_factor(covariance)
    return 0.5 * (len(factor) * math.log(2 * math.pi * math.e) + log_det_of(factor))


def gaussian_mi(correlation: float | Tensor) -> Tensor:
    """I(X; Y) of two jointly Gaussian variables with correlation ρ: −½ log(1 − ρ²) (Gelfand and Yaglom 1957).

    correlation: ρ in (−1, 1), element by element.
    """
    rho = elements("correlation", correlation, "values in (-1, 1)", lambda r: r.abs() < 1)
    return 0 - 0.5 * (torch.log1p(-rho) + torch.log1p(rho))  # 1 − ρ² loses digits near |ρ| = 1; and no −0 at 0


def gaussian_vector_mi(covariance: Tensor, dx: int) -> Tensor:
    """I(X; Y) of jointly Gaussian vectors: ½ log(det Σ_x det Σ_y / det Σ) (Gelfand and Yaglom 1957).

    covariance: Σ of (X, Y), `(dx + dy, dx + dy)`, symmetric and positive definite; dx: how many coordinates, the
    first ones, are X's.
    """
    sigma, joint = covariance_and_factor(covariance)
    if check_count("dx", dx) >= len(sigma):
        raise bad("dx", dx, f"a whole number from 1 to {len(sigma) - 1}, with coordinates left for Y")
    x, y = torch.linalg.cholesky(sigma[:dx, :dx]), torch.linalg.cholesky(sigma[dx:, dx:])
    return 0.5 * (log_det_of(x) + log_det_of(y) - log_det_of(joint))


def gaussian_channel_mi(snr: float | Tensor) -> Tensor:
    """I(X; X + N) of a Gaussian signal X and independent Gaussian noise N: ½ log(1 + snr) (Shannon 1948).

    snr: variance of the signal over variance of the noise, finite and ≥ 0, element by element.
    """
    ratio = elements("snr", snr, "finite values >= 0", lambda s: (s >= 0) & s.isfinite())
    return 0.5 * torch.log1p(ratio)


def uniform_channel_mi(epsilon: float | Tensor) -> Tensor:
    """I(X; X + N) of X ~ U(0, 1) and independent N ~ U(−ε, ε): ε − log 2ε for ε ≤ ½, and 1/(4ε) beyond.

    It is h(X + N) − h(N) with h(N) = log 2ε, where X + N has a trapezoid for its density: a plateau of height
    min(1, 1/2ε) between two ramps of width min(1, 2ε).

    epsilon: ε, finite and > 0, element by element.
    """
    e = elements("epsilon", epsilon, "finite values > 0", lambda e: (e > 0) & e.isfinite())
    return torch.where(e <= 0.5, e - torch.log(2 * e), 0.25 / e)


def sliced_gaussian_mi(dimension: int, correlation: float) -> Tensor:
    """Sliced MI of X, Y ~ N(0, I_d) with cross-covariance ρI: the mean of I(θᵀX; φᵀY) over θ and φ.

    θ and φ are independent and uniform on the unit sphere (Goldfeld and Greenewald 2021). A slice has the correlation
    ρ θᵀφ, and so, with u = θᵀφ and rising factorials (a)_m = a (a + 1) ⋯ (a + m − 1),

        −½ E log(1 − ρ²u²) = ½ Σ_{m ≥ 1} (ρ^{2m} / m) E u^{2m},   E u^{2m} = (½)_m / (d/2)_m.

    The series stalls near |ρ| = 1, so the mean itself is computed. With u = cos t and x = log tan t it is an integral
    over the line of a function that falls off exponentially and is analytic and bounded for |Im x| < π/4, whatever ρ
    and d. There the trapezoidal rule at step 0.1 errs by about exp(−2π(π/4)/0.1): not at all in float64.

    dimension: d ≥ 1; correlation: ρ in (−1, 1), one number.
    """
    dimension = check_count("dimension", dimension)
    rho = elements("correlation", correlation, "one value in (-1, 1)", lambda r: r.abs() < 1)
    if rho.ndim:
        raise bad("correlation", f"shape {tuple(rho.shape)}", "one value in (-1, 1)")
    if dimension == 1:  # u is 1 or −1
        return gaussian_mi(rho)
    x = torch.arange(-40, 40, 0.1, dtype=torch.float64, device=rho.device) + 0.5 * math.log(dimension)
    cos2, sin2 = torch.sigmoid(-2 * x), torch.sigmoid(2 * x)
    weight = torch.softmax(0.5 * ((dimension - 1) * F.logsigmoid(2 * x) + F.logsigmoid(-2 * x)), 0)
    part = rho.square() * cos2
    rest = torch.where(part < 0.5, torch.log1p(-part), torch.log((1 - rho) * (1 + rho) + rho.square() * sin2))
    return 0 - 0.5 * (weight * rest).sum()


def gaussian_slices_mi(theta: Tensor, phi: Tensor, covariance: Tensor) -> Tensor:
    """I(θᵀX; φᵀY) of jointly Gaussian vectors, slice by slice, `(m,)`: −½ log(1 − ρ²) with the slice's correlation

        ρ = θᵀCφ / √(θᵀΣ_xθ · φᵀΣ_yφ),   where C is the cross-covariance of X and Y.

    theta: `(m, dx)`, phi: `(m, dy)`, one direction a row, of any length but 0; covariance: Σ of (X, Y),
    `(dx + dy, dx + dy)`, symmetric and positive definite.
    """
    theta, phi = directions("theta", theta), directions("phi", phi)
    if len(phi) != len(theta):
        raise bad("phi", f"shape {tuple(phi.shape)}", f"as many rows as theta: {len(theta)}")
    dx, d = theta.shape[1], theta.shape[1] + phi.shape[1]
    sigma, _ = covariance_and_factor(covariance)
    if len(sigma) != d:
        raise bad("covariance", f"shape {tuple(sigma.shape)}", f"({d}, {d}), the columns of theta and phi together")
    along_x = ((theta @ sigma[:dx, :dx]) * theta).sum(1)
    along_y = ((phi @ sigma[dx:, dx:]) * phi).sum(1)
    both = ((theta @ sigma[:dx, dx:]) * phi).sum(1)
    return 0 - 0.5 * torch.log1p(-(both.square() / (along_x * along_y)).clamp_max(1))
