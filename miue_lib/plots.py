"""Every figure of the book, in one style: labelled axes, seeds and error bars, colours safe for colour-blind readers.

Figures are returned, not shown. They know no method by name: what is drawn, and what it is called, comes in.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from .data import ImageSet
from .perturbation import Perturbation

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


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    with plt.rc_context(STYLE):
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def slider(figures: Mapping[str, Figure], *, label: str) -> Any:
    """A slider over prepared figures that moves in a rendered page, where no kernel runs.

    figures: what each figure shows, in words for those who cannot see it → the figure. label: of the slider.
    """
    import ipywidgets  # part of the book, not of the library's own needs

    wide = {"description_width": "initial"}
    control = ipywidgets.IntSlider(0, 0, len(figures) - 1, description=label, style=wide, readout=False)
    return _turning(control, "value", figures.items())


def chooser(figures: Mapping[str, tuple[str, Figure]], *, label: str) -> Any:
    """A row of buttons, one for each of the prepared figures, that works in a rendered page as `slider` does.

    figures: the name on the button → what the figure shows, in words for those who cannot see it, and the figure.
    """
    import ipywidgets  # part of the book, not of the library's own needs

    look = {"button_width": "auto", "description_width": "initial"}
    control = ipywidgets.ToggleButtons(options=list(figures), index=0, description=label, style=look)
    return _turning(control, "index", figures.values())


def _turning(control: Any, trait: str, figures: Iterable[tuple[str, Figure]]) -> Any:
    """`control` above the figure whose place its `trait` tells; in a page the browser itself links the two.

    figures: an alternative text and a figure each. They become pictures in a stack.
    """
    import ipywidgets

    shown = []
    for alt, figure in figures:
        data = base64.b64encode(as_png(figure)).decode()
        # An HTML widget: ipywidgets.Image has no alternative text.
        image = f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" style="max-width: 100%">'
        shown.append(ipywidgets.HTML(image))
    if not hasattr(ipywidgets, "Stack"):  # ipywidgets 7, as on Colab, where there is a kernel to turn the pages
        window = ipywidgets.HTML(shown[0].value)
        control.observe(lambda change: setattr(window, "value", shown[change["new"]].value), trait)
        return ipywidgets.VBox([control, window])
    stack = ipywidgets.Stack(shown, selected_index=0)
    ipywidgets.jslink((control, trait), (stack, "selected_index"))
    return ipywidgets.VBox([control, stack])


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook with a text for those who cannot see it."""
    from IPython.display import display

    display(figure, metadata={"image/png": {"alt": alt}})  # type: ignore[no-untyped-call]
