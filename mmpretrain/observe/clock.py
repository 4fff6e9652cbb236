"""Where the time of a training loop goes: step time, waiting for input, and throughput since the last log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator


class StepClock:
    """Call `tick` after every step and `rates` when logging; wrap what is no training in `paused`.

    Steps run asynchronously on the device, so a single tick means little; the rates are true because fetching the
    logged metrics waits for the device. Call `rates` after that.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self._now = now
        self._restart()

    def _restart(self) -> None:
        self._start_sec = self._now()
        self._wait_sec = 0.0
        self._steps = self._frames = self._clips = 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around drawing the next batch: its time counts as input wait (and as step time)."""
        start_sec = self._now()
        yield
        self._wait_sec += self._now() - start_sec

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around evaluation, saving and the like: its time counts nowhere."""
        start_sec = self._now()
        yield
        self._start_sec += self._now() - start_sec

    def tick(self, num_frames: int, num_clips: int) -> None:
        """One step over `num_frames` real frames of `num_clips` clips (of all processes) has been started."""
        self._steps += 1
        self._frames += num_frames
        self._clips += num_clips

    def rates(self) -> dict[str, float]:
        """Means per step and per second since the last call; empty if there was no step."""
        if not self._steps:
            return {}
        elapsed_sec = max(self._now() - self._start_sec, 1e-9)
        rates = {
            "time/step_sec": elapsed_sec / self._steps,
            "time/input_wait_sec": self._wait_sec / self._steps,
            "throughput/frames_per_sec": self._frames / elapsed_sec,
            "throughput/clips_per_sec": self._clips / elapsed_sec,
        }
        self._restart()
        return rates
