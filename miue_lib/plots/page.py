"""What puts figures and tables on a page, also where no kernel runs."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from .._errors import bad
from .style import STYLE

Row = TypeVar("Row")
_SORTABLE = Path(__file__).with_name("sortable.html")  # style and script


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

    box = '<div style="overflow-x: auto; white-space: nowrap" tabindex="0">'  # so that keys scroll it too
    return HTML(f"{box}{_table(_texts(rows, columns), columns)}</div>")  # type: ignore[no-untyped-call]


def sortable(
    rows: Iterable[Row],
    columns: Mapping[str, Callable[[Row], object]],
    *,
    filters: Sequence[str] = (),
    label: str,
) -> Any:
    """A `table` that the reader can sort and filter in a rendered page, where no kernel runs.

    rows, columns: as of `table`. filters: the columns by whose values the reader can choose rows, each with a drop-down
    list of all of them, in the order in which they first come. label: what the table shows, for those who cannot see
    it.

    A column's header sorts by it, and again in reverse: numbers by value ("11.2 ± 0.3" by 11.2), then texts, and what
    is empty or "–" always last; equal rows keep their order. A text box keeps the rows that hold all its words. A long
    table scrolls in its box, below its headers. Where scripts don't run, it is a plain table.

    Raises `ValueError` without columns and for filters that are none.
    """
    from IPython.display import HTML  # part of the book, not of the library's own needs

    names = list(columns)
    if not names:
        raise bad("columns", "none", "one or more")
    unknown = [name for name in filters if name not in columns]
    if unknown:
        raise bad("filters", ", ".join(map(repr, unknown)), "columns: " + ", ".join(map(repr, names)))
    texts = _texts(rows, columns)
    # autocomplete: on a reload Firefox would fill in what was chosen, after the script has run.
    controls = '<label>Find <input type="search" autocomplete="off" placeholder="all of these words"></label>'
    for name in filters:
        place = names.index(name)
        values = (html.escape(value) for value in dict.fromkeys(line[place] for line in texts))
        options = "<option>all</option>" + "".join(f'<option value="{value}">{value}</option>' for value in values)
        select = f'<select autocomplete="off" data-column="{place}">{options}</select>'
        controls += f"<label>{html.escape(name)} {select}</label>"
    named = f'aria-label="{html.escape(label)}"'
    whole = (
        f'<div class="miue-sortable">'
        f'<div class="controls" role="group" {named} hidden>{controls}<output></output></div>'
        f'<div class="box" role="region" {named} tabindex="0">{_table(texts, columns)}</div></div>'
    )
    # No ids and nothing of the rows in the script, which is the same for every table of a page.
    return HTML(whole + _SORTABLE.read_text(encoding="utf-8"))  # type: ignore[no-untyped-call]


def _texts(rows: Iterable[Row], columns: Mapping[str, Callable[[Row], object]]) -> list[list[str]]:
    """What the columns show of each row."""
    return [[str(form(row)) for form in columns.values()] for row in rows]


def _table(texts: Iterable[Iterable[str]], names: Iterable[str]) -> str:
    """The HTML of a table with a header over each column, whose first column names the rows."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    lines = ""
    for line in texts:
        name, *cells = map(html.escape, line)
        lines += f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return f'<table class="table"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'
