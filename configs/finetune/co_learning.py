"""Co-learning: clips of sound alone help a network that hears sound and follows the face, of which few are labelled.

python -m data_prep folder --source FACES --manifest FACES.csv --output prepared/faces
python -m data_prep ravdess --source RAVDESS --channel speech --output prepared/ravdess
for variant in together faces sound_of_faces; do
    mmpretrain crossval --config=configs/finetune/co_learning.py:$variant --seeds=2
done
mmpretrain compare runs/co_learning_together runs/co_learning_faces --crossval
mmpretrain evaluate --config=configs/finetune/co_learning.py:faces --config.finetune.modality_table=True

`together` learns from both corpora, which are not parallel: the second has no pictures. `faces` learns from the first
alone, and `sound_of_faces` from its sound alone: what a face brings that is seen in training only (parallel) is the
cell `audio` in the table of the last line, of the first seed, against it. Runs are compared on the clips that both
tested, those of `prepared/faces`; nobody in them may be in `prepared/ravdess`. The face is `blendshapes`, 52 movements,
beside the sound. What it came to on 52 clips: docs/results.md.
"""

import dataclasses

from configs.finetune import ravdess
from mmpretrain.config import CorpusConfig, LabelEfficiencyConfig, RunConfig, emotion

VARIANTS = ("together", "faces", "sound_of_faces")


def get_config(variant: str = "together") -> RunConfig:
    if variant not in VARIANTS:
        raise ValueError(f"this recipe has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    config = ravdess.get_config()
    faces, sound = CorpusConfig("prepared/faces", weight=4.0), CorpusConfig("prepared/ravdess")
    config.data.corpora = (faces, sound) if variant == "together" else (faces,)
    config.data.exclude_folds = ()
    seven = emotion("neutral", "happy", "sad", "angry", "fearful", "disgust", "surprised", merge=("calm=neutral",))
    beside = {} if variant == "sound_of_faces" else {"tracks": ("blendshapes",), "fusion": "gated"}
    optimizer = dataclasses.replace(config.finetune.optimizer, warmup_steps=40)
    finetune = dataclasses.replace(
        config.finetune, encoder="none", tasks=(seven,), protocol="clips-3", folds=(), num_steps=300, eval_every=50,
        batch_frames=1_000, select_by="emotion/loss", modality_dropout=0.3 if beside else 0.0, optimizer=optimizer,
        accept_seen_labels=True,  # RAVDESS has a take of actor 7 under two names; no figure that is compared is of it
        **beside,
    )  # fmt: skip
    return dataclasses.replace(
        config, finetune=finetune, workdir=f"runs/co_learning_{variant}",
        label_efficiency=LabelEfficiencyConfig(classifiers=("scratch",)),
    )  # fmt: skip
