"""What `protect` would do, found out in seconds and without writing anything."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..data import ImageSet
from ..models import build
from ..noise import METHODS, craft
from ..train import History, fit
from . import verdict
from .picture import MOST_PIXELS, Picture, Unreadable, encode, pixels_of, read
from .protect import begun_with, protect, surveyed
from .request import Request, request, state
from .seen import compare
from .sources import bytes_of, digest
from .spread import spread, square
from .stages import BYTES, lines_of
from .tree import Photo, Survey
from .verdict import VIEWS
from .work import MEMORY, threads, workers

_OPENED, _TRIED = 100, 5  # pictures whose size is looked up, and that are read and encoded
_SECONDS = 5.0  # for each of the measurements, about
_BASE = 900 * 1024**2  # bytes of memory that PyTorch takes once it is imported
_PROCESS = 400 * 1024**2  # of a process that trains victims beside others
_CRAFTED = 8  # bytes of memory for each value of a square: itself, its noise in float32 and in levels, copies


def plan(photos: str | Path, out: str | Path, **arguments: Any) -> dict[str, Any]:
    """What `protect` of the same arguments would do. Nothing is written; what it would refuse, this refuses.

    "state": of the output, "new", "begun" or "finished"; "published": how many pictures are. "classes": name → number
    of pictures, by their names. "left_out": files that are left out by their names, with reasons. "unreadable": of
    "opened" files, evenly spread, those that cannot be read. Estimated from these: "pixels" of all pictures, "bytes" of
    the output, "seconds" of each stage, as measured on a few pictures and a few rounds here (None where that cannot be
    known beforehand), and "memory" in bytes.

    Raises `ValueError` as `protect` does.
    """
    call = signature(protect).bind(photos, out, **arguments)
    call.apply_defaults()
    del call.arguments["progress"]
    wanted = request(**call.arguments)
    tree = begun_with(wanted, 1, surveyed(wanted), None)
    counts = Counter(photo.label for photo in tree.photos)
    sizes, unreadable = _opened(wanted, tree.photos)
    pixels = round(float(np.mean(sizes)) * len(tree.photos)) if sizes else 0
    reading, publishing, bytes_ = _tried(wanted, tree.photos)
    images = _unseen(wanted, tree)
    return {
        "state": state(wanted.out),
        "published": len(lines_of(wanted, "published")),
        "classes": {name: counts[label] for label, name in enumerate(tree.classes)},
        "pictures": len(tree.photos),
        "left_out": [{"source": left.source, "reason": left.reason} for left in tree.left_out],
        "opened": len(sizes) + len(unreadable),
        "unreadable": unreadable,
        "pixels": pixels,
        "bytes": round(bytes_ * pixels),
        "seconds": {
            "reading": reading * pixels / workers(),
            "crafting": _crafting(wanted, images),
            "publishing": publishing * pixels / workers(),
            "victims": _victims(wanted, images) if wanted.report else 0.0,
        },
        "memory": _BASE + max(_making(images, max(sizes, default=0)), _judging(wanted, images)),
    }


def _making(images: ImageSet, largest: int) -> int:
    """Bytes that noise takes, and pictures in the making, where the largest has so many pixels."""
    return _CRAFTED * images.images.numel() + max(BYTES * largest, min(MEMORY, workers() * BYTES * largest))


def _judging(wanted: Request, images: ImageSet) -> int:
    """Bytes that the verdict takes beside the squares: all views in a file and in sets of pictures, and processes."""
    if not wanted.report:
        return 0
    judged = min(len(images), wanted.seen)
    views = 2 * len(VIEWS) * judged * images.images[0].numel()
    beside = _beside(wanted)
    return images.images.numel() + 2 * views + (_PROCESS * beside if beside > 1 else 0)


def _beside(wanted: Request) -> int:
    """How many processes train victims side by side."""
    if torch.cuda.is_available() or not find_spec("joblib"):
        return 1
    return min(os.cpu_count() or 1, wanted.seeds * (1 + len(VIEWS)))


# Pictures


def _spaced(photos: Sequence[Photo], count: int) -> list[Photo]:
    places = np.linspace(0, len(photos) - 1, min(count, len(photos)))
    return [photos[round(float(place))] for place in places]


def _opened(wanted: Request, photos: Sequence[Photo]) -> tuple[list[int], list[dict[str, str]]]:
    """Pixels of some pictures, and those among them that cannot be read, with reasons."""
    sizes, unreadable = [], []
    end = time.perf_counter() + _SECONDS
    for photo in _spaced(photos, _OPENED):
        try:
            data = bytes_of(wanted.photos / photo.source)
            if 0 < (pixels := pixels_of(data)) <= MOST_PIXELS:
                sizes.append(pixels)
            else:
                read(data)
        except (Unreadable, OSError) as error:
            unreadable.append({"source": photo.source, "reason": str(error)})
        if time.perf_counter() > end:
            break
    return sizes, unreadable


def _tried(wanted: Request, photos: Sequence[Photo]) -> tuple[float, float, float]:
    """Seconds to read, seconds to publish, and bytes of the output, all for a pixel."""
    generator = np.random.default_rng(wanted.seed)
    most = min(wanted.most, 8)
    levels = generator.integers(-most, most + 1, (3, wanted.size, wanted.size), np.int16)
    black = np.zeros((16, 16, 3), np.uint8)
    compare(black, spread(black, levels, most))  # compiled on their first call
    reading = publishing = written = pixels = 0.0
    end = time.perf_counter() + _SECONDS
    for photo in _spaced(photos, _TRIED):
        begun = time.perf_counter()
        try:
            data = bytes_of(wanted.photos / photo.source)
            digest(data)
            picture = read(data)
            square(picture.pixels, wanted.size)
            middle = time.perf_counter()
            made = spread(picture.pixels, levels, most)
            encoded = encode(Picture(made, picture.alpha), wanted.suffix)
            back = read(encoded)
        except (Unreadable, OSError, ValueError):
            continue
        compare(picture.pixels, made)
        if wanted.report:
            for view in VIEWS.values():
                view(picture.pixels, wanted.size)
                view(back.pixels, wanted.size)
        reading += middle - begun
        publishing += time.perf_counter() - begun
        written += len(encoded)
        pixels += made.shape[0] * made.shape[1]
        if time.perf_counter() > end:
            break
    return (reading / pixels, publishing / pixels, written / pixels) if pixels else (0.0, 0.0, 0.0)


# Networks


class _Enough(Exception):
    """What has been measured is enough."""


class _Clock:
    """Times of the ends of rounds; raises `_Enough` after three, or when the time is up."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def tick(self, *_: object) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) > 3 or self.times[-1] - self.times[0] > _SECONDS:
            raise _Enough

    @property
    def seconds(self) -> float:
        """Of a round, the first, in which everything is made ready, left out if there are others."""
        rounds = np.diff(self.times)
        return float(rounds[1:].mean() if len(rounds) > 1 else rounds.mean())


def _unseen(wanted: Request, tree: Survey) -> ImageSet:
    """As many squares as there will be, without any pixels of theirs: settings depend on how many there are."""
    labels = torch.tensor([photo.label for photo in tree.photos])
    black = torch.zeros((1, 3, wanted.size, wanted.size), dtype=torch.uint8)
    return ImageSet(black.expand(len(labels), -1, -1, -1), labels, tree.classes).to(wanted.device)


def _some(wanted: Request, images: ImageSet, model: str) -> ImageSet:
    """A few pictures of noise to measure on: as many as a few passes through the network take a second for."""
    generator = torch.Generator().manual_seed(wanted.seed)
    shape = (256, *images.images.shape[1:])
    pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8).to(images.device)
    classes = max(2, min(len(images.classes), 16))
    few = ImageSet(pixels, torch.arange(256) % classes)
    network = build(model, few, seed=0)
    begun = time.perf_counter()
    loss = F.cross_entropy(network(few.floats(slice(16))), few.labels[:16])
    torch.autograd.grad(loss, list(network.parameters()))
    passes = (time.perf_counter() - begun) / 16
    count = min(len(images), 256, max(2 * classes, int(_SECONDS / 5 / max(passes, 1e-6) / 4)))
    return few.subset(slice(max(count, 2 * classes)))


def _crafting(wanted: Request, images: ImageSet) -> float | None:
    """Seconds, from a few rounds on a few pictures; a method without rounds is run on those."""
    method, settings = METHODS[wanted.method], wanted.crafting(images)
    has_rounds = method.takes("execution")
    if method.takes("progress") and not has_rounds:
        return None
    few = _some(wanted, images, settings.get("surrogate", wanted.profile.model))
    clock = _Clock()
    with suppress(_Enough):
        craft(wanted.method, few, progress=clock.tick if has_rounds else None, **settings)
    share = len(images) / len(few)
    if has_rounds:
        rounds: int = settings.get("epochs", method.settings["epochs"])
        return clock.seconds * rounds * share
    return (time.perf_counter() - clock.times[0]) * share


def _victims(wanted: Request, images: ImageSet) -> float:
    few = _some(wanted, images, wanted.profile.model)
    trained = round(min(len(images), wanted.seen) * 5 / 6)
    settings = verdict.training(trained, wanted.profile)
    clock = _Clock()

    def on_epoch(epoch: int, history: History) -> None:
        clock.tick()

    with suppress(_Enough), threads(1):
        fit(build(wanted.profile.model, few, seed=0), few, on_epoch=on_epoch, **settings)
    epochs: int = settings.get("epochs", 12)
    victims = wanted.seeds * (1 + len(VIEWS))
    return clock.seconds * epochs * victims * trained / len(few) / _beside(wanted)
