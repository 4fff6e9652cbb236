"""How much of the clips that a fold is tested and validated on was seen in training, by the encoder or by the fold."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmpretrain.data.exposure import Exposure, TrainingData
from mmpretrain.doubles import pairs, told
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.run.layout import PRETRAINED
from mmpretrain.run.run import Run

TEST_SEEN, VALIDATION_SEEN = "unlabelled_test_seen", "unlabelled_validation_seen"  # as results and figures have them
EXPOSURE = "exposure"  # of a result: the counts that those are of


def check_exposure(finetuning: Finetuning) -> None:
    """Raises ValueError if a test clip was seen with its label, by an encoder or in another part of its own fold.

    Under `finetune.accept_seen_labels` it does not: the figures then say so.
    """
    if finetuning.config.accept_seen_labels:
        return
    for variant in finetuning.variants:
        for number in finetuning.folds:
            fold, index, column = finetuning.fold(number), finetuning.table.index, finetuning.main_column
            test = fold.test
            parts = [fold.train, *[fold.validation] * (finetuning.config.selection != "test-best")]
            if doubles := pairs(index, test, np.concatenate(parts)):
                raise ValueError(
                    f"{len(doubles)} of the {len(test)} test clips of {finetuning.protocol_title}, fold {number}, are "
                    f"in its training or validation part as well, under another id ({told(index, doubles)}); remove "
                    "the doubles and prepare the corpus again, or accept figures that say so: "
                    "finetune.accept_seen_labels=True"
                )
            if variant != PRETRAINED:
                continue
            by_encoder = finetuning.encoder_data.exposure(finetuning.table, test, column)
            if by_encoder.clips_seen_labelled:
                raise ValueError(
                    f"{by_encoder.clips_seen_labelled} of the {by_encoder.clips} test clips of "
                    f"{finetuning.protocol_title}, fold {number}, were seen with their label ({column}) when "
                    f"{finetuning.encoder.path} was trained, or what it was made from; test the fold that it "
                    "was fine-tuned for (finetune.folds), give another finetune.encoder, or accept figures that say "
                    "so: finetune.accept_seen_labels=True"
                )


def exposure_of_fold(finetuning: Finetuning, variant: str, number: int) -> dict[str, Exposure]:
    """Of the "test" and "validation" clips of a fold.

    Of the test clips, what was seen by the encoder and in the other parts of the fold; of the validation clips, what
    was seen by the encoder and in the training part.
    """
    fold, column = finetuning.fold(number), finetuning.main_column
    by_encoder = finetuning.encoder_data if variant == PRETRAINED else TrainingData()
    for_validation = by_encoder | finetuning.own_data(number, "train")
    for_test = for_validation | finetuning.own_data(number, "validation")
    return {
        "test": for_test.exposure(finetuning.table, fold.test, column),
        "validation": for_validation.exposure(finetuning.table, fold.validation, column),
    }


def exposure_of_recipe(run: Run, seen: TrainingData) -> tuple[str, Exposure] | None:
    """Of all test clips of the recipe's fine-tuning, in words which, and how much of them was seen.

    None where there is no fine-tuning, or its clips cannot be opened or split.
    """
    if run.config.finetune is None:
        return None
    try:
        finetuning = Finetuning(run)
        tests = [finetuning.fold(number).test for number in finetuning.folds]
    except (ValueError, FileNotFoundError):
        return None
    exposures = [seen.exposure(finetuning.table, rows, finetuning.main_column) for rows in tests]
    folds = ", ".join(map(str, finetuning.folds))
    return f"{finetuning.protocol_title}, folds {folds}", Exposure.summed(exposures)


def as_result(exposure: dict[str, Exposure]) -> dict[str, Any]:
    """What a result or a figure holds of it, ready for JSON."""
    return {
        TEST_SEEN: str(exposure["test"]), VALIDATION_SEEN: str(exposure["validation"]),
        EXPOSURE: {part: of_part.as_dict() for part, of_part in exposure.items()},
    }  # fmt: skip


def pooled_exposure(exposures: list[dict[str, Exposure]]) -> dict[str, Exposure]:
    """Over folds."""
    return {part: Exposure.summed([exposure[part] for exposure in exposures]) for part in exposures[0]}
