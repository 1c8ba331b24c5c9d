"""What a trainer makes of published pictures: small networks are trained on them, and tested on pictures held out.

The pictures themselves are split again and again. On one part networks are trained as a trainer would train them: on
the unprotected pictures, on the published ones, and on what counter-measures make of these. The other part, in the
unprotected version, tells what they have learned. What is said about it in words is decided by the numbers alone, and
where they do not decide, that is what is said.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .._errors import bad, check_choice, check_count
from ..cache import Cache
from ..data import ImageSet
from ..defenses.pictures import through_a_file
from ..noise import METHODS
from ..profiles import Profile
from ..train import accuracy, steps_per_epoch
from .spread import square
from .work import threads

_PARTS = 6  # of which one is held out
_LONGEST = 65_500  # pixels a side that libjpeg stores

# Of SGD, however few the pictures: steps of a victim, steps in a surrogate's life, batches in an epoch as far as
# there can be, and pictures in a batch. Chosen on 250 to 1,000 pictures of CIFAR-10, as JPEG copies.
_VICTIM_STEPS = 600
_SURROGATE_STEPS = 300
_BATCHES = 24
_LEAST_BATCH = 32
_BATCH_SIZE = 128  # of `fit`, where a profile says nothing else


# What a trainer does to the pictures


@dataclass(frozen=True)
class View:
    """How a trainer looks at a picture.

    title: as a part of a sentence. function: `(pixels (H, W, C) uint8, side) → (side, side, 3)`.
    """

    title: str
    function: Callable[[np.ndarray, int], np.ndarray]

    def __call__(self, pixels: np.ndarray, side: int) -> np.ndarray:
        """Of the full picture, uint8 `(H, W, C)` with C = 1 or 3, what is trained on: `(side, side, 3)`."""
        return self.function(pixels, side)


def _jpeg(pixels: np.ndarray, side: int, *, quality: int) -> np.ndarray:
    """Stored as JPEG at full size, then the square. What is too long for a JPEG file is not stored as one."""
    if max(pixels.shape) <= _LONGEST:
        stored = through_a_file(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, quality)
        pixels = stored.reshape(pixels.shape)
    return square(pixels, side)


def _grayscale(pixels: np.ndarray, side: int) -> np.ndarray:
    grey = np.asarray(Image.fromarray(square(pixels, side)).convert("L"))
    return np.repeat(grey[:, :, None], 3, axis=2)


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
    half = Image.fromarray(square(pixels, max(1, side // 2)))
    return np.asarray(half.resize((side, side), Image.Resampling.BICUBIC))


VIEWS: Mapping[str, View] = MappingProxyType(
    {"plain": View("as they are", square)}
    | {f"jpeg-{q}": View(f"saved as JPEG at quality {q}", partial(_jpeg, quality=q)) for q in (90, 70, 50, 30)}
    | {
        "grayscale": View("turned to grey", _grayscale),
        "resized": View("shrunk to half the size and enlarged again", _resized),
    }
)


@dataclass(frozen=True, eq=False)
class Stored(Mapping[str, ImageSet]):
    """The pictures under each of `VIEWS`, from an array in a file: a set is read when it is asked for, and not kept.

    pixels: uint8 `(n, views, 3, s, s)`, memory-mapped, which other processes open instead of getting a copy. places:
        those of the n that belong to the sets. labels: theirs. name: of the sets, before that of the view.
    """

    pixels: np.ndarray
    places: Sequence[int]
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    device: torch.device

    def __getitem__(self, view: str) -> ImageSet:
        pixels = torch.from_numpy(np.ascontiguousarray(self.pixels[self.places, [*VIEWS].index(view)]))
        return ImageSet(pixels, self.labels, self.classes, f"{self.name}, {view}").to(self.device)

    def __iter__(self) -> Iterator[str]:
        return iter(VIEWS)

    def __len__(self) -> int:
        return len(VIEWS)


# Settings for few pictures


def crafting(method: str, images: ImageSet, size: Profile) -> dict[str, Any]:
    """Settings for `craft`: the profile's, but with enough steps for these pictures, however few.

    A profile counts in rounds, epochs of a surrogate, which are made for thousands of pictures. Of hundreds an epoch
    has a handful of steps, and noise that was crafted against surrogates that have learned nothing teaches nothing.
    So batches shrink until an epoch has some tens of steps, and the lives of surrogates are made long enough: there
    are as many as before. (MI-UE for 1,000 pictures of CIFAR-10, as JPEG copies: a victim gets 0.42 from unprotected
    ones, 0.27 with lives of 192 steps, 0.22 with 312.) Where a profile has these steps already, its settings stay.

    Raises `ValueError` for a method that has no budget a pixel.
    """
    check_choice("method", method, [name for name, known in METHODS.items() if known.norm == "L∞"])
    given = dict(size.noise[method])
    asked = METHODS[method].settings | given
    if "epochs" not in asked or asked.get("model_batches") is not None:
        return given  # no model that learns in epochs
    batch_size = _batch_size(len(images), asked["batch_size"])
    life = math.ceil(_SURROGATE_STEPS / steps_per_epoch(len(images), batch_size))
    changed = {"batch_size": batch_size, "epochs": max(asked["epochs"], life)}
    if asked.get("fresh_every") is not None:
        life = max(asked["fresh_every"], life)
        changed |= {"fresh_every": life, "epochs": math.ceil(asked["epochs"] / asked["fresh_every"]) * life}
    return given | changed


def training(n: int, size: Profile) -> dict[str, Any]:
    """Settings for `fit` that make the most of `n` pictures: the profile's, but with enough steps however few."""
    given = dict(size.victim)
    batch_size = _batch_size(check_count("n", n, 2), given.get("batch_size", _BATCH_SIZE))
    enough = math.ceil(_VICTIM_STEPS / steps_per_epoch(n, batch_size))
    return given | {"batch_size": batch_size, "epochs": max(given["epochs"], enough)}


def _batch_size(n: int, most: int) -> int:
    """So that an epoch has `_BATCHES` of them, but large enough for batch normalisation."""
    return min(most, max(_LEAST_BATCH, n // _BATCHES))


# What is measured


def sample(labels: Sequence[int] | Tensor, most: int, seed: int) -> list[int]:
    """The places of `most` of these labels, or of all if they are fewer, in order: drawn at random, and as many of
    each class as of any other while it has them."""
    given = torch.as_tensor(labels)
    check_count("most", most)
    order = torch.randperm(len(given), generator=torch.Generator().manual_seed(check_count("seed", seed, 0)))
    turn = torch.zeros(len(given), dtype=torch.int64)  # whose turn it is: first one of each class, then another …
    for members in _members(given[order]):
        turn[members] = torch.arange(len(members))
    chosen: list[int] = order[turn.argsort(stable=True)][:most].sort().values.tolist()
    return chosen


def split(labels: Tensor, number: int, seed: int) -> tuple[Tensor, Tensor]:
    """The places of the training and of the held-out pictures, int64 and in order.

    A sixth of each class is held out: rounded, but at least one, and none of a class with a single picture. For splits
    of one `seed` the `number` says which sixth: six of them, numbered from 0, hold out every picture about once.
    """
    generator = torch.Generator().manual_seed(seed)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for members in _members(labels):
        order = members[torch.randperm(len(members), generator=generator)]
        count = _held_out(len(members))
        held_out[order[(number * count + torch.arange(count)) % len(order)]] = True
    return (~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]


def _held_out(n: int) -> int:
    return max(1, round(n / _PARTS)) if n > 1 else 0


def _members(labels: Tensor) -> Iterator[Tensor]:
    """The places of each class that there is."""
    for label in torch.unique(labels):
        yield (labels == label).nonzero()[:, 0]


def verdict(
    clean: Mapping[str, ImageSet],
    published: Mapping[str, ImageSet],
    *,
    size: Profile,
    seeds: int = 6,
    seed: int = 0,
    cache: Cache,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """What networks learn from the published pictures, and what they would have learned from the unprotected ones.

    clean, published: the squares of the same pictures, in the same order, under views of `VIEWS`; "plain" at least.
        Each set is asked for when it is needed, and not kept. The mappings go to other processes: see `Stored`.
    size: whose network is trained, as `training` says. seeds: how many splits and trainings, from `seed` on.
    cache: what is trained stays there: a run that was stopped goes on where it was. progress: called with a line of
        text after every network.

    For each of the `seeds` a sixth of every class is held out (see `split`). Networks are trained on the others:
    unprotected; published; and published under each other view. The last are tested on held-out pictures under the
    same view, all of them unprotected. In one seed, all networks begin with the same weights.

    Returns plain values, the same on every run: "model", "settings" for `fit`, "side" in pixels, the numbers of
    pictures to "train" and "test" on in a seed and how many were "tested" in all seeds, "chance" (what naming the
    largest class gets of the test), the "seeds", and "rows", each with "name" ("clean" or that of a view), "title",
    "accuracy", one number in [0, 1] a seed, and "outcome" (see `outcomes`; None for the first). There are no rows where
    nothing can be held out.

    Of pictures on a CPU, networks are trained side by side where joblib is there, and one after the other where not or
    where there is a GPU, on one thread each, so that numbers do not depend on it.

    Raises `ValueError` for sets that do not belong together or have one class only.
    """
    labels, side, device = _check_sets(clean, published)
    check_count("seeds", seeds)
    check_count("seed", seed, 0)
    parts = [split(labels, number, seed) for number in range(seeds)]
    train, test = (len(part) for part in parts[0])
    counts = torch.bincount(labels[parts[0][1]] if test else labels)
    settings = training(train, size)
    about: dict[str, Any] = {
        "model": size.model,
        "settings": settings,
        "side": side,
        "train": train,
        "test": test,
        "tested": len(torch.unique(torch.cat([out for _, out in parts]))),
        "chance": int(counts.max()) / int(counts.sum()),
        "seeds": [seed + 1 + number for number in range(seeds)],
    }
    if test == 0:
        return about | {"rows": []}
    sets = [("clean", "Unprotected", clean, "plain")]
    for view in (name for name in VIEWS if name in clean):
        title = "Protected" if view == "plain" else f"Protected, {VIEWS[view].title}"
        sets.append((view, title, published, view))
    calls = [
        partial(_tested, cache, size.model, shown, clean, view, part, one, settings)
        for _, _, shown, view in sets
        for part, one in zip(parts, about["seeds"], strict=True)
    ]
    trained = _side_by_side(cache, calls) if device.type == "cpu" else (call() for call in calls)
    accuracies = list(_told(trained, len(calls), progress))
    rows: list[dict[str, Any]] = [
        {"name": name, "title": title, "accuracy": accuracies[row * seeds : (row + 1) * seeds]}
        for row, (name, title, _, _) in enumerate(sets)
    ]
    found = about | {"rows": rows}
    for row, outcome in zip(rows, [None, *outcomes(found)], strict=True):
        row["outcome"] = outcome
    return found


def _tested(
    cache: Cache,
    model: str,
    shown: Mapping[str, ImageSet],
    asked: Mapping[str, ImageSet],
    view: str,
    part: tuple[Tensor, Tensor],
    seed: int,
    settings: Mapping[str, Any],
) -> float:
    """The accuracy of a victim that is trained on one part of `shown`, and tested on the other part of `asked`."""
    train, test = part
    victim, _ = cache.fit(model, shown[view].subset(train), seed=seed, **settings)
    return accuracy(victim, asked[view].subset(test))


def _side_by_side(cache: Cache, calls: Sequence[Callable[[], float]]) -> Iterator[float]:
    """The results of calls that work on the CPU, on one thread each."""
    # Where there is a GPU, `at_once` makes the calls here, with as many threads as there are.
    if importlib.util.find_spec("joblib") and not torch.cuda.is_available():
        yield from cache.at_once(calls)
        return
    for call in calls:
        with threads(1):  # as there; a small network hardly gains from more
            value = call()
        yield value


def _told(found: Iterator[float], total: int, progress: Callable[[str], None] | None) -> Iterator[float]:
    start = time.perf_counter()
    for done, value in enumerate(found, 1):
        if progress is not None:
            seconds = (time.perf_counter() - start) / done * (total - done)
            progress(f"verdict: {done} of {total} networks trained, about {seconds:.0f} s to go")
        yield value


def _check_sets(clean: Mapping[str, ImageSet], published: Mapping[str, ImageSet]) -> tuple[Tensor, int, torch.device]:
    """The labels of all sets, on the CPU; the side of their pictures in pixels; and where they lie."""
    if set(published) != set(clean) or "plain" not in clean or not set(clean) <= set(VIEWS):
        given = f"views {sorted(published)} of pictures that are there as {sorted(clean)}"
        raise bad("published", given, f"the same views of both, 'plain' and others of {', '.join(VIEWS)}")
    first = clean["plain"]
    for argument, sets in (("clean", clean), ("published", published)):
        for name, images in sets.items():
            if not torch.equal(images.labels, first.labels) or images.images.shape != first.images.shape:
                raise bad(f"{argument}[{name!r}]", repr(images), f"the pictures of clean['plain'], {first!r}")
    if len(torch.unique(first.labels)) < 2:
        raise bad("clean", "pictures of one class", "two classes or more")
    return first.labels.cpu(), first.images.shape[-1], first.device


# What is said about it

_FEWEST = 30  # pictures to test on
_SIZEABLE, _SMALL = 1 / 2, 1 / 3  # of what a network learns from unprotected pictures, beyond chance
# 97.5 % quantiles of Student's t with 1, 2, … 9 degrees of freedom; with more, the ninth is on the safe side.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
_NORMAL = 1.960


def outcomes(verdict: Mapping[str, Any]) -> list[str]:
    """What the numbers decide of each row but the first: "protected", "in part", "in part at most", "not protected" or
    "unclear".

    All are "unclear" with fewer than 30 pictures to test on, over all seeds; with one training, which does not tell
    how another would have gone; and where a network does not learn clearly more than chance from the pictures,
    unprotected as they are. Else each row is compared with the first, unprotected pictures. With d the
    difference of the mean accuracies, and g what a network learns from unprotected pictures, their accuracy minus
    chance, the pictures of that row

    - are protected if d is clearly above 0, and half of g or more;
    - are protected in part if d is clearly above 0, and less than that;
    - are not protected if d may be 0, and is clearly below a third of g;
    - are protected in part at most if d may be 0, and is clearly below half of g;
    - else it is unclear: nothing and half of g are both possible.

    Clearly: by an interval of 95 % for d, the wider of two. One is Student's for paired differences, d_k of seed k
    with standard deviation s: t · s/√n for n seeds, t = 4.3 for three. In one seed both networks have the same
    pictures, split and first weights, so that d_k does not feel what these do to both; its scatter holds what is left
    of them, the chances of training and, since seeds hold out other pictures, those of the test. But s from three
    numbers is by luck often much too small. So the interval is at least that of Agresti and Caffo (2000) for two
    shares of as many pictures as were tested, as if training had no scatter at all: 1.96 · √(p(1 − p)/m + q(1 − q)/m),
    with two pictures more, one of them right, in each share. (That one is too wide for the same pictures, which are
    hard or easy for both networks.)

    Rows near half of g fall on either side of it by chance, which is why `sentences` gives the numbers too. Six seeds
    tell much more than three: t is 2.6 instead of 4.3, and twice as many pictures are tested.

    Trainings share most of their pictures. So the intervals speak of new test pictures and new trainings on the
    pictures at hand, not of other people's pictures. And each row stands for itself: of twenty, one may be wrong.
    """
    if _too_few(verdict):
        return ["unclear"] * len(verdict["rows"][1:])
    first, *others = (row["accuracy"] for row in verdict["rows"])
    return [_outcome(first, row, verdict["tested"], verdict["chance"]) for row in others]


def _too_few(verdict: Mapping[str, Any]) -> str:
    """The sentence that says why nothing is clear; empty where something may be."""
    tested, chance = verdict["tested"], verdict["chance"]
    if tested < _FEWEST:
        return f"Too few pictures to measure what the protection does: {tested} to test a network on."
    accuracy = verdict["rows"][0]["accuracy"]
    if len(accuracy) < 2:
        return "Too few trainings to measure what the protection does: one does not tell how another would have gone."
    half = _half_width([a - chance for a in accuracy], chance * (1 - chance) / tested)
    if _mean(accuracy) - half > chance:
        return ""
    return (
        "Too few pictures to measure what the protection does: even from the unprotected ones, networks get "
        f"{_percent(_mean(accuracy))} right, where guessing gets {_percent(chance)}."
    )


def sentences(verdict: Mapping[str, Any]) -> list[str]:
    """What a verdict says, in words for everyone: a sentence for each row; one in all where nothing is clear."""
    if too_few := _too_few(verdict):
        return [too_few]
    first, *others = verdict["rows"]
    learned, chance = _mean(first["accuracy"]), verdict["chance"]
    found = outcomes(verdict)
    said = [f"From the unprotected pictures, networks learn: they get {_percent(learned)} of new ones right, where "
            f"guessing gets {_percent(chance)}."]  # fmt: skip
    for row, outcome in zip(others, found, strict=True):
        title = VIEWS[row["name"]].title
        stay = outcome == found[0] == "protected" and row["name"] != "plain"
        words = "stay protected" if stay else _WORDS[outcome]
        numbers = f"networks get {_percent(_mean(row['accuracy']))} right, against {_percent(learned)} from the"
        unsure = ", too uncertain to tell with so few pictures" if outcome == "unclear" else ""
        said.append(f"{title[0].upper()}{title[1:]}, the pictures {words}: {numbers} unprotected ones{unsure}.")
    return said


_WORDS = {
    "protected": "are protected",
    "in part": "are protected in part",
    "in part at most": "are protected in part at most, if at all",
    "not protected": "are not protected",
    "unclear": "may or may not be protected",
}


def _outcome(first: Sequence[float], row: Sequence[float], tested: int, chance: float) -> str:
    """Of a row, against the first: a key of `_WORDS`, as `outcomes` says."""
    shares = [(_mean(accuracies) * tested + 1) / (tested + 2) for accuracies in (first, row)]
    binomial = sum(share * (1 - share) / (tested + 2) for share in shares)
    half = _half_width([a - b for a, b in zip(first, row, strict=True)], binomial)
    difference = _mean(first) - _mean(row)
    sizeable = _SIZEABLE * (_mean(first) - chance)
    if difference > half:
        return "protected" if difference >= sizeable else "in part"
    if difference + half < _SMALL * (_mean(first) - chance):
        return "not protected"
    return "in part at most" if difference + half < sizeable else "unclear"


def _half_width(values: Sequence[float], least: float) -> float:
    """Of a 95 % interval for the mean of two values or more, one a seed, whose variance is not below `least`."""
    variance = sum((value - _mean(values)) ** 2 for value in values) / (len(values) - 1)
    by_seeds = _T[min(len(values) - 1, len(_T)) - 1] * math.sqrt(variance / len(values))
    return max(by_seeds, _NORMAL * math.sqrt(least))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
