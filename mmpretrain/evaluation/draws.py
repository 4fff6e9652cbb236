"""Figures over several draws of labels, or seeds of training, with intervals that know of draws and of speakers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmpretrain.evaluation.comparison import Answers, check_same, recall_intervals, resample, units_of
from mmpretrain.evaluation.intervals import bounds, reach
from mmpretrain.evaluation.metrics import METRICS

Interval = dict[str, float]


def figures_over_draws(draws: Sequence[Answers]) -> dict[str, Interval]:
    """{metric: {"mean", "low", "high"}}, 95 %, of what was said of the same clips in each draw."""
    of_draws, units = _resampled(draws)
    return {name: _interval(*of_draws[name], units, lowest=0) for name in METRICS}


def recalls_over_draws(draws: Sequence[Answers]) -> dict[str, Interval]:
    """By class that occurs the same of its recall."""
    of_draws, units = _resampled(draws)
    return recall_intervals(draws[0].classes, *of_draws["recalls"], units)


def differences_over_draws(first: Sequence[Answers], second: Sequence[Answers]) -> dict[str, Interval]:
    """The same of the first less the second, draw by draw, by the same resamples of both.

    One that has a single draw, since nothing about it is drawn, stands beside each draw of the other.
    """
    check_same(first[0], second[0])
    (one, units), (other, _) = _resampled(first), _resampled(second)
    if len(first) != len(second) and min(len(first), len(second)) > 1:
        raise ValueError(f"{len(first)} draws do not pair with {len(second)}")
    return {
        name: _interval(*(a - b for a, b in zip(one[name], other[name], strict=True)), units, lowest=-1)
        for name in METRICS
    }


def _resampled(draws: Sequence[Answers]) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], int]:
    """By metric the values, float64 [D], and those of every resample, [D, B]; and how many units are resampled."""
    for other in draws[1:]:
        check_same(draws[0], other)
    unit_N, _ = units_of(draws[0])
    values, values_B, units = zip(*(resample(answers, unit_N) for answers in draws), strict=True)
    found = {
        name: (np.array([v[name] for v in values]), np.stack([v_B[name] for v_B in values_B]))
        for name in (*METRICS, "recalls")
    }
    return found, units[0]


def _interval(value_D: np.ndarray, value_DB: np.ndarray, units: int, *, lowest: float) -> Interval:
    mean = float(value_D.mean())
    return {"mean": mean, **bounds(mean, reach(value_DB.mean(0), units, value_D), lowest=lowest)}
