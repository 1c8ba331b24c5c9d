"""What classifiers other than a victim's own head read from its features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._errors import bad, check_choice, check_count
from .separability import by_class, classes, fitted, halves, logistic_regression, rows

CLASSIFIERS = ("linear", "network")
_FEWEST = 20  # pictures: the network keeps a tenth of its rows to know when to stop, and needs one of each kind there


def refit_head(
    features: Tensor,
    labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    per_class: int = 20,
    seed: int = 0,
) -> float:
    """The accuracy of a new head on a victim's features: what they know, whatever its own head makes of it.

    features, test_features: of clean pictures, `(N, d)` and `(M, d)`. labels, test_labels: whole numbers, `(N,)` and
    `(M,)`. per_class: pictures of each class that the head is fitted to, chosen at random. seed: chooses them; with one
    seed, those of a smaller `per_class` are among those of a larger one.

    Sandoval-Segura, Singla, Geiping, Goldblum and Goldstein (2023) found that networks trained on unlearnable pictures
    have features of use all the same: with a last layer that was fitted again to some clean pictures, as Kirichenko,
    Izmailov and Wilson (2023) do against shortcuts, they classify well. So the result is to be read beside the victim's
    own accuracy, and beside that of a new head on a network of *random* weights: the new head has seen clean pictures,
    and part of what it knows is from there. The fewer those are, the more its accuracy tells of the features.

    The head is a multinomial logistic regression with the scaling and the prior of `linear_separability`. The standard
    error from M test pictures is √(a(1 − a)/M); the choice of pictures adds to it, which other seeds show.

    Raises `ValueError` for fewer than two classes, and if a class, of either set, has fewer than `per_class` pictures
    to choose from.
    """
    train, test = _features("features", features), _features("test_features", test_features)
    if test.shape[1] != train.shape[1]:
        raise bad("test_features", f"shape {tuple(test.shape)}", f"(M, {train.shape[1]}), as wide as features")
    labels, test_labels = classes("labels", labels, len(train)), classes("test_labels", test_labels, len(test))
    check_count("per_class", per_class)
    k = 1 + max(int(labels.max()), int(test_labels.max()))
    counts = torch.bincount(labels, minlength=k)
    present = (counts + torch.bincount(test_labels, minlength=k)).nonzero()[:, 0]
    if len(present) < 2 or int(counts[present].min()) < per_class:
        given = f"classes of {counts[present].tolist()} pictures"
        raise bad("labels", given, f"two or more classes, each of at least per_class = {per_class}")
    order = by_class(labels, check_count("seed", seed, 0))
    chosen = torch.cat([order[labels[order] == c][:per_class] for c in present])
    answer = fitted(logistic_regression(train.shape[1]), train[chosen], labels[chosen])
    return int((answer(test) == test_labels).sum()) / len(test)


def proxy_a_distance(clean: Tensor, poisoned: Tensor, *, classifier: str = "linear", seed: int = 0) -> float:
    """How plainly features of poisoned pictures differ from clean ones: 2(1 − 2 · error) of telling them apart.

    0: a classifier can only guess which is which; 2: it is always right. clean, poisoned: `(N, d)`, row i of both
    belongs to picture i; N ≥ 20. classifier: "linear", a logistic regression with the scaling and the prior of
    `linear_separability`, or "network", with one hidden layer of 64. seed: decides the halves and the network's start.

    Ben-David, Blitzer, Crammer and Pereira (2007) put the error of a trained classifier in the place of the least one
    that is possible, to estimate the A-divergence, which bounds what a shift does to errors (Ben-David et al. 2010).
    A trained classifier does not beat the best one, so up to chance it is estimated from below.

    Half of the pictures train the classifier and the other half tests it, and the other way round. Both copies of a
    picture stay on one side: otherwise the classifier would recognise, in a copy of a picture that it was trained on,
    the picture, answer as it learnt there, and be wrong, so that values far below 0 came out.

    Copies that are answered alike add exactly ½ to the mean error, one being right and one wrong: so identical features
    read 0, whatever the classifier. Copies that are answered differently add 0 or 1, at chance equally often. If a
    share q of the pictures is answered so, the error on a half, of N/2, has the variance q/(2N), and the distance the
    standard error 2√(2q/N): 2/√N for answers that are independent (q = ½), less for copies that are much alike. The
    mean over both halves has at most that. It would have 1/√2 of it if they erred independently of each other; but
    where the halves happen to agree, both classifiers gain. (Linear, 200 pictures of 5 features, answers independent:
    0.123 over 400 draws, between 0.100 and 0.141.)

    Raises `ValueError` for shapes that differ and fewer than 20 pictures.
    """
    sides = _features("clean", clean), _features("poisoned", poisoned)
    if sides[1].shape != sides[0].shape or len(sides[0]) < _FEWEST:
        shapes = " and ".join(str(tuple(side.shape)) for side in sides)
        raise bad("clean and poisoned", f"shapes {shapes}", f"two alike of at least {_FEWEST} pictures")
    check_choice("classifier", classifier, CLASSIFIERS)
    check_count("seed", seed, 0, 2**32 - 1)  # what scikit-learn takes
    n, width = sides[0].shape
    half = halves(torch.zeros(n, dtype=torch.int64), seed)
    wrong = 0
    for test in (half, ~half):
        which = torch.arange(2).repeat_interleave(int((~test).sum()))
        train = torch.cat([side[~test] for side in sides])
        answer = fitted(_network(seed) if classifier == "network" else logistic_regression(width), train, which)
        # Each side by itself: the same rows in the same places are rounded alike, and get the same answers.
        wrong += sum(int((answer(side[test]) != kind).sum()) for kind, side in enumerate(sides))
    return 2 * (1 - 2 * wrong / (2 * n))


def _network(seed: int) -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((64,), max_iter=200, early_stopping=True, random_state=seed)


def _features(argument: str, values: Tensor) -> Tensor:
    values = torch.as_tensor(values)
    if values.ndim != 2 or values.numel() == 0:
        raise bad(argument, f"shape {tuple(values.shape)}", "features (N, d), at least one of each")
    return rows(argument, values)
