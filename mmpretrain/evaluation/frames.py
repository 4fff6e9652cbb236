"""Figures of what is said of every frame of clips: accuracy, and the error rate of the sequence of units.

The sequence is what is left when repeats are put together: `a a b b b a` is a, b, a. Its error rate is the Levenshtein
distance between the predicted and the true sequence over the length of the true one, of all clips together, as a word
error rate is; it may be above 1. Frames whose truth is not known count nowhere. A class that stands for silence is
taken out of both sequences after repeats are put together, so that it still parts two equal units.

A figure is the mean over draws of the labelled clips. Its 95 % interval knows of other speakers (clips, where there are
no two known speakers) and of other draws: see `intervals.py`.

Dims: N clips, T frames, D draws, U units that are resampled, B resamples.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from mmpretrain.evaluation.comparison import RESAMPLES, resampled_units
from mmpretrain.evaluation.intervals import bounds, reach
from mmpretrain.randomness import generator


@dataclasses.dataclass(frozen=True)
class Counts:
    """Of each clip, int64 [N]: its known frames, those that are right, its true units, and the errors among them."""

    frames: np.ndarray
    right: np.ndarray
    units: np.ndarray
    errors: np.ndarray

    @property
    def accuracy(self) -> float:
        """Of all frames."""
        return float(self.right.sum() / max(1, self.frames.sum()))

    @property
    def error(self) -> float:
        """Of all units."""
        return float(self.errors.sum() / max(1, self.units.sum()))


def count(labels: Sequence[np.ndarray], predictions: Sequence[np.ndarray], silence: int | None) -> Counts:
    """labels: int [T] of each clip, -1 where nothing is known. predictions: int [T or more], with padding at the end.

    silence: the class that is left out of sequences. Raises ValueError for predictions that are shorter than a clip.
    """
    known, right, sequences, answers = [], [], [], []
    for true_T, said_T in zip(labels, predictions, strict=True):
        if len(said_T) < len(true_T):
            raise ValueError(f"a clip of {len(true_T)} frames has predictions of {len(said_T)}")
        known_T = true_T >= 0
        true, said = true_T[known_T], said_T[: len(true_T)][known_T]
        known.append(len(true))
        right.append(int((true == said).sum()))
        sequences.append(collapsed(true, silence))
        answers.append(collapsed(said, silence))
    units = np.array([len(sequence) for sequence in sequences], np.int64)
    return Counts(np.array(known, np.int64), np.array(right, np.int64), units, distances(sequences, answers))


def collapsed(ids_T: np.ndarray, silence: int | None = None) -> np.ndarray:
    """The sequence without repeats, and then without silence."""
    kept = ids_T[np.flatnonzero(np.diff(ids_T, prepend=-2))] if len(ids_T) else ids_T
    return kept if silence is None else kept[kept != silence]


def distances(firsts: Sequence[np.ndarray], seconds: Sequence[np.ndarray]) -> np.ndarray:
    """Levenshtein's, int64 [N]: the fewest insertions, deletions and substitutions that make one of the other.

    Of all pairs at once, a row of the usual table at a time.
    """
    (first_NI, rows_N), (second_NJ, columns_N) = _padded(firsts, -1), _padded(seconds, -2)
    pairs, steps = np.arange(len(rows_N)), np.arange(second_NJ.shape[1] + 1)
    row = np.tile(steps, (len(pairs), 1))
    found_N = columns_N.copy()  # of a first without anything
    for i in range(1, first_NI.shape[1] + 1):
        changed = row[:, :-1] + (second_NJ != first_NI[:, i - 1 : i])
        row = np.concatenate([np.full((len(pairs), 1), i), np.minimum(row[:, 1:] + 1, changed)], axis=1)
        row = np.minimum.accumulate(row - steps, axis=1) + steps  # insertions, any number of them at once
        found_N = np.where(rows_N == i, row[pairs, columns_N], found_N)
    return found_N


def _padded(sequences: Sequence[np.ndarray], padding: int) -> tuple[np.ndarray, np.ndarray]:
    """int [N, longest], and their lengths [N]."""
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    made = np.full((len(sequences), int(lengths.max(initial=0))), padding, np.int64)
    for i, sequence in enumerate(sequences):
        made[i, : len(sequence)] = sequence
    return made, lengths


@dataclasses.dataclass(frozen=True)
class Rates:
    """The error rates of a classifier on N clips, of D draws of the clips that it has learned from.

    errors_DN, units_N: as in `Counts`. clip_ids, speakers: "" where nobody knows who speaks.
    """

    errors_DN: np.ndarray
    units_N: np.ndarray
    clip_ids: Sequence[str]
    speakers: Sequence[str]

    @property
    def of_draws(self) -> np.ndarray:
        """float64 [D]."""
        return self.errors_DN.sum(1) / max(1, self.units_N.sum())

    def figure(self) -> dict[str, float]:
        """{"mean", "low", "high"}: the mean over draws, and its interval (`intervals.reach`)."""
        mean = float(self.of_draws.mean())
        reached = reach(self._resamples(), self._num_units, self.of_draws)
        return {"mean": mean, **bounds(mean, reached, highest=max(1.0, mean) if reached is None else math.inf)}

    def fewer_than(self, other: Rates) -> dict[str, float]:
        """How many times as many errors the other has on the same clips, by the same resamples and draws.

        {"mean", "low", "high"}, the interval on the scale of logarithms. Without an error there is no ratio: infinite.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = float(other.of_draws.mean() / self.of_draws.mean())
            of_resamples = np.log(other._resamples()) - np.log(self._resamples())
            of_draws = np.log(other.of_draws) - np.log(self.of_draws)
        if not (math.isfinite(mean) and np.isfinite(of_resamples).all() and np.isfinite(of_draws).all()):
            return {"mean": mean, "low": 0.0, "high": math.inf}
        reached = reach(of_resamples, self._num_units, of_draws)
        if reached is None:
            return {"mean": mean, "low": 0.0, "high": math.inf}
        return {"mean": mean, "low": mean * math.exp(-reached), "high": mean * math.exp(reached)}

    @property
    def _num_units(self) -> int:
        return int(resampled_units(self.clip_ids, self.speakers)[0].max(initial=0)) + 1

    def _resamples(self) -> np.ndarray:
        """float64 [B]: the mean rate of the draws on other speakers."""
        unit_N, _ = resampled_units(self.clip_ids, self.speakers)
        count = self._num_units
        errors_U = np.bincount(unit_N, self.errors_DN.mean(0), minlength=count)
        units_U = np.bincount(unit_N, self.units_N, minlength=count)
        drawn_BU = generator(0, "evaluation/bootstrap", count).integers(count, size=(RESAMPLES, count))
        return errors_U[drawn_BU].sum(1) / np.maximum(1, units_U[drawn_BU].sum(1))
