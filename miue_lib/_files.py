"""Files that are whole or not there, and what tensors hold in a few letters."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, uint8

from ._errors import bad


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with beside(path) as part:
        part.write_bytes(data)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A file in the same folder to write to; it is renamed to `path` at the end, and removed after an error.

    No half-written file ever has the name `path`, and what had it before stays until the new one is on the disk.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    part.touch(exist_ok=False)  # unlike a temporary file, whoever may read what is written here may read it
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(uint8).numpy().data)
    return digest.hexdigest()


def read_tagged(path: Path, tag: str, argument: str, what: str) -> tuple[dict[str, Tensor], Any]:
    """The tensors of a safetensors file whose "format" is `tag`, and what its "about", which is JSON, says of them.

    Raises `ValueError` for a file that is not there, not whole, or of another format than `tag`. The message calls the
    file `argument`, and what was expected `what`, or the tag.
    """
    if not path.is_file():
        raise bad(argument, repr(str(path)), f"a {what}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") == tag:
                return {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata["about"])  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise bad(argument, f"{str(path)!r} ({error!r})", f"a whole {what}") from error
    raise bad(argument, f"{str(path)!r} of format {metadata.get('format')!r}", f"format {tag!r}")
