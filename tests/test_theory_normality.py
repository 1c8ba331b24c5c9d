"""The measure of Gaussianity: quiet for Gaussians, right in nats for what is not, and clear about bad input."""

import math

import pytest
import torch

from miue_lib import theory

F64 = torch.float64


def test_gaussian_classes_pass_whatever_their_covariance():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3000) % 10
    maps = torch.randn(10, 8, 8, generator=generator, dtype=F64) * torch.logspace(-3, 3, 8, dtype=F64)
    z = torch.einsum("nij,nj->ni", maps[labels], torch.randn(3000, 8, generator=generator, dtype=F64))
    found = theory.gaussianity(z, labels, repeats=49)
    # p-values are uniform on 1/50 … 1, of standard deviation 0.29; ten of them have a mean near a half.
    assert abs(float(found.p_value.mean()) - 0.5) < 4 * 0.29 / math.sqrt(10)
    assert (found.divergence.abs() < 4 * found.null.std(1)).all()
    assert torch.allclose(found.null.mean(1), torch.zeros(10, dtype=F64), atol=1e-12)


def test_in_nats():
    """Uniform variables fall short of the Gaussian entropy by ½ log(2πe/12) = 0.176 nats; one dimension, one slice."""
    z = torch.rand(20_000, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    found = theory.gaussianity(z, torch.zeros(20_000).long(), slices=1, repeats=19)
    truth = 0.5 * math.log(2 * math.pi * math.e / 12)
    # The standard error is that of half the variance's logarithm, ½ √(0.8/n) = 0.003. Spacings widen at the edges, by
    # about a window of √n ranks at each: a bias of 2/√n = 0.014 at the most.
    assert float(found.divergence) == pytest.approx(truth, abs=4 * 0.003 + 0.014)
    assert float(found.p_value) == pytest.approx(1 / 20)


def test_relu_features_and_mixtures_are_found_out():
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(600, 6, generator=generator, dtype=F64)
    for z in (plain.relu(), plain + 4 * torch.randint(2, (600, 1), generator=generator), plain**3):
        found = theory.gaussianity(z, torch.arange(600) % 2, repeats=49)
        assert (found.p_value == 1 / 50).all()
        assert (found.divergence > 5 * found.null.std(1)).all()


def test_repeated_values_are_infinitely_far():
    z = torch.zeros(100, 1, dtype=F64)
    z[:50] = torch.randn(50, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert float(theory.gaussianity(z, torch.zeros(100).long(), repeats=5).divergence) == math.inf


def test_scale_and_shift_do_not_matter():
    z = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=F64).relu()
    labels = torch.arange(200) % 2
    one, *others = (theory.gaussianity(part, labels, repeats=9) for part in (z, 1e3 * z - 5, 1e-170 * z, 1e160 * z))
    assert one.p_value.dtype == one.divergence.dtype == F64
    for other in others:
        assert torch.allclose(one.divergence, other.divergence)


def test_features_of_the_same_seed_are_not_the_null():
    z = torch.randn(400, 512, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert float(theory.gaussianity(z, torch.zeros(400).long(), repeats=19, seed=0).p_value) > 0.05


@pytest.mark.parametrize(
    ("features", "labels", "settings", "message"),
    [
        (torch.randn(30, 2), torch.arange(30) % 2, {}, "labels: got a class of 15 pictures, expected at least 20"),
        (
            torch.ones(40, 2),
            torch.arange(40) % 2,
            {},
            "features: got a class that does not vary, expected classes that",
        ),
        (torch.randn(40, 2), torch.arange(40) % 2, {"slices": 0}, "slices: got 0, expected a whole number >= 1"),
        (torch.randn(40, 2), torch.arange(40) % 2, {"repeats": 1}, "repeats: got 1, expected a whole number >= 2"),
        (torch.randn(40, 2) / 0, torch.arange(40) % 2, {}, "features: got 80 values that are NaN or infinite"),
    ],
)
def test_bad_input(features, labels, settings, message):
    with pytest.raises(ValueError) as error:
        theory.gaussianity(features, labels, **settings)
    assert str(error.value).startswith(message)
