"""What the benchmarks of speed share: clocks, contestants in processes of their own that take turns, tables."""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import platform
import re
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mmpretrain.output import at_least_1


def make_parser(module: str, description: str, *, turns: int, turn_sec: float) -> argparse.ArgumentParser:
    """What every benchmark of speed can be told: device, dtype, turns, where to write. module: benchmarks.MODULE."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}", description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16 on a GPU, else float32")
    parser.add_argument("--turns", type=at_least_1, default=turns, help=f"for the medians (default {turns})")
    parser.add_argument(
        "--turn-sec", type=float, default=turn_sec, help=f"least length of a turn (default {turn_sec:g})"
    )
    parser.add_argument("--json", default="", metavar="FILE", help="write the figures there too")
    return parser


def dtype_of(args: argparse.Namespace) -> str:
    """As told, or the one that is usual on the device."""
    return args.dtype or ("bfloat16" if args.device == "cuda" else "float32")


class Turn(NamedTuple):
    """Seconds of one repetition, by the clock on the wall and of this process's processors."""

    wall_sec: float
    cpu_sec: float


def timed(work: Callable[[], Any], repetitions: int = 1) -> Turn:
    """The mean of so many repetitions of `work`, which waits for what it started only after the last.

    work: returns a function that waits, or None.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repetitions):
        wait = work()
    if wait is not None:
        wait()
    return Turn((time.perf_counter() - wall) / repetitions, (time.process_time() - cpu) / repetitions)


def median(turns: Sequence[Turn]) -> Turn:
    return Turn(*map(statistics.median, zip(*turns, strict=True)))


def alternate(works: Mapping[str, Callable[[], Any]], turns: int, turn_sec: float) -> dict[str, Turn]:
    """The median repetition of each of `works` (see `timed`) in this process, one after another, so many turns.

    Each runs once unmeasured, which compiles it, and then for about `turn_sec` a turn.
    """
    counts = {}
    for name, work in works.items():
        timed(work)
        counts[name] = repetitions_in(turn_sec, timed(work).wall_sec)
    measured: dict[str, list[Turn]] = {name: [] for name in works}
    for _ in range(turns):
        for name, work in works.items():
            measured[name].append(timed(work, counts[name]))
    return {name: median(each) for name, each in measured.items()}


def repetitions_in(turn_sec: float, one_sec: float) -> int:
    return max(1, round(turn_sec / max(one_sec, 1e-9)))


class Contestant(Protocol):
    """One way of doing the work, made in a process of its own. about: whatever it has to say of itself before."""

    about: dict[str, Any]

    def run(self, repetitions: int) -> Turn:
        """The mean of so many repetitions."""

    def peak_bytes(self) -> int:
        """The most memory that the device, or on a CPU the process, has needed so far."""


class ContestantError(Exception):
    """A contestant could not go on. Holds the traceback of its process, or why there is none."""

    @property
    def reason(self) -> str:
        """The line that names the error."""
        lines = str(self).splitlines()
        return next((line for line in reversed(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)), lines[-1])


@dataclasses.dataclass
class Remote:
    """A contestant in a process of its own: alone there, its memory and processor time are its own."""

    process: Any
    pipe: Connection
    about: dict[str, Any]

    @classmethod
    def start(cls, make: Callable[..., Contestant], *arguments: Any) -> Remote:
        """make: a class or function of a module, made there as make(*arguments). Raises ContestantError."""
        context = multiprocessing.get_context("spawn")
        pipe, other = context.Pipe()
        process = context.Process(target=_serve, args=(other, make, arguments), daemon=True)
        process.start()
        other.close()
        return cls(process, pipe, _answer(pipe))

    def run(self, repetitions: int) -> Turn:
        self.pipe.send(repetitions)
        return _answer(self.pipe)

    def stop(self) -> int:
        """Ends the process. Returns its peak memory in bytes."""
        self.pipe.send(None)
        peak = _answer(self.pipe)
        self.process.join()
        return peak


def _answer(pipe: Connection) -> Any:
    try:
        kind, value = pipe.recv()
    except EOFError:
        raise ContestantError("its process ended without a word, as one that is out of memory does") from None
    if kind == "failed":
        raise ContestantError(value)
    return value


def _serve(pipe: Connection, make: Callable[..., Contestant], arguments: Sequence[Any]) -> None:
    try:
        contestant = make(*arguments)
        pipe.send(("about", contestant.about))
        while (repetitions := pipe.recv()) is not None:
            pipe.send(("turn", contestant.run(repetitions)))
        pipe.send(("peak", contestant.peak_bytes()))
    except Exception:
        pipe.send(("failed", traceback.format_exc().strip()))


def take_turns(contestants: Mapping[str, Remote], turns: int, turn_sec: float) -> dict[str, Turn]:
    """The median repetition of each, one contestant after another, for about `turn_sec` each time."""
    counts = {name: repetitions_in(turn_sec, each.run(1).wall_sec) for name, each in contestants.items()}
    measured: dict[str, list[Turn]] = {name: [] for name in contestants}
    for _ in range(turns):
        for name, each in contestants.items():
            measured[name].append(each.run(counts[name]))
    return {name: median(each) for name, each in measured.items()}


def machine() -> str:
    """The computer in words. Which accelerator there is, a contestant says."""
    return f"{os.cpu_count()} cores of {platform.machine()}, load {os.getloadavg()[0]:.1f}"


def or_dash(value: float | None, form: str, unit: str = "") -> str:
    """A figure for a table; "-" where there is none."""
    return "-" if value is None else f"{value:{form}}{unit}".strip()


def write_json(path: str, rows: Any) -> None:
    """The figures as JSON, for whoever reads many; nothing where the path is empty."""
    if path:
        Path(path).write_text(json.dumps(rows, indent=1) + "\n")
