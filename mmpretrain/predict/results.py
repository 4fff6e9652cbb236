"""What was predicted of a file, and how it is written: JSON with all of it, CSV with a row for each moment."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmpretrain.predict.reading import Reading

PERSON = "person "  # and a number
VOICE = "voice"  # who is heard where nobody is seen


@dataclasses.dataclass(frozen=True)
class Moments:
    """One person over time, K windows or frames of a file. start_sec, end_sec: float [K]. values: what the head says,
    [K, C]. uses: what each was made of, "audio+video" say. boxes: [K, 4] in the middle of it, left, top, right, bottom
    of the face as shares of the picture, NaN where nobody is seen. alone: by modality the values of it alone, NaN where
    it is absent."""

    start_sec: np.ndarray
    end_sec: np.ndarray
    values: np.ndarray
    uses: tuple[str, ...]
    boxes: np.ndarray
    alone: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @staticmethod
    def join(parts: Sequence[Moments]) -> Moments:
        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])

        alone = {name: np.concatenate([part.alone[name] for part in parts]) for name in parts[0].alone}
        arrays = [joined(name) for name in ("start_sec", "end_sec", "values")]
        return Moments(*arrays, tuple(use for part in parts for use in part.uses), joined("boxes"), alone)

    def smoothed(self, seconds: float) -> Moments:
        """Each value the mean of those whose windows' middles are at most `seconds / 2` away."""
        middle = (self.start_sec + self.end_sec) / 2
        order = np.argsort(middle, kind="stable")
        edges = middle[:, None] + np.array([-0.5, 0.5]) * (seconds + 1e-6)
        first, after = np.searchsorted(middle[order], edges).T

        def mean(x_KC: np.ndarray) -> np.ndarray:
            known = ~np.isnan(x_KC)
            sums, counts = (
                np.concatenate([np.zeros((1, x_KC.shape[1])), np.cumsum(values[order], axis=0, dtype=np.float64)])
                for values in (np.where(known, x_KC, 0), known)
            )
            near = (sums[after] - sums[first]) / np.maximum(counts[after] - counts[first], 1)
            return np.where(known, near, np.nan).astype(np.float32)

        alone = {name: mean(x) for name, x in self.alone.items()}
        return dataclasses.replace(self, values=mean(self.values), alone=alone)

    @property
    def overall(self) -> np.ndarray:
        """[C], the mean over time."""
        return self.values.mean(0)


@dataclasses.dataclass(frozen=True)
class Person:
    """first_frame, boxes: where the face is in every frame since then, [T, 4] as shares; none of a voice. crops: a few,
    uint8 [S, S], as the encoder sees them."""

    name: str
    moments: Moments
    first_frame: int = 0
    boxes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 4), np.float32))
    crops: tuple[np.ndarray, ...] = ()


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Of one file. error: why there is none, or ""."""

    file: str
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    people: tuple[Person, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""


def as_json(found: Prediction, reading: Reading, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All that was found. settings: how, for whoever reads it later."""
    people = [
        {
            "person": person.name,
            "from_sec": _rounded(person.moments.start_sec[0]), "to_sec": _rounded(person.moments.end_sec[-1]),
            **reading.fields(person.moments.overall),
            "moments": [_moment(person.moments, k, reading) for k in range(len(person.moments.uses))],
        }
        for person in found.people
    ]  # fmt: skip
    head = {"file": found.file, "seconds": _rounded(found.seconds), "width": found.width, "height": found.height}
    return head | {**reading.about, **settings, "people": people, "notes": list(found.notes)}


def _moment(moments: Moments, k: int, reading: Reading) -> dict[str, Any]:
    box = moments.boxes[k]
    alone = {name: reading.named(x[k]) for name, x in moments.alone.items() if not np.isnan(x[k]).any()}
    return {
        "start_sec": _rounded(moments.start_sec[k]), "end_sec": _rounded(moments.end_sec[k]),
        **reading.fields(moments.values[k]), "uses": moments.uses[k],
        "box": None if np.isnan(box).any() else [round(float(x), 4) for x in box],
        **({"alone": alone} if moments.alone else {}),
    }  # fmt: skip


def as_csv(found: Prediction, reading: Reading) -> str:
    """A row for each moment of each person."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["file", "person", "start_sec", "end_sec", *reading.columns, "uses", "left", "top", "right", "bottom"]
    )
    for person in found.people:
        of = person.moments
        for k, values in enumerate(of.values):
            box = ["" if np.isnan(x) else round(float(x), 4) for x in of.boxes[k]]
            times = [_rounded(of.start_sec[k]), _rounded(of.end_sec[k])]
            writer.writerow([found.file, person.name, *times, *reading.row(values), of.uses[k], *box])
    return text.getvalue()


def _rounded(seconds: float) -> float:
    return round(float(seconds), 2)
