"""A trace of a few training steps, asked for by `--profile=FIRST-LAST` or, while a run goes on, by touching a file.

Process 0 traces itself and its devices; the others are not traced.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import jax

from mmpretrain.observe.progress import is_main_process, log

TRIGGER = "profile"  # touch WORKDIR/profile
TRACES = "traces"
STEPS = 5  # how many are traced when the file is touched
LOOK_EVERY_SEC = 1.0


class Profiler:
    """A context manager around the steps of a stage; call `before` before each of them.

    steps: those that `--profile` asks for. A trace lies in WORKDIR/traces/STAGE-stepFIRST-LAST; when it is there, the
    file that was touched is removed.
    """

    def __init__(self, workdir: Path, stage: str, steps: range | None = None):
        self._trigger, self._traces = workdir / TRIGGER, workdir / TRACES
        self._stage, self._asked, self._active = stage, steps, is_main_process()
        self._tracing: range | None = None
        self._looked = -LOOK_EVERY_SEC
        self._first = self._last = 0  # of the steps that this run did

    def before(self, step: int, state: Any) -> None:
        """Begins or ends a trace where one is due. `step` is done next; `state` is what the steps before it led to."""
        if not self._active:
            return
        self._first, self._last = self._first or step, step
        if self._tracing is not None and step not in self._tracing:
            jax.block_until_ready(state)  # what was traced has run to its end
            self._stop(step - 1)
        if self._tracing is None and (wanted := self._wanted(step)) is not None:
            jax.block_until_ready(state)  # what came before is not part of it
            self._start(wanted)

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self._tracing is not None:
            self._stop(self._last)
        if self._asked is not None and kind is None and self._active:
            done = f"steps {self._first} to {self._last} were done" if self._last else "no step was left to do"
            log(f"{self._stage}: --profile={self._asked[0]}-{self._asked[-1]} traced nothing: {done}")

    def _wanted(self, step: int) -> range | None:
        if self._asked is not None and step in self._asked:
            wanted, self._asked = range(step, self._asked.stop), None
            return wanted
        if time.monotonic() - self._looked >= LOOK_EVERY_SEC:
            self._looked = time.monotonic()
            if self._trigger.exists():
                return range(step, step + STEPS)
        return None

    def _start(self, steps: range) -> None:
        self._tracing = steps
        self._folder = self._traces / f"{self._stage.replace('/', '-')}-step{steps[0]}-{steps[-1]}"
        log(f"{self._stage}: tracing steps {steps[0]} to {steps[-1]} of process 0")
        jax.profiler.start_trace(str(self._folder))

    def _stop(self, last: int) -> None:
        jax.profiler.stop_trace()
        self._tracing = None
        with contextlib.suppress(FileNotFoundError):
            self._trigger.unlink()
        log(f"{self._stage}: traced up to step {last}: {self._folder}; to open it: `pip install xprof` and `xprof "
            f"{self._folder}`, or give its .trace.json.gz to https://ui.perfetto.dev")  # fmt: skip
