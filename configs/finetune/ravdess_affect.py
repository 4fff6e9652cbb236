"""`ravdess` with affect in its targets: one round of MFCC and of prosody relative to the speaker, a head each,
and a fine-tuning that starts where the frozen encoder ends.

python -m data_prep ravdess --source RAVDESS --channel speech --output prepared/ravdess
mmpretrain run --config=configs/finetune/ravdess_affect.py

The targets are those whose clusters told most of the emotion on validation actors: docs/targets.md. What is relative to
a speaker is so over the clips of the actors that are pretrained on, 9 to 24; the others are not looked at. What it came
to over all six folds: docs/results.md.
"""

import dataclasses

from configs.finetune import ravdess
from mmpretrain.config import RunConfig, mfcc, prosody


def get_config() -> RunConfig:
    config = ravdess.get_config()
    fit = dict(fit_share=0.5, fit_restarts=3)
    first = config.rounds[0]
    first.targets = mfcc(100, **fit) + prosody(50, relative_to="speaker", **fit)
    # Begins at the frozen regression and ends 6 points of UA above it, on test clips, from a quarter of the labels on.
    finetune = dataclasses.replace(
        config.finetune,
        head="frozen_linear",
        select_by="emotion/loss",
        encoder_rate=20,
        num_steps=1_200,
        eval_every=60,
        batch_frames=1_000,
        optimizer=dataclasses.replace(config.finetune.optimizer, peak_lr=5e-5, warmup_steps=40),
    )
    return dataclasses.replace(config, rounds=(first,), finetune=finetune, workdir="runs/ravdess_affect")
