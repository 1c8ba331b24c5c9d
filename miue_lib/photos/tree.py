"""What is in a tree `class/picture.*`, from the names alone: classes, pictures, and what is left out and why."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .._errors import bad

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")  # in any case
_LONGEST = 230  # bytes of a name: file systems take 255, and a target's may be longer, the more while it is written


@dataclass(frozen=True)
class Photo:
    """A picture to protect: its path below the tree's root, its class, and its path below the output, both with "/"."""

    source: str
    label: int
    target: str


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not protected (its path below the root, with "/"), and the reason in plain words."""

    source: str
    reason: str


@dataclass(frozen=True)
class Survey:
    """A tree of pictures: everything is sorted by its path, so that every file system gives the same.

    classes: names of the folders with pictures; `Photo.label` counts them from 0.
    """

    root: Path
    classes: tuple[str, ...]
    photos: tuple[Photo, ...]
    left_out: tuple[LeftOut, ...]


def survey(root: Path, suffix: str = ".png") -> Survey:
    """What is in the tree at `root`; no file is opened. `suffix` is that of the files to write.

    A folder directly in `root` is a class, and holds the pictures in folders below it too. `a.jpg` is to become
    `a.png`. Files whose targets would be one on some file system (which may not tell cases apart, nor the ways to
    write an accent) keep their suffix: `a.jpg.png` and `a.webp.png`.

    Raises `ValueError` for what is not a folder or cannot be read, for a folder without folders, or with `train` and
    `test`, and for fewer than two classes with pictures.
    """
    root = Path(root)
    given = repr(str(root))
    if not os.path.isdir(root):  # unlike the path's own method, never raises
        raise bad("photos", given, "the path of a folder that exists")
    try:
        names = {name for name in os.listdir(root) if os.path.isdir(root / name) and not name.startswith(".")}
    except OSError as error:
        raise bad("photos", given, "a folder that can be read") from error
    if not names:
        raise bad("photos", f"{given} without sub-folders", "a tree class/picture.*: a folder for each class")
    if {"train", "test"} <= names:
        one = repr(str(root / "train"))
        raise bad("photos", f"{given} with the folders train and test", f"one of them at a time, for example {one}")
    found, left_out = list[str](), list[LeftOut]()
    for path, reason in _walk(root):
        if reason is None:
            found.append(path)
        else:
            left_out.append(LeftOut(_printable(path), reason))
    classes = sorted({path.split("/")[0] for path in found})
    if len(classes) < 2:
        expected = (
            "two or more classes with pictures: with one there would be nothing to tell apart, and nothing to protect "
            "from. Put other pictures beside them, in a folder of their own"
        )
        raise bad("photos", f"{given} with pictures in {classes or 'no folder'}", expected)
    named = {*classes, *(out.source for out in left_out)}
    without = {_printable(name) for name in names} - named
    left_out += [LeftOut(name, "a folder without pictures") for name in without]
    found.sort()
    targets = _targets(found, suffix)
    label = {name: number for number, name in enumerate(classes)}
    photos = (Photo(path, label[path.split("/")[0]], targets[path]) for path in found)
    return Survey(
        root, tuple(classes), tuple(photos), tuple(sorted(left_out, key=lambda out: (out.source, out.reason)))
    )


def _walk(root: Path) -> Iterator[tuple[str, str | None]]:
    """The path of every file, and None, or the reason to leave it out; of every folder that is not entered, too."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError:
            yield folder, "a folder that cannot be read"
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            reason = _reason(entry, in_class=bool(folder))
            if reason is None and entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            else:
                yield path, reason


def _reason(entry: os.DirEntry[str], *, in_class: bool) -> str | None:
    """Why an entry is left out; None for a folder to enter and a picture."""
    if entry.name.startswith("."):
        return "hidden"
    if _printable(entry.name) != entry.name:
        return "a name that is not text (UTF-8)"
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "a link to nothing" if entry.is_symlink() else "cannot be read"
    if stat.S_ISDIR(mode):
        return "a link to a folder: they are not followed" if entry.is_symlink() else None
    if not stat.S_ISREG(mode):
        return "neither a file nor a folder"
    suffix = PurePosixPath(entry.name).suffix
    if suffix.lower() not in SUFFIXES:
        return f"its name does not end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
    if not in_class:
        return "in no class: the folders beside it are the classes"
    if len(os.fsencode(entry.name)) > _LONGEST:
        return f"a name of more than {_LONGEST} bytes"
    return None


def _printable(path: str) -> str:
    """The path, with what is not text (Python holds such bytes as lone surrogates) written as \\udcNN."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _targets(sources: Sequence[str], suffix: str) -> dict[str, str]:
    """A path to write for every path in `sources`, sorted; no two are the same, with cases and accents unified."""
    tries = dict.fromkeys(sources, 0)
    folders = {_unified(str(parent)) for source in sources for parent in PurePosixPath(source).parents}
    while True:
        sharing = defaultdict[str, list[str]](list)
        for source, attempt in tries.items():
            sharing[_unified(_target(source, suffix, attempt))].append(source)
        clashing = {name: group for name, group in sharing.items() if len(group) > 1 or name in folders}
        if not clashing:
            return {source: _target(source, suffix, attempt) for source, attempt in tries.items()}
        for name, group in clashing.items():
            # Whole names still clash where `A.jpg` is beside `a.jpg`: then all but the first are numbered.
            numbered = group if name in folders else group[1:]
            for source in [source for source in group if not tries[source]] or numbered:
                tries[source] += 1


def _target(source: str, suffix: str, attempt: int) -> str:
    if attempt == 0:
        return str(PurePosixPath(source).with_suffix(suffix))
    return f"{source}{suffix}" if attempt == 1 else f"{source}.{attempt}{suffix}"


def _unified(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
