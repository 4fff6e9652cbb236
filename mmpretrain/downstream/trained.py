"""What a classifier says that was trained by steps: the encoder and its heads, as a fold left them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.encoders.weights import load_weights


def trained_outputs(
    finetuning: Finetuning, variant: str, classifier: Path, rows: np.ndarray, shown: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """By task what its head says of these clips, [rows, ...]. classifier: the folder of its fold.

    shown: the modalities that are; None: all.
    """
    trainer = finetuning.trainer(variant)
    state = trainer.init(finetuning.run.config.seed)
    model = trainer.model(state)
    load_weights(classifier, model)
    return finetuning.predictor(variant)(trainer.with_model(state, model), rows, shown)
