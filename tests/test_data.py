"""ImageSet and load: what goes in comes out, and what should not go in does not."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

import miue_lib as mi
import miue_lib.datasets.fashion_mnist_mini as mini


def test_embedded_set_is_the_one_that_was_made() -> None:
    train, test = mi.load("fashion-mnist-mini", device="cpu")
    assert train.images.shape == (10_000, 1, 28, 28)
    assert test.images.shape == (2_000, 1, 28, 28)
    assert torch.bincount(train.labels).tolist() == [1000] * 10
    assert torch.bincount(test.labels).tolist() == [200] * 10
    assert train.classes == mini.CLASSES
    folder = Path(mini.__file__).parent
    said = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    packed = (folder / "fashion_mnist_mini.npz").read_bytes()
    assert said["fashion_mnist_mini.npz"] == hashlib.sha256(packed).hexdigest()
    assert len(packed) <= 6e6
    # The content, which does not depend on how a version of zlib packs it.
    assert train.fingerprint == "38d7a5f6061a794e00e7ba7f0c9710c4b41d8079169726dcec651e00f46e97d0"
    assert test.fingerprint == "e356fcfc59e1bb28d5709b2e8d2844e1adfd8a32a07e4cee3372435d4eae39df"


def test_floats_are_rounded_to_the_nearest_level() -> None:
    values = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0]).view(1, 1, 2, 2)
    images = mi.ImageSet(values, torch.tensor([0]))
    assert images.images.flatten().tolist() == [0, 0, 1, 255]
    assert images.floats().flatten().tolist() == pytest.approx([0, 0, 1 / 255, 1])


def test_numpy_goes_in() -> None:
    images = mi.ImageSet(np.zeros((2, 3, 4, 4), np.uint8), np.array([0, 1]))  # type: ignore[arg-type]
    assert images.labels.dtype == torch.int64
    assert images.classes == ("0", "1")


def test_fingerprint_tells_pictures_and_labels_but_not_names(tiny: mi.ImageSet) -> None:
    def same(other: mi.ImageSet) -> bool:
        return other.fingerprint == tiny.fingerprint

    assert same(mi.ImageSet(tiny.images.clone(), tiny.labels.int(), tiny.classes, "another name"))
    changed = tiny.images.clone()
    changed[0, 0, 0, 0] ^= 1
    assert not same(mi.ImageSet(changed, tiny.labels, tiny.classes))
    assert not same(mi.ImageSet(tiny.images, tiny.labels.roll(1), tiny.classes))
    assert not same(mi.ImageSet(tiny.images.transpose(2, 3).reshape(96, 1, 6, 24), tiny.labels, tiny.classes))


def test_subset_keeps_pictures_and_labels_together(tiny: mi.ImageSet) -> None:
    part = tiny.subset([80, 3])
    assert part.labels.tolist() == [2, 0]
    assert torch.equal(part.images[0], tiny.images[80])
    assert part.classes == tiny.classes


def good() -> torch.Tensor:
    return torch.full((3, 1, 4, 4), 0.5)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (good().fill_(torch.nan), [0, 1, 0], r"images: got NaN or infinite values, expected pixel values in \[0, 1\]"),
        (good() * 3, [0, 1, 0], r"images: got values from 1.5 to 1.5, expected pixel values in \[0, 1\]"),
        (good() - 1, [0, 1, 0], r"images: got values from -0.5"),
        (good()[:, 0], [0, 1, 0], r"images: got shape \(3, 4, 4\), expected shape \(N, C, H, W\)"),
        (good().expand(3, 2, 4, 4), [0, 1, 0], r"images: got shape \(3, 2, 4, 4\)"),
        (good().to(torch.int32), [0, 1, 0], r"images: got dtype torch.int32, expected uint8"),
        (good(), [0, 1], r"labels: got shape \(2,\), expected one label a picture: \(3,\)"),
        (good(), [0, 5, 0], r"labels: got values from 0 to 5, expected values from 0 to 1"),
        (good(), [0, -1, 0], r"labels: got values from -1 to 0"),
        (good(), [0.0, 1.0, 0.0], r"labels: got dtype torch.float32, expected whole numbers"),
    ],
)
def test_bad_pictures_and_labels_are_refused(images: torch.Tensor, labels: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mi.ImageSet(images, torch.tensor(labels), ("a", "b"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist", "name: got 'mnist', expected one of 'fashion-mnist-mini'"),
        (3, "name: got 3, expected one of"),
        ("folder:/no/such/folder", "name: got 'folder:/no/such/folder', expected the path of a folder that exists"),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mi.load(name)


@pytest.mark.parametrize("option", [{"size": 64}, {"test_fraction": 0.5}, {"seed": 3}])
def test_options_are_refused_where_they_mean_nothing(option: dict) -> None:
    (name, value) = next(iter(option.items()))
    with pytest.raises(ValueError, match=f"{name}: got {value}, expected no {name}"):
        mi.load("fashion-mnist-mini", **option)
    with pytest.raises(ValueError, match=r"root: got 'x', expected no root"):
        mi.load("folder:anywhere", root="x")


def test_noise_of_another_shape_is_not_spread_over_the_pictures(tiny: mi.ImageSet) -> None:
    one = torch.zeros((1, 1, 12, 12), dtype=torch.int16)
    noise = mi.Perturbation(one, 8 / 255, "test", {}, tiny.fingerprint)
    with pytest.raises(ValueError, match=r"perturbation: got noise of shape \(1, 1, 12, 12\), expected the pictures'"):
        tiny.with_(noise)


def test_an_empty_choice_is_an_empty_set(tiny: mi.ImageSet) -> None:
    assert len(tiny.subset([])) == 0


def test_balanced_takes_the_first_of_each_class(tiny):
    shuffled = tiny.subset(torch.randperm(96, generator=torch.Generator().manual_seed(0)))
    few = shuffled.balanced(48)
    assert torch.bincount(few.labels).tolist() == [16, 16, 16]
    places = [(shuffled.labels == c).nonzero()[:16, 0] for c in range(3)]
    assert torch.equal(few.images, shuffled.images[torch.cat(places).sort().values])
    for n in (2, 54, 0):
        with pytest.raises(ValueError, match="n: got "):
            shuffled.balanced(n)
    with pytest.raises(ValueError, match="n: got 2, expected from 3 to 51: each of 3 classes has at least 17 pictures"):
        shuffled.balanced(2)
