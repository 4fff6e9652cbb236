"""The processes of a run: how they find each other, wait for each other and end together.

A process that fails tells the others why, one that is lost is missed by process 0, and all end with a line
that names it.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import itertools
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn, TypeVar

from mmpretrain.output import BRIEF, one_line

Value = TypeVar("Value")

ENVIRONMENT = ("MMPRETRAIN_COORDINATOR", "MMPRETRAIN_NUM_PROCESSES", "MMPRETRAIN_PROCESS_ID")
AUTO = "auto"  # as a coordinator: whatever `jax.distributed.initialize` finds out by itself
JOIN_SEC = 300  # how long the processes of a run may take to start
POLL_SEC = 1.0
BUG_CODE = 1  # what Python itself leaves with
STOPPED_CODE = 75  # EX_TEMPFAIL: stopped on demand and saved; launchers give the command again
FOREVER_MS = 30 * 24 * 3600 * 1000  # a wait ends when the others arrive, or with the process when one of them is lost

_THERE = "ALREADY_EXISTS"  # what an error says of a key that is set a second time
# What an error says when another process is gone. It does not say which one: `_Watch` finds that out.
_PEER_LOST = re.compile(
    r"Gloo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|coordination|heartbeat|barrier", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Which process of how many this is. coordinator: HOST:PORT where process 0 answers, or `AUTO`."""

    coordinator: str
    num_processes: int = 0
    process_id: int = 0


def find_place(
    coordinator: str | None, num_processes: int | None, process_id: int | None, environ: Mapping[str, str]
) -> Place | None:
    """From the command line, else `ENVIRONMENT`, else what a launcher known to JAX has set; None: the only process.

    Raises ValueError for half of an answer.
    """
    given = {name: environ[name] for name in ENVIRONMENT if environ.get(name)}
    options = zip(ENVIRONMENT, (coordinator, num_processes, process_id), strict=True)
    given |= {name: str(value) for name, value in options if value is not None}
    if given.get(ENVIRONMENT[0]) == AUTO:
        return Place(AUTO)
    if given:
        missing = [name for name in ENVIRONMENT if name not in given]
        options = ("--coordinator=HOST:PORT", "--num_processes=N", "--process_id=I")
        if missing:
            lacks = ", ".join(f"{option} or {name}" for option, name in zip(options, ENVIRONMENT, strict=True)
                              if name in missing)  # fmt: skip
            raise ValueError(f"{', '.join(given)} is set, but a run of several processes needs {lacks} too")
        address, count, index = (given[name] for name in ENVIRONMENT)
        if not re.fullmatch(r".+:\d+", address):
            raise ValueError(f"{ENVIRONMENT[0]}={address!r}; it must be HOST:PORT of process 0, or {AUTO!r}")
        if not (count.isdecimal() and index.isdecimal() and 0 <= int(index) < int(count)):
            raise ValueError(
                f"{ENVIRONMENT[2]}={index!r} of {ENVIRONMENT[1]}={count!r}; processes are numbered from 0 to N - 1"
            )
        return Place(address, int(count), int(index)) if int(count) > 1 else None
    several = (
        environ.get("SLURM_STEP_NUM_TASKS", "1") != "1",  # of `srun`; in the batch script itself there is one process
        environ.get("OMPI_COMM_WORLD_SIZE", "1") != "1",
        "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ,
        "," in environ.get("TPU_WORKER_HOSTNAMES", ""),
    )
    return Place(AUTO) if any(several) else None


def initialize(place: Place | None, *, lost_after_sec: int) -> None:
    """Joins the other processes of the run, if there are any. To be called once, before JAX is used.

    Each process uses all the devices that it sees. One that is not heard of for `lost_after_sec` is lost, and the run
    ends. Raises ValueError where JAX finds no run to join.
    """
    if place is None:
        return
    import jax

    # JAX's own would take SIGTERM, which `stopping.py` handles, and knows of no other signal.
    jax.config.update("jax_enable_preemption_service", False)
    # JAX's heartbeats only stand by: when they miss a process they end this one without saying much. They have been
    # seen to do so after little more than half of their time.
    settings = {"initialization_timeout": JOIN_SEC, "heartbeat_timeout_seconds": 4 * lost_after_sec + 30}
    if place.coordinator != AUTO:
        settings |= {
            "coordinator_address": place.coordinator, "num_processes": place.num_processes,
            "process_id": place.process_id, "cluster_detection_method": "deactivate",
        }  # fmt: skip
        print(f"mmpretrain: process {place.process_id} of {place.num_processes} joins the run at {place.coordinator}, "
              f"for at most {JOIN_SEC} s", file=sys.stderr, flush=True)  # fmt: skip
    try:
        jax.distributed.initialize(**settings)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"no run to join ({error}); start every process with --coordinator=HOST:PORT --num_processes=N "
            f"--process_id=I, or set {', '.join(ENVIRONMENT)}"
        ) from error
    if jax.process_count() > 1:
        global _watch
        _watch = _Watch(_client(), jax.process_index(), jax.process_count(), lost_after_sec)
        _watch.start()
        # Before JAX's own end, which is registered above: a thread that is in its client while Python ends aborts.
        atexit.register(_end_watch)


@contextlib.contextmanager
def together(explain: Callable[[BaseException], tuple[int, str]]) -> Iterator[None]:
    """To be put around all that a run does, so that its processes end together.

    A process that comes to the end without an error, or because the run was asked to stop (all processes raise that),
    waits here for the others. A process that fails otherwise tells the others and ends at once; they hear of it within
    seconds and end too.

    explain: from what was raised to the exit code and a line about it; `STOPPED_CODE` is a run that was asked to stop.
    """
    try:
        yield
    except BaseException as error:
        code, line = explain(error)
        if _watch is not None and code != STOPPED_CODE:
            _watch.fail(error, code, line)
        _finish()
        raise
    _finish()


def when_leaving(work: Callable[[], None]) -> None:
    """`work` is called if this process ends in a hurry: because it failed, or another one did or is lost."""
    _last.append(work)


def leave(code: int, line: str) -> NoReturn:
    """Ends this process at once, from any of its threads, and the others with what it says."""
    if _watch is not None:
        _watch.fail_at_once(code, line)
    with contextlib.suppress(Exception):  # nobody may read it any more
        print(f"mmpretrain: {line}", file=sys.stderr, flush=True)
    os._exit(code)


def on_main(work: Callable[[], Value]) -> Value:
    """Process 0 calls `work`; all processes wait for what it returns and get it, as JSON carries it."""
    import jax

    if jax.process_count() == 1:
        return work()
    key = f"mmpretrain/value/{next(_values)}"
    if jax.process_index() == 0:
        value = work()
        _client().key_value_set(key, json.dumps(value))
        return value
    return json.loads(_client().blocking_key_value_get(key, FOREVER_MS))


def gather(value: Value) -> list[Value]:
    """The values of all processes, as JSON carries them, in the order of the processes."""
    import jax

    if jax.process_count() == 1:
        return [value]
    folder = f"mmpretrain/gathered/{next(_gathered)}"
    _client().key_value_set(f"{folder}/{jax.process_index():06d}", json.dumps(value))
    barrier()
    return [json.loads(text) for _, text in sorted(_client().key_value_dir_get(f"{folder}/"))]


class Board:
    """Notes that the processes of a run leave for each other, without waiting for anybody. All make it at one point of
    their program."""

    def __init__(self):
        self._folder = f"mmpretrain/board/{next(_boards)}"

    def put(self, key: str, note: str) -> int:
        """How many notes there are, with this one the last; 0 where one of that key is there already."""
        try:
            _client().key_value_set(f"{self._folder}/notes/{key}", note)
        except Exception as error:
            if _THERE not in str(error):
                raise
            return 0
        return _client().key_value_increment(f"{self._folder}/count", 1)

    def notes(self) -> list[str]:
        """Those of all processes."""
        return [note for _, note in _client().key_value_dir_get(f"{self._folder}/notes/")]


def barrier() -> None:
    """Waits until all processes are here, on the host alone: no device takes part."""
    import jax

    if jax.process_count() > 1:
        _client().wait_at_barrier(f"mmpretrain/barrier/{next(_barriers)}", FOREVER_MS)


_watch: _Watch | None = None
_last: list[Callable[[], None]] = []
_values, _gathered, _barriers, _boards = (itertools.count() for _ in range(4))


def _client():
    # JAX has no public name for the key-value store and the barriers of its coordination service.
    from jax._src.distributed import global_state

    return global_state.client


def _finish() -> None:
    if _watch is not None:
        import jax

        barrier()
        _end_watch()
        jax.distributed.shutdown()


def _end_watch() -> None:
    global _watch
    if _watch is not None:
        _watch.end()
        _watch = None


class _Watch(threading.Thread):
    """Says every second that this process is alive, and hears whether another one failed or is lost."""

    def __init__(self, client, index: int, count: int, lost_after_sec: int):
        super().__init__(name="watch", daemon=True)
        self._client, self._index, self._count, self._lost_after_sec = client, index, count, lost_after_sec
        self._over, self._leaving = threading.Event(), threading.Lock()
        self._beats: dict[str, tuple[str, float]] = {}  # of process 0: process -> its last sign and when it came

    def run(self) -> None:
        beat = 0
        while not self._over.wait(POLL_SEC):
            try:
                beat += 1
                self._client.key_value_set(f"mmpretrain/alive/{self._index}", str(beat), allow_overwrite=True)
                if self._index == 0:
                    self._find_lost()
                failure = self._failure()
            except Exception as error:
                if self._over.is_set():
                    return
                self._leave(1, f"process 0 of {self._count} is lost: {one_line(error, BRIEF)}")
            if failure:
                self._leave(*failure)

    def end(self) -> None:
        self._over.set()
        self.join()

    def fail(self, error: BaseException, code: int, line: str) -> NoReturn:
        """Tells the others that this process ends, and ends it."""
        if _PEER_LOST.search(str(error)):
            time.sleep(self._lost_after_sec + 5 * POLL_SEC)  # `run` finds out who it was and ends this process
        if code == BUG_CODE:
            traceback.print_exception(error)
        self.fail_at_once(code, line)

    def fail_at_once(self, code: int, line: str) -> NoReturn:
        what, others = f"process {self._index} of {self._count} failed: {line}", None
        with contextlib.suppress(Exception):
            if not self._tell(code, what):
                others = self._failure()
        self._leave(*(others or (code, what)))

    def _tell(self, code: int, what: str) -> bool:
        """Says why all processes end. False where another one failed before this one: then that is why."""
        try:
            self._client.key_value_set("mmpretrain/failed/first", json.dumps({"code": code, "what": what}))
        except Exception as error:
            if _THERE not in str(error):
                raise
            return False
        return True

    def _failure(self) -> tuple[int, str] | None:
        """What another process said: with which code, and with which line, this one ends."""
        for _, told in self._client.key_value_dir_get("mmpretrain/failed/"):
            failure = json.loads(told)
            return failure["code"], f"{failure['what']}; process {self._index} ends with it"
        return None

    def _find_lost(self) -> None:
        now = time.monotonic()
        for key, beat in self._client.key_value_dir_get("mmpretrain/alive/"):
            process = key.rsplit("/", 1)[1]
            if self._beats.get(process, ("", 0))[0] != beat:
                self._beats[process] = beat, now
            elif now - self._beats[process][1] > self._lost_after_sec:
                self._tell(1, f"process {process} of {self._count} is lost: not heard of for {self._lost_after_sec} s")

    def _leave(self, code: int, message: str) -> NoReturn:
        """Ends this process at once: anything more orderly waits for the others."""
        self._leaving.acquire()  # never released: the first to come here ends the process
        with contextlib.suppress(Exception):  # nobody may read it any more
            print(f"mmpretrain: {message}", file=sys.stderr, flush=True)
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        if self._index == 0:
            time.sleep(3 * POLL_SEC)  # the others hear of it from process 0
        for work in _last:
            with contextlib.suppress(Exception):
                work()
        os._exit(code)
