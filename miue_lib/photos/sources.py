"""The pictures on the disk: their bytes, and whether they are still those that a run began with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from .picture import Unreadable
from .tree import LeftOut, Photo, Survey
from .work import Steps, side_by_side, workers

MOST_BYTES = 2 * 1024**3  # of a file: no picture that Pillow opens, in 16 bits and with transparency, is larger


def bytes_of(path: Path) -> bytes:
    """Raises `Unreadable` where it may not be read or is larger than a picture, and `OSError` where the disk fails."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise Unreadable(f"larger than {MOST_BYTES // 1024**3} GiB, and so than any picture that can be read")
        return path.read_bytes()
    except PermissionError as error:
        raise Unreadable("no permission to read it") from error


def size_of(path: Path) -> int:
    """Bytes of the file; 0 where that cannot be known, of which `bytes_of` says why."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of_file(path: Path) -> str | None:
    """SHA-256, without holding the file in memory; None for one that is not there or cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def as_json(survey: Survey) -> bytes:
    """A survey, its root apart, in a file."""
    photos = [[photo.source, photo.label, photo.target] for photo in survey.photos]
    left_out = [[left.source, left.reason] for left in survey.left_out]
    return json.dumps({"classes": survey.classes, "photos": photos, "left_out": left_out}).encode()


def from_json(root: Path, data: bytes) -> Survey:
    """What `as_json` wrote."""
    kept = json.loads(data)
    photos = tuple(Photo(*fields) for fields in kept["photos"])
    left_out = tuple(LeftOut(*fields) for fields in kept["left_out"])
    return Survey(root, tuple(kept["classes"]), photos, left_out)


def changes(root: Path, before: Iterable[str], now: Iterable[str], known: Mapping[str, str], steps: Steps) -> str:
    """How the files `now` below `root` differ from those of `before`, of which some have a `known` SHA-256: how many
    were added, removed and changed, and the first of these. "" where they do not differ."""
    before, now = set(before), set(now)
    still = sorted(set(known) & now)
    found = side_by_side(lambda path: digest_of_file(root / path), still, workers())
    changed = set()
    for path, sha256 in zip(still, found, strict=True):
        steps.step()
        if sha256 != known[path]:
            changed.add(path)
    kinds = {"added": now - before, "removed": before - now, "changed": changed}
    counts = [f"{len(paths):,} {kind}" for kind, paths in kinds.items() if paths]
    return f"{', '.join(counts)}, first: {min(set().union(*kinds.values()))!r}" if counts else ""
