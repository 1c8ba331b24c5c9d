"""The class-similarity loss of MI-UE (Zhu, Miao, Dong and Gao 2026).

For features g_1 … g_B of a batch with labels y, cosines c_jk and temperature τ, the loss of anchor j is

    ℓ_j = log Σ_k exp(c_jk/τ) − log Σ_{k: y_k = y_j} exp(c_jk/τ)
          + ζ · log(1 + Σ_{k: y_k = y_j} ‖g_j − g_k‖₂ / d),

and the loss is the mean over anchors. The first line is small when every picture of a class points the same way and
the other classes point elsewhere; the second when a class is also close together.

Cosines are one matrix product, and both sums are log-sum-exp: nothing larger than B × B is stored, and exp(1/τ), of
which three overflow half precision at τ = 0.1, is never formed.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import bad, check_number


def similarity_loss(
    features: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.1,
    distance_weight: float = 0.0,
    self_pairs: bool = True,
    other_classes_only: bool = False,
) -> Tensor:
    """The loss above, a scalar in nats, differentiable in `features`; computed in float32 or wider.

    features: floating point `(B, d)`; labels: whole numbers `(B,)`.
    temperature: τ > 0. distance_weight: ζ ≥ 0 (the paper's text: 0.1; its released code: 0).
    self_pairs: whether a picture counts among its own class (the released code: yes). Without them an anchor whose
        class has no other picture in the batch has nothing to be similar to, and is refused.
    other_classes_only: take the denominator over the other classes only, as the paper's text is reported to,
        instead of over the whole batch, as the released code does.

    Raises `ValueError` for features that are not 2-D, labels that do not match, or fewer than two classes.
    """
    check_weights(temperature, distance_weight)
    if features.ndim != 2 or not features.is_floating_point():
        raise bad("features", f"shape {tuple(features.shape)} {features.dtype}", "a floating-point (B, d) matrix")
    if labels.shape != features.shape[:1]:
        raise bad("labels", f"shape {tuple(labels.shape)}", f"one label a row: ({len(features)},)")
    counts = torch.unique(labels, return_counts=True)[1]
    if len(counts) < 2:
        raise bad("labels", "one class only", "a batch of at least two classes")
    if not self_pairs and int(counts.min()) == 1:
        raise bad("labels", "a class with one picture in the batch", "two or more of each class, or self_pairs=True")
    return unchecked(features, labels, temperature, distance_weight, self_pairs, other_classes_only)


def check_weights(temperature: float, distance_weight: float) -> None:
    """Raise `ValueError` unless τ > 0 and ζ ≥ 0."""
    check_number("temperature", temperature, 0, open_low=True)
    check_number("distance_weight", distance_weight, 0)


def unchecked(
    features: Tensor,
    labels: Tensor,
    temperature: float,
    distance_weight: float,
    self_pairs: bool = True,
    other_classes_only: bool = False,
) -> Tensor:
    """`similarity_loss` for loops that have checked their batches: a GPU is never waited for."""
    # In bfloat16 the products below would be wrong by half where a class has nearly collapsed.
    with torch.autocast(features.device.type, enabled=False):
        g = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
        same = labels[:, None] == labels[None, :]
        others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        directions = F.normalize(g)
        scores = directions @ directions.T / temperature
        everyone = ~same if other_classes_only else torch.ones_like(same) if self_pairs else others
        loss = _masked_logsumexp(scores, everyone) - _masked_logsumexp(scores, same if self_pairs else same & others)
        if distance_weight:
            distances = _distances(g, same).masked_fill(~(same & others), 0)
            loss = loss + distance_weight * torch.log1p(distances.sum(1) / g.shape[1])
        return loss.mean()


def _masked_logsumexp(scores: Tensor, keep: Tensor) -> Tensor:
    return scores.masked_fill(~keep, -torch.inf).logsumexp(1)


def _distances(g: Tensor, same: Tensor) -> Tensor:
    """‖g_j − g_k‖₂ for pairs of one class, by one matrix product: ‖u − v‖² = ‖u‖² + ‖v‖² − 2 u·v.

    That cancels badly where u and v are large and near each other, so each class is first moved to its mean, which
    changes no distance within it. Squares below the rounding error left (of duplicates, say) are held at it.
    """
    share = same.to(g.dtype)
    centred = g - (share @ g.detach()) / share.sum(1, keepdim=True)
    squares = centred.square().sum(1)
    both = squares[:, None] + squares[None, :]
    least = both.detach() * torch.finfo(g.dtype).eps + torch.finfo(g.dtype).tiny
    return torch.maximum(both - 2 * centred @ centred.T, least).sqrt()
