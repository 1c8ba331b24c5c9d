"""Methods that make pictures unlearnable, one file each; `craft` runs the one that is named."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .._errors import bad, check_choice
from ..data import ImageSet
from ..perturbation import Perturbation
from .em import em
from .miue import miue
from .random import random

METHODS: dict[str, Callable[..., Perturbation]] = {"random": random, "em": em, "miue": miue}


def craft(method: str, images: ImageSet, **settings: Any) -> Perturbation:
    """Noise for `images` by the method called `method`; `settings` are that method's own arguments.

    `help(miue_lib.METHODS["miue"])` tells them. Every method takes `epsilon`, the L∞ budget in pixel values, and
    `seed`; the noise belongs to these pictures and `images.with_` refuses it for others.

    Raises `ValueError` for an unknown method or setting.
    """
    check_choice("method", method, METHODS)
    if not isinstance(images, ImageSet):
        raise bad("images", type(images).__name__, "an ImageSet")
    run = METHODS[method]
    known = [name for name, kind in inspect.signature(run).parameters.items() if kind.kind is kind.KEYWORD_ONLY]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise bad(f"settings of {method!r}", ", ".join(unknown), "only " + ", ".join(known))
    return run(images, **settings)
