"""Figures over several draws of labels, or seeds of training, with intervals that know of draws and of speakers.

Of what is right and wrong (`Answers`), or of what was told of labels of any kind (`Told`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from mmpretrain.evaluation.comparison import Answers, check_same, recall_intervals
from mmpretrain.evaluation.intervals import bounds, reach
from mmpretrain.evaluation.told import EVERYWHERE, LIMITS, Told

Interval = dict[str, float]
Tested = TypeVar("Tested", Answers, Told)


def figures_over_draws(draws: Sequence[Tested]) -> dict[str, Interval]:
    """{metric: {"mean", "low", "high"}}, 95 %, of what was said of the same clips in each draw.

    Without low and high where a metric cannot be told in half of the resamples.
    """
    of_draws, units = _resampled(draws)
    return {
        name: _interval(*values, units, *LIMITS.get(name, EVERYWHERE))
        for name, values in of_draws.items()
        if name != "recalls"
    }


def recalls_over_draws(draws: Sequence[Answers]) -> dict[str, Interval]:
    """By class that occurs the same of its recall."""
    of_draws, units = _resampled(draws)
    return recall_intervals(draws[0].classes, *of_draws["recalls"], units)


def differences_over_draws(first: Sequence[Tested], second: Sequence[Tested]) -> dict[str, Interval]:
    """The same of the first less the second, draw by draw, by the same resamples of both.

    One that has a single draw, since nothing about it is drawn, stands beside each draw of the other.
    """
    check_same(first[0], second[0])
    (one, units), (other, _) = _resampled(first), _resampled(second)
    if len(first) != len(second) and min(len(first), len(second)) > 1:
        raise ValueError(f"{len(first)} draws do not pair with {len(second)}")
    found = {}
    for name in one.keys() & other.keys() - {"recalls"}:
        low, high = LIMITS.get(name, EVERYWHERE)
        value_D, value_DB = (a - b for a, b in zip(one[name], other[name], strict=True))
        found[name] = _interval(value_D, value_DB, units, low - high, high - low)
    return {name: found[name] for name in one if name in found}


def _resampled(draws: Sequence[Tested]) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], int]:
    """By metric the values, float64 [D], and those of every resample, [D, B]; and how many units are resampled."""
    for other in draws[1:]:
        check_same(draws[0], other)
    values, values_B, units = zip(*(draw.resampled for draw in draws), strict=True)
    found = {
        name: (np.array([v[name] for v in values]), np.stack([v_B[name] for v_B in values_B]))
        for name in values[0]
        if all(name in v for v in values)
    }
    return found, units[0]


def _interval(value_D: np.ndarray, value_DB: np.ndarray, units: int, lowest: float, highest: float) -> Interval:
    mean, mean_B = float(value_D.mean()), value_DB.mean(0)
    told_B = mean_B[np.isfinite(mean_B)]
    if len(told_B) < max(1, len(mean_B) / 2):
        return {"mean": mean}
    return {"mean": mean, **bounds(mean, reach(told_B, units, value_D), lowest=lowest, highest=highest)}
