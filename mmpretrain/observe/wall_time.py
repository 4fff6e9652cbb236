"""Where the wall time of a stage goes, over all its attempts: what its goodput is a share of.

At every moment the stage does one thing of `PARTS`, so the parts add up to the time since it first began. They are kept
in a small file that is written anew every few seconds, so that little is lost in a kill and others can see who lives.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmpretrain.files import DamagedError, read_json, write_json
from mmpretrain.observe.progress import log

# What time goes to, in the order in which it is shown.
PARTS = {
    "useful_steps": "training steps whose outcome was kept",
    "input_wait": "waiting for the next batch",
    "compilation": "compiling the step, once a shape of batches and start",
    "startup": "making or restoring the state",
    "evaluation": "validation, its compilation and input included",
    "saving": "waiting for checkpoints",
    "redone_steps": "training steps that a kill undid, and that were done again",
    "down": "from the last sign of one attempt to the start of the next",
    "other": "everything else: opening targets, tracing, exporting the encoder",
}
SIGN_EVERY_SEC = 10.0


class WallTime:
    """A context manager around the work of a stage: begins an attempt, and keeps `file` up to date.

    file: None keeps nothing. `doing` names the part that time is going to now. now, today: clocks in seconds; the
    second goes on while no process runs.
    """

    def __init__(
        self,
        file: Path | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        today: Callable[[], float] = time.time,
    ):
        self._file, self._now, self._today = file, now, today
        self._lock, self._over = threading.Lock(), threading.Event()
        self._seconds, self._attempts, self.doing = dict.fromkeys(PARTS, 0.0), 1, "other"
        if file is not None and file.exists() and read_wall_time(file) is None:
            log(f"{file} is damaged; the time of earlier attempts is not known")
        if file is not None and (earlier := read_wall_time(file)) is not None:
            self._seconds |= earlier["seconds"]
            self._seconds["down"] += max(0.0, today() - earlier["updated"])
            self._attempts += earlier["attempts"]
        self._since = now()

    def __enter__(self) -> WallTime:
        self.save()
        if self._file is not None:
            self._sign = threading.Thread(target=self._show_life, name="wall time", daemon=True)
            self._sign.start()
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self._file is not None:
            self._over.set()
            self._sign.join()
        self.switch("")
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
            self.save()

    def switch(self, part: str) -> None:
        """From now on time goes to `part`; "": to nothing, the attempt is over."""
        with self._lock:
            if self.doing:
                self._seconds[self.doing] += self._now() - self._since
            self._since, self.doing = self._now(), part

    @contextlib.contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Inside, time goes to `part`; afterwards to what it went to before."""
        before = self.doing
        self.switch(part)
        try:
            yield
        finally:
            self.switch(before)

    def seconds(self) -> dict[str, float]:
        """By part, up to now."""
        with self._lock:
            now = {self.doing: self._now() - self._since} if self.doing else {}
            return self._seconds | {part: self._seconds[part] + more for part, more in now.items()}

    def undo(self, useful_sec: float) -> None:
        """To be called when the stage goes on from a checkpoint that was made after `useful_sec` of useful steps.

        What was useful after that is counted as lost, since those steps are done again.
        """
        with self._lock:
            lost = max(0.0, self._seconds["useful_steps"] - useful_sec)
            self._seconds["useful_steps"] -= lost
            self._seconds["redone_steps"] += lost

    def figures(self) -> dict[str, Any]:
        """For a stage's result: `wall_time_sec` of all attempts without the time between them, and the shares."""
        seconds = self.seconds()
        trained = {"goodput": shares(seconds)} if seconds["useful_steps"] else {}
        return {"wall_time_sec": round(running_sec(seconds), 1), **trained}

    def save(self) -> None:
        """Writes the file, whole or not at all."""
        if self._file is None:
            return
        content = {"attempts": self._attempts, "doing": self.doing, "updated": self._today(), "seconds": self.seconds()}
        with self._lock:
            write_json(self._file, content)

    def _show_life(self) -> None:
        while not self._over.wait(SIGN_EVERY_SEC):
            with contextlib.suppress(OSError):  # the stage itself will say what it cannot write
                self.save()


def read_wall_time(file: Path) -> dict[str, Any] | None:
    """attempts, doing ("": it ended in order), updated (seconds since 1970), seconds by part.

    None: it never began, or the file is damaged. It only informs.
    """
    try:
        wall = read_json(file, fields=("attempts", "doing", "updated", "seconds"), if_missing=None)
    except DamagedError:
        return None
    if wall is None:
        return None
    seconds = wall["seconds"]
    if not isinstance(seconds, dict) or not {"useful_steps", "down"} <= seconds.keys() <= PARTS.keys():
        return None
    numbers = [wall["attempts"], wall["updated"], *seconds.values()]
    return wall if wall["doing"] in ("", *PARTS) and all(map(is_number, numbers)) else None


def is_number(value: Any) -> bool:
    """Whether it is one, and finite."""
    return isinstance(value, int | float) and math.isfinite(value)


def running_sec(seconds: Mapping[str, float]) -> float:
    """The time of all attempts, without that between them."""
    return sum(seconds.values()) - seconds["down"]


def shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Every part's share of all time since the stage first began; they add up to 1. `useful_steps` is the goodput."""
    total = max(sum(seconds.values()), 1e-9)
    return {part: seconds.get(part, 0.0) / total for part in PARTS}
