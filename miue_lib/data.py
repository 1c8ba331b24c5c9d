"""Pictures in: the `ImageSet` that everything passes around, and `load`, which makes one from a name or a folder.

Pictures stay uint8, as they are published; `ImageSet.floats` turns a batch into pixel values in [0, 1] when a model
wants it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ._errors import bad, check_choice, check_count
from .download import fetch
from .folder import read_tree
from .kernels.crop_flip import pixel_values

if TYPE_CHECKING:
    from .perturbation import Perturbation

DATASETS = ("fashion-mnist-mini", "fashion-mnist", "cifar10", "cifar100")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled pictures.

    images: uint8 `(N, C, H, W)`, not to be written into afterwards; a float array is accepted when every value is
        finite and in [0, 1], and is rounded to the 256 levels of a stored picture.
    labels: int64 `(N,)`, in [0, len(classes)).
    classes: the class names; by default "0", "1", … up to the largest label.
    name: what the set is called in messages and tables.

    Raises `ValueError` for any other shape, type, range or count.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...] = ()
    name: str = "pictures"

    def __post_init__(self) -> None:
        images = _as_uint8(torch.as_tensor(self.images))
        labels = torch.as_tensor(self.labels)
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise bad("labels", f"dtype {labels.dtype}", "whole numbers")
        if labels.shape != (len(images),):
            raise bad("labels", f"shape {tuple(labels.shape)}", f"one label a picture: ({len(images)},)")
        labels = labels.to(device=images.device, dtype=torch.int64)
        low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, -1)
        classes = tuple(self.classes) or tuple(str(c) for c in range(high + 1))
        if low < 0 or high >= len(classes):
            raise bad("labels", f"values from {low} to {high}", f"values from 0 to {len(classes) - 1}")
        for field, value in (("images", images), ("labels", labels), ("classes", classes)):
            object.__setattr__(self, field, value)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        n, c, h, w = self.images.shape
        return f"ImageSet({self.name!r}, {n:,} pictures of {c}×{h}×{w}, {len(self.classes)} classes, {self.device})"

    @property
    def device(self) -> torch.device:
        return self.images.device

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the pictures and labels (shape included, names not): tells two sets apart wherever they lie."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for part in (self.images, self.labels):
            digest.update(np.ascontiguousarray(part.cpu().numpy()).data)
        return digest.hexdigest()

    def floats(self, index: Tensor | slice = slice(None)) -> Tensor:
        """The chosen pictures as float32 `(n, C, H, W)` pixel values in [0, 1]."""
        return pixel_values(self.images[index])

    def subset(self, index: Tensor | Sequence[int] | slice) -> ImageSet:
        """The chosen pictures with their labels, as a set of its own."""
        chosen = index
        if not isinstance(index, slice):
            chosen = torch.as_tensor(index, device=self.device)
            chosen = chosen if len(chosen) else chosen.long()  # an empty list would become a tensor of floats
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def balanced(self, n: int) -> ImageSet:
        """The first ⌊n/K⌋ pictures of each of the K classes, in their order. Raises `ValueError` if one has fewer."""
        each = check_count("n", n) // max(1, len(self.classes))
        members = [(self.labels == c).nonzero()[:, 0] for c in range(len(self.classes))]
        fewest = min(map(len, members), default=0)
        if not 1 <= each <= fewest:
            k = len(self.classes)
            raise bad("n", n, f"from {k} to {k * fewest}: each of {k} classes has at least {fewest} pictures")
        return self.subset(torch.cat([places[:each] for places in members]).sort().values)

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def with_(self, perturbation: Perturbation) -> ImageSet:
        """The published pictures: these plus the perturbation made for them, still 8-bit, labels untouched.

        Raises `ValueError` if the perturbation was made for other pictures.
        """
        self.check_owner(perturbation)
        published = torch.empty_like(self.images)
        for start in range(0, len(self), rows := max(1, (1 << 22) // self.images[0].numel())):
            part = slice(start, start + rows)  # in parts: 16-bit copies of everything might not fit
            changed = self.images[part].to(torch.int16) + perturbation.levels[part].to(self.device)
            if int(changed.min()) < 0 or int(changed.max()) > 255:
                raise bad("perturbation", "noise that leaves [0, 255]", "noise that keeps every pixel in [0, 255]")
            published[part] = changed
        return replace(self, images=published, name=f"{self.name} + {perturbation.method}")

    def check_owner(self, perturbation: Perturbation) -> None:
        """Raise `ValueError` unless the perturbation was made for these pictures."""
        if perturbation.fingerprint != self.fingerprint:
            raise bad(
                "perturbation",
                f"noise made for other pictures (fingerprint {perturbation.fingerprint[:12]}…)",
                f"noise made for {self.name!r} (fingerprint {self.fingerprint[:12]}…)",
            )
        if perturbation.levels.shape != self.images.shape:
            given = f"noise of shape {tuple(perturbation.levels.shape)}"
            raise bad("perturbation", given, f"the pictures' shape {tuple(self.images.shape)}")


def _as_uint8(images: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise bad("images", f"shape {tuple(images.shape)}", "shape (N, C, H, W) with C = 1 or 3")
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise bad("images", f"dtype {images.dtype}", "uint8, or floating point with values in [0, 1]")
    if not bool(torch.isfinite(images).all()):
        raise bad("images", "NaN or infinite values", "pixel values in [0, 1]")
    if images.numel() and (float(images.min()) < 0 or float(images.max()) > 1):
        given = f"values from {float(images.min()):.4g} to {float(images.max()):.4g}"
        raise bad("images", given, "pixel values in [0, 1]")
    return images.mul(255).round_().to(torch.uint8)


def default_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(
    name: str,
    *,
    root: str | Path | None = None,
    size: int | None = None,
    test_fraction: float | None = None,
    seed: int | None = None,
    device: torch.device | str | None = None,
) -> tuple[ImageSet, ImageSet]:
    """The training and the test pictures called `name`, on `device` (by default the GPU where there is one).

    name:
        - `"fashion-mnist-mini"`: 1,000 training and 200 test pictures of each Fashion-MNIST class (Xiao, Rasul and
          Vollgraf 2017), shipped with the library: needs no network.
        - `"fashion-mnist"`, `"cifar10"`, `"cifar100"`: the full sets, read by torchvision; downloaded to `root`
          (by default `~/.cache/miue_lib`) if they are not there, with mirrors, a checksum, and resuming.
        - `"folder:PATH"`: your own `class/picture.*` tree (JPEG, PNG, WebP; see `miue_lib.folder`). With `PATH/train`
          and `PATH/test` those are the two sets; else `test_fraction` (default 1/6) of every class, drawn with `seed`
          (default 0), is held out.
    size: for a folder, the side in pixels to which pictures are resized and centre-cropped (default 32).

    Raises `ValueError` for an unknown name, a path that is not there, or an option that does not apply.
    """
    device = torch.device(device) if device is not None else default_device()
    folder = isinstance(name, str) and name.startswith("folder:")
    check_choice("name", "folder:PATH" if folder else name, (*DATASETS, "folder:PATH"))
    only_folders = {"size": size, "test_fraction": test_fraction, "seed": seed}
    only_downloads = {"root": root}
    for option, value in (only_downloads if folder else only_folders).items():
        if value is not None:
            raise bad(option, repr(value), f"no {option}: it means nothing for {name!r}")
    if folder:
        if name == "folder:":
            raise bad("name", repr(name), "'folder:PATH', with a path")
        path = Path(name.removeprefix("folder:")).expanduser()
        parts = read_tree(path, 32 if size is None else size, test_fraction, seed)
        train, test = (ImageSet(*part, f"{path.name} {of}") for part, of in zip(parts, ("train", "test"), strict=True))
        return train.to(device), test.to(device)
    if name == "fashion-mnist-mini":
        train, test = _embedded(name)
    else:
        train, test = _torchvision(name, Path(root).expanduser() if root else Path.home() / ".cache" / "miue_lib")
    return train.to(device), test.to(device)


def _embedded(name: str) -> tuple[ImageSet, ImageSet]:
    file = resources.files("miue_lib.datasets") / f"{name.replace('-', '_')}.npz"
    with resources.as_file(file) as path, np.load(path, allow_pickle=False) as arrays:
        classes = tuple(str(c) for c in arrays["classes"])
        train, test = (
            ImageSet(
                torch.from_numpy(arrays[f"{part}_images"][:, None]),
                torch.from_numpy(arrays[f"{part}_labels"]),
                classes,
                f"{name} {part}",
            )
            for part in ("train", "test")
        )
    return train, test


def _torchvision(name: str, root: Path) -> tuple[ImageSet, ImageSet]:
    from torchvision import datasets  # slow to import, and not needed for the embedded set

    reader: Any = {"fashion-mnist": datasets.FashionMNIST, "cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[
        name
    ]
    try:
        raws = [reader(str(root), train=part == "train") for part in ("train", "test")]
    except RuntimeError:  # torchvision's word for files that are missing or whose checksums are wrong
        fetch(name, root)
        # With the archives in place this unpacks them, checks each file and downloads nothing.
        raws = [reader(str(root), train=part == "train", download=True) for part in ("train", "test")]
    parts = []
    for raw, part in zip(raws, ("train", "test"), strict=True):
        pixels = torch.as_tensor(raw.data)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
        parts.append(ImageSet(pixels, torch.as_tensor(raw.targets), tuple(raw.classes), f"{name} {part}"))
    return parts[0], parts[1]
