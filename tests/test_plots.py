"""Figures: they draw what they are given, and say what they show."""

from typing import Any

import ipywidgets
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

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
    plots.noise_card(*waves(2), title="waves")
    assert plt.get_fignums() == before
