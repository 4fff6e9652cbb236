"""What programs say: errors in one line, wrong counts, and the end of one whose output nobody reads any more."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
from collections.abc import Iterator
from typing import TextIO

BRIEF = 300  # characters are enough of what a library says in many
UNREAD_CODE = 141  # what shells report of a program that SIGPIPE ended, as it ends others


def one_line(error: BaseException, limit: int | None = None) -> str:
    """All that an error says, in one line of at most `limit` characters; else the kind of the error."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of what a library says, where more lines are advice or a trace; else the kind of its error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def at_least_1(text: str) -> int:
    """A count, as a type of `argparse`. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


@contextlib.contextmanager
def until_unread() -> Iterator[None]:
    """Around a program: once what reads its output has gone, as `head` does, it ends with UNREAD_CODE and no word.

    What would end it with another code than 0 does so.
    """
    code = UNREAD_CODE
    try:
        try:
            yield
        except SystemExit as end:
            code = end.code or UNREAD_CODE
            raise
        finally:
            sys.stdout.flush()  # what Python itself would do last, and not in silence
    except BrokenPipeError as error:
        if not is_unread(error):
            raise
        for stream in filter(_has_no_reader, (sys.stdout, sys.stderr)):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for what is in its buffer
        sys.exit(code)


def is_unread(error: BaseException) -> bool:
    """Whether an error is of what this process prints, which nobody reads any more, and of no other pipe."""
    return isinstance(error, BrokenPipeError) and any(map(_has_no_reader, (sys.stdout, sys.stderr)))


def _has_no_reader(stream: TextIO) -> bool:
    poll = select.poll()
    try:
        poll.register(stream.fileno(), 0)
    except (OSError, ValueError, AttributeError):  # closed, none, or no file
        return False
    return any(what & (select.POLLERR | select.POLLHUP) for _, what in poll.poll(0))
