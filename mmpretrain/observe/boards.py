"""The records of a run on a board, TensorBoard's event files or Weights & Biases: both show what `metrics.jsonl` holds.

Numbers are shown under their own names by step; the texts of the first record under `run/...` once.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpretrain.files import write_text

WANDB_MISSING = (
    "observe.wandb_project={!r} needs Weights & Biases, which is not installed: pip install 'mmpretrain-jax[wandb]', "
    "or leave the field empty"
)


class TensorBoard:
    """Event files of one stage in `folder`."""

    def __init__(self, folder: Path):
        self._folder = folder

    def begin(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes the files anew from the stage's records so far, so that none of a killed attempt appears twice."""
        from tensorboardX.event_file_writer import EventsWriter  # the one that writes at once, without a thread
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._writer = EventsWriter(str(self._folder / "events"))
        # A TensorBoard that is open now forgets what it has read of the files that were here.
        self._writer.write_event(Event(wall_time=time.time(), session_log=SessionLog(status=SessionLog.START)))
        for record in records:
            self._add(record)
        self._writer.flush()

    def write(self, record: Mapping[str, Any]) -> None:
        self._add(record)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, record: Mapping[str, Any]) -> None:
        from tensorboardX import summary
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        numbers, texts = _split(record)
        values = [summary.scalar(name, value).value[0] for name, value in numbers.items()]
        values += [summary.text(name, text).value[0] for name, text in texts.items()]
        event = Event(step=record["step"], wall_time=record["time/unix_sec"], summary=Summary(value=values))
        self._writer.write_event(event)


class Wandb:
    """One run a stage in Weights & Biases, which a restart goes on with; its files are under `folder`.

    The run's id is drawn once and kept there. After a restart, steps that the run has already are not sent again: their
    values are the same.
    """

    def __init__(self, folder: Path, project: str, run: str, stage: str, config: Mapping[str, Any]):
        if importlib.util.find_spec("wandb") is None:
            raise ValueError(WANDB_MISSING.format(project))
        self._folder, self._project, self._run_name, self._stage, self._config = folder, project, run, stage, config

    def begin(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Joins or starts the run. Raises ValueError where Weights & Biases lets nobody in."""
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        id_file = self._folder / "id"
        if not id_file.exists() or not re.fullmatch(rb"[0-9a-f]{16}", id_file.read_bytes()):
            write_text(id_file, uuid.uuid4().hex[:16])
        try:
            self._run = wandb.init(
                project=self._project, id=id_file.read_text(), resume="allow", dir=self._folder, group=self._run_name,
                name=f"{self._run_name} {self._stage}", job_type=self._stage, config=dict(self._config),
                settings=wandb.Settings(console="off"),
            )  # fmt: skip
        except wandb.errors.Error as error:
            raise ValueError(
                f"observe.wandb_project={self._project!r}: {error}; log in with `wandb login`, set WANDB_MODE=offline, "
                "or leave the field empty"
            ) from error
        for record in records:
            self.write(record)

    def write(self, record: Mapping[str, Any]) -> None:
        numbers, texts = _split(record)
        if texts:
            self._run.summary.update(texts)
        if record["step"] >= self._run.step:
            self._run.log(numbers, step=record["step"])

    def close(self) -> None:
        self._run.finish()


def _split(record: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Numbers and texts of a record; what was not finite is left out."""
    shown = {name: value for name, value in record.items() if name not in ("stage", "step", "time/unix_sec")}
    numbers = {name: value for name, value in shown.items() if isinstance(value, int | float)}
    return numbers, {name: value for name, value in shown.items() if isinstance(value, str)}
