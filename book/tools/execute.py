"""Executes chapters with papermill into _build/executed/PROFILE/, each only when something it depends on has changed.

A chapter that fails leaves NAME.failed.ipynb there and no NAME.ipynb; the sources are never written.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import yaml

from book.tools.project import BOOK, BUILD, EXECUTED, ROOT, BookError, chapters

INPUTS = (ROOT / "miue_lib", ROOT / "requirements.lock")  # besides its own notebook, what a chapter's results depend on
RECORDS = BOOK / "results"  # and of some chapters, these
RECORDED = ("torch", "torchvision", "numpy", "miue_lib")


def parameters_of(notebook: nbformat.NotebookNode, name: str) -> dict[str, object]:
    """The parameters a chapter offers, with their defaults: papermill itself would let a mistyped name pass."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise BookError(f"{name}: expected one cell tagged 'parameters', found {len(cells)}")
    try:
        return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(cells[0].source).body}
    except (AttributeError, ValueError, SyntaxError) as error:
        # A value computed here would keep its default when papermill sets what it was computed from.
        raise BookError(f"{name}: the cell tagged 'parameters' may hold only lines like seed = 0") from error


def processor() -> str:
    """The CPU's model, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return model[1] if model else platform.processor() or platform.machine()


def key(notebook: str, parameters: dict[str, object]) -> str:
    """Changes whenever the chapter would have to be executed again."""
    digest = hashlib.sha256(
        json.dumps([notebook, parameters, platform.python_version(), processor()], sort_keys=True).encode()
    )
    for root in (*INPUTS, RECORDS) if "results.recorded(" in notebook else INPUTS:
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(root.parent)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def hardware() -> str:
    import torch  # takes seconds: only once something was executed

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{processor()}, {os.cpu_count()} cores{gpu}"


def reporter(total: int, started: float) -> Callable[[nbformat.NotebookNode, int], None]:
    """A callback that prints one line a code cell: which, when, under what heading, and how it begins."""
    heading, count = "", 0

    def cell_starts(cell: nbformat.NotebookNode, cell_index: int) -> None:
        nonlocal heading, count
        if cell.cell_type == "markdown":
            found = re.findall(r"(?m)^#+ (.+)$", cell.source)
            heading = found[-1] if found else heading
        elif cell.cell_type == "code":
            count += 1
            begins = next(iter(cell.source.strip().splitlines()), "")
            print(f"  {count:3}/{total}  {time.monotonic() - started:5.0f} s  {heading}: {begins}"[:120], flush=True)

    return cell_starts


def execute(source: Path, folder: Path, parameters: dict[str, object], force: bool = False) -> bool:
    """Executes the notebook `source` into `folder`, unless the copy there is fresh; says whether it did."""
    name, text = source.stem, source.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    offered = parameters_of(notebook, name)
    if unknown := sorted(parameters.keys() - offered.keys()):
        raise BookError(f"{name}: unknown parameter {', '.join(unknown)}; expected one of {', '.join(offered)}")
    for parameter, value in parameters.items():
        if type(value) is not type(offered[parameter]):
            raise BookError(f"{name}: {parameter}={value!r}; expected something like {offered[parameter]!r}")
    wanted = key(text, parameters)
    target, failed, partial = (folder / f"{name}{suffix}.ipynb" for suffix in ("", ".failed", ".partial"))
    if not force and target.exists() and nbformat.read(target, as_version=4).metadata.book["key"] == wanted:
        print(f"{name}: nothing changed", flush=True)
        return False

    import papermill  # takes seconds: not when everything is fresh
    from nbclient.exceptions import DeadKernelError

    for path in (target, failed):
        path.unlink(missing_ok=True)
    scratch = BUILD / "scratch"  # where chapters run: what they save does not land among the sources
    for path in (folder, scratch):
        path.mkdir(parents=True, exist_ok=True)
    print(f"{name}: executing", flush=True)
    begun, started = datetime.now(UTC), time.monotonic()
    total = sum(cell.cell_type == "code" for cell in notebook.cells) + bool(parameters)  # papermill adds a cell of them
    try:
        done = papermill.execute_notebook(
            source,
            partial,
            parameters,
            kernel_name="python3",
            progress_bar=False,
            start_timeout=300,
            cwd=scratch,
            on_cell_start=reporter(total, started),
        )
        code = [cell for cell in done.cells if cell.cell_type == "code" and cell.source.strip()]
        if not all(cell.execution_count for cell in code):  # papermill takes sys.exit() for success
            partial.replace(failed)
            raise BookError(f"{name} ended before its last cell; see {failed}")
    except (papermill.PapermillExecutionError, DeadKernelError) as error:
        partial.replace(failed)
        cell = getattr(error, "source", "")  # unknown when the kernel died
        raise BookError(
            f"{name} failed after {time.monotonic() - started:.0f} s; see {failed}\n{cell}\n{error}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    seconds = time.monotonic() - started
    done.metadata["book"] = {
        "key": wanted,
        "seconds": round(seconds, 1),
        "started": begun.strftime("%Y-%m-%d %H:%M"),
        "parameters": offered | parameters,
        "hardware": hardware(),
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in RECORDED},
    }
    nbformat.write(done, partial)
    partial.replace(target)  # a killed run leaves no half-written copy behind
    print(f"{name}: done in {seconds:.0f} s", flush=True)
    return True


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chapters", nargs="*", help="names as in book/_toc.yml; all of them if none is given")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter")
    parser.add_argument("--force", action="store_true", help="execute even what is fresh")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.chapters) - set(chapters())):
        raise BookError(f"no chapter {', '.join(unknown)}; expected some of {', '.join(chapters())}")
    parameters = {"profile": "cpu"} | {name: yaml.safe_load(value) for name, value in options.p}
    for name in options.chapters or chapters():
        execute(BOOK / f"{name}.ipynb", EXECUTED / str(parameters["profile"]), parameters, options.force)


if __name__ == "__main__":
    try:
        main()
    except BookError as error:
        sys.exit(f"error: {error}")
