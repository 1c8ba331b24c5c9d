"""Figures: they draw what they are given, and say what they show."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import ipywidgets
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb

import miue_lib as mi
from miue_lib import plots


def test_bars_show_mean_deviation_and_every_value() -> None:
    figure = plots.bars({"a": [0.1, 0.2, 0.3], "b": [0.8, 0.8, 0.8]}, ylabel="accuracy", chance=0.1)
    axes = figure.axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.2, 0.8])
    assert [text.get_text() for text in axes.texts] == ["0.200", "0.800", "guessing"]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [list(np.asarray(line.get_ydata())) for line in dots] == [[0.1, 0.2, 0.3], [0.8, 0.8, 0.8]]
    assert axes.get_ylabel() == "accuracy"


def test_many_bars_lie_and_tell_their_groups() -> None:
    values = {f"method {i}": [0.1 * i, 0.1 * i + 0.02] for i in range(8)}
    groups = {name: "few" if i < 3 else "many" for i, name in enumerate(values)}
    figure = plots.bars(values, ylabel="accuracy", chance=0.25, groups=groups)
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.1 * i + 0.01 for i in range(8)])
    assert [text.get_text() for text in axes.get_yticklabels()] == list(values)
    assert axes.yaxis_inverted()  # the first is on top
    assert axes.get_xlabel() == "accuracy"
    guessing = axes.lines[-1]
    assert list(np.asarray(guessing.get_xdata())) == [0.25, 0.25]
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert len(set(colours[:3])) == len(set(colours[3:])) == 1
    assert colours[0] != colours[3]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["few", "many"]
    assert [patch.get_facecolor() for patch in legend.get_patches()] == [colours[0], colours[3]]


def test_bars_that_stand_can_tell_their_groups_too() -> None:
    figure = plots.bars({"a": [1, 2], "b": [1, 2]}, ylabel="y", groups={"a": "one", "b": "one"})
    assert len({bar.get_facecolor() for bar in figure.axes[0].patches}) == 1
    assert figure.axes[0].patches[0].get_height() == 1.5


def test_curves_show_means_over_runs() -> None:
    figure = plots.curves({"one": {"x": [[0, 1], [1, 3]]}, "two": {"x": [[5, 5]]}}, xlabel="epoch", ylabel="y")
    left, right = figure.axes
    assert list(np.asarray(left.lines[0].get_ydata())) == [0.5, 2]
    assert len(left.collections) == 1  # the band
    assert len(right.collections) == 0  # no deviation of one run
    assert left.get_xlabel() == "epoch"


def test_panels_without_a_common_label_have_axes_of_their_own() -> None:
    panels = {"accuracy": {"x": [[0.0, 1.0]]}, "MI (nats)": {"x": [[5.0, 9.0]]}}
    left, right = plots.curves(panels, xlabel="epoch").figure.axes
    assert left.get_ylim() != right.get_ylim()
    assert left.get_ylabel() == right.get_ylabel() == ""
    shared = plots.curves(panels, xlabel="epoch", ylabel="y").axes
    assert shared[0].get_ylim() == shared[1].get_ylim()


def test_one_legend_beside_the_panels_serves_them_all() -> None:
    names = [f"line {i}" for i in range(9)]  # more than there are colours
    panels = {"one": {name: [[0.0, 1.0]] for name in names}, "two": {names[4]: [[1.0, 0.0]]}}
    figure = plots.curves(panels, xlabel="epoch", ylabel="y")
    (legend,) = figure.legends
    plots.as_png(figure)  # lays it out
    right = max(axes.get_window_extent().x1 for axes in figure.axes)
    assert legend.get_window_extent().x0 > right
    assert [text.get_text() for text in legend.get_texts()] == names
    left, other = figure.axes
    assert other.lines[0].get_color() == left.lines[4].get_color()
    assert len({(line.get_color(), line.get_linestyle()) for line in left.lines}) == 9


SEEDS = [1.0, 2.0, 6.0]  # mean 3; sample variance (4 + 1 + 9) / 2 = 7
METHODS = [f"method {i}" for i in range(16)]


def labels_of(legend: Any) -> list[str]:
    return [text.get_text() for text in legend.get_texts()]


def extents(axes: Any) -> list[tuple[list[float], list[float]]]:
    """Of every error bar in order: where it starts and ends, as x and y."""
    bars = [bar for drawn in axes.collections if isinstance(drawn, LineCollection) for bar in drawn.get_segments()]
    return [(bar[:, 0].tolist(), bar[:, 1].tolist()) for bar in bars if len(bar)]  # none where there is no deviation


def look_of(line: Any) -> tuple[Any, ...]:
    return line.get_color(), line.get_marker(), line.get_markerfacecolor()


def dots_of(axes: Any) -> list[list[list[float]]]:
    """x and y of what is drawn with the first two markers, a line each."""
    return [line.get_xydata().tolist() for line in axes.lines if line.get_marker() in ("o", "s")]


def assert_beside(legend: Any, figure: Any) -> None:
    """The legend is wholly in the figure, and to the right of all axes."""
    plots.as_png(figure)  # lays it out
    box = legend.get_window_extent()
    assert box.x0 > max(axes.get_window_extent().x1 for axes in figure.axes)
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0


def assert_apart(labels: list[Any]) -> None:
    """Tick labels, in order from left to right and none of them turned, do not touch."""
    boxes = [label.get_window_extent() for label in labels]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_gaps_show_means_and_deviations_in_both_directions() -> None:
    panels = {"KSG": {"a": (SEEDS, [10.0, 10.0, 40.0]), "b": ([1.0], [2.0])}, "KDE": {"b": ([5.0], [6.0])}}
    figure = plots.gaps(panels, xlabel="MI gap (nats)", ylabel="accuracy gap", notes={"KDE": "ρ = 0.61"})
    left, right = figure.axes
    assert dots_of(left) == [[[3, 20]], [[1, 2]]]
    across, up = extents(left)  # those of "a": one seed has no deviation
    assert across[0] == pytest.approx([3 - 7**0.5, 3 + 7**0.5])
    assert up[1] == pytest.approx([20 - 300**0.5, 20 + 300**0.5])
    assert extents(right) == []
    assert [axes.get_title() for axes in figure.axes] == ["KSG", "KDE"]
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["ρ = 0.61"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["MI gap (nats)"] * 2
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy gap", ""]
    assert left.get_ylim() == right.get_ylim()
    assert left.get_xlim() != right.get_xlim()


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 2), (5, 2, 3)])
def test_gaps_lay_out_their_panels_with_a_legend_and_notes_that_cover_nothing(
    count: int, rows: int, columns: int
) -> None:
    panels = {f"panel {i}": {name: ([k, k + i], [k, k]) for k, name in enumerate(METHODS)} for i in range(count)}
    notes = dict.fromkeys(panels, "ρ = 0.61 [0.20, 0.80]")
    figure = plots.gaps(panels, xlabel="x", ylabel="y", notes=notes)
    (legend,) = figure.legends
    assert labels_of(legend) == METHODS
    assert_beside(legend, figure)
    assert figure.get_figwidth() <= 9.5
    assert len(figure.axes) == count
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert len({round(box.x0) for box in boxes}) == columns
    assert len({round(box.y0) for box in boxes}) == rows
    assert [bool(axes.get_xlabel()) for axes in figure.axes] == [i + columns >= count for i in range(count)]
    for axes, box in zip(figure.axes, boxes, strict=True):
        note = axes.texts[0].get_window_extent()
        assert box.y1 < note.y0 < note.y1 < axes.title.get_window_extent().y0


def test_a_name_looks_the_same_in_every_panel_and_like_no_other() -> None:
    one = {name: ([k], [k]) for k, name in enumerate(METHODS)}
    panels = {"one": one, "two": {METHODS[9]: ([0], [0])}}
    figure = plots.gaps(panels, xlabel="x", ylabel="y")
    left, right = figure.axes
    looks = [look_of(line) for line in left.lines]
    assert [look_of(line) for line in right.lines] == [looks[9]]
    assert [look_of(line) for line in figure.legends[0].get_lines()] == looks
    without_colour = {(marker, face == "white") for _, marker, face in looks}
    assert len(without_colour) == 16


def test_by_depth_joins_means_that_stand_aside_from_each_other() -> None:
    panels = {
        "accuracy gap": {"a": [SEEDS, [0, 0]], "b": [[1], [2, 2]]},
        "MI gap (nats)": {"b": [[100, 100], [200, 200]]},
    }
    figure = plots.by_depth(panels, models=["shallow", "deep"])
    left, right = figure.axes
    a, b = (line for line in left.lines if line.get_linestyle() == "-" and line.get_marker() != "None")
    assert np.asarray(a.get_ydata()).tolist() == [3, 0]
    assert np.asarray(b.get_ydata()).tolist() == [1, 2]
    for line in (a, b):  # nearer to their own model than to the next
        assert np.abs(np.asarray(line.get_xdata()) - [0, 1]).max() < 0.5
    assert (np.asarray(a.get_xdata()) < np.asarray(b.get_xdata())).all()
    assert extents(left)[0][1] == pytest.approx([3 - 7**0.5, 3 + 7**0.5])
    assert extents(left)[0][0] == [a.get_xdata()[0]] * 2
    assert [text.get_text() for text in left.get_xticklabels()] == ["shallow", "deep"]
    assert list(left.get_xticks()) == [0, 1]
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy gap", "MI gap (nats)"]
    assert any(list(np.asarray(line.get_ydata())) == [0, 0] and line.get_marker() == "None" for line in right.lines)
    assert right.get_ylim()[1] > 100 > left.get_ylim()[1]  # each has an axis of its own


@pytest.mark.parametrize("models", [["1", "2", "3", "4", "5"], ["linear", "MLP", "CNN-3", "ResNet-18", "DenseNet-121"]])
def test_by_depth_has_room_for_many_names_and_models(models: list[str]) -> None:
    lines = {name: [[k, k + 1]] * 5 for k, name in enumerate(METHODS)}
    figure = plots.by_depth({"accuracy gap": lines, "MI gap (nats)": lines}, models=models)
    (legend,) = figure.legends
    assert labels_of(legend) == METHODS
    assert_beside(legend, figure)
    assert figure.get_figwidth() <= 9.5
    labels = figure.axes[0].get_xticklabels()
    if len(max(models, key=len)) > 1:
        assert {label.get_rotation() for label in labels} == {30}
    else:
        assert_apart(labels)
    assert min(label.get_window_extent().y0 for label in labels) >= 0


def test_by_method_draws_panels_that_share_their_names() -> None:
    panels = {"trace": {"a": SEEDS, "b": [5, 5]}, "sliced MI (nats)": {"c": [0.5], "a": [0.1, 0.3]}}
    groups = {"a": "one", "b": "two", "c": "one"}
    figure = plots.by_method(panels, groups=groups, references={"sliced MI (nats)": 0.2}, reference="shuffled")
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["a", "b", "c"]
    assert left.get_ylim() == right.get_ylim()
    assert left.yaxis_inverted()  # the first is on top
    assert [axes.get_xlabel() for axes in figure.axes] == list(panels)
    middles = [[(bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in axes.patches] for axes in figure.axes]
    assert middles[0] == [pytest.approx((0, 3)), pytest.approx((1, 5))]
    assert middles[1] == [pytest.approx((2, 0.5)), pytest.approx((0, 0.2))]
    assert extents(left)[0][0] == pytest.approx([3 - 7**0.5, 3 + 7**0.5])
    assert len(extents(right)) == 1  # a single seed has no deviation
    assert [list(np.asarray(line.get_xdata())) for line in left.lines if line.get_marker() == "o"] == [SEEDS, [5, 5]]
    assert [text.get_text() for text in left.texts + right.texts] == ["shuffled"]
    assert list(np.asarray(right.lines[-1].get_xdata())) == [0.2, 0.2]
    (legend,) = figure.legends
    assert labels_of(legend) == ["one", "two"]
    one, two = legend.get_patches()
    assert [patch.get_facecolor() for patch in (one, two)] == [bar.get_facecolor() for bar in left.patches]
    assert one.get_hatch() != two.get_hatch()  # told apart without colours too
    assert_beside(legend, figure)


def test_by_method_has_room_for_three_panels_of_many_names() -> None:
    panels = {what: {name: [k, k + 1] for k, name in enumerate(METHODS)} for what in ("trace", "sliced MI (nats)", "y")}
    figure = plots.by_method(panels)
    plots.as_png(figure)
    assert figure.legends == []
    assert figure.get_figwidth() <= 9.5
    labels = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(above.y0 > below.y1 for above, below in pairwise(labels))
    assert min(label.x0 for label in labels) >= 0


def test_intervals_draw_values_with_their_ends() -> None:
    rows = {"KSG": {"all": (0.5, 0.25, 0.75), "effective": (0.9, 0.0, 0.5)}, "KDE": {"effective": (-1.0, -1.0, 0.0)}}
    figure = plots.intervals(rows, xlabel="Spearman's ρ", limits=(-1, 1))
    (axes,) = figure.axes
    assert [ends[0] for ends in extents(axes)] == [[0.25, 0.75], [0, 0.5], [-1, 0]]  # also if they don't hold the value
    dots = [dot for (dot,) in dots_of(axes)]
    assert [x for x, _ in dots] == [0.5, 0.9, -1]
    heights = [y for _, y in dots]
    assert heights == sorted(heights)
    assert axes.yaxis_inverted()  # the first is on top
    assert [round(y) for y in heights] == [0, 0, 1]
    assert [ends[1] for ends in extents(axes)] == [[y, y] for y in heights]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["KSG", "KDE"]
    assert axes.get_xlim() == (-1, 1)
    assert axes.get_xlabel() == "Spearman's ρ"
    assert axes.lines[0].get_linestyle() == ":"
    assert list(np.asarray(axes.lines[0].get_xdata())) == [0, 0]
    (legend,) = figure.legends
    assert labels_of(legend) == ["all", "effective"]
    assert_beside(legend, figure)


def test_intervals_of_one_group_need_no_legend() -> None:
    figure = plots.intervals({"KSG": {"all": (0.5, 0.25, 0.75)}}, xlabel="ρ", zero=False)
    assert figure.legends == []
    assert not any(line.get_linestyle() == ":" for line in figure.axes[0].lines)


SETTINGS = {"ε (levels)": {"a": {8: SEEDS, 4: [0, 0]}, "b": {4: [5]}}, "τ": {"b": {0.1: [1], 1: [2], 0.01: [3]}}}


def means_of(axes: Any) -> list[tuple[list[float], list[float]]]:
    """x and y of every line that joins means."""
    joined = [line for line in axes.lines if line.get_linestyle() == "-" and line.get_marker() != "None"]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in joined]


def test_a_sweep_joins_means_in_the_order_of_the_setting() -> None:
    figure = plots.sweep(SETTINGS, xlabels={"ε (levels)": "ε", "τ": "temperature"}, ylabel="accuracy", log=["τ"])
    left, right = figure.axes
    assert means_of(left) == [([4, 8], [0, 3]), ([4], [5])]
    assert means_of(right) == [([0.01, 0.1, 1], [3, 1, 2])]
    assert extents(left)[1] == ([8, 8], pytest.approx([3 - 7**0.5, 3 + 7**0.5]))
    assert extents(right) == []  # a single seed has no deviation
    dots = [line.get_xydata().tolist() for line in left.lines if line.get_marker() == "."]
    assert dots == [[[4, 0], [4, 0], [8, 1], [8, 2], [8, 6]], [[4, 5]]]
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "log"]
    assert [axes.get_title() for axes in figure.axes] == ["ε (levels)", "τ"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["ε", "temperature"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy", ""]
    assert left.get_ylim() == right.get_ylim()
    looks = [look_of(line) for axes in figure.axes for line in axes.lines if line.get_linestyle() == "-"]
    a, b = looks[0], looks[2]
    assert a != b
    b_left, b_right = (
        [line for line in axes.lines if line.get_color() == b[0] and line.get_marker() == b[1]] for axes in figure.axes
    )
    assert len(b_left) == len(b_right) == 1
    (legend,) = figure.legends
    assert labels_of(legend) == ["a", "b"]
    assert_beside(legend, figure)


def test_a_sweep_marks_values_and_turns_axes() -> None:
    figure = plots.sweep(
        SETTINGS,
        xlabels="setting",
        ylabel="y",
        references={"τ": 9.0},
        reference="clean",
        marks={"ε (levels)": 16},
        falling=["τ"],
    )
    left, right = figure.axes
    (standing,) = (line for line in left.lines if line.get_linestyle() == ":")
    (lying,) = (line for line in right.lines if line.get_linestyle() == "--")
    assert list(standing.get_xdata()) == [16, 16]
    assert left.get_xlim()[1] > 16  # in sight, though beyond the settings
    assert list(lying.get_ydata()) == [9, 9]
    assert right.get_ylim()[1] > 9
    assert [axes.xaxis_inverted() for axes in figure.axes] == [False, True]
    assert labels_of(figure.legends[0]) == ["a", "b", "clean", "default"]


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 2), (5, 2, 3)])
def test_a_sweep_has_room_for_panels_names_and_ticks(count: int, rows: int, columns: int) -> None:
    settings = (0.001, 0.01, 0.1, 1, 10, 90, 95, 99, 100)
    lines = {name: {x: [k, k + 1] for x in settings} for k, name in enumerate(METHODS)}
    panels = {f"panel {i}": lines for i in range(count)}
    figure = plots.sweep(panels, xlabels="x", ylabel="y", log=["panel 0"], references=dict.fromkeys(panels, 0))
    (legend,) = figure.legends
    assert labels_of(legend) == [*METHODS, "reference"]
    assert_beside(legend, figure)
    assert figure.get_figwidth() <= 9.5
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert len({round(box.x0) for box in boxes}) == columns
    assert len({round(box.y0) for box in boxes}) == rows
    assert [bool(axes.get_xlabel()) for axes in figure.axes] == [i + columns >= count for i in range(count)]
    for axes in figure.axes:
        labels = sorted(axes.get_xticklabels(), key=lambda label: label.get_position()[0])
        assert_apart(labels)
        texts = [label.get_text() for label in labels]
        assert {"0.001", "100"} <= set(texts) <= {f"{x:g}" for x in settings}
        assert len(texts) == (6 if axes is figure.axes[0] else 2)  # on the logarithmic axis, all but 90, 95 and 99


CELLS: dict[str, dict[str, list[float] | None]] = {
    "EM": {"none": [0.1, 0.2, 0.6], "JPEG": [0.95]},
    "MI-UE": {"none": None, "AT": [0.0, 0.0]},
}


def contrast(one: Any, other: Any) -> float:
    """Of two colours, as WCAG 2.1 defines it, from 1 to 21."""

    def luminance(colour: Any) -> float:
        levels = np.asarray(to_rgb(colour))
        linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, bright = sorted([luminance(one), luminance(other)])
    return (bright + 0.05) / (dark + 0.05)


def test_a_heat_map_shows_means_and_deviations() -> None:
    figure = plots.heatmap(CELLS, xlabel="defence", ylabel="method", label="accuracy", chance=0.25)
    axes, scale = figure.axes
    at = {(*map(round, text.xy), text.get_text()) for text in axes.texts}
    assert at == {
        *((0, 0, words) for words in ("0.300", "± 0.265")),  # √((0.04 + 0.01 + 0.09) / 2)
        (1, 0, "0.950"),
        *((2, 1, words) for words in ("0.000", "± 0.000")),
    } | {(x, y, "–") for x, y in ((2, 0), (0, 1), (1, 1))}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["none", "JPEG", "AT"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["EM", "MI-UE"]
    assert axes.yaxis_inverted()  # the first is on top
    assert (axes.get_xlabel(), axes.get_ylabel(), scale.get_ylabel()) == ("defence", "method", "accuracy")
    means = axes.collections[0].get_array()
    assert np.ma.getmaskarray(means).tolist() == [[False, False, True], [True, True, False]]
    assert np.asarray(means)[~np.ma.getmaskarray(means)] == pytest.approx([0.3, 0.95, 0])
    assert axes.collections[0].get_clim() == (0, 1)
    assert sorted(patch.get_xy() for patch in axes.patches if patch.get_hatch()) == [
        (-0.5, 0.5),
        (0.5, 0.5),
        (1.5, -0.5),
    ]
    assert [text.get_text() for text in scale.texts] == ["guessing"]
    assert [list(line.get_ydata()) for line in scale.lines] == [[0.25, 0.25]]


def test_the_numbers_of_a_heat_map_are_readable_and_fit_their_cells() -> None:
    values = {f"row {y}": {f"column {x}": [(x + 14 * y) / 27, 1.0] for x in range(14)} for y in range(2)}
    figure = plots.heatmap(values, xlabel="x", ylabel="y", label="accuracy")
    plots.as_png(figure)
    assert figure.get_figwidth() <= 9.5
    axes, scale = figure.axes
    mesh = axes.collections[0]
    cell = axes.get_window_extent().width / 14
    for text in axes.texts:
        x, y = map(round, text.xy)
        # 4.5: what WCAG asks of small type; black or white always has √(1.05 / 0.05) = 4.58.
        assert contrast(text.get_color(), mesh.to_rgba(mesh.get_array()[y, x])[:3]) >= 4.5
        assert text.get_window_extent().width < cell
    assert max(label.get_window_extent().x1 for label in axes.get_xticklabels()) < scale.get_window_extent().x0


@pytest.mark.parametrize(
    ("limits", "extend", "words"),
    [((0, 100), "neither", "50.0"), ((60, 100), "min", "50.0"), ((0, 10), "max", "50.00"), ((45, 55), "both", "50.00")],
)
def test_a_heat_map_tells_what_lies_beyond_its_colours(limits: tuple[float, float], extend: str, words: str) -> None:
    values = {"a": {"x": [50.0], "y": [56.0], "z": [44.0]}}
    figure = plots.heatmap(values, xlabel="", ylabel="", label="%", limits=limits)
    mesh = figure.axes[0].collections[0]
    assert mesh.get_clim() == limits
    assert mesh.colorbar.extend == extend
    assert figure.axes[0].texts[0].get_text() == words


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "as many y as x": (
        lambda: plots.gaps({"t": {"a": ([1, 2], [1])}}, xlabel="", ylabel=""),
        "panels['t']['a']: got 2 x and 1 y, expected one of each a seed",
    ),
    "notes of panels": (
        lambda: plots.gaps({"t": {"a": ([1], [1])}}, xlabel="", ylabel="", notes={"u": ""}),
        "notes: got 'u', expected panels: 't'",
    ),
    "a list for each model": (
        lambda: plots.by_depth({"t": {"a": [[1]]}}, models=["x", "y"]),
        "panels['t']['a']: got 1 lists, expected one for each of 2 models",
    ),
    "models": (lambda: plots.by_depth({"t": {"a": []}}, models=[]), "models: got none"),
    "references of panels": (
        lambda: plots.by_method({"t": {"a": [1]}}, references={"u": 1}),
        "references: got 'u', expected panels: 't'",
    ),
    "groups for all": (
        lambda: plots.by_method({"t": {"a": [1], "b": [1]}}, groups={"a": "x"}),
        "groups: got none for 'b', expected a group for every name",
    ),
    "ends in order": (
        lambda: plots.intervals({"t": {"a": (1, 2, 0)}}, xlabel=""),
        "rows['t']['a']: got (1, 2, 0), expected a value, a lower and an upper end",
    ),
    "three numbers": (lambda: plots.intervals({"t": {"a": (1, 2)}}, xlabel=""), "rows['t']['a']: got (1, 2)"),
    "x labels for all": (
        lambda: plots.sweep({"t": {"a": {1: [1]}}}, xlabels={}, ylabel=""),
        "xlabels: got none for 't', expected one for every panel",
    ),
    "marks of panels": (
        lambda: plots.sweep({"t": {"a": {1: [1]}}}, xlabels="", ylabel="", marks={"u": 1}),
        "marks: got 'u', expected panels: 't'",
    ),
    "axes of panels": (
        lambda: plots.sweep({"t": {"a": {1: [1]}}}, xlabels="", ylabel="", log=["u"]),
        "log: got 'u', expected panels: 't'",
    ),
    "settings": (
        lambda: plots.sweep({"t": {"a": {}}}, xlabels="", ylabel=""),
        "panels['t']['a']: got nothing, expected values of the setting",
    ),
    "numeric settings": (
        lambda: plots.sweep({"t": {"a": {"x": [1]}}}, xlabels="", ylabel=""),  # type: ignore[dict-item]
        "panels['t']['a']: got 'x', expected a finite number",
    ),
    "positive settings": (
        lambda: plots.sweep({"t": {"a": {0: [1]}}}, xlabels="", ylabel="", log=["t"]),
        "panels['t']['a']: got 0, expected a finite number > 0",
    ),
    "positive marks": (
        lambda: plots.sweep({"t": {"a": {1: [1]}}}, xlabels="", ylabel="", log=["t"], marks={"t": 0}),
        "marks['t']: got 0, expected a finite number > 0",
    ),
    "seeds of a setting": (
        lambda: plots.sweep({"t": {"a": {1: []}}}, xlabels="", ylabel=""),
        "panels['t']['a'][1]: got [], expected a list of one or more",
    ),
    "cells": (
        lambda: plots.heatmap({"a": {"x": None}}, xlabel="", ylabel="", label=""),
        "values: got nothing, expected something to draw",
    ),
    "seeds of a cell": (
        lambda: plots.heatmap({"a": {"x": []}}, xlabel="", ylabel="", label=""),
        "values['a']['x']: got [], expected a list of one or more",
    ),
    "limits in order": (
        lambda: plots.heatmap({"a": {"x": [1]}}, xlabel="", ylabel="", label="", limits=(1, 1)),
        "limits: got (1, 1), expected two finite numbers, the lower first",
    ),
    "filters of columns": (
        lambda: plots.sortable([1], {"a": str}, filters=["a", "b"], label=""),
        "filters: got 'b', expected columns: 'a'",
    ),
    "columns": (lambda: plots.sortable([], {}, label=""), "columns: got none, expected one or more"),
    "something": (lambda: plots.by_method({}), "panels: got nothing, expected something to draw"),
    "a number": (lambda: plots.by_method({"t": {"a": []}}), "panels['t']['a']: got [], expected a list of one or more"),
    "finite numbers": (lambda: plots.bars({"a": [1, float("nan")]}, ylabel=""), "values['a']: got [1, nan]"),
    "numbers": (lambda: plots.mean_sd(["x"]), "values: got ['x']"),
    "numbers of an interval": (lambda: plots.t_interval([]), "values: got []"),
    "whole digits": (lambda: plots.mean_sd([1.0], digits=-1), "digits: got -1"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_drawn_is_refused_and_leaves_no_figure_open(what: str) -> None:
    draw, message = REFUSED[what]
    before = plt.get_fignums()
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        draw()
    assert plt.get_fignums() == before


def test_mean_and_deviation_in_words() -> None:
    assert plots.mean_sd([0.45, 0.5]) == "0.475 ± 0.035"  # 0.05 / √2 = 0.0354
    assert plots.mean_sd(SEEDS, digits=1) == "3.0 ± 2.6"
    assert plots.mean_sd([0.5]) == "0.500"


def test_an_interval_is_signed_and_wider_than_the_standard_error() -> None:
    # Two values: half the interval is t(1; 0.975) · 0.0354 / √2 = 12.706 · 0.025.
    assert plots.t_interval([0.45, 0.5]) == "+0.475 [+0.157, +0.793]"
    assert plots.t_interval([-0.1, -0.1, -0.1], digits=1) == "−0.1 [−0.1, −0.1]"
    assert plots.t_interval([0.5]) == "+0.500"


class Cells(HTMLParser):
    """The cells of a table, row by row, as (tag, text)."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[tuple[str, str]]] = []
        self.tag = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tag = tag
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        if self.tag in ("td", "th"):
            self.rows[-1].append((self.tag, data))


def test_a_table_shows_rows_as_they_are() -> None:
    accuracy = {"EM": [0.45, 0.5], "<b> & co.": [0.5]}
    columns = {
        "method": lambda item: item[0],
        "n < 3": lambda item: len(item[1]),
        "sd": lambda item: plots.mean_sd(item[1]),
    }
    shown = plots.table(accuracy.items(), columns).data
    assert Cells(shown).rows == [
        [("th", "method"), ("th", "n < 3"), ("th", "sd")],
        [("th", "EM"), ("td", "2"), ("td", "0.475 ± 0.035")],
        [("th", "<b> & co."), ("td", "1"), ("td", "0.500")],
    ]
    assert "overflow-x: auto" in shown  # scrolls by itself, not with the page


METHOD_AND_N: dict[str, Callable[[Any], object]] = {"a < b": lambda row: row[0], "n": lambda row: row[1]}


def test_a_sortable_table_shows_rows_as_they_are() -> None:
    rows = [("</script><b>", 2), ("EM & co.", 1), ("EM & co.", '"')]
    shown = plots.sortable(rows, METHOD_AND_N, filters=["a < b"], label='"results"').data
    assert Cells(shown).rows == [
        [("th", "a < b"), ("th", "n")],
        [("th", "</script><b>"), ("td", "2")],
        [("th", "EM & co."), ("td", "1")],
        [("th", "EM & co."), ("td", '"')],
    ]
    assert re.findall("<option.*?>(.*?)</option>", shown) == ["all", "&lt;/script&gt;&lt;b&gt;", "EM &amp; co."]
    assert 'aria-label="&quot;results&quot;"' in shown
    assert "<b>" not in shown
    assert shown.count("</script>") == 1


def test_a_sortable_table_is_the_same_in_every_run_and_twice_on_a_page() -> None:
    one, other = (plots.sortable([("EM", 1)], METHOD_AND_N, label="results").data for _ in range(2))
    assert one == other
    assert " id=" not in one  # which would stand twice on a page of both


def test_a_sortable_table_without_rows_has_its_headers() -> None:
    shown = plots.sortable([], METHOD_AND_N, filters=["n"], label="results").data
    assert Cells(shown).rows == [[("th", "a < b"), ("th", "n")]]
    assert re.findall("<option.*?>(.*?)</option>", shown) == ["all"]


def test_pictures_scale_noise_by_its_limit() -> None:
    rows = {"clean": torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "noise": torch.full((2, 1, 4, 4), 8 / 255)}
    figure = plots.pictures(rows, ["a", "b"], limits={"noise": 8 / 255})
    limits = [axes.images[0].get_clim() for axes in figure.axes]
    assert limits == [(0, 255), (0, 255), (-8 / 255, 8 / 255), (-8 / 255, 8 / 255)]
    colour = plots.pictures({"noise": torch.zeros(1, 3, 4, 4)}, ["a"], limits={"noise": 1})
    assert np.allclose(np.asarray(colour.axes[0].images[0].get_array()), 0.5)


def waves(classes: int, channels: int = 1) -> tuple[mi.ImageSet, mi.Perturbation]:
    """Grey pictures of 12 × 16, with noise of a quarter of a cycle a pixel downwards."""
    labels = torch.arange(2 * classes) % classes
    images = mi.ImageSet(torch.full((2 * classes, channels, 12, 16), 128, dtype=torch.uint8), labels)
    wave = torch.tensor([4, 0, -4, 0]).repeat(3)[:, None].expand(images.images.shape)
    return images, mi.Perturbation.of_levels(images, wave, epsilon=8 / 255, method="waves", settings={})


@pytest.mark.parametrize("channels", [1, 3])
def test_a_noise_card_shows_pictures_and_spectrum(channels: int) -> None:
    images, noise = waves(4, channels)
    figure = plots.noise_card(images, noise, title="waves")
    clean, drawn, published = (figure.axes[row : row + 3] for row in (0, 3, 6))
    spectrum = figure.axes[9]
    assert figure.get_suptitle() == "waves"
    assert [axes.get_title() for axes in clean] == ["0", "1", "2"]
    assert [axes[0].get_ylabel() for axes in (clean, drawn, published)] == ["clean", "noise × 31.9", "published"]
    assert np.unique(np.asarray(published[0].images[0].get_array())).tolist() == [124, 128, 132]
    if channels == 1:
        assert drawn[0].images[0].get_clim() == pytest.approx((-4 / 255, 4 / 255))
    else:  # around mid-grey, from black to white
        assert np.unique(np.asarray(drawn[0].images[0].get_array())) == pytest.approx([0, 0.5, 1])

    mesh = spectrum.collections[0]
    power = np.asarray(mesh.get_array())
    assert power.shape == (12, 16)
    down, across = np.unravel_index(power.argmax(), power.shape)
    corners = mesh.get_coordinates()
    centre = (corners[down, across] + corners[down + 1, across + 1]) / 2
    assert centre[0] == pytest.approx(0, abs=1e-12)
    assert abs(centre[1]) == pytest.approx(1 / 4)
    # Parseval: the mean square, 8 levels squared, times 12·16, at the wave's frequency and its mirror image.
    assert power.max() == pytest.approx(np.log10(8 / 255**2 * 12 * 16 / 2), abs=1e-6)
    assert power.min() == pytest.approx(power.max() - 6)
    assert "cycles/pixel" in spectrum.get_xlabel()


def test_the_spectrum_of_white_noise_is_its_variance() -> None:
    images = mi.ImageSet(torch.full((400, 1, 9, 8), 128, dtype=torch.uint8), torch.arange(400) % 2)
    figure = plots.noise_card(images, mi.craft("random", images), title="random")
    assert len(figure.axes) == 6 + 2  # two classes, three pictures each; spectrum, and its colour bar
    power = 10 ** np.asarray(figure.axes[6].collections[0].get_array())
    variance = np.mean(np.arange(-8, 9) ** 2) / 255**2
    # |FFT|² is nearly exponential, or χ² where the FFT is real, which varies most: its mean has a deviation of √2 σ².
    assert np.abs(power / variance - 1).max() < 4 * np.sqrt(2 / 400)


def test_a_card_of_no_noise_is_drawn() -> None:
    images = mi.ImageSet(torch.zeros((2, 1, 9, 8), dtype=torch.uint8), torch.arange(2))
    none = mi.Perturbation.of(images, torch.zeros(2, 1, 9, 8), epsilon=1, method="none", settings={})
    assert len(set(np.asarray(plots.noise_card(images, none, title="").axes[6].collections[0].get_array()).flat)) == 1


def test_a_card_of_noise_for_other_pictures_is_refused() -> None:
    images, noise = waves(4, 1)
    with pytest.raises(ValueError, match="perturbation: got noise made for other pictures"):
        plots.noise_card(images.subset([0, 1, 2]), noise, title="waves")


def test_a_chooser_names_its_figures_and_turns_them() -> None:
    figures = {name: (f"about {name}", plots.bars({"a": [1, 2]}, ylabel="y")) for name in ("EM", "MI-UE", "random")}
    control, stack = plots.chooser(figures, label="method").children
    assert control.options == ("EM", "MI-UE", "random")
    assert (control.index, stack.selected_index) == (0, 0)
    for child, name in zip(stack.children, figures, strict=True):
        assert f'alt="about {name}"' in child.value


@pytest.mark.parametrize("make", ["slider", "chooser"])
def test_the_browser_itself_links_control_and_picture(make: str, monkeypatch: pytest.MonkeyPatch) -> None:
    links: list[Any] = []
    monkeypatch.setattr(ipywidgets, "jslink", lambda *ends: links.append(ends))
    figure = plots.bars({"a": [1, 2]}, ylabel="y")
    figures: Any = {"x": ("alt", figure)} if make == "chooser" else {"alt": figure}
    control, stack = getattr(plots, make)(figures, label="label").children
    trait = {"slider": "value", "chooser": "index"}[make]
    assert links == [((control, trait), (stack, "selected_index"))]


def test_a_slider_is_readable_without_eyes() -> None:
    figures = {f"picture {i} <&>": plots.bars({"a": [i, i + 1]}, ylabel="y") for i in range(3)}
    control, stack = plots.slider(figures, label="step").children
    assert control.max == 2
    assert control.readout is False  # an index means nothing beside a picture that says what it is
    assert len(stack.children) == 3
    assert 'alt="picture 0 &lt;&amp;&gt;"' in stack.children[0].value
    assert "data:image/png;base64," in stack.children[0].value


def test_a_slider_turns_pages_where_widgets_are_older(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ipywidgets, "Stack")
    figures = {f"picture {i}": plots.bars({"a": [i, i + 1]}, ylabel="y") for i in range(3)}
    control, window = plots.slider(figures, label="step").children
    assert 'alt="picture 0"' in window.value
    control.value = 2
    assert 'alt="picture 2"' in window.value


def test_a_chooser_turns_pages_where_widgets_are_older(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ipywidgets, "Stack")
    figures = {name: (f"about {name}", plots.bars({"a": [1, 2]}, ylabel="y")) for name in ("EM", "MI-UE")}
    control, window = plots.chooser(figures, label="method").children
    control.value = "MI-UE"
    assert 'alt="about MI-UE"' in window.value


def test_figures_are_closed() -> None:
    before = plt.get_fignums()
    plots.as_png(plots.bars({"a": [1, 2]}, ylabel="y"))
    plots.curves({"one": {"x": [[1, 2]]}}, xlabel="x", ylabel="y")
    plots.gaps({"one": {"x": ([1], [2])}}, xlabel="x", ylabel="y")
    plots.by_depth({"one": {"x": [[1]]}}, models=["m"])
    plots.by_method({"one": {"x": [1]}})
    plots.intervals({"one": {"x": (1, 0, 2)}}, xlabel="x")
    plots.sweep(SETTINGS, xlabels="x", ylabel="y")
    plots.heatmap(CELLS, xlabel="x", ylabel="y", label="accuracy")
    plots.noise_card(*waves(2), title="waves")
    assert plt.get_fignums() == before
