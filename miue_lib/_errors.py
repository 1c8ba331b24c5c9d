"""One way to refuse an argument, so that every message names it, what was given and what was expected."""

from __future__ import annotations

import math
import numbers
from typing import Any


def bad(argument: str, given: object, expected: str) -> ValueError:
    """The error to raise for an unusable argument: its name, what was given, what would have been accepted."""
    return ValueError(f"{argument}: got {given}, expected {expected}")


def check_number(argument: str, value: Any, low: float, high: float = math.inf, *, open_low: bool = False) -> float:
    """`value` as a float if it is finite and in [low, high] (or (low, high] with `open_low`), else a `ValueError`."""
    expected = f"a number in {'(' if open_low else '['}{low:g}, {high:g}]"
    if high == math.inf:
        expected = f"a finite number {'>' if open_low else '>='} {low:g}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise bad(argument, repr(value), expected)
    number = float(value)
    if not (math.isfinite(number) and (number > low if open_low else number >= low) and number <= high):
        raise bad(argument, repr(value), expected)
    return number


def check_count(argument: str, value: Any, low: int = 1, high: int = 2**63 - 1) -> int:
    """`value` if it is a whole number from `low` to `high`, else a `ValueError`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not low <= int(value) <= high:
        limits = f"from {low} to {high}" if high < 2**63 - 1 or (whole and value > high) else f">= {low}"
        raise bad(argument, repr(value), f"a whole number {limits}")
    return int(value)


def check_flag(argument: str, value: Any) -> bool:
    """`value` if it is True or False, else a `ValueError`: "no" would count as true."""
    if not isinstance(value, bool):
        raise bad(argument, repr(value), "True or False")
    return value


def check_choice(argument: str, value: Any, choices: Any) -> str:
    """`value` if it is one of `choices`, else a `ValueError` that lists them."""
    if not isinstance(value, str) or value not in choices:
        raise bad(argument, repr(value), "one of " + ", ".join(map(repr, choices)))
    return str(value)
