"""The zip layout of `torch.save`: where each entry lies. Entries are stored as they are, each once, none over another.

Read by hand, because what Python's `zipfile` makes of a hostile directory is unbounded: it believes sizes, overlaps and
double names. Here nothing is copied and an entry's checksum is tested when it is asked for.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

ENTRY, DIRECTORY_ENTRY, DIRECTORY_END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
END_64, LOCATOR_64 = b"PK\x06\x06", b"PK\x06\x07"
END_SIZE, COMMENT_SIZE, LOCATOR_SIZE, ENTRY_SIZE, DIRECTORY_ENTRY_SIZE = 22, 2**16, 20, 30, 46
FULL_32 = 2**32 - 1  # the number stands in the zip64 part
EXTRA_64, STORED, ENCRYPTED = 1, 0, 1
MAX_DIRECTORY_BYTES = 2**24  # about 200,000 entries; a checkpoint has one a tensor
CHECKED_AT_ONCE = 2**24


class Entry(NamedTuple):
    """Bytes `start` to `start + size` of the file, whose CRC-32 is `crc`."""

    name: str
    start: int
    size: int
    crc: int


def read_directory(data: memoryview) -> dict[str, Entry]:
    """Every entry of the zip by its name. Raises ValueError for anything that `torch.save` does not write."""
    first, last = _directory(data)
    entries: dict[str, Entry] = {}
    for entry in _entries(data, first, last):
        if entry.name in entries:
            raise ValueError(f"it has two entries {entry.name[:60]!r}")
        entries[entry.name] = entry
    end = 0
    for entry in sorted(entries.values(), key=lambda entry: entry.start):
        # The header of the entry, at least, lies between it and the one before.
        if entry.start - ENTRY_SIZE < end or entry.start + entry.size > first:
            raise ValueError(
                f"it is damaged or cut off (entry {entry.name[:60]!r} lies over another, or beyond the end)"
            )
        end = entry.start + entry.size
    return entries


def checked(data: memoryview, entry: Entry) -> memoryview:
    """The bytes of an entry. Raises ValueError if they are not those whose checksum the directory has."""
    found, crc = data[entry.start : entry.start + entry.size], 0
    for start in range(0, entry.size, CHECKED_AT_ONCE):
        crc = zlib.crc32(found[start : start + CHECKED_AT_ONCE], crc)
    if crc != entry.crc:
        raise ValueError(f"it is damaged (entry {entry.name[:60]!r} is not what its checksum is of)")
    return found


def _directory(data: memoryview) -> tuple[int, int]:
    """Where the directory begins and ends."""
    tail = bytes(data[-(END_SIZE + COMMENT_SIZE) :])
    end = tail.rfind(DIRECTORY_END, 0, len(tail) - END_SIZE + len(DIRECTORY_END))
    if end < 0:
        raise ValueError("it is damaged or cut off (the directory at its end is missing)")
    size, first = struct.unpack_from("<II", tail, end + 12)
    locator = len(data) - len(tail) + end - LOCATOR_SIZE
    if locator >= 0 and data[locator : locator + 4] == LOCATOR_64:
        (place,) = struct.unpack_from("<Q", data, locator + 8)
        if place > locator - 56 or data[place : place + 4] != END_64:
            raise ValueError("it is damaged (the end of its directory is not where it says)")
        size, first = struct.unpack_from("<QQ", data, place + 40)
    if size > MAX_DIRECTORY_BYTES:
        raise ValueError(f"its directory of {size} bytes is larger than {MAX_DIRECTORY_BYTES}")
    if first + size > len(data):
        raise ValueError("it is damaged or cut off (its directory reaches beyond its end)")
    return first, first + size


def _entries(data: memoryview, position: int, last: int) -> Iterator[Entry]:
    while position < last:
        header = bytes(data[position : min(last, position + DIRECTORY_ENTRY_SIZE)])
        if len(header) < DIRECTORY_ENTRY_SIZE or header[:4] != DIRECTORY_ENTRY:
            raise ValueError("it is damaged (its directory)")
        flags, method = struct.unpack_from("<HH", header, 8)
        crc, packed, size, names, extras, comments = struct.unpack_from("<IIIHHH", header, 16)
        (place,) = struct.unpack_from("<I", header, 42)
        after = position + DIRECTORY_ENTRY_SIZE
        position = after + names + extras + comments
        if position > last:
            raise ValueError("it is damaged (its directory)")
        if method != STORED or flags & ENCRYPTED:
            raise ValueError(
                f"its entries are {'encrypted' if flags & ENCRYPTED else 'compressed'}, which torch.save never does"
            )
        name = bytes(data[after : after + names]).decode("utf-8", "replace")
        extra = bytes(data[after + names : after + names + extras])
        size, packed, place = _large(extra, size, packed, place)
        if packed != size:
            raise ValueError(f"entry {name[:60]!r} has {packed} bytes, but {size} are claimed")
        if place + ENTRY_SIZE > len(data) or data[place : place + 4] != ENTRY:
            raise ValueError(f"it is damaged or cut off (entry {name[:60]!r} is not where the directory says)")
        own_names, own_extras = struct.unpack_from("<HH", data, place + 26)
        yield Entry(name, place + ENTRY_SIZE + own_names + own_extras, size, crc)


def _large(extra: bytes, *numbers: int) -> Iterator[int]:
    """The numbers of an entry, those that are too large for their place from its zip64 part."""
    large = iter(())
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == EXTRA_64:
            large = (number for (number,) in struct.iter_unpack("<Q", extra[4 : 4 + length // 8 * 8]))
        extra = extra[4 + length :]
    for number in numbers:
        if number == FULL_32:
            number = next(large, None)
            if number is None:
                raise ValueError("it is damaged (its directory)")
        yield number
