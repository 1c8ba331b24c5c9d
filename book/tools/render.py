"""Renders the book: stages texts and executed chapters in _build/stage, then builds _build/html with Jupyter Book.

The sources are never written. A warning is an error, and a failed build leaves the pages of the last good one.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import nbformat
import yaml

from book.tools.execute import parameters_of
from book.tools.project import BOOK, BUILD, EXECUTED, HTML, ROOT, BookError, chapters
from book.tools.sync import BADGE

STAGE = BUILD / "stage"
PACKAGES = ROOT / "node_modules"
MATHJAX, REQUIRE, WIDGETS = "mathjax", "requirejs", "@jupyter-widgets/html-manager"
SCRIPTS = {
    MATHJAX: ["es5/tex-chtml.js", "es5/output/chtml/fonts/woff-v2/*.woff", "es5/input/tex/extensions/*.js"],
    REQUIRE: ["require.js"],
    WIDGETS: ["dist/embed-amd.js"],
}
STATUS = "<!-- status -->"  # where status.md takes its table


def has(cell: nbformat.NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """What was printed line by line as one block: a kernel reports it in as many pieces as it came in."""
    together: list[nbformat.NotebookNode] = []
    for output in outputs:
        before = together[-1] if together else None
        if before and output.output_type == before.output_type == "stream" and output.name == before.name:
            before.text += output.text
        else:
            together.append(output)
    return together


def dress(notebook: nbformat.NotebookNode, name: str) -> None:
    """Adapts an executed chapter to the page; what Colab needs otherwise stays in the source."""
    defaults = parameters_of(notebook, name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
        if has(cell, "badge"):  # a page that asks another host for a picture would not be complete without a network
            cell.source = cell.source.replace(BADGE, "images/open-in-colab.svg")
        if has(cell, "injected-parameters") and notebook.metadata.book["parameters"] == defaults:
            cell.metadata.tags.append("remove-cell")  # it repeats the cell above
        pictures = [output.metadata for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        texts = [metadata.get("image/png", {}).get("alt") for metadata in pictures]
        if len(texts) > 1 or None in texts:
            raise BookError(f"{name}: a cell shows {texts}; expected one picture with an alt text: {cell.source[:200]}")
        if texts:  # MyST takes it from the cell; display(figure, metadata=...) puts it with the output
            cell.metadata["mystnb"] = {"image": {"alt": texts[0]}}


def cover(notebooks: list[nbformat.NotebookNode]) -> bytes:
    """The first picture shown by a cell tagged 'cover'."""
    for cell in (cell for notebook in notebooks for cell in notebook.cells if has(cell, "cover")):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                return base64.b64decode(output.data["image/png"])
    raise BookError("no cell tagged 'cover' shows a picture for the landing page")


def status(notebooks: dict[str, nbformat.NotebookNode]) -> str:
    """A table of how each chapter was executed."""
    rows = ["| Chapter | Time | Parameters | Started (UTC) | Hardware | Versions |", "|---|---|---|---|---|---|"]
    for name, notebook in notebooks.items():
        run = notebook.metadata.book
        minutes, seconds = divmod(round(run["seconds"]), 60)
        parameters, versions = (", ".join(f"{k} {v}" for k, v in run[of].items()) for of in ("parameters", "versions"))
        took = f"{minutes} min {seconds} s"
        rows.append(f"| []({name}.ipynb) | {took} | {parameters} | {run['started']} | {run['hardware']} | {versions} |")
    return "\n".join(rows)


def scripts() -> dict[str, object]:
    """Sphinx settings for the scripts that pages load: from node_modules into the pages, else from a CDN."""
    static = STAGE / "_scripts"  # not _static: Jupyter Book loads every script under that on every page
    static.mkdir()
    for ours in ("widgets.js", "book.css"):
        shutil.copy2(Path(__file__).with_name(ours), static)
    settings: dict[str, object] = {"html_static_path": [static.name], "html_css_files": ["book.css"]}
    versions = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))["dependencies"]
    at = {package: f"npm/{package}@{version}" for package, version in versions.items()}
    if (PACKAGES / ".package-lock.json").exists():  # npm writes it last
        for package, patterns in SCRIPTS.items():
            copy(package, patterns, static / at[package])
        # The manager asks for its icon fonts beside the page, wherever its script lies; on a page that loads quickly,
        # in the folder above as well.
        copy(WIDGETS, ["dist/*.woff2"], STAGE / "_beside" / WIDGETS)
        for font in (PACKAGES / WIDGETS / "dist").glob("*.woff2"):
            shutil.copy2(font, STAGE / "_beside" / PurePosixPath(WIDGETS).parent)
        settings["html_extra_path"] = ["_beside"]
    else:
        print("no npm here: the pages will load MathJax and the widgets' scripts from cdn.jsdelivr.net")
        at = {package: f"https://cdn.jsdelivr.net/{path}" for package, path in at.items()}
    return settings | {
        "mathjax_path": f"{at[MATHJAX]}/es5/tex-chtml.js",
        "nb_ipywidgets_js": {
            "widgets.js": {},
            f"{at[REQUIRE]}/require.js": {},
            f"{at[WIDGETS]}/dist/embed-amd.js": {"data-jupyter-widgets-cdn-only": ""},
        },
    }


def copy(package: str, patterns: list[str], target: Path) -> None:
    """Copies those files of an npm package."""
    for file in (file for pattern in patterns for file in (PACKAGES / package).glob(pattern)):
        to = target / file.relative_to(PACKAGES / package)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, to)


def stage(profile: str) -> None:
    """Puts together in STAGE what Jupyter Book reads."""
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(BOOK, STAGE, ignore=shutil.ignore_patterns("tools", "cache", "*.py", "*.ipynb", "__pycache__"))
    notebooks = {}
    for name in chapters():
        executed = EXECUTED / profile / f"{name}.ipynb"
        if not executed.exists():
            raise BookError(f"{name} was not executed with profile {profile}: {executed.relative_to(ROOT)} is missing")
        notebooks[name] = nbformat.read(executed, as_version=4)
        dress(notebooks[name], name)
        nbformat.write(notebooks[name], STAGE / executed.name)
    (STAGE / "images" / "cover.png").write_bytes(cover(list(notebooks.values())))
    page = STAGE / "status.md"
    page.write_text(page.read_text(encoding="utf-8").replace(STATUS, status(notebooks)), encoding="utf-8")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["sphinx"]["config"] |= scripts()
    (STAGE / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True, sort_keys=False), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="cpu", help="which executed chapters to show: cpu (default) or gpu")
    stage(parser.parse_args(arguments).profile)
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    build = [str(jupyter_book), "build", str(STAGE), "-W", "--keep-going", "--quiet"]
    built = subprocess.run(build, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if built.returncode:
        raise BookError(f"the pages could not be made, or gave warnings:\n{built.stdout}")
    shutil.rmtree(HTML, ignore_errors=True)
    (STAGE / "_build" / "html").replace(HTML)
    print(f"the book is at {HTML / 'index.html'}: open it, or `make serve`")


if __name__ == "__main__":
    try:
        main()
    except BookError as error:
        sys.exit(f"error: {error}")
