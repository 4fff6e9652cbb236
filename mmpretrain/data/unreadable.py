"""Clips that cannot be read, and how many there may be before nobody should go on."""

from __future__ import annotations

from collections.abc import Callable

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


class Unreadable:
    """Counts, in this process, the clips that were passed over because they could not be read.

    share: how many there may be, as a share of the clips of the corpora that were opened; 0: none. say: takes a line
    about each. Pickled, for a worker, it is one that only collects what its own process is to be told.
    """

    def __init__(self, share: float = 0.0, say: Callable[[str], None] | None = None):
        self.share, self._say = share, say
        self._num_clips: dict[tuple[str, str], int] = {}
        self._found: dict[Place, str] = {}

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
        return sorted(self._found.values())

    def add(self, error: UnreadableClipError) -> None:
        """Raises ValueError, with the list, if there are now too many."""
        if error.place in self._found:
            return
        self._found[error.place] = error.clip_id
        found, of_all = self.clip_ids, sum(self._num_clips.values())
        if len(found) > self.share * of_all:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise ValueError(
                f"{len(found)} of {of_all} clips cannot be read, more than data.max_unreadable_share={self.share} "
                f"allows: {', '.join(map(repr, found[:SHOWN]))}{more}; the last: {error}"
            ) from error
        if self._say:
            self._say(f"passed over, {len(found)} of {of_all} clips so far: {error}")


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
