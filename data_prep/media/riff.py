"""How long a WAV file was before it was cut off, which libav does not ask: to it a file ends where its bytes end."""

from __future__ import annotations

import struct
from pathlib import Path

# What is written into a pipe has no size that could be corrected afterwards: it says 0, or this or more (SoX
# 0x7FFFF000, FFmpeg 0xFFFFFFFF).
SIZE_UNKNOWN = 0x7FFF0000
_HEAD_BYTES = 12  # RIFF, a size, WAVE
_CHUNK = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")  # the fourth is bytes a second


def cut_off_sec(path: Path) -> float:
    """How long the sound of a WAV file is by its header, if less of it is there; else, and of other files, 0."""
    size, bytes_per_sec = path.stat().st_size, 0
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
        if (head[:4], head[8:]) != (b"RIFF", b"WAVE"):  # RF64 has its sizes elsewhere
            return 0.0
        while len(chunk := file.read(_CHUNK.size)) == _CHUNK.size:
            name, declared = _CHUNK.unpack(chunk)
            begin = file.tell()
            if name == b"data":
                cut_off = size - begin < declared < SIZE_UNKNOWN
                return declared / bytes_per_sec if cut_off and bytes_per_sec else 0.0
            if name == b"fmt " and len(said := file.read(_FORMAT.size)) == _FORMAT.size:
                bytes_per_sec = _FORMAT.unpack(said)[3]
            file.seek(begin + declared + declared % 2)
    return 0.0
