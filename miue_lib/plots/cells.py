"""Tables of numbers as coloured cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .._errors import bad
from .seeds import Seeds, over_seeds
from .style import STYLE


def heatmap(
    values: Mapping[str, Mapping[str, Sequence[float] | None]],
    *,
    xlabel: str,
    ylabel: str,
    label: str,
    limits: tuple[float, float] = (0, 1),
    chance: float | None = None,
) -> Figure:
    """Rows and columns of coloured cells: in each the mean of its values, and below it one sample standard deviation.

    values: row, the first on top → column → one number a seed; a cell that is None or absent is hatched. xlabel: what
    the columns are. ylabel: what the rows are. label: of the colour bar, what the numbers are, with their unit.
    limits: of the colours, from dark to bright; the colour bar has an arrow where numbers lie beyond. chance: where the
    colour bar marks what guessing would give.
    """
    columns = list(dict.fromkeys(column for cells in values.values() for column in cells))
    seeds = {
        (y, columns.index(column)): over_seeds(f"values[{row!r}][{column!r}]", numbers)
        for y, (row, cells) in enumerate(values.items())
        for column, numbers in cells.items()
        if numbers is not None
    }
    if not seeds:
        raise bad("values", "nothing", "something to draw")
    if not (len(limits) == 2 and np.isfinite(limits).all() and limits[0] < limits[1]):
        raise bad("limits", limits, "two finite numbers, the lower first")
    wide = min(0.85, 6.4 / len(columns))  # of a cell, in inches
    size = (1.9 + 0.08 * max(map(len, values)) + wide * len(columns), 1.5 + 0.45 * len(values))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=size)
        mesh = _draw_cells(axes, (len(values), len(columns)), seeds, limits, wide)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.set_xticks(range(len(columns)), columns)
        if 0.09 * max(map(len, columns)) > wide:  # a letter takes 0.09 inches
            plt.setp(axes.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(values)), list(values))
        _draw_scale(figure, mesh, label, [one.mean for one in seeds.values()], chance)
        plt.close(figure)
    return figure


def _draw_cells(
    axes: Any,
    shape: tuple[int, int],
    seeds: Mapping[tuple[int, int], Seeds],
    limits: tuple[float, float],
    wide: float,
) -> Any:
    """Cells around whole numbers, `wide` inches each, with their numbers in black or white, whichever is clearer."""
    means = np.full(shape, np.nan)
    for place, one in seeds.items():
        means[place] = one.mean
    across, down = (np.arange(n + 1) - 0.5 for n in reversed(shape))
    mesh = axes.pcolormesh(
        across, down, np.ma.masked_invalid(means), cmap="cividis", vmin=limits[0], vmax=limits[1], edgecolors="white"
    )
    digits = max(0, 3 - math.ceil(math.log10(limits[1] - limits[0])))  # a thousandth of the range, or finer
    letters = min(9.0, 21 * wide)  # in points: five of them, and a margin, fit a cell
    words: Any = {"ha": "center", "va": "center", "textcoords": "offset points"}
    for y, x in np.ndindex(*shape):
        if (y, x) not in seeds:
            plain: Any = {"facecolor": "#f4f4f4", "linewidth": 0}
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, edgecolor="#bbbbbb", hatch="////", **plain))
            axes.annotate("–", (x, y), (0, 0), fontsize=letters, bbox=plain | {"boxstyle": "round,pad=0.15"}, **words)
            continue
        _, mean, deviation = seeds[y, x]
        look: Any = {"color": _ink(mesh.to_rgba(mean)), **words}
        axes.annotate(f"{mean:.{digits}f}", (x, y), (0, 0 if deviation is None else 4), fontsize=letters, **look)
        if deviation is not None:
            axes.annotate(f"± {deviation:.{digits}f}", (x, y), (0, -7), fontsize=0.75 * letters, **look)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlim=across[[0, -1]], ylim=down[[-1, 0]])  # the first row on top
    return mesh


def _ink(colour: Sequence[float]) -> str:
    """Black or white: what has the higher contrast on `colour`, (red, green, blue, …) in [0, 1] (WCAG 2.1)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def _draw_scale(figure: Figure, mesh: Any, label: str, means: Sequence[float], chance: float | None) -> None:
    below, above = min(means) < mesh.norm.vmin, max(means) > mesh.norm.vmax
    extend = "both" if below and above else "min" if below else "max" if above else "neither"
    bar = figure.colorbar(mesh, label=label, extend=extend)
    bar.outline.set_visible(False)
    if chance is not None:
        bar.ax.axhline(chance, color=_ink(mesh.to_rgba(chance)), linestyle="--", linewidth=1)
        where: Any = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        bar.ax.annotate("guessing", (0, chance), (-3, 0), ha="right", va="center", rotation=90, fontsize=8, **where)
