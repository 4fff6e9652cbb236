"""Expressive clips by an embedding of RAVDESS speech: what `retrieve` trains, and whom it retrieves from.

python -m data_prep ravdess --source RAVDESS --channel speech --output prepared/ravdess
mmpretrain retrieve --config=configs/adapt/retrieval_ravdess.py

Of another corpus, which is what it is for: data.corpora is the unlabelled one, finetune.corpora RAVDESS. Here both are
RAVDESS, and the clips to retrieve from are those of the actors that neither fold tests or chooses by. The embedding
begins with random weights; with `finetune.encoder="last_round"` it begins with what `mmpretrain refine` leaves.
Measured with an encoder of fold 1: docs/results.md.
"""

import dataclasses

from configs.finetune import ravdess
from mmpretrain.config import OptimizerConfig, RetrievalConfig, RunConfig, TaskConfig


def get_config() -> RunConfig:
    config = ravdess.get_config()
    classes = config.finetune.tasks[0].classes
    config.finetune.encoder, config.finetune.folds = "none", (1, 2)
    config.data.exclude_folds = (1, 2, 3)  # whom folds 1 and 2 test, and those that they keep to choose by
    retrieval = RetrievalConfig(
        task=TaskConfig("likeness", "emotion", kind="embedding", classes=classes, embedding_dim=64),
        neutral=("neutral", "calm"),
        hours=0.1,
        class_share=0.25,
        speaker_share=0.2,
        num_steps=160,
        optimizer=OptimizerConfig(
            schedule="tri_stage", peak_lr=2e-3, warmup_steps=20, eps=1e-8, weight_decay=0.05, clip_norm=1.0
        ),
    )
    return dataclasses.replace(config, retrieval=retrieval, workdir="runs/retrieval_ravdess")
