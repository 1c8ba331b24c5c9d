"""Writes everything that is generated and committed; with --check, names what differs instead and exits 1.

A chapter is written in book/NAME.py (py:percent). From it and pyproject.toml follow its badge and setup cell, the
clean notebook beside it that Colab opens, and the address, version and requirements repeated in other files.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path

import jupytext
import nbformat

from book.tools.project import BOOK, BRANCH, PROJECT, REPOSITORY, ROOT, VERSION, BookError, chapters, colab_url

BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
NOTEBOOK_METADATA = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
ON_COLAB = {"torch", "torchvision", "numpy"}  # never installed by a notebook
IMPORTED_BY_CHAPTERS = {"matplotlib", "ipywidgets", "scikit-learn"}


def requirement_name(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement)[0]


def setup_cell() -> str:
    """The first code cell of every chapter: the template beside this file with this release's values."""
    extra = [r for r in PROJECT["optional-dependencies"]["book"] if requirement_name(r) in IMPORTED_BY_CHAPTERS]
    needed = {requirement_name(r): r for r in PROJECT["dependencies"] + extra}
    values = {
        "@VERSION@": VERSION,
        "@REPOSITORY@": REPOSITORY,
        "@REQUIREMENTS@": ", ".join(f'"{r}"' for name, r in needed.items() if name not in ON_COLAB),
        "@TORCH@": (torch := needed["torch"].removeprefix("torch>=")),
        "@TORCH_TUPLE@": torch.replace(".", ", "),
    }
    text = Path(__file__).with_name("setup_cell.py.in").read_text(encoding="utf-8").strip()
    for key, value in values.items():
        text = text.replace(key, value)
    return text


def synced_source(text: str, chapter: str) -> str:
    """A chapter's source with its badge and setup cell, put after the title cell where they are missing."""
    cells = re.split(r"(?m)^(?=# %%)", text.strip() + "\n")[1:]  # what stands before the first cell is dropped
    if not cells or not re.match(r"# %% \[markdown\]\n# # \S", cells[0]):
        raise BookError(f"book/{chapter}.py: expected to begin with '# %% [markdown]' and a title '# # ...'")
    own = [cell for cell in cells if not re.match(r'# %%.*tags=\[.*"(badge|setup)"', cell)]
    badge = f'# %% [markdown] tags=["badge"]\n# [![Open in Colab]({BADGE})]({colab_url(chapter)})\n'
    setup = f'# %% tags=["setup", "hide-cell"]\n{setup_cell()}\n'
    # Blank lines between the chapter's own cells are the formatter's business.
    return "".join([own[0].rstrip("\n"), "\n\n", badge, "\n", setup, "\n", *own[1:]]).rstrip("\n") + "\n"


def notebook(source: str) -> str:
    """The clean notebook of a chapter's source. The same source gives the same bytes."""
    parsed = jupytext.reads(source, fmt="py:percent")
    cells: list[nbformat.NotebookNode] = []
    for cell in parsed.cells:
        metadata = {k: v for k, v in cell.metadata.items() if not k.startswith("lines_to_")}  # jupytext's own notes
        # An id from the content: editing one cell leaves the other cells' lines alone.
        digest, twins = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12], 0
        while (cell_id := f"{digest}-{twins}" if twins else digest) in {c.id for c in cells}:
            twins += 1
        new = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        cells.append(new(cell.source, id=cell_id, metadata=metadata))
    return f"{nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=NOTEBOOK_METADATA))}\n"


def generated() -> dict[Path, str]:
    """Every generated file that is committed, with the text it should have."""
    wanted = {}
    for chapter in chapters():
        source = BOOK / f"{chapter}.py"
        wanted[source] = synced_source(source.read_text(encoding="utf-8"), chapter)
        wanted[source.with_suffix(".ipynb")] = notebook(wanted[source])
    for name, lines in {
        "_config.yml": {"  url": REPOSITORY, "  branch": BRANCH},
        "CITATION.cff": {"version": VERSION, "repository-code": REPOSITORY},
    }.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        for key, value in lines.items():
            text, found = re.subn(rf"(?m)^{key}: .*$", f"{key}: {value}", text)
            if found != 1:
                raise BookError(f"{name}: expected one line '{key}: ...', found {found}")
        wanted[ROOT / name] = text
    supported = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["book"]
    header = "# What the book supports, from pyproject.toml; `make` installs the exact versions of requirements.lock."
    wanted[ROOT / "requirements.txt"] = "\n".join([header, *supported, ""])
    return wanted


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not as it should be")
    check = parser.parse_args(arguments).check
    differing = {
        path: text
        for path, text in generated().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    names = ", ".join(str(path.relative_to(ROOT)) for path in differing)
    if check and differing:
        raise BookError(f"not in step with its source: {names}; run `make sync`")
    for path, text in differing.items():
        path.write_text(text, encoding="utf-8")
    print(f"written: {names}" if differing else "everything generated is in step")


if __name__ == "__main__":
    try:
        main()
    except BookError as error:
        sys.exit(f"error: {error}")
