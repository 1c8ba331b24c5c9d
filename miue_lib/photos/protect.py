"""Protect a folder of pictures: noise for all of them, published copies, and what a trainer makes of those.

Everything passes through a work folder in the output: what was asked for; a line for every picture that was looked at;
their squares; the noise; a line for every picture that was published, and how victims see it; the victims. A process
may be killed at any moment. The same command goes on, and the output is that of a run never killed, byte for byte on
one machine's CPU. With the manifest, which is written last, the output is finished and the work folder is removed.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from .._errors import bad
from .._files import write_whole
from ..cache import LIBRARY, Cache
from ..data import ImageSet
from ..models import Classifier
from ..noise import METHODS, craft
from ..noise.execution import of_rank
from ..noise.ranks import Ranks
from ..perturbation import Perturbation
from ..train import History
from . import report as page
from . import verdict
from .picture import Unreadable, read
from .report import Shown
from .request import BEGUN, FORMAT, MANIFEST, REPORT, Request, check_same, manifest, request, state, versions
from .sources import as_json, bytes_of, changes, digest, from_json
from .stages import Line, Progress, lines_of, publish, scan, squares, views
from .tree import LeftOut, Survey, survey
from .work import Steps, locked, now_and_then, remove, threads, wait_for_lock

_SHOWN, _SIDE = 6, 320  # examples in the report, and pixels a side of each
# What is kept of each picture that was looked at depends on these alone.
_OF_SCAN = ("size", "suffix", "processes", "versions", "source of miue_lib")
_PART = 4096  # squares looked at at once
_TINT = 8  # levels between the channels of a pixel that counts as grey
_IN_MEMORY = 1 << 30  # bytes of noise in the making, in float32: above, it lies in a file
_ALONE = "the only picture of its class that can be read: noise hides what the pictures of a class share"


def protect(
    photos: str | Path,
    out: str | Path,
    *,
    method: str = "miue",
    budget: int | None = None,
    size: int = 32,
    profile: str | None = None,
    seed: int = 0,
    seeds: int = 6,
    webp: bool = False,
    keep_metadata: bool = False,
    report: bool = True,
    settings: Mapping[str, Any] | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Publish the tree of pictures `photos` in `out`, with noise that hampers training on them; its manifest.

    photos: a folder `class/picture.*`, any sizes; JPEG, PNG, WebP. It is never written into.
    out: a new or empty folder for the same tree, all pictures as PNG, `manifest.json` and `report.html`. Or one that
        this function began, with the same arguments and pictures: it goes on, or, where that is finished, says so.
    method: a name of `METHODS`, which makes the noise. budget: the most that a pixel moves, in levels of 255 (None: 8),
        for methods that are bounded so. size: side in pixels of the squares that trainers are expected to make of the
        pictures: the noise is crafted for those and spread to each picture's own size. settings: of the method,
        instead of those that the profile and the number of pictures decide.
    profile: "cpu" or "gpu" (None: by the device). device: where networks work (None: a GPU where there is one).
    seed: fixes everything. seeds: victims trained for each line of the report.
    webp: write lossless WebP. keep_metadata: keep EXIF, which may tell where and when a picture was taken. report:
        whether to train victims and write what they say; without, `verdict` in the manifest is None.
    progress: called with a line of text now and then.

    The manifest holds settings, for every picture ‖δ‖∞ in levels, PSNR, SSIM and the SHA-256 of both files, and for
    every other file why it was left out. Every picture is read back after it was written: its pixels are what they were
    meant to be, and none is further than the budget from the source's.

    Memory: the squares, 3·size² bytes a picture, and some 60 bytes a pixel of those pictures that are in the making,
    together 2 GiB at most unless one alone needs more, and 0.5 GiB of files. A run that goes on computes with as many
    threads as it began with, whatever `torch.get_num_threads()` is: results depend on it.

    Under torchrun every process calls it and does its share; one writes the report. As many must go on as began.

    Raises `ValueError` for arguments and folders that cannot be used, also when pictures change meanwhile or another
    process is at work; `OSError` for a disk that fails or is full, or a picture that does not read back; and what
    `craft` and `fit` raise.
    """
    wanted = request(
        photos,
        out,
        method=method,
        budget=budget,
        size=size,
        profile=profile,
        seed=seed,
        seeds=seeds,
        webp=webp,
        keep_metadata=keep_metadata,
        report=report,
        settings=settings,
        device=device,
    )
    ranks = Ranks.current()
    try:
        ranks.agree_on("arguments", repr(wanted.asked(ranks.world)))
        with ExitStack() as held:
            return _run(wanted, ranks, held, progress if ranks.rank == 0 else None)
    finally:
        ranks.close()


def _run(wanted: Request, ranks: Ranks, held: ExitStack, progress: Progress | None) -> dict[str, Any]:
    begin = partial(_begin, wanted, ranks.world, held, progress) if ranks.rank == 0 else lambda: None
    tree = ranks.everyones(ranks.all_or_none(begin))[0]
    if tree is None:
        return manifest(wanted.out)
    held.enter_context(threads(json.loads((wanted.work / BEGUN).read_bytes())["threads"]))
    ranks.all_or_none(lambda: scan(wanted, tree.photos, ranks, progress))
    scanned = lines_of(wanted, "scan")
    kept, left_out = _kept(tree, scanned)
    images = _images(wanted, tree, kept)
    noise = _noise(wanted, images, ranks, progress)
    chosen = verdict.sample(images.labels.cpu(), wanted.seen, wanted.seed) if wanted.report else []
    seen = {kept[int(place)]: row for row, place in enumerate(chosen)}
    place = {index: place for place, index in enumerate(kept)}
    share = {index: tree.photos[index] for index in kept}
    levels = noise.levels.cpu().numpy()
    ranks.all_or_none(lambda: publish(wanted, share, scanned, lambda i: levels[place[i]], seen, ranks, progress))
    if ranks.rank > 0:
        wait_for_lock(wanted.work)  # which the first holds until all is written, or it has ended
        if state(wanted.out) != "finished":
            raise RuntimeError("the first of the processes has ended")
        return manifest(wanted.out)
    published = lines_of(wanted, "published")
    entries = [line["entry"] for _, line in sorted(published.items()) if "entry" in line]
    left_out += [
        LeftOut(tree.photos[index].source, line["reason"]) for index, line in published.items() if "reason" in line
    ]
    if not entries:
        raise bad("photos", "no picture that can be published", "pictures")
    about = _about(wanted, ranks.world, noise, entries, left_out)
    if wanted.report:
        about["verdict"] = _verdict(wanted, images, chosen, [kept[int(place)] for place in chosen], published, progress)
    return _finish(wanted, about)


# Beginning


def _begin(wanted: Request, processes: int, held: ExitStack, progress: Progress | None) -> Survey | None:
    """The pictures to protect, for a run that begins or goes on; None if the output is finished.

    The lock stays with `held`.
    """
    now = surveyed(wanted)
    if state(wanted.out) == "finished":
        # The work folder is of a process that was killed while it removed it, or is removing it.
        with locked(wanted.work) if wanted.work.exists() else nullcontext():
            begun_with(wanted, processes, now, progress)
            if wanted.work.exists():
                remove(wanted.work)
        if progress is not None:
            progress(f"{wanted.out} is finished: everything is there, and nothing was written")
        return None
    try:
        wanted.work.mkdir(parents=True, exist_ok=True)
    except (NotADirectoryError, FileExistsError, PermissionError) as error:
        raise bad("out", f"{str(wanted.out)!r} ({error.strerror})", "a folder that can be written into") from error
    held.enter_context(locked(wanted.work))
    if state(wanted.out) == "finished":  # by a process that had the lock until now
        remove(wanted.work)
        raise bad("out", f"{str(wanted.out)!r}, which another process has just finished", "the command again")
    tree = begun_with(wanted, processes, now, progress)
    for left in (*wanted.out.glob(".*.part"), *wanted.work.glob(".*.part")):
        left.unlink()  # by a process that was killed while it wrote
    begun = wanted.work / BEGUN
    asked = wanted.asked(processes) | _began(wanted)
    before = json.loads(begun.read_bytes()) if begun.exists() else {}
    if not before:
        write_whole(wanted.work / "survey.json", as_json(now))
    if before.get("asked") != asked:
        write_whole(begun, json.dumps({"asked": asked, "threads": torch.get_num_threads()}).encode())
    return tree


def surveyed(wanted: Request) -> Survey:
    """What is in the source now.

    Raises `ValueError` also for a class whose folder would stand where a file of our own has to.
    """
    now = survey(wanted.photos, wanted.suffix)
    for name in now.classes:
        if name.casefold() in (MANIFEST, REPORT):
            raise bad("photos", f"a class called {name!r}", "another name: a file in the output has this one")
    return now


def begun_with(wanted: Request, processes: int, now: Survey, progress: Progress | None) -> Survey:
    """The survey that the output was begun with; `now`, where it is new or finished. Nothing is written.

    Raises `ValueError` unless what is there was begun, or finished, for what is asked and for these pictures.
    """
    found = state(wanted.out)
    if found == "finished":
        _check_finished(wanted, processes, now, progress)
    if found != "begun":
        return now
    asked = wanted.asked(processes) | _began(wanted)
    before = json.loads((wanted.work / BEGUN).read_bytes())["asked"]
    # As long as no noise is in the making, a setting may be put right that no method can use.
    crafted = any(wanted.work.glob("checkpoint*")) or (wanted.work / "noise").exists()
    names = {*asked, *before} if crafted else {*_OF_SCAN}
    check_same(wanted.out, *({name: which.get(name) for name in names} for which in (before, asked)))
    tree = from_json(wanted.photos, (wanted.work / "survey.json").read_bytes())
    known = {
        tree.photos[index].source: line["sha256"] for index, line in lines_of(wanted, "scan").items() if line["sha256"]
    }
    sources = [photo.source for photo in tree.photos]
    here = [photo.source for photo in now.photos]
    _refuse(changes(wanted.photos, sources, here, known, Steps(progress, "checking", len({*known} & {*here}))))
    return tree


def _began(wanted: Request) -> dict[str, Any]:
    """What else decides the bytes of a run that is not finished."""
    return {"versions": versions(), "source of miue_lib": LIBRARY[:12], "device": wanted.device.type}


def _check_finished(wanted: Request, processes: int, now: Survey, progress: Progress | None) -> None:
    """Raise `ValueError` unless the output is finished for what is asked and for these pictures, and whole."""
    found = manifest(wanted.out)
    check_same(wanted.out, {**found["settings"], "noise": None}, {**wanted.asked(processes), "noise": None})
    known = {entry["source"]: entry["source_sha256"] for entry in found["pictures"]}
    left_out = {left["source"] for left in found["left_out"]}
    here = {photo.source for photo in now.photos}
    total = len({*known} & here)
    _refuse(changes(wanted.photos, {*known} | (here & left_out), here, known, Steps(progress, "checking", total)))
    outputs = {entry["target"]: entry["sha256"] for entry in found["pictures"]}
    there = [target for target in outputs if (wanted.out / target).is_file()]
    differ = changes(wanted.out, outputs, there, outputs, Steps(progress, "checking what was published", len(there)))
    if differ:
        raise bad("out", f"{str(wanted.out)!r}, not as it was written ({differ})", "a new or empty folder")


def _refuse(differ: str) -> None:
    if differ:
        given = f"others than those that the output was begun with ({differ})"
        raise bad("photos", given, "the same, or another folder for the output")


# From pictures to noise


def _kept(tree: Survey, scanned: Mapping[int, Line]) -> tuple[list[int], list[LeftOut]]:
    """The indices of the pictures to protect, and what is left out.

    Raises `ValueError` unless there are two classes of two pictures.
    """
    left_out = list(tree.left_out)
    left_out += [
        LeftOut(tree.photos[index].source, line["reason"]) for index, line in scanned.items() if "reason" in line
    ]
    usable = sorted(index for index, line in scanned.items() if "reason" not in line)
    counts = Counter(tree.photos[index].label for index in usable)
    kept = [index for index in usable if counts[tree.photos[index].label] > 1]
    alone = (tree.photos[index] for index in usable if counts[tree.photos[index].label] == 1)
    left_out += [LeftOut(photo.source, _ALONE) for photo in alone]
    classes = [name for label, name in enumerate(tree.classes) if counts[label] > 1]
    if len(classes) < 2:
        given = f"{str(tree.root)!r}, with two or more readable pictures in {classes or 'no class'}"
        reasons = Counter(left.reason for left in left_out).most_common(3)
        why = "; ".join(f"{count} × {reason}" for reason, count in reasons)
        raise bad("photos", f"{given} ({why})", "two classes or more")
    return kept, left_out


def _images(wanted: Request, tree: Survey, kept: Sequence[int]) -> ImageSet:
    """The squares of the pictures to protect; of one channel where all are grey, if not to the last level.

    (Lossy WebP holds grey as colours that nearly are.) Noise in colour would be lost on whoever looks at grey pictures.
    """
    rows = squares(wanted, len(tree.photos))
    rows.close()
    pixels = rows.all()
    if len(kept) < len(pixels):
        pixels = pixels[np.asarray(kept)]
    parts = np.array_split(pixels, math.ceil(len(pixels) / _PART))
    if all((part.max(1) - part.min(1)).max() <= _TINT for part in parts):
        pixels = np.ascontiguousarray(pixels[:, 1:2])  # green, of which grey is made most
    labels = torch.tensor([tree.photos[index].label for index in kept])
    present = sorted({*labels.tolist()})
    classes = tuple(tree.classes[label] for label in present)
    name = f"squares of {wanted.photos.name}"
    return ImageSet(torch.from_numpy(pixels), torch.searchsorted(torch.tensor(present), labels), classes, name).to(
        wanted.device
    )


def _noise(wanted: Request, images: ImageSet, ranks: Ranks, progress: Progress | None) -> Perturbation:
    """Noise for the squares: crafted, gone on with from its last checkpoint, or read."""
    path, checkpoint, delta = (wanted.work / name for name in ("noise", "checkpoint", "delta"))
    settings = wanted.crafting(images)
    there = ranks.everyones(path.exists())[0]  # asked by each for itself, they might differ, and some would wait
    if not there:
        # With few pictures there are many rounds a second.
        how: dict[str, Any] = {"progress": None if progress is None else now_and_then(progress)}
        if METHODS[wanted.method].takes("execution"):
            how |= {"checkpoint": checkpoint, "checkpoint_minutes": 1.0, "resume": True}
            in_a_file = images.device.type == "cpu" and 4 * images.images.numel() > _IN_MEMORY and wanted.most < 128
            how |= {"delta_file": delta} if in_a_file else {}
        noise = craft(wanted.method, images, **settings, **how)
        ranks.all_or_none(partial(noise.save, path) if ranks.rank == 0 else lambda: None)
    noise = Perturbation.load(path)
    images.check_owner(noise)
    for left in (of_rank(checkpoint, ranks.rank, ranks.world), delta):
        left.unlink(missing_ok=True)
    return noise


# From published pictures to the end


class _Victims(Cache):
    """A cache from whose processes, which train side by side, none goes on after the one that began them was killed:
    it would write into a folder that a later run has finished with."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.owner = os.getpid()

    def fit(self, model: str, train: ImageSet, **settings: Any) -> tuple[Classifier, History]:
        self._end_with_owner()
        return super().fit(model, train, **settings | {"on_epoch": self._end_with_owner})

    def _end_with_owner(self, *_: object) -> None:
        if self.owner not in (os.getpid(), os.getppid()):
            os._exit(1)


def _verdict(
    wanted: Request,
    images: ImageSet,
    chosen: Sequence[int],
    indices: Sequence[int],
    published: Mapping[int, Line],
    progress: Progress | None,
) -> dict[str, Any]:
    """What victims say of the pictures `chosen`, with its sentences."""
    rows = views(wanted, len(chosen))
    rows.close()
    there = [row for row, index in enumerate(indices) if "entry" in published[index]]
    labels = images.labels.cpu()[torch.as_tensor(chosen)[there]]
    clean, protected = (
        verdict.Stored(rows.all()[:, which], there, labels, images.classes, name, wanted.device)
        for which, name in enumerate(("clean", "published"))
    )
    found = verdict.verdict(
        clean,
        protected,
        size=wanted.profile,
        seeds=wanted.seeds,
        seed=wanted.seed,
        cache=_Victims(wanted.work / "cache"),
        progress=progress,
    )
    return found | {"sentences": verdict.sentences(found)}


def _about(
    wanted: Request, processes: int, noise: Perturbation, entries: Sequence[Line], left_out: Sequence[LeftOut]
) -> dict[str, Any]:
    """The manifest, its verdict apart."""
    squared = [0.0 if entry["psnr"] is None else 10 ** (-entry["psnr"] / 10) for entry in entries]
    similar = [entry["ssim"] for entry in entries if entry["ssim"] is not None]
    classes = {entry["class"] for entry in entries}
    return {
        "format": FORMAT,
        "versions": versions(),
        "settings": wanted.asked(processes) | {"noise": dict(noise.settings)},
        "classes": sorted(classes),
        "pictures": list(entries),
        "left_out": sorted(
            ({"source": left.source, "reason": left.reason} for left in left_out),
            key=lambda left: (left["source"], left["reason"]),
        ),
        "summary": {
            "pictures": len(entries),
            "left_out": len(left_out),
            "linf": max(entry["linf"] for entry in entries),
            "psnr": -10 * math.log10(fmean(squared)) if any(squared) else None,
            "ssim": fmean(similar) if similar else None,
        },
        "verdict": None,
    }


def _finish(wanted: Request, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write report and manifest, remove the work folder, return the manifest as it can be read."""
    written = json.dumps(about, indent=1, default=float).encode()
    found: dict[str, Any] = json.loads(written)
    if wanted.report:
        write_whole(wanted.out / REPORT, page.report(found, _shown(wanted, found)).encode())
    write_whole(wanted.out / MANIFEST, written)
    remove(wanted.work)
    return found


def _shown(wanted: Request, found: Mapping[str, Any]) -> list[Shown]:
    """The middle of one picture of each of some classes, before and after."""
    firsts = {entry["class"]: entry for entry in reversed(found["pictures"])}
    some = [firsts[name] for name in found["classes"]][:: math.ceil(len(firsts) / _SHOWN)]
    shown = []
    for entry in some:
        try:
            data, published = (bytes_of(p) for p in (wanted.photos / entry["source"], wanted.out / entry["target"]))
        except (Unreadable, FileNotFoundError) as error:
            raise bad("photos", f"{entry['source']!r}, which cannot be read any more", "pictures that stay") from error
        if digest(data) != entry["source_sha256"]:
            raise bad("photos", f"{entry['source']!r}, changed meanwhile", "pictures that stay as they are")
        before, after = _middle(read(data).pixels), _middle(read(published).pixels)
        shown.append(Shown(entry["source"], np.broadcast_to(before, after.shape), after))
    return shown


def _middle(pixels: np.ndarray) -> np.ndarray:
    top, left = (max(0, (side - _SIDE) // 2) for side in pixels.shape[:2])
    return pixels[top : top + _SIDE, left : left + _SIDE]
