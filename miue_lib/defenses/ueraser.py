"""UEraser: augmentations so strong that the noise does not survive them, and of several the worst."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._errors import bad, check_count
from ..train import autocast
from .mixing import seeded

_ROUGHNESS = (0.3, 0.7)
_INTENSITY = (0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class UEraser:
    """Train on the worst of `draws` strong augmentations (Qin, Gao, Zhao, Ye and Xu 2023); targets stay the labels.

    Each augmentation is a row of four: a plasma fractal added to half of the pictures, one that multiplies the contrast
    of half, the channels of half shuffled, and TrivialAugment (Müller and Hutter 2021) of all. Of each picture the draw
    with the largest cross-entropy is trained on. draws: 1 is UEraser-Lite, which picks nothing; 5, at every step, is
    the mode `em` of the released code. (Its standard mode goes on with 1 after a quarter of the epochs.) Cost: the
    draws, and with more than one a forward pass on all of them.

    The settings are those released, where the row is of classes of Kornia (read in 0.9). Deviations:

    - Kornia draws one operation of TrivialAugment a batch; here, as in its paper, each picture gets its own.
    - The twelve operations and their ranges are those of Kornia, but they do what their names mean to Pillow and
      torchvision, as in TrivialAugment's paper: Kornia's brightness adds and its contrast scales towards black, and
      half of its rotations, shears and translations do nothing. Its shear of up to 54° is one of up to 0.3 pixels a
      pixel here. Of posterising to 0 bits, a black picture, which the maximum would pick, nothing is kept.
    - Kornia divides the corners and the centre of the grid that a fractal starts from by three; here they are not, and
      a fractal is ½ on average everywhere.
    - The loss is that of the worst draws in one batch. Its gradient is the maximum's, but batch normalisation sees
      the worst draws, where the original normalises them together with all others.

    Raises `ValueError` for draws that are no whole number ≥ 1.
    """

    draws: int = 5

    def __post_init__(self) -> None:
        check_count("draws", self.draws)

    @torch.no_grad()
    def __call__(
        self, model: nn.Module, pictures: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """New pictures `(n, C, H, W)` in [0, 1], and the labels `(n,)`.

        The model is scored in the mode that it is in, as the original does: in training mode batch normalisation uses
        the statistics of all draws. It updates a copy of the running ones, so the model's stay as they were.

        Raises `ValueError` for pictures of other than 1 or 3 channels.
        """
        if pictures.shape[1] not in (1, 3):
            raise bad("pictures", f"{pictures.shape[1]} channels", "1 or 3")
        drawn = torch.stack([_augmented(pictures, generator) for _ in range(self.draws)])
        if self.draws == 1:
            return drawn[0], labels
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        flat = drawn.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        with seeded(generator), autocast(pictures.device):  # seeded for dropout
            logits = torch.func.functional_call(model, buffers, (flat,))
        losses = F.cross_entropy(logits.float(), labels.repeat(self.draws), reduction="none")
        worst = losses.view(self.draws, -1).argmax(0)
        return drawn[worst, torch.arange(len(labels), device=worst.device)], labels


def _augmented(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """One draw of the whole row."""
    seen = _half(pictures, _plasma_brightness, generator)
    seen = _half(seen, _plasma_contrast, generator)
    if pictures.shape[1] > 1:
        seen = _half(seen, _shuffled_channels, generator)
    operation = torch.randint(len(OPERATIONS), (len(seen),), generator=generator, device=generator.device)
    return trivial_augment(seen, operation, _uniform(len(seen), 0, 1, generator))


def _half(pictures: Tensor, change: Callable[[Tensor, torch.Generator], Tensor], generator: torch.Generator) -> Tensor:
    """Each picture changed with probability ½."""
    rows = (_uniform(len(pictures), 0, 1, generator) < 0.5).nonzero()[:, 0]
    return pictures.index_copy(0, rows, change(pictures[rows], generator))


def _plasma_brightness(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Up to `_INTENSITY` of brightness added or taken, after a fractal for each channel."""
    intensity = _uniform(len(pictures), *_INTENSITY, generator).view(-1, 1, 1, 1)
    return (pictures + intensity * (2 * _plasma(pictures, generator) - 1)).clamp(0, 1)


def _plasma_contrast(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """The distance to mid-grey multiplied by 0 to 4, after a fractal for each channel."""
    return ((pictures - 0.5) * 4 * _plasma(pictures, generator) + 0.5).clamp(0, 1)


def _shuffled_channels(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """The channels of each picture in an order of its own."""
    order = torch.rand(pictures.shape[:2], generator=generator, device=generator.device).argsort(1)
    return pictures.gather(1, order[:, :, None, None].expand_as(pictures))


def _plasma(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """A fractal for each channel of each picture, like them in shape; the roughness of a picture is uniform."""
    n, channels, height, width = pictures.shape
    roughness = _uniform(n, *_ROUGHNESS, generator).repeat_interleave(channels)
    return plasma(roughness, height, width, generator).view(n, channels, height, width)


def plasma(roughness: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Plasma fractals in [0, 1] by the diamond-square algorithm (Fournier, Fussell and Carpenter 1982).

    roughness: r of each, `(n,)` in [0, 1]. Returns `(n, height, width)`, cut from a square of 2^k + 1.

    Corners are uniform. From one grid to the next of half the spacing, a new point is (1 − s) times the mean of its
    neighbours and s times a uniform number: s is 0 in the first, 3 × 3, then r, r², and so on.
    """
    grid = torch.rand((len(roughness), 2, 2), generator=generator, device=roughness.device)
    share = torch.zeros_like(roughness)
    while grid.shape[-1] < max(height, width):
        grid = _finer(grid, share.view(-1, 1, 1), generator)
        share = roughness if grid.shape[-1] == 3 else share * roughness
    return grid[:, :height, :width]


def _finer(grid: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
    """A grid `(n, m, m)` with a point between any two neighbours, and in the middle of any four: side 2m − 1."""
    n, m, _ = grid.shape

    def new(mean: Tensor) -> Tensor:
        return mean.lerp(torch.rand(mean.shape, generator=generator, device=mean.device), share)

    across = grid[:, :, :-1] + grid[:, :, 1:]
    centres = new((across[:, :-1] + across[:, 1:]) / 4)
    finer = grid.new_empty(n, 2 * m - 1, 2 * m - 1)
    finer[:, ::2, ::2], finer[:, 1::2, 1::2] = grid, centres
    finer[:, ::2, 1::2] = new(_edges(across, centres))
    finer[:, 1::2, ::2] = new(_edges((grid[:, :-1] + grid[:, 1:]).mT, centres.mT).mT)
    return finer


def _edges(across: Tensor, centres: Tensor) -> Tensor:
    """The mean of two corners, summed in `across` `(n, m, m − 1)`, and of the centres above and below that exist."""
    above, below = F.pad(centres, (0, 0, 1, 0)), F.pad(centres, (0, 0, 0, 1))
    mean = (across + above + below) / 4
    mean[:, [0, -1]] *= 4 / 3
    return mean


def trivial_augment(pictures: Tensor, operation: Tensor, strength: Tensor) -> Tensor:
    """To each picture `(n, C, H, W)` in [0, 1] one of `OPERATIONS`, C being 1 or 3; new pictures of the same shape.

    operation: the number of each picture's, int64 `(n,)`. strength: in [0, 1], `(n,)`, from one end of its range to the
    other. The pictures of an operation go through it together.
    """
    counts = torch.bincount(operation, minlength=len(OPERATIONS)).tolist()
    result = torch.empty_like(pictures)
    for rows, change in zip(torch.split(operation.argsort(), counts), OPERATIONS.values(), strict=True):
        if len(rows):
            result[rows] = change(pictures[rows], strength[rows].view(-1, 1, 1, 1))
    return result


def _rotate(pictures: Tensor, strength: Tensor) -> Tensor:
    """By up to 30° either way."""
    angle = math.radians(30) * (2 * strength - 1)
    return _warped(pictures, [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])


def _shear_x(pictures: Tensor, strength: Tensor) -> Tensor:
    """Rows moved by up to 0.3 pixels for each pixel that they are from the middle."""
    return _warped(pictures, [[1, 0.3 * (2 * strength - 1)], [0, 1]])


def _shear_y(pictures: Tensor, strength: Tensor) -> Tensor:
    """Columns moved as `_shear_x` moves rows."""
    return _warped(pictures, [[1, 0], [0.3 * (2 * strength - 1), 1]])


def _translate_x(pictures: Tensor, strength: Tensor) -> Tensor:
    """By up to half of the width either way."""
    return _warped(pictures, [[1, 0], [0, 1]], x=pictures.shape[3] * (strength - 0.5))


def _translate_y(pictures: Tensor, strength: Tensor) -> Tensor:
    """By up to half of the height either way."""
    return _warped(pictures, [[1, 0], [0, 1]], y=pictures.shape[2] * (strength - 0.5))


def _warped(
    pictures: Tensor, source: list[list[Tensor | float]], x: Tensor | float = 0.0, y: Tensor | float = 0.0
) -> Tensor:
    """Each picture read, bilinearly and black outside, where a matrix and a shift send the pixels.

    source: 2 × 2, from (x, y) in pixels from the middle to where that is read from, each entry a number or `(n, 1, 1,
    1)`; then (x, y) is added.
    """
    height, width = pictures.shape[2:]
    (a, b), (c, d) = source
    # affine_grid counts from −1 to 1 along both sides.
    entries = (a, b * (height / width), x * (2 / width), c * (width / height), d, y * (2 / height))
    matrix = torch.stack([torch.as_tensor(e, device=pictures.device).expand(len(pictures), 1, 1, 1) for e in entries])
    grid = F.affine_grid(matrix.flatten(1).T.reshape(-1, 2, 3).float(), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False).clamp(0, 1)


def _brightness(pictures: Tensor, strength: Tensor) -> Tensor:
    """From near black to nearly twice as bright."""
    return _enhanced(pictures, torch.zeros_like(pictures), strength)


def _contrast(pictures: Tensor, strength: Tensor) -> Tensor:
    """From near the picture's mean grey to nearly twice as far from it."""
    from torchvision.transforms.v2 import functional

    return _enhanced(pictures, functional.adjust_contrast(pictures, 0.0), strength)


def _sharpness(pictures: Tensor, strength: Tensor) -> Tensor:
    """From blurred to sharpened by as much."""
    from torchvision.transforms.v2 import functional

    return _enhanced(pictures, functional.adjust_sharpness(pictures, 0.0), strength)


def _enhanced(pictures: Tensor, nothing: Tensor, strength: Tensor) -> Tensor:
    """Pillow's enhancement by a factor from 0.1 to 1.9: 0 would leave `nothing`, 1 leaves the picture."""
    return nothing.lerp(pictures, 0.1 + 1.8 * strength).clamp(0, 1)


def _posterize(pictures: Tensor, strength: Tensor) -> Tensor:
    """To 1, 2, 3 or 4 bits."""
    levels = 2 ** (1 + (4 * strength).floor().clamp_max(3))
    return (pictures * levels).floor().minimum(levels - 1) / levels


def _solarize(pictures: Tensor, strength: Tensor) -> Tensor:
    """What is as bright as `strength` inverted."""
    return torch.where(pictures >= strength, 1 - pictures, pictures)


def _autocontrast(pictures: Tensor, strength: Tensor) -> Tensor:
    """Each channel stretched to all of [0, 1]."""
    from torchvision.transforms.v2 import functional

    stretched: Tensor = functional.autocontrast(pictures)
    return stretched


def _equalize(pictures: Tensor, strength: Tensor) -> Tensor:
    """The histogram of each channel made flat, in 8 bits."""
    from torchvision.transforms.v2 import functional

    flat: Tensor = functional.equalize(pictures)
    return flat


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator, device=generator.device)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rotate": _rotate,
    "shear x": _shear_x,
    "shear y": _shear_y,
    "translate x": _translate_x,
    "translate y": _translate_y,
    "brightness": _brightness,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
