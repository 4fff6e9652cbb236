"""Task-adaptive pretraining on RAVDESS speech: an encoder of another corpus goes on with clips of the training folds.

python -m data_prep ravdess --source RAVDESS --channel speech --output prepared/ravdess
mmpretrain adapt --config=configs/adapt/tapt_ravdess.py

Masked prediction of clusters of the encoder's own middle layer, at a fifth of the rate of pretraining, then fine-tuning
as in `finetune/ravdess`; beside it the same fine-tuning of the encoder as it was, on the same folds. `ENCODER` is its
folder; `model` is to be its own. What it came to over all six folds: docs/results.md.
"""

import dataclasses

from configs.finetune import ravdess
from mmpretrain.config import OptimizerConfig, RunConfig, hidden

ENCODER = "encoders/tiny_sound"


def get_config() -> RunConfig:
    config = ravdess.get_config()
    round_ = dataclasses.replace(
        config.rounds[0],
        init=ENCODER,
        encoder=ENCODER,
        targets=hidden(layer=2, num_clusters=100, fit_share=0.5, fit_restarts=3),
        num_steps=400,
        optimizer=OptimizerConfig(peak_lr=6e-4, warmup_steps=40),
    )
    config.data.exclude_folds = ()  # `adapt` says for every fold whom its rounds must not have seen
    finetune = dataclasses.replace(config.finetune, folds=(), compare_from_scratch=False)
    return dataclasses.replace(config, rounds=(round_,), finetune=finetune, workdir="runs/tapt_ravdess")
