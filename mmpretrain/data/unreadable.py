"""Clips that cannot be read, and how many there may be before nobody should go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote

from mmpretrain.files import DamagedError

SHOWN = 50  # clips that a message names

Place = tuple[str, str, int]  # folder of the corpus, split, record


class UnreadableClipError(ValueError):
    """What is stored of a clip is damaged."""

    def __init__(self, clip_id: str, place: Place, why: str):
        self.clip_id, self.place = clip_id, place
        self._said = clip_id, place, why
        folder, split, record = place
        super().__init__(
            f"clip {clip_id!r} (record {record} of {split!r} in {folder}) cannot be read: {why}; prepare the corpus "
            "again"
        )

    def __reduce__(self):
        return UnreadableClipError, self._said


class Board(Protocol):
    """Where the clips that were found are noted, those of all processes of a run (`parallel.processes.Board`)."""

    def put(self, key: str, note: str) -> int:
        """How many notes there are, with this one the last; 0 where one of that key is there already."""

    def notes(self) -> list[str]: ...


class OwnBoard(dict[str, str]):
    """That of a process by itself."""

    def put(self, key: str, note: str) -> int:
        before = len(self)
        self.setdefault(key, note)
        return len(self) if len(self) > before else 0

    def notes(self) -> list[str]:
        return list(self.values())


class Unreadable:
    """Counts the clips that were passed over because they could not be read, each once, whichever process meets it.

    share: how many there may be, as a share of the clips of the corpora that were opened; 0: none. say: takes a line
    about each, in the process that is the first to meet it. board: of all processes, where there are several. Pickled,
    for a worker, it is one that only collects what its own process is to be told.
    """

    def __init__(self, share: float = 0.0, say: Callable[[str], None] | None = None, board: Board | None = None):
        self.share, self._say, self._board = share, say, OwnBoard() if board is None else board
        self._num_clips: dict[tuple[str, str], int] = {}
        self._met: set[Place] = set()

    def __reduce__(self):
        return Found, ()

    def open(self, corpus_dir: str, split: str, num_clips: int) -> None:
        self._num_clips[corpus_dir, split] = num_clips

    def lose(self, num_clips: int, why: str) -> None:
        """Raises DamagedError where so many clips in damaged files are too many; they are counted as they are met."""
        if num_clips > self.share * sum(self._num_clips.values()):
            raise DamagedError(why)
        if self._say:
            self._say(f"{num_clips} clips will be passed over: {why}")

    @property
    def clip_ids(self) -> list[str]:
        return sorted(self._board.notes())

    def add(self, error: UnreadableClipError) -> None:
        """Raises ValueError, with the list, if there are now too many: in the process that meets one more than that."""
        if error.place in self._met:
            return
        self._met.add(error.place)
        found = self._board.put("/".join(map(_key, error.place)), error.clip_id)
        of_all = sum(self._num_clips.values())
        if found > self.share * of_all:
            clip_ids = self.clip_ids
            more = f" and {len(clip_ids) - SHOWN} more" if len(clip_ids) > SHOWN else ""
            raise ValueError(
                f"{len(clip_ids)} of {of_all} clips cannot be read, more than data.max_unreadable_share={self.share} "
                f"allows: {', '.join(map(repr, clip_ids[:SHOWN]))}{more}; the last: {error}"
            ) from error
        if found and self._say:
            self._say(f"passed over, {found} of {of_all} clips so far: {error}")


def _key(part: str | int) -> str:
    return quote(str(part), safe="")


class Found(Unreadable):
    """What a worker passes over."""

    def __init__(self):
        super().__init__()
        self._errors: list[UnreadableClipError] = []

    def add(self, error: UnreadableClipError) -> None:
        self._errors.append(error)

    def taken(self) -> list[UnreadableClipError]:
        """Those since the last time."""
        errors, self._errors = self._errors, []
        return errors
