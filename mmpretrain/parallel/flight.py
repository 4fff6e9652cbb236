"""Work in flight: the devices do the next thing while the host looks at what came of the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Begun = TypeVar("Begun")  # arrays that may not be there yet


def one_behind(begun: Iterable[Begun]) -> Iterator[Begun]:
    """The same things in the same order, each when the next has been begun. An error in beginning one comes last."""
    before: list[Begun] = []
    try:
        for newest in begun:
            yield from before
            before = [newest]
    except Exception:
        yield from before
        raise
    yield from before
