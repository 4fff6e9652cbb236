"""What the plain baselines say of the test clips of a fine-tuning's folds: statistics of the sound, and of the picture.

That of the picture is there where the network has one: it is of the same crop, in the middle of the same view.
"""

from __future__ import annotations

import numpy as np

from mmpretrain.config import as_dict, fingerprint
from mmpretrain.data.inputs import INPUTS
from mmpretrain.data.unreadable import UnreadableClipError
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.evaluation.baselines import (
    NUM_PICTURE_STATISTICS,
    NUM_SOUND_STATISTICS,
    baseline_answers,
    picture_statistics,
    sound_statistics,
)
from mmpretrain.observe.progress import log, track

SOUND, PICTURE = "baseline", "picture_baseline"
NEEDS = {SOUND: "audio", PICTURE: "video"}


def answers_of_baselines(finetuning: Finetuning) -> dict[str, list[list[int]]]:
    """By baseline, for each fold the class id of every test clip. One that a fold cannot train is left out, and said.

    A clip without sound, or without a picture, is answered as the mean of the training clips is.
    """
    labels, classes, folds = finetuning.classes_N, finetuning.main.classes, finetuning.folds
    answers = {}
    for name, features in statistics_of_clips(finetuning).items():
        try:
            answers[name] = [
                baseline_answers(features, labels, finetuning.graded(fold), classes).tolist() for fold in folds
            ]
        except ValueError as error:
            log(f"no {name.replace('_', ' ')}: {error} with {NEEDS[name]}")
    return answers


def statistics_of_clips(finetuning: Finetuning) -> dict[str, np.ndarray]:
    """By baseline, float32 [rows of the table, D]: NaN where a clip has no label of the main task, or none of it.

    A clip that cannot be read has neither sound nor picture.
    """
    table, model = finetuning.table, finetuning.model(finetuning.variants[0])
    known = finetuning.statistics.setdefault(fingerprint(as_dict(model)), {})
    if known:
        return known
    rows = np.flatnonzero(finetuning.classes_N >= 0)
    sizes = {SOUND: NUM_SOUND_STATISTICS}
    if "video" in model.modalities:
        sizes[PICTURE] = NUM_PICTURE_STATISTICS
    features = {name: np.full((len(table), size), np.nan, np.float32) for name, size in sizes.items()}
    there = {name: table.has(NEEDS[name]) for name in sizes}
    for row in track(rows, "baselines: statistics of sound and picture", unit="clip"):
        try:
            clip = table.open(row)
            if there[SOUND][row]:
                features[SOUND][row] = sound_statistics(clip.audio)
            if PICTURE in sizes and there[PICTURE][row]:
                frames = range(clip.num_frames)
                features[PICTURE][row] = picture_statistics(INPUTS["video"].make(clip, frames, model.inputs, None))
        except UnreadableClipError as error:
            table.unreadable.add(error)
    known.update(features)
    return known
