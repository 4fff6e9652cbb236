"""How what a head says is read and written: chances of classes, levels of a scale, or a number.

Dims: C values, K moments.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from mmpretrain.config import TaskConfig
from mmpretrain.predict.colours import colours

LIKELY = 0.5  # from here on a class that does not exclude others, or a level or a higher one, is said to be there
NONE = "none"


@dataclasses.dataclass(frozen=True)
class Reading:
    """task: whose head it is. kind: of its labels. names: of the C values. low, high: between which values lie."""

    task: str
    kind: str
    names: tuple[str, ...]
    low: float = 0.0
    high: float = 1.0

    @staticmethod
    def of(task: TaskConfig) -> Reading:
        """Raises ValueError for a task whose head says nothing that could be read."""
        if task.kind == "embedding":
            raise ValueError(
                f"--task={task.name}: its head says where a clip lies among others, not what is seen or heard in it; "
                f"`mmpretrain.load_encoder(DIR).outputs(...).answers[{task.name!r}]` is that point"
            )
        if task.classes:
            return Reading(task.name, task.kind, tuple(task.classes))
        return Reading(task.name, task.kind, (task.name,), *task.range)

    @property
    def is_number(self) -> bool:
        return self.kind in ("value", "values")

    @property
    def adds_up(self) -> bool:
        """Whether the values are chances of classes that exclude one another."""
        return not self.is_number and self.kind != "classes"

    def found(self, values_C: np.ndarray) -> list[int]:
        """Which classes are said to be there: of those that exclude one another one, of levels the middle one."""
        if self.kind == "ordinal":
            above = np.cumsum(values_C[::-1])[::-1][1:]
            return [int((above > LIKELY).sum())]
        if self.adds_up:
            return [int(values_C.argmax())]
        return [] if self.is_number else np.flatnonzero(values_C > LIKELY).tolist()

    def label(self, values_C: np.ndarray) -> str:
        """Of classes the name of what is found; of several they are told apart by +."""
        return "+".join(self.names[k] for k in self.found(values_C)) or NONE

    def text(self, values_C: np.ndarray) -> str:
        """In a few words, for people."""
        if self.is_number:
            return f"{self.task} {values_C[0]:.2f}"
        found = [f"{self.names[k]} {100 * values_C[k]:.0f} %" for k in self.found(values_C)]
        return ", ".join(found) or f"{NONE} of {', '.join(self.names)}"

    def colour(self, values_C: np.ndarray) -> tuple[int, int, int]:
        """Of the class that is found."""
        found = self.found(values_C)
        return self.colours[found[0] if found else int(values_C.argmax())]

    @property
    def colours(self) -> list[tuple[int, int, int]]:
        """Of each of the values."""
        return colours(2)[1:] if self.is_number else colours(len(self.names))

    def shares(self, values_KC: np.ndarray) -> np.ndarray:
        """[K, C]: the values from 0, the lowest, to 1, the highest."""
        return np.clip((values_KC - self.low) / (self.high - self.low), 0, 1)

    def fields(self, values_C: np.ndarray) -> dict[str, Any]:
        """As JSON has them."""
        if self.is_number:
            return {"value": round(float(values_C[0]), 4)}
        found = {"label": self.label(values_C)} if self.adds_up else {
            "labels": [self.names[k] for k in self.found(values_C)]
        }  # fmt: skip
        return found | {"probabilities": self.named(values_C)}

    def named(self, values_C: np.ndarray) -> dict[str, float]:
        """Each value by its name."""
        return {name: round(float(x), 4) for name, x in zip(self.names, values_C, strict=True)}

    @property
    def columns(self) -> list[str]:
        """The head of what `row` has."""
        return ["value"] if self.is_number else ["label", *self.names]

    def row(self, values_C: np.ndarray) -> list[Any]:
        """As CSV has them."""
        rounded = [round(float(x), 4) for x in values_C]
        return rounded if self.is_number else [self.label(values_C), *rounded]

    @property
    def about(self) -> dict[str, Any]:
        """What it is of, for whoever reads JSON later."""
        of = {"range": [self.low, self.high]} if self.is_number else {"classes": list(self.names)}
        return {"task": self.task, "kind": self.kind} | of
