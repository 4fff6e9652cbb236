"""`ravdess` with affect in its targets: one round of MFCC and of prosody relative to the speaker, a head each.

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
    return dataclasses.replace(config, rounds=(first,), workdir="runs/ravdess_affect")
