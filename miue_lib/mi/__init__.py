"""Mutual information in nats, by four estimators, of scalars, vectors and slices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from .._errors import bad, check_choice
from .estimate import Estimate, Information
from .histogram import histogram
from .kde import kde
from .ksg import ksg
from .mine import mine
from .sliced import directions

ESTIMATORS: Mapping[str, Callable[..., Estimate]] = MappingProxyType(
    {"ksg": ksg, "kde": kde, "histogram": histogram, "mine": mine}
)

__all__ = [
    "ESTIMATORS",
    "Estimate",
    "Information",
    "directions",
    "histogram",
    "information",
    "kde",
    "ksg",
    "mine",
    "mutual_information",
]


def mutual_information(x: Any, y: Any, *, estimator: str = "ksg", **settings: Any) -> Estimate:
    """An estimate of I(X; Y) in nats from n pairs.

    x, y: `(N,)` or `(N, d)`, torch tensors or numpy arrays, rows paired; the two sides may differ in d. Whole numbers
        and booleans become float64, half precision becomes float32, complex numbers are refused. All is computed in
        float64 if one side is float64, else in float32 (MINE: in float32 anyway), and averaged in float64.
    estimator: "ksg" (nearest neighbours), "kde" (kernels), "histogram" or "mine" (a neural network). Each is also a
        function of its own, `miue_lib.mi.ksg` and so on, where its settings are described.

    settings: the estimator's own, and

    slices: None estimates I(X; Y) itself. A number m estimates sliced mutual information (Goldfeld and Greenewald
        2021), the mean over m pairs of independent random unit directions; a pair (theta, phi) of tensors `(m, d_x)`,
        `(m, d_y)` gives the directions.
    seed: of the directions, of the shuffled pairing, and of MINE's weights.
    scale: "standard" (default) gives each slice or column mean 0 and variance 1, since mutual information does not
        depend on scale but estimators do; "rank" turns it into normal scores, for heavy tails; "none" leaves it.
    whiten: True, or a number of components, turns each side into its principal components of variance one first. That
        changes no mutual information (if none that vary are left out), but it does change the sliced one.
    baseline: whether to estimate shuffled pairs as well, which doubles the time.
    device: where to compute; by default where x is.

    Never clipped at 0. Warns above three quarters of the ceiling. Raises `ValueError` for what can't be estimated: NaN
    or infinities, different numbers of rows, too few rows, a side (without slices: a column) that does not vary,
    vectors for a histogram without slices, a device that is not there.
    """
    return ESTIMATORS[check_choice("estimator", estimator, ESTIMATORS)](x, y, **settings)


def information(x: Any, y: Any, *, estimator: str = "histogram", **settings: Any) -> Information:
    """Mutual information beside the entropies of both sides, so that "I fell" can be told from "H fell".

    The arguments are those of `mutual_information`. MINE has no entropies and is refused. By rank a histogram's
    marginal entropies are log B whatever the data, unless values repeat: take `binning="width"` (the default here).
    """
    if check_choice("estimator", estimator, ESTIMATORS) == "mine":
        raise bad("estimator", "'mine'", "one that is made of entropies: 'ksg', 'kde' or 'histogram'")
    if estimator == "histogram":
        settings = {"binning": "width"} | settings
    estimate = mutual_information(x, y, estimator=estimator, **settings)
    of_x, of_y, joint = (float(estimate.details[name].mean()) for name in ("entropy_x", "entropy_y", "joint_entropy"))
    if estimator == "histogram":
        kind, normalised = "discrete", estimate.value / math.sqrt(of_x * of_y) if of_x * of_y > 0 else math.nan
    else:
        kind = "differential"
        normalised = math.copysign(math.sqrt(-math.expm1(-2 * abs(estimate.value))), estimate.value)
    return Information(estimate, of_x, of_y, joint, kind, normalised)
