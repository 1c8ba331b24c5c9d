"""Saving a run that has not ended, and going on with it.

A checkpoint is one safetensors file: the tensors of the state, and in its metadata, as JSON, everything else of it,
what was asked for, and a checksum. It is written beside and renamed, so the last good one is there at every moment.

Several ranks write a file each, and a process may be killed between two renames. So each first writes the new file
whole under another name, waits for the others, and then renames. On resuming the ranks look for the latest state that
each of them has under one name or the other.
"""

from __future__ import annotations

import glob
import json
import signal
import threading
import time
import warnings
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from .._errors import bad
from .._files import beside, read_tagged
from .execution import Execution, of_rank
from .ranks import Ranks

_FORMAT = "miue_lib.checkpoint/1"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TIME = 1  # what a rank asks for whose clock says so; signals, which also ask to stop, have larger numbers
State = tuple[dict[str, Tensor], dict[str, Any]]  # tensors, and what JSON can hold; "tick" in it counts upwards


class Keeper:
    """Says when to save, saves, and ends the process when it was asked to; a context for the length of the run.

    asked: what is being run (method, settings, pictures), which a checkpoint must have been written for.

    Signals are caught only with a checkpoint, and in the main thread. The first is answered after the batch at hand;
    a second one gets the answer that it would have had without us.
    """

    def __init__(self, execution: Execution, ranks: Ranks, asked: Mapping[str, Any]) -> None:
        self.ranks, self.asked = ranks, dict(asked)
        self.path = None
        if execution.checkpoint is not None:
            self.path = of_rank(Path(execution.checkpoint), ranks.rank, ranks.world)
        self.seconds = 60 * execution.checkpoint_minutes
        self.resume = execution.resume
        self.saved = time.perf_counter()
        self.signalled = 0
        self.before: dict[int, Any] = {}
        there = self.path is not None and self.path.exists()
        if ranks.most(there) and not self.resume:
            raise bad("checkpoint", f"{str(self.path)!r}, which is there", "resume=True to go on, or another path")
        if self.path is not None and self.resume and not ranks.most(there):
            _refuse_another_number_of_processes(Path(str(execution.checkpoint)))
        if self.path is not None:
            for left in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.part"):
                left.unlink(missing_ok=True)  # by a process that was killed while it wrote

    def __enter__(self) -> Keeper:
        if self.path is not None and threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # as in the background of a shell: not ours to answer
                    self.before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._release()
        if self.signalled and kind is None:  # after the last batch: there is nothing left to save
            signal.raise_signal(self.signalled)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self._release()
        self.signalled = number

    def _release(self) -> None:
        while self.before:
            number, handler = self.before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set from Python

    def finish(self, state: State) -> None:
        """Save the end: what comes of it may yet fail to be written, and hours would be lost."""
        if self.path is not None:
            self.save(state, _TIME)

    def wanted(self) -> int:
        """0, or why it is time to save; the same on every rank."""
        if self.path is None:
            return self.ranks.most(0)  # the ranks meet in every tick all the same: one that has ended is missed here
        due = time.perf_counter() - self.saved >= self.seconds
        return self.ranks.most(self.signalled or _TIME * due)

    def save(self, state: State, why: int) -> None:
        """Write the checkpoint; if a signal asked for it, hand that signal on.

        A full disk does not end a run that may still end well: it is a warning, unless the process is about to end.
        """
        assert self.path is not None
        if error := self._write(self.path, state):
            message = f"checkpoint: {str(self.path)!r} could not be written ({error}); what it held before is intact"
            if why != _TIME:
                raise OSError(message)
            warnings.warn(message, stacklevel=2)
        self.saved = time.perf_counter()
        if why != _TIME:
            self._release()
            self.signalled = 0
            signal.raise_signal(why)

    def _write(self, path: Path, state: State) -> str:
        """Write the file, or say why not; all ranks do or none."""
        tensors, rest = state
        # The noise, which may be larger than memory, is written from where it lies; of the rest, weights may be shared.
        tensors = {
            name: tensor.detach().cpu().contiguous() if name == "delta" else tensor.detach().cpu().clone().contiguous()
            for name, tensor in tensors.items()
        }
        about = {"asked": self.asked, "rest": rest, "checksum": _checksum(tensors)}
        metadata = {"format": _FORMAT, "about": json.dumps(about, default=float)}
        waiting = path.with_name(path.name + ".new") if self.ranks.world > 1 else path
        error = ""
        try:
            with beside(waiting) as part:
                save_file(tensors, part, metadata)
        except (OSError, SafetensorError) as caught:
            error = str(caught)
        if self.ranks.most(bool(error)):
            return error or "another process could not write its own"
        if waiting != path:
            waiting.replace(path)
        return ""

    def load(self) -> State | None:
        """What to go on from, or None to begin.

        Raises `ValueError` for a file that is damaged, or of another run: the message names what differs.
        """
        if self.path is None or not self.resume:
            return None
        found = self.ranks.all_or_none(partial(self._found, self.path))
        everyones = self.ranks.everyones(sorted(found))
        common = set.intersection(*map(set, everyones))
        if not common and any(everyones):
            given = f"states after {everyones} batches in the files of {self.ranks.world} processes"
            raise bad("checkpoint", given, "one state that all have")
        return found[max(common)] if common else None

    def _found(self, path: Path) -> dict[int, State]:
        """The states of this rank's files by their ticks."""
        states = [self._read(path)] if path.exists() else []
        new = path.with_name(path.name + ".new")
        if self.ranks.world > 1 and new.exists():
            states.append(self._read(new))
        return {rest["tick"]: (tensors, rest) for tensors, rest in states}

    def _read(self, path: Path) -> State:
        tensors, about = read_tagged(path, _FORMAT, "checkpoint", "checkpoint")
        if about["checksum"] != _checksum(tensors):
            given = f"{str(path)!r}, whose content has changed since it was written"
            raise bad("checkpoint", given, "a whole checkpoint")
        asked = json.loads(json.dumps(self.asked, default=float))
        differ = [
            f"{name} {about['asked'].get(name)!r}, here {asked.get(name)!r}"
            for name in sorted({*asked, *about["asked"]})
            if about["asked"].get(name) != asked.get(name)
        ]
        if differ:
            raise bad("checkpoint", f"{str(path)!r} of another run ({'; '.join(differ)})", "one of this very run")
        return tensors, about["rest"]


def _refuse_another_number_of_processes(checkpoint: Path) -> None:
    """Raise `ValueError` if the checkpoint is there, but of another number of processes than now."""
    others = [checkpoint] if checkpoint.exists() else []
    others += checkpoint.parent.glob(f"{glob.escape(checkpoint.name)}.*of[0-9]*")
    if others:
        given = ", ".join(sorted(repr(str(path)) for path in others))
        raise bad("checkpoint", f"{given}, of another number of processes", "as many processes as wrote it")


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    check = 0
    for name in sorted(tensors):
        check = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, check)
    return check
