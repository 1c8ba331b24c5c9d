"""What `protect` was asked for, and whether a folder may be written into for it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .._errors import bad, check_choice, check_count, check_flag
from ..data import ImageSet, default_device
from ..noise import METHODS
from ..profiles import Profile
from ..profiles import profile as profile_called
from ..suite import fitted_to
from . import verdict
from .work import FOLDER

FORMAT = "miue_lib.protected/1"
MANIFEST, REPORT = "manifest.json", "report.html"
BEGUN = "settings.json"  # in the work folder: what was asked for
_SEEN = {"cpu": 2_000, "gpu": 10_000}
_OF_VIEWERS = (".DS_Store", "Thumbs.db")  # which file managers put into folders that they show
_OWN = ("epsilon", "seed")  # settings of methods that are arguments of `protect`


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of `protect`, checked and with nothing left open.

    photos, out: absolute, without links. budget: in levels of 255; None where the method is not bounded so.
    settings: what was said of the method's, over those that the profile and the number of pictures decide.
    """

    photos: Path
    out: Path
    method: str
    budget: int | None
    size: int
    profile: Profile
    seed: int
    seeds: int
    suffix: str
    keep_metadata: bool
    report: bool
    settings: Mapping[str, Any]
    device: torch.device

    @property
    def work(self) -> Path:
        return self.out / FOLDER

    @property
    def most(self) -> int:
        """How far a pixel may move, in levels."""
        return 255 if self.budget is None else self.budget

    @property
    def seen(self) -> int:
        """How many pictures, at most, victims are trained and tested on."""
        return _SEEN[self.profile.name]

    def asked(self, processes: int) -> dict[str, Any]:
        """What decides the output, as JSON holds it; a run that goes on must be asked for the same."""
        names = ("method", "budget", "size", "seed", "seeds", "suffix", "keep_metadata", "report")
        asked = {name: getattr(self, name) for name in names}
        asked |= {"title": METHODS[self.method].title, "profile": self.profile.name, "processes": processes}
        return dict(json.loads(json.dumps(asked | {"set": dict(self.settings)})))

    def crafting(self, images: ImageSet) -> dict[str, Any]:
        """Settings for `craft`, of these squares."""
        size = fitted_to(self.profile, images)
        if self.budget is None:  # bounded in another way, which knows no epsilon
            return {**size.noise[self.method], **self.settings, "seed": self.seed}
        settings = verdict.crafting(self.method, images, size)
        return settings | dict(self.settings) | {"seed": self.seed, "epsilon": self.budget / 255}


def request(
    photos: str | Path,
    out: str | Path,
    *,
    method: str,
    budget: int | None,
    size: int,
    profile: str | None,
    seed: int,
    seeds: int,
    webp: bool,
    keep_metadata: bool,
    report: bool,
    settings: Mapping[str, Any] | None,
    device: torch.device | str | None,
) -> Request:
    """The arguments of `protect`, or a `ValueError` that says which cannot be used."""
    for name, path in (("photos", photos), ("out", out)):
        if not isinstance(path, str | Path) or not str(path):
            raise bad(name, repr(path), "the path of a folder")
    source, target = (Path(path).expanduser().resolve() for path in (photos, out))
    if not source.is_dir():
        raise bad("photos", repr(str(photos)), "the path of a folder that exists")
    if _lies_in(target, source) or _lies_in(source, target):
        raise bad("out", repr(str(out)), f"a folder neither in {str(photos)!r} nor around it: nothing is written there")
    device = default_device() if device is None else _device(device)
    return Request(
        photos=source,
        out=target,
        method=check_choice("method", method, METHODS),
        budget=_budget(method, budget),
        size=check_count("size", size, 8, 1024),
        profile=profile_called(profile or ("gpu" if device.type == "cuda" else "cpu")),
        seed=check_count("seed", seed, 0),
        seeds=check_count("seeds", seeds, 2 if report else 1),  # one tells nothing of how much seeds differ
        suffix=".webp" if check_flag("webp", webp) else ".png",
        keep_metadata=check_flag("keep_metadata", keep_metadata),
        report=check_flag("report", report),
        settings=_settings(method, settings or {}),
        device=device,
    )


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether it is, or is in, this folder, however it is called there: in another case, say, or as a bind mount."""
    there = filter(os.path.exists, (path, *path.parents))
    return folder.exists() and any(folder.samefile(parent) for parent in there)


def _device(name: torch.device | str) -> torch.device:
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # no such device, not here, or not in this build
        raise bad("device", f"{str(name)!r} ({str(error).splitlines()[0]})", "a device of this machine") from error
    return device


def _budget(method: str, budget: int | None) -> int | None:
    if METHODS[method].norm == "L∞":
        return 8 if budget is None else check_count("budget", budget, 1, 255)
    if budget is not None:
        norm = METHODS[method].norm
        bound = "not bounded at all" if norm == "none" else f"bounded in {norm}"
        raise bad("budget", budget, f"none: {method} is {bound}, not by how far a pixel moves")
    return None


def _settings(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    known = [name for name in METHODS[method].settings if name not in _OWN]
    for name in settings:
        if name not in known:
            expected = "one of " + ", ".join(known) if known else f"none: {method} has no such settings"
            raise bad("settings", repr(name), expected)
        if not (settings[name] is None or isinstance(settings[name], bool | int | float | str)):
            raise bad(f"settings[{name!r}]", repr(settings[name]), "a number, True, False, a word or None")
    return dict(settings)


def state(out: Path) -> str:
    """ "new", "begun" or "finished": what the folder `out` is. Raises `ValueError` if it may not be written into."""
    if not out.exists() and not out.is_symlink():
        above = next(folder for folder in out.parents if os.path.exists(folder))
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise bad("out", repr(str(out)), "a folder that can be written into")
        return "new"
    expected = "a new or empty folder, or one that this command began"
    if not out.is_dir():
        raise bad("out", repr(str(out)), expected)
    if (out / FOLDER).is_symlink():
        raise bad("out", f"{str(out)!r}, whose {FOLDER} is a link", expected)
    if (out / MANIFEST).exists():
        manifest(out)
        return "finished"
    if (out / FOLDER / BEGUN).is_file():
        return "begun"
    there = sorted(path.name for path in out.iterdir() if path.name not in _OF_VIEWERS)
    if there and (there != [FOLDER] or not (out / FOLDER).is_dir()):
        raise bad("out", f"{str(out)!r}, in which there is {there[0]!r}", expected)
    return "new"


def manifest(out: Path) -> dict[str, Any]:
    """That of a finished output. Raises `ValueError` for a file of that name that is none."""
    try:
        found = json.loads((out / MANIFEST).read_bytes())
        if found["format"] == FORMAT:
            return dict(found)
    except (ValueError, KeyError, TypeError):
        pass
    raise bad("out", f"{str(out)!r}, with a {MANIFEST} that is not this command's", "a new or empty folder")


def check_same(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless what was asked for, or began it, is what is now; the message names what differs."""
    differ = [
        f"{name} {before.get(name)!r}, here {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if differ:
        given = f"{str(out)!r}, made with other settings ({'; '.join(differ)})"
        raise bad("out", given, "a new or empty folder, or the settings that it was begun with")


def versions() -> dict[str, str]:
    """Of what decides the bytes of the output."""
    from .. import __version__

    return {"miue_lib": __version__, "torch": torch.__version__, "pillow": version("pillow")}
