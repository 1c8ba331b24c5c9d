"""A finished run and where it came from, as a JSON record; and the numbers that others have published, as records too.

A record is one cell of one table. A file holds one, or a list of them; it is text that a person can read, and nothing
in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from ._errors import bad, check_choice, check_count, check_number
from ._files import write_whole
from ._machine import processor
from .cache import LIBRARY
from .profiles import PROFILES

FORMAT = "miue_lib.result/1"


@dataclass(frozen=True, kw_only=True)
class Record:
    """The numbers of one cell of a table, and where they came from.

    table: lower-case letters, digits and hyphens: "methods", "transfer", "one-class".
    row, column, data: as a reader is shown them: "MI-UE", "ResNet-18", "CIFAR-10".
    numbers: metric → one number for each seed: all metrics as many. A metric whose name ends in "accuracy" is a
        fraction, in [0, 1].
    seeds: of the runs, in the order of the numbers; none where they are not known.
    settings: what was asked for, as JSON can hold it.
    fingerprints: of the pictures, name → digest: "train", "test".
    code, hardware, date: which code ran, on what machine and when (ISO 8601, UTC), as `provenance` says it.
    profile: "cpu" or "gpu" for a run at a profile's size, else "".
    seconds: that the runs took, all together, if it was measured.
    source: the citation of a published number; "" for a run of our own, which has a code and a date.

    Mappings and sequences are copied: to what JSON would give back, except that numbers and seeds are tuples.

    Raises `ValueError` for anything else.
    """

    table: str
    row: str
    column: str
    data: str
    numbers: Mapping[str, tuple[float, ...]]
    seeds: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    hardware: Mapping[str, str] = field(default_factory=dict)
    profile: str = ""
    seconds: float | None = None
    date: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z0-9-]+", _text("table", self.table)):
            raise bad("table", repr(self.table), "lower-case letters, digits and hyphens")
        for name in ("row", "column", "data"):
            if not _text(name, getattr(self, name)).strip():
                raise bad(name, repr(getattr(self, name)), "what a reader is to see")
        seeds = tuple(check_count(f"seeds[{i}]", seed, 0) for i, seed in enumerate(_sequence("seeds", self.seeds)))
        if len(set(seeds)) < len(seeds):
            raise bad("seeds", repr(seeds), "every seed once")
        checked = {
            "seeds": seeds,
            "numbers": _numbers(self.numbers, len(seeds)),
            "settings": _plain("settings", _mapping("settings", self.settings)),
            "fingerprints": _texts("fingerprints", self.fingerprints),
            "hardware": _texts("hardware", self.hardware),
            "seconds": None if self.seconds is None else check_number("seconds", self.seconds, 0),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        check_choice("profile", self.profile, ("", *PROFILES))
        _check_date(_text("date", self.date))
        if not (_text("source", self.source) or (_text("code", self.code) and self.date)):
            raise bad("source", "'' without a code and a date", "a citation, or the code and date of a run of our own")

    def mean(self, metric: str = "accuracy") -> float:
        """Over the seeds. Raises `ValueError` for a metric that was not recorded."""
        return statistics.fmean(self._of(metric))

    def sd(self, metric: str = "accuracy") -> float | None:
        """The standard deviation over the seeds, with n − 1 below; None for a single number, which tells nothing of it.

        Raises `ValueError` for a metric that was not recorded.
        """
        values = self._of(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    def _of(self, metric: str) -> tuple[float, ...]:
        return self.numbers[check_choice("metric", metric, self.numbers)]


def provenance(device: torch.device | str) -> dict[str, Any]:
    """The fields of a `Record` that say by what code, on what machine and when: of a run on `device`, as of now."""
    from . import __version__  # here: the package imports this module before it has a version

    return {
        "code": f"miue_lib {__version__}, source {LIBRARY[:16]}",
        "hardware": hardware(device),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def hardware(device: torch.device | str) -> dict[str, str]:
    """What a run on `device` runs on, for a reader: the processor or GPU, and the software that computes."""
    device = torch.device(device)
    about = {
        "device": device.type,
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    if device.type == "cuda":
        about |= {"gpu": torch.cuda.get_device_name(device), "driver": _driver(), "cuda": str(torch.version.cuda)}
    return about


def _driver() -> str:
    """The version of NVIDIA's driver, one for all GPUs of a machine: torch does not know it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, check=True, timeout=20).stdout.decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return next(iter(said.split()), "unknown")


def write(record: Record, folder: str | Path) -> Path:
    """Write a record under `folder`, in a folder of its table's name which is made if need be; returns the file.

    The file's name is made of row, column and data, and of a digest of what tells one case from another: those as they
    are spelt, table, profile, source, settings, the pictures' fingerprints and the first seed. So another run of a case
    replaces the one before, whole or not at all, and another case never does.
    """
    place = [record.table, record.row, record.column, record.data, record.profile, record.source]
    case = [place, record.settings, record.fingerprints, record.seeds[:1]]
    digest = hashlib.sha256(json.dumps(case, sort_keys=True).encode()).hexdigest()[:12]
    parts = [_slug(record.row), _slug(record.column), _slug(record.data), digest]
    path = Path(folder) / record.table / f"{'--'.join(filter(None, parts))}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT} | asdict(record)
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_whole(path, f"{text}\n".encode())
    return path


def read(path: str | Path) -> list[Record]:
    """The records of a file, or of every .json file in a folder and the folders in it, hidden ones left out, in order
    of their paths.

    Raises `ValueError`, naming the file, for one that is not there, not whole, or holds anything but records.
    """
    path = Path(path)
    if not path.is_dir():
        return _records(path)
    inside = sorted(file.relative_to(path) for file in path.rglob("*.json"))
    shown = [file for file in inside if not any(part.startswith(".") for part in file.parts)]
    return [record for file in shown for record in _records(path / file)]


def recorded() -> list[Record]:
    """What is kept in the folder book/results of the copy of the book in which the working directory lies.

    Nothing where it lies in none, as on Colab.
    """
    here = Path.cwd().resolve()
    found = (folder / "book" / "results" for folder in (here, *here.parents))
    return next((read(folder) for folder in found if folder.is_dir()), [])


def published(title: str = "") -> list[Record]:
    """The numbers that others have published, of those whose citation contains `title`: "APBench".

    Each is a single number, of a victim that is a ResNet-18 where the column does not name another. What APBench and
    Image Shortcut Squeezing call TAP is AP here, as in the rest of the book; the record's settings say so.

    Raises `ValueError` if no citation contains it.
    """
    _text("title", title)
    with resources.as_file(resources.files("miue_lib") / "published.json") as path:
        records = read(path)
    chosen = [record for record in records if title in record.source]
    if not chosen:
        raise bad("title", repr(title), "a part of one of: " + "; ".join(dict.fromkeys(r.source for r in records)))
    return chosen


def find(records: Iterable[Record], **wanted: Any) -> list[Record]:
    """Those whose fields have these values: `find(records, table="methods", data="CIFAR-10")`.

    Raises `ValueError` for a name that is not a field's.
    """
    for name in wanted:
        check_choice("field", name, [of.name for of in fields(Record)])
    return [record for record in records if all(getattr(record, name) == value for name, value in wanted.items())]


def pivot(records: Iterable[Record]) -> dict[str, dict[str, Record]]:
    """Row → column → record, in order of first appearance.

    Raises `ValueError` for two records of one cell, which `find` can tell apart by data, profile, source or settings.
    """
    table: dict[str, dict[str, Record]] = {}
    for record in records:
        row = table.setdefault(record.row, {})
        if record.column in row:
            raise bad("records", f"two of row {record.row!r} and column {record.column!r}", "one record for each cell")
        row[record.column] = record
    return table


def beside(groups: Mapping[str, Iterable[Record]]) -> dict[str, dict[str, Record | None]]:
    """Row → name of a group → the group's record of that row, None if it has none; rows in order of first appearance.

    groups: name → records of one column: `{"here": ours, "on a GPU": recorded, "published": theirs}`.

    Raises `ValueError` for two records of one row in a group.
    """
    table: dict[str, dict[str, Record | None]] = {}
    for name, records in groups.items():
        for record in records:
            row = table.setdefault(record.row, dict.fromkeys(groups))
            if row[name] is not None:
                raise bad(f"groups[{name!r}]", f"two records of row {record.row!r}", "one record for each row")
            row[name] = record
    return table


def _records(path: Path) -> list[Record]:
    try:
        content = json.loads(path.read_bytes())
        return [_record(entry) for entry in (content if isinstance(content, list) else [content])]
    # A number may be larger than a float can be, brackets deeper than Python follows, and a key no field's.
    except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise bad("path", f"{str(path)!r} ({error})", f"JSON records of format {FORMAT!r}") from error


def _record(content: Any) -> Record:
    given = content.get("format") if isinstance(content, dict) else None
    if given != FORMAT:
        raise bad("format", repr(given), repr(FORMAT))
    return Record(**{key: value for key, value in content.items() if key != "format"})


def _slug(text: str) -> str:
    """`text` as a part of a file's name on any system."""
    return re.sub("[^a-z0-9]+", "-", text.lower())[:50].strip("-")


def _numbers(given: Any, seeds: int) -> dict[str, tuple[float, ...]]:
    """metric → numbers, as many for each metric, and as many as there are seeds, if there are any."""
    numbers = {}
    for metric, values in _mapping("numbers", given).items():
        name = f"numbers[{metric!r}]"
        low, high = (0, 1) if metric.endswith("accuracy") else (-math.inf, math.inf)
        numbers[metric] = tuple(check_number(name, value, low, high) for value in _sequence(name, values))
    if not numbers:
        raise bad("numbers", repr(given), "at least one metric")
    expected = seeds or max(1, *map(len, numbers.values()))
    for metric, checked in numbers.items():
        if len(checked) != expected:
            why = "one for each seed" if seeds else "for each metric as many"
            raise bad(f"numbers[{metric!r}]", repr(checked), f"a length of {expected}: {why}")
    return numbers


def _check_date(date: str) -> None:
    if not date:
        return
    try:
        offset = datetime.fromisoformat(date).utcoffset()
    except ValueError:
        offset = None
    if offset != timedelta(0):
        raise bad("date", repr(date), "a date and time in UTC like '2026-03-01T12:00:00+00:00'")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise bad(name, repr(value), "a string")
    return value


def _texts(name: str, given: Any) -> dict[str, str]:
    return {key: _text(f"{name}[{key!r}]", value) for key, value in _mapping(name, given).items()}


def _sequence(name: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise bad(name, repr(value), "a tuple or list")
    return value


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    """`value` if it is a mapping of strings: JSON would make other keys into strings."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise bad(name, repr(value), "a mapping whose keys are strings")
    return value


def _plain(name: str, value: Any) -> Any:
    """`value` as JSON would give it back."""
    if isinstance(value, Mapping):
        return {key: _plain(f"{name}[{key!r}]", inner) for key, inner in _mapping(name, value).items()}
    if isinstance(value, list | tuple):
        return [_plain(f"{name}[{i}]", inner) for i, inner in enumerate(value)]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)  # numpy's float64 is one too
    raise bad(name, repr(value), "a plain value: a finite number, string, list, mapping or None")
