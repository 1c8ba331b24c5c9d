"""What puts figures and tables on a page, also where no kernel runs."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from .style import STYLE

Row = TypeVar("Row")


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


def table(rows: Iterable[Row], columns: Mapping[str, Callable[[Row], object]]) -> Any:
    """Rows as an HTML table that scrolls sideways in a box of its own where it is wider than the page.

    rows: of any type. columns: header → what the column shows of a row, as text in which "<" and "&" mean themselves;
    the first column names its rows. As in `table(accuracy.items(), {"method": lambda item: item[0], "accuracy": lambda
    item: mean_sd(item[1])})`.

    Jupyter Book shows a Markdown output without its tables, hence HTML.
    """
    from IPython.display import HTML  # part of the book, not of the library's own needs

    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    lines = ""
    for row in rows:
        name, *cells = (html.escape(str(form(row))) for form in columns.values())
        lines += f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    box = '<div style="overflow-x: auto; white-space: nowrap" tabindex="0">'  # so that keys scroll it too
    whole = f'{box}<table class="table"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
    return HTML(whole)  # type: ignore[no-untyped-call]
