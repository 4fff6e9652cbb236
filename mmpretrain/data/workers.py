"""Loading in processes of its own, whose large arrays the caller gets without a copy (`shared.py`).

A worker imports no JAX and starts in a third of a second. It is not forked, for the caller has threads, and it does not
read the caller's program again, as Python's own pools do. It ends when its pipe does: with the iterator, or with the
caller, however that ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection
from typing import Any, Generic, TypeVar

from mmpretrain.data.shared import Receiver, Sender, portable, read_shared, shared
from mmpretrain.data.unreadable import Unreadable

Asked = TypeVar("Asked")  # usually a PlannedBatch
Loaded = TypeVar("Loaded")  # usually a Batch

AHEAD = 2  # what a worker has to do or has done, at most
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}  # for the caller to obey, also where a group gets them
_START = "import sys; sys.path[:] = {path}; from mmpretrain.data.workers import serve; serve({pipe}, {work})"
# Workers are the parallelism: threads of BLAS beside them make the filterbank several times slower.
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class WorkerError(Exception):
    """What went wrong in a worker, as its traceback says; the cause of the error that the caller meets."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Workers(contextlib.AbstractContextManager, Generic[Asked, Loaded]):
    """`num_workers` processes that call `load`, which must pickle, as must what it takes and gives.

    Large arrays of `load`, such as those of a table, are in memory once for all of them. unreadable: is told of the
    clips that workers pass over, in the order of what was asked; `load` has the same object.
    """

    def __init__(self, load: Callable[[Asked], Loaded], num_workers: int, unreadable: Unreadable | None = None):
        self._unreadable = unreadable
        self._workers: list[_Worker] = []
        with contextlib.ExitStack() as on_error, shared((load, unreadable)) as work:
            on_error.callback(self.close)
            for _ in range(num_workers):
                self._workers.append(_Worker(work))
            on_error.pop_all()

    def map(self, asked: Iterable[Asked]) -> Iterator[tuple[Asked, Loaded]]:
        """(asked, load(asked)) in this order; each worker is at most `AHEAD` ahead, and begins at once.

        Raises what `load` raises when it is the turn of what it was asked for, ChildProcessError where a worker died.
        """
        asked, begun = iter(asked), deque()
        for worker in AHEAD * self._workers:
            self._begin(worker, asked, begun)
        return self._answers(asked, begun)

    def _begin(self, worker: _Worker, asked: Iterator[Asked], begun: deque[tuple[_Worker, Asked]]) -> None:
        for one in asked:
            worker.ask(one)
            begun.append((worker, one))
            return

    def _answers(self, asked: Iterator[Asked], begun: deque[tuple[_Worker, Asked]]) -> Iterator[tuple[Asked, Loaded]]:
        while begun:
            worker, one = begun.popleft()
            loaded, error, found = worker.answer()
            self._begin(worker, asked, begun)
            for clip in found:
                self._unreadable.add(clip)
            if error is not None:
                raise error[0] from WorkerError(error[1])
            yield one, loaded
            del loaded  # so that its memory is free as soon as the caller has let it go

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        self._workers = []

    def __exit__(self, *_) -> None:
        self.close()


class _Worker:
    """A process, and this end of its pipe."""

    def __init__(self, work: int):
        self._pipe, theirs = multiprocessing.Pipe()
        self._receiver = Receiver(self._pipe)
        # Blocked from its first moment on, and ever after: a new process inherits that.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            start = _START.format(path=sys.path, pipe=theirs.fileno(), work=work)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", start], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno(), work],
                env=os.environ | _ENVIRONMENT,
            )  # fmt: skip
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()  # so that the pipe ends when the process does

    def ask(self, asked: Any) -> None:
        with contextlib.suppress(OSError):  # it died, which `answer` says
            self._pipe.send((asked, self._receiver.let_go()))

    def answer(self) -> Any:
        try:
            return self._receiver.receive()
        except (EOFError, ConnectionError):
            code = self._process.wait()
        how = f"was killed ({signal.strsignal(-code)}: out of memory?)" if code < 0 else f"ended with code {code}"
        raise ChildProcessError(
            f"a process that loads clips {how}; the same command continues, with less memory where data.num_workers is "
            "smaller"
        )

    def end(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.wait()


def serve(pipe: int, work: int) -> None:
    """The life of a worker. The numbers are those of its open files."""
    caller = connection.Connection(pipe)
    sender = Sender(caller)
    load, unreadable = read_shared(work)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            asked, let_go = caller.recv()
            sender.reuse(let_go)
            loaded = error = None
            try:
                loaded = load(asked)
            except Exception as raised:
                error = portable(raised), "".join(traceback.format_exception(raised))
            sender.send((loaded, error, unreadable.taken() if unreadable else []))
