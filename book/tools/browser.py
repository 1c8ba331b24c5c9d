"""Finds a Chromium or Chrome for the browser tests and prints its path; installs one where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from playwright.sync_api import sync_playwright

from book.tools.project import BookError

MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", MAC)


def candidates() -> Iterator[str]:
    """Paths of browsers, the least trouble first; each later one is installed only when it is asked for."""
    yield from filter(None, map(shutil.which, NAMES))
    if shutil.which("apt-get") and os.geteuid() == 0:
        quietly = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in ("update", "install --yes chromium"):
            subprocess.run(["apt-get", "-qq", *command.split()], check=False, stdout=sys.stderr, env=quietly)
        yield from filter(None, [shutil.which("chromium")])
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    yield own
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False, stdout=sys.stderr)
    yield own


def works(path: str) -> bool:
    """Whether it starts: on Ubuntu, for one, `chromium` may be a script that only names a snap."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def find() -> str:
    for path in candidates():
        if works(path):
            return path
    raise BookError(
        "no Chromium or Chrome for the browser tests, and neither apt-get nor playwright could install one; "
        "please install one yourself"
    )


if __name__ == "__main__":
    try:
        print(find())
    except BookError as error:
        sys.exit(f"error: {error}")
