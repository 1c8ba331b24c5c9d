"""Charts of numbers that were measured over several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .style import COLOURS, STYLE


def bars(
    values: Mapping[str, Sequence[float]],
    *,
    ylabel: str,
    chance: float | None = None,
    groups: Mapping[str, str] | None = None,
) -> Figure:
    """One bar a name: the mean of its values, an error bar of one sample standard deviation, every value a dot.

    values: name → one number a seed (at least two). ylabel: what they are. chance: where a dashed line shows what
    guessing would give. groups: name → the group that it is coloured by, with a legend, instead of a colour of its own.

    Up to six bars stand; more lie, the first on top, so that their names stay legible.
    """
    lying = len(values) > 6
    group_of = groups or {name: name for name in values}
    colours = dict(zip(dict.fromkeys(group_of[name] for name in values), COLOURS * len(values), strict=False))

    def at(along: Any, value: Any) -> tuple[Any, Any]:
        return (value, along) if lying else (along, value)

    with plt.rc_context(STYLE):
        size = (6.4, 0.9 + 0.29 * len(values)) if lying else (1.1 + 1.15 * len(values), 3.2)
        figure, axes = plt.subplots(figsize=(size[0] + bool(groups), size[1]))
        draw, of_names, of_values = (axes.barh, axes.yaxis, axes.xaxis) if lying else (axes.bar, axes.xaxis, axes.yaxis)
        of_names.grid(visible=False)
        for place, (name, numbers) in enumerate(values.items()):
            mean, deviation = float(np.mean(numbers)), float(np.std(numbers, ddof=1))
            error: Any = {"xerr" if lying else "yerr": deviation, "capsize": 3 if lying else 5}
            draw(place, mean, 0.65, color=colours[group_of[name]], alpha=0.75, **error)
            axes.plot(*at(place + np.linspace(-0.12, 0.12, len(numbers)), numbers), "o", color="black", markersize=3)
            end = at(place, mean + deviation)
            words: Any = {"ha": "left", "va": "center"} if lying else {"ha": "center"}
            axes.annotate(f"{mean:.3f}", end, xytext=at(0, 8 if lying else 4), textcoords="offset points", **words)
        of_names.set_ticks(range(len(values)), list(values))
        of_values.set_label_text(ylabel)
        if lying:
            axes.margins(x=0.12)
            axes.set_ylim(len(values) - 0.05, -0.6)  # the first on top; below the last, room for a word
        else:
            axes.margins(y=0.12)
        if chance is not None:
            (axes.axvline if lying else axes.axhline)(chance, linestyle="--", color="#555555", linewidth=1)
            end = at(len(values) - (0.15 if lying else 0.55), chance)
            words = {"ha": "left" if lying else "right", "color": "#555555", "fontsize": 8}
            axes.annotate("guessing", end, xytext=at(0, 3), textcoords="offset points", **words)
        if groups:
            swatches = [Patch(color=colour, alpha=0.75) for colour in colours.values()]
            figure.legend(swatches, list(colours), loc="outside right upper")
        plt.close(figure)
    return figure


def curves(panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], *, xlabel: str, ylabel: str) -> Figure:
    """Panels that share an axis; in each, one line a name (the mean over runs) with a band of one standard deviation.

    panels: title → name → one sequence of numbers a run, all of one length. A name looks the same in every panel, and
    one legend beside them serves all.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    looks = cycler(linestyle=["-", "--", ":"]) * cycler(color=COLOURS)
    look: dict[str, Any] = dict(zip(names, looks(), strict=False))
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(panels), figsize=(1.6 + 3.4 * len(panels), 3.2), sharey=True, squeeze=False)
        drawn = {}
        for axes, (title, lines) in zip(row[0], panels.items(), strict=True):
            for name, runs in lines.items():
                table = np.asarray(runs, dtype=float)
                epochs = np.arange(1, table.shape[1] + 1)
                (drawn[name],) = axes.plot(epochs, table.mean(0), linewidth=1.8, **look[name])
                if len(table) > 1:
                    deviation = table.std(0, ddof=1)
                    axes.fill_between(
                        epochs,
                        table.mean(0) - deviation,
                        table.mean(0) + deviation,
                        color=look[name]["color"],
                        alpha=0.2,
                        linewidth=0,
                    )
            axes.set_title(title)
            axes.set_xlabel(xlabel)
        row[0][0].set_ylabel(ylabel)
        figure.legend(drawn.values(), drawn.keys(), loc="outside right upper")
        plt.close(figure)
    return figure
