"""Metrics of a run as JSON lines: one record a line, appended by every stage, without duplicates after a resume.

A record is {"stage": "round1/pretrain", "step": 100, "time/unix_sec": ..., "train/loss": 3.2, ...}. Names that begin
with time/, throughput/, goodput/, memory/ or run/ say how, where and when it was computed; all others are the same
again when the run is repeated.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mmpretrain.files import whole_file
from mmpretrain.observe.progress import is_main_process, log


class Board(Protocol):
    """Another place where records are shown. `begin` is called first, with the records that the stage has so far."""

    def begin(self, records: Sequence[Mapping[str, Any]]) -> None: ...

    def write(self, record: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class MetricWriter:
    """Appends the records of one stage to a file; every record is on disk when `write` returns. Process 0 writes.

    facts: numbers and texts named `run/...` that are added to the first record after every start. boards: get the same
    records, those of earlier attempts first; they begin when `resume` is called (see `boards.py`).
    """

    def __init__(
        self, path: str | Path, stage: str, facts: Mapping[str, Any] | None = None, boards: Sequence[Board] = ()
    ):
        self._path, self._stage, self._facts, self._boards = Path(path), stage, dict(facts or {}), boards
        self._begun: list[Board] = []
        self._active = is_main_process()
        self.num_records = 0  # of this stage so far
        if self._active:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            damaged: list[int] = []
            records = read_metrics(self._path, damaged.append)
            if damaged:
                log(f"{self._path} is damaged: {len(damaged)} lines, of which line {damaged[0]} is the first, are no "
                    "records; they are left out")  # fmt: skip
            if damaged or (self._path.exists() and not self._path.read_bytes().endswith(b"\n")):
                _replace(self._path, records)  # a killed process left half a line

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """metrics: numbers (also 0-d arrays) by name. What is not finite is written as null: JSON has no NaN."""
        self.num_records += 1
        if not self._active:
            return
        record = {"stage": self._stage, "step": int(step), "time/unix_sec": round(time.time(), 3)}
        record |= {name: _number(value) for name, value in metrics.items()} | self._facts
        self._facts = {}
        with open(self._path, "a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        for board in self._begun:
            board.write(record)

    def resume(self, num_records: int, step: int) -> None:
        """Keeps this stage's first `num_records` records, those from before the checkpoint of `step`.

        Of a damaged file there may be fewer; none of a later step is kept.
        """
        self.num_records = num_records
        if not self._active:
            return
        records, kept, own = read_metrics(self._path), [], []
        for record in records:
            if record["stage"] != self._stage:
                kept.append(record)
            elif len(own) < num_records and record["step"] <= step:
                kept.append(record)
                own.append(record)
        if len(kept) < len(records):
            _replace(self._path, kept)
        for board in self._boards:
            board.begin(own)
            self._begun.append(board)

    def close(self) -> None:
        """Ends the boards that have begun; a run may fail before that."""
        for board in self._begun:
            board.close()


def read_metrics(path: str | Path, damaged: Callable[[int], None] = lambda line: None) -> list[dict[str, Any]]:
    """All records in the order written; none where there is no file. What is no record is passed over.

    damaged: told the number of each such line, from 1, but half a line at the end, which is what a kill leaves.
    """
    path = Path(path)
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    records = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        if (record := _record(line)) is not None:
            records.append(record)
        elif number < len(lines):
            damaged(number)
    return records


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    kinds = {"stage": str, "step": int, "time/unix_sec": int | float}
    if not isinstance(record, dict) or not all(isinstance(record.get(name), kind) for name, kind in kinds.items()):
        return None
    return record if all(isinstance(value, int | float | str | None) for value in record.values()) else None


def _number(value: Any) -> float | int | None:
    number = value if isinstance(value, int) else float(value)
    return number if math.isfinite(number) else None


def _replace(path: Path, records: list[dict[str, Any]]) -> None:
    with whole_file(path) as draft, open(draft, "w") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
        file.flush()
        os.fsync(file.fileno())
