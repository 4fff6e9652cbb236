"""Runs a function over clips in worker processes, in order, so that neither a crash in a decoder nor a killed parent
leaves a mess behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 8  # clips begun per worker before the first of them is asked for


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], num_workers: int
) -> Iterator[tuple[Item, Result | None]]:
    """Yields (item, function(item)) in the order of the items; None for an item that brought its process down.

    function and items must be picklable. At most a few items per worker are in memory at once.
    """
    todo, begun = deque(items), deque()
    pool = _pool(min(num_workers, len(todo) or 1))
    try:
        while todo or begun:
            try:
                while todo and len(begun) < _AHEAD * num_workers:
                    begun.append((todo[0], pool.submit(function, todo[0])))
                    todo.popleft()
                item, future = begun[0]
                result = future.result()
                begun.popleft()
            except BrokenProcessPool:
                # Any of those begun may have done it: the first is tried alone, the others begin anew.
                todo.extendleft(other for other, _ in reversed(begun))
                begun.clear()
                item = todo.popleft()
                result = _alone(function, item)
                pool = _pool(num_workers)
            yield item, result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _alone(function: Callable[[Item], Result], item: Item) -> Result | None:
    with _pool(1) as pool:
        try:
            return pool.submit(function, item).result()
        except BrokenProcessPool:
            return None


def _pool(num_workers: int) -> ProcessPoolExecutor:
    # Spawned, not forked: the parent has threads (TFDS, tqdm) that a fork would leave half alive.
    return ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"), initializer=_start_worker)


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent, drops what native libraries print, and ends with the parent, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
