"""Numbers of several seeds: their mean, and how far they scatter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from .._errors import bad, check_count


class Seeds(NamedTuple):
    """One number a seed `(n,)`, their mean, and their sample standard deviation, which one number has not."""

    numbers: np.ndarray
    mean: float
    deviation: float | None


def over_seeds(argument: str, values: Sequence[float]) -> Seeds:
    """`values` of argument `argument` with mean and deviation; a `ValueError` unless one or more finite numbers."""
    try:
        numbers = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
        raise bad(argument, repr(values), "a list of one or more finite numbers, one a seed")
    return Seeds(numbers, float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else None)


def mean_sd(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± one sample standard deviation, as "0.476 ± 0.025"; of a single value the mean alone.

    values: one number a seed. digits: after the decimal point.
    """
    _, mean, deviation = over_seeds("values", values)
    places = check_count("digits", digits, 0)
    return f"{mean:.{places}f}" if deviation is None else f"{mean:.{places}f} ± {deviation:.{places}f}"


def t_interval(values: Sequence[float], digits: int = 3) -> str:
    """Mean and 95 % t-interval for it, as "+0.476 [+0.414, +0.538]"; of a single value the mean alone.

    values: one number a seed, paired differences for example. digits: after the decimal point.
    """
    numbers, mean, deviation = over_seeds("values", values)
    places = check_count("digits", digits, 0)
    if deviation is None:
        return f"{mean:+.{places}f}".replace("-", "−")
    half = float(stats.t.ppf(0.975, len(numbers) - 1)) * deviation / len(numbers) ** 0.5
    return f"{mean:+.{places}f} [{mean - half:+.{places}f}, {mean + half:+.{places}f}]".replace("-", "−")
