"""Where things are, and the repository's address, read from the one place that holds it: pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
BUILD = ROOT / "_build"
EXECUTED = BUILD / "executed"  # EXECUTED/PROFILE/CHAPTER.ipynb, written by execute.py
HTML = BUILD / "html"

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSION: str = PROJECT["version"]
REPOSITORY: str = PROJECT["urls"]["Repository"]
BRANCH = "main"  # what the badges open


class BookError(Exception):
    """Something the author must mend, said in one line."""


def chapters() -> list[str]:
    """Names of the chapters that run, in the order of _toc.yml."""

    def files(entry: dict) -> list[str]:
        below = [*entry.get("parts", []), *entry.get("chapters", []), *entry.get("sections", [])]
        return [entry[k] for k in ("root", "file") if k in entry] + [name for e in below for name in files(e)]

    listed = files(yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8")))
    if unlisted := {source.stem for source in BOOK.glob("*.py")} - set(listed):
        raise BookError(f"book/_toc.yml does not list {', '.join(sorted(unlisted))}")
    return [name for name in listed if (BOOK / f"{name}.py").exists()]


def colab_url(chapter: str) -> str:
    """The address that opens a chapter's notebook in Colab."""
    match = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", REPOSITORY)
    if not match:
        raise BookError(
            f"pyproject.toml: [project.urls] Repository is {REPOSITORY!r}; expected https://github.com/OWNER/NAME"
        )
    return f"https://colab.research.google.com/github/{match[1]}/blob/{BRANCH}/book/{chapter}.ipynb"
