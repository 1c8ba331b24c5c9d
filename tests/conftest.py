"""Small pictures on which everything can be tried in a moment, and a device for Triton's kernels."""

import os

import pytest
import torch

# Without a GPU Triton's kernels run in its interpreter. It has to know before they are defined, on import.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

import miue_lib as mi
from miue_lib.kernels import _triton

# Pictures this small cost more in threads waiting for each other than in arithmetic.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> mi.ImageSet:
    """96 random 12 × 12 pictures in 3 classes, of uneven sizes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (96, 1, 12, 12), generator=generator, dtype=torch.uint8)
    labels = torch.tensor([0] * 50 + [1] * 29 + [2] * 17)
    return mi.ImageSet(images, labels, ("a", "b", "c"), "tiny")


@pytest.fixture(scope="session")
def easy() -> tuple[mi.ImageSet, mi.ImageSet]:
    """Training and test pictures of three classes that any model learns: a bright band whose height tells the class."""
    generator = torch.Generator().manual_seed(1)

    def make(n: int, name: str) -> mi.ImageSet:
        labels = torch.arange(n) % 3
        images = torch.rand((n, 1, 12, 12), generator=generator) * 0.4
        for row in range(4):
            images[torch.arange(n), 0, 4 * labels + row] += 0.5
        return mi.ImageSet(images, labels, name=name)

    return make(192, "bands train"), make(96, "bands test")


@pytest.fixture
def gpu() -> torch.device:
    """Where Triton's kernels run: a GPU, or the CPU that interprets them."""
    if not _triton.available:
        pytest.skip("Triton is not installed")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
