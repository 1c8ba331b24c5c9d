"""What accuracy says about I(Z; Y), and what I(Z; Y) says about accuracy.

A classifier that sees Z and errs with probability e leaves (Fano 1961), with K classes and H(e) the entropy of a coin,

    H(Y | Z) ≤ H(e) + e log(K − 1),

and if it is the best there is, e also forces uncertainty: H(Y | Z) ≥ 2e log 2 (Hellman and Raviv 1970). That line is
the first piece of the sharp bound (Kovalevsky 1968; Feder and Merhav 1994), linear between the points e = 1 − 1/i,
H = log i, i = 1 … K, where Y is one of i equally likely labels. It is nowhere below Jensen's bound, −log(1 − e).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._errors import bad, check_number
from ._checks import float64


def information_range(accuracy: float, prior: Tensor) -> tuple[float, float]:
    """I(Z; Y) in nats, at least and at most, given the accuracy of a classifier that sees Z.

    The lower end (Fano) holds for any classifier, the upper one (Hellman and Raviv, sharpened) only if no other would
    be more accurate: a head that fails does not prove that the features know little.

    accuracy: in [0, 1]. prior: P(Y = y) `(K,)`, K ≥ 2. No best classifier is less accurate than always naming the most
    frequent class; for an accuracy below that the upper end is H(Y).
    """
    shares, entropy = _prior(prior)
    error = 1 - check_number("accuracy", accuracy, 0, 1)
    at_least = max(0.0, entropy - float(_fano(torch.tensor(error, dtype=torch.float64), len(shares))))
    if error > 1 - float(shares.max()) + 1e-9:
        return at_least, entropy
    return at_least, max(at_least, entropy - _least_uncertainty(min(error, 1 - 1 / len(shares))))


def accuracy_range(information: float, prior: Tensor) -> tuple[float, float]:
    """The accuracy of the best classifier that sees Z, at least and at most, given I(Z; Y) in nats.

    At most (Fano): no classifier does better. At least (Hellman and Raviv, sharpened): the best one does so well.

    information: in [0, H(Y)]. prior: P(Y = y) `(K,)`, K ≥ 2.
    """
    shares, entropy = _prior(prior)
    told = check_number("information", information, 0)
    if told > entropy + 1e-9:
        raise bad("information", f"{told:.6g} nats", f"at most H(Y) = {entropy:.6g}")
    unknown = max(0.0, entropy - told)
    k = len(shares)
    low, high = 0.0, 1 - 1 / k  # where Fano's bound rises from 0 to log K
    for _ in range(60):
        middle = (low + high) / 2
        below = float(_fano(torch.tensor(middle, dtype=torch.float64), k)) < unknown
        low, high = (middle, high) if below else (low, middle)
    return min(1 - low, max(1 - _most_error(unknown, k), float(shares.max()))), 1 - low


def _prior(prior: Tensor) -> tuple[Tensor, float]:
    shares = float64("prior", prior, "probabilities (K,)")
    if shares.ndim != 1 or len(shares) < 2 or not bool((shares >= 0).all()) or abs(float(shares.sum()) - 1) > 1e-6:
        raise bad("prior", f"{shares.tolist()}"[:80], "probabilities of at least two classes that add up to 1")
    shares = shares / shares.sum()
    return shares, float(-torch.xlogy(shares, shares).sum())


def _fano(error: Tensor, classes: int) -> Tensor:
    coin = -torch.xlogy(error, error) - torch.special.xlog1py(1 - error, -error)
    bound: Tensor = coin + error * math.log(classes - 1)
    return bound


def _least_uncertainty(error: float) -> float:
    """The least H(Y | Z) that a best error leaves room for: linear between (1 − 1/i, log i)."""
    i = int(1 / (1 - error) + 1e-12)  # 1 − 1/i ≤ error < 1 − 1/(i + 1)
    left = 1 - 1 / i
    steps = torch.tensor([i, i + 1], dtype=torch.float64).log()
    return float(steps[0] + (steps[1] - steps[0]) * (error - left) * i * (i + 1))


def _most_error(unknown: float, classes: int) -> float:
    """The inverse: the largest best error at which H(Y | Z) can be so small."""
    places = torch.arange(1, classes + 1, dtype=torch.float64)
    corners = places.log()
    i = min(int(torch.searchsorted(corners, unknown, right=True)), classes - 1)
    share = (unknown - float(corners[i - 1])) / float(corners[i] - corners[i - 1])
    return min(1 - 1 / i + share / (i * (i + 1)), 1 - 1 / classes)
