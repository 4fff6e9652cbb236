"""Figures over several draws of labels, or seeds of training, with intervals that know of draws and of speakers.

The variance of the mean over D draws is taken for the sum of two: that of the mean over these draws when speakers are
resampled (`comparison.py`), and the variance between the draws divided by D. What is of both, a draw that suits some of
the speakers, is in both, so that intervals are rather too wide than too narrow. The degrees of freedom of Student's t
are those of the sum (Welch 1947, Satterthwaite 1946): of the speakers less one where draws hardly differ, of the draws
less one where they alone do. Of a single draw nothing is known of others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mmpretrain.evaluation.comparison import CONFIDENCE, Answers, check_same, resample, units_of
from mmpretrain.evaluation.metrics import METRICS

Interval = dict[str, float]


def figures_over_draws(draws: Sequence[Answers]) -> dict[str, Interval]:
    """{metric: {"mean", "low", "high"}}, 95 %, of what was said of the same clips in each draw."""
    of_draws, units = _resampled(draws)
    return {name: _interval(*of_draws[name], units, lowest=0) for name in METRICS}


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
    found = {name: (np.array([v[name] for v in values]), np.stack([v_B[name] for v_B in values_B])) for name in METRICS}
    return found, units[0]


def _interval(value_D: np.ndarray, value_DB: np.ndarray, units: int, *, lowest: float) -> Interval:
    mean, draws = float(value_D.mean()), len(value_D)
    if units < 2:
        return {"mean": mean, "low": float(lowest), "high": 1.0}
    from scipy.special import stdtrit

    of_speakers = float(value_DB.mean(0).var()) * units / (units - 1)
    of_draws = float(value_D.var(ddof=1)) / draws if draws > 1 else 0.0
    variance = of_speakers + of_draws
    parts = of_speakers**2 / (units - 1) + (of_draws**2 / (draws - 1) if draws > 1 else 0.0)
    freedom = variance**2 / parts if parts else units - 1
    reach = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    return {"mean": mean, "low": max(float(lowest), mean - reach), "high": min(1.0, mean + reach)}
