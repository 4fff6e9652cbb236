"""How far a figure may be trusted, and whether two classifiers differ on the same clips: intervals and paired tests.

Speakers are resampled, with all their clips; how far an interval reaches is in `intervals.py`.

All resamples are draws of one named stream, so that two classifiers on the same clips are resampled alike. An interval
is about other clips and speakers: what another seed of training would change it does not know. Nor does it know of
errors that never happened: it has no width where every clip is right.

Dims: N clips, U units (what is resampled), C classes, B resamples.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmpretrain.evaluation.intervals import bounds, reach
from mmpretrain.evaluation.metrics import METRICS, ClassificationResult, classification_metrics, figures_of
from mmpretrain.evaluation.protocols import summarize_folds
from mmpretrain.randomness import generator

RESAMPLES = 2000
NUMBERS_AT_ONCE = 2**22


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a classifier said of N test clips, each of them once.

    speakers: "" where nobody knows who speaks. labels_N, predictions_N: int class ids, in range(len(classes)).
    """

    classes: tuple[str, ...]
    clip_ids: tuple[str, ...]
    speakers: tuple[str, ...]
    labels_N: np.ndarray
    predictions_N: np.ndarray

    def __post_init__(self) -> None:
        lengths = {len(self.clip_ids), len(self.speakers), len(self.labels_N), len(self.predictions_N)}
        if len(lengths) > 1:
            raise ValueError(
                f"ids, speakers, labels and predictions must be of the same clips; their numbers: {lengths}"
            )
        if len(set(self.clip_ids)) < len(self.clip_ids):
            twice = next(clip_id for clip_id in self.clip_ids if self.clip_ids.count(clip_id) > 1)
            raise ValueError(f"clip {twice} was tested twice; a clip must be in the test part of one fold alone")

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Those of several folds, which test different clips."""
        if not parts or len({part.classes for part in parts}) > 1:
            raise ValueError("answers to join must be at least one, all over the same classes")
        texts = (sum((getattr(part, name) for part in parts), ()) for name in ("clip_ids", "speakers"))
        arrays = (np.concatenate([getattr(part, name) for part in parts]) for name in ("labels_N", "predictions_N"))
        return cls(parts[0].classes, *texts, *arrays)

    @property
    def result(self) -> ClassificationResult:
        return classification_metrics(self.labels_N, self.predictions_N, self.classes)

    @property
    def truths(self) -> list[str]:
        """The class of each clip."""
        return [self.classes[i] for i in self.labels_N]

    @functools.cached_property
    def resampled(self) -> tuple[dict[str, Any], dict[str, np.ndarray], int]:
        """What `resample` makes of it."""
        return resample(self, units_of(self)[0])

    def take(self, rows: Sequence[int]) -> Answers:
        """Of these clips, in this order."""
        texts = (tuple(values[row] for row in rows) for values in (self.clip_ids, self.speakers))
        return Answers(self.classes, *texts, self.labels_N[list(rows)], self.predictions_N[list(rows)])


def on_shared_clips(first: Answers, second: Answers) -> tuple[Answers, Answers]:
    """Both on the clips that both were tested on, in the order of the first. Raises ValueError if there is none."""
    row_of = {clip_id: row for row, clip_id in enumerate(second.clip_ids)}
    shared = [row for row, clip_id in enumerate(first.clip_ids) if clip_id in row_of]
    if not shared:
        raise ValueError(
            f"no clip was tested by both: the first tested {_some(first.clip_ids)}, the second {_some(second.clip_ids)}"
        )
    return first.take(shared), second.take([row_of[first.clip_ids[row]] for row in shared])


def intervals(answers: Answers) -> dict[str, Any]:
    """95 % intervals of all figures, ready for JSON: {metric: {"low", "high"}, "resampled", "units", "recalls"}.

    recalls: by class that occurs its recall and interval, {"mean", "low", "high"}.

    resampled: in words what was: speakers, or clips where there are no two known speakers, which makes intervals too
    narrow. units: how many of them. Of a single one nothing is known, and an interval is from 0 to 1. A class that is
    not in a resample is left out of the mean recall there.
    """
    unit_N, resampled = units_of(answers)
    value, values_B, units = resample(answers, unit_N)
    found = {name: bounds(value[name], reach(values_B[name], units)) for name in METRICS}
    recalls = recall_intervals(answers.classes, value["recalls"][None], values_B["recalls"][None], units)
    return {"resampled": resampled, "units": units, **found, "recalls": recalls}


def recall_intervals(
    classes: Sequence[str], recall_DC: np.ndarray, recall_DBC: np.ndarray, units: int
) -> dict[str, dict[str, float]]:
    """By class that occurs {"mean", "low", "high"} of its recall, over D draws and B resamples that have the class."""
    found = {}
    for c, name in enumerate(classes):
        resampled_B = recall_DBC[..., c].mean(0)
        if not np.isnan(recall_DC[:, c]).any():
            mean = float(recall_DC[:, c].mean())
            reached = reach(resampled_B[~np.isnan(resampled_B)], units, recall_DC[:, c])
            found[name] = {"mean": mean, **bounds(mean, reached)}
    return found


def figures_with_intervals(answers: Answers) -> dict[str, Any]:
    """The figures of one classifier, ready for JSON; `intervals` beside them."""
    return answers.result.as_dict() | {"intervals": intervals(answers)}


def figures_over_folds(of_folds: Sequence[Answers]) -> dict[str, Any]:
    """The same of all folds' clips together, and mean and deviation over the folds as `over_folds`."""
    return figures_with_intervals(Answers.joined(of_folds)) | {
        "over_folds": summarize_folds([answers.result for answers in of_folds])
    }


def comparisons_with(main: str, answers: Mapping[str, Answers]) -> list[dict[str, Any]]:
    """The classifier of that name against each of the others, ready for JSON: `compare`, with "first" and "second"."""
    return [
        {"first": main, "second": name, **compare(answers[main], other)}
        for name, other in answers.items()
        if name != main
    ]


def compare(first: Answers, second: Answers) -> dict[str, Any]:
    """Two classifiers on the same clips, ready for JSON.

    {metric: {"difference", "low", "high"}, "resampled", "units", "clips", "other_answers", "only_first", "only_second",
    "mcnemar_p"}: first less second, with the interval of the difference by the same resamples of both. other_answers:
    the clips of which they say different things; only_first, only_second: which that one alone has right.

    mcnemar_p: the exact two-sided probability, if both were equally good, that those clips fall so unevenly to the two
    (McNemar 1947, by the binomial distribution); 1 if there are none. It takes every clip for a draw of its own, which
    clips of one speaker are not, hence the interval counts more.

    Raises ValueError where the clips, their labels or speakers, or the classes are not the same.
    """
    from scipy.stats import binomtest  # slow to import: no command waits for it at its start

    check_same(first, second)
    unit_N, resampled = units_of(first)
    (one, ones_B, units), (other, others_B, _) = (resample(answers, unit_N) for answers in (first, second))
    found = {}
    for name in METRICS:
        difference = one[name] - other[name]
        reached = reach(ones_B[name] - others_B[name], units)
        found[name] = {"difference": difference} | bounds(difference, reached, lowest=-1)
    right, right_too = (answers.predictions_N == answers.labels_N for answers in (first, second))
    only_first, only_second = int((right & ~right_too).sum()), int((right_too & ~right).sum())
    differing = only_first + only_second
    return {
        **found, "resampled": resampled, "units": units, "clips": len(first.clip_ids),
        "other_answers": int((first.predictions_N != second.predictions_N).sum()),
        "only_first": only_first, "only_second": only_second,
        "mcnemar_p": float(binomtest(only_first, differing).pvalue) if differing else 1.0,
    }  # fmt: skip


def check_same(first: Any, second: Any) -> None:
    """Raises ValueError naming what differs in the clips, their labels or speakers. Both `Answers`, or both `Told`."""
    if first.classes != second.classes:
        raise ValueError(f"the classes differ: {', '.join(first.classes)}, and {', '.join(second.classes)}")
    if first.clip_ids != second.clip_ids:
        alone = [
            f"{len(only)} by the {which} alone ({_some(sorted(only))})"
            for which, only in (
                ("first", set(first.clip_ids) - set(second.clip_ids)),
                ("second", set(second.clip_ids) - set(first.clip_ids)),
            )
            if only
        ]
        raise ValueError(f"the two were not tested on the same clips: {', '.join(alone) or 'their order differs'}")
    for what, one, other in (
        ("label", first.truths, second.truths),
        ("speaker", first.speakers, second.speakers),
    ):
        for clip_id, said, said_too in zip(first.clip_ids, one, other, strict=True):
            if said != said_too:
                raise ValueError(f"clip {clip_id} has the {what} {said!r} for one and {said_too!r} for the other")


def units_of(answers: Answers) -> tuple[np.ndarray, str]:
    """int [N]: the unit that each clip belongs to; and in words what is resampled."""
    return resampled_units(answers.clip_ids, answers.speakers)


def resampled_units(clip_ids: Sequence[str], speakers: Sequence[str]) -> tuple[np.ndarray, str]:
    """`units_of` the clips with these ids. speakers: "" for nobody known."""
    clips, known = len(clip_ids), {speaker for speaker in speakers if speaker}
    unknown = sum(not speaker for speaker in speakers)
    if len(known) < 2:
        why = "who speaks is not known" if unknown else "all of one speaker"
        return np.arange(clips), f"{clips} clips, {why}"
    names = [f"speaker {s}" if s else f"clip {c}" for c, s in zip(clip_ids, speakers, strict=True)]
    besides = f" and {unknown} clips of nobody known" if unknown else ""
    return np.unique(names, return_inverse=True)[1], f"{len(known)} speakers{besides}"


def resample(answers: Answers, unit_N: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray], int]:
    """The figures, those of every resample, float64 [B] each, and the number of units; `recalls` are [C] and [B, C]."""
    units, classes = int(unit_N.max(initial=0)) + 1, len(answers.classes)
    result = answers.result  # looks at the ids
    cells_N = (unit_N * classes + answers.labels_N) * classes + answers.predictions_N
    confusion_UC = np.bincount(cells_N, minlength=units * classes**2).reshape(units, -1).astype(np.float64)
    draws, resamples = generator(0, "evaluation/bootstrap", units), []
    at_once = max(1, NUMBERS_AT_ONCE // units)
    for first in range(0, RESAMPLES, at_once):
        count = min(at_once, RESAMPLES - first)
        drawn = draws.integers(units, size=(count, units)) + units * np.arange(count)[:, None]
        times_BU = np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units)
        resamples.append(times_BU.astype(np.float64) @ confusion_UC)
    confusion_BCC = np.concatenate(resamples).reshape(RESAMPLES, classes, classes)
    return {name: getattr(result, name) for name in (*METRICS, "recalls")}, figures_of(confusion_BCC), units


def _some(clip_ids: Sequence[str]) -> str:
    return ", ".join(clip_ids[:3]) + (f", ... ({len(clip_ids)})" if len(clip_ids) > 3 else "")
