"""Methods that make pictures unlearnable, one file each; `craft` runs the one that is named."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .._errors import bad, check_choice
from ..data import ImageSet
from ..perturbation import Perturbation
from .em import em
from .execution import Execution
from .miue import miue
from .random import random

METHODS: dict[str, Callable[..., Perturbation]] = {"random": random, "em": em, "miue": miue}


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

    `help(miue_lib.METHODS["miue"])` tells them. Every method takes `epsilon`, the L∞ budget in pixel values, and
    `seed`; the noise belongs to these pictures and `images.with_` refuses it for others. The other arguments change
    how a method runs, for those that take long (a method that does not is done before they would matter):

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
    run = METHODS[method]
    known = [name for name, kind in inspect.signature(run).parameters.items() if kind.kind is kind.KEYWORD_ONLY]
    long = "execution" in known
    known = [name for name in known if name != "execution"]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise bad(f"settings of {method!r}", ", ".join(unknown), "only " + ", ".join(known))
    return run(images, **settings, **({"execution": execution} if long else {}))
