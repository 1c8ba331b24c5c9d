"""The covariance bounds against a Monte Carlo referee, where they are tight, and in their order."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import miue_lib as mi
from miue_lib import theory

F64 = torch.float64


def random_mixture(seed):
    """Weights, means, covariances of (Z, Z') with d from 1 to 32 a side, 2 to 10 classes, anything between a copy and
    independence within classes, narrow or wide; and a resolution over three decades."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=F64)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=F64)

    d = int(torch.randint(1, 33, (1,), generator=generator))
    classes = int(torch.randint(2, 11, (1,), generator=generator))
    weights = draw(classes) + 0.05
    means = normal(classes, 2 * d) * 10 ** (2 * draw(1) - 1.5)
    factors = normal(classes, 2 * d, 2 * d) / math.sqrt(2 * d)
    share = draw(1)  # of Z in Z'
    factors[:, d:] = share * factors[:, :d] + (1 - share) * factors[:, d:]
    factors *= 10 ** (draw(classes, 1, 1) - 0.5)
    covariances = factors @ factors.mT + 1e-6 * torch.eye(2 * d, dtype=F64)
    return weights / weights.sum(), means, covariances, d, float(10 ** (3 * draw(1) - 2))


def at_resolution(covariances, d, resolution):
    """Of (Z, Z' + σN)."""
    noise = torch.zeros(len(covariances[0]), dtype=F64)
    noise[d:] = resolution**2
    return covariances + torch.diag(noise)


@pytest.mark.parametrize("block", range(8))
def test_the_bound_holds_for_random_mixtures(block):
    for seed in range(30 * block, 30 * block + 30):  # 240 in all
        weights, means, covariances, d, resolution = random_mixture(seed)
        found = theory.mixture_mi(weights, means, at_resolution(covariances, d, resolution), d, n=2000, seed=seed)
        moments = theory.ClassMoments(weights, means[:, d:], covariances[:, d:, d:])
        for label in (None, found.label_x, found.label_y):
            known = None if label is None else min(max(label.value, 0.0), float(moments.label_entropy))
            bound = theory.moments_bound(moments, resolution=resolution, label_information=known)
            stderr = found.between.stderr + (0 if label is None else label.stderr)
            assert found.between.value <= bound.total + 3 * stderr, (seed, label)
            assert bound.total <= bound.trace <= bound.mean_trace
        assert found.between.value <= bound.unlabelled + 3 * found.between.stderr, seed


def same_features(seed, d, classes, apart=1.0):
    """A mixture of Gaussian classes in d dimensions, and of (Z, Z) with itself."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(classes, d, d, generator=generator, dtype=F64) / math.sqrt(d)
    sigma = factors @ factors.mT + 0.01 * torch.eye(d, dtype=F64)
    means = apart * torch.randn(classes, d, generator=generator, dtype=F64)
    weights = torch.full((classes,), 1 / classes, dtype=F64)
    twice = torch.cat((torch.cat((sigma, sigma), 2), torch.cat((sigma, sigma), 2)), 1)
    return theory.ClassMoments(weights, means, sigma), torch.cat((means, means), 1), twice


@pytest.mark.parametrize(("d", "classes"), [(1, 2), (3, 5), (16, 10)])
@pytest.mark.parametrize("resolution", [0.05, 0.5, 5.0])
def test_tight_for_gaussian_classes_and_the_same_features(d, classes, resolution):
    """With Z' = Z, and what Z' + σN tells of the label, the bound is the mutual information, at every resolution."""
    moments, means, twice = same_features(d, d, classes)
    joint = at_resolution(twice, d, resolution)
    found = theory.mixture_mi(moments.shares, means, joint, d, n=60_000, seed=1)
    bound = theory.moments_bound(moments, resolution=resolution, label_information=found.label_y.value)
    gap = bound.total - found.between.value
    assert abs(gap) <= max(0.01 * bound.total, 3 * (found.between.stderr + found.label_y.stderr))
    if resolution < 5:  # where the standard error allows to say so
        assert abs(gap) <= 0.01 * bound.total


def test_tight_for_a_single_class_and_loose_where_it_should_be():
    moments, _, twice = same_features(0, 4, 1)
    joint = at_resolution(twice, 4, 0.3)[0]
    bound = theory.moments_bound(moments, resolution=0.3)
    assert bound.total == pytest.approx(float(theory.gaussian_vector_mi(joint, 4)), rel=1e-9)
    assert bound.label_information == 0
    assert bound.unlabelled == pytest.approx(bound.covariance, rel=1e-12)
    assert bound.trace > 1.01 * bound.total
    # Z' that shares nothing with Z: the bound can't know, and stays
    apart = torch.block_diag(moments.covariances[0], moments.covariances[0] + 0.09 * torch.eye(4))
    assert float(theory.gaussian_vector_mi(apart, 4)) == pytest.approx(0, abs=1e-12)


def test_tight_with_the_entropy_of_labels_for_classes_far_apart_and_collapsed():
    moments, means, twice = same_features(2, 3, 6, apart=100.0)
    found = theory.mixture_mi(moments.shares, means, at_resolution(twice, 3, 0.5), 3, n=100_000)
    assert theory.moments_bound(moments, resolution=0.5).total == pytest.approx(found.between.value, rel=0.01)
    collapsed = theory.moments_bound(
        theory.ClassMoments(moments.shares, moments.means, 1e-12 * moments.covariances), resolution=0.5
    )
    assert collapsed.total == pytest.approx(math.log(6), rel=1e-9)


def test_the_trace_is_tight_for_round_classes():
    shares = torch.tensor([0.3, 0.7])
    round_ = theory.ClassMoments(shares, torch.randn(2, 5), torch.eye(5) * torch.tensor([0.1, 2.0])[:, None, None])
    bound = theory.moments_bound(round_, resolution=0.2)
    assert bound.trace == pytest.approx(bound.total, rel=1e-12)
    assert bound.mean_trace > bound.trace + 0.1
    equal = theory.moments_bound(
        theory.ClassMoments(shares, torch.randn(2, 5), torch.eye(5).repeat(2, 1, 1)), resolution=1
    )
    assert equal.mean_trace == pytest.approx(equal.total, rel=1e-12)


def draw_features(seed, d, classes, scale, heavy):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(12 * classes) % classes
    noise = torch.randn(12 * classes, d, generator=generator, dtype=F64) ** (3 if heavy else 1)
    return scale * noise + torch.randn(classes, d, generator=generator, dtype=F64)[labels], labels


features_and_labels = st.builds(
    draw_features, st.integers(0, 2**31), st.integers(1, 24), st.integers(1, 6), st.floats(0.01, 10), st.booleans()
)


@settings(max_examples=60, deadline=None)
@given(features_and_labels, st.floats(1e-3, 1e3))
def test_bounds_are_ordered(sample, resolution):
    bound = theory.mi_bound(*sample, resolution=resolution)
    assert bound.covariance >= 0
    assert bound.total == bound.label_information + bound.covariance
    assert bound.total <= bound.trace * (1 + 1e-12) <= bound.mean_trace * (1 + 1e-11)
    assert bound.covariance <= bound.unlabelled * (1 + 1e-12)  # log det is concave, and Σ ≥ E Σ_Y


@settings(max_examples=40, deadline=None)
@given(features_and_labels, st.floats(0.01, 100))
def test_the_bound_holds_for_any_data_set(sample, resolution):
    """Also where the features are not Gaussian at all: every data set is a distribution."""
    features, labels = sample
    found = theory.resolved_information(features, labels, resolution=resolution, draws=20)
    label = min(max(found.label.value, 0.0), math.log(int(labels.max()) + 1))
    bound = theory.mi_bound(features, labels, resolution=resolution, label_information=label)
    stderr = found.picture.stderr + found.label.stderr
    assert found.picture.value <= min(bound.total, bound.unlabelled) + 3 * stderr + 1e-9
    assert found.picture.value <= math.log(len(labels)) + 1e-9  # each term is


@settings(max_examples=20, deadline=None)
@given(features_and_labels, st.floats(1e-3, 1e3))
def test_only_the_ratio_of_scale_and_resolution_counts(sample, factor):
    features, labels = sample
    bound = theory.mi_bound(features, labels, resolution=0.5)
    scaled = theory.mi_bound(factor * features, labels, resolution=0.5 * factor)
    assert scaled.total == pytest.approx(bound.total, rel=1e-9, abs=1e-9)
    wide, narrow = (theory.mi_bound(features, labels, resolution=s).covariance for s in (0.1, 1.0))
    assert narrow <= wide


@pytest.mark.parametrize(("n", "d"), [(8, 512), (300, 5)])
@pytest.mark.parametrize("resolution", [1e-12, 1e-6, 1e-2])
def test_small_resolutions_see_small_eigenvalues(n, d, resolution):
    """Against singular values: a covariance matrix would have lost what is below 2e-16 of its largest entry."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -9, d, dtype=F64)
    z = torch.randn(n, d, generator=generator, dtype=F64) * scales
    labels = torch.arange(n) % 2
    parts = [z[labels == c] - z[labels == c].mean(0) for c in range(2)]
    logs = [torch.log1p((torch.linalg.svdvals(p) / resolution).square() / len(p)).sum() for p in parts]
    bound = theory.mi_bound(z, labels, resolution=resolution)
    assert bound.covariance == pytest.approx(float(sum(logs)) / 4, rel=1e-6)
    total = torch.log1p((torch.linalg.svdvals(z - z.mean(0)) / resolution).square() / n).sum() / 2
    assert bound.unlabelled == pytest.approx(float(total), rel=1e-6)


def test_features_and_their_moments_give_the_same_bound():
    features, labels = draw_features(3, 7, 4, 0.5, False)
    of_features = theory.mi_bound(features, labels, resolution=0.3)
    of_moments = theory.moments_bound(theory.class_moments(features, labels), resolution=0.3)
    for name, value in vars(of_features).items():
        assert getattr(of_moments, name) == pytest.approx(value, rel=1e-9), name


def test_the_cosine_form_is_the_mean_trace_of_unit_vectors():
    generator = torch.Generator().manual_seed(0)
    z = F.normalize(torch.rand(90, 16, generator=generator), dim=1)
    labels = torch.arange(90) % 4
    bound = theory.mi_bound(z.double(), labels, resolution=0.05)
    assert theory.cosine_bound(z, labels, resolution=0.05) == pytest.approx(bound.mean_trace, rel=1e-6)
    given = theory.cosine_bound(z, labels, resolution=0.05, label_information=0.5)
    assert given == pytest.approx(bound.mean_trace - bound.label_information + 0.5, rel=1e-6)


# The paper's bound


def test_the_papers_bound_is_exact_for_a_gaussian_class_and_the_true_constant():
    sigma = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=F64)  # of Z' = Z + noise in two dimensions
    noise = torch.diag(torch.tensor([0.5, 0.2], dtype=F64))
    z = sigma - noise
    joint = torch.cat((torch.cat((z, z), 1), torch.cat((z, sigma), 1)))
    moments = theory.ClassMoments(torch.ones(1), torch.zeros(1, 2), sigma[None])
    constant = -float(theory.gaussian_entropy(noise))  # I(Z'; Y) = 0, −h(Z' | Z)
    bound = theory.covariance_reduction_bound(moments, constant=constant)
    assert bound == pytest.approx(float(theory.gaussian_vector_mi(joint, 2)), rel=1e-12)


def test_the_papers_bound_pays_for_each_class_by_its_share():
    shares = torch.tensor([0.25, 0.75, 0.0], dtype=F64)
    sigma = torch.stack((torch.eye(2), 4 * torch.eye(2), torch.zeros(2, 2))).double()
    moments = theory.ClassMoments(shares, torch.zeros(3, 2), sigma)  # the last class has no share, and no density
    entropies = math.log(2 * math.pi * math.e) + 0.75 * 0.5 * math.log(16)
    prices = theory.entropy_continuity(torch.tensor([0.1, 0.2, 0.3]), 0.1, 1.0)
    bound = theory.covariance_reduction_bound(
        moments, constant=-1.0, divergence=torch.tensor([0.1, 0.2, 0.3]), least=0.1, most=1.0
    )
    assert bound == pytest.approx(entropies + float(shares @ prices) - 1, rel=1e-9)
    singular = theory.ClassMoments(torch.ones(1), torch.zeros(1, 2), torch.zeros(1, 2, 2))
    assert theory.covariance_reduction_bound(singular, constant=0.0, divergence=0.1, least=0.0) == math.inf


def test_the_papers_bound_measures_the_scale_where_its_constant_is_held():
    moments = theory.ClassMoments(torch.ones(1), torch.zeros(1, 3), torch.eye(3, dtype=F64)[None])
    shrunk = theory.ClassMoments(torch.ones(1), torch.zeros(1, 3), 1e-4 * torch.eye(3, dtype=F64)[None])
    difference = [theory.covariance_reduction_bound(m, constant=1.0) for m in (moments, shrunk)]
    assert difference[0] - difference[1] == pytest.approx(3 * math.log(100), rel=1e-12)
    singular = theory.ClassMoments(torch.ones(1), torch.zeros(1, 3), torch.diag(torch.tensor([1.0, 1, 0]))[None])
    assert theory.covariance_reduction_bound(singular, constant=0.0) == -math.inf


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 3), st.floats(0.05, 5))
def test_entropies_are_continuous(seed, roughness, width):
    """On a grid over [0, width], densities p and q that are steps."""
    generator = torch.Generator().manual_seed(seed)
    cells = 50
    p, q = torch.softmax(roughness * torch.randn(2, cells, generator=generator, dtype=F64), 1) * cells / width
    cell = width / cells
    divergence = float((q * (q / p).log()).sum() * cell)
    apart = abs(float((torch.xlogy(q, q) - torch.xlogy(p, p)).sum() * cell))
    if divergence < 1:
        bound = theory.entropy_continuity(divergence, float(p.min()), float(p.max()))
        assert apart <= float(bound) * (1 + 1e-12) + 1e-12


def test_no_minimum_no_continuity():
    assert theory.entropy_continuity(1e-6, 0.0, 1.0) == math.inf
    assert theory.entropy_continuity(0.0, 0.0, 1.0) == 0
    assert theory.entropy_continuity(torch.tensor([0.25, 0.25]), 1.0, torch.tensor([1.0, math.e])).tolist() == [
        pytest.approx(0.5),
        pytest.approx(0.5 * (math.sqrt(2) + 1)),
    ]


# From the loss


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 8), st.integers(1, 20), st.floats(0.05, 2), st.floats(0, 20))
def test_the_loss_forces_the_mean_cosine(seed, classes, d, temperature, narrowness):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(6 * classes) % classes
    z = torch.rand(6 * classes, d, generator=generator, dtype=F64) + 1e-3
    z = F.normalize(z + narrowness * torch.rand(classes, d, generator=generator, dtype=F64)[labels], dim=1)
    loss = mi.similarity_loss(z, labels, temperature=temperature)
    cosine = (theory.mean_cosines(z, labels)).mean()
    # `similarity_loss` computes in float32: its error, relative, is passed on where the bound is steep.
    assert (
        float(theory.least_mean_cosine(float(loss) * (1 + 1e-5) + 1e-6, classes, temperature)) <= float(cosine) + 1e-9
    )


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_the_least_loss_forces_collapse(temperature):
    """Classes that are single points at right angles reach the least loss there is, and c = 1."""
    least = math.log1p(9 * math.exp(-1 / temperature))
    assert float(theory.least_mean_cosine(least, 10, temperature)) == pytest.approx(1, rel=1e-6)
    losses = torch.logspace(-3, 1, 20, dtype=F64)
    assert (theory.least_mean_cosine(losses, 10, temperature).diff() < 0).all()


# What is refused

Z = F.normalize(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)))
Y = torch.arange(40) % 4
MOMENTS = theory.class_moments(Z, Y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.mi_bound(Z, Y, resolution=0), "resolution: got 0, expected a finite number > 0"),
        (lambda: theory.mi_bound(Z, Y, resolution=-0.1), "resolution: got -0.1, expected a finite number > 0"),
        (lambda: theory.mi_bound(Z, Y, resolution=math.inf), "resolution: got inf, expected a finite number > 0"),
        (lambda: theory.mi_bound(Z, Y, resolution="fine"), "resolution: got 'fine', expected a finite number > 0"),
        (
            lambda: theory.mi_bound(Z, Y, resolution=1, label_information=1.5),
            "label_information: got 1.5 nats, expected",
        ),
        (lambda: theory.mi_bound(Z, Y, resolution=1, label_information=-1), "label_information: got -1, expected a"),
        (lambda: theory.mi_bound(Z / 0, Y, resolution=1), "features: got 120 values that are NaN or infinite"),
        (lambda: theory.mi_bound(Z, Y - 1, resolution=1), "labels: got a label of -1, expected labels >= 0"),
        (lambda: theory.mi_bound(Z[:5], Y[:5], resolution=1), "labels: got a single picture of class 1, expected"),
        (lambda: theory.entropy_continuity(1.0, 0.1, 1.0), "divergence: got 1, expected values in [0, 1)"),
        (lambda: theory.entropy_continuity(0.1, -1.0, 1.0), "least: got -1, expected finite values >= 0"),
        (lambda: theory.entropy_continuity(0.1, 2.0, 1.0), "least: got a value above most, expected m <= M"),
        (lambda: theory.covariance_reduction_bound(MOMENTS, constant=math.nan), "constant: got nan, expected a"),
        (
            lambda: theory.covariance_reduction_bound(MOMENTS, constant=0.0, divergence=torch.zeros(3)),
            "divergence, least, most: got shape (3,), expected numbers, or (4,)",
        ),
        (lambda: theory.least_mean_cosine(0.0, 10, 0.1), "loss: got 0, expected finite values > 0"),
        (lambda: theory.least_mean_cosine(1.0, 1, 0.1), "classes: got 1, expected a whole number >= 2"),
        (lambda: theory.least_mean_cosine(1.0, 10, 0), "temperature: got 0, expected a finite number > 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value).startswith(message)
