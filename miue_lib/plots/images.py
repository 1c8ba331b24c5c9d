"""Pictures, noise, and the spectrum of noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from ..data import ImageSet
from ..perturbation import Perturbation
from .style import STYLE


def pictures(rows: Mapping[str, Tensor], titles: Sequence[str], *, limits: Mapping[str, float] | None = None) -> Figure:
    """Rows of pictures with a name on the left and a title above each column.

    rows: name → `(n, C, H, W)`. Rows named in `limits` are signed noise, drawn from −limit to +limit around mid-grey
    (blue below zero and red above, where there is one channel); the others are uint8, or pixel values in [0, 1].
    """
    with plt.rc_context(STYLE):
        size = (0.9 + 0.95 * len(titles), 0.25 + 1.0 * len(rows))
        figure, grid = plt.subplots(len(rows), len(titles), figsize=size, squeeze=False)
        _draw_pictures(grid, rows, titles, limits or {})
        plt.close(figure)
    return figure


def noise_card(images: ImageSet, noise: Perturbation, *, title: str) -> Figure:
    """What the noise of a method looks like: on the first picture of each of up to three classes, and in frequency.

    On the left clean pictures, noise and published pictures. The noise is drawn as in `pictures`, amplified by the
    factor beside it: as much as these pictures' noise allows.

    On the right the mean power spectrum of all the noise: log₁₀ of |FFT|² / (H·W), averaged over pictures and channels
    before the logarithm, in squared pixel values. Independent noise of variance σ² is flat at σ², smooth noise bright
    in the middle. Power below a millionth of the largest is drawn as that.

    Raises `ValueError` for noise of other pictures.
    """
    images.check_owner(noise)
    classes = torch.bincount(images.labels).nonzero()[:3, 0].tolist()
    first = [int((images.labels == c).nonzero()[0]) for c in classes]
    delta = noise.levels[first].float() / 255
    limit = float(delta.abs().max()) or 0.5
    noise_row = f"noise × {0.5 / limit:.3g}"
    published = (images.images[first].int() + noise.levels[first].to(images.device)).to(torch.uint8)
    rows = {"clean": images.images[first], noise_row: delta, "published": published}
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(8.6, 3.6))
        halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.05))
        left, right = halves
        grid = left.subplots(len(rows), len(first), squeeze=False)
        _draw_pictures(grid, rows, [images.classes[c] for c in classes], {noise_row: limit})
        _draw_spectrum(right.subplots(), noise.levels)
        figure.suptitle(title)
        plt.close(figure)
    return figure


def _draw_pictures(grid: Any, rows: Mapping[str, Tensor], titles: Sequence[str], limits: Mapping[str, float]) -> None:
    for line, (name, batch) in zip(grid, rows.items(), strict=True):
        for axes, picture in zip(line, batch, strict=True):
            pixels = picture.detach().cpu().numpy().transpose(1, 2, 0)
            if name in limits:
                _draw_noise(axes, pixels, limits[name])
            else:
                top = 255 if pixels.dtype == np.uint8 else 1
                axes.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=top, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=8)


def _draw_noise(axes: Any, pixels: np.ndarray, limit: float) -> None:
    if pixels.shape[2] == 1:
        axes.imshow(pixels[:, :, 0], cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    else:
        axes.imshow((pixels / (2 * limit) + 0.5).clip(0, 1), interpolation="nearest")


def _draw_spectrum(axes: Any, levels: Tensor) -> None:
    total = torch.zeros(levels.shape[2:], dtype=torch.float64, device=levels.device)
    for part in torch.split(levels, max(1, (1 << 20) // levels[0].numel())):  # noise may be more than memory holds
        total += torch.fft.fft2(part.float() / 255, norm="ortho").abs().square().sum((0, 1), dtype=torch.float64)
    power = np.fft.fftshift((total / (levels.shape[0] * levels.shape[1])).cpu().numpy())
    floor = max(1e-6 * power.max(), 1e-12)  # the latter where there is no noise at all
    edges = [np.arange(n + 1) / n - (n // 2 + 0.5) / n for n in power.shape]  # of cells around the frequencies
    decades = np.log10(power.clip(floor))
    low = min(decades.min(), decades.max() - 1)  # a flat spectrum looks flat
    drawn = axes.pcolormesh(edges[1], edges[0], decades, vmin=low, cmap="viridis", rasterized=True)
    axes.grid(visible=False)
    axes.set(
        aspect="equal",
        xlabel="horizontal frequency (cycles/pixel)",
        ylabel="vertical frequency (cycles/pixel)",
        title="mean power spectrum",
    )
    axes.figure.colorbar(drawn, ax=axes, label="log₁₀ power (squared pixel values)")
