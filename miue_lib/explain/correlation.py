"""How well a quantity ranks methods: Spearman's ρ with an interval over methods and seeds, and quantities compared.

A rank correlation over the dozen methods of this field rests on a dozen points. Without an interval it reads as more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from .._errors import bad, check_count, check_number

Floats = NDArray[np.float64]
_ROUNDS = 1000  # of drawing again what holds too few methods
Values = Mapping[str, Sequence[float]]  # method → one number a seed


@dataclass(frozen=True)
class Correlation:
    """A rank correlation in [−1, 1].

    low, high: the ends of its bootstrap interval. level: of that interval. methods: how many it was computed from.
    """

    value: float
    low: float
    high: float
    level: float
    methods: int

    def __str__(self) -> str:
        return f"{self.value:z.2f} [{self.low:z.2f}, {self.high:z.2f}]".replace("-", "−")


@dataclass(frozen=True)
class Place:
    """How a quantity did in a `race`.

    correlation: with the target. best: the share of resamples in which its |ρ| was the largest; ties are shared evenly,
        and quantities that are much alike share what one of them alone would have.
    """

    correlation: Correlation
    best: float


def rank_correlation(
    x: Values,
    y: Values,
    *,
    given: Sequence[Values] = (),
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Correlation:
    """Spearman's (1904) ρ between the methods' means of x and of y; tied methods share their average rank.

    x, y, given: method → one number a seed, of the same methods; within a method, of the same seeds in the same order.
    The order of the methods changes nothing.

    given: what to hold fixed. The result is then the partial correlation of the ranks: the correlation of what is left
    of x's and y's ranks after the least-squares fit to the ranks of everything given.

    The interval is a percentile bootstrap (Efron 1979) over methods and seeds: methods are drawn with replacement and,
    for every one drawn, its seeds, the same for x, y and given. Draws of fewer than 3 + len(given) different methods
    give ±1 or nothing whatever the values, and are repeated. Draws in which nothing is left of a side's ranks are
    dropped.

    Of 12 methods with one seed, from normals with a true ρ of 0, 0.48 and 0.79, intervals of level 0.95 held the truth
    in 95.2, 96.0 and 97.5 % of 4,000 data sets, and were on average 1.18, 1.01 and 0.69 wide: a dozen methods say
    little. What they hold is the ρ of means over so many seeds. Noise of the seeds pulls that towards 0, which no
    interval undoes: of a true ρ of 0.79, with three seeds that vary as much as the methods do, 0.58 is left. The
    intervals then held 0.58 in 98 % of 600 data sets, and 0.79 in 75 %.

    Raises `ValueError` for fewer than 4 + len(given) methods; for values that are not finite, not paired, the same for
    every method, or that vary in fewer than half of the draws; and if `given` leaves nothing of a side.
    """
    named = {"x": x, "y": y} | {f"given[{i}]": values for i, values in enumerate(given)}
    means = _resampled(named, resamples, seed, controls=len(given))
    rho = _partial(means)[None]
    if np.isnan(rho[0, 0]):
        raise bad("given", "what fixes the ranks of x or y", "less")
    return _summaries(rho, means.shape[2], level)[0]


def race(
    quantities: Mapping[str, Values],
    target: Values,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Place]:
    """Every quantity's `rank_correlation` with the target, the largest |ρ| first.

    quantities: name → method → one number a seed. target: method → one number a seed. |ρ|, since some quantities rise
    with the target and some fall. All see the same draws of methods and seeds, so `best` compares them on equal terms,
    also where their intervals overlap; it is no probability that a quantity is the best.

    Raises `ValueError` as `rank_correlation` does, and if there is no quantity.
    """
    if not quantities:
        raise bad("quantities", "none", "at least one")
    named = {f"quantities[{name!r}]": values for name, values in quantities.items()}
    means = _resampled({**named, "target": target}, resamples, seed)
    rho = np.stack([_partial(means[[i, -1]]) for i in range(len(quantities))])
    summaries = _summaries(rho, means.shape[2], level)
    size = np.abs(rho[:, 1:][:, ~np.isnan(rho[:, 1:]).any(0)])
    first = size >= size.max(0) - 1e-12  # equal but for rounding is a tie
    best = (first / first.sum(0)).mean(1)
    places = {name: Place(summaries[i], float(best[i])) for i, name in enumerate(quantities)}
    return dict(sorted(places.items(), key=lambda item: -abs(item[1].correlation.value)))


def agreement(
    quantities: Mapping[str, Values], *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> dict[tuple[str, str], Correlation]:
    """`rank_correlation` of every two quantities (name → method → one number a seed), in the order given."""
    return {
        (a, b): rank_correlation(quantities[a], quantities[b], resamples=resamples, level=level, seed=seed)
        for a, b in combinations(quantities, 2)
    }


def _resampled(named: Mapping[str, Values], resamples: int, seed: int, controls: int = 0) -> Floats:
    """The methods' means `(quantities, 1 + resamples, methods)`: those of the data, then those of every draw."""
    resamples, generator = check_count("resamples", resamples, 100), np.random.default_rng(check_count("seed", seed, 0))
    table, counts = _table(named, fewest=4 + controls)
    methods, seeds = table.shape[1], np.arange(table.shape[2])
    drawn = generator.integers(methods, size=(resamples, methods))
    for _ in range(_ROUNDS):
        if not len(few := np.flatnonzero(_distinct(drawn) < 3 + controls)):
            break
        drawn[few] = generator.integers(methods, size=(len(few), methods))
    else:
        raise bad("given", f"{controls} quantities with {methods} methods", "fewer, or more methods")
    limits = counts[drawn][..., None]
    picked = (generator.random((*drawn.shape, len(seeds))) * limits).astype(np.int64)
    weights = seeds < limits
    means = (table[:, drawn[..., None], picked] * weights).sum(-1) / counts[drawn]
    data = table.sum(-1) / counts
    for name, values in zip(named, data, strict=True):
        if not _ranks(values).any():
            raise bad(name, "one mean for every method", "means that differ")
    return np.concatenate([data[:, None], means], axis=1)


def _table(named: Mapping[str, Values], fewest: int) -> tuple[Floats, NDArray[np.int64]]:
    """The values `(quantities, methods, seeds)`, filled up with zeros, and the number of seeds of each method.

    Methods are sorted by name, so that the draws of a seed do not depend on the order in which they came.
    """
    first, *_ = named
    methods = sorted(named[first])
    if len(methods) < fewest:
        raise bad(first, f"{len(methods)} methods", f"at least {fewest}")
    for name, values in named.items():
        if sorted(values) != methods:
            raise bad(name, f"the methods {sorted(values)}", f"those of {first}, {methods}")
    rows = [[_row(f"{name}[{method!r}]", values[method]) for method in methods] for name, values in named.items()]
    counts = np.array([len(row) for row in rows[0]])
    table = np.zeros((len(named), len(methods), counts.max()))
    for i, name in enumerate(named):
        for j, (method, row) in enumerate(zip(methods, rows[i], strict=True)):
            if len(row) != counts[j]:
                raise bad(f"{name}[{method!r}]", f"{len(row)} seeds", f"the {counts[j]} of {first}")
            table[i, j, : len(row)] = row
    return table, counts


def _row(argument: str, values: Sequence[float]) -> Floats:
    expected = "a sequence of finite numbers, one a seed"
    try:
        row = np.asarray(values)
    except (TypeError, ValueError) as error:  # ragged, or on another device
        raise bad(argument, repr(values)[:80], expected) from error
    if row.ndim != 1 or not len(row) or row.dtype.kind not in "iuf" or not np.isfinite(row).all():
        raise bad(argument, repr(values)[:80], expected)
    return row.astype(np.float64)


def _distinct(drawn: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many different methods each draw `(resamples, methods)` has."""
    distinct: NDArray[np.int64] = 1 + (np.diff(np.sort(drawn, axis=-1), axis=-1) > 0).sum(-1)
    return distinct


def _ranks(values: Floats) -> Floats:
    """Average ranks along the last axis, less their mean.

    Means of the same seeds in another order differ by rounding: they are ties.
    """
    order = np.argsort(values, axis=-1)
    ordered = np.take_along_axis(values, order, axis=-1)
    low, high = ordered[..., :-1], ordered[..., 1:]
    rises = high - low > 1e-12 * np.maximum(np.abs(low), np.abs(high))
    edge = np.ones((*values.shape[:-1], 1), dtype=bool)
    places = np.arange(values.shape[-1], dtype=np.float64) - (values.shape[-1] - 1) / 2
    starts = np.where(np.concatenate([edge, rises], axis=-1), places, -np.inf)
    ends = np.where(np.concatenate([rises, edge], axis=-1), places, np.inf)
    first = np.maximum.accumulate(starts, axis=-1)  # of those tied with a value
    last = np.minimum.accumulate(ends[..., ::-1], axis=-1)[..., ::-1]
    ranks = np.empty_like(values)
    np.put_along_axis(ranks, order, (first + last) / 2, axis=-1)
    return ranks


def _partial(means: Floats) -> Floats:
    """The correlation of the first two quantities' ranks given the others', of means `(quantities, …, methods)`.

    The Gram matrix of the ranks loses its last quantity by a Schur complement until two are left: what remains is that
    of the residuals. A control of which nothing is left takes nothing away. NaN where nothing is left of a side.
    """
    ranks = _ranks(means)
    gram = np.einsum("i...m,j...m->ij...", ranks, ranks)
    nothing = 1e-9 * means.shape[-1] ** 3  # ranks without ties have a square sum of about n³/12
    while len(gram) > 2:
        pivot = np.where(gram[-1, -1] > nothing, gram[-1, -1], np.inf)
        gram = gram[:-1, :-1] - gram[:-1, None, -1] * gram[None, :-1, -1] / pivot
    left = (gram[0, 0] > nothing) & (gram[1, 1] > nothing)
    scale = np.sqrt(np.where(left, gram[0, 0] * gram[1, 1], np.nan))
    rho: Floats = np.clip(gram[0, 1] / scale, -1, 1)
    return rho


def _summaries(rho: Floats, methods: int, level: float) -> list[Correlation]:
    """A `Correlation` for each row of `(quantities, 1 + resamples)`, from the draws in which every row is defined."""
    if check_number("level", level, 0, 1, open_low=True) == 1:
        raise bad("level", level, "a number in (0, 1)")
    draws = rho[:, 1:][:, ~np.isnan(rho[:, 1:]).any(0)]
    if 2 * draws.shape[1] < rho.shape[1] - 1:
        given = f"ranks that {draws.shape[1]} of {rho.shape[1] - 1} draws of methods can tell apart"
        raise bad("values", given, "fewer ties: at least half of the draws")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return [
        Correlation(float(value), float(a), float(b), level, methods)
        for value, a, b in zip(rho[:, 0], low, high, strict=True)
    ]
