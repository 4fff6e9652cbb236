"""The rates of a training loop since the last log: step time, waiting for input, throughput, use of the chips."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from mmpretrain.observe.wall_time import WallTime, shares
from mmpretrain.records import FRAME_RATE_HZ


class StepClock:
    """Put every training step inside `step`, and call `rates` when logging.

    Steps run asynchronously on the device, so the time of a single one means little. Fetching the metrics to log waits
    for the device; call `rates` after that, and they are true.

    wall: says where time went; rates leave out evaluation, saving and compilation. step_flops(num_clips,
    num_frames): of a step on such a global batch, padding included. peak_flops_per_sec: of all devices together, None
    where it is not known.
    """

    def __init__(
        self,
        wall: WallTime,
        step_flops: Callable[[int, int], float] = lambda num_clips, num_frames: 0.0,
        peak_flops_per_sec: float | None = None,
    ):
        self.wall, self._step_flops, self._peak = wall, step_flops, peak_flops_per_sec
        self._compiled: set[tuple[int, int]] = set()
        self._restart()

    def resume(self, useful_sec: float) -> None:
        """To be called when the run goes on from a checkpoint, which was made after `useful_sec` of useful steps."""
        self.wall.undo(useful_sec)
        self._restart()

    def _restart(self) -> None:
        self._before = self.wall.seconds()
        self._steps = self._frames = self._clips = 0
        self._flops = 0.0

    @contextlib.contextmanager
    def step(self, num_clips: int, num_frames: int, real_share: float) -> Iterator[None]:
        """Around starting a step on a global batch [num_clips, num_frames], of whose frames `real_share` is no padding.

        The first step of a shape compiles.
        """
        shape = num_clips, num_frames
        with contextlib.nullcontext() if shape in self._compiled else self.wall.during("compilation"):
            yield
        self._compiled.add(shape)
        self._steps += 1
        self._clips += num_clips
        self._frames += real_share * num_clips * num_frames
        self._flops += self._step_flops(num_clips, num_frames)

    def rates(self) -> dict[str, float]:
        """Means per step and per second since the last call, if there was a step, and the stage's goodput so far."""
        seconds = self.wall.seconds()
        goodput = {f"goodput/{part}": share for part, share in shares(seconds).items()}
        if not self._steps:
            return goodput
        waited = seconds["input_wait"] - self._before["input_wait"]
        elapsed = max(waited + seconds["useful_steps"] - self._before["useful_steps"], 1e-9)
        rates = {
            "time/step_sec": elapsed / self._steps,
            "time/input_wait_sec": waited / self._steps,
            "throughput/frames_per_sec": self._frames / elapsed,
            "throughput/clips_per_sec": self._clips / elapsed,
            "throughput/audio_hours_per_hour": self._frames / FRAME_RATE_HZ / elapsed,
        }
        if self._peak is not None:
            rates["throughput/mfu"] = self._flops / elapsed / self._peak
        self._restart()
        return rates | goodput
