"""One picture in and out: any JPEG, PNG or WebP as upright 8-bit pixels, and pixels as a lossless file.

Files are taken apart here before Pillow decodes them. It never sees their metadata: it warns about much of it, and a
warning can be held back (`warnings.catch_warnings`) for a whole process only, not for one of several threads. For the
same reason Pillow's readers are called by their names, once the size is known: `PIL.Image.open` warns of pictures
above 89 million pixels.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from .._errors import check_choice
from .exif import taken_apart

MOST_PIXELS = 2 * (1024**3 // 4 // 3)  # where Pillow refuses a picture, unless it is told otherwise
WEBP_SIDE = 16_383  # pixels
_MOST_PROFILE = 1 << 20  # bytes: Pillow opens no PNG whose colour profile is larger
_TAGS = {  # of a profile: what colours are made with, and the two texts that it must have
    *(way + bytes([number]) for way in (b"A2B", b"B2A", b"D2B", b"B2D") for number in b"0123"),
    *(channel + kind for channel in (b"r", b"g", b"b") for kind in (b"XYZ", b"TRC")),
    b"kTRC", b"wtpt", b"bkpt", b"chad", b"chrm", b"cicp", b"lumi", b"gamt", b"desc", b"cprt",
}  # fmt: skip
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unreadable(Exception):
    """A file that is not protected; the message is the reason, in plain words."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A still picture, upright.

    pixels: uint8 `(H, W, C)`, C = 1 (grey) or 3 (RGB).
    alpha: opacity, uint8 `(H, W)`; None where all of the picture is opaque.
    icc: the colour profile of `pixels`, of its tags only those that make colours and its texts; None for sRGB, or where
        the file does not say. Its name and its date are kept, which may tell a screen's model and when it was measured.
    exif: of what EXIF says that which `exif.py` lists, a TIFF block, without orientation, sizes, previews and the
        maker's own; None unless it was asked for.
    notes: what was done to the pixels that the file holds, in the order in which it was done.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()


def read(data: bytes, *, metadata: bool = False) -> Picture:
    """The picture in a file's bytes; with `metadata`, what its EXIF says too. The content tells the format, not a name.

    Pixels are those that Pillow decodes, turned as EXIF says (as `PIL.ImageOps.exif_transpose` does; orientations in
    XMP or in PNG text are not obeyed, nor do browsers), and converted only where they have to be: 16-bit values to 8
    (grey v to round(v / 257), colour to v // 256, which is all that Pillow gives), fewer bits and palettes expanded,
    CMYK to sRGB by the picture's profile, or by Pillow's formula without one. Transparency becomes `alpha`, whatever
    way the file has it, without touching the pixels. PNG's gAMA is ignored. Of an MPO or a JPEG with a gain map the
    first picture is taken.

    Raises `Unreadable`, and nothing else, whatever the bytes are; no warning is given. Safe to call from threads.
    """
    try:
        return _read(data, metadata)
    except Unreadable:
        raise
    except MemoryError as error:
        raise Unreadable("too large for the memory of this machine") from error
    except Exception as error:  # Pillow's readers promise nothing about damaged files
        said = f" ({error})" if isinstance(error, (OSError, SyntaxError)) and str(error) else ""  # others are no words
        raise Unreadable(f"damaged or cut short{said}") from error


def pixels_of(data: bytes) -> int:
    """How many pixels the file says that it has, without decoding them; 0 where it says nothing."""
    try:
        width, height = _take_apart(data).size
    except Exception:  # whatever is wrong, `read` says it in words
        return 0
    return width * height


def encode(picture: Picture, suffix: str) -> bytes:
    """`picture` as a lossless file, ".png" or ".webp"; `read` gives its pixels, alpha, profile and EXIF back.

    WebP has no grey: there a grey picture comes back with three equal channels and without its grey profile. An alpha
    of 255 everywhere comes back as None. The same picture gives the same bytes with the same version of Pillow.

    Raises `ValueError` for another suffix and for WebP of more than 16,383 pixels a side.
    """
    check_choice("suffix", suffix, (".png", ".webp"))
    height, width, channels = picture.pixels.shape
    if suffix == ".webp" and max(height, width) > WEBP_SIDE:
        raise ValueError(f"a WebP holds at most {WEBP_SIDE:,} pixels a side, this picture has {width:,} × {height:,}")
    image = Image.fromarray(picture.pixels[:, :, 0] if channels == 1 else picture.pixels)
    icc = picture.icc
    if suffix == ".webp" and channels == 1:
        image, icc = image.convert("RGB"), None
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    buffer = io.BytesIO()
    # Seconds of one core and MB for 4000 × 3000 pixels of RGB, a decoded JPEG with noise of ±8 levels spread over it.
    # PNG level 1: 0.8 s, 16.0; level 3: 1.1 s, 15.0; level 6: 3.0 s, 14.4. WebP method 4: 10.0 s, 10.9; method 0:
    # 9.0 s, 11.1; and with quality 0, which for a lossless file is effort alone: 0.7 s, 11.0.
    if suffix == ".png":
        image.save(buffer, "PNG", compress_level=3, icc_profile=icc, exif=picture.exif)
    else:  # exact: else the colour of what is wholly transparent would be lost
        effort = {"method": 0, "quality": 0}
        image.save(buffer, "WEBP", lossless=True, exact=True, **effort, icc_profile=icc, exif=picture.exif or b"")
    return buffer.getvalue()


def _read(data: bytes, metadata: bool) -> Picture:
    parts = _take_apart(data)
    width, height = parts.size
    if not width or not height:
        raise Unreadable(f"no pixels in it: its size is {width} × {height}")
    if width * height > MOST_PIXELS:
        raise Unreadable(f"too large: {width:,} × {height:,} pixels, at most {MOST_PIXELS:,} are read")
    if parts.frames > 1:
        raise Unreadable(f"animated, {parts.frames} frames: only still pictures are protected")
    image = parts.reader(io.BytesIO(parts.plain))
    if image.size != parts.size:  # checked before decoding: memory is taken for the size that the reader found
        raise Unreadable("damaged or cut short (it gives two sizes)")
    image.load()
    notes = list(parts.notes)
    said = None if parts.exif is None else taken_apart(parts.exif)
    if parts.exif is not None and said is None:
        notes.append("EXIF that cannot be read ignored")
    orientation, exif = said or (0, None)
    upright: Image.Image = image
    if orientation in _TURNS:
        upright = image.transpose(_TURNS[orientation])
        notes.append("rotated as its EXIF says")
    colour, alpha, icc = _eight_bits(upright, parts, notes)
    pixels = np.asarray(colour)
    return Picture(
        pixels if pixels.ndim == 3 else pixels[:, :, None],
        None if alpha is None or alpha.min() == 255 else alpha,
        _fitting(icc, colour.mode, notes),
        exif if metadata else None,
        tuple(notes),
    )


def _eight_bits(
    image: Image.Image, parts: _Parts, notes: list[str]
) -> tuple[Image.Image, np.ndarray | None, bytes | None]:
    """The picture as L or RGB, its alpha uint8 `(H, W)`, and its profile."""
    alpha = None if parts.key is None else _keyed(image, parts.key, parts.bits)
    if image.mode == "P":
        notes.append("palette expanded")
        image = image.convert("RGB")
    elif image.mode.startswith("I"):
        notes.append("16 bits a channel rounded to 8")
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif parts.bits == 16:
        notes.append("16 bits a channel cut to 8")
    elif parts.bits < 8:
        notes.append(f"{parts.bits} bit{'s' * (parts.bits > 1)} a pixel expanded to 8")
        image = image.convert("L")
    if image.mode == "CMYK":
        return _from_cmyk(image, parts.icc, notes), None, None
    if image.mode in ("LA", "RGBA"):
        alpha = np.asarray(image.getchannel("A"))
        # Neither mixes alpha into the colour. Pillow gives 16-bit grey with alpha as RGBA.
        image = image.getchannel(0) if parts.grey else image.convert("RGB")
    return image, alpha, parts.icc


def _keyed(image: Image.Image, key: tuple[int, ...], bits: int) -> np.ndarray:
    """The alpha uint8 `(H, W)` that PNG's tRNS means: that of a palette's colours, or 0 for one grey or RGB value."""
    stored = np.asarray(image)
    if image.mode == "P":
        table = np.full(256, 255, np.uint8)
        table[: len(key)] = key[:256]
        alpha: np.ndarray = table[stored]
        return alpha
    if image.mode == "RGB":
        wanted = np.array(key) >> 8 if bits == 16 else np.array(key) & 255
        return np.where((stored == wanted).all(2), 0, 255).astype(np.uint8)
    level = key[0] & (2**bits - 1)  # the standard has only these bits count
    if 1 < bits < 8:
        level = level * 255 // (2**bits - 1)  # as Pillow gives the pixels
    return np.where(stored == level, 0, 255).astype(np.uint8)


def _from_cmyk(image: Image.Image, icc: bytes | None, notes: list[str]) -> Image.Image:
    converted = None
    if icc is not None and icc[16:20] == b"CMYK":
        with suppress(ImageCms.PyCMSError, ImportError, OSError, ValueError):  # Pillow may lack it; it may be anything
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    notes.append("CMYK converted to RGB" + " by its colour profile" * (converted is not None))
    return converted or image.convert("RGB")


def _fitting(icc: bytes | None, mode: str, notes: list[str]) -> bytes | None:
    """The profile if the pixels can have it: in another kind of picture programs ignore it, or refuse the file."""
    if icc is None:
        return None
    whole = icc[36:40] == b"acsp" and 132 <= int.from_bytes(icc[:4], "big") <= len(icc)
    if not whole or icc[16:20] != (b"GRAY" if mode == "L" else b"RGB "):
        notes.append(
            "colour profile that is not for these pixels dropped" if whole else "damaged colour profile dropped"
        )
    elif len(icc) > _MOST_PROFILE:
        notes.append("colour profile of more than 1 MiB dropped")
    else:
        return _impersonal(icc)
    return None


def _impersonal(icc: bytes) -> bytes:
    """The profile without the tags that do nothing for colours, as Apple's mmod, a screen's serial number (ICC.1, 7.3).

    All others stay where they are; between them are zeros.
    """
    (count,) = struct.unpack_from(">I", icc, 128)
    entries = dict[bytes, bytes]()
    for at in range(132, min(132 + 12 * count, len(icc) - 11), 12):
        if icc[at : at + 4] in _TAGS:
            entries.setdefault(icc[at : at + 4], icc[at : at + 12])
    left, table = bytearray(len(icc)), b"".join(entries.values())
    for entry in entries.values():
        start, length = struct.unpack_from(">II", entry, 4)
        left[start : start + length] = icc[start : start + length]
    head = icc[:84] + bytes(16) + icc[100:128]  # where 16 zeros are may be a checksum of the whole
    return head + struct.pack(">I", len(entries)) + table + left[132 + len(table) :]


# What a file is made of.


@dataclass(frozen=True)
class _Parts:
    """A file taken apart.

    reader: Pillow's, for its format.
    plain: the file without what does not decide about pixels.
    size: width and height, as declared.
    bits: of a channel, in the file.
    grey: whether a PNG with alpha is grey.
    key: PNG's tRNS: the alpha of a palette's colours, or the grey level or RGB triple that is transparent.
    """

    reader: type[JpegImageFile] | type[PngImageFile] | type[WebPImageFile]
    plain: bytes
    size: tuple[int, int]
    frames: int = 1
    bits: int = 8
    grey: bool = False
    key: tuple[int, ...] | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()


def _take_apart(data: bytes) -> _Parts:
    if not data:
        raise Unreadable("an empty file")
    if data.startswith(_PNG):
        return _png(data)
    if data.startswith(_JPEG):
        return _jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    known = {b"GIF8": "a GIF", b"BM": "a BMP", b"II*\0": "a TIFF", b"MM\0*": "a TIFF", b"%PDF": "a PDF"}
    brands = {b"avi": "an AVIF", b"hei": "a HEIC", b"hev": "a HEIC", b"mif": "a HEIC"}
    kind = next((name for magic, name in known.items() if data.startswith(magic)), None)
    if data[4:8] == b"ftyp":
        kind = brands.get(data[8:11])
    raise Unreadable(f"{f'{kind} file, ' if kind else ''}not a JPEG, PNG or WebP, whatever its name says")


def _png(data: bytes) -> _Parts:
    """W3C, Portable Network Graphics (third edition): chunks of length, type, content and CRC-32, to IEND."""
    kept, found, notes = bytearray(_PNG), dict[bytes, bytes](), dict[str, None]()  # chunks may be many, and empty
    of_animations = {b"acTL": 0, b"fcTL": 0, b"fdAT": 0}
    for kind, start, end in _png_chunks(data):
        if kind in of_animations:
            of_animations[kind] += 1
        if kind not in (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"eXIf"):
            continue
        if zlib.crc32(memoryview(data)[start - 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            if kind[:1].isupper():
                raise Unreadable(f"damaged: the checksum of a {kind.decode()} chunk is wrong")
            notes[f"damaged {kind.decode()} chunk ignored"] = None
            continue
        if kind != b"IDAT":
            found[kind] = data[start:end]
        if kind[:1].isupper():
            kept += data[start - 8 : end + 4]
    if b"IEND" not in found:
        raise Unreadable("cut short: the end of the PNG is missing")
    if len(found.get(b"IHDR", b"")) < 13:
        raise Unreadable("damaged: a PNG without its header")
    width, height, bits, colour = struct.unpack_from(">IIBB", found[b"IHDR"])
    if colour == 3 and b"PLTE" not in found:
        raise Unreadable("damaged: a PNG with a palette, without its palette")
    icc = _inflated(found[b"iCCP"]) if b"iCCP" in found else None
    if b"iCCP" in found and icc is None:
        notes["damaged colour profile dropped"] = None
    return _Parts(
        PngImageFile, bytes(kept), (width, height),
        # One frame is a still picture. Without fdAT all that there is to see is the picture of other PNGs.
        frames=of_animations[b"fcTL"] if of_animations[b"acTL"] and of_animations[b"fdAT"] else 1,
        bits=8 if colour == 3 else bits, grey=colour == 4, key=_key(found.get(b"tRNS", b""), colour),
        icc=icc, exif=found.get(b"eXIf"), notes=tuple(notes),
    )  # fmt: skip


def _key(transparent: bytes, colour: int) -> tuple[int, ...] | None:
    """tRNS for PNG's colour types: 0 is grey, 2 RGB, 3 a palette; the others have alpha."""
    if colour == 3:
        return tuple(transparent) or None
    count = {0: 1, 2: 3}.get(colour, 0)
    return struct.unpack_from(f">{count}H", transparent) if count and len(transparent) >= 2 * count else None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, and start and end of the content, of every whole chunk to IEND."""
    position = len(_PNG)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        start, end = position + 8, position + 8 + length
        if end + 4 > len(data):
            return
        yield kind, start, end
        if kind == b"IEND":
            return
        position = end + 4


def _inflated(chunk: bytes) -> bytes | None:
    """The profile in an iCCP chunk: a name, a zero byte, the method 0, and a zlib stream."""
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(chunk[chunk.index(b"\0") + 2 :], 16 * _MOST_PROFILE)
    except (ValueError, zlib.error):
        return None
    return profile if inflater.eof else None


def _jpeg(data: bytes) -> _Parts:
    """ITU-T T.81, annex B: segments up to the first scan; what follows is left to the decoder."""
    kept, size, bits = bytearray(data[:2]), (0, 0), 8  # segments may be many, and empty
    profile, exif, notes = dict[int, bytes](), bytearray(), tuple[str, ...]()
    for marker, start, end in _jpeg_segments(data):
        content = data[start:end]
        if marker == 0xDA:
            kept += data[start - 4 :]
        elif marker == 0xE1 and content.startswith(b"Exif\0\0"):
            exif += content[6:]
        elif marker == 0xE2 and content.startswith(b"ICC_PROFILE\0") and len(content) > 14:
            profile.setdefault(content[12], content[14:])
        elif marker == 0xE2 and content.startswith(b"MPF\0"):
            notes = ("only the first of the file's pictures taken",)
        # Of the applications' segments only JFIF's and Adobe's say something of pixels: what their channels are.
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE) or (
            (marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 14)
            or (marker == 0xEE and content.startswith(b"Adobe") and len(content) >= 12)
        ):
            kept += data[start - 4 : end]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width = struct.unpack_from(">BHH", content)
            size = width, height
    if bits != 8:
        raise Unreadable(f"a JPEG of {bits} bits a channel: only those of 8 are read")
    # Parts may come in any order; each has its number.
    icc = b"".join(part for _, part in sorted(profile.items())) or None
    return _Parts(JpegImageFile, bytes(kept), size, icc=icc, exif=bytes(exif) or None, notes=notes)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, and start and end of the content, of every segment to the first scan's."""
    position = 2
    while True:
        position = data.find(b"\xff", position)
        while data[position : position + 1] == b"\xff" and position >= 0:  # any number of them may come before a marker
            position += 1
        if position < 0 or position + 3 > len(data):
            raise Unreadable("cut short: the JPEG ends before its pixels")
        marker = data[position]
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD9:  # these have no content
            position += 1
            continue
        start = position + 3
        end = position + 1 + int.from_bytes(data[position + 1 : start], "big")
        if end < start or end > len(data):
            raise Unreadable("cut short: the JPEG ends before its pixels")
        yield marker, start, end
        if marker == 0xDA:
            return
        position = end


def _webp(data: bytes) -> _Parts:
    """RFC 9649: chunks of type, length and content, padded to even lengths."""
    length = 8 + int.from_bytes(data[4:8], "little")
    if length > len(data):
        raise Unreadable("cut short: the end of the WebP is missing")
    size, frames = None, 0
    found = dict[bytes, bytes]()
    position = 12
    while position + 8 <= length:
        kind, amount = struct.unpack_from("<4sI", data, position)
        start = position + 8
        if kind in (b"ICCP", b"EXIF"):
            found.setdefault(kind, data[start : start + amount])
        elif kind in (b"VP8X", b"VP8L", b"VP8 ") and size is None:
            size = _webp_size(kind, data[start : start + 10])
        frames += kind == b"ANMF"
        position = start + amount + amount % 2
    if size is None:
        raise Unreadable("damaged: a WebP without a picture")
    return _Parts(WebPImageFile, data, size, frames, icc=found.get(b"ICCP"), exif=found.get(b"EXIF"))


def _webp_size(kind: bytes, head: bytes) -> tuple[int, int]:
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if kind == b"VP8L":
        packed = int.from_bytes(head[1:5], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", head, 6)
    return width & 0x3FFF, height & 0x3FFF
