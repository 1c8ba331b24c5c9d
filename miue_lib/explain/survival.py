"""What a defence that changes pictures leaves of the noise in them."""

from __future__ import annotations

import torch

from .._errors import bad
from ..data import ImageSet

_ROWS = 1 << 22  # pixels at once


def survival(clean: ImageSet, published: ImageSet, defended_clean: ImageSet, defended: ImageSet) -> tuple[float, float]:
    """How much of the noise comes through a defence C, and how much is new: both in units of the noise's energy.

    With δ = x′ − x of all pictures and the difference D = C(x′) − C(x) of what the defence makes of both,

        survives = ⟨D, δ⟩ / ⟨δ, δ⟩,        disturbance = ‖D − survives · δ‖² / ‖δ‖².

    survives is 1 where the noise passes unchanged and 0 where D has nothing of it, as if C had not seen it. The rest of
    D, a value that was rounded the other way because of the noise, was not optimised by anyone.

    clean, published: x and x′; defended_clean, defended: C(x) and C(x′), all in one order. Raises `ValueError` for sets
    of other shapes or labels, and where there is no noise.
    """
    sets = {"published": published, "defended_clean": defended_clean, "defended": defended}
    for name, images in sets.items():
        if images.images.shape != clean.images.shape or not torch.equal(images.labels, clean.labels):
            given = f"pictures {tuple(images.images.shape)}"
            raise bad(name, given, f"those of clean, {tuple(clean.images.shape)}, in their order")
    energy = along = change = 0
    rows = max(1, _ROWS // max(1, clean.images[:1].numel()))
    for start in range(0, len(clean), rows):
        part = slice(start, start + rows)
        x, noisy, c, c_noisy = (one.images[part].to(torch.int64) for one in (clean, *sets.values()))
        delta, difference = noisy - x, c_noisy - c
        energy += int(delta.square().sum())  # levels are whole numbers: nothing is rounded
        along += int((delta * difference).sum())
        change += int(difference.square().sum())
    if energy == 0:
        raise bad("published", "the clean pictures", "pictures with noise")
    return along / energy, (change - along**2 / energy) / energy
