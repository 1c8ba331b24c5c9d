"""What an estimate of mutual information is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Estimate:
    """Mutual information in nats, and what is needed to believe it.

    value: the estimate; the mean of `per_slice`. Never clipped: it may be negative.
    stderr: its standard error. Without slices, over the n points, as far as the estimator is a mean of one term a
        point. With slices, over the slices: the data are taken as given.
    baseline, baseline_stderr: the same for shuffled pairs, whose mutual information is 0: the estimator's bias for
        these marginals at this n. None where it was not asked for.
    per_slice: float64 `(m,)` on the CPU; m = 1 without slices.
    ceiling: the largest value that the estimator can read at this n with these settings, as for Y = X (for MINE: about
        that; for KSG: of values that don't repeat); a bent deterministic map may read less. The mean over slices where
        it depends on the data.
    n: number of pairs. estimator: its name.
    settings: the estimator's own, and slices (None or their number), seed, scale and whiten.
    details: what else the estimator has to say, by name (MINE's learning curve, say).
    """

    value: float
    stderr: float
    baseline: float | None
    baseline_stderr: float | None
    per_slice: Tensor = field(repr=False)
    ceiling: float
    n: int
    estimator: str
    settings: Mapping[str, Any] = field(repr=False)
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        slices = f", {len(self.per_slice)} slices" if self.settings["slices"] else ""
        shuffled = "" if self.baseline is None else f", shuffled {self.baseline:.4f}"
        return (
            f"{self.value:.4f} ± {self.stderr:.4f} nats ({self.estimator}, n = {self.n}{slices}{shuffled}, "
            f"ceiling {self.ceiling:.2f})"
        )


@dataclass(frozen=True)
class Information:
    """Mutual information beside the entropies that it is made of: I(X; Y) = H(X) + H(Y) − H(X, Y)
    (where these are finite).

    mutual_information: the estimate. entropy_x, entropy_y, joint_entropy: in nats, means over slices.
    kind: "discrete" for the histogram: entropies of the bins, ≥ 0 up to the correction; "differential" otherwise:
        entropies of the scaled variables, which may be negative, and are −∞ where values repeat.
    normalised: of discrete entropies, I / √(H(X) H(Y)) (Strehl and Ghosh 2002). Of differential ones, which no ratio
        makes sense of, Linfoot's (1957) coefficient √(1 − exp(−2I)), the |ρ| of a Gaussian pair with that I, with
        the sign of I.
    """

    mutual_information: Estimate
    entropy_x: float
    entropy_y: float
    joint_entropy: float
    kind: str
    normalised: float


@dataclass(frozen=True)
class Readings:
    """What an estimator makes of m slices: float64 `(m,)` each.

    details: name → a tensor whose first dimension is m. An estimator that is made of entropies gives them here, as
    "entropy_x", "entropy_y" and "joint_entropy".
    """

    value: Tensor
    stderr: Tensor
    ceiling: Tensor
    details: Mapping[str, Tensor] = field(default_factory=dict)
