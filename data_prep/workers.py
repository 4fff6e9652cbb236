"""Runs a function over clips in worker processes, in order, so that no clip can take more with it than its own process.

The standard library's pool does not say which item brought a process down, nor how, and waits for ever for one that
hangs. Here every worker has a pipe of its own, a bound on its memory, and a time in which it must answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection
from typing import Any, Generic, Protocol, TypeVar

from data_prep import memory
from data_prep.faults import SetupError, is_shortage, reason

Item = TypeVar("Item")
Result = TypeVar("Result")

CRASHED = "decoding it crashes the decoder"
_AHEAD = 4  # clips a worker, begun or waiting for those before them to be handed out
_TICK_SEC = 1.0  # time is counted in such steps, so that a while in which all was stopped (Ctrl-Z) counts as one
_CRASHES = (
    signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGBUS, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS
)  # fmt: skip
# Spawned, not forked: the parent has threads (TFDS, tqdm) that a fork would leave half alive.
_SPAWN = multiprocessing.get_context("spawn")


@dataclasses.dataclass(frozen=True)
class Failed:
    """Why there is no result. again: it was the machine, not the item, so that another time may do better."""

    reason: str
    again: bool = False


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    num_workers: int,
    patience_sec: Callable[[Item], float],
    num_beside: int = 0,
) -> Iterator[tuple[Item, Result | Failed]]:
    """Yields (item, function(item)) in the order of the items, or why there is no result: see `Failed`.

    function and items must be picklable. patience_sec: how long an item may take before its process is ended. One that
    brought its process down or found too little memory is tried again alone, with the memory of all. At most a few
    items per worker are in memory at once. num_beside: so many workers of others share this machine's memory. Raises
    OSError and SetupError of the function, and RuntimeError naming the item for anything else.
    """
    todo: deque[Item] = deque(items)
    order: deque[_Job[Item]] = deque()  # what is begun, the first to be handed out first
    num_workers = min(num_workers, len(todo)) or 1
    crew = _Crew(function, num_workers, num_beside)
    try:
        while todo or order:
            while todo and len(order) < _AHEAD * num_workers:
                order.append(_Job(todo[0], patience_sec(todo.popleft())))
            first = order[0]
            if first.done:
                yield order.popleft().outcome()
                continue
            crew.give([job for job in order if job.waits])
            if crew.busy:
                crew.wait()
            else:  # the first is one to be tried alone
                crew.close()
                alone = _Crew(function, 1, last_try=True)
                try:
                    first.alone = False
                    alone.give([first])
                    while alone.busy:
                        alone.wait()
                finally:
                    alone.close()
    finally:
        crew.close()


class OrderedMap(Protocol):
    """`ordered_map` by those workers that there are, here or on other machines."""

    def __call__(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, patience_sec: Callable[[Item], float]
    ) -> Iterator[tuple[Item, Result | Failed]]: ...


@dataclasses.dataclass
class _Job(Generic[Item]):
    """An item that is begun. alone: it went wrong once and is to be tried when no other is."""

    item: Item
    patience_sec: float
    spent_sec: float = 0.0
    begun: bool = False
    alone: bool = False
    done: bool = False
    result: Any = None

    @property
    def waits(self) -> bool:
        return not (self.begun or self.alone or self.done)

    def outcome(self) -> tuple[Item, Any]:
        return self.item, self.result

    def end(self, result: Any) -> None:
        self.done, self.result = True, result


class _Crew:
    """Up to `size` workers that share the memory there is. last_try: what goes wrong is not tried again."""

    def __init__(self, function: Callable[[Any], Any], size: int, num_beside: int = 0, *, last_try: bool = False):
        self._function, self._size, self._last_try = function, size, last_try
        self._memory_bytes = memory.share_bytes(size + num_beside)
        self._idle: list[_Worker] = []
        self.busy: dict[connection.Connection, _Worker] = {}
        self._seen = time.monotonic()

    def give(self, jobs: list[_Job]) -> None:
        for job in jobs[: self._size - len(self.busy)]:
            worker = self._idle.pop() if self._idle else _Worker(self._function, self._memory_bytes)
            worker.begin(job)
            self.busy[worker.pipe] = worker

    def wait(self) -> None:
        """Until a worker answers or dies, or a moment has passed; who takes too long is ended."""
        ready = connection.wait(list(self.busy), timeout=_TICK_SEC)
        now = time.monotonic()
        passed, self._seen = min(now - self._seen, 2 * _TICK_SEC), now
        for pipe, worker in list(self.busy.items()):
            worker.job.spent_sec += passed
            if pipe in ready:
                self._hear(worker)
            elif worker.job.spent_sec > worker.job.patience_sec:
                minutes = worker.job.patience_sec / 60
                worker.job.end(Failed(f"was given up after {minutes:.0f} min: the decoder hangs or is far too slow"))
                self._dismiss(worker)

    def close(self) -> None:
        for worker in [*self._idle, *self.busy.values()]:
            worker.kill()
        self._idle, self.busy = [], {}

    def _hear(self, worker: _Worker) -> None:
        job = worker.job
        try:
            kind, said = worker.pipe.recv()
        except (EOFError, OSError):
            code = worker.kill(grace_sec=1.0)  # its pipe ends a moment before it does
            if not worker.started and code > 0:
                raise RuntimeError(f"a worker process cannot start (exit code {code})") from None
            self._dismiss(worker)
            self._retry(job, _of_death(code))
            return
        if kind == "started":
            worker.started = True
        elif kind == "result":
            job.end(said)
            self._idle.append(self.busy.pop(worker.pipe))
        elif kind == "shortage":
            self._dismiss(worker)  # what it holds of earlier clips may be why
            self._retry(job, said)
        elif kind == "raise":
            raise said
        else:
            raise RuntimeError(f"a mistake of this program, at {str(job.item)[:300]}:\n{said}")

    def _retry(self, job: _Job, failed: Failed) -> None:
        if self._last_try:
            job.end(failed)
        else:
            job.begun, job.alone = False, True

    def _dismiss(self, worker: _Worker) -> None:
        worker.kill()
        del self.busy[worker.pipe]


class _Worker:
    """A process that waits at the other end of a pipe, and the job it has. started: it has come so far as to listen."""

    job: _Job

    def __init__(self, function: Callable[[Any], Any], memory_bytes: int):
        self.started = False
        self.pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, function, memory_bytes), daemon=True)
        self._process.start()
        theirs.close()  # so that the pipe ends when the process does

    def begin(self, job: _Job) -> None:
        job.begun, job.spent_sec, self.job = True, 0.0, job
        with contextlib.suppress(OSError):  # it died while it was idle, which will be heard
            self.pipe.send(job.item)

    def kill(self, grace_sec: float = 0.0) -> int:
        """Ends the process if it does not end by itself within the time. Returns its exit code."""
        self._process.join(grace_sec)
        self._process.kill()
        self._process.join()
        self.pipe.close()
        return self._process.exitcode


def _of_death(code: int) -> Failed:
    if code >= 0 or -code in _CRASHES:
        return Failed(CRASHED)
    name = signal.strsignal(-code)
    return Failed(f"its worker was killed, also with no other beside it ({name}: out of memory?)", again=True)


def _serve(pipe: connection.Connection, function: Callable[[Any], Any], memory_bytes: int) -> None:
    _start_worker(memory_bytes)
    pipe.send(("started", None))
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(("result", function(item)))
        except Exception as error:
            pipe.send(_described(error, memory_bytes))


def _described(error: Exception, memory_bytes: int) -> tuple[str, Any]:
    if is_shortage(error):
        if isinstance(error, MemoryError) and memory.asked_for_half(memory_bytes):
            return "shortage", Failed(f"asks for more than half of the memory at once ({reason(error)})")
        what = "memory" if not isinstance(error, OSError) else "memory or open files"
        return "shortage", Failed(f"there is not enough {what} for it, even alone ({reason(error)})", again=True)
    if isinstance(error, OSError):
        return "raise", OSError(error.errno, reason(error), error.filename)
    if isinstance(error, SetupError):
        return "raise", error
    return "mistake", "".join(traceback.format_exception(error))


def _start_worker(memory_bytes: int) -> None:
    """Leaves Ctrl-C to the parent, drops what native libraries print, and ends with the parent, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    memory.bound(memory_bytes)
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
