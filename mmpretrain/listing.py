"""Files of sound and picture: which of them are below a folder, whatever they are called, and how to name them.

A file name is bytes. What of it is no text is kept as Python does (`os.fsdecode`), and `readable` where it is shown or
written. Imports nothing of ours.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

AUDIO_SUFFIXES = {
    ".aac", ".aif", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".mka", ".mp3", ".oga", ".ogg", ".opus", ".wav",
    ".wma",
}  # fmt: skip
VIDEO_SUFFIXES = {
    ".3g2", ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf",
    ".ogv", ".ts", ".vob", ".webm", ".wmv",
}  # fmt: skip
_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")  # categories of Unicode: control, stray byte, line and paragraph separator


class Found(NamedTuple):
    """files: sorted, each once. unread: the folders that cannot be looked into, and why. again: how many links lead to
    a file that is there under another name.
    """

    files: list[Path]
    unread: list[str]
    again: int


def find_files(folder: Path, suffixes: Collection[str]) -> Found:
    """Every file anywhere below `folder` with one of these suffixes, in capitals or not, links to folders followed.

    Hidden files (`._*` of macOS too) are left out. A file that several names lead to is found once, under its own name
    where that is below the folder. A link that leads nowhere is found: reading it says so.
    """
    files, links, unread = {}, [], []
    entered, tops = set(), deque([os.fspath(folder)])
    while tops:
        # Links to folders wait until all that is really there has been seen.
        for at, folders, names in os.walk(tops.popleft(), onerror=lambda error: unread.append(_why_unread(error))):
            real = os.path.realpath(at)
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            folders.sort()
            tops += [path for name in folders if os.path.islink(path := os.path.join(at, name))]
            for path in (Path(at, name) for name in sorted(names) if not name.startswith(".")):
                if suffix_of(path) in suffixes and _may_be_file(path):
                    if os.path.islink(path):
                        links.append(path)
                    else:
                        files[os.path.join(real, path.name)] = path
                elif not path.suffix and os.path.islink(path) and not os.path.exists(path):
                    unread.append(f"{readable(path)} (a link that leads nowhere)")
    again = 0
    for path in links:
        real = os.path.realpath(path) if os.path.exists(path) else os.fspath(path)
        again += files.setdefault(real, path) != path
    return Found(sorted(files.values()), unread, again)


def suffix_of(path: Path) -> str:
    """In small letters, without blanks that trail it."""
    return path.suffix.rstrip().lower()


def file_url(path: str | Path) -> str:
    """A file for libav, which would take `12:30.wav` for an address."""
    return f"file:{os.fspath(path)}"


def readable(name: str | Path) -> str:
    """The name with %XX for each byte that is no text: of no character in UTF-8, or of a control character."""
    name = os.fspath(name)
    return name if name.isprintable() else "".join(map(_readable, name))


def _readable(char: str) -> str:
    if unicodedata.category(char) not in _NO_TEXT:
        return char
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))


def _may_be_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _why_unread(error: OSError) -> str:
    return f"{readable(error.filename)} ({error.strerror})"
