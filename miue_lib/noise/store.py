"""Where δ lies while it is crafted: in the device's memory, or in a file that is larger than any memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._errors import bad


class Store:
    """δ of every picture, read and written in batches as float32 `(n, C, H, W)` on `device`, in pixel values.

    at_rest: all of it, `(N, C, H, W)`: float32 on the device, or int8 in units of ε/127 in the file. That unit, at
        ε = 8/255 a sixteenth of a level, lets steps add up that whole levels would lose; a batch's change in a round
        that is smaller than half of it is lost here too.
    """

    def __init__(
        self, shape: torch.Size, epsilon: float, device: torch.device, file: Path | None, replace: bool = False
    ) -> None:
        self.device = device
        self.unit = None if file is None else epsilon / 127
        self.at_rest = torch.zeros(shape, device=device) if file is None else mapped(file, shape, replace)

    def read(self, index: Tensor | slice) -> Tensor:
        """A copy of δ for the pictures at `index`, a slice or int64 on any device."""
        chosen = self.at_rest[self._here(index)].to(self.device)
        if self.unit is not None:
            return chosen.float().mul_(self.unit)
        return chosen.clone() if isinstance(index, slice) else chosen

    def write(self, index: Tensor, delta: Tensor) -> None:
        if self.unit is not None:
            delta = delta.div(self.unit).round_().to(self.at_rest.device, torch.int8)
        self.at_rest[self._here(index)] = delta

    def levels(self) -> Tensor | None:
        """For the result: a place of one byte a pixel that already lies in the file, if δ does."""
        return None if self.unit is None else self.at_rest

    def _here(self, index: Tensor | slice) -> Tensor | slice:
        return index if isinstance(index, slice) else index.to(self.at_rest.device)


def mapped(file: Path, shape: torch.Size, replace: bool = False, there: bool = False) -> Tensor:
    """Zeros in int8, memory-mapped; the room on the disk is taken now.

    In a sparse file a full disk would be met by writing to memory, which kills the process.

    replace: whether a file of just this size may be there, left by the run that is continued.
    there: whether to map what another process has made, instead.
    Raises `ValueError` for any other that is there, and `OSError` for a disk without room.
    """
    if not there:
        _take_room(file, shape.numel(), replace)
    return torch.from_numpy(np.memmap(file, np.int8, "r+", shape=tuple(shape)))


def _take_room(file: Path, size: int, replace: bool) -> None:
    if file.exists() and not (replace and file.stat().st_size == size):
        raise bad("delta_file", repr(str(file)), "a path where nothing is yet")
    with file.open("wb") as empty:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(empty.fileno(), 0, size)
            else:
                empty.truncate(size)
        except OSError as error:
            file.unlink()
            raise OSError(f"delta_file: no room for the {size:,} bytes of {str(file)!r} ({error})") from error
