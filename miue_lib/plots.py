"""Every figure of the book, in one style: labelled axes, seeds and error bars, colours safe for colour-blind readers.

Figures are returned, not shown. They know no method by name: what is drawn, and what it is called, comes in.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

# Okabe and Ito (2008), yellow left out: it is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE: Any = {  # matplotlib types the keys as a list of 350 literals
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "legend.frameon": False,
}


def bars(values: Mapping[str, Sequence[float]], *, ylabel: str, chance: float | None = None) -> Figure:
    """One bar a name: the mean of its values, an error bar of one sample standard deviation, every value a dot.

    values: name → one number a seed (at least two). chance: where a dashed line shows what guessing would give.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(1.1 + 1.15 * len(values), 3.2))
        axes.grid(axis="x", visible=False)
        for place, (numbers, colour) in enumerate(zip(values.values(), COLOURS * len(values), strict=False)):
            mean, deviation = float(np.mean(numbers)), float(np.std(numbers, ddof=1))
            axes.bar(place, mean, 0.65, yerr=deviation, capsize=5, color=colour, alpha=0.75)
            axes.plot(place + np.linspace(-0.12, 0.12, len(numbers)), numbers, "o", color="black", markersize=3)
            axes.annotate(
                f"{mean:.3f}", (place, mean + deviation), xytext=(0, 4), textcoords="offset points", ha="center"
            )
        axes.set_xticks(range(len(values)), list(values))
        axes.set_ylabel(ylabel)
        axes.margins(y=0.12)
        if chance is not None:
            axes.axhline(chance, linestyle="--", color="#555555", linewidth=1)
            axes.annotate(
                "guessing",
                (len(values) - 0.55, chance),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                color="#555555",
                fontsize=8,
            )
        plt.close(figure)
    return figure


def curves(panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], *, xlabel: str, ylabel: str) -> Figure:
    """Panels that share an axis; in each, one line a name (the mean over runs) with a band of one standard deviation.

    panels: title → name → one sequence of numbers a run, all of one length.
    """
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(panels), figsize=(0.6 + 3.4 * len(panels), 3.2), sharey=True, squeeze=False)
        for axes, (title, lines) in zip(row[0], panels.items(), strict=True):
            for name, runs in lines.items():
                table = np.asarray(runs, dtype=float)
                epochs = np.arange(1, table.shape[1] + 1)
                (line,) = axes.plot(epochs, table.mean(0), label=name, linewidth=1.8)
                if len(table) > 1:
                    deviation = table.std(0, ddof=1)
                    axes.fill_between(
                        epochs,
                        table.mean(0) - deviation,
                        table.mean(0) + deviation,
                        color=line.get_color(),
                        alpha=0.2,
                        linewidth=0,
                    )
            axes.set_title(title)
            axes.set_xlabel(xlabel)
        row[0][0].set_ylabel(ylabel)
        row[0][-1].legend()
        plt.close(figure)
    return figure


def pictures(rows: Mapping[str, Tensor], titles: Sequence[str], *, limits: Mapping[str, float] | None = None) -> Figure:
    """Rows of pictures with a name on the left and a title above each column.

    rows: name → `(n, C, H, W)`. Rows named in `limits` are signed noise, drawn from −limit to +limit around mid-grey
    (blue below zero and red above, where there is one channel); the others are uint8, or pixel values in [0, 1].
    """
    limits = limits or {}
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            len(rows), len(titles), figsize=(0.9 + 0.95 * len(titles), 0.25 + 1.0 * len(rows)), squeeze=False
        )
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
        plt.close(figure)
    return figure


def _draw_noise(axes: Any, pixels: np.ndarray, limit: float) -> None:
    if pixels.shape[2] == 1:
        axes.imshow(pixels[:, :, 0], cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    else:
        axes.imshow((pixels / (2 * limit) + 0.5).clip(0, 1), interpolation="nearest")


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    with plt.rc_context(STYLE):
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def slider(figures: Mapping[str, Figure], *, label: str) -> Any:
    """A slider over prepared figures that moves in a rendered page, where no kernel runs.

    The figures become pictures in a stack, and the browser itself links the slider's value to the one that shows.
    figures: what each figure shows, in words for those who cannot see it → the figure. label: of the slider.
    """
    import ipywidgets  # part of the book, not of the library's own needs

    shown = []
    for alt, figure in figures.items():
        data = base64.b64encode(as_png(figure)).decode()
        # An HTML widget: ipywidgets.Image has no alternative text.
        shown.append(
            ipywidgets.HTML(
                f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" style="max-width: 100%">'
            )
        )
    control = ipywidgets.IntSlider(
        0, 0, len(shown) - 1, description=label, style={"description_width": "initial"}, readout=False
    )
    if not hasattr(ipywidgets, "Stack"):  # ipywidgets 7, as on Colab, where there is a kernel to turn the pages
        window = ipywidgets.HTML(shown[0].value)
        control.observe(lambda change: setattr(window, "value", shown[change["new"]].value), "value")
        return ipywidgets.VBox([control, window])
    stack = ipywidgets.Stack(shown, selected_index=0)
    ipywidgets.jslink((control, "value"), (stack, "selected_index"))
    return ipywidgets.VBox([control, stack])


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook with a text for those who cannot see it."""
    from IPython.display import display

    display(figure, metadata={"image/png": {"alt": alt}})  # type: ignore[no-untyped-call]
