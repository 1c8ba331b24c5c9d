"""How well a linear model tells classes apart, and how such a model is fitted here."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._errors import bad, check_count
from ..perturbation import Perturbation


def linear_separability(noise: Perturbation | Tensor, labels: Tensor, *, seed: int = 0) -> float:
    """How well a linear model tells the classes from the noise alone: its accuracy on noise it was not fitted to.

    noise: `(N, …)`; features `(N, d)`, or whatever else there is one of for each picture, are measured the same way.
    labels: whole numbers `(N,)`. seed: decides the halves.

    Yu, Zhang, Chen, Yin and Liu (2022) found the noise of many methods linearly separable: a linear model can learn
    it, and so a network learns it first. They fitted and tested on the same noise. That would call any noise separable
    that has more pixels than there are pictures in a class, random noise too. Here the pictures of each class are split
    at random into halves; a multinomial logistic regression is fitted to one half and tested on the other, and the
    other way round, so that each picture is tested once. The result is the share that is right.

    Chance is the share a of the largest class, 1/K for even ones, give or take up to √(2a(1 − a)/N), the standard error
    on one half: the halves may err together, because where they happen to agree, both models gain. Noise that was
    published is better compared with random noise of the same size: clipping to [0, 255] cuts off what would leave the
    range, so the published noise carries traces of the picture, and they tell classes. (Random noise of 8/255 on 4,000
    pictures of Fashion-MNIST, where most of the background is 0: 0.54 when published, 0.10 before it is clipped.)

    Each pixel is scaled to variance 1, and weights have a Gaussian prior of variance 10/d for d pixels, so that logits
    have one of about 10 whatever d. Raises `ValueError` if fewer than two classes have two pictures.
    """
    pixels = rows("noise", noise.delta if isinstance(noise, Perturbation) else noise)
    labels = classes("labels", labels, len(pixels))
    counts = torch.bincount(labels)
    if int((counts >= 2).sum()) < 2:
        raise bad("labels", f"classes of {counts.tolist()} pictures", "two or more classes of at least two")
    half = halves(labels, check_count("seed", seed, 0))
    right = 0
    for test in (half, ~half):
        answer = fitted(logistic_regression(pixels.shape[1]), pixels[~test], labels[~test])
        right += int((answer(pixels[test]) == labels[test]).sum())
    return right / len(labels)


def rows(argument: str, values: Tensor) -> Tensor:
    """`values` `(N, …)` as finite float32 `(N, d)` on the CPU, where scikit-learn computes, else a `ValueError`."""
    values = torch.as_tensor(values).detach()
    if values.ndim < 2 or values.is_complex():
        raise bad(argument, f"{values.dtype} {tuple(values.shape)}", "real numbers (N, d)")
    flat = values.flatten(1).float().cpu()
    if not bool(torch.isfinite(flat).all()):
        raise bad(argument, "NaN or infinite values", "finite values")
    return flat


def classes(argument: str, labels: Tensor, n: int) -> Tensor:
    """`labels` as int64 `(n,)` on the CPU, none negative, else a `ValueError`."""
    labels = torch.as_tensor(labels).cpu()
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != (n,) or not whole or bool((labels < 0).any()):
        given = f"{labels.dtype} {tuple(labels.shape)}"
        raise bad(argument, given, f"a whole number >= 0 for each of {n} pictures")
    return labels.long()


def by_class(labels: Tensor, seed: int) -> Tensor:
    """Where the pictures of each class are, `(N,)`: class after class, each in random order."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return order[labels[order].argsort(stable=True)]


def halves(labels: Tensor, seed: int) -> Tensor:
    """A random half of each class, as a mask `(N,)`."""
    half = torch.zeros(len(labels), dtype=torch.bool)
    half[by_class(labels, seed)[::2]] = True
    return half


def logistic_regression(width: int) -> Any:
    """By L-BFGS, for `width` columns of variance 1, with a prior that gives logits a variance of about 10."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10 / width, max_iter=300)


def fitted(classifier: Any, train: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """A scikit-learn classifier's answers, labels `(m,)` for rows `(m, d)`, after a fit to `train` `(n, d)`.

    Every column is first scaled to mean 0 and variance 1 over `train`.
    """
    from sklearn.exceptions import ConvergenceWarning

    mean, deviation = train.mean(0), train.std(0)
    deviation = torch.where(deviation > 0, deviation, 1)  # a column that never changes says nothing

    def scaled(given: Tensor) -> Any:
        return ((given - mean) / deviation).numpy()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after the steps that it has it is told well enough
        classifier.fit(scaled(train), labels.numpy())
    return lambda given: torch.from_numpy(classifier.predict(scaled(given)))
