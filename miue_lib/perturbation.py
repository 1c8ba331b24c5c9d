"""What a method returns: the noise as it will be published, and where it came from.

Published pictures have 256 levels, so noise is kept in whole levels, after rounding: what is stored, added, measured
and published is one and the same, and ‖δ‖∞ ≤ ε holds for it rather than for a float that no file can hold.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ._errors import bad, check_number
from ._files import beside, read_tagged
from .data import ImageSet

_FORMAT = "miue_lib.perturbation/2"
_ABOUT = ("epsilon", "method", "settings", "fingerprint", "curves", "passes", "seconds")  # kept beside the levels


def budget_in_levels(epsilon: float) -> int:
    """⌊255 ε⌋: the largest whole number of levels within ε, forgiving the rounding of a quotient such as 8/255."""
    return math.floor(255 * epsilon + 1e-6)


def rounded(
    images: ImageSet,
    delta: Callable[[slice], Tensor],
    epsilon: float,
    out: Tensor | None = None,
) -> Tensor:
    """The whole levels that publishing pictures + δ adds: within the budget, and within [0, 255] with the picture.

    delta: gives δ of some rows of pictures, in pixel values, or, as integers, in levels. It is asked for a few
        megabytes at a time, in order, so that neither δ nor the result need fit in memory.
    out: int8 or int16 `(N, C, H, W)` to fill, by default new memory on the pictures' device.

    Rounding is to the nearest level; truncating would shrink every δ by half a level on average.
    """
    most = budget_in_levels(check_number("epsilon", epsilon, 0, 1, open_low=True))
    if out is None:
        out = torch.empty(images.images.shape, dtype=torch.int8 if most < 128 else torch.int16, device=images.device)
    rows = max(1, (1 << 22) // max(1, images.images[0].numel()))
    for start in range(0, len(images), rows):
        part = slice(start, start + rows)
        change = delta(part).to(images.device)
        if change.is_floating_point():
            if not bool(torch.isfinite(change).all()):
                raise bad("delta", "NaN or infinite values", "finite pixel values")
            change = change.mul(255).round_().clamp_(-255, 255)
        clean = images.images[part].to(torch.int16)
        change = change.to(torch.int32).clamp_(-most, most).to(torch.int16)
        out[part] = (clean + change).clamp_(0, 255).sub_(clean).to(out.device)
    return out


def _check_shape(images: ImageSet, noise: Tensor) -> None:
    if noise.shape != images.images.shape:
        raise bad("delta", f"shape {tuple(noise.shape)}", f"the pictures' shape {tuple(images.images.shape)}")


@dataclass(frozen=True, eq=False)
class Perturbation:
    """Noise for one set of pictures.

    levels: `(N, C, H, W)`, published minus clean, in 1/255 of the pixel range; int8 where the budget is below half the
        range, else int16. May be memory-mapped.
    epsilon: the L∞ budget in pixel values; |levels| ≤ 255 ε. 1 for noise that is bounded in another norm, or not.
    method, settings: what made it. fingerprint: of the `ImageSet` it belongs to.
    curves: what the method recorded on its way, one number a round.
    passes: what crafting cost, in forward and backward passes of a network over all the pictures.
    seconds: what it took, on the machine where it was crafted.
    """

    levels: Tensor
    epsilon: float
    method: str
    settings: Mapping[str, Any]
    fingerprint: str
    curves: Mapping[str, list[float]] = field(default_factory=dict)
    passes: float = 0.0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        check_number("epsilon", self.epsilon, 0, 1, open_low=True)
        if self.levels.dtype not in (torch.int8, torch.int16) or self.levels.ndim != 4 or not self.levels.numel():
            raise bad("levels", f"{self.levels.dtype} {tuple(self.levels.shape)}", "int8 or int16 (N, C, H, W)")
        if self._largest > budget_in_levels(self.epsilon):
            raise bad("levels", f"noise of {self._largest}/255", f"at most epsilon = {255 * self.epsilon:g}/255")

    @property
    def _largest(self) -> int:
        return max(-int(self.levels.min()), int(self.levels.max()))

    @classmethod
    def of(cls, images: ImageSet, delta: Tensor, *, epsilon: float, method: str, settings: Mapping[str, Any],
           curves: Mapping[str, list[float]] | None = None, passes: float = 0.0) -> Perturbation:  # fmt: skip
        """The perturbation that publishing `images + delta` makes: rounded to levels, within the budget and [0, 255].

        delta: floating point `(N, C, H, W)` in pixel values. Rounding is to the nearest level; truncating would
        shrink every δ by half a level on average.
        """
        _check_shape(images, delta)
        levels = rounded(images, lambda rows: delta[rows], epsilon)
        return cls(levels, epsilon, method, dict(settings), images.fingerprint, dict(curves or {}), passes)

    @classmethod
    def of_levels(cls, images: ImageSet, levels: Tensor, *, epsilon: float, method: str, settings: Mapping[str, Any],
                  curves: Mapping[str, list[float]] | None = None, passes: float = 0.0) -> Perturbation:  # fmt: skip
        """As `of`, for noise that is in whole levels already, of any integer type."""
        _check_shape(images, levels)
        within = rounded(images, lambda rows: levels[rows], epsilon)
        return cls(within, epsilon, method, dict(settings), images.fingerprint, dict(curves or {}), passes)

    @property
    def delta(self) -> Tensor:
        """The noise as float32 `(N, C, H, W)` in pixel values."""
        return self.levels.float() / 255

    @property
    def linf(self) -> float:
        """‖δ‖∞ in pixel values."""
        return self._largest / 255

    def __repr__(self) -> str:
        n, c, h, w = self.levels.shape
        return f"Perturbation({self.method!r}, {n:,} × {c}×{h}×{w}, ε = {255 * self.epsilon:g}/255)"

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whole or not at all."""
        path = Path(path)
        if not path.parent.is_dir() or path.is_dir():
            raise bad("path", repr(str(path)), "a file in a folder that exists")
        about = {key: getattr(self, key) for key in _ABOUT}
        about |= {key: dict(about[key]) for key in ("settings", "curves")}
        stored = self.levels.cpu().contiguous()
        with beside(path) as part:
            save_file({"levels": stored}, part, {"format": _FORMAT, "about": json.dumps(about, default=float)})

    @classmethod
    def load(cls, path: str | Path) -> Perturbation:
        """Read what `save` wrote. Raises `ValueError` for a path that is not there or a file that is not whole."""
        what = "file written by Perturbation.save"
        tensors, about = read_tagged(Path(path), _FORMAT, "path", what)
        try:
            return cls(tensors["levels"], **{key: about[key] for key in _ABOUT})
        except (KeyError, TypeError, ValueError) as error:
            raise bad("path", f"{str(path)!r} ({error!r})", f"a whole {what}") from error
