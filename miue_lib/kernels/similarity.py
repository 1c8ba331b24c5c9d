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
    check_number("temperature", temperature, 0, open_low=True)
    check_number("distance_weight", distance_weight, 0)
    if features.ndim != 2 or not features.is_floating_point():
        raise bad("features", f"shape {tuple(features.shape)} {features.dtype}", "a floating-point (B, d) matrix")
    if labels.shape != features.shape[:1]:
        raise bad("labels", f"shape {tuple(labels.shape)}", f"one label a row: ({len(features)},)")

    features = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    same = labels[:, None] == labels[None, :]
    if bool(same.all()):
        raise bad("labels", "one class only", "a batch of at least two classes")
    partners = same if self_pairs else same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    if not self_pairs and not bool(partners.any(1).all()):
        raise bad("labels", "a class with one picture in the batch", "two or more of each class, or self_pairs=True")

    directions = F.normalize(features)
    scores = directions @ directions.T / temperature
    everyone = (
        ~same
        if other_classes_only
        else same.new_ones(())
        if self_pairs
        else ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    )
    loss = _masked_logsumexp(scores, everyone) - _masked_logsumexp(scores, partners)
    if distance_weight:
        distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist") / features.shape[1]
        loss = loss + distance_weight * torch.log1p((distances * same).sum(1))
    return loss.mean()


def _masked_logsumexp(scores: Tensor, keep: Tensor) -> Tensor:
    return scores.masked_fill(~keep, -torch.inf).logsumexp(1)
