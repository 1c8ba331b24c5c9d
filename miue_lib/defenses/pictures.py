"""What a victim may do to stored pictures before training, one picture at a time: compress, grey or coarsen them.

Each takes and gives 8-bit pictures, as a victim that reads files does. Labels, order, classes and device stay, and
what becomes of a picture depends on that picture alone.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from .._errors import bad, check_count
from ..data import ImageSet

_ROWS = 1 << 22  # pixels at once: nothing but memory depends on it


def jpeg(images: ImageSet, *, quality: int = 10) -> ImageSet:
    """The pictures after being stored as JPEG files, the compression of ISS (Liu, Zhao and Larson 2023).

    quality: of libjpeg, 1 to 100; theirs is 10. Transforms of 8 × 8 blocks are rounded to a grid that gets coarser
        for lower quality and higher frequency, and colour is kept at half the resolution.

    By Pillow, as theirs, in grey or RGB as the pictures are; those on a GPU are copied to the CPU for it and back.
    torchvision's `JPEG` has the same bits, but its codec is to be removed (deprecated in 0.29), and on a GPU it would
    be another one.

    Raises `ValueError` for no pictures or another quality.
    """
    check_pictures(images)
    check_count("quality", quality, 1, 100)
    # (H, W) or (H, W, 3), as Pillow wants them.
    pixels = images.images.cpu().permute(0, 2, 3, 1).squeeze(3).contiguous().numpy()
    with ThreadPoolExecutor() as pool:  # the codec releases the interpreter lock
        stored = np.stack(list(pool.map(lambda picture: through_a_file(picture, quality), pixels)))
    kept = torch.from_numpy(stored).view(len(images), *images.images.shape[2:], -1).permute(0, 3, 1, 2).contiguous()
    return replace(images, images=kept.to(images.device), name=f"{images.name}, JPEG {quality}")


def grayscale(images: ImageSet) -> ImageSet:
    """The pictures without their colour, the same grey in all three channels: of ISS too (Liu, Zhao and Larson 2023).

    Bit-equal to Pillow's `convert("L")`: 0.299 R + 0.587 G + 0.114 B, rounded to the nearest level. torchvision's
    `Grayscale` cuts off what is behind the point instead, so that half of the pixels come out a level darker.
    Pictures of one channel come back as they are.

    Raises `ValueError` for no pictures.
    """
    check_pictures(images)
    grey = images.images
    if grey.shape[1] == 3:
        grey = torch.empty_like(images.images)
        for start in range(0, len(images), rows := max(1, _ROWS // images.images[0].numel())):
            red, green, blue = images.images[start : start + rows].to(torch.int32).unbind(1)
            # Pillow's: the weights in 1/65536, and half of that to round.
            grey[start : start + rows] = ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16)[:, None]
    return replace(images, images=grey, name=f"{images.name}, grey")


def bit_depth(images: ImageSet, *, bits: int = 2) -> ImageSet:
    """The pictures with the highest `bits` of the 8 bits of every pixel; the others become 0.

    bits: 1 to 8; 8 keeps everything. Xu, Evans and Qi (2018) squeeze attacks at test time so, and Liu, Zhao and Larson
        (2023) compare it with ISS.

    Bit-equal to Pillow's `ImageOps.posterize`; it is torchvision's.

    Raises `ValueError` for no pictures or another number of bits.
    """
    check_pictures(images)
    check_count("bits", bits, 1, 8)
    from torchvision.transforms.v2 import functional  # slow to import

    name = f"{images.name}, {bits} bit{'s' if bits > 1 else ''}"
    return replace(images, images=functional.posterize(images.images, bits), name=name)


def through_a_file(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=quality)
    return np.asarray(Image.open(file))


def check_pictures(images: ImageSet) -> None:
    """Raise `ValueError` unless it is an `ImageSet` with a picture in it."""
    if not isinstance(images, ImageSet):
        raise bad("images", type(images).__name__, "an ImageSet")
    if images.images.numel() == 0:
        raise bad("images", f"shape {tuple(images.images.shape)}", "one picture or more")
