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
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from mmpretrain.data.shared import Receiver, Sender, portable, read_shared, shared
from mmpretrain.data.unreadable import Unreadable, UnreadableClipError

Asked = TypeVar("Asked")  # usually a PlannedBatch
Loaded = TypeVar("Loaded")  # usually a Batch

# What was loaded, or the error with its traceback; and the clips that were passed over.
Answer = tuple[Any, tuple[Exception, str] | None, list[UnreadableClipError]]

AHEAD = 2  # what each worker has to do or has done, at most
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}  # for the caller to obey, also where a group gets them
_START = "import sys; sys.path[:] = {path}; from mmpretrain.data.workers import serve; serve({pipe}, {work})"
# Workers are the parallelism: threads of BLAS beside them make the filterbank several times slower.
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def ahead(make: Callable[[int], Loaded], start: int, stop: int, *, num_threads: int) -> Any:
    """An iterator of grain's over make(start), ..., make(stop - 1), in this order, to be closed.

    So many threads begin at once, each at most `AHEAD` ahead of the caller; 0: the caller's own makes them. What `make`
    raises is raised in its turn.
    """
    import grain

    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=AHEAD * num_threads)
    made = iter(grain.MapDataset.range(start, stop).map(make).to_iter_dataset(options))
    made.start_prefetch()
    return made


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
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        self._answers: Any = None  # grain's
        with contextlib.ExitStack() as on_error, shared((load, unreadable)) as work:
            on_error.callback(self.close)
            for _ in range(num_workers):
                self._workers.append(_Worker(work))
                self._free.put(self._workers[-1])
            on_error.pop_all()

    def map(self, plan: Sequence[Asked], start: int, stop: int) -> Iterator[tuple[Asked, Loaded]]:
        """(asked, load(asked)) of plan[start], ..., plan[stop - 1] in this order, each worker at most `AHEAD` ahead.

        They begin at once. Raises what `load` raises when it is its turn, ChildProcessError where a worker died. To be
        called once.
        """

        def answer(step: int) -> tuple[Asked, Answer]:  # in a thread, of which there are as many as workers
            asked, worker = plan[step], self._free.get()
            try:
                return asked, worker.answer(asked)
            finally:
                self._free.put(worker)

        self._answers = ahead(answer, start, stop, num_threads=len(self._workers))
        return self._loaded(self._answers)

    def _loaded(self, answers: Iterator[tuple[Asked, Answer]]) -> Iterator[tuple[Asked, Loaded]]:
        for asked, (loaded, error, found) in answers:
            for clip in found:
                self._unreadable.add(clip)
            if error is not None:
                raise error[0] from WorkerError(error[1])
            yield asked, loaded
            del loaded  # so that its memory is free as soon as the caller has let it go

    def close(self) -> None:
        if self._answers is not None:
            self._answers.close()
        for worker in self._workers:
            worker.kill()
        for _ in self._workers:
            self._free.get().close()  # when no thread waits for it any more
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

    def answer(self, asked: Any) -> Answer:
        """Waits for it. Raises ChildProcessError where the process is gone."""
        try:
            self._pipe.send((asked, self._receiver.let_go()))
            return self._receiver.receive()
        except (EOFError, ConnectionError):
            code = self._process.wait()
        how = f"was killed ({signal.strsignal(-code)}: out of memory?)" if code < 0 else f"ended with code {code}"
        raise ChildProcessError(
            f"a process that loads clips {how}; the same command continues, with less memory where data.num_workers is "
            "smaller"
        )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self._pipe.close()


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
