"""What a victim does to stored pictures: equal to Pillow, picture by picture."""

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional

import miue_lib as mi
from miue_lib.defenses.pictures import bit_depth, grayscale, jpeg

QUALITIES = (90, 70, 50, 30, 10)


def by_pillow(images: torch.Tensor, change: Callable[[Image.Image], Image.Image]) -> torch.Tensor:
    """What `change` makes of each of `images` `(N, C, H, W)`."""
    changed = []
    for picture in images:
        pixels = picture.permute(1, 2, 0).numpy()
        result = np.array(change(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)))
        changed.append(torch.from_numpy(result).view(*result.shape[:2], -1).permute(2, 0, 1))
    return torch.stack(changed)


def through_a_file(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=quality)
    return Image.open(file)


def pictures(images: torch.Tensor) -> mi.ImageSet:
    return mi.ImageSet(images, torch.arange(len(images)) % 2, ("a", "b"), "some")


def random_rgb(n: int = 40, height: int = 32, width: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)


def smooth_rgb(n: int = 40) -> torch.Tensor:
    """Ramps of other slopes in each channel and picture: what a codec keeps, where noise is what it discards."""
    generator = torch.Generator().manual_seed(1)
    slopes = torch.rand((n, 3, 2, 1, 1), generator=generator)
    ramp = torch.arange(32.0)
    return (4 * (slopes[:, :, 0] * ramp[:, None] + slopes[:, :, 1] * ramp)).to(torch.uint8)  # at most 4 · 62 = 248


@pytest.mark.parametrize("quality", QUALITIES)
def test_jpeg_is_pillows(quality: int) -> None:
    train, _ = mi.load("fashion-mnist-mini", device="cpu")
    odd = random_rgb(4, 17, 5)
    for images in (train.images[::50], random_rgb(), smooth_rgb(), odd, odd[:, :1], odd[:, :, :1, :1]):
        expected = by_pillow(images, partial(through_a_file, quality=quality))
        assert torch.equal(jpeg(pictures(images), quality=quality).images, expected)


def test_a_coarser_jpeg_keeps_less() -> None:
    images = pictures(smooth_rgb())
    errors = [(jpeg(images, quality=q).floats() - images.floats()).square().mean() for q in QUALITIES]
    assert errors == sorted(errors)
    assert errors[0] > 0


def test_grayscale_is_pillows_and_not_torchvisions() -> None:
    # Every level of a channel beside random ones of the others, and noise.
    levels = random_rgb(1, 3 * 256, 4)
    for channel in range(3):
        rows = slice(256 * channel, 256 * (channel + 1))
        levels[0, channel, rows] = torch.arange(256, dtype=torch.uint8)[:, None]
    for images in (random_rgb(), smooth_rgb(), levels):
        grey = grayscale(pictures(images)).images
        assert torch.equal(grey[:, :1], by_pillow(images, lambda picture: picture.convert("L")))
        assert torch.equal(grey, grey[:, :1].expand(-1, 3, -1, -1))
    # torchvision rounds down: never brighter, never by two levels, and for about half of random colours by one.
    theirs = functional.rgb_to_grayscale(random_rgb(), 3).int()
    lower = grayscale(pictures(random_rgb())).images.int() - theirs
    assert lower.unique().tolist() == [0, 1]
    assert lower[:, 0].float().mean() == pytest.approx(0.5, abs=0.05)


def test_grey_pictures_are_grey_already(tiny: mi.ImageSet) -> None:
    assert torch.equal(grayscale(tiny).images, tiny.images)
    same = tiny.images.expand(-1, 3, -1, -1)
    assert torch.equal(grayscale(pictures(same)).images, same)  # the weights sum up to 65536


@pytest.mark.parametrize("bits", range(1, 9))
def test_bit_depth_is_pillows(bits: int, tiny: mi.ImageSet) -> None:
    for images in (tiny.images, random_rgb()):
        coarse = bit_depth(pictures(images), bits=bits).images
        assert torch.equal(coarse, by_pillow(images, lambda picture: ImageOps.posterize(picture, bits)))
        assert len(coarse.unique()) == 2**bits  # of 13,824 random pixels or more, no level is missing
        assert int((images - coarse).max()) == 2 ** (8 - bits) - 1


DEFENCES = [(jpeg, "JPEG 10"), (partial(jpeg, quality=70), "JPEG 70"), (grayscale, "grey"), (bit_depth, "2 bits"),
            (partial(bit_depth, bits=1), "1 bit")]  # fmt: skip


@pytest.mark.parametrize(("defence", "title"), DEFENCES)
def test_every_picture_by_itself_and_nothing_else_changes(defence: Any, title: str) -> None:
    images = pictures(random_rgb(9))
    before = images.images.clone()
    changed = defence(images)
    assert torch.equal(images.images, before)
    assert not torch.equal(changed.images, before)
    assert (changed.name, changed.classes) == (f"some, {title}", images.classes)
    assert torch.equal(changed.labels, images.labels)
    assert (changed.images.dtype, changed.device) == (torch.uint8, images.device)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(defence(images.subset(order)).images, changed.images[order])
    assert torch.equal(defence(images.subset([4])).images[0], changed.images[4])
    # As they lie in memory after permute, of arrays (N, H, W, C).
    strided = images.images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(defence(pictures(strided)).images, changed.images)


@pytest.mark.parametrize("defence", [jpeg, grayscale, bit_depth])
def test_a_graphics_card_gets_its_pictures_back(defence: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    images = pictures(random_rgb(9))
    changed = defence(images.to("cuda"))
    assert changed.device.type == "cuda"
    assert torch.equal(changed.images.cpu(), defence(images).images)


def test_more_pictures_than_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = grayscale(pictures(random_rgb(9)))
    monkeypatch.setattr("miue_lib.defenses.pictures._ROWS", 2 * 3 * 32 * 32)
    assert torch.equal(grayscale(pictures(random_rgb(9))).images, whole.images)


@pytest.mark.parametrize("defence", [jpeg, grayscale, bit_depth])
def test_what_is_no_set_of_pictures_is_refused(defence: Any, tiny: mi.ImageSet) -> None:
    with pytest.raises(ValueError, match=r"images: got Tensor, expected an ImageSet"):
        defence(tiny.images)
    with pytest.raises(ValueError, match=r"images: got shape \(0, 1, 12, 12\), expected one picture or more"):
        defence(tiny.subset([]))


@pytest.mark.parametrize(
    ("defence", "message"),
    [
        (partial(jpeg, quality=0), r"quality: got 0, expected a whole number from 1 to 100"),
        (partial(jpeg, quality=101), r"quality: got 101, expected a whole number from 1 to 100"),
        (partial(jpeg, quality=10.0), r"quality: got 10\.0, expected a whole number"),
        (partial(bit_depth, bits=0), r"bits: got 0, expected a whole number from 1 to 8"),
        (partial(bit_depth, bits=9), r"bits: got 9, expected a whole number from 1 to 8"),
        (partial(bit_depth, bits=True), r"bits: got True, expected a whole number"),
    ],
)
def test_settings_out_of_range_are_refused(defence: Any, message: str, tiny: mi.ImageSet) -> None:
    with pytest.raises(ValueError, match=message):
        defence(tiny)
