"""Objectives: what a network is trained to do. One file each; a round of pretraining names its own in `OBJECTIVES`."""

from __future__ import annotations

from collections.abc import Callable

from mmpretrain.config import ModelConfig, RoundConfig
from mmpretrain.objectives.base import Objective
from mmpretrain.objectives.masked_prediction import MaskedPrediction
from mmpretrain.objectives.multitask_prediction import MultitaskPrediction

OBJECTIVES: dict[str, Callable[[ModelConfig, RoundConfig], Objective]] = {
    "masked_prediction": MaskedPrediction,
    "multitask_prediction": MultitaskPrediction,
}
