"""Class-conditional means and covariances, their log-determinants, and what unit length makes of them.

All moments are those of the set as it is: sums are divided by N_y, not N_y − 1. So everything that is proved for a
distribution holds for the data set itself, whose pictures are drawn with equal probability, and nothing has to be
estimated. A covariance from N_y ≤ d vectors is singular, and its log-determinant −∞, as it should be; what is asked for
as an estimate of the population's takes shrinkage.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._errors import bad, check_number
from ._checks import float64

_UNIT = {torch.float64: 1e-6, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}  # of a length from 1


@dataclass(frozen=True, eq=False)
class ClassMoments:
    """Of K classes of features in d dimensions, float64: shares `(K,)`, P(Y = y), which add up to 1; means `(K, d)`;
    covariances `(K, d, d)`, symmetric and positive semidefinite."""

    shares: Tensor
    means: Tensor
    covariances: Tensor

    def __post_init__(self) -> None:
        for name in ("shares", "means", "covariances"):
            value = float64(name, getattr(self, name), "numbers")
            if not value.isfinite().all():
                raise bad(name, "NaN or infinite values", "finite numbers")
            object.__setattr__(self, name, value)
        if self.means.ndim != 2 or not self.means.numel():
            raise bad("means", f"shape {tuple(self.means.shape)}", "(K, d), not empty")
        k, d = self.means.shape
        if self.covariances.shape != (k, d, d):
            raise bad("covariances", f"shape {tuple(self.covariances.shape)}", f"(K, d, d) = {(k, d, d)}")
        if self.shares.shape != (k,) or bool((self.shares < 0).any()) or abs(float(self.shares.sum()) - 1) > 1e-6:
            raise bad("shares", self.shares.tolist()[:8], f"{k} shares that add up to 1")
        # On a scale of its own: what rounding may leave of a covariance computed in float32.
        allowed = 1e-5 * self.covariances.abs().amax((1, 2))
        if bool(((self.covariances - self.covariances.mT).abs().amax((1, 2)) > allowed).any()):
            raise bad("covariances", "a matrix that differs from its transpose", "symmetric matrices")
        object.__setattr__(self, "covariances", (self.covariances + self.covariances.mT) / 2)
        if bool((torch.linalg.eigvalsh(self.covariances)[:, 0] < -allowed).any()):
            raise bad("covariances", "a matrix with a negative eigenvalue", "positive semidefinite matrices")

    @property
    def label_entropy(self) -> Tensor:
        """H(Y)."""
        return -torch.xlogy(self.shares, self.shares).sum()

    @property
    def traces(self) -> Tensor:
        """tr Σ_y `(K,)`."""
        return self.covariances.diagonal(dim1=1, dim2=2).sum(1)

    @property
    def total_covariance(self) -> Tensor:
        """Σ `(d, d)` of all classes together: the mean of Σ_y plus the covariance of the μ_y (total variance)."""
        centred = self.means - self.shares @ self.means
        within = torch.einsum("k,kij->ij", self.shares, self.covariances)
        return within + torch.einsum("k,ki,kj->ij", self.shares, centred, centred)


def class_moments(features: Tensor, labels: Tensor, *, shrinkage: float | str = 0.0) -> ClassMoments:
    """The moments of `features` `(N, d)` within each class that occurs in `labels` `(N,)`.

    shrinkage: λ in [0, 1]; each Σ_y becomes (1 − λ) Σ_y + λ (tr Σ_y / d) I, which keeps its trace and, for λ > 0, is
        regular however few pictures there are. "ledoit-wolf" chooses λ for each class by Ledoit and Wolf (2004). The
        default, 0, is the covariance of the set itself.

    Raises `ValueError` for features that are not finite, labels that don't match, or a class of a single picture.
    """
    if isinstance(shrinkage, str):
        if shrinkage != "ledoit-wolf":
            raise bad("shrinkage", repr(shrinkage), "a number in [0, 1] or 'ledoit-wolf'")
    else:
        shrinkage = check_number("shrinkage", shrinkage, 0, 1)
    parts = by_class(features, labels)
    covariances = []
    for z in parts:
        centred = z - z.mean(0)
        sigma = centred.T @ centred / len(z)
        share = _ledoit_wolf(centred, sigma) if isinstance(shrinkage, str) else shrinkage
        round_ = torch.eye(len(sigma), dtype=sigma.dtype, device=sigma.device) * (sigma.trace() / len(sigma))
        covariances.append((1 - share) * sigma + share * round_)
    shares = torch.tensor([len(z) for z in parts], dtype=torch.float64, device=features.device) / len(features)
    return ClassMoments(shares, torch.stack([z.mean(0) for z in parts]), torch.stack(covariances))


def by_class(features: Tensor, labels: Tensor) -> list[Tensor]:
    """The features of each class that occurs, in the order of the labels, float64; checked."""
    if not isinstance(features, Tensor) or features.ndim != 2 or not features.numel():
        given = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise bad("features", given, "a tensor (N, d), not empty")
    z = float64("features", features, "real numbers")
    if not z.isfinite().all():
        raise bad("features", f"{int((~z.isfinite()).sum())} values that are NaN or infinite", "finite numbers")
    if (
        not isinstance(labels, Tensor)
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.dtype == torch.bool
    ):
        given = str(labels.dtype) if isinstance(labels, Tensor) else type(labels).__name__
        raise bad("labels", given, "a tensor of whole numbers")
    if labels.shape != (len(z),):
        raise bad("labels", f"shape {tuple(labels.shape)}", f"one label a row of features: ({len(z)},)")
    labels = labels.to(z.device)
    if int(labels.min()) < 0:
        raise bad("labels", f"a label of {int(labels.min())}", "labels >= 0")
    classes, counts = torch.unique(labels, return_counts=True)
    if int(counts.min()) < 2:
        raise bad("labels", f"a single picture of class {int(classes[counts.argmin()])}", "at least two of each class")
    return [z[labels == c] for c in classes]


def _ledoit_wolf(centred: Tensor, sigma: Tensor) -> float:
    """The share of the identity that brings the estimate nearest to the population's covariance in mean square."""
    n, d = centred.shape
    target = sigma.trace() / d
    distance = sigma.square().sum() - d * target**2  # ‖S − (tr S / d) I‖²
    noise = (centred.square().sum(1).square().sum() / n - sigma.square().sum()) / n
    return float((noise / distance).clamp(0, 1)) if distance > 0 else 1.0


def log_dets(covariances: Tensor) -> Tensor:
    """log det of each of `covariances` `(…, d, d)`: `(…)`; −∞ where one is singular up to rounding, which is where an
    eigenvalue is below 2e-16 d times the largest."""
    values = _spectra(covariances)
    rounding = torch.finfo(torch.float64).eps * values.shape[-1] * values[..., -1:].clamp_min(0)
    return torch.where(values > rounding, values, 0.0).log().sum(-1)


def log_dets_at(covariances: Tensor, resolution: float) -> Tensor:
    """log det(I + Σ/σ²) of each of `covariances` `(…, d, d)`: finite also where Σ is singular.

    A covariance matrix has lost what is below 2e-16 of its largest entry: σ² should be well above that. (`mi_bound`
    works on the features themselves, and needs no such care.)
    """
    sigma = check_number("resolution", resolution, 0, open_low=True)
    return log_det_at(_spectra(covariances), sigma)


def log_det_at(spectrum: Tensor, sigma: float) -> Tensor:
    """Σ_i log(1 + λ_i/σ²) over the last dimension."""
    return torch.log1p(spectrum.clamp_min(0) / sigma / sigma).sum(-1)  # σ² may underflow where λ/σ² does not


def _spectra(covariances: Tensor) -> Tensor:
    matrices = float64("covariances", covariances, "covariance matrices (…, d, d)")
    if matrices.ndim < 2 or matrices.shape[-1] != matrices.shape[-2] or not matrices.numel():
        raise bad("covariances", f"shape {tuple(matrices.shape)}", "square matrices (…, d, d)")
    if not matrices.isfinite().all():
        raise bad("covariances", "NaN or infinite entries", "finite numbers")
    if bool(((matrices - matrices.mT).abs().amax((-1, -2)) > 1e-5 * matrices.abs().amax((-1, -2))).any()):
        raise bad("covariances", "a matrix that differs from its transpose", "symmetric matrices")
    spectra: Tensor = torch.linalg.eigvalsh((matrices + matrices.mT) / 2)
    return spectra


def mean_cosines(features: Tensor, labels: Tensor) -> Tensor:
    """c̄_y `(K,)`: the mean cosine over all ordered pairs of a class, each picture with itself included.

    It is ‖mean of the unit vectors‖², so that tr Σ_y = 1 − c̄_y for features of unit length, exactly. (Of very narrow
    classes take the trace: 1 − c̄ can't be known better than to 1e-16.)

    features: `(N, d)`, of unit length up to the rounding of their type; what rounding has changed is undone, and each
    taken at length 1. Raises `ValueError` for any other length.
    """
    return torch.stack([z.mean(0).square().sum() for z in unit_by_class(features, labels)])


def unit_by_class(features: Tensor, labels: Tensor) -> list[Tensor]:
    """As `by_class`, at a length of exactly 1; a `ValueError` if that changes more than rounding does."""
    parts = by_class(features, labels)
    apart = max(float((z.norm(dim=1) - 1).abs().max()) for z in parts)
    if apart > _UNIT.get(features.dtype, 1e-6):
        raise bad("features", f"lengths that differ from 1 by up to {apart:.3g}", "vectors of unit length: normalise")
    return [z / z.norm(dim=1, keepdim=True) for z in parts]
