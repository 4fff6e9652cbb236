"""Objectives: what a network is trained to do. One file each; a round of pretraining names its own in `OBJECTIVES`."""

from __future__ import annotations

from collections.abc import Callable

from mmpretrain.config import ModelConfig, RoundConfig
from mmpretrain.objectives.base import Objective
from mmpretrain.objectives.masked_prediction import MaskedPrediction

OBJECTIVES: dict[str, Callable[[ModelConfig, RoundConfig], Objective]] = {"masked_prediction": MaskedPrediction}


def round_objective(model: ModelConfig, round_: RoundConfig) -> Objective:
    """The objective that a round names. Raises ValueError for a name that there is not."""
    if round_.objective not in OBJECTIVES:
        raise ValueError(f"rounds[].objective={round_.objective!r}; it must be one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[round_.objective](model, round_)
