"""The state of a run that was best by a validation metric, kept beside the last ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmpretrain.objectives.base import Better
from mmpretrain.train.checkpoint import Checkpointer
from mmpretrain.train.step import TrainState

FOLDER = "best"


class BestBy(NamedTuple):
    """metric: by its full name, such as `validation/loss`. better: which of its values are better."""

    metric: str
    better: Better


class Best:
    """The best state by a metric; None: nothing is kept. All processes use it together."""

    def __init__(self, folder: Path, by: BestBy | None):
        self._saved, self._by, self._value = Checkpointer(folder / FOLDER, keep=1), by, None

    def known(self) -> dict[str, Any]:
        """What a checkpoint of the run says of the best state so far.

        Waits until that state is whole on disk: a run that continues from the checkpoint will look for it.
        """
        self._saved.wait()
        return {"best_by": self._by and self._by.metric, "best_value": self._value, "best_step": self._saved.latest()}

    def resume(self, known: Mapping[str, Any]) -> None:
        """Takes up what a checkpoint says, unless it chose by another metric.

        Nor where a state of a later step is kept: it is about to be made again, and where it comes out otherwise, as
        under a recipe whose changes were accepted, the one that is kept is of no run. The next is better than that.
        """
        by, kept = self._by and self._by.metric, self._saved.latest()
        same = known["best_by"] == by and known.get("best_step", kept) == kept  # older checkpoints do not say
        self._value = known["best_value"] if same else None

    def offer(self, step: int, state: TrainState, values: Mapping[str, float]) -> None:
        """Keeps the state if it is better than all before it."""
        if self._by and is_better(values[self._by.metric], self._value, self._by.better):
            self._value = values[self._by.metric]
            self._saved.save(step, state, {"step": step, **values})

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The best state, placed as `like` is (its shapes are enough), and its step and metrics.

        Raises ValueError where there is none, as no evaluation gave a number.
        """
        self._saved.wait()
        if self._by and self._saved.latest() is None:
            raise ValueError(
                f"{self._by.metric} was a number at no evaluation, so that no state is the best; choose by another "
                "figure, or look at what it was in metrics.jsonl"
            )
        return self._saved.restore(like)

    def close(self) -> None:
        self._saved.close()


def is_better(value: float, best: float | None, better: Better) -> bool:
    """Whether a value is better than the best so far; any number is better than none, and no number than any."""
    if value != value:
        return False
    return best is None or (value < best if better == "lower" else value > best)
