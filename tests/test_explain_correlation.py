"""Rank correlations of methods: exact values, what is held fixed, and intervals that hold what they claim to."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, rankdata, spearmanr

from miue_lib.explain.correlation import Correlation, agreement, race, rank_correlation

Values = dict[str, Sequence[float]]

# Zhu et al. (2026), CIFAR-10, ResNet-18: accuracy on test pictures in %, and their estimate of I(X; X').
METHODS = ["clean", "random", "EM", "AP", "NTGA", "AR", "SEM", "GUE", "TUE", "MI-UE"]
ACCURACY = [94.45, 94.11, 24.17, 11.21, 23.11, 17.41, 14.78, 12.04, 11.25, 9.95]
INFORMATION = [0.7122, 0.6747, 0.6400, 0.5871, 0.6126, 0.5622, 0.5747, 0.5895, 0.6094, 0.4969]


def one_seed(numbers: Any, names: Sequence[str] | None = None) -> Values:
    return {
        name: [float(n)] for name, n in zip(names or [f"{i:02}" for i in range(len(numbers))], numbers, strict=True)
    }


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def several_seeds(numbers: np.ndarray) -> Values:
    return {f"{i:02}": row.tolist() for i, row in enumerate(numbers)}


@pytest.mark.parametrize("decimals", [9, 0])  # at 0 decimals many are tied
def test_value_is_spearmans_of_the_means(decimals: int) -> None:
    x, y = normal(11, 3).round(decimals), normal(11, 3, seed=1).round(decimals)
    result = rank_correlation(several_seeds(x), several_seeds(y), resamples=100)
    # In integers, so that SciPy sees the ties that sums of rounded numbers have.
    sums = [(table.sum(1) * 10**decimals).round() for table in (x, y)]
    assert math.isclose(result.value, spearmanr(*sums).statistic, abs_tol=1e-12)
    assert (result.methods, result.level) == (11, 0.95)


def test_published_ranking_weakens_without_what_is_no_attack() -> None:
    table = {name: (i, a) for name, i, a in zip(METHODS, INFORMATION, ACCURACY, strict=True)}
    for without, expected in [
        ((), 0.79),
        (("clean", "random"), 0.60),
        (("clean", "random", "MI-UE"), 0.39),
    ]:
        kept = [name for name in METHODS if name not in without]
        lost = [one_seed([table["clean"][side] - table[name][side] for name in kept], kept) for side in (0, 1)]
        result = rank_correlation(*lost, resamples=500)
        assert round(result.value, 2) == expected
        assert result.low < result.value < result.high


def test_rankings_that_agree_are_certain() -> None:
    up = one_seed(range(6))
    for other, rho in ((one_seed(np.exp(range(6))), 1), (one_seed(-np.arange(6.0)), -1)):
        result = rank_correlation(up, other, resamples=100)
        assert (result.value, result.low, result.high) == (rho, rho, rho)


def test_a_mean_of_the_same_seeds_in_another_order_is_a_tie() -> None:
    x = {"a": [0.1, 0.2, 0.3], "b": [0.3, 0.2, 0.1], "c": [1.0, 2.0, 3.0], "d": [4.0, 5.0, 6.0]}
    assert sum(x["a"]) != sum(x["b"])
    y = {name: [value] * 3 for name, value in zip("abcd", (1.0, 2.0, 3.0, 4.0), strict=True)}
    assert math.isclose(
        rank_correlation(x, y, resamples=100).value, spearmanr([1, 1, 2, 3], [1, 2, 3, 4]).statistic, abs_tol=1e-12
    )


@pytest.mark.parametrize("controls", [1, 2, 3])
def test_partial_is_the_correlation_of_what_the_controls_leave_of_the_ranks(controls: int) -> None:
    tables = normal(2 + controls, 12, seed=controls)
    tables[:2] += tables[-1]
    tables[-1].round(0, out=tables[-1])  # with ties
    ranks = rankdata(tables, axis=-1)
    design = np.column_stack([np.ones(12), *ranks[2:]])
    left = [r - design @ np.linalg.lstsq(design, r)[0] for r in ranks[:2]]
    x, y, *given = map(one_seed, tables)
    result = rank_correlation(x, y, given=given, resamples=100)
    assert math.isclose(result.value, np.corrcoef(left)[0, 1], abs_tol=1e-9)
    repeated = rank_correlation(x, y, given=[*given, given[0]], resamples=100)  # fixes nothing more
    assert math.isclose(repeated.value, result.value, abs_tol=1e-9)


def test_a_common_cause_is_taken_out() -> None:
    cause = normal(400)
    x, y = cause + normal(400, seed=1), cause + normal(400, seed=2)
    plain = rank_correlation(one_seed(x), one_seed(y), resamples=100)
    held = rank_correlation(one_seed(x), one_seed(y), given=[one_seed(cause)], resamples=100)
    # x and y correlate by 1/2: Spearman's is 6/π asin(1/4) = 0.48. Given the cause they are independent; of the ranks a
    # hundredth or so may stay, as they are no linear function of it. Four standard errors of 1/√n.
    assert abs(plain.value - 6 / math.pi * math.asin(1 / 4)) < 4 / math.sqrt(400)
    assert abs(held.value) < 4 / math.sqrt(400) < plain.low


def test_interval_of_many_methods_is_as_wide_as_theory_says() -> None:
    n, resamples = 600, 4000
    result = rank_correlation(one_seed(normal(n)), one_seed(normal(n, seed=1)), resamples=resamples)
    # Independent rankings: ρ has standard deviation 1/√(n − 1). Off by the standard errors of two quantiles,
    # √(0.025 · 0.975 / 4000) / φ(1.96) / 1.96 / √2 = 1.5 %, and of a spread seen in n points, 1/√(2n) = 2.9 %.
    assert math.isclose(result.high - result.low, 2 * 1.96 / math.sqrt(n - 1), rel_tol=4 * math.hypot(0.015, 0.029))


@pytest.mark.parametrize(("rho", "coverage"), [(0, 0.952), (0.8, 0.975)])  # of 4,000 data sets, see the docstring
def test_interval_holds_the_truth_as_often_as_documented(rho: float, coverage: float) -> None:
    trials, held = 400, 0
    truth = 6 / math.pi * math.asin(rho / 2)  # Spearman's of a bivariate normal
    for trial in range(trials):
        x, noise = normal(2, 12, seed=trial)
        y = rho * x + math.sqrt(1 - rho**2) * noise
        result = rank_correlation(one_seed(x), one_seed(y), resamples=300, seed=trial)
        held += result.low <= truth <= result.high
    # Chance alone leaves this range in 2 of 1,000 runs; the end points of 300 draws cost less than 1 % of coverage.
    assert binom.ppf(0.001, trials, coverage - 0.01) <= held <= binom.ppf(0.999, trials, coverage)


def test_seeds_that_disagree_widen_the_interval() -> None:
    means, noise = normal(12), normal(12, 3, seed=1)
    noise -= noise.mean(1, keepdims=True)
    y = one_seed(np.arange(12) - means)
    y = {name: row * 3 for name, row in y.items()}
    calm = rank_correlation(several_seeds(means[:, None] + 1e-6 * noise), y)
    noisy = rank_correlation(several_seeds(means[:, None] + 3 * noise), y)
    assert math.isclose(calm.value, noisy.value)
    assert noisy.high - noisy.low > calm.high - calm.low


def test_seeds_stay_paired() -> None:
    # Means rank the same in every draw if a method's seeds are drawn together, and only then.
    x = several_seeds(normal(8, 5))
    result = rank_correlation(x, {name: [2 * value + 1 for value in row] for name, row in x.items()}, resamples=200)
    assert result.low == result.high == 1


def test_methods_may_have_different_numbers_of_seeds() -> None:
    # Seeds that agree: every draw ranks the methods the same, unless it reads a seed that a method does not have.
    up = {f"{i}": [i + 1.0] * (1 + i % 4) for i in range(8)}
    down = {name: [9 - value for value in row] for name, row in up.items()}
    result = rank_correlation(up, down, resamples=200)
    assert result.value == result.low == result.high == -1


def test_only_the_ranking_matters_where_there_is_one_seed() -> None:
    x, y = normal(2, 9)
    expected = rank_correlation(one_seed(x), one_seed(y), resamples=200)
    assert rank_correlation(one_seed(np.exp(20 * x)), one_seed(y**3), resamples=200) == expected


def test_a_seed_repeats_and_neither_order_nor_the_global_generator_matters() -> None:
    x, y = several_seeds(normal(9, 3)), several_seeds(normal(9, 3, seed=1))
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    result = rank_correlation(x, y, resamples=200, seed=4)
    assert rank_correlation(dict(reversed(x.items())), y, resamples=200, seed=4) == result
    assert rank_correlation(x, y, resamples=200, seed=5) != result
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_a_higher_level_is_wider() -> None:
    x, y = normal(2, 10)
    narrow, wide = (rank_correlation(one_seed(x), one_seed(y), level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_race_sorts_by_strength_whatever_the_sign() -> None:
    target = normal(12)
    near, far = target + 0.3 * normal(12, seed=1), target + 3 * normal(12, seed=2)
    places = race({"far": one_seed(far), "near": one_seed(-near)}, one_seed(target), resamples=500)
    assert list(places) == ["near", "far"]
    assert places["near"].correlation.value < 0
    assert places["near"].best > 0.9
    assert math.isclose(sum(place.best for place in places.values()), 1)
    for name, x in (("near", -near), ("far", far)):  # the same draws, so the same interval
        assert places[name].correlation == rank_correlation(one_seed(x), one_seed(target), resamples=500)


def test_quantities_that_rank_alike_share_the_first_place() -> None:
    target, x = normal(2, 10)
    quantities = {"x": one_seed(x), "-exp x": one_seed(-np.exp(x))}
    places = race(quantities, one_seed(target), resamples=200)
    assert {name: place.best for name, place in places.items()} == {"x": 0.5, "-exp x": 0.5}


def test_agreement_is_of_every_pair() -> None:
    a, b, c = map(one_seed, normal(3, 8))
    pairs = agreement({"a": a, "b": b, "c": c}, resamples=100)
    assert list(pairs) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs["a", "c"] == rank_correlation(a, c, resamples=100)


def test_draws_of_two_methods_do_not_count() -> None:
    # Draws of the last two methods alone, 14 of 256, have ρ = −1: enough to be the 2.5 % quantile if they counted.
    assert rank_correlation(one_seed([1, 2, 3, 4]), one_seed([1, 2, 4, 3])).low > -1


def test_too_many_controls_are_refused_and_not_searched_for_ever() -> None:
    methods = 20
    x, y, *given = map(one_seed, normal(18, methods))
    # A draw counts with 19 different methods of 20, which (190 + 1) 20!/20^20 = 4·10⁻⁶ of draws have: of a
    # hundred, all would take about a million rounds.
    with pytest.raises(ValueError, match="given: got 16 quantities with 20 methods, expected fewer, or more methods"):
        rank_correlation(x, y, given=given, resamples=100)
    # With 7 of 8, one draw in 14 counts. It is rare, and found.
    x, y, *given = map(one_seed, normal(6, 8))
    assert rank_correlation(x, y, given=given, resamples=100).methods == 8


def test_a_side_that_hardly_varies_leaves_enough_draws_or_is_refused() -> None:
    # One method of eight stands out. It is missing from (7/8)^8 = 34 % of draws: they are dropped.
    one, other = np.eye(8)[:2]
    assert math.isfinite(rank_correlation(one_seed(one), one_seed(normal(8)), resamples=500).low)
    # Both must be there: 1 − 2 (7/8)^8 + (6/8)^8 = 41 % of draws, fewer than half.
    with pytest.raises(ValueError, match=r"values: got ranks that \d+ of 500 draws .*, expected fewer ties"):
        rank_correlation(one_seed(one), one_seed(other), resamples=500)


def test_it_reads_with_a_minus_and_without_a_negative_zero() -> None:
    assert str(Correlation(-0.829, -0.954, -0.001, 0.95, 10)) == "−0.83 [−0.95, 0.00]"


GOOD = one_seed(range(5), "abcde")


@pytest.mark.parametrize(
    ("y", "settings", "message"),
    [
        ({**GOOD, "f": [1.0]}, {}, r"y: got the methods \['a', .*'f'\], expected those of x, \['a'"),
        ({**GOOD, "a": [1.0, 2.0]}, {}, r"y\['a'\]: got 2 seeds, expected the 1 of x"),
        ({**GOOD, "a": [math.nan]}, {}, r"y\['a'\]: got \[nan\], expected a sequence of finite numbers"),
        ({**GOOD, "a": [math.inf]}, {}, r"y\['a'\]: got \[inf\]"),
        ({**GOOD, "a": []}, {}, r"y\['a'\]: got \[\]"),
        ({**GOOD, "a": 1.0}, {}, r"y\['a'\]: got 1.0, expected a sequence"),
        ({**GOOD, "a": ["1"]}, {}, r"y\['a'\]: got \['1'\]"),
        ({**GOOD, "a": [[1.0], [1.0, 2.0]]}, {}, r"y\['a'\]: got \[\[1.0\], "),
        (one_seed([3] * 5, "abcde"), {}, "y: got one mean for every method, expected means that differ"),
        (GOOD, {"given": [one_seed(range(4), "abcd")]}, r"given\[0\]: got the methods"),
        (GOOD, {"given": [GOOD]}, "given: got what fixes the ranks of x or y, expected less"),
        (GOOD, {"given": [GOOD, GOOD]}, "x: got 5 methods, expected at least 6"),
        (GOOD, {"level": 1}, r"level: got 1.*, expected a number in \(0, 1\)"),
        (GOOD, {"level": 0}, "level: got 0"),
        (GOOD, {"resamples": 99}, "resamples: got 99, expected a whole number >= 100"),
        (GOOD, {"seed": -1}, "seed: got -1"),
    ],
)
def test_what_cannot_be_ranked_is_refused(y: Mapping[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_correlation(GOOD, y, **settings)


def test_too_few_methods_or_quantities_are_refused() -> None:
    three = one_seed(range(3))
    with pytest.raises(ValueError, match="x: got 3 methods, expected at least 4"):
        rank_correlation(three, three)
    with pytest.raises(ValueError, match="quantities: got none"):
        race({}, three)
    with pytest.raises(ValueError, match=r"quantities\['loss'\]: got one mean for every method"):
        race({"loss": one_seed([1] * 5)}, one_seed(range(5)))
