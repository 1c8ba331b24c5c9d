"""A tree of anyone's pictures, `class/picture.*`, as arrays.

Every picture becomes RGB of one size: EXIF rotation is applied, transparency is laid on white, 16-bit values are
scaled to 8, of an animation the first frame is taken; then the shorter side is resized (bicubic) and the middle is
cut out. A file that cannot be read is left out and listed by name in one warning.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ._errors import bad, check_count, check_number

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
Part = tuple[Tensor, Tensor, tuple[str, ...]]


def read_tree(path: Path, size: int, test_fraction: float | None, seed: int | None) -> tuple[Part, Part]:
    """Training and test part of the tree at `path`, each `(images, labels, classes)`: uint8 `(N, 3, size, size)`,
    int64 `(N,)`, the folder names in sorted order.

    `path/train` and `path/test` are the parts where both are there; else `round(test_fraction · n)` pictures of every
    class of n, at least one, drawn with `seed`, are the test part (None: 1/6, seed 0).

    Raises `ValueError` for a path that is not a folder, one without class folders, a class without readable pictures
    (or too few to split), parts whose classes differ, or a split asked for where the folders are one.
    """
    check_count("size", size)
    if not path.is_dir():
        raise bad("name", f"'folder:{path}'", "the path of a folder that exists")
    if (path / "train").is_dir() and (path / "test").is_dir():
        for option, value in (("test_fraction", test_fraction), ("seed", seed)):
            if value is not None:
                raise bad(option, repr(value), f"no {option}: 'folder:{path}' has a train and a test folder")
        train, test = _read(path / "train", size), _read(path / "test", size)
        if train[2] != test[2]:
            differ = sorted(set(train[2]) ^ set(test[2]))
            raise bad("name", f"'folder:{path}' with {differ} in one part only", "the same classes in train and test")
        return train, test
    test_fraction = (
        1 / 6 if test_fraction is None else check_number("test_fraction", test_fraction, 0, 0.9, open_low=True)
    )
    seed = 0 if seed is None else check_count("seed", seed, 0)
    images, labels, classes = _read(path, size)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for label, title in enumerate(classes):
        members = (labels == label).nonzero()[:, 0]
        if len(members) < 2:
            raise bad("name", f"class {title!r} with one readable picture", "two or more, to train and to test on")
        count = min(max(1, round(test_fraction * len(members))), len(members) - 1)
        held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return (images[~held_out], labels[~held_out], classes), (images[held_out], labels[held_out], classes)


def _read(path: Path, size: int) -> Part:
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise bad("name", f"'folder:{path}' without sub-folders", "a tree class/picture.*")
    files = [
        (label, file)
        for label, folder in enumerate(folders)
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in SUFFIXES and file.is_file()
    ]
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
        decoded = list(pool.map(lambda entry: _decode(entry[1], size), files))
    unreadable = [
        f"{file.relative_to(path)} ({why})"
        for (_, file), why in zip(files, decoded, strict=True)
        if isinstance(why, str)
    ]
    if unreadable:
        warnings.warn(
            f"left out {len(unreadable)} unreadable of {len(files)} files: " + "; ".join(unreadable), stacklevel=4
        )
    kept = [(label, pixels) for (label, _), pixels in zip(files, decoded, strict=True) if not isinstance(pixels, str)]
    labels = torch.tensor([label for label, _ in kept], dtype=torch.int64)
    empty = [folder.name for label, folder in enumerate(folders) if not (labels == label).any()]
    if empty:
        raise bad(
            "name",
            f"'folder:{path}' with no readable picture directly in {empty}",
            f"{', '.join(sorted(SUFFIXES))} files in every class folder",
        )
    images = torch.from_numpy(np.stack([pixels for _, pixels in kept])).permute(0, 3, 1, 2).contiguous()
    return images, labels, tuple(folder.name for folder in folders)


def _decode(file: Path, size: int) -> np.ndarray | str:
    """The picture as uint8 `(size, size, 3)`, or why it could not be read."""
    try:
        with Image.open(file) as picture:
            rgb = _to_rgb(ImageOps.exif_transpose(picture))
        return np.asarray(ImageOps.fit(rgb, (size, size), Image.Resampling.BICUBIC))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # all that Pillow's readers raise
        return f"{type(error).__name__}: {error}".replace(str(file), file.name)


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
        picture = Image.fromarray((np.asarray(picture).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    if "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")
