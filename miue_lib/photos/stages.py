"""What is done to each picture, in threads and in any order: it is looked at once, and later published.

Both leave lines in a journal of the work folder, so that whoever goes on after a kill does what is left.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import bad
from .._files import write_whole
from ..noise.ranks import Ranks
from .picture import WEBP_SIDE, Picture, Unreadable, encode, pixels_of, read
from .request import Request
from .seen import compare
from .sources import bytes_of, digest, digest_of_file, size_of
from .spread import spread, square
from .tree import Photo
from .verdict import VIEWS
from .work import Journal, Room, Rows, Steps, read_journal, side_by_side, workers

BYTES = 60  # of memory at most, for every pixel of a picture that is read, changed, written and compared
_FILES = 512 * 1024**2  # bytes, at once, of files whose pixels are not counted yet
_UNUSABLE = (errno.ENAMETOOLONG, errno.EILSEQ)  # what a file system says of a name that it cannot give

Line = dict[str, Any]  # of a journal; "index" says of which picture
Progress = Callable[[str], None]


def scan(request: Request, photos: Sequence[Photo], ranks: Ranks, progress: Progress | None) -> None:
    """Read this rank's pictures, and keep the square and the SHA-256 of each."""
    rows = squares(request, len(photos))
    path = _journal(request, "scan", ranks.rank)
    done = {line["index"] for line in read_journal(path)}
    todo = [index for index in range(ranks.rank, len(photos), ranks.world) if index not in done]
    # Two rooms, always entered in this order: how many pixels a file holds is known only once its bytes are there.
    steps, files, room = Steps(progress, "reading", len(todo)), Room(_FILES), Room()

    def look(index: int) -> Line:
        line: Line = {"index": index, "sha256": None}
        try:
            with files(size_of(request.photos / photos[index].source)):
                data = _bytes(request, photos[index])
                line["sha256"] = digest(data)
                with room(BYTES * pixels_of(data)):
                    pixels = read(data).pixels
                    height, width = pixels.shape[:2]
                    if request.suffix == ".webp" and max(height, width) > WEBP_SIDE:
                        raise Unreadable(f"{width:,} × {height:,} pixels: a WebP holds at most {WEBP_SIDE:,} a side")
                    rows.write(index, square(pixels, request.size).transpose(2, 0, 1))
        except Unreadable as error:
            return line | {"reason": str(error)}
        return line | {"width": width, "height": height}

    _in_journal(path, rows, side_by_side(look, todo, workers()), steps)


def _in_journal(path: Path, rows: Rows, lines: Generator[Line], steps: Steps) -> None:
    """Add the lines as they come; the threads that make them have ended afterwards."""
    try:
        with Journal(path, rows) as journal, closing(lines):
            for line in lines:
                journal.add(line)
                steps.step()
    finally:
        rows.close()


def _bytes(request: Request, photo: Photo) -> bytes:
    try:
        return bytes_of(request.photos / photo.source)
    except FileNotFoundError as error:
        raise bad("photos", f"{photo.source!r}, removed meanwhile", "pictures that stay") from error
    except OSError as error:  # it may pass, so it is no reason to leave the picture out for good
        raise OSError(f"{photo.source!r} cannot be read: {error.strerror or type(error).__name__}") from error


def squares(request: Request, count: int) -> Rows:
    """Of every picture of the survey: `(3, size, size)` each."""
    return Rows(request.work / "squares", count, (3, request.size, request.size))


def views(request: Request, count: int) -> Rows:
    """Of every picture that victims see: clean and published, as each of `VIEWS`, `(2, views, 3, size, size)`."""
    return Rows(request.work / "views", count, (2, len(VIEWS), 3, request.size, request.size))


def lines_of(request: Request, name: str) -> dict[int, Line]:
    """What the ranks' journals of that name hold, by the picture's index."""
    paths = request.work.glob(f"{name}-*.jsonl")
    return {line["index"]: line for path in paths for line in read_journal(path)}


def _journal(request: Request, name: str, rank: int) -> Path:
    return request.work / f"{name}-{rank}.jsonl"


def publish(
    request: Request,
    photos: Mapping[int, Photo],
    scanned: Mapping[int, Line],
    levels: Callable[[int], np.ndarray],
    seen: Mapping[int, int],
    ranks: Ranks,
    progress: Progress | None,
) -> None:
    """Write this rank's pictures, and what the manifest says of each.

    levels: of a picture's index, the noise of its square, `(1 or 3, size, size)`. seen: the index of each picture that
        victims see → its row among `views`.
    """
    rows = views(request, len(seen))
    path = _journal(request, "published", ranks.rank)
    mine = sorted(photos)[ranks.rank :: ranks.world]
    done = _trusted(request, path, Steps(progress, "checking", len(read_journal(path))))
    todo = [index for index in mine if index not in done]
    steps, room = Steps(progress, "publishing", len(todo)), Room()
    staged = request.work / f"staged-{ranks.rank}"
    staged.mkdir(exist_ok=True)
    for left in staged.iterdir():
        left.unlink()  # by a process that was killed while it wrote

    def make(index: int) -> Line:
        line = scanned[index]
        with room(BYTES * line["width"] * line["height"]):
            one = _Publishing(request, photos[index], line["sha256"], staged / f"{index}{request.suffix}")
            return {"index": index} | one.run(levels(index), rows, seen.get(index))

    _in_journal(path, rows, side_by_side(make, todo, workers()), steps)


def _trusted(request: Request, path: Path, steps: Steps) -> set[int]:
    """The pictures that the journal speaks of and whose file is what it says; the journal is cut to those."""
    lines = read_journal(path)

    def check(line: Line) -> bool:
        steps.step()
        if "reason" in line:
            return True
        entry = line["entry"]
        return digest_of_file(request.out / entry["target"]) == str(entry["sha256"])

    trusted = [line for line, whole in zip(lines, side_by_side(check, lines, workers()), strict=True) if whole]
    if len(trusted) < len(lines):
        path.unlink()
        with Journal(path) as journal:
            for line in trusted:
                journal.add(line)
    return {line["index"] for line in trusted}


class _Publishing:
    """One picture on its way out."""

    def __init__(self, request: Request, photo: Photo, sha256: str, staged: Path) -> None:
        self.request, self.photo, self.sha256, self.staged = request, photo, sha256, staged

    def run(self, levels: np.ndarray, rows: Rows, row: int | None) -> Line:
        """Its line of the journal: what the manifest says of it, or the reason why it could not be published."""
        try:
            source = self.source()
            if source.pixels.shape[2] < len(levels):  # a grey picture among others in colour, as the noise is
                notes = (*source.notes, "grey, published in colour as the noise is")
                source = replace(source, pixels=np.repeat(source.pixels, 3, axis=2), icc=None, notes=notes)
            levels = np.broadcast_to(levels, (3, *levels.shape[1:]))
            picture = replace(source, pixels=spread(source.pixels, levels, self.request.most))
            entry = self.write(source, picture)
        except (Unreadable, _CannotBe) as error:
            return {"reason": str(error)}
        if row is not None:
            both = (source.pixels, picture.pixels)
            seen = [[view(pixels, self.request.size) for view in VIEWS.values()] for pixels in both]
            rows.write(row, np.ascontiguousarray(np.asarray(seen).transpose(0, 1, 4, 2, 3)))
        target = self.request.out / self.photo.target
        if target.parent.resolve() != target.parent:  # `out` itself has no links
            given = f"{str(self.request.out)!r}, in which a link stands for a folder of {self.photo.target!r}"
            raise bad("out", given, "folders: what is written must not land elsewhere")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.staged.replace(target)
        except OSError as error:
            if error.errno not in _UNUSABLE:
                raise
            self.staged.unlink()
            return {"reason": f"the output cannot hold a file of this name: {error.strerror}"}
        return {"entry": entry}

    def source(self) -> Picture:
        """The picture as it was looked at: `ValueError` if it has changed since."""
        data = _bytes(self.request, self.photo)
        if digest(data) != self.sha256:
            raise bad("photos", f"{self.photo.source!r}, changed meanwhile", "pictures that stay as they are")
        return read(data, metadata=self.request.keep_metadata)

    def write(self, source: Picture, picture: Picture) -> Line:
        """Write it under a name that is not its own yet, read that back, and compare."""
        try:
            data = encode(picture, self.request.suffix)
        except ValueError as error:
            raise _CannotBe(str(error)) from error
        write_whole(self.staged, data)
        data = self.staged.read_bytes()
        try:
            back = read(data)
        except Unreadable as error:
            raise OSError(f"{self.photo.target!r} cannot be read back: {error}") from error
        shape = (*source.pixels.shape[:2], back.pixels.shape[2])  # WebP has no grey: it gives three equal channels
        meant = np.broadcast_to(picture.pixels, shape)
        same = _equal(back.pixels, meant) and _equal(back.alpha, picture.alpha)
        change = compare(source.pixels, picture.pixels)
        if not same or change.linf > self.request.most:
            raise OSError(f"{self.photo.target!r} does not read back as it was written")
        return {
            "source": self.photo.source,
            "target": self.photo.target,
            "class": self.photo.source.split("/")[0],
            "width": source.pixels.shape[1],
            "height": source.pixels.shape[0],
            "linf": change.linf,
            "psnr": change.psnr,
            "ssim": change.ssim,
            "source_sha256": self.sha256,
            "sha256": digest(data),
            "notes": list(picture.notes),
        }


def _equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


class _CannotBe(Exception):
    """A picture that cannot be published; the message is the reason."""
