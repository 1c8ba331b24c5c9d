"""Closed forms of mutual information: against integrals, samples, series and each other, and clear about bad input."""

import math

import pytest
import torch
from torch.nn import functional as F

from miue_lib import theory

F64 = torch.float64


def spd(d: int, seed: int) -> torch.Tensor:
    """A covariance matrix with nothing special about it."""
    factor = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return factor @ factor.T / d + 0.1 * torch.eye(d, dtype=F64)


def log_density(samples: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    mean = torch.zeros(len(covariance), dtype=F64)
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(samples)


def samples_of(covariance: torch.Tensor, n: int = 100_000) -> torch.Tensor:
    noise = torch.randn(n, len(covariance), generator=torch.Generator().manual_seed(0), dtype=F64)
    return noise @ torch.linalg.cholesky(covariance).T


def assert_is_the_mean_of(value: torch.Tensor, samples: torch.Tensor) -> None:
    """Within five standard errors of the mean of independent samples."""
    assert abs(float(samples.mean() - value)) < 5 * float(samples.std()) / math.sqrt(len(samples))


# Entropy


@pytest.mark.parametrize("d", [1, 3, 8])
def test_entropy_is_the_mean_surprise(d: int) -> None:
    covariance = spd(d, seed=d)
    assert_is_the_mean_of(theory.gaussian_entropy(covariance), -log_density(samples_of(covariance), covariance))


def test_entropy_of_a_variance_and_under_a_linear_map() -> None:
    assert float(theory.gaussian_entropy(1 / (2 * math.pi * math.e))) == pytest.approx(0, abs=1e-15)
    assert float(theory.gaussian_entropy(1e-4)) < 0
    covariance = spd(5, seed=0)
    shrunk = theory.gaussian_entropy(1e-4 * covariance) - theory.gaussian_entropy(covariance)
    assert float(shrunk) == pytest.approx(5 * math.log(0.01), rel=1e-13)
    wide = torch.diag(torch.full((400,), 1e3))  # the determinant itself would overflow
    assert float(theory.gaussian_entropy(wide)) == pytest.approx(400 * float(theory.gaussian_entropy(1e3)), rel=1e-13)


# Gaussian variables and vectors


@pytest.mark.parametrize("rho", [-0.99, -0.5, 0.0, 0.3, 0.9])
def test_gaussian_mi_is_the_divergence_of_joint_and_product(rho: float) -> None:
    grid = torch.linspace(-9, 9, 1201, dtype=F64)
    x, y = torch.meshgrid(grid, grid, indexing="ij")
    points = torch.stack((x, y), -1)
    joint = log_density(points, torch.tensor([[1, rho], [rho, 1]], dtype=F64))
    product = log_density(points, torch.eye(2, dtype=F64))
    integral = (joint.exp() * (joint - product)).sum() * (grid[1] - grid[0]) ** 2
    assert float(theory.gaussian_mi(rho)) == pytest.approx(float(integral), abs=1e-12)


def test_gaussian_mi_works_element_by_element_and_up_to_one() -> None:
    rho = torch.tensor([[0.0, 0.5], [-0.5, 0.875]])
    mi = theory.gaussian_mi(rho)
    assert mi.dtype == F64
    assert f"{mi[0, 0]}" == "0.0"  # not −0
    assert mi[0, 1] == mi[1, 0]
    assert float(mi[1, 1]) == pytest.approx(0.5 * math.log(64 / 15), rel=1e-14)
    near = 1 - 2.0**-50  # 1 − ρ² = 2⁻⁴⁹ (1 − 2⁻⁵¹)
    assert float(theory.gaussian_mi(near)) == pytest.approx(24.5 * math.log(2), rel=1e-14)
    assert float(theory.gaussian_mi(1e-9)) == pytest.approx(5e-19, rel=1e-6)


def test_vector_mi_is_the_mean_log_ratio_of_densities() -> None:
    covariance = spd(5, seed=1)
    xy = samples_of(covariance)
    ratio = log_density(xy, covariance)
    ratio = ratio - log_density(xy[:, :2], covariance[:2, :2]) - log_density(xy[:, 2:], covariance[2:, 2:])
    assert_is_the_mean_of(theory.gaussian_vector_mi(covariance, 2), ratio)


def test_vector_mi_adds_over_independent_pairs_and_ignores_invertible_maps() -> None:
    rho = torch.tensor([0.1, -0.7, 0.95], dtype=F64)
    covariance = torch.eye(6, dtype=F64)
    covariance[:3, 3:] = covariance[3:, :3] = torch.diag(rho)
    wanted = float(theory.gaussian_mi(rho).sum())
    assert float(theory.gaussian_vector_mi(covariance, 3)) == pytest.approx(wanted, rel=1e-12)
    maps = torch.block_diag(spd(3, seed=2), 0.01 * spd(3, seed=3))
    assert float(theory.gaussian_vector_mi(maps @ covariance @ maps.T, 3)) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("snr", [0.0, 1e-12, 0.5, 100.0])
def test_a_gaussian_channel_is_a_gaussian_pair(snr: float) -> None:
    covariance = torch.tensor([[snr, snr], [snr, snr + 1]], dtype=F64)
    wanted = theory.gaussian_vector_mi(covariance, 1) if snr > 1e-6 else snr / 2
    assert float(theory.gaussian_channel_mi(snr)) == pytest.approx(float(wanted), rel=1e-11)


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.4999, 0.5, 0.7, 3.0])
def test_uniform_channel_is_an_integral(epsilon: float) -> None:
    """h(X + N) − h(N), the density of X + N at y being the length of [0, 1] ∩ [y − ε, y + ε] over 2ε."""
    n = 1_000_000
    width = (1 + 2 * epsilon) / n
    y = -epsilon + width * (torch.arange(n, dtype=F64) + 0.5)
    density = ((y + epsilon).clamp_max(1) - (y - epsilon).clamp_min(0)) / (2 * epsilon)
    integral = -torch.special.xlogy(density, density).sum() * width - math.log(2 * epsilon)
    assert float(theory.uniform_channel_mi(epsilon)) == pytest.approx(float(integral), abs=1e-9)


def test_uniform_channel_as_published() -> None:
    assert theory.uniform_channel_mi(torch.tensor([0.1, 2.0])).tolist() == pytest.approx([1.7094379, 0.125], rel=1e-7)


# Slices


def series(dimension: int, rho: float) -> float:
    """½ Σ (ρ^{2m} / m) (½)_m / (d/2)_m, term by term."""
    total, power = 0.0, 1.0
    for m in range(1, 100_000):
        power *= rho**2 * (m - 0.5) / (dimension / 2 + m - 1)
        total += power / m
        if power < 1e-20 * total:
            break
    return total / 2


@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 7, 64, 512, 10**6])
@pytest.mark.parametrize("rho", [1e-6, -0.3, 0.9, 0.999])
def test_sliced_mi_is_its_series(dimension: int, rho: float) -> None:
    assert float(theory.sliced_gaussian_mi(dimension, rho)) == pytest.approx(series(dimension, rho), rel=1e-13)


@pytest.mark.parametrize("rho", [0.0, 0.5, 1 - 1e-6, 1 - 1e-15])
def test_sliced_mi_in_the_plane(rho: float) -> None:
    wanted = -math.log((1 + math.sqrt((1 - rho) * (1 + rho))) / 2)
    assert float(theory.sliced_gaussian_mi(2, rho)) == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize(("dimension", "rho"), [(2, 0.9), (3, 0.999), (16, 0.9)])
def test_sliced_mi_is_the_mean_over_directions(dimension: int, rho: float) -> None:
    generator = torch.Generator().manual_seed(0)
    theta, phi = F.normalize(torch.randn(2, 100_000, dimension, generator=generator, dtype=F64), dim=2)
    eye = torch.eye(dimension, dtype=F64)
    covariance = torch.kron(torch.tensor([[1, rho], [rho, 1]], dtype=F64), eye)
    slices = theory.gaussian_slices_mi(theta, phi, covariance)
    assert slices.shape == (100_000,)
    assert_is_the_mean_of(theory.sliced_gaussian_mi(dimension, rho), slices)


def test_a_slice_is_the_pair_that_it_projects_to() -> None:
    covariance = spd(5, seed=4)
    generator = torch.Generator().manual_seed(0)
    theta, phi = torch.randn(9, 2, generator=generator), torch.randn(9, 3, generator=generator)
    slices = theory.gaussian_slices_mi(theta, phi, covariance)
    for k, value in enumerate(slices):
        projection = torch.block_diag(theta[k], phi[k]).to(F64)
        pair = theory.gaussian_vector_mi(projection @ covariance @ projection.T, 1)
        assert float(value) == pytest.approx(float(pair), rel=1e-9)
    assert torch.allclose(theory.gaussian_slices_mi(0.5 * theta, -8 * phi, covariance), slices, rtol=1e-13)
    assert slices.max() < theory.gaussian_vector_mi(covariance, 2)  # a projection loses information


# What is refused

EYE = torch.eye(4)
ONES = torch.ones(3, 2)
NAN = torch.full((4, 4), math.nan)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (theory.gaussian_mi, (1.0,), r"correlation: got 1, expected values in (-1, 1)"),
        (theory.gaussian_mi, (torch.tensor([0.5, -1.5]),), "correlation: got -1.5, expected"),
        (theory.gaussian_mi, (math.nan,), "correlation: got nan, expected"),
        (theory.gaussian_mi, ("much",), "correlation: got 'much', expected"),
        (theory.gaussian_mi, (torch.tensor(0.5j),), "correlation: got torch.complex64, expected"),
        (theory.gaussian_channel_mi, (-0.1,), "snr: got -0.1, expected finite values >= 0"),
        (theory.gaussian_channel_mi, (math.inf,), "snr: got inf, expected"),
        (theory.uniform_channel_mi, (0,), "epsilon: got 0, expected finite values > 0"),
        (theory.uniform_channel_mi, (torch.tensor([0.1, math.nan]),), "epsilon: got nan, expected"),
        (theory.gaussian_entropy, (0.0,), "covariance: got a matrix whose least eigenvalue is 0, expected"),
        (theory.gaussian_entropy, (EYE - 1,), "covariance: got a matrix whose least eigenvalue is -3, expected"),
        (theory.gaussian_entropy, (EYE[:3],), "covariance: got shape (3, 4), expected a square matrix"),
        (theory.gaussian_entropy, (torch.ones(3),), "covariance: got shape (3,), expected"),
        (theory.gaussian_entropy, (torch.empty(0, 0),), "covariance: got shape (0, 0), expected"),
        (theory.gaussian_entropy, (NAN,), "covariance: got NaN or infinite entries, expected"),
        (theory.gaussian_entropy, (torch.ones(4, 4).triu(),), "covariance: got a matrix that differs from its"),
        (theory.gaussian_vector_mi, (EYE, 0), "dx: got 0, expected a whole number >= 1"),
        (theory.gaussian_vector_mi, (EYE, 4), "dx: got 4, expected a whole number from 1 to 3"),
        (theory.sliced_gaussian_mi, (0, 0.5), "dimension: got 0, expected a whole number >= 1"),
        (theory.sliced_gaussian_mi, (2, -1), "correlation: got -1, expected one value in (-1, 1)"),
        (theory.sliced_gaussian_mi, (2, torch.zeros(3)), "correlation: got shape (3,), expected one value"),
        (theory.gaussian_slices_mi, (ONES[0], ONES, EYE), "theta: got shape (2,), expected a matrix with one"),
        (theory.gaussian_slices_mi, (ONES, 0 * ONES, EYE), "phi: got a row that is zero or not finite, expected"),
        (theory.gaussian_slices_mi, (ONES, ONES[1:], EYE), "phi: got shape (2, 2), expected as many rows as theta: 3"),
        (theory.gaussian_slices_mi, (ONES, ONES, EYE[1:, 1:]), "covariance: got shape (3, 3), expected (4, 4), the"),
    ],
)
def test_bad_input_is_named(function, arguments, message) -> None:
    with pytest.raises(ValueError) as error:
        function(*arguments)
    assert str(error.value).startswith(message)
