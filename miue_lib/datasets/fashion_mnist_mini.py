"""Makes `fashion_mnist_mini.npz` from the public Fashion-MNIST files (Xiao, Rasul and Vollgraf 2017, MIT licence).

    python -m miue_lib.datasets.fashion_mnist_mini FOLDER_WITH_THE_FOUR_GZ_FILES

The first 1,000 training and the first 200 test pictures of each class, in the order of the files.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
from pathlib import Path

import numpy as np

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
PER_CLASS = {"train": 1000, "t10k": 200}


# SHA-256 of the unpacked files: distributions pack them anew, which changes the .gz but not what is in it.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def _read(path: Path, header: int) -> np.ndarray:
    unpacked = gzip.decompress(path.read_bytes())
    if hashlib.sha256(unpacked).hexdigest() != SHA256[path.stem]:
        sys.exit(f"{path}: not the published file (SHA-256 of its content differs from {SHA256[path.stem]})")
    return np.frombuffer(unpacked, np.uint8, offset=header)


def make(source: Path, target: Path) -> None:
    """Write the subset of the files in `source` to `target`, beside it first and then renamed."""
    arrays: dict[str, np.ndarray] = {"classes": np.array(CLASSES)}
    for stem, count in PER_CLASS.items():
        images = _read(source / f"{stem}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = _read(source / f"{stem}-labels-idx1-ubyte.gz", 8)
        chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(len(CLASSES))]))
        part = "train" if stem == "train" else "test"
        arrays |= {f"{part}_images": images[chosen], f"{part}_labels": labels[chosen]}
    beside = target.with_suffix(".part.npz")
    np.savez_compressed(beside, allow_pickle=False, **arrays)
    os.replace(beside, target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(Path(sys.argv[1]), Path(__file__).with_suffix(".npz"))
