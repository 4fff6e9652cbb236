"""Expressive clips by an embedding of RAVDESS speech: what `retrieve` trains, and whom it retrieves from.

python -m data_prep ravdess --source RAVDESS --channel speech --output prepared/ravdess
mmpretrain retrieve --config=configs/adapt/retrieval_ravdess.py --hours=0.1 --neutral=neutral,calm --speaker_share=0.2

Of another corpus, which is what it is for: data.corpora is the unlabelled one, finetune.corpora RAVDESS. Here both are
RAVDESS, and the clips to retrieve from are those of the actors that neither fold tests or chooses by. The embedding is
chosen on nobody (`selection="last"`) and begins with random weights; with `finetune.encoder="last_round"` it begins
with what `mmpretrain refine` leaves. Measured with an encoder of fold 1: docs/results.md.
"""

import dataclasses

from configs.finetune import ravdess
from mmpretrain.config import OptimizerConfig, RunConfig, TaskConfig


def get_config() -> RunConfig:
    config = ravdess.get_config()
    classes = config.finetune.tasks[0].classes
    finetune = dataclasses.replace(
        config.finetune,
        encoder="none",
        tasks=(TaskConfig("likeness", "emotion", kind="embedding", classes=classes, embedding_dim=64),),
        folds=(1, 2),
        select_by="likeness/map",
        selection="last",
        sampling="spread",
        num_steps=160,
        eval_every=160,
        compare_from_scratch=False,
        label_smoothing=0.0,
        optimizer=OptimizerConfig(
            schedule="tri_stage", peak_lr=2e-3, warmup_steps=20, eps=1e-8, weight_decay=0.05, clip_norm=1.0
        ),
    )
    config.data.exclude_folds = (1, 2, 3)  # whom folds 1 and 2 test, and those that they keep to choose by
    return dataclasses.replace(config, finetune=finetune, workdir="runs/retrieval_ravdess")
