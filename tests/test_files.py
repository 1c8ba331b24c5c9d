"""Files are whole or not there, and are everyone's to read whom the umask allows."""

import os
from pathlib import Path

import pytest

from miue_lib._files import beside, write_whole


def test_a_file_may_be_read_by_whom_the_umask_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for the umask means setting it for a moment, for all threads: it is never asked for."""
    mask = os.umask(0o027)
    try:
        with monkeypatch.context() as context:
            context.delattr(os, "umask")
            write_whole(tmp_path / "file", b"all of it")
    finally:
        os.umask(mask)
    assert (tmp_path / "file").read_bytes() == b"all of it"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_after_an_error_the_file_is_what_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise KeyError

    with pytest.raises(KeyError), beside(tmp_path / "file") as part:
        assert list(tmp_path.glob(".file.*.part")) == [part]
        fail(part)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
