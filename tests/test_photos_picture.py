"""One picture in and out: pixels are those that Pillow shows, files are lossless, and nothing else comes out."""

import io
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from miue_lib.photos.picture import MOST_PIXELS, WEBP_SIDE, Picture, Unreadable, encode, read

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
HEIGHT, WIDTH = 13, 17


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    """Pillow warns of odd files; none of it may come out. Every warning is an error in each of these tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def levels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


RGB, GREY, RGBA = levels(HEIGHT, WIDTH, 3), levels(HEIGHT, WIDTH, seed=1), levels(HEIGHT, WIDTH, 4, seed=2)


def saved(picture: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def shown(data: bytes, mode: str = "RGB") -> np.ndarray:
    """The pixels as Pillow alone shows them, upright: `(H, W, C)`."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(ImageOps.exif_transpose(image).convert(mode))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, before: bytes = b"") -> bytes:
    """A PNG written by hand; `rows` are unfiltered (each begins with a zero byte)."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), before, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


def exif_of(orientation: int = 6, order: str = "<") -> bytes:
    """A TIFF block by hand: maker, orientation, and behind them another directory with a preview."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    maker = struct.pack(order + "HHI4s", 0x010F, 2, 4, b"abc\0")
    turn = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    first = struct.pack(order + "H", 2) + maker + turn + struct.pack(order + "I", 8 + 30)
    where = struct.pack(order + "HHII", 0x0201, 4, 1, 8 + 30 + 30)
    length = struct.pack(order + "HHII", 0x0202, 4, 1, 7)
    second = struct.pack(order + "H", 2) + where + length + struct.pack(order + "I", 0)
    return head + struct.pack(order + "I", 8) + first + second + b"PREVIEW"


def files() -> dict[str, bytes]:
    """A file of every kind: format, mode, transparency, metadata."""
    image, palette = Image.fromarray(RGB), Image.fromarray(RGB).quantize(13)
    about = {"exif": b"Exif\0\0" + exif_of(), "icc_profile": SRGB}
    return {
        "jpeg": saved(RGB, "JPEG", **about),
        "jpeg progressive": saved(RGB, "JPEG", progressive=True),
        "jpeg grey": saved(GREY, "JPEG"),
        "jpeg cmyk": saved(image.convert("CMYK"), "JPEG", icc_profile=cmyk_profile()),
        "mpo": saved(image, "MPO", save_all=True, append_images=[Image.fromarray(RGB[::-1].copy())]),
        "png": saved(RGB, "PNG", **about),
        "png grey": saved(GREY, "PNG"),
        "png 1 bit": saved(Image.fromarray(GREY).convert("1"), "PNG", transparency=0),
        "png 16 bit": saved(GREY.astype(np.uint16) * 257, "PNG"),
        "png la": saved(Image.fromarray(RGBA).convert("LA"), "PNG"),
        "png rgba": saved(RGBA, "PNG"),
        "png p": saved(palette, "PNG"),
        "png p index": saved(palette, "PNG", transparency=2),
        "png p bytes": saved(palette, "PNG", transparency=bytes(range(13))),
        "webp": saved(RGB, "WEBP", **about),
        "webp rgba": saved(RGBA, "WEBP", lossless=True, exact=True),
        "apng": saved(image, "PNG", save_all=True, append_images=[Image.fromarray(RGB[::-1].copy())]),
        "webp animated": saved(image, "WEBP", save_all=True, append_images=[Image.fromarray(RGB[::-1].copy())]),
    }


def cmyk_profile() -> bytes:
    """A CMYK profile by hand, in which only black ink counts: L* falls from 100 to 0 (ICC.1, 10.10: lut8Type)."""
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    ramp = bytes(range(256))
    table = (
        b"mft1"
        + bytes(4)
        + bytes([4, 3, 2, 0])
        + identity
        + ramp * 4
        + bytes([255, 128, 128, 0, 128, 128]) * 8
        + ramp * 3
    )
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
    head = struct.pack(">II", 144 + len(table), 0) + bytes([2, 0x40, 0, 0]) + b"prtrCMYKLab " + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)  # the connection space's white, D50
    return head.ljust(128, b"\0") + tags + table


FILES = files()


@pytest.mark.parametrize("name", [name for name in FILES if "anim" not in name and name not in ("apng", "jpeg cmyk")])
def test_pixels_are_those_that_pillow_shows(name: str) -> None:
    picture = read(FILES[name])
    grey = "grey" in name or "bit" in name or "la" in name
    height, width = (WIDTH, HEIGHT) if name in ("jpeg", "png", "webp") else (HEIGHT, WIDTH)  # these are turned
    assert picture.pixels.shape == (height, width, 1 if grey else 3)
    assert picture.pixels.dtype == np.uint8
    if name == "png 16 bit":  # Pillow's own conversion cuts at 255
        assert np.array_equal(picture.pixels[:, :, 0], GREY)
    else:
        assert np.array_equal(picture.pixels, shown(FILES[name], "L" if grey else "RGBA")[:, :, :3])
    if picture.alpha is None:
        assert not any(word in name for word in ("la", "rgba", "index", "bytes", "1 bit"))
    else:
        assert np.array_equal(picture.alpha, shown(FILES[name], "RGBA")[:, :, 3])


def test_notes_say_what_was_done_to_the_pixels() -> None:
    notes = {name: read(data).notes for name, data in FILES.items() if "anim" not in name and name != "apng"}
    turned = ("rotated as its EXIF says",)
    assert {name: said for name, said in notes.items() if said} == {
        "jpeg": turned,
        "png": turned,
        "webp": turned,
        "jpeg cmyk": ("CMYK converted to RGB by its colour profile",),
        "mpo": ("only the first of the file's pictures taken",),
        "png 1 bit": ("1 bit a pixel expanded to 8",),
        "png 16 bit": ("16 bits a channel rounded to 8",),
        **dict.fromkeys(("png p", "png p index", "png p bytes"), ("palette expanded",)),
    }


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_orientation_is_turned_upright_once(kind: str, order: str) -> None:
    for orientation in range(10):  # 0 and 9 mean nothing
        data = saved(RGB, kind, exif=b"Exif\0\0" + exif_of(orientation, order))
        picture = read(data, metadata=True)
        assert np.array_equal(picture.pixels, shown(data))
        assert picture.notes == (("rotated as its EXIF says",) if 2 <= orientation <= 8 else ())
        for suffix in (".png", ".webp"):
            assert np.array_equal(shown(encode(picture, suffix)), picture.pixels)


def test_exif_is_kept_only_when_asked_and_without_what_shows_the_picture() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8649] = 6, "maker", bytes(300)  # the last: Photoshop's, with its preview
    exif[0x8298] = "© Zoë".encode()
    exif[0x8769] = {0x9003: "2020:02:02 02:02:02", 0x9286: b"c" * 300, 0x927C: b"note", 0xA002: 17, 0x9214: (1, 2)}
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.5)}
    for data in (saved(RGB, "JPEG", exif=exif), saved(RGB, "PNG", exif=exif), saved(RGB, "WEBP", exif=exif)):
        assert read(data).exif is None
        kept = read(data, metadata=True).exif
        assert kept is not None
        after = Image.Exif()
        after.load(kept)
        assert "© Zoë".encode() in kept
        assert dict(after) == {tag: after[tag] for tag in (0x010F, 0x8298, 0x8769, 0x8825)}
        assert after[0x010F] == "maker"
        assert after.get_ifd(0x8769) == {0x9003: "2020:02:02 02:02:02", 0x9286: b"c" * 300}
        assert after.get_ifd(0x8825) == {1: "N", 2: (1.0, 2.0, 3.5)}
    kept = read(FILES["jpeg"], metadata=True).exif
    assert kept is not None and b"PREVIEW" not in kept and b"abc" in kept


def test_exif_that_makes_pillow_warn_or_raise_does_not_matter() -> None:
    whole = exif_of()
    for block in (b"", b"II", b"II*\0", b"nonsense", whole[:9], whole[:20], whole[:33], b"II*\0\xff\xff\xff\xff"):
        for kind in ("JPEG", "PNG", "WEBP"):
            picture = read(saved(RGB, kind, exif=b"Exif\0\0" + block), metadata=True)
            assert picture.pixels.shape == (HEIGHT, WIDTH, 3)
    for block in (whole[:34], whole[:8] + b"\xff\xff" + whole[10:]):  # no more, or many more: the second one is there
        assert read(saved(RGB, "PNG", exif=block)).pixels.shape == (WIDTH, HEIGHT, 3)


def test_a_small_exif_block_cannot_become_a_large_one() -> None:
    entries = b"".join(struct.pack("<HHII", tag, 2, 10_000, 8) for tag in range(32))  # one value, in GPS's directory
    block = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8825, 4, 1, 26, 0) + struct.pack("<H", 32) + entries
    kept = read(saved(RGB, "PNG", exif=block + bytes(10_000)), metadata=True).exif
    assert kept is not None and 10_000 < len(kept) <= 2 * (len(block) + 10_000)  # instead of 320 kB


def test_sixteen_bits_become_eight() -> None:
    values = np.arange(0, 65536, 7, dtype=np.uint16)[None, :]
    picture = read(saved(values, "PNG"))
    assert np.array_equal(picture.pixels[0, :, 0], np.rint(values[0] / 257))
    colour = png(1, 1, 16, 2, b"\0" + bytes.fromhex("01ff 80ff ff00"))
    assert read(colour).pixels.tolist() == [[[1, 128, 255]]]
    assert read(colour).notes == ("16 bits a channel cut to 8",)
    grey = read(png(2, 1, 16, 4, b"\0" + bytes.fromhex("01ff 8000 20ff ff00")))
    assert grey.pixels.tolist() == [[[1], [32]]]
    assert grey.alpha is not None and grey.alpha.tolist() == [[128, 255]]


@pytest.mark.parametrize(
    ("bits", "colour", "row", "key", "alpha"),
    [
        (1, 0, "a0", "0001", [0, 255, 0, 255]),
        (2, 0, "1b", "0002", [255, 255, 0, 255]),
        (4, 0, "0123", "0003", [255, 255, 255, 0]),
        (8, 0, "0a141e28", "0014", [255, 0, 255, 255]),
        (8, 0, "0a141e28", "7714", [255, 0, 255, 255]),  # bits above the depth do not count
        (16, 0, "0a00 0a01 0b00 0c00", "0a01", [255, 0, 255, 255]),
        (8, 2, "010203 010204 000000 010203", "0001 0002 0003", [0, 255, 255, 0]),
        (16, 2, "010002000300 010002000400 000000000000 010002000300", "0100 0200 0300", [0, 255, 255, 0]),
    ],
)
def test_a_transparent_colour_becomes_alpha(bits: int, colour: int, row: str, key: str, alpha: list[int]) -> None:
    data = png(4, 1, bits, colour, b"\0" + bytes.fromhex(row), chunk(b"tRNS", bytes.fromhex(key)))
    picture = read(data)
    assert picture.alpha is not None and picture.alpha.tolist() == [alpha]
    assert np.array_equal(picture.pixels, read(data.replace(b"tRNS", b"tEXt")).pixels)


def test_a_palette_keeps_the_colour_of_what_is_transparent() -> None:
    data = png(
        4, 1, 8, 3, b"\0\0\1\2\1", chunk(b"PLTE", bytes(range(10, 19))) + chunk(b"tRNS", b"\x00\x80")
    )  # fmt: skip
    picture = read(data)
    assert picture.pixels[0].tolist() == [[10, 11, 12], [13, 14, 15], [16, 17, 18], [13, 14, 15]]
    assert picture.alpha is not None and picture.alpha.tolist() == [[0, 128, 255, 128]]


def test_cmyk_is_converted_by_its_profile_or_by_pillows_formula() -> None:
    cmyk = Image.new("CMYK", (8, 8), (10, 200, 90, 127))
    converted = read(saved(cmyk, "JPEG", quality=100, icc_profile=cmyk_profile()))
    # L* = 100 · 128/255 = 50.2 is Y = ((50.2 + 16)/116)³ = 0.186, and 1.055 · 0.186^(1/2.4) − 0.055 = 0.468: 119.4 of
    # 255. One level of ink, which the JPEG may be wrong by, is 0.39 of L* and 0.9 levels; and results are rounded.
    assert np.abs(converted.pixels - 119.4).max() <= 0.9 + 0.5
    assert converted.icc is None
    for profile in (None, b"no profile", SRGB, cmyk_profile()[:200]):
        formula = saved(cmyk, "JPEG", quality=100, icc_profile=profile)
        assert np.array_equal(read(formula).pixels, shown(formula))
        assert read(formula).notes == ("CMYK converted to RGB",)


def test_ycck_is_understood() -> None:
    """Adobe's transform 2: the three first channels are those of Y, Cb, Cr, and all are inverted."""
    stored = np.array([200, 128, 178, 255])
    data = saved(Image.new("CMYK", (8, 8), tuple(255 - stored)), "JPEG", quality=100)
    adobe = data.index(b"Adobe")
    assert data[adobe + 11] == 0
    picture = read(data[: adobe + 11] + b"\2" + data[adobe + 12 :])
    red = 200 + 1.402 * (178 - 128)  # clipped at 255
    green, blue = 200 - 0.714136 * (178 - 128), 200
    # A level for rounding in each of three steps: the DCT at quality 100, YCbCr to RGB, CMYK to RGB.
    wanted = 255 - np.array([min(red, 255), green, blue])
    assert np.abs(picture.pixels - wanted).max() <= 3


def test_profiles_stay_with_the_pixels_that_they_are_for() -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        assert read(saved(RGB, kind, icc_profile=SRGB)).icc == SRGB
    long = SRGB + bytes(200_000)  # in a JPEG, in several segments
    assert read(saved(RGB, "JPEG", icc_profile=long)).icc == long
    for picture, icc, said in (
        (GREY, SRGB, "colour profile that is not for these pixels dropped"),
        (RGB, b"not a profile", "damaged colour profile dropped"),
        (RGB, SRGB[:-1], "damaged colour profile dropped"),
        (RGB, SRGB + bytes(1 << 20), "colour profile of more than 1 MiB dropped"),
    ):
        for kind in ("JPEG", "PNG"):
            without = read(saved(picture, kind, icc_profile=icc))
            assert (without.icc, without.notes) == (None, (said,))


def test_of_a_profile_what_names_a_screen_is_dropped_and_colours_stay() -> None:
    """As Apple's: mmod, the screen's maker, model and serial number; and a private tag that shares the data of rTRC."""
    count, tags = int.from_bytes(SRGB[128:132], "big"), SRGB[132 : 132 + 12 * 11]
    assert count == 11 and SRGB[:4] == struct.pack(">I", len(SRGB))
    moved = [(kind, start + 24, size) for kind, start, size in struct.iter_unpack(">4sII", tags)]
    shared = next(entry for entry in moved if entry[0] == b"rTRC")
    moved += [(b"mmod", len(SRGB) + 24, 40), (b"aarg", *shared[1:])]
    table = struct.pack(">I", 13) + b"".join(struct.pack(">4sII", *entry) for entry in moved)
    screen = b"mmod" + bytes(4) + b"SERIAL".ljust(32)
    head = struct.pack(">I", len(SRGB) + 64) + SRGB[4:84] + b"C" * 16 + SRGB[100:128]
    icc = head + table + SRGB[132 + 12 * 11 :] + screen
    kept = read(saved(RGB, "PNG", icc_profile=icc)).icc
    assert kept is not None
    assert b"SERIAL" not in kept and b"mmod" not in kept and b"aarg" not in kept
    assert kept[84:100] == bytes(16)  # a checksum would be wrong now
    assert len(kept) == len(icc)
    profiles = [ImageCms.ImageCmsProfile(io.BytesIO(data)) for data in (icc, kept)]
    other = ImageCms.createProfile("LAB")
    image = Image.fromarray(RGB)
    before, after = (ImageCms.profileToProfile(image, profile, other, outputMode="LAB") for profile in profiles)
    assert np.array_equal(np.asarray(before), np.asarray(after))
    assert read(saved(RGB, "PNG", icc_profile=kept)).icc == kept


def test_many_empty_chunks_take_no_memory_of_their_own() -> None:
    read(FILES["png grey"])  # what is made at the first time does not count
    for empty, copies in ((chunk(b"IDAT", b""), 3.5), (chunk(b"teXt", b""), 0), (chunk(b"eXIf", b"")[:-1] + b"?", 0)):
        data = png(1, 1, 8, 0, b"\0\x07", empty * 20_000)
        tracemalloc.start()
        picture = read(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert picture.pixels.item() == 7
        assert len(picture.notes) <= 1
        # What decides about pixels is kept in a bytearray that grows by an eighth, copied into bytes, and Pillow may
        # copy it. The buffers take 128 kB. A list of the chunks' kinds takes 20,000 · (8 + 37) bytes = 900 kB.
        assert peak <= copies * len(data) + 131_072


def test_chunks_with_wrong_checksums_are_ignored_or_end_it() -> None:
    broken = chunk(b"iCCP", b"name\0\0" + zlib.compress(SRGB))[:-1] + b"?"
    picture = read(png(1, 1, 8, 0, b"\0\x07", broken))
    assert (picture.pixels.item(), picture.icc, picture.notes) == (7, None, ("damaged iCCP chunk ignored",))
    whole = FILES["png grey"]
    middle = whole.index(b"IDAT") + 20
    with pytest.raises(Unreadable, match="damaged: the checksum of a IDAT chunk is wrong"):
        read(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG that says that it is so large."""
    data = saved(GREY, "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "an empty file"),
        (b"not a picture", "not a JPEG, PNG or WebP, whatever its name says"),
        (saved(RGB, "GIF"), "a GIF file, not a JPEG, PNG or WebP, whatever its name says"),
        (saved(RGB, "TIFF"), "a TIFF file, not a JPEG, PNG or WebP, whatever its name says"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "a HEIC file, not a JPEG, PNG or WebP, whatever its name says"),
        (FILES["apng"], "animated, 2 frames: only still pictures are protected"),
        (FILES["webp animated"], "animated, 2 frames: only still pictures are protected"),
        (png(0, 5, 8, 0, b""), "no pixels in it: its size is 0 × 5"),
        (jpeg_of(7, 0), "no pixels in it: its size is 7 × 0"),
        (png(MOST_PIXELS + 1, 1, 8, 0, b""), "too large: 178,956,971 × 1 pixels, at most 178,956,970 are read"),
        (jpeg_of(65535, 65535), "too large: 65,535 × 65,535 pixels, at most 178,956,970 are read"),
        (b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff" * 6, "too large: 16,777,216 × 16,777,216 pixels"),
        (png(4, 1, 8, 3, b"\0\0\0\0\0"), "damaged: a PNG with a palette, without its palette"),
        (png(4, 1, 8, 5, b"\0\0\0\0\0"), "damaged or cut short (not identified by this driver)"),
        (b"\xff\xd8\xff\xc0\0\x04\x08\0" + FILES["jpeg"][2:], "damaged or cut short"),
        (FILES["png"][:-1], "cut short: the end of the PNG is missing"),
        (FILES["webp"][:-2], "cut short: the end of the WebP is missing"),
        (FILES["jpeg"][:100], "cut short: the JPEG ends before its pixels"),
        (FILES["jpeg"][:-40], "damaged or cut short (image file is truncated"),
    ],
)
def test_what_cannot_be_read_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read(data)
    assert str(caught.value).startswith(reason)


def test_large_pictures_that_pillow_warns_of_are_read_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(FILES["jpeg"]))
    for name in ("jpeg", "png", "webp"):
        assert read(FILES[name]).pixels.shape == (WIDTH, HEIGHT, 3)


def test_an_animation_of_one_frame_is_a_still_picture() -> None:
    control = chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"acTL", b"\0" * 8)  # Pillow would warn of the second
    assert read(png(1, 1, 8, 0, b"\0\x07", control)).pixels.item() == 7


def sealed(data: bytes) -> bytes:
    """A PNG with right checksums, so that what was changed is looked at."""
    parts, position = [data[:8]], 8
    while data.startswith(b"\x89PNG") and position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        content = data[position + 8 : position + 8 + length]
        parts.append(chunk(data[position + 4 : position + 8], content))
        position += 12 + length
    return b"".join(parts) if position > 8 else data


CHANGE = st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3), st.integers(0, 3))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.lists(CHANGE, min_size=1, max_size=4), st.booleans(), st.floats(0, 2))
def test_damaged_files_are_read_or_unreadable(
    name: str, changes: list[tuple[float, bytes, int]], seal: bool, cut: float
) -> None:
    data = FILES[name]
    for place, new, gone in changes:
        at = int(place**2 * len(data))  # more often at the start, where the file says what it is
        data = data[:at] + new + data[at + gone :]
    data = data[: int(cut * len(data))]
    reads_or_says_why(sealed(data) if seal else data)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x40\0\0\0WEBP"]), st.binary(max_size=200))
def test_random_bytes_are_unreadable(magic: bytes, rest: bytes) -> None:
    reads_or_says_why(magic + rest)


def reads_or_says_why(data: bytes) -> None:
    try:
        picture = read(data, metadata=True)
    except Unreadable as error:
        assert str(error)
        assert "object at" not in str(error)  # an address would make the manifest another one each time
        return
    for suffix in (".png", ".webp"):
        if max(picture.pixels.shape) <= 100:
            same(read(encode(picture, suffix), metadata=True), picture, suffix)


def same(found: Picture, wanted: Picture, suffix: str) -> None:
    grey = wanted.pixels.shape[2] == 1 and suffix == ".webp"
    assert np.array_equal(found.pixels, np.repeat(wanted.pixels, 3, 2) if grey else wanted.pixels)
    if wanted.alpha is None or wanted.alpha.min() == 255:
        assert found.alpha is None
    else:
        assert found.alpha is not None and np.array_equal(found.alpha, wanted.alpha)
    assert found.icc == (None if grey else wanted.icc)
    assert found.exif == wanted.exif
    assert found.notes == ()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]), st.sampled_from(["none", "opaque", "any", "0"]),
    st.booleans(), st.booleans(), st.integers(0, 2**32 - 1), st.sampled_from([".png", ".webp"]),
)  # fmt: skip
def test_what_is_written_comes_back(
    height: int, width: int, channels: int, opacity: str, icc: bool, exif: bool, seed: int, suffix: str
) -> None:
    alpha = {"none": None, "opaque": np.full((height, width), 255, np.uint8), "0": np.zeros((height, width), np.uint8)}
    kept = read(FILES["jpeg"], metadata=True).exif
    profile = SRGB if channels == 3 else SRGB[:16] + b"GRAY" + SRGB[20:]
    picture = Picture(
        levels(height, width, channels, seed=seed),
        levels(height, width, seed=seed + 1) if opacity == "any" else alpha[opacity],
        profile if icc else None,
        kept if exif else None,
    )
    data = encode(picture, suffix)
    same(read(data, metadata=True), picture, suffix)
    assert encode(picture, suffix) == data
    plain = shown(data)  # and by others
    assert np.array_equal(plain, np.broadcast_to(picture.pixels, plain.shape))


def test_files_that_cannot_be_written_are_refused() -> None:
    wide = Picture(np.zeros((1, WEBP_SIDE + 1, 3), np.uint8))
    with pytest.raises(ValueError, match="a WebP holds at most 16,383 pixels a side, this picture has 16,384 × 1"):
        encode(wide, ".webp")
    assert read(encode(wide, ".png")).pixels.shape == (1, WEBP_SIDE + 1, 3)
    assert read(encode(Picture(wide.pixels[:, 1:]), ".webp")).pixels.shape == (1, WEBP_SIDE, 3)
    with pytest.raises(ValueError, match=r"suffix: got '\.jpg', expected one of '\.png', '\.webp'"):
        encode(wide, ".jpg")


def test_threads_may_read_at_once_and_filters_stay() -> None:
    before = list(warnings.filters)
    bad = saved(RGB, "JPEG", exif=b"Exif\0\0" + exif_of()[:20])
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(read, [FILES["jpeg"], FILES["png p"], bad, FILES["webp"]] * 20))
    for number, picture in enumerate(pictures):
        assert np.array_equal(picture.pixels, pictures[number % 4].pixels)
    assert warnings.filters == before
