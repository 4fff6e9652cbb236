"""Affect-aware pretraining on RAVDESS speech (SAAML-like): an encoder goes on with the clips that it finds expressive.

python -m data_prep ravdess --source RAVDESS --channel speech --output prepared/ravdess
mmpretrain adapt --config=configs/adapt/affect_aware_ravdess.py --method=affect-aware-random

For each fold: an embedding of its training actors' emotions, begun with `ENCODER`, ranks clips and hears an emotion in
each; the encoder goes on predicting masked clusters of its own middle layer on 0.2 h of them, tells that emotion, and
forgets the speaker by reversed gradients; then fine-tuning. Beside it the encoder as it was, and the same with 0.2 h by
chance. Of another corpus, which is what it is for: data.corpora is the unlabelled one and finetune.corpora RAVDESS,
whose training actors then learn the true emotion beside; with several corpora the domain may be `corpus`. Measured with
short steps: docs/results.md.
"""

import dataclasses

from configs.adapt import retrieval_ravdess, tapt_ravdess
from mmpretrain.config import RunConfig, TaskConfig


def get_config() -> RunConfig:
    config, retrieval = tapt_ravdess.get_config(), retrieval_ravdess.get_config().retrieval
    (task,) = config.finetune.tasks
    round_ = dataclasses.replace(
        config.rounds[0],
        objective="multitask_prediction",
        tasks=(
            dataclasses.replace(task, weight=0.5),
            TaskConfig("domain", "speaker", reversal=0.3),
        ),
    )
    retrieval = dataclasses.replace(retrieval, hours=0.2)
    return dataclasses.replace(
        config, rounds=(round_,), retrieval=retrieval, workdir="runs/affect_aware_ravdess"
    )  # fmt: skip
