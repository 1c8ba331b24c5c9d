"""Why noise works: what can be read from the noise alone, without the pictures."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ._errors import bad, check_count
from .perturbation import Perturbation


def linear_separability(noise: Perturbation | Tensor, labels: Tensor, *, seed: int = 0) -> float:
    """How well a linear model tells the classes from the noise alone: its accuracy on noise it was not fitted to.

    noise: `(N, …)`. labels: whole numbers `(N,)`. seed: decides the halves.

    Yu, Zhang, Chen, Yin and Liu (2022) found the noise of many methods linearly separable: a linear model can learn
    it, and so a network learns it first. They fitted and tested on the same noise. That would call any noise separable
    that has more pixels than there are pictures in a class, random noise too. Here the pictures of each class are split
    at random into halves; a multinomial logistic regression is fitted to one half and tested on the other, and the
    other way round, so that each picture is tested once. The result is the share that is right.

    Chance is the share of the largest class, 1/K for even ones. Noise that was published is better compared with
    random noise of the same size: clipping to [0, 255] cuts off what would leave the range, so the published noise
    carries traces of the picture, and they tell classes. (Random noise of 8/255 on 4,000 pictures of
    Fashion-MNIST, where most of the background is 0: 0.54 when published, 0.10 before it is clipped.)

    Each pixel is scaled to variance 1, and weights have a Gaussian prior of variance 10/d for d pixels, so that logits
    have one of about 10 whatever d. Raises `ValueError` if fewer than two classes have two pictures.
    """
    from sklearn.exceptions import ConvergenceWarning  # part of the book, not of the library's own needs
    from sklearn.linear_model import LogisticRegression

    pixels = (noise.delta if isinstance(noise, Perturbation) else torch.as_tensor(noise)).flatten(1).float().cpu()
    labels = torch.as_tensor(labels).cpu()
    if labels.shape != (len(pixels),) or labels.is_floating_point() or bool((labels < 0).any()):
        given = f"{labels.dtype} {tuple(labels.shape)}"
        raise bad("labels", given, f"a whole number >= 0 for each of {len(pixels)} pictures")
    if not bool(torch.isfinite(pixels).all()):
        raise bad("noise", "NaN or infinite values", "finite values")
    counts = torch.bincount(labels)
    if int((counts >= 2).sum()) < 2:
        raise bad("labels", f"classes of {counts.tolist()} pictures", "two or more classes of at least two")
    halves = _halves(labels, check_count("seed", seed, 0))
    right = 0
    for test in (halves, ~halves):
        mean, deviation = pixels[~test].mean(0), pixels[~test].std(0)
        scaled = (pixels - mean) / torch.where(deviation > 0, deviation, 1)  # a pixel that never changes says nothing
        model = LogisticRegression(C=10 / pixels.shape[1], max_iter=300)  # L-BFGS
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # after 300 steps it is told well enough
            model.fit(scaled[~test].numpy(), labels[~test].numpy())
        right += int((torch.from_numpy(model.predict(scaled[test].numpy())) == labels[test]).sum())
    return right / len(labels)


def _halves(labels: Tensor, seed: int) -> Tensor:
    """A random half of each class, as a mask `(N,)`."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = order[labels[order].argsort(stable=True)]
    half = torch.zeros(len(labels), dtype=torch.bool)
    half[by_class[::2]] = True
    return half
