"""What a classifier says that was trained by steps: the encoder and its heads, as a fold left them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmpretrain.encoders.weights import load_weights
from mmpretrain.run.finetuning import Finetuning


def trained_logits(finetuning: Finetuning, variant: str, classifier: Path, rows: np.ndarray) -> np.ndarray:
    """float32 [rows, C]: what its head of the main task says of these clips. classifier: the folder of its fold."""
    trainer = finetuning.trainer(variant)
    state = trainer.init(finetuning.run.config.seed)
    model = trainer.model(state)
    load_weights(classifier, model)
    return finetuning.predictor(variant)(trainer.with_model(state, model), rows)[finetuning.main.name]
