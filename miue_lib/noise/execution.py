"""How a method is run, as opposed to what it makes: progress, checkpoints, where the noise lies meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from .._errors import bad, check_flag, check_number


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What `craft` was told about the run. Raises `ValueError` for what cannot be.

    progress: called with one line of text a round, and every half minute in longer ones.
    checkpoint: a file that holds the whole state of the run, written every `checkpoint_minutes` and when the process
        is asked to stop (SIGTERM, SIGINT). It stays after the run: remove it once the noise is saved.
    resume: continue from `checkpoint` if it is there; else begin. The result is that of a run never stopped, bit for
        bit on a CPU.
    delta_file: keep the noise in this memory-mapped file while it is crafted, in 8 bits a pixel (steps of ε/127), for
        noise larger than memory. The result's levels lie there afterwards. Several processes on a machine share the
        file in the end; until then each keeps its part in one of its own beside it.
    device: where the surrogate works; by default where the pictures are.
    """

    progress: Callable[[str], None] | None = None
    checkpoint: str | Path | None = None
    checkpoint_minutes: float = 10.0
    resume: bool = False
    delta_file: str | Path | None = None
    device: torch.device | str | None = None

    def __post_init__(self) -> None:
        check_number("checkpoint_minutes", self.checkpoint_minutes, 0)
        check_flag("resume", self.resume)
        if self.resume and self.checkpoint is None:
            raise bad("resume", True, "a checkpoint to continue from")
        for name in ("checkpoint", "delta_file"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, str | Path) or not Path(value).parent.is_dir() or Path(value).is_dir():
                raise bad(name, repr(value if isinstance(value, str) else str(value)), "a file in a folder that exists")
        try:
            torch.device(self.device or "cpu")
        except (RuntimeError, TypeError) as error:
            raise bad("device", repr(self.device), "a device of torch, such as 'cpu' or 'cuda'") from error


def of_rank(path: Path, rank: int, world: int) -> Path:
    """Where the process `rank` of several keeps its part of what is called `path`."""
    return path if world == 1 else path.with_name(f"{path.name}.{rank + 1}of{world}")
