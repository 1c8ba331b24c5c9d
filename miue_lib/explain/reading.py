"""What a victim has become: everything that this book measures of one, in one reading.

The quantities are rivals. Each is somebody's explanation of why noise makes pictures unlearnable, and the chapter that
lets them race needs all of them for every victim.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import theory
from .._errors import bad, check_choice, check_count
from ..data import ImageSet
from ..mi import ESTIMATORS, information, mutual_information
from ..models import Classifier, build
from ..train import History, accuracy, features, fit
from .attacks import local_linearity, robust_accuracy
from .heads import proxy_a_distance, refit_head
from .separability import linear_separability

RESOLUTION = 0.1  # σ at which log det(I + Σ/σ²) is taken; unit features have length 1
_ATTACKED, _FEW = 500, 20  # pictures; clean pictures a class
_SETTINGS: dict[str, dict[str, Any]] = {"mine": {"hidden": 32, "steps": 300, "batch_size": 128, "learning_rate": 0.01}}
_WITH_OWN = ("histogram", "ksg")  # once more than the others, which take longer
_FEWER_SLICES = {"mine": 32}  # of any number asked for: a network a slice


def sliced_mi(
    victim: Classifier,
    clean: ImageSet,
    published: ImageSet,
    *,
    estimator: str = "histogram",
    slices: int = 200,
    seed: int = 0,
    **settings: Any,
) -> dict[str, float]:
    """I(g(X); g(X′)) over slices, in nats: the picture as it was and as it was published, in the eyes of `victim`.

    clean, published: the same pictures in the same order. estimator, slices, seed, settings: of `mutual_information`.

    Returns value, stderr (over slices), the same of shuffled pairs: baseline, baseline_stderr; and own, SI(g(X); g(X)),
    what the same slices read of the features of clean pictures with themselves. Two victims may differ in it, whatever
    their noise does: it depends on the geometry of the features (the fewer directions they vary in, the more two random
    slices share). What this victim's features lose by the noise is own − value.

    Raises `ValueError` for sets that do not match, and what `mutual_information` refuses.
    """
    _check_pairs(clean, published)
    z, published_z = features(victim, clean), features(victim, published)
    return _read(z, published_z, estimator, slices, seed, settings)


def measure(
    victim: Classifier,
    clean: ImageSet,
    published: ImageSet,
    test: ImageSet,
    *,
    estimators: Sequence[str] = tuple(ESTIMATORS),
    slices: int = 200,
    seed: int = 0,
) -> dict[str, float]:
    """A reading of a victim that was trained on `published`: name → number.

    clean, published: the same pictures in the same order, as they were and as they were published (X and X′).
    test: clean pictures that it never saw. estimators: names from `miue_lib.mi.ESTIMATORS`. slices: of each. seed: of
    everything that is random.

    With g the victim's features (float32), δ = X′ − X, and E the name of an estimator:

    accuracy, accuracy on X′    of the victim, on `test` and on what it was trained on
    E, E stderr, E baseline, E baseline stderr, E own (of histogram and KSG)
                                sliced I(g(X); g(X′)) in nats, see `sliced_mi`. MINE has 32 slices at most, of
                                small networks trained for 300 steps on mini-batches of 128: one network a slice
    normalised E                at most 1, and below 0 where I is, see `Information`: I/√(H H) of a histogram with bins
                                of equal width, Linfoot's √(1 − exp(−2I)) of the others
    H(g(X)), H(g(X′))           sliced entropy in nats of such a histogram: of the bins, scaled with the data
    trace, log det, cosine      of unit features g(X′)/‖g(X′)‖ within a class, mean over classes by their share: tr Σ_y;
                                log det(I + Σ_y/σ²) at σ = 0.1; mean cosine of pairs, which is 1 − tr Σ_y
    separability of δ, of g(X′) held-out accuracy of a linear classifier, see `linear_separability`
    A-distance                  of g(X) and g(X′) by a linear classifier, see `proxy_a_distance`
    robust 1/255, robust 2/255  accuracy on up to 500 of X′ under PGD in that radius, see `robust_accuracy`
    linearity                   of the victim at these within 2/255, see `local_linearity`
    refit                       accuracy on `test` of a new last layer, fitted to 20 clean pictures a class, see
                                `refit_head`

    Raises `ValueError` for sets that do not match, fewer than two classes or 20 pictures of one in `clean`, and a
    victim whose features tell no two pictures apart or are 0 for one.
    """
    for name in estimators:
        check_choice("estimators", name, ESTIMATORS)
    _check(clean, published, test, slices, seed)
    z, published_z = features(victim, clean), _directed(features(victim, published))
    reading = {"accuracy": accuracy(victim, test), "accuracy on X′": accuracy(victim, published)}
    with _near_the_ceiling():
        told = information(z, published_z, slices=slices, seed=seed, baseline=False)  # bins of equal width
    for name in estimators:
        few, settings = min(slices, _FEWER_SLICES.get(name, slices)), _SETTINGS.get(name, {})
        read = _read(z, published_z, name, few, seed, settings, own=name in _WITH_OWN)
        reading |= _named(name, read)
        reading[f"normalised {name}"] = told.normalised if name == "histogram" else _linfoot(read["value"])
    reading |= {"H(g(X))": told.entropy_x, "H(g(X′))": told.entropy_y}
    labels = clean.labels
    reading |= _covariance(published_z, labels)
    delta = published.images.to(torch.int16) - clean.images.to(torch.int16)
    reading["separability of δ"] = linear_separability(delta, labels, seed=seed)
    reading["separability of g(X′)"] = linear_separability(published_z, labels, seed=seed)
    reading["A-distance"] = proxy_a_distance(z, published_z, seed=seed)
    some = _some(published, seed)
    for levels in (1, 2):
        reading[f"robust {levels}/255"] = robust_accuracy(victim, some, radius=levels / 255, seed=seed)
    reading["linearity"] = local_linearity(victim, some, radius=2 / 255, seed=seed)
    reading["refit"] = refit_head(z, labels, features(victim, test), test.labels, per_class=_FEW, seed=seed)
    return reading


def along_training(
    model: str,
    clean: ImageSet,
    published: ImageSet,
    test: ImageSet,
    *,
    slices: int = 200,
    seed: int = 0,
    **recipe: Any,
) -> dict[str, list[float]]:
    """What becomes of a victim epoch by epoch: curves of one number an epoch.

    The victim is that of `build(model, published, seed=seed)` and `fit(…, published, seed=seed, **recipe)`.

    accuracy: on `test`. histogram, histogram stderr, histogram baseline, …: as in `sliced_mi`, by that estimator, the
    cheapest. trace and refit: as in `measure`. Raises `ValueError` as `measure` does, before training where it can.
    """
    _check(clean, published, test, slices, seed)
    victim = build(model, published, seed=seed)
    readings: list[dict[str, float]] = []

    def look(epoch: int, history: History) -> None:
        z, published_z = features(victim, clean), _directed(features(victim, published))
        reading = _named("histogram", _read(z, published_z, "histogram", slices, seed, {}))
        reading["accuracy"] = history.test_accuracy[-1]
        reading["trace"] = _covariance(published_z, clean.labels)["trace"]
        reading["refit"] = refit_head(z, clean.labels, features(victim, test), test.labels, per_class=_FEW, seed=seed)
        readings.append(reading)

    fit(victim, published, test=test, seed=seed, on_epoch=look, **recipe)
    return {name: [reading[name] for reading in readings] for name in readings[0]}


def _check(clean: ImageSet, published: ImageSet, test: ImageSet, slices: int, seed: int) -> None:
    """Refuse at once what would be refused after minutes, and by an argument's name that the caller doesn't know."""
    check_count("slices", slices)
    check_count("seed", seed, 0, 2**32 - 1)  # what `proxy_a_distance` takes
    _check_pairs(clean, published)
    k = max(len(clean.classes), len(test.classes))
    counts, tested = (torch.bincount(images.labels.cpu(), minlength=k) for images in (clean, test))
    found = counts[counts + tested > 0].tolist()
    if len(found) < 2 or min(found) < _FEW:
        given = f"classes of {found} pictures"
        raise bad("clean", given, f"two or more classes, each of at least the {_FEW} that a new head is fitted to")


def _check_pairs(clean: ImageSet, published: ImageSet) -> None:
    if published.images.shape != clean.images.shape:
        given = f"pictures of shape {tuple(published.images.shape)}"
        raise bad("published", given, f"those of clean, {tuple(clean.images.shape)}, as they were published")
    if published.device != clean.device:
        raise bad("published", f"pictures on {published.device}", f"pictures on {clean.device}, where clean is")
    if other := int((published.labels != clean.labels).sum()):
        given = f"{other} of {len(clean)} labels that clean has not"
        raise bad("published", given, "the pictures of clean in their order")


def _read(
    z: Tensor,
    published_z: Tensor,
    estimator: str,
    slices: int,
    seed: int,
    settings: Mapping[str, Any],
    *,
    own: bool = True,
) -> dict[str, float]:
    """`sliced_mi` of these features; own: whether with that of clean features and themselves."""
    asked: dict[str, Any] = {"estimator": estimator, "slices": slices, "seed": seed} | dict(settings)
    with _near_the_ceiling():
        read = mutual_information(z, published_z, **asked)
        found = {part: getattr(read, part) for part in ("value", "stderr", "baseline", "baseline_stderr")}
        return found | {"own": mutual_information(z, z, **(asked | {"baseline": False})).value} if own else found


def _linfoot(value: float) -> float:
    """√(1 − exp(−2I)), with the sign of I."""
    return math.copysign(math.sqrt(-math.expm1(-2 * abs(value))), value)


@contextmanager
def _near_the_ceiling() -> Iterator[None]:
    """Inside, nobody is warned of an estimate near its ceiling: features that have collapsed onto a line have to be
    there, and the readings of a race are compared with each other."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* and can't read more than", category=UserWarning)
        yield


def _directed(published_z: Tensor) -> Tensor:
    """The same, or a `ValueError` where a picture's features are 0 and so have no direction."""
    if none := int((published_z == 0).all(1).sum()):
        raise bad("victim", f"features that are 0 for {none} pictures", "features that have a direction")
    return published_z


def _named(estimator: str, read: dict[str, float]) -> dict[str, float]:
    """A reading's names: those of the estimator, and of the parts of its estimate."""
    return {estimator if part == "value" else f"{estimator} {part.replace('_', ' ')}": read[part] for part in read}


def _covariance(published_z: Tensor, labels: Tensor) -> dict[str, float]:
    """Within classes, of features taken to unit length, the mean over classes."""
    unit = F.normalize(published_z.double())  # in float32 the cosine would be 1 − trace to 1e-7 only
    moments = theory.class_moments(unit, labels)
    return {
        "trace": float(moments.shares @ moments.traces),
        "log det": float(moments.shares @ theory.log_dets_at(moments.covariances, RESOLUTION)),
        "cosine": float(moments.shares @ theory.mean_cosines(unit, labels)),
    }


def _some(images: ImageSet, seed: int) -> ImageSet:
    """Up to 500 of the pictures, drawn at random: those of a folder are sorted by class."""
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:_ATTACKED]
    return images.subset(chosen.to(images.device))
