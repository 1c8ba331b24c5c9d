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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from .._errors import check_choice

MOST_PIXELS = 2 * (1024**3 // 4 // 3)  # where Pillow refuses a picture, unless it is told otherwise
WEBP_SIDE = 16_383  # pixels
_MOST_PROFILE = 1 << 20  # bytes: Pillow opens no PNG whose colour profile is larger
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
    icc: the colour profile of `pixels`; None for sRGB, or where the file does not say.
    exif: what EXIF says, a TIFF block without orientation, sizes and previews; None unless it was asked for.
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
    # Measured on 4000 × 3000 pixels of RGB, as seconds of one core and MB, for what is published (a decoded JPEG with
    # noise of ±8 levels spread over it) and for the same with a camera's noise, σ = 4 levels, in every pixel:
    #   PNG level 1: 0.8 s, 16.0 and 1.1 s, 23.4; level 3: 1.1 s, 15.0 and 1.3 s, 23.3;
    #   level 6: 3.0 s, 14.4 and 1.9 s, 20.6.
    #   WebP method 4: 10.0 s, 10.9 and 3.1 s, 19.2; method 0: 9.0 s, 11.1 and 1.3 s, 22.5; and with quality 0, which
    #   for a lossless file is effort alone: 0.7 s, 11.0 and 0.6 s, 22.5.
    # The levels and methods above those chosen cost 3 and 14 times as much to save 4 % and 1 % of what is published.
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
    exif = _Exif.of(parts.exif)
    if parts.exif is not None and exif is None:
        notes.append("EXIF that cannot be read ignored")
    upright: Image.Image = image
    if exif is not None and exif.orientation in _TURNS:
        upright = image.transpose(_TURNS[exif.orientation])
        notes.append("rotated as its EXIF says")
    colour, alpha, icc = _eight_bits(upright, parts, notes)
    pixels = np.asarray(colour)
    return Picture(
        pixels if pixels.ndim == 3 else pixels[:, :, None],
        None if alpha is None or alpha.min() == 255 else alpha,
        _fitting(icc, colour.mode, notes),
        exif.kept() if metadata and exif is not None else None,
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
    if bits == 1:
        level = bool(level)
    elif bits < 8:
        level = level * 255 // (2**bits - 1)  # as Pillow gives the pixels
    return np.where(stored == level, 0, 255).astype(np.uint8)


def _from_cmyk(image: Image.Image, icc: bytes | None, notes: list[str]) -> Image.Image:
    if icc is not None and icc[16:20] == b"CMYK":
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, ImportError, OSError, ValueError):  # Pillow may lack it; profiles may be anything
            converted = None
        if converted is not None:
            notes.append("CMYK converted to RGB by its colour profile")
            return converted
    notes.append("CMYK converted to RGB")
    return image.convert("RGB")


def _fitting(icc: bytes | None, mode: str, notes: list[str]) -> bytes | None:
    """The profile if the pixels can have it: in another kind of picture programs ignore it, or refuse the file."""
    if icc is None:
        return None
    whole = icc[36:40] == b"acsp" and int.from_bytes(icc[:4], "big") <= len(icc)
    if not whole or icc[16:20] != (b"GRAY" if mode == "L" else b"RGB "):
        notes.append(
            "colour profile that is not for these pixels dropped" if whole else "damaged colour profile dropped"
        )
    elif len(icc) > _MOST_PROFILE:
        notes.append("colour profile of more than 1 MiB dropped")
    else:
        return icc
    return None


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
    kept, found, notes = [_PNG], dict[bytes, bytes](), list[str]()
    kinds = list[bytes]()
    for kind, start, end in _png_chunks(data):
        kinds.append(kind)
        if kind not in (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"eXIf"):
            continue
        if zlib.crc32(memoryview(data)[start - 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            if kind[:1].isupper():
                raise Unreadable(f"damaged: the checksum of a {kind.decode()} chunk is wrong")
            notes.append(f"damaged {kind.decode()} chunk ignored")
            continue
        if kind != b"IDAT":
            found[kind] = data[start:end]
        if kind[:1].isupper():
            kept.append(data[start - 8 : end + 4])
    if b"IEND" not in found:
        raise Unreadable("cut short: the end of the PNG is missing")
    if len(found.get(b"IHDR", b"")) < 13:
        raise Unreadable("damaged: a PNG without its header")
    width, height, bits, colour = struct.unpack_from(">IIBB", found[b"IHDR"])
    if colour == 3 and b"PLTE" not in found:
        raise Unreadable("damaged: a PNG with a palette, without its palette")
    icc = _inflated(found[b"iCCP"]) if b"iCCP" in found else None
    if b"iCCP" in found and icc is None:
        notes.append("damaged colour profile dropped")
    return _Parts(
        PngImageFile, b"".join(kept), (width, height),
        # One frame is a still picture. Without fdAT all that there is to see is the picture of other PNGs.
        frames=kinds.count(b"fcTL") if b"acTL" in kinds and b"fdAT" in kinds else 1,
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
    kept, size, bits = [data[:2]], (0, 0), 8
    profile, exif, notes = list[tuple[int, bytes]](), list[bytes](), tuple[str, ...]()
    for marker, start, end in _jpeg_segments(data):
        content = data[start:end]
        if marker == 0xDA:
            kept.append(data[start - 4 :])
        elif marker == 0xE1 and content.startswith(b"Exif\0\0"):
            exif.append(content[6:])
        elif marker == 0xE2 and content.startswith(b"ICC_PROFILE\0") and len(content) > 14:
            profile.append((content[12], content[14:]))
        elif marker == 0xE2 and content.startswith(b"MPF\0"):
            notes = ("only the first of the file's pictures taken",)
        # Of the applications' segments only JFIF's and Adobe's say something of pixels: what their channels are.
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE) or (
            (marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 14)
            or (marker == 0xEE and content.startswith(b"Adobe") and len(content) >= 12)
        ):
            kept.append(data[start - 4 : end])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width = struct.unpack_from(">BHH", content)
            size = width, height
    if bits != 8:
        raise Unreadable(f"a JPEG of {bits} bits a channel: only those of 8 are read")
    icc = b"".join(part for _, part in sorted(profile)) or None  # parts may come in any order; each has its number
    return _Parts(JpegImageFile, b"".join(kept), size, icc=icc, exif=b"".join(exif) or None, notes=notes)


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


# EXIF (CIPA DC-008): a TIFF block, that is, directories of entries.

_TYPE_SIZES: Mapping[int, int] = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # bytes
_RAW_TYPES = (1, 6, 7)
_ORIENTATION, _BELOW = 0x0112, (0x8769, 0x8825)  # the latter are places: of the EXIF and the GPS directory
_COMMENTS = (0x9286, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F)  # UserComment and those of Windows: text as raw bytes
_LEFT_OUT = {
    _ORIENTATION, 0x0100, 0x0101, 0xA002, 0xA003,  # turning the pixels makes them wrong
    0x0111, 0x0117, 0x0144, 0x0145, 0x014A, 0x0201, 0x0202,  # where pixels of the file, or of a preview, are
    *_BELOW, 0xA005,  # places of other directories
    0x927C,  # MakerNote: each maker's own, with previews, and places counted from the start of the old block
}  # fmt: skip
_LONGEST_RAW = 256  # bytes; longer ones are where previews of the unprotected picture are
_Entries = dict[int, tuple[int, int, bytes]]  # by tag: type, count, bytes


@dataclass(frozen=True)
class _Exif:
    """The directories of an EXIF block, as far as they can be read; `order` is "<" or ">"."""

    order: str
    main: _Entries
    below: Mapping[int, _Entries]  # by the tag in `main` that says where they are

    @staticmethod
    def of(block: bytes | None) -> _Exif | None:
        """What is in `block`; None where there is nothing, or nothing readable."""
        while block is not None and block.startswith(b"Exif\0\0"):  # WebPs have it with and without
            block = block[6:]
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4]) if block is not None else None
        if block is None or order is None or len(block) < 8:
            return None
        main = _directory(block, order, struct.unpack_from(order + "I", block, 4)[0])
        return _Exif(order, main, {tag: _directory(block, order, _number(order, main.get(tag))) for tag in _BELOW})

    @property
    def orientation(self) -> int:
        return _number(self.order, self.main.get(_ORIENTATION))

    def kept(self) -> bytes | None:
        """A block of what stays true of the pixels and shows nothing of them; None where nothing is left.

        Written anew: in the old block what is left out would still be there. The main directory comes last, since it
        says where the others are.
        """
        main, block = _staying(self.main), b""
        place = struct.Struct(self.order + "I").pack
        for tag in _BELOW:
            if part := _staying(self.below[tag]):
                main[tag] = 4, 1, place(8 + len(block))
                block += _written(part, self.order, 8 + len(block))
        if not main:
            return None
        head = b"II*\0" if self.order == "<" else b"MM\0*"
        return head + place(8 + len(block)) + block + _written(main, self.order, 8 + len(block))


def _number(order: str, entry: tuple[int, int, bytes] | None) -> int:
    """The whole number that an entry holds; 0 where there is none."""
    code = {1: "B", 3: "H", 4: "I"}.get(entry[0]) if entry is not None and entry[1] == 1 else None
    return 0 if entry is None or code is None else int(struct.unpack(order + code, entry[2])[0])


def _directory(block: bytes, order: str, start: int) -> _Entries:
    """The entries of the directory at `start` that lie within the block."""
    entries: _Entries = {}
    room = len(block)  # entries that share their bytes would make a small block a large one
    if not 8 <= start <= len(block) - 2:
        return entries
    (count,) = struct.unpack_from(order + "H", block, start)
    for position in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, amount = struct.unpack_from(order + "HHI", block, position)
        length = _TYPE_SIZES.get(kind, 0) * amount
        (place,) = (position + 8,) if length <= 4 else struct.unpack_from(order + "I", block, position + 8)
        room -= length
        if length and place + length <= len(block) and room >= 0:
            entries.setdefault(tag, (kind, amount, block[place : place + length]))
    return entries


def _staying(entries: _Entries) -> _Entries:
    return {
        tag: (kind, count, value)
        for tag, (kind, count, value) in entries.items()
        if tag not in _LEFT_OUT and (kind not in _RAW_TYPES or len(value) <= _LONGEST_RAW or tag in _COMMENTS)
    }


def _written(entries: _Entries, order: str, start: int) -> bytes:
    """The directory that begins at `start` of a block, and its values; no other follows it."""
    table, values = struct.pack(order + "H", len(entries)), b""
    behind = start + 2 + 12 * len(entries) + 4
    for tag, (kind, count, value) in sorted(entries.items()):
        table += struct.pack(order + "HHI", tag, kind, count)
        if len(value) > 4:
            table += struct.pack(order + "I", behind + len(values))
            values += value + bytes(len(value) % 2)
        else:
            table += value.ljust(4, b"\0")
    return table + bytes(4) + values
