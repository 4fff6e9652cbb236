"""Texts that others wrote, in whatever encoding their programs have: tables, transcripts, lists."""

from __future__ import annotations

import codecs
from pathlib import Path

GIT_LFS = b"version https://git-lfs"  # what stands in a clone instead of a file, where git-lfs was not installed
# Marks of encodings in the order in which they are told apart: that of UTF-32 begins like that of UTF-16.
BOMS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
_REMEDY = "correct it, or get the file of its makers"


def read_text(path: Path) -> str:
    """A text in UTF-8, or in what its mark says, what is none of it as Windows or else Latin-1 have it.

    Raises ValueError for a pointer of git-lfs and for what is no text.
    """
    content = path.read_bytes()
    if content.startswith(GIT_LFS):
        raise ValueError(f"{path} is a pointer of git-lfs, not the file itself; run `git lfs pull` where it was cloned")
    mark, encoding = next(((mark, name) for mark, name in BOMS if content.startswith(mark)), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        if mark:
            raise ValueError(f"{path} is not in {encoding}, as its mark says; {_REMEDY}") from None
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
    if "\0" in text:
        raise ValueError(f"{path} is no text (it has NUL in it); {_REMEDY}")
    return text
