"""The state of a run that was best by a validation metric, kept beside the last ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpretrain.train.checkpoint import Checkpointer
from mmpretrain.train.step import TrainState

FOLDER = "best"


class Best:
    """metric: by its full name, such as `validation/loss`; None: nothing is kept. All processes use it together."""

    def __init__(self, folder: Path, metric: str | None):
        self._saved, self._metric, self._value = Checkpointer(folder / FOLDER, keep=1), metric, None

    def known(self) -> dict[str, Any]:
        """What a checkpoint must remember of it. Waits until the best so far is whole: it must not know of another."""
        self._saved.wait()
        return {"best_by": self._metric, "best_value": self._value}

    def resume(self, known: Mapping[str, Any]) -> None:
        self._value = known["best_value"] if known["best_by"] == self._metric else None

    def offer(self, step: int, state: TrainState, values: Mapping[str, float]) -> None:
        """Keeps the state if it is better than all before it."""
        if self._metric and is_better(self._metric, values[self._metric], self._value):
            self._value = values[self._metric]
            self._saved.save(step, state, {"step": step, **values})

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The best state, placed as `like` is (its shapes are enough), and its step and metrics."""
        return self._saved.restore(like)

    def close(self) -> None:
        self._saved.close()


def is_better(metric: str, value: float, best: float | None) -> bool:
    """Losses and penalties are better when lower, all else when higher; any number is better than none."""
    if value != value:
        return False
    return best is None or (value < best if metric.endswith(("loss", "penalty")) else value > best)
