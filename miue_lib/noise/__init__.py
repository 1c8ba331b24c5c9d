"""Methods that make pictures unlearnable, one file each; `craft` runs the one that is named."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .._errors import bad, check_choice
from ..data import ImageSet
from ..perturbation import Perturbation
from .ap import ap
from .ar import ar
from .cuda_conv import cuda_conv
from .em import em
from .execution import Execution
from .gue import gue
from .lsp import lsp
from .miue import miue
from .ntga import ntga
from .ops import ops
from .pil import pil
from .random import random
from .rem import rem
from .sem import sem
from .tue import tue


@dataclass(frozen=True)
class Method:
    """What is known of a method without running it.

    run: `(images, *, settings…) → Perturbation`; its docstring tells source, objective, settings and cost.
    title: as the literature abbreviates it.
    kind: "free" (no network), "one pass" (a network is trained once, then the noise against it), "bi-level" (noise and
        network in turns) or "tri-level" (an adversary between them).
    norm: that bounds the noise of a picture: "L∞", "L2", "L0", or "none".
    per: "sample" where each picture has noise of its own, "class" where a pixel or filter is chosen once for a class.
    """

    run: Callable[..., Perturbation]
    title: str
    kind: str
    norm: str
    per: str

    @property
    def settings(self) -> dict[str, Any]:
        """The names and defaults of what the method can be told."""
        parameters = inspect.signature(self.run).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _HOW}

    def takes(self, name: str) -> bool:
        """Whether the function has an argument of this name, one of how it is run included."""
        return name in inspect.signature(self.run).parameters


_HOW = ("execution", "progress")  # arguments that change how a method runs, not what it makes

METHODS: dict[str, Method] = {
    "random": Method(random, "random", "free", "L∞", "sample"),
    "lsp": Method(lsp, "LSP", "free", "L2", "sample"),
    "ops": Method(ops, "OPS", "free", "L0", "class"),
    "cuda_conv": Method(cuda_conv, "CUDA", "free", "none", "class"),
    "ar": Method(ar, "AR", "free", "L2", "sample"),
    "pil": Method(pil, "PIL", "free", "L∞", "sample"),
    "tue": Method(tue, "TUE", "free", "L∞", "sample"),
    "ntga": Method(ntga, "NTGA", "free", "L∞", "sample"),
    "ap": Method(ap, "AP", "one pass", "L∞", "sample"),
    "em": Method(em, "EM", "bi-level", "L∞", "sample"),
    "gue": Method(gue, "GUE", "bi-level", "L∞", "sample"),
    "miue": Method(miue, "MI-UE", "bi-level", "L∞", "sample"),
    "rem": Method(rem, "REM", "tri-level", "L∞", "sample"),
    "sem": Method(sem, "SEM", "tri-level", "L∞", "sample"),
}


def craft(
    method: str,
    images: ImageSet,
    *,
    progress: Callable[[str], None] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_minutes: float = 10.0,
    resume: bool = False,
    delta_file: str | Path | None = None,
    device: torch.device | str | None = None,
    **settings: Any,
) -> Perturbation:
    """Noise for `images` by the method called `method`; `settings` are that method's own arguments.

    `help(miue_lib.METHODS["miue"].run)` tells them. Every method takes `seed`, and those bounded in L∞ take `epsilon`,
    the budget in pixel values; the noise belongs to these pictures and `images.with_` refuses it for others. The other
    arguments change how a method runs. Those run by the engine, AP, EM, MI-UE, REM and SEM, take all of them; AR, GUE,
    NTGA and TUE report progress; the rest are done before it would matter:

    progress: called with one line of text a round, and every half minute in longer ones.
    checkpoint: a file for the whole state of the run, written every `checkpoint_minutes`, and when the process is
        asked to stop (SIGTERM, Ctrl-C). It stays after the run: remove it once the noise is saved.
    resume: continue from `checkpoint` if it is there, else begin. The result is that of a run never stopped, bit for
        bit on a CPU.
    delta_file: keep the noise in this memory-mapped file while it is crafted, in 8 bits a pixel (steps of ε/127):
        for noise that is larger than memory. The result's levels lie there, so keep it while they are used.
    device: where the surrogate works; by default where the pictures are.

    Under `torch.distributed` (torchrun), call it in every process with the same arguments and all pictures: each
    process crafts the noise of its share, and each returns the whole.

    Raises `ValueError` for an unknown method or setting, or a checkpoint that is damaged or of another run;
    `FloatingPointError` when a loss stops being finite; `OSError` when a disk is full; `RuntimeError` when another of
    the processes ends. The last checkpoint is intact after each.
    """
    check_choice("method", method, METHODS)
    if not isinstance(images, ImageSet):
        raise bad("images", type(images).__name__, "an ImageSet")
    execution = Execution(
        progress=progress,
        checkpoint=checkpoint,
        checkpoint_minutes=checkpoint_minutes,
        resume=resume,
        delta_file=delta_file,
        device=device,
    )
    chosen = METHODS[method]
    unknown = sorted(set(settings) - set(chosen.settings))
    if unknown:
        raise bad(f"settings of {method!r}", ", ".join(unknown), "only " + ", ".join(chosen.settings))
    how = {"execution": execution, "progress": progress}
    start = time.perf_counter()
    noise = chosen.run(images, **settings, **{name: value for name, value in how.items() if chosen.takes(name)})
    # A run that was resumed counts from its own first beginning.
    return replace(noise, seconds=max([time.perf_counter() - start, *noise.curves.get("seconds", [])[-1:]]))
