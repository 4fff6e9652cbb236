"""Progress of long stages and one-line messages: a bar on a terminal, plain lines now and then in a log file.

Everything goes to standard error, from process 0 unless one alone knows of it; standard output stays free for results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

LINE_EVERY_SEC = 30.0


def is_main_process() -> bool:
    """Whether this process speaks for the run. In a run of several, ask only after `jax.distributed.initialize`."""
    import jax  # not above: `mmpretrain status` does without

    return jax.process_index() == 0


def log(message: str, *, of_process: bool = False) -> None:
    """Prints one line with the time of day; a bar that is on the terminal moves down for it.

    of_process: it is about something that this process alone came upon.
    """
    if of_process or is_main_process():
        tqdm.write(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr)
        sys.stderr.flush()


class _Bar(tqdm):
    monitor_interval = 0  # no watching thread


class Progress:
    """How far a stage is. A context manager: `with Progress("round 1", total=500, unit="step") as progress: ...`

    Where standard error is no terminal, prints a line at most every `LINE_EVERY_SEC` seconds and one at the end.
    """

    def __init__(self, title: str, total: int | None = None, unit: str = "item", initial: int = 0):
        self._title, self._total, self._unit = title, total, unit
        self._initial = self._done = initial
        self._shown: dict[str, float] = {}
        self._bar = None
        self._start_sec = self._last_line_sec = time.monotonic()
        if is_main_process() and sys.stderr.isatty():
            self._bar = _Bar(desc=title, total=total, initial=initial, unit=f" {unit}", dynamic_ncols=True)

    def update(self, count: int = 1, **shown: float) -> None:
        """Moves on by `count`; keyword arguments are figures to show beside, e.g. `loss=3.2`, kept until replaced."""
        self._done += count
        self._shown |= shown
        if self._bar is not None:
            if shown:
                self._bar.set_postfix_str(self._figures(), refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._last_line_sec >= LINE_EVERY_SEC:
            self._line()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None:
            self._line()

    def _figures(self) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in self._shown.items())

    def _line(self) -> None:
        self._last_line_sec = time.monotonic()
        rate = (self._done - self._initial) / max(self._last_line_sec - self._start_sec, 1e-9)
        of_total = "" if self._total is None else f"/{self._total}"
        figures = f", {self._figures()}" if self._shown else ""
        units = self._unit + ("es" if self._unit.endswith("s") else "s")
        log(f"{self._title}: {self._done}{of_total} {units}, {rate:.3g} {units}/s{figures}")


def track(items: Iterable[Item], title: str, total: int | None = None, unit: str = "item") -> Iterator[Item]:
    """Yields the items while showing how many are done."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    with Progress(title, total, unit) as progress:
        for item in items:
            yield item
            progress.update()
