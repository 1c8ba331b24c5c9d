"""Figures: they draw what they are given, and say what they show."""

import ipywidgets
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from miue_lib import plots


def test_bars_show_mean_deviation_and_every_value() -> None:
    figure = plots.bars({"a": [0.1, 0.2, 0.3], "b": [0.8, 0.8, 0.8]}, ylabel="accuracy", chance=0.1)
    axes = figure.axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.2, 0.8])
    assert [text.get_text() for text in axes.texts] == ["0.200", "0.800", "guessing"]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [list(np.asarray(line.get_ydata())) for line in dots] == [[0.1, 0.2, 0.3], [0.8, 0.8, 0.8]]
    assert axes.get_ylabel() == "accuracy"


def test_curves_show_means_over_runs() -> None:
    figure = plots.curves({"one": {"x": [[0, 1], [1, 3]]}, "two": {"x": [[5, 5]]}}, xlabel="epoch", ylabel="y")
    left, right = figure.axes
    assert list(np.asarray(left.lines[0].get_ydata())) == [0.5, 2]
    assert len(left.collections) == 1  # the band
    assert len(right.collections) == 0  # no deviation of one run
    assert left.get_xlabel() == "epoch"


def test_pictures_scale_noise_by_its_limit() -> None:
    rows = {"clean": torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "noise": torch.full((2, 1, 4, 4), 8 / 255)}
    figure = plots.pictures(rows, ["a", "b"], limits={"noise": 8 / 255})
    limits = [axes.images[0].get_clim() for axes in figure.axes]
    assert limits == [(0, 255), (0, 255), (-8 / 255, 8 / 255), (-8 / 255, 8 / 255)]
    colour = plots.pictures({"noise": torch.zeros(1, 3, 4, 4)}, ["a"], limits={"noise": 1})
    assert np.allclose(np.asarray(colour.axes[0].images[0].get_array()), 0.5)


def test_a_slider_is_linked_in_the_browser_and_readable_without_eyes() -> None:
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


def test_figures_are_closed() -> None:
    before = plt.get_fignums()
    plots.as_png(plots.bars({"a": [1, 2]}, ylabel="y"))
    assert plt.get_fignums() == before
