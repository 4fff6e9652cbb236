"""Whose fault it is when something goes wrong: the one rule of preparation.

- Of one clip, whatever decoding it, looking for its face or cropping raise: `ClipError`, a row of the report.
- Of the machine at that moment, too little memory or too many open files (`is_shortage`): never remembered of a file,
  tried again alone, and once more by the next run.
- Of the disk that is written to, or of what the user gave: OSError and ValueError (`SetupError` from the midst of a
  clip), one line and exit code 2.
- Everything else is a mistake of this program: a traceback that names the clip.
"""

from __future__ import annotations

import contextlib
import errno
import traceback
from collections.abc import Iterator
from pathlib import Path

import av

_SHORTAGES = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class ClipError(Exception):
    """A clip that cannot be used, and why. lasting: its file is like that; another look would find the same."""

    def __init__(self, reason: str, lasting: bool = True):
        super().__init__(reason)
        self.lasting = lasting


class SetupError(ValueError):
    """What stands in the way of every clip, not of the one at hand."""


@contextlib.contextmanager
def of_the_clip() -> Iterator[None]:
    """Whatever is raised inside becomes a ClipError, except for what is no clip's fault."""
    try:
        yield
    except (ClipError, SetupError):
        raise
    except Exception as error:
        if is_shortage(error):
            raise
        # What nobody foresaw may be a mistake of this program or of a library, and better with their next version.
        foreseen = isinstance(error, ValueError | av.FFmpegError) and not isinstance(error, OSError)
        raise ClipError(reason(error), lasting=foreseen) from error


def is_shortage(error: BaseException) -> bool:
    """Whether the machine, not the file, is why: another time or alone it may go well."""
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return True
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SHORTAGES)


def reason(error: BaseException) -> str:
    """A few words for a row of the report; of what was not foreseen also its kind and place."""
    said = " ".join((getattr(error, "strerror", None) or str(error)).split())[:200]
    if isinstance(error, ValueError | OSError | MemoryError | av.FFmpegError):
        return said or type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {said}{place}"
