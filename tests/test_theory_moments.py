"""Class moments: against definitions, eigenvalues and scikit-learn; and the identity that ties them to cosines."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from miue_lib import theory

F64 = torch.float64


def sample(n=300, d=6, classes=4, seed=0):
    """Features of uneven classes that differ in mean and in covariance."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat(
        (torch.arange(classes).repeat(2), torch.randint(classes, (n - 2 * classes,), generator=generator))
    )
    maps = torch.randn(classes, d, d, generator=generator, dtype=F64)
    noise = torch.randn(n, d, generator=generator, dtype=F64)
    means = 2 * torch.randn(classes, d, generator=generator, dtype=F64)
    return means[labels] + torch.einsum("nij,nj->ni", maps[labels], noise), labels


def test_moments_are_those_of_each_class():
    z, labels = sample()
    labels = labels + 3  # labels need not begin at 0, and class 5 of 3 … 6 is there
    moments = theory.class_moments(z, labels)
    for k, c in enumerate(range(3, 7)):
        part = z[labels == c]
        assert moments.shares[k] == pytest.approx(len(part) / len(z))
        assert torch.allclose(moments.means[k], part.mean(0))
        assert torch.allclose(moments.covariances[k], torch.cov(part.T, correction=0))
        assert moments.traces[k] == pytest.approx(float(part.var(0, correction=0).sum()))
    assert torch.allclose(moments.total_covariance, torch.cov(z.T, correction=0))
    shares = torch.bincount(labels)[3:] / len(labels)
    assert float(moments.label_entropy) == pytest.approx(float(-(shares * shares.log()).sum()))


@pytest.mark.parametrize("per_class", [4, 40, 400])  # fewer than, and more than, the dimension
@pytest.mark.parametrize("shrinkage", [0.05, "ledoit-wolf"])
def test_log_determinants_are_sums_of_log_eigenvalues(per_class, shrinkage):
    z = torch.randn(3 * per_class, 32, generator=torch.Generator().manual_seed(per_class), dtype=F64)
    labels = torch.arange(3 * per_class) % 3
    covariances = theory.class_moments(z, labels, shrinkage=shrinkage).covariances
    expected = [sum(math.log(v) for v in torch.linalg.eigvals(sigma).real.tolist()) for sigma in covariances]
    assert theory.log_dets(covariances).tolist() == pytest.approx(expected, abs=1e-8)
    assert theory.log_dets(theory.class_moments(z, labels).covariances).isfinite().all() == (per_class > 32)


@pytest.mark.parametrize("per_class", [2, 10, 100])
@pytest.mark.parametrize("resolution", [1e-3, 1.0, 1e3])
def test_log_determinants_at_a_resolution_need_no_regular_covariance(per_class, resolution):
    z = torch.randn(2 * per_class, 48, generator=torch.Generator().manual_seed(0), dtype=F64)
    labels = torch.arange(2 * per_class) % 2
    found = theory.log_dets_at(theory.class_moments(z, labels).covariances, resolution)
    for c in range(2):
        part = z[labels == c] - z[labels == c].mean(0)
        gram = part @ part.T / per_class / resolution**2  # has the same eigenvalues other than 0
        expected = torch.linalg.eigvalsh(gram).clamp_min(0).log1p().sum()
        assert float(found[c]) == pytest.approx(float(expected), rel=1e-8, abs=1e-8)


def test_covariances_that_are_none_are_refused():
    eye = torch.eye(3, dtype=F64)
    for wrong, message in (
        (eye[0], "shape (3,), expected square matrices"),
        (eye[:2], "shape (2, 3), expected square matrices"),
        (eye / 0, "NaN or infinite entries"),
        (eye + torch.ones(3, 3).triu(1), "a matrix that differs from its transpose"),
    ):
        for function in (theory.log_dets, lambda matrices: theory.log_dets_at(matrices, 1.0)):
            with pytest.raises(ValueError) as error:
                function(wrong)
            assert f"covariances: got {message}" in str(error.value)


def test_shrinkage_is_that_of_ledoit_and_wolf():
    from sklearn.covariance import ledoit_wolf

    z, labels = sample(n=80, d=20, classes=3)
    moments = theory.class_moments(z, labels, shrinkage="ledoit-wolf")
    for c in range(3):
        expected, _ = ledoit_wolf(z[labels == c].numpy())
        assert torch.allclose(moments.covariances[c], torch.from_numpy(expected), rtol=1e-9, atol=1e-12)
    plain, half = theory.class_moments(z, labels), theory.class_moments(z, labels, shrinkage=0.5)
    assert torch.allclose(half.traces, plain.traces)


# The identity


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 5), st.floats(0.01, 30))
def test_the_trace_is_one_less_the_mean_cosine(seed, d, classes, narrowness):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(8 * classes) % classes
    centres = narrowness * torch.randn(classes, d, generator=generator, dtype=F64)
    z = F.normalize(centres[labels] + torch.randn(8 * classes, d, generator=generator, dtype=F64), dim=1)
    traces = theory.class_moments(z, labels).traces
    assert torch.allclose(traces, 1 - theory.mean_cosines(z, labels), rtol=1e-6, atol=1e-12)
    by_pairs = torch.stack([(z[labels == c] @ z[labels == c].T).mean() for c in range(classes)])
    assert torch.allclose(theory.mean_cosines(z, labels), by_pairs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("d", [8, 64])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_identity_in_half_precision(d, dtype):
    """Rounding changes lengths; undone, the identity is exact, and the trace is that of the rounded features."""
    z, labels = sample(n=800, d=d, classes=4)
    rounded = F.normalize(z.relu() + 0.1, dim=1).to(dtype)
    again = F.normalize(rounded.double(), dim=1)
    cosines = theory.mean_cosines(rounded, labels)
    assert torch.allclose(theory.class_moments(again, labels).traces, 1 - cosines, rtol=1e-9)
    assert torch.allclose(theory.class_moments(rounded, labels).traces, 1 - cosines, rtol=1e-3)


def test_lengths_are_forgiven_what_rounding_does_to_them():
    z, labels = sample(n=40, d=4)
    for dtype, forgiven, too_much in (
        (torch.float64, 1e-7, 1e-5),
        (torch.float32, 5e-6, 1e-4),
        (torch.bfloat16, 5e-3, 3e-2),
    ):
        unit = F.normalize(z, dim=1)
        theory.mean_cosines((unit * (1 + forgiven)).to(dtype), labels)
        with pytest.raises(ValueError, match="features: got lengths"):
            theory.mean_cosines((unit * (1 + too_much)).to(dtype), labels)


# What is refused

Z, Y = sample(n=40, d=3)


@pytest.mark.parametrize(
    ("arguments", "settings_", "message"),
    [
        ((Z[0], Y), {}, "features: got shape (3,), expected a tensor (N, d), not empty"),
        ((Z.numpy(), Y), {}, "features: got ndarray, expected a tensor"),
        ((Z.to(torch.complex64), Y), {}, "features: got torch.complex64, expected real numbers"),
        ((torch.cat((Z[:-1], Z[-1:] / 0)), Y), {}, "features: got 3 values that are NaN or infinite, expected finite"),
        ((Z, Y[1:]), {}, "labels: got shape (39,), expected one label a row of features: (40,)"),
        ((Z, Y.float()), {}, "labels: got torch.float32, expected a tensor of whole numbers"),
        ((Z, Y.tolist()), {}, "labels: got list, expected a tensor of whole numbers"),
        ((Z, Y - 1), {}, "labels: got a label of -1, expected labels >= 0"),
        (
            (Z, torch.where(torch.arange(40) == 7, 9, Y)),
            {},
            "labels: got a single picture of class 9, expected at least",
        ),
        ((Z, Y), {"shrinkage": 1.5}, "shrinkage: got 1.5, expected a number in [0, 1]"),
        ((Z, Y), {"shrinkage": "oas"}, "shrinkage: got 'oas', expected a number in [0, 1] or 'ledoit-wolf'"),
    ],
)
def test_bad_features_and_labels(arguments, settings_, message):
    with pytest.raises(ValueError) as error:
        theory.class_moments(*arguments, **settings_)
    assert str(error.value).startswith(message)


def test_cosines_want_unit_length():
    with pytest.raises(
        ValueError, match="features: got lengths that differ from 1 by up to .*, expected vectors of unit"
    ):
        theory.mean_cosines(Z, Y)
    with pytest.raises(ValueError, match="features: got lengths that differ"):
        theory.cosine_bound(2 * F.normalize(Z), Y, resolution=0.1)


EYES = torch.eye(2).repeat(3, 1, 1)
THIRDS = torch.full((3,), 1 / 3)


@pytest.mark.parametrize(
    ("shares", "means", "covariances", "message"),
    [
        (THIRDS, torch.zeros(3), EYES, "means: got shape (3,), expected (K, d), not empty"),
        (THIRDS, torch.zeros(3, 4), EYES, "covariances: got shape (3, 2, 2), expected (K, d, d) = (3, 4, 4)"),
        (torch.ones(3), torch.zeros(3, 2), EYES, "shares: got [1.0, 1.0, 1.0], expected 3 shares that add up to 1"),
        (THIRDS, torch.zeros(3, 2), EYES / 0, "covariances: got NaN or infinite values, expected finite numbers"),
        (THIRDS, torch.zeros(3, 2), EYES - 1, "covariances: got a matrix with a negative eigenvalue"),
        (THIRDS, torch.zeros(3, 2), EYES + torch.ones(2, 2).triu(1), "covariances: got a matrix that differs from its"),
    ],
)
def test_bad_moments(shares, means, covariances, message):
    with pytest.raises(ValueError) as error:
        theory.ClassMoments(shares, means, covariances)
    assert str(error.value).startswith(message)
