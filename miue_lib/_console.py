"""What a program in a terminal owes whoever runs it: progress, warnings in a line, a way out on SIGTERM."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

# What would not be seen, would turn the text round it about or do something to a terminal, or cannot be written as
# UTF-8: control characters, line and paragraph separators, marks of direction, and the lone surrogates in which Python
# keeps the bytes of broken names.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


def visible(value: object) -> str:
    """It as text of one line, with what would not be seen, or worse, as Python would write it: names are anyone's."""
    return _UNSEEN.sub(lambda match: ascii(match[0])[1:-1], str(value))


class Progress:
    """Lines on stderr: each over the one before where a person watches, one below the other in a file."""

    def __init__(self) -> None:
        self.watched = sys.stderr.isatty()
        self.length = 0

    def __call__(self, line: str) -> None:
        line = visible(line)
        if self.watched:
            line = line[: shutil.get_terminal_size().columns - 1]  # one that wraps could not be written over
            print("\r" + line.ljust(self.length), end="", file=sys.stderr, flush=True)
            self.length = len(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the line, so that what follows begins one."""
        if self.length:
            print(file=sys.stderr)
        self.length = 0


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Inside, a warning is its message: the line of code that it points at is nobody's business here."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"miue_lib: warning: {visible(message)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


class Terminated(BaseException):
    """What SIGTERM raises, as SIGINT raises `KeyboardInterrupt`: what is open is closed on the way out."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated`. For the main thread only, as signals are."""

    def handler(*_: Any) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
