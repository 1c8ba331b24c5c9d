"""The Monte Carlo referee: against closed forms, integrals and the definition."""

import math

import pytest
import torch

from miue_lib import theory

F64 = torch.float64


def within(found, expected):
    """Within four standard errors: one test in sixteen thousand would fail by chance."""
    assert abs(found.value - expected) <= 4 * found.stderr + 1e-12, (found, expected)


def test_one_component_is_the_closed_form():
    factor = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    sigma = factor @ factor.T + 0.1 * torch.eye(5)
    found = theory.mixture_mi(torch.ones(1), torch.zeros(1, 5), sigma[None], 2, n=50_000)
    within(found.between, float(theory.gaussian_vector_mi(sigma, 2)))
    assert found.label_x.value == found.label_y.value == 0
    assert found.between.n == 50_000


def test_components_far_apart_tell_the_label():
    weights = torch.tensor([0.2, 0.3, 0.5])
    means = 1000.0 * torch.arange(3)[:, None].repeat(1, 2)
    found = theory.mixture_mi(weights, means, torch.eye(2).repeat(3, 1, 1), 1, n=50_000)
    entropy = float(-(weights * weights.log()).sum())
    for part in (found.between, found.label_x, found.label_y):  # conditionally independent: all of it is the label
        within(part, entropy)


def test_two_overlapping_components_are_an_integral():
    means, weights = torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), torch.tensor([0.3, 0.7])
    covariances = torch.tensor([[[1.0, 0.6], [0.6, 1.0]], [[0.5, -0.2], [-0.2, 1.5]]])
    grid = torch.linspace(-9, 9, 1501, dtype=F64)
    points = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1)
    components = torch.distributions.MultivariateNormal(means.double(), covariances.double())
    joint = (components.log_prob(points[:, :, None]).exp() * weights).sum(2)
    step = float(grid[1] - grid[0])
    p_x, p_y = joint.sum(1) * step, joint.sum(0) * step
    truth = float(torch.xlogy(joint, joint / (p_x[:, None] * p_y)).nansum()) * step**2
    found = theory.mixture_mi(weights, means, covariances, 1, n=200_000, seed=3)
    within(found.between, truth)
    of_x = torch.distributions.Normal(means[:, 0].double(), covariances[:, 0, 0].double().sqrt())
    given_label = of_x.log_prob(grid[:, None]).exp()
    label = float((weights * torch.xlogy(given_label, given_label / p_x[:, None])).nansum()) * step
    within(found.label_x, label)


def test_a_seed_gives_the_same_samples():
    arguments = torch.ones(2) / 2, torch.randn(2, 3), torch.eye(3).repeat(2, 1, 1), 1
    one, same, other = (theory.mixture_mi(*arguments, n=100, seed=seed) for seed in (1, 1, 2))
    assert one == same != other


# A data set at a resolution


def test_a_data_set_at_a_resolution_is_a_mixture():
    generator = torch.Generator().manual_seed(0)
    z, labels = torch.randn(12, 2, generator=generator, dtype=F64), torch.tensor([0] * 5 + [3] * 3 + [1] * 4)
    found = theory.resolved_information(z, labels, resolution=0.7, draws=20_000)
    # The same by the general referee: component i of (a marker of i, Z'_σ), markers far apart
    means = torch.cat((1000.0 * torch.arange(12, dtype=F64)[:, None], z), 1)
    covariances = torch.diag(torch.tensor([1, 0.49, 0.49], dtype=F64)).repeat(12, 1, 1)
    by_mixture = theory.mixture_mi(torch.full((12,), 1 / 12), means, covariances, 1, n=200_000)
    assert abs(found.picture.value - by_mixture.between.value) <= 4 * (found.picture.stderr + by_mixture.between.stderr)
    assert 0 < found.label.value < found.picture.value
    # What the label knows, by hand
    seen = z + 0.7 * torch.randn(5000, 12, 2, generator=generator, dtype=F64)
    densities = (-(seen[:, :, None] - z).square().sum(3) / (2 * 0.49)).exp()
    same = labels[:, None] == labels[None, :]
    ratios = (densities * same).sum(2) / same.sum(1) / densities.mean(2)
    by_hand = theory.MonteCarlo.of(ratios.log().flatten())
    assert abs(found.label.value - by_hand.value) <= 4 * (found.label.stderr + by_hand.stderr)


def test_standard_errors_are_those_of_repetitions():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(3, 4, generator=generator)
    covariances = torch.eye(4).repeat(3, 1, 1) + 0.5
    thirds = torch.full((3,), 1 / 3)
    found = [theory.mixture_mi(thirds, means, covariances, 2, n=500, seed=seed) for seed in range(60)]
    z, labels = torch.randn(60, 2, generator=generator), torch.arange(60) % 3
    at = [theory.resolved_information(z, labels, resolution=0.5, draws=5, seed=seed) for seed in range(60)]
    for estimates in (
        [f.between for f in found], [f.label_x for f in found], [a.picture for a in at], [a.label for a in at]
    ):  # fmt: skip
        spread = float(torch.tensor([e.value for e in estimates]).std())
        claimed = sum(e.stderr for e in estimates) / len(estimates)
        assert 0.7 <= claimed / spread <= 1.4  # the sd of 60 numbers is uncertain by 1/√118 = 9 %: three and more


@pytest.mark.parametrize("scale", [1e-3, 1e-8, 1e-12])
def test_narrow_classes_far_from_the_origin_lose_no_digits(scale):
    z = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    labels = torch.arange(50) % 5
    far = 1e-3 / scale * torch.arange(5, dtype=F64)[:, None].repeat(10, 1)  # classes that nothing can confuse
    plain = theory.resolved_information(z + far, labels, resolution=1.0, draws=3)
    assert plain.picture.value <= math.log(50) + 1e-9 and plain.label.value <= math.log(5) + 1e-9
    near = theory.resolved_information(z, labels, resolution=1.0, draws=3)
    moved = theory.resolved_information(1 / scale + z, labels, resolution=1.0, draws=3)
    # 1/scale has rounded z itself, by up to 1e-16/scale
    assert moved.picture.value == pytest.approx(near.picture.value, abs=1e-6 + 1e-15 / scale)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_resolution_that_sees_all_or_nothing(scale):
    z = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 5
    found = theory.resolved_information(z, labels, resolution=scale)
    expected = (math.log(50), math.log(5)) if scale < 1 else (0, 0)
    assert (found.picture.value, found.label.value) == pytest.approx(expected, abs=1e-4)
    shifted = theory.resolved_information(scale * (z.double() + 7), labels, resolution=scale)
    plain = theory.resolved_information(z.double(), labels, resolution=1.0)
    assert shifted.picture.value == pytest.approx(plain.picture.value, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: theory.mixture_mi(torch.ones(2), torch.zeros(2, 2), torch.eye(2).repeat(2, 1, 1), 1),
            "weights: got [1",
        ),
        (
            lambda: theory.mixture_mi(torch.ones(1), torch.zeros(2), torch.eye(2)[None], 1),
            "means: got shape (2,), expected (1, dx + dy)",
        ),
        (lambda: theory.mixture_mi(torch.ones(1), torch.zeros(1, 2), torch.eye(3)[None], 1), "covariances: got shape"),
        (
            lambda: theory.mixture_mi(torch.ones(1), torch.zeros(1, 2), -torch.eye(2)[None], 1),
            "covariances: got a matrix",
        ),
        (lambda: theory.mixture_mi(torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None], 2), "dx: got 2, expected a"),
        (lambda: theory.mixture_mi(torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None], 1, n=1), "n: got 1, expected"),
        (
            lambda: theory.resolved_information(torch.ones(4, 1), torch.zeros(4).long(), resolution=0),
            "resolution: got 0",
        ),
        (lambda: theory.resolved_information(torch.ones(4, 1), torch.arange(4), resolution=1), "labels: got a single"),
        (
            lambda: theory.resolved_information(torch.ones(4, 1), torch.zeros(4).long(), resolution=1, draws=0),
            "draws: got 0",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value).startswith(message)
