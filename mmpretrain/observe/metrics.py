"""Metrics of a run as JSON lines: one record a line, appended by every stage, without duplicates after a resume.

A record is {"stage": "round1/pretrain", "step": 100, "train/loss": 3.2, ...}. Names that begin with `time/` or
`throughput/` are timings; all others are the same again when the run is repeated.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpretrain.observe.progress import is_main_process

TIMINGS = ("time/", "throughput/")


class MetricWriter:
    """Appends the records of one stage to a file; every record is on disk when `write` returns. Process 0 writes."""

    def __init__(self, path: str | Path, stage: str):
        self._path, self._stage = Path(path), stage
        self._active = is_main_process()
        self.num_records = 0  # of this stage so far
        if self._active:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and not self._path.read_bytes().endswith(b"\n"):
                _replace(self._path, read_metrics(self._path))  # a killed process left half a line

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """metrics: numbers (also 0-d arrays) by name. What is not finite is written as null: JSON has no NaN."""
        self.num_records += 1
        if not self._active:
            return
        record = {"stage": self._stage, "step": int(step)} | {name: _number(value) for name, value in metrics.items()}
        with open(self._path, "a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def resume(self, num_records: int) -> None:
        """Keeps this stage's first records only, as many as there were when what it continues from was saved."""
        self.num_records = num_records
        if self._active and self._path.exists():
            records, kept, own = read_metrics(self._path), [], 0
            for record in records:
                own += record["stage"] == self._stage
                if record["stage"] != self._stage or own <= num_records:
                    kept.append(record)
            if len(kept) < len(records):
                _replace(self._path, kept)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """All records in the order written; none where there is no file. Half a line at the end is passed over.

    Raises ValueError for a damaged line anywhere else.
    """
    path = Path(path)
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            if line:
                records.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: no JSON record; remove the line to go on") from error
    return records


def without_timings(record: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a record that a repeated run must reproduce."""
    return {name: value for name, value in record.items() if not name.startswith(TIMINGS)}


def _number(value: Any) -> float | int | None:
    number = value if isinstance(value, int) else float(value)
    return number if math.isfinite(number) else None


def _replace(path: Path, records: list[dict[str, Any]]) -> None:
    """Rewrites the file whole or not at all."""
    draft = path.with_name(path.name + ".tmp")
    with open(draft, "w") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
