"""The folder of work in progress, from which a run that was killed goes on: its lock, its journals, its rows of pixels.

A process may be killed between any two bytes that it writes. So a file either appears whole (`_files`), or is a
`Journal`, which survives the loss of its end, or `Rows`, of which only those count that a journal speaks of.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch

from .._errors import bad

FOLDER = ".miue_lib"  # in the output, until it is finished
_GROUP, _SECONDS = 64, 2.0  # lines of a journal that are written together, and how long one waits for others at most
MEMORY = 2 * 1024**3  # bytes of pictures in the making at once

Item = TypeVar("Item")
Result = TypeVar("Result")


# The lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process is: raises `ValueError` if one is now. A process that ends, however, lets go."""
    file = _open_lock(folder)
    try:
        if not _take(file, wait=False):
            raise bad("out", f"{str(folder.parent)!r}, on which another process is at work", "its end to be waited for")
        if not _same(file, folder / "lock"):  # that process has just finished, and removed the folder
            raise bad("out", f"{str(folder.parent)!r}, which another process has just finished", "the command again")
        yield
    finally:
        file.close()


def wait_for_lock(folder: Path) -> None:
    """Return when the process inside `locked(folder)` has left it or has ended."""
    try:
        with (folder / "lock").open("ab") as file:
            _take(file, wait=True)
    except FileNotFoundError:
        pass  # it has left, and removed the folder


def remove(folder: Path) -> None:
    """Remove the work folder; a process whose end is near may still put a file in it."""
    for _ in range(20):
        try:
            shutil.rmtree(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise
        if not folder.exists():
            return
        time.sleep(0.1)
    shutil.rmtree(folder)


def _open_lock(folder: Path) -> IO[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "lock").open("ab")


def _same(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _take(file: IO[bytes], wait: bool) -> bool:
        while True:
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                return True
            except OSError:
                if not wait:
                    return False
                time.sleep(1)
else:
    import fcntl

    def _take(file: IO[bytes], wait: bool) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


# What is done


class Rows:
    """`count` rows of uint8 and one shape in a file, zeros at first, written in any order and from any thread.

    Written as a file, not through memory, where a full disk would end the process without an error to catch.
    """

    def __init__(self, path: Path, count: int, shape: tuple[int, ...]) -> None:
        self.path, self.shape = path, (count, *shape)
        self.bytes = int(np.prod(shape))
        self._lock = threading.Lock()
        path.touch()
        self._file = path.open("r+b")
        if path.stat().st_size < count * self.bytes:
            self._file.truncate(count * self.bytes)

    def write(self, index: int, row: np.ndarray) -> None:
        if row.shape != self.shape[1:] or row.dtype != np.uint8:
            raise bad("row", f"{row.dtype} {row.shape}", f"uint8 {self.shape[1:]}")
        with self._lock:
            self._file.seek(index * self.bytes)
            self._file.write(row.tobytes())

    def flush(self) -> None:
        """What was written is on the disk afterwards."""
        with self._lock:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def all(self) -> np.ndarray:
        """`(count, *shape)`, memory-mapped; what is written into it stays in memory."""
        if not self.shape[0]:
            return np.empty(self.shape, np.uint8)
        return np.memmap(self.path, np.uint8, "c", shape=self.shape)


class Journal:
    """What is done, a line of JSON each, in a file that grows; a context for as long as lines are added.

    before: made durable before lines are, as they speak of it. Lines are written in groups, so a process that is killed
    loses the last few, never one in the middle.
    """

    def __init__(self, path: Path, before: Rows | None = None) -> None:
        self.path, self.before = path, before
        whole = b"".join(_whole_lines(path))
        if path.exists() and path.stat().st_size > len(whole):
            os.truncate(path, len(whole))  # a line that was not finished must not be added to
        self._waiting: list[bytes] = []
        self._written = time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.write()

    def add(self, line: Mapping[str, Any]) -> None:
        self._waiting.append(json.dumps(line).encode() + b"\n")
        if len(self._waiting) >= _GROUP or time.monotonic() - self._written > _SECONDS:
            self.write()

    def write(self) -> None:
        if self._waiting:
            if self.before is not None:
                self.before.flush()
            with self.path.open("ab") as file:
                file.write(b"".join(self._waiting))
                file.flush()
                os.fsync(file.fileno())
        self._waiting = []
        self._written = time.monotonic()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The lines that are whole; none if the file is not there."""
    return [json.loads(line) for line in _whole_lines(path)]


def _whole_lines(path: Path) -> list[bytes]:
    """Up to the first that is not: after a power failure a file may end in anything."""
    found: list[bytes] = []
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return found
    for line in lines:
        try:
            if not line.endswith(b"\n") or not isinstance(json.loads(line), dict):
                break
        except ValueError:
            break
        found.append(line)
    return found


# Many pictures at once


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Generator[Result]:
    """`work(item)` of each item, in order, from a few threads: Pillow decodes, and hashlib hashes, without the
    interpreter's lock. Only a few results wait to be taken; after an error what has not begun is not begun."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="photos")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def workers() -> int:
    """Threads that read and write pictures: more than the disk and the cores can use would only take memory."""
    return min(8, os.cpu_count() or 1)


class Room:
    """Memory that threads share: who needs more than is left waits, and who needs more than there is works alone."""

    def __init__(self, size: int = MEMORY) -> None:
        self.size, self._used = size, 0
        self._changed = threading.Condition()

    @contextmanager
    def __call__(self, amount: int) -> Iterator[None]:
        amount = min(amount, self.size)
        with self._changed:
            self._changed.wait_for(lambda: self._used + amount <= self.size)
            self._used += amount
        try:
            yield
        finally:
            with self._changed:
                self._used -= amount
                self._changed.notify_all()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, PyTorch computes with so many threads, on which the order of its sums depends."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _patience() -> float:
    """Seconds between two lines that tell how far some work is: fewer where a person watches."""
    return 1.0 if sys.stderr.isatty() else 5.0


def now_and_then(progress: Callable[[str], None]) -> Callable[[str], None]:
    """`progress`, but of lines that come one after the other it hears the first, and then one in a while."""
    every, told = _patience(), -math.inf

    def heard(line: str) -> None:
        nonlocal told
        if (now := time.monotonic()) - told >= every:
            told = now
            progress(line)

    return heard


class Steps:
    """Tells how far some work is and how long it will take yet: now and then.

    progress: called with a line of text; None for nobody.
    """

    def __init__(self, progress: Callable[[str], None] | None, title: str, total: int) -> None:
        self.progress, self.title, self.total, self.done = progress, title, total, 0
        self.begun = self.told = time.monotonic()
        self.every = _patience()

    def step(self) -> None:
        self.done += 1
        now = time.monotonic()
        last = self.done == self.total
        if self.progress is not None and (last or now - self.told >= self.every):
            self.told = now
            left = (now - self.begun) / self.done * (self.total - self.done)
            end = f" in {in_words(now - self.begun)}" if last else f", about {in_words(left)} to go"
            self.progress(f"{self.title} {self.done:,}/{self.total:,}{end}")


def in_words(seconds: float) -> str:
    """A time as one says it."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"
