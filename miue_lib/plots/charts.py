"""Charts of numbers that were measured over several seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from .._errors import bad, check_number
from .seeds import Seeds, over_seeds
from .style import COLOURS, STYLE

# Each of 16 names has a marker of its own, the second eight open, so that they are told apart without colours too.
MARKERS = tuple(itertools.product((True, False), "osD^vPX*"))
HATCHES = ("", "///", "...", "xxx", "---", "\\\\\\")  # of groups of bars, likewise
GREY = "#555555"
AWAY: Any = {"textcoords": "offset points"}


def bars(
    values: Mapping[str, Sequence[float]],
    *,
    ylabel: str,
    chance: float | None = None,
    groups: Mapping[str, str] | None = None,
) -> Figure:
    """One bar a name: the mean of its values, an error bar of one sample standard deviation, every value a dot.

    values: name → one number a seed. ylabel: what they are. chance: where a dashed line shows what guessing would give.
    groups: name → the group that it is coloured by, with a legend, instead of a colour of its own.

    Up to six bars stand; more lie, the first on top, so that their names stay legible.
    """
    lying = len(values) > 6
    seeds = _over_seeds("values", values)
    colours = itertools.cycle(COLOURS)
    looks = _group_looks(values, groups) if groups else {name: {"facecolor": next(colours)} for name in values}
    with plt.rc_context(STYLE):
        size = (6.4, 0.9 + 0.29 * len(values)) if lying else (1.1 + 1.15 * len(values), 3.2)
        figure, axes = plt.subplots(figsize=(size[0] + bool(groups), size[1]))
        _draw_bars(axes, list(values), seeds, looks, lying=lying)
        for place, (numbers, mean, deviation) in enumerate(seeds.values()):
            end = _at(lying, place, max(mean + (deviation or 0), numbers.max()))  # where it covers no dot
            words: Any = {"ha": "left", "va": "center"} if lying else {"ha": "center"}
            axes.annotate(f"{mean:.3f}", end, xytext=_at(lying, 0, 8 if lying else 4), **AWAY, **words)
        (axes.set_xlabel if lying else axes.set_ylabel)(ylabel)
        room: Any = {"x" if lying else "y": 0.12}
        axes.margins(**room)
        if chance is not None:
            _draw_reference(axes, chance, "guessing", len(values), lying=lying)
        if groups:
            _group_legend(figure, looks, groups)
        plt.close(figure)
    return figure


def by_method(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    groups: Mapping[str, str] | None = None,
    references: Mapping[str, float] | None = None,
    reference: str = "reference",
) -> Figure:
    """Panels of lying bars that share their names, the first on top.

    A bar is the mean of its values, with an error bar of one sample standard deviation, and every value a dot.

    panels: what the panel's axis shows, with its unit → name → one number a seed. A panel may lack names. groups: name
    → the group that it is coloured by, with a legend. references: panel → where a dashed line stands in it, which
    `reference` names.
    """
    names = _names("panels", panels)
    seeds = {label: _over_seeds(f"panels[{label!r}]", values) for label, values in panels.items()}
    lines = references or {}
    _check_known("references", lines, panels)
    looks = _group_looks(names, groups or dict.fromkeys(names, ""))
    size = (min(9.4, 1.6 + 3.0 * len(panels) + bool(groups)), 0.9 + 0.27 * len(names))
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
        for axes, label in zip(row[0], panels, strict=True):
            _draw_bars(axes, names, seeds[label], looks, lying=True)
            axes.set_xlabel(label)
            if label in lines:
                _draw_reference(axes, lines[label], reference, len(names), lying=True)
        if groups:
            _group_legend(figure, looks, groups)
        plt.close(figure)
    return figure


def _draw_bars(
    axes: Any, names: Sequence[str], seeds: Mapping[str, Seeds], looks: Mapping[str, Any], *, lying: bool
) -> None:
    """Bars at the places of their names among `names`, with error bars and a dot for every seed."""
    draw, of_names = (axes.barh, axes.yaxis) if lying else (axes.bar, axes.xaxis)
    for name, (numbers, mean, deviation) in seeds.items():
        place = names.index(name)
        error: Any = {"xerr" if lying else "yerr": deviation, "capsize": 3 if lying else 5}
        draw(place, mean, 0.65, alpha=0.75, edgecolor="white", **looks[name], **error)
        dots = place + (np.linspace(-0.12, 0.12, len(numbers)) if len(numbers) > 1 else np.zeros(1))
        axes.plot(*_at(lying, dots, numbers), "o", color="black", markersize=3)
    of_names.grid(visible=False)
    of_names.set_ticks(range(len(names)), names)
    if lying:
        axes.set_ylim(len(names) - 0.05, -0.6)  # the first on top; below the last, room for a word


def _draw_reference(axes: Any, value: float, word: str, count: int, *, lying: bool) -> None:
    """A dashed line across `count` bars, named at the end of them."""
    (axes.axvline if lying else axes.axhline)(value, linestyle="--", color=GREY, linewidth=1)
    end = _at(lying, count - (0.15 if lying else 0.55), value)
    words: Any = {"ha": "left" if lying else "right", "color": GREY, "fontsize": 8}
    axes.annotate(word, end, xytext=_at(lying, 0, 3), **AWAY, **words)


def _at(lying: bool, along: Any, value: Any) -> tuple[Any, Any]:
    """x and y of what is `along` the names' axis and `value` on the other."""
    return (value, along) if lying else (along, value)


def _group_looks(names: Iterable[str], groups: Mapping[str, str]) -> dict[str, Any]:
    """name → colour and hatching of its group."""
    group_of = {name: groups.get(name) for name in names}
    lacking = [name for name, group in group_of.items() if group is None]
    if lacking:
        raise bad("groups", "none for " + ", ".join(map(repr, lacking)), "a group for every name")
    kinds = zip(dict.fromkeys(group_of.values()), itertools.cycle(COLOURS), itertools.cycle(HATCHES), strict=False)
    looks = {group: {"facecolor": colour, "hatch": hatch} for group, colour, hatch in kinds}
    return {name: looks[group] for name, group in group_of.items()}


def _group_legend(figure: Figure, looks: Mapping[str, Any], groups: Mapping[str, str]) -> None:
    swatches = {groups[name]: Patch(edgecolor="white", alpha=0.75, **look) for name, look in looks.items()}
    figure.legend(swatches.values(), swatches.keys(), loc="outside right upper")


def curves(
    panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], *, xlabel: str, ylabel: str | None = None
) -> Figure:
    """Panels; in each, one line a name (the mean over runs) with a band of one standard deviation.

    panels: title → name → one sequence of numbers a run, all of one length. A name looks the same in every panel, and
    one legend beside them serves all. ylabel: of the y axis that they share; without one each panel has its own, which
    its title names.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    looks = cycler(linestyle=["-", "--", ":"]) * cycler(color=COLOURS)
    look: dict[str, Any] = dict(zip(names, looks(), strict=False))
    with plt.rc_context(STYLE):
        size = (1.6 + min(3.4, 8.4 / len(panels)) * len(panels), 3.2)
        figure, row = plt.subplots(1, len(panels), figsize=size, sharey=ylabel is not None, squeeze=False)
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
        if ylabel is not None:
            row[0][0].set_ylabel(ylabel)
        figure.legend(drawn.values(), drawn.keys(), loc="outside right upper")
        plt.close(figure)
    return figure


def gaps(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    *,
    xlabel: str,
    ylabel: str,
    notes: Mapping[str, str] | None = None,
) -> Figure:
    """Panels that share y, each with an x axis of its own: the mean of a name in both, with bars of one sample sd.

    panels: title → name → x and y, of each one number a seed. A name looks the same in every panel, and one legend
    beside them serves all. Four panels make a square, others rows of up to three. notes: title → a line below it.
    """
    looks = _looks(_names("panels", panels))
    points = {title: _points(f"panels[{title!r}]", pairs) for title, pairs in panels.items()}
    lines = notes or {}
    _check_known("notes", lines, panels)
    with plt.rc_context(STYLE):
        figure, grid, columns = _in_rows(panels, len(looks))
        for place, (title, axes) in enumerate(grid.items()):
            for name, (x, y) in points[title].items():
                axes.errorbar(x.mean, y.mean, y.deviation, x.deviation, capsize=2, elinewidth=1, **looks[name])
            axes.xaxis.set_major_locator(MaxNLocator(5))  # long numbers would run into each other
            axes.set_title(title, pad=18 if lines else 6)
            if title in lines:
                axes.annotate(lines[title], (0.5, 1), (0, 5), xycoords="axes fraction", ha="center", fontsize=9, **AWAY)
            if place + columns >= len(panels):
                axes.set_xlabel(xlabel)
            if place % columns == 0:
                axes.set_ylabel(ylabel)
        _legend(figure, looks, linestyle="")
        plt.close(figure)
    return figure


def _in_rows(titles: Collection[str], legend: int) -> tuple[Figure, dict[str, Any], int]:
    """A figure of panels that share y, with room for a legend of that many lines; title → axes; panels in a row.

    Four panels make a square, others rows of up to three.
    """
    columns = 2 if len(titles) == 4 else min(len(titles), 3)
    rows = -(-len(titles) // columns)
    size = (1.6 + (3.2 if columns < 3 else 2.6) * columns, max(2.9 * rows, _legend_height(legend)))
    figure, grid = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    for axes in grid.flat[len(titles) :]:
        axes.remove()
    return figure, dict(zip(titles, grid.flat, strict=False)), columns


def _points(
    argument: str, pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]]
) -> dict[str, tuple[Seeds, Seeds]]:
    found = {}
    for name, (x, y) in pairs.items():
        across, up = (over_seeds(f"{argument}[{name!r}]", values) for values in (x, y))
        if len(across.numbers) != len(up.numbers):
            raise bad(f"{argument}[{name!r}]", f"{len(x)} x and {len(y)} y", "one of each a seed")
        found[name] = across, up
    return found


def sweep(
    panels: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]],
    *,
    xlabels: str | Mapping[str, str],
    ylabel: str,
    references: Mapping[str, float] | None = None,
    reference: str = "reference",
    marks: Mapping[str, float] | None = None,
    mark: str = "default",
    log: Collection[str] = (),
    falling: Collection[str] = (),
) -> Figure:
    """Panels that share y, each over a numeric setting of its own: the mean of a name at each value of the setting.

    With bars of one sample sd and a small dot for every seed; lines join the means.

    panels: title → name → value of the setting → one number a seed. A name looks the same in every panel, and one
    legend beside them serves all. Four panels make a square, others rows of up to three. xlabels: of all panels, or
    title → of that panel. references: title → where a dashed line lies across it, which `reference` names in the
    legend. marks: title → where a dotted line stands in it, which `mark` names. log: titles of the panels with a
    logarithmic x axis. falling: of those whose x axis starts at its largest value.
    """
    looks = _looks(_names("panels", panels))
    across = dict.fromkeys(panels, xlabels) if isinstance(xlabels, str) else xlabels
    lying, standing = references or {}, marks or {}
    for argument, titles in (
        ("xlabels", across),
        ("references", lying),
        ("marks", standing),
        ("log", log),
        ("falling", falling),
    ):
        _check_known(argument, titles, panels)
    lacking = [title for title in panels if title not in across]
    if lacking:
        raise bad("xlabels", "none for " + ", ".join(map(repr, lacking)), "one for every panel")
    seeds = {title: _over_settings(f"panels[{title!r}]", lines, title in log) for title, lines in panels.items()}
    for title, value in standing.items():
        _check_setting(f"marks[{title!r}]", value, title in log)
    plain: Any = {"color": GREY, "linewidth": 1}
    more = [Line2D([], [], linestyle="--", label=reference, **plain)] * bool(lying)
    more += [Line2D([], [], linestyle=":", label=mark, **plain)] * bool(standing)
    with plt.rc_context(STYLE):
        figure, grid, columns = _in_rows(panels, len(looks) + len(more))
        for place, (title, axes) in enumerate(grid.items()):
            if title in lying:
                axes.axhline(lying[title], linestyle="--", **plain)
            if title in standing:
                axes.axvline(standing[title], linestyle=":", **plain)
            _draw_sweep(axes, seeds[title], looks, log=title in log, falling=title in falling)
            axes.set_title(title)
            if not isinstance(xlabels, str) or place + columns >= len(panels):
                axes.set_xlabel(across[title])
            if place % columns == 0:
                axes.set_ylabel(ylabel)
        _legend(figure, looks, more, linewidth=1)
        plt.close(figure)
    return figure


def _draw_sweep(
    axes: Any, lines: Mapping[str, Mapping[float, Seeds]], looks: Mapping[str, Any], *, log: bool, falling: bool
) -> None:
    """Lines over settings, with ticks at the ends and at as many others as there is room for."""
    for name, at in lines.items():
        means = [one.mean for one in at.values()]
        deviations = [np.nan if one.deviation is None else one.deviation for one in at.values()]
        axes.errorbar(list(at), means, deviations, linewidth=1, capsize=2, markersize=5, **looks[name])
        dots = [(x, number) for x, one in at.items() for number in one.numbers]
        axes.plot(*zip(*dots, strict=True), ".", color="black", markersize=2.5, zorder=3)
    if log:
        axes.set_xscale("log")
    axes.autoscale_view()  # matplotlib puts it off, and the places below depend on it
    settings = sorted({x for at in lines.values() for x in at})
    along = (axes.transData - axes.transAxes).transform([(x, 0) for x in settings])[:, 0]  # 0 and 1: the panel's ends
    place = dict(zip(settings, along, strict=True))
    ticks: list[float] = []
    for x in (settings[0], settings[-1], *settings[1:-1]):
        # A digit takes 0.08 inches, of a panel's 2.4.
        if all(abs(place[x] - place[t]) > 0.017 * len(f"{x:g}{t:g}") + 0.02 for t in ticks):
            ticks.append(x)
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.set_xticks([], minor=True)
    if falling:
        axes.invert_xaxis()


def _over_settings(
    argument: str, lines: Mapping[str, Mapping[float, Sequence[float]]], log: bool
) -> dict[str, dict[float, Seeds]]:
    """name → value of the setting, rising → its seeds."""
    found = {}
    for name, at in lines.items():
        where = f"{argument}[{name!r}]"
        if not at:
            raise bad(where, "nothing", "values of the setting")
        for x in at:
            _check_setting(where, x, log)
        found[name] = {x: over_seeds(f"{where}[{x!r}]", at[x]) for x in sorted(at)}
    return found


def _check_setting(argument: str, x: float, log: bool) -> None:
    check_number(argument, x, 0 if log else -math.inf, open_low=log)


def by_depth(panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], *, models: Sequence[str]) -> Figure:
    """Panels over models as categories: the mean of each name, with bars of one sample sd, joined by lines.

    panels: what the panel's axis shows, with its unit → name → one list for each of `models`, of one number a seed.
    models: in order, as from shallow to deep. What shares a model stands side by side, so that no bar hides another.
    A thin line marks 0. A name looks the same in every panel, and one legend beside them serves all.
    """
    looks = _looks(_names("panels", panels))
    if not models:
        raise bad("models", "none", "one or more")
    seeds = {label: _over_models(f"panels[{label!r}]", lines, models) for label, lines in panels.items()}
    aside = dict(zip(looks, np.linspace(-0.3, 0.3, len(looks)) if len(looks) > 1 else np.zeros(1), strict=True))
    width = min(3.7, 7.8 / len(panels))
    turned = 0.09 * len(models) * max(map(len, models)) > width - 0.8  # a letter takes 0.09 inches, the y axis 0.8
    size = (1.6 + width * len(panels), max(3.4, _legend_height(len(looks))))
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(panels), figsize=size, squeeze=False)
        for axes, label in zip(row[0], panels, strict=True):
            axes.axhline(0, color=GREY, linewidth=0.8)
            for name, line in seeds[label].items():
                deviations = [np.nan if one.deviation is None else one.deviation for one in line]
                places = np.arange(len(models)) + aside[name]
                axes.errorbar(places, [one.mean for one in line], deviations, linewidth=1, capsize=2, **looks[name])
            axes.set_xticks(range(len(models)), models)
            if turned:
                plt.setp(axes.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor")
            axes.xaxis.grid(visible=False)
            axes.set_ylabel(label)
        _legend(figure, looks, linewidth=1)
        plt.close(figure)
    return figure


def _over_models(
    argument: str, lines: Mapping[str, Sequence[Sequence[float]]], models: Sequence[str]
) -> dict[str, list[Seeds]]:
    for name, line in lines.items():
        if len(line) != len(models):
            raise bad(f"{argument}[{name!r}]", f"{len(line)} lists", f"one for each of {len(models)} models")
    return {name: [over_seeds(f"{argument}[{name!r}]", numbers) for numbers in line] for name, line in lines.items()}


def intervals(
    rows: Mapping[str, Mapping[str, tuple[float, float, float]]],
    *,
    xlabel: str,
    zero: bool = True,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """A forest plot: values with their intervals, a row a name, the first on top.

    rows: name → group → value, lower and upper end. Groups stand one below the other within each row that has them,
    and a legend tells them apart, if there are several. zero: whether a dotted line marks 0. limits: of the x axis.
    """
    groups = _names("rows", rows)
    looks = _looks(groups)
    _check_intervals(rows)
    below = dict(zip(groups, (np.arange(len(groups)) - (len(groups) - 1) / 2) * 0.7 / len(groups), strict=True))
    several = len(groups) > 1
    size = (6.4 + 1.6 * several, 0.8 + len(rows) * (0.14 + 0.13 * len(groups)))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=size)
        if zero:
            axes.axvline(0, linestyle=":", color=GREY, linewidth=1)
        for place, of_groups in enumerate(rows.values()):
            for group, (value, low, high) in of_groups.items():
                y, look = place + below[group], looks[group]
                # Around its middle, not around the value, which a bootstrap's interval need not hold.
                axes.errorbar((low + high) / 2, y, xerr=(high - low) / 2, fmt="none", ecolor=look["color"], capsize=3)
                axes.plot(value, y, linestyle="", clip_on=False, **look)
        axes.set(xlabel=xlabel, xlim=limits, ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(rows)), list(rows))
        axes.yaxis.grid(visible=False)
        if several:
            _legend(figure, looks, linestyle="")
        plt.close(figure)
    return figure


def _check_intervals(rows: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> None:
    for name, of_groups in rows.items():
        for group, given in of_groups.items():
            if len(given) != 3 or not np.isfinite(given).all() or given[1] > given[2]:
                raise bad(f"rows[{name!r}][{group!r}]", given, "a value, a lower and an upper end")


def _names(argument: str, panels: Mapping[str, Iterable[str]]) -> list[str]:
    """The names in all panels, in the order in which they first come."""
    names = list(dict.fromkeys(itertools.chain.from_iterable(panels.values())))
    if not names:
        raise bad(argument, "nothing", "something to draw")
    return names


def _over_seeds(argument: str, values: Mapping[str, Sequence[float]]) -> dict[str, Seeds]:
    return {name: over_seeds(f"{argument}[{name!r}]", numbers) for name, numbers in values.items()}


def _check_known(argument: str, given: Iterable[str], panels: Iterable[str]) -> None:
    unknown = [name for name in given if name not in panels]
    if unknown:
        raise bad(argument, ", ".join(map(repr, unknown)), "panels: " + ", ".join(map(repr, panels)))


def _looks(names: Iterable[str]) -> dict[str, Any]:
    """name → colour and marker."""
    kinds = zip(names, itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False)
    return {
        name: {"color": colour, "marker": marker, "markerfacecolor": colour if full else "white"}
        for name, colour, (full, marker) in kinds
    }


def _legend(figure: Figure, looks: Mapping[str, Any], more: Sequence[Line2D] = (), **line: Any) -> None:
    """A legend beside the panels of names by their looks, with what `line` adds to each, and below them `more`."""
    handles = [Line2D([], [], label=name, **look, **line) for name, look in looks.items()]
    figure.legend(handles=[*handles, *more], loc="outside right upper")


def _legend_height(lines: int) -> float:
    """In inches, at the style's font size."""
    return 0.4 + 0.21 * lines
