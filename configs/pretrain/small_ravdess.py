"""The sound of RAVDESS alone, three rounds: how the clusters of a small model change when nobody names a phone.

python -m data_prep ravdess --source RAVDESS --channel speech --output prepared/ravdess
mmpretrain refine --config=configs/pretrain/small_ravdess.py

As the two rounds of configs/finetune/ravdess.py and one more, with half as many clusters. The frozen probe of each
round is of fold 1 of `ravdess-6x4`; no emotion is trained on, and no clip of actors 1 to 8. docs/rounds.md
has what came out.
"""

import dataclasses

from configs.finetune import ravdess
from mmpretrain.config import RunConfig, hidden, mfcc


def get_config() -> RunConfig:
    config = ravdess.get_config()
    first, second = config.rounds
    fit = dict(fit_share=0.5, fit_restarts=3)
    first.targets = mfcc(num_clusters=50, **fit)
    second.targets = hidden(layer=2, num_clusters=50, **fit)
    return dataclasses.replace(config, rounds=(first, second, second), workdir="runs/small_ravdess")
