"""What a victim may do about noise, one defence or a few alike in a file; `DEFENSES` names them.

Some change the stored pictures before training: `(images, *, settings…) → ImageSet`. Others act in training: an object,
made of its settings, that `miue_lib.fit(…, defense=…)` calls for every batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .adversarial import AdversarialTraining
from .diffusion import diffusion
from .mixing import CutMix, Cutout, MixUp
from .pictures import bit_depth, grayscale, jpeg
from .projection import project_out
from .ueraser import UEraser
from .vae import vae


@dataclass(frozen=True)
class Defense:
    """What is known of a defence without running it.

    run: `(images, *, settings…) → ImageSet`, or what makes an object for `fit` of settings. title: as in tables.
    kind: "pictures" or "training".
    """

    run: Callable[..., Any]
    title: str
    kind: str


DEFENSES: dict[str, Defense] = {
    "jpeg": Defense(jpeg, "JPEG", "pictures"),
    "grayscale": Defense(grayscale, "grayscale", "pictures"),
    "bit_depth": Defense(bit_depth, "bit depth", "pictures"),
    "projection": Defense(project_out, "orthogonal projection", "pictures"),
    "vae": Defense(vae, "D-VAE", "pictures"),
    "diffusion": Defense(diffusion, "diffusion", "pictures"),
    "cutout": Defense(Cutout, "Cutout", "training"),
    "cutmix": Defense(CutMix, "CutMix", "training"),
    "mixup": Defense(MixUp, "MixUp", "training"),
    "ueraser": Defense(UEraser, "UEraser", "training"),
    "adversarial": Defense(AdversarialTraining, "adversarial training", "training"),
}

__all__ = [
    "DEFENSES",
    "AdversarialTraining",
    "CutMix",
    "Cutout",
    "Defense",
    "MixUp",
    "UEraser",
    "bit_depth",
    "diffusion",
    "grayscale",
    "jpeg",
    "project_out",
    "vae",
]
