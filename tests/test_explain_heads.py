"""What other heads read from features: chance, certainty, and what the best possible rule would read."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from miue_lib.explain import proxy_a_distance, refit_head


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def phi(x: float) -> float:
    """The normal distribution function Φ."""
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def two_classes(n: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two normals, two deviations apart along the first feature: the best rule is right with probability Φ(1)."""
    labels, features = torch.arange(n) % 2, normal(n, width, seed=seed)
    features[:, 0] += 2.0 * labels
    return features, labels


def test_a_new_head_reads_what_the_old_one_spoils() -> None:
    labels, test_labels = torch.arange(400) % 4, torch.arange(200) % 4
    codes = 10 * torch.eye(4, 6)  # ten deviations: the classes do not touch
    features, test_features = codes[labels] + normal(400, 6), codes[test_labels] + normal(200, 6, seed=1)
    spoilt = codes.roll(1, 0)  # the logit of each class is read where another one shows
    assert not bool(((test_features @ spoilt.T).argmax(1) == test_labels).any())
    assert refit_head(features, labels, test_features, test_labels) == 1


def test_features_without_classes_read_as_chance() -> None:
    labels, test_labels = torch.arange(400) % 4, torch.arange(2000) % 4
    found = refit_head(normal(400, 30), labels, normal(2000, 30, seed=1), test_labels)
    assert abs(found - 1 / 4) < 3 * math.sqrt(1 / 4 * 3 / 4 / 2000)


def test_enough_pictures_reach_the_best_rule_and_few_do_not() -> None:
    train, test = two_classes(2000, 20, seed=2), two_classes(4000, 20, seed=3)
    # Three standard errors of the share, and what the fit to 2,000 points costs: of the order d/n.
    tolerance = 3 * math.sqrt(phi(1) * phi(-1) / 4000) + 20 / 2000
    assert abs(refit_head(*train, *test, per_class=1000) - phi(1)) < tolerance
    assert refit_head(*train, *test, per_class=3) < phi(1) - 2 * tolerance  # 6 points in 20 dimensions


def test_the_head_is_fitted_to_as_many_pictures_of_a_rare_class() -> None:
    labels = (torch.arange(4000) % 100 == 0).long()  # 40 of one class, 3,960 of the other
    features = normal(4000, 1) + 2.0 * labels[:, None]
    test = two_classes(4000, 1, seed=1)
    # A head for the shares of the training pictures would hardly ever name the rare class: the threshold lies where
    # 2x − 2 = log 99, at x = 3.3, and half of (Φ(3.3) + Φ(2 − 3.3)) is 0.55. Fitted to 80 points: of the order 2/80.
    found = refit_head(features, labels, *test, per_class=40)
    assert abs(found - phi(1)) < 3 * math.sqrt(phi(1) * phi(-1) / 4000) + 2 / 80


def test_scale_and_place_of_a_feature_do_not_matter() -> None:
    (features, labels), (test_features, test_labels) = two_classes(400, 5, seed=2), two_classes(400, 5, seed=3)
    scale, place = torch.tensor([1.0, 256, 1 / 64, 8, 2]), torch.tensor([0.0, 64, 0.25, -8, 1])
    moved = refit_head(features * scale + place, labels, test_features * scale + place, test_labels)
    # Float32 rounding moves scaled values by about 1e-6 and with them no answer that is further from the border: a
    # density of at most 0.4 × 400 pictures puts less than one there.
    assert abs(moved - refit_head(features, labels, test_features, test_labels)) <= 1 / 400


@pytest.mark.parametrize("classifier", ["linear", "network"])
def test_identical_features_read_exactly_0(classifier: str) -> None:
    features = normal(203, 7).relu()
    assert proxy_a_distance(features, features.clone(), classifier=classifier) == 0
    features[:, 3:] = 0  # features that are dead
    assert proxy_a_distance(features, features.double(), classifier=classifier, seed=1) == 0


def test_independent_copies_of_one_distribution_read_as_chance() -> None:
    n = 1000
    assert abs(proxy_a_distance(normal(n, 10), normal(n, 10, seed=1))) < 3 * 2 / math.sqrt(n)


def test_the_standard_error_at_chance_is_as_stated() -> None:
    n, draws = 60, 100
    found = [proxy_a_distance(normal(n, 3, seed=2 * s), normal(n, 3, seed=2 * s + 1), seed=s) for s in range(draws)]
    slack = 3 / math.sqrt(2 * draws)  # the relative standard error of a standard deviation, three times
    assert 2 / math.sqrt(2 * n) * (1 - slack) < np.std(found) < 2 / math.sqrt(n) * (1 + slack)
    assert abs(np.mean(found)) < 3 * 2 / math.sqrt(n * draws)


def test_a_linear_classifier_comes_near_the_best_rule() -> None:
    n, shift = 4000, 1.0
    clean, poisoned = normal(n, 5), normal(n, 5, seed=1)
    poisoned[:, 1] += shift
    error = phi(-shift / 2)
    # Three standard errors of four times the share of 2n answers, and four times d/n for the fit.
    tolerance = 4 * (3 * math.sqrt(error * (1 - error) / (2 * n)) + 5 / n)
    assert abs(proxy_a_distance(clean, poisoned) - 2 * (1 - 2 * error)) < tolerance
    assert proxy_a_distance(clean, poisoned + 20) == 2


def test_a_network_sees_a_change_of_width_that_a_line_does_not() -> None:
    n, width = 1500, 4.0
    clean, poisoned = normal(n, 1), width * normal(n, 1, seed=1)
    # The best rule: |x| above t, where the densities cross, t² (1 − 1/w²) = 2 log w.
    t = math.sqrt(2 * math.log(width) / (1 - width**-2))
    error = 0.5 * (2 * phi(-t) + 1 - 2 * phi(-t / width))
    best, deviation = 2 * (1 - 2 * error), 4 * math.sqrt(error * (1 - error) / (2 * n))
    found = proxy_a_distance(clean, poisoned, classifier="network")
    assert best / 2 < found < best + 3 * deviation  # a trained network need not be the best rule
    # A line's threshold is the middle of the two means, off by half of √((1 + w²)/n) (one standard error). Beside 0
    # the distribution functions differ by φ(0)(1 − 1/w) a unit, and the distance is twice that difference.
    off = 2 * 0.4 * (1 - 1 / width) * 0.5 * math.sqrt((1 + width**2) / n)
    assert abs(proxy_a_distance(clean, poisoned)) < 3 * math.hypot(off, 2 / math.sqrt(n))


def test_copies_of_a_picture_are_not_recognised() -> None:
    n = 400
    clean = normal(n, 2 * n)
    poisoned = clean + 0.3 * normal(n, 2 * n, seed=1)
    rows, which = torch.cat((clean, poisoned)).numpy(), np.repeat((0, 1), n)
    held_out = np.random.default_rng(0).random(2 * n) < 0.5
    model = LogisticRegression(C=10 / (2 * n)).fit(rows[~held_out], which[~held_out])
    assert 2 * (2 * model.score(rows[held_out], which[held_out]) - 1) < -0.5  # what a split of rows reads
    # The noise makes a copy longer but moves it in no direction of its own, so this is chance; copies are answered
    # alike at least as often as if they were independent, and the standard error is 2/√n at most.
    assert abs(proxy_a_distance(clean, poisoned)) < 3 * 2 / math.sqrt(n)


@pytest.mark.parametrize(
    "measure",
    [
        lambda seed: refit_head(*two_classes(100, 5, seed=2), *two_classes(400, 5, seed=3), per_class=5, seed=seed),
        lambda seed: proxy_a_distance(normal(60, 5), normal(60, 5, seed=1), seed=seed),
        lambda seed: proxy_a_distance(normal(60, 5), 2 * normal(60, 5, seed=1), classifier="network", seed=seed),
    ],
)
def test_a_seed_repeats_and_another_does_not(measure: Callable[[int], float]) -> None:
    torch_before = torch.random.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002 (scikit-learn could draw from it)
    assert measure(1) == measure(1)
    assert len({measure(seed) for seed in range(5)}) > 1
    assert torch.equal(torch.random.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": normal(40)}, r"^features: got shape \(40,\), expected features \(N, d\)"),
        ({"features": normal(40, 3) / 0}, "^features: got NaN or infinite"),
        ({"features": normal(40, 2)}, r"test_features: got shape \(9, 3\), expected \(M, 2\)"),
        ({"test_features": normal(0, 3)}, "test_features: got shape"),
        ({"labels": torch.arange(39) % 2}, r"^labels: got torch.int64 \(39,\), expected a whole number"),
        ({"test_labels": torch.zeros(9)}, "test_labels: got torch.float32"),
        ({"test_labels": torch.full((9,), 3)}, r"labels: got classes of \[20, 20, 0\] pictures, expected two or more"),
        ({"labels": torch.zeros(40, dtype=torch.long)}, r"labels: got classes of \[40, 0\] pictures"),
        ({"per_class": 21}, r"labels: got classes of \[20, 20\] pictures, expected .* at least per_class = 21"),
        ({"per_class": 0}, "per_class: got 0"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_heads_that_cannot_be_fitted_are_refused(changed: dict, message: str) -> None:
    given = {"features": normal(40, 3), "labels": torch.arange(40) % 2}
    given |= {"test_features": normal(9, 3), "test_labels": torch.arange(9) % 2}
    with pytest.raises(ValueError, match=message):
        refit_head(**given | changed)


@pytest.mark.parametrize(
    ("clean", "poisoned", "settings", "message"),
    [
        (
            normal(30, 3),
            normal(30, 4),
            {},
            r"clean and poisoned: got shapes \(30, 3\) and \(30, 4\), expected two alike",
        ),
        (normal(19, 3), normal(19, 3), {}, "clean and poisoned: got shapes .*, expected two alike of at least 20"),
        (normal(30, 3), normal(30, 3, 1), {}, "poisoned: got shape"),
        (normal(30, 3), normal(30, 3) / 0, {}, "poisoned: got NaN"),
        (normal(30, 3), normal(30, 3), {"classifier": "tree"}, "classifier: got 'tree', expected one of 'linear', 'ne"),
        (normal(30, 3), normal(30, 3), {"seed": 2**32}, "seed: got 4294967296, expected a whole number from 0 to"),
    ],
)
def test_distances_that_cannot_be_measured_are_refused(
    clean: torch.Tensor, poisoned: torch.Tensor, settings: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        proxy_a_distance(clean, poisoned, **settings)


def test_the_fewest_pictures_are_enough_for_both_classifiers() -> None:
    assert proxy_a_distance(normal(20, 3), normal(20, 3) + 50) == 2
    assert -2 <= proxy_a_distance(normal(20, 3), normal(20, 3) + 50, classifier="network") <= 2
