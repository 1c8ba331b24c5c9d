"""EXIF (CIPA DC-008): a TIFF block, that is, directories of entries.

It is read and written here. `PIL.Image.Exif` warns of damaged blocks, and a warning cannot be held back for one of
several threads; and of text that is not ASCII, as of many a name or a ©, it writes question marks.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

_ORIENTATION = 0x0112
# What is kept stays true of the pixels and shows nothing of them. Not among it: sizes and places, which turning makes
# wrong; previews; and MakerNote, each maker's own, with previews, and places counted from the start of the old block.
_MAIN = {
    0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C,  # description, maker, model, software, date, artist, host
    0x4746, 0x8298, *range(0x9C9B, 0x9CA0),  # rating, copyright; title, comment, author, … as Windows writes them
}  # fmt: skip
_TAKEN = {
    0x829A, 0x829D, 0x8822, 0x8824, 0x8827, *range(0x8830, 0x8836), *range(0x9201, 0x920B),  # exposure, lens, light
    0x9000, 0x9003, 0x9004, *range(0x9010, 0x9013), 0x9286, *range(0x9290, 0x9293),  # version, dates, comment
    0xA001, 0xA215, 0xA217, 0xA300, 0xA301, *range(0xA401, 0xA40B), 0xA40C,  # colour space, how the camera was set
    0xA420, *range(0xA430, 0xA43D),  # names and numbers of the picture, the owner, the camera and its lens
}  # fmt: skip
_BELOW = {0x8769: _TAKEN, 0x8825: range(32)}  # the directories whose places the main one holds; the latter is of GPS
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 10: 8}  # of the types, in bytes
_Entries = dict[int, tuple[int, int, bytes]]  # by tag: type, count, value


def taken_apart(block: bytes) -> tuple[int, bytes | None] | None:
    """The orientation that an EXIF block tells (0: none), and a new block of what is kept, None where that is nothing.

    None for a block that is no EXIF. Whatever the bytes are, nothing is raised.
    """
    block = block.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0")  # WebPs have it with and without, some twice
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return None

    def number(value: bytes) -> int:
        return int.from_bytes(value, "little" if order == "<" else "big")

    main = _directory(block, order, number(block[4:8]), {_ORIENTATION, *_MAIN, *_BELOW})
    orientation = number(main.pop(_ORIENTATION)[2]) if _ORIENTATION in main else 0
    kept = b""  # the main directory comes last, since it says where the others are
    for tag, wanted in _BELOW.items():
        if tag in main and (entries := _directory(block, order, number(main.pop(tag)[2]), wanted)):
            main[tag] = 4, 1, struct.pack(order + "I", 8 + len(kept))
            kept += _written(entries, order, 8 + len(kept))
    if not main:
        return orientation, None
    place = 8 + len(kept)
    return orientation, block[:4] + struct.pack(order + "I", place) + kept + _written(main, order, place)


def _directory(block: bytes, order: str, start: int, wanted: Collection[int]) -> _Entries:
    """The wanted entries of the directory at `start` that lie within the block."""
    entries: _Entries = {}
    room = len(block)  # entries that share their bytes would make a small block a large one
    if not 8 <= start <= len(block) - 2:
        return entries
    (count,) = struct.unpack_from(order + "H", block, start)
    for position in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, amount = struct.unpack_from(order + "HHI", block, position)
        length = _SIZES.get(kind, 0) * amount
        (place,) = (position + 8,) if length <= 4 else struct.unpack_from(order + "I", block, position + 8)
        if tag in wanted and tag not in entries and 0 < length <= room and place + length <= len(block):
            entries[tag] = kind, amount, block[place : place + length]
            room -= length
    return entries


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
