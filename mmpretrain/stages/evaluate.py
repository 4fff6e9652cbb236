"""Stage `evaluate`: every fold's classifier on the clips it never saw, once, beside a plain baseline."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmpretrain.data.exposure import Exposure
from mmpretrain.encoders.weights import load_weights
from mmpretrain.evaluation.baselines import clip_statistics, mfcc_baseline
from mmpretrain.evaluation.metrics import ClassificationResult, classification_metrics, pooled
from mmpretrain.evaluation.protocols import summarize_folds
from mmpretrain.files import present_folder, whole_file
from mmpretrain.observe.progress import log, track
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.processes import on_main
from mmpretrain.run.command import ACCEPT_CHANGES, Command
from mmpretrain.run.exposure import TEST_SEEN, as_result, check_exposure, exposure_of_fold, pooled_exposure
from mmpretrain.run.finetuning import CLASSIFIER, Finetuning
from mmpretrain.run.layout import EVALUATION, PRETRAINED, SCRATCH, fold_name
from mmpretrain.run.run import Run


def evaluate(run: Run) -> dict[str, Any]:
    """Tests every fold's classifier on its test clips, beside the plain baseline."""
    finetuning = Finetuning(run)
    recipe = {f"{variant}/{k}": v for variant in finetuning.variants for k, v in finetuning.recipe(variant).items()}
    run.check_begun(EVALUATION, recipe)
    finetuning.check()
    for fold in finetuning.folds:
        recipe |= {f"fold {fold}/{k}": v for k, v in finetuning.reads(fold, test=True).items()}

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        check_exposure(finetuning)
        seen = {
            v: [exposure_of_fold(finetuning, v, k) for k in finetuning.folds] for v in (*finetuning.variants, SCRATCH)
        }
        # The baseline sees what a classifier from random weights does: its fold.
        baseline = on_main(lambda: _summary(_baseline(finetuning), seen[SCRATCH]))
        variants = {}
        for variant in finetuning.variants:
            variants[variant] = [
                _test_fold(finetuning, variant, fold, folder, str(of_fold["test"]))
                for fold, of_fold in zip(finetuning.folds, seen[variant], strict=True)
            ]
        main = PRETRAINED if PRETRAINED in variants else SCRATCH
        ours = variants[main]
        return {
            "task": finetuning.main.name,
            "protocol": finetuning.protocol_title, "selection": finetuning.protocol.selection,
            "classes": list(finetuning.main.classes), "modalities": list(run.config.model.modalities),
            "chance_ua": pooled(ours).chance_ua, "majority_wa": pooled(ours).majority_wa,
            "folds": [
                {"fold": fold, **result.as_dict(), **as_result(of_fold)}
                for fold, result, of_fold in zip(finetuning.folds, ours, seen[main], strict=True)
            ],
            "baseline": baseline, **as_result(pooled_exposure(seen[main])),
            **{variant: _summary(results, seen[variant]) for variant, results in variants.items()},
        }  # fmt: skip

    return run.stage(EVALUATION, recipe | {"folds": list(finetuning.folds)}, work)


def _test_fold(finetuning: Finetuning, variant: str, number: int, folder: Path, seen: str) -> ClassificationResult:
    run = finetuning.run
    classifier = run.workdir / fold_name(variant, number) / CLASSIFIER
    if not on_main(lambda: present_folder(classifier).exists()):
        raise FileNotFoundError(f"{classifier} does not exist: run `mmpretrain finetune` with this recipe first")
    trainer = finetuning.trainer(variant)
    state = trainer.init(run.config.seed)
    model = trainer.model(state)
    load_weights(classifier, model)
    state = trainer.with_model(state, model)
    rows = finetuning.fold(number).test
    logits = finetuning.predictor(variant, trainer)(state, rows)[finetuning.main.name]
    predicted = logits.argmax(-1)
    on_main(lambda: _write_predictions(folder / f"{variant}-fold{number}.csv", finetuning, rows, logits))
    result = classification_metrics(_labels(finetuning)[rows], predicted, finetuning.main.classes)
    log(
        f"{variant}, fold {number}: UA {100 * result.ua:.1f}, WA {100 * result.wa:.1f} on {len(rows)} test clips; "
        f"{TEST_SEEN}: {seen}"
    )
    return result


def _baseline(finetuning: Finetuning) -> list[ClassificationResult]:
    """MFCC statistics and logistic regression on the same folds."""
    features = np.zeros((len(finetuning.table), len(clip_statistics(np.zeros(0, np.int16)))), np.float32)
    for row in track(np.flatnonzero(_labels(finetuning) >= 0), "baseline: statistics of MFCC", unit="clip"):
        features[row] = clip_statistics(finetuning.table.load(row).audio)
    labels, classes = _labels(finetuning), finetuning.main.classes
    return [mfcc_baseline(features, labels, finetuning.fold(fold), classes) for fold in finetuning.folds]


def _labels(finetuning: Finetuning) -> np.ndarray:
    """int32 [N]: the class of every clip of the table by the main task, -1 where there is none."""
    return finetuning.labels[finetuning.main.name]


def _summary(results: list[ClassificationResult], seen: list[dict[str, Exposure]]) -> dict[str, Any]:
    return pooled(results).as_dict() | {"over_folds": summarize_folds(results)} | as_result(pooled_exposure(seen))


def _write_predictions(path: Path, finetuning: Finetuning, rows: np.ndarray, logits: np.ndarray) -> None:
    table, labels, classes = finetuning.table, _labels(finetuning), finetuning.main.classes
    probabilities = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
    with whole_file(path) as draft, open(draft, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip_id", "speaker", "true", "predicted", *classes])
        for row, probs in zip(rows, probabilities, strict=True):
            shown = [f"{p:.4f}" for p in probs]
            writer.writerow(
                [table.clip_ids[row], table.speakers[row], classes[labels[row]], classes[probs.argmax()], *shown]
            )


COMMAND = Command(
    "evaluate",
    "tests the fine-tuned classifiers, beside a plain baseline",
    lambda given: evaluate(given.begin()),
    options=(ACCEPT_CHANGES,),
)
