"""Mutual information from a table of counts, with the bias of Miller (1955) and Madow removed.

Each side is cut into B bins, and Î is the mutual information of the bins. Counting makes every entropy too small, by
about (K − 1)/(2n) nats for K occupied cells, and so mutual information too large by (K_xy − K_x − K_y + 1)/(2n):
0.0096 at B = 32 and n = 50,000, where x and y are independent. Adding (K − 1)/(2n) to each entropy removes that, if
there are about 5 B² pairs or more. With fewer the correction falls short: at B = 32 it leaves 0.006 nats for n = 5000
and 0.3 for n = 1000. Take fewer bins there; the shuffled baseline shows what is left.

Bins of equal frequency (by rank) are the default: they do not change when a side is transformed monotonically, and
their bias is the same for every distribution. Equal values share a bin. Bins of equal width have the range of the
sample to share out, so an outlier makes them coarse, and many nearly empty cells make the correction less exact.

The bins are a fixed resolution: no estimate exceeds the entropy of a side's bins, which is log B by rank, and below it
strong dependence is read too small (at ρ = 0.99 by 0.28 with 16 bins).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor

from .._errors import check_choice, check_count, check_flag
from ..kernels.histogram import histogram2d, quantile_edges
from .estimate import Estimate, Readings
from .sliced import Common, Measure, measure


def histogram(
    x: Any, y: Any, *, bins: int = 32, binning: str = "rank", correct: bool = True, **common: Unpack[Common]
) -> Estimate:
    """I(X; Y) by a histogram. bins: B ≥ 2 a side, at most 1024. binning: "rank" or "width". correct: remove the bias.

    x, y and `common`: see `mutual_information`. Scalars only: a table over vectors would be empty; use slices.
    """
    return measure(x, y, plan(bins, binning, correct), common)


def plan(bins: int = 32, binning: str = "rank", correct: bool = True) -> Measure:
    bins = check_count("bins", bins, 2, 1024)
    check_choice("binning", binning, ("rank", "width"))
    check_flag("correct", correct)
    core = partial(readings, bins=bins, binning=binning, correct=correct)
    settings = {"bins": bins, "binning": binning, "correct": correct}
    least_n = bins if binning == "rank" else 2
    return Measure("histogram", settings, core, least_n=least_n, invariant=binning == "rank", cells=lambda n: bins**2)


def readings(x: Tensor, y: Tensor, *, bins: int, binning: str, correct: bool) -> Readings:
    """Of slices x, y `(m, n)`."""
    n = x.shape[1]
    edges = quantile_edges if binning == "rank" else _width_edges
    counts = histogram2d(x, y, edges(x, bins), edges(y, bins)).double()
    tables = counts.flatten(1), counts.sum(2), counts.sum(1)
    both, of_x, of_y = (_entropy(table / n) for table in tables)
    plug_in = of_x + of_y - both
    # Variance of the information density, which is what a mean of n of them has over n
    p, p_x, p_y = counts / n, tables[1] / n, tables[2] / n
    density = torch.where(counts > 0, p.log() - p_x.log()[:, :, None] - p_y.log()[:, None, :], 0)
    variance = (p * density.square()).sum((1, 2)) - plug_in.square()
    if correct:
        both, of_x, of_y = (
            entropy + ((table > 0).sum(1) - 1) / (2 * n)
            for entropy, table in zip((both, of_x, of_y), tables, strict=True)
        )
    return Readings(
        value=of_x + of_y - both,
        stderr=variance.clamp_min(0).sqrt() / math.sqrt(n),
        ceiling=torch.minimum(of_x, of_y),
        details={"entropy_x": of_x, "entropy_y": of_y, "joint_entropy": both},
    )


def _entropy(probabilities: Tensor) -> Tensor:
    return -torch.xlogy(probabilities, probabilities).sum(1)


def _width_edges(x: Tensor, bins: int) -> Tensor:
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    return low + (high - low) * torch.arange(1, bins, device=x.device) / bins
