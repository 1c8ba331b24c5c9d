"""Anyone's pictures: every kind that occurs is read, and what cannot be read is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import miue_lib as mi


def picture(seed: int = 0, shape: tuple[int, ...] = (20, 30, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def tree(root: Path, count: int = 6) -> Path:
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(picture(i)).save(root / name / f"{i:02}.png")
    return root


def read(path: Path, **options: object) -> mi.ImageSet:
    """Both parts together, in order of class and name: what was read, without the split."""
    parts = mi.load(f"folder:{path}", device="cpu", **options)  # type: ignore[arg-type]
    return mi.ImageSet(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]), parts[0].classes)


def test_a_tree_is_split_within_each_class_and_by_seed(tmp_path: Path) -> None:
    path = tree(tmp_path / "pets")
    train, test = mi.load(f"folder:{path}", size=16, test_fraction=1 / 3, device="cpu")
    assert train.images.shape == (8, 3, 16, 16)
    assert torch.bincount(test.labels).tolist() == [2, 2]
    assert train.classes == ("cats", "dogs")
    assert train.name == "pets train"
    again, _ = mi.load(f"folder:{path}", size=16, test_fraction=1 / 3, device="cpu")
    assert again.fingerprint == train.fingerprint
    other, _ = mi.load(f"folder:{path}", size=16, test_fraction=1 / 3, device="cpu", seed=3)
    assert other.fingerprint != train.fingerprint


def test_train_and_test_folders_are_the_split(tmp_path: Path) -> None:
    tree(tmp_path / "train", 3)
    tree(tmp_path / "test", 2)
    train, test = mi.load(f"folder:{tmp_path}", device="cpu")
    assert (len(train), len(test)) == (6, 4)
    (tmp_path / "test" / "newts").mkdir()
    Image.fromarray(picture()).save(tmp_path / "test" / "newts" / "a.png")
    with pytest.raises(ValueError, match=r"'newts'.* in one part only, expected the same classes"):
        mi.load(f"folder:{tmp_path}")


def middle(path: Path, image: Image.Image, name: str, **save: object) -> np.ndarray:
    """What the picture becomes when it is read back at its own size."""
    folder = path / "a"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    image.save(folder / name, **save)
    Image.new("RGB", image.size, "red").save(folder / "zz.png")
    return read(path, size=image.size[0]).images[:, :].permute(0, 2, 3, 1).numpy()


def has(pictures: np.ndarray, wanted: np.ndarray) -> bool:
    return any(np.array_equal(p, wanted) for p in pictures)


def test_every_mode_becomes_rgb(tmp_path: Path) -> None:
    rgb, grey = picture(1, (8, 8, 3)), picture(2, (8, 8))
    assert has(middle(tmp_path, Image.fromarray(rgb), "a.png"), rgb)
    assert has(middle(tmp_path, Image.fromarray(rgb), "a.webp", lossless=True), rgb)
    assert has(middle(tmp_path, Image.fromarray(rgb), "A.PNG"), rgb)
    assert has(middle(tmp_path, Image.fromarray(grey), "a.png"), np.repeat(grey[:, :, None], 3, 2))
    # 16-bit grey: 257 is one level of 255, so multiples of it come back exactly.
    assert has(
        middle(tmp_path, Image.fromarray(grey.astype(np.uint16) * 257), "a.png"), np.repeat(grey[:, :, None], 3, 2)
    )
    alpha = np.concatenate([rgb, np.zeros((8, 8, 1), np.uint8)], 2)
    assert has(middle(tmp_path, Image.fromarray(alpha), "a.png"), np.full((8, 8, 3), 255, np.uint8))
    palette = Image.fromarray(rgb).quantize(16)
    assert has(middle(tmp_path, palette, "a.png"), np.asarray(palette.convert("RGB")))
    first = Image.fromarray(rgb)
    animated = middle(tmp_path, first, "a.webp", save_all=True, append_images=[Image.new("RGB", (8, 8))], lossless=True)
    assert has(animated, rgb)


def test_a_jpeg_turned_by_exif_is_turned_back(tmp_path: Path) -> None:
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8] = 255  # bright above
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90° clockwise to see it upright"
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    pictures = middle(tmp_path, turned, "a.jpg", exif=exif, quality=95).astype(int)
    bright_above = [p for p in pictures if p[:7].min() > 200 and p[9:].max() < 50]
    assert len(bright_above) == 1


def test_other_shapes_are_resized_and_the_middle_cut_out(tmp_path: Path) -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    folder = tmp_path / "a"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(wide).save(folder / f"{i}.png")
    assert int(read(tmp_path, size=10).images.min()) == 255


def test_unreadable_files_are_listed_and_left_out(tmp_path: Path) -> None:
    tree(tmp_path, 4)
    whole = (tmp_path / "cats" / "00.png").read_bytes()
    (tmp_path / "cats" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cats" / "empty.jpg").touch()
    (tmp_path / "dogs" / "words.webp").write_text("not a picture")
    (tmp_path / "dogs" / "notes.txt").write_text("not even called a picture")
    with pytest.warns(UserWarning, match="left out 3 unreadable of 11 files") as caught:
        assert len(read(tmp_path)) == 8
    said = str(caught[0].message)
    assert all(name in said for name in ("cats/cut.png", "cats/empty.jpg", "dogs/words.webp"))
    assert "notes.txt" not in said


def test_a_split_under_other_names_is_not_taken_for_classes(tmp_path: Path) -> None:
    tree(tmp_path / "train", 2)
    tree(tmp_path / "val", 2)
    with pytest.raises(ValueError, match=r"no readable picture directly in \['train', 'val'\]"):
        mi.load(f"folder:{tmp_path}")


def test_a_split_cannot_be_asked_for_where_the_folders_are_one(tmp_path: Path) -> None:
    tree(tmp_path / "train", 2)
    tree(tmp_path / "test", 2)
    with pytest.raises(ValueError, match=r"test_fraction: got 0\.5, expected no test_fraction: .* has a train and"):
        mi.load(f"folder:{tmp_path}", test_fraction=0.5)


@pytest.mark.parametrize("part", ["empty tree", "empty class", "one picture", "no size"])
def test_trees_that_cannot_be_used_are_refused(tmp_path: Path, part: str) -> None:
    size, expected = 32, "a tree class/picture"
    if part != "empty tree":
        tree(tmp_path, 2)
    if part == "empty class":
        (tmp_path / "newts").mkdir()
        expected = r"no readable picture directly in \['newts'\]"
    if part == "one picture":
        (tmp_path / "dogs" / "01.png").unlink()
        expected = "class 'dogs' with one readable picture, expected two or more"
    if part == "no size":
        size, expected = 0, "size: got 0, expected a whole number >= 1"
    with pytest.raises(ValueError, match=expected):
        mi.load(f"folder:{tmp_path}", size=size)
