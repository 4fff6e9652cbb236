"""Stage `evaluate`: every fold's classifier on the clips it never saw, once, beside plain baselines."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.config import as_dict
from mmpretrain.downstream.baselines import NEEDS, answers_of_baselines
from mmpretrain.downstream.checking import check_folds, lacks
from mmpretrain.downstream.exposure import TEST_SEEN, as_result, check_exposure, exposure_of_fold, pooled_exposure
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.frozen import Frozen
from mmpretrain.downstream.modalities import gates_of_tasks, modality_shares, modality_table
from mmpretrain.downstream.predictions import table_name, told_name, write_answers, write_told
from mmpretrain.downstream.tested import figures_of_tasks, log_figures, outputs_of_fold
from mmpretrain.downstream.trained import trained_outputs
from mmpretrain.encoders.figures import add_figures
from mmpretrain.evaluation.comparison import Answers, comparisons_with, figures_over_folds, figures_with_intervals
from mmpretrain.evaluation.told import WITHOUT
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.processes import on_main
from mmpretrain.report.comparisons import BLIND, comparison_lines
from mmpretrain.run.command import ACCEPT_CHANGES, Command
from mmpretrain.run.figures import figures_of_tests
from mmpretrain.run.layout import EVALUATION, SCRATCH, fold_name
from mmpretrain.run.run import Run
from mmpretrain.run.source import ENCODER


def evaluate(run: Run) -> dict[str, Any]:
    """Tests every fold's classifier on its test clips, beside the plain baselines."""
    finetuning = Finetuning.of(run)
    recipe = {f"{variant}/{k}": v for variant in finetuning.variants for k, v in finetuning.recipe(variant).items()}
    recipe |= run.fields("finetune.modality_table")
    run.check_begun(EVALUATION, recipe)
    check_folds(finetuning)
    finetuning.check_trained()
    for fold in finetuning.folds:
        recipe |= {f"fold {fold}/{k}": v for k, v in finetuning.reads(fold, test=True).items()}

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        check_exposure(finetuning)
        seen = {
            v: [exposure_of_fold(finetuning, v, k) for k in finetuning.folds] for v in (*finetuning.variants, SCRATCH)
        }
        config = finetuning.config
        outputs_of = Frozen(finetuning).outputs if finetuning.frozen else functools.partial(trained_outputs, finetuning)
        said = {
            variant: [outputs_of_fold(finetuning, outputs_of, variant, fold) for fold in finetuning.folds]
            for variant in finetuning.variants
        }
        tables = {}
        if config.modality_table and not finetuning.frozen:
            tables = {variant: modality_table(finetuning, variant) for variant in finetuning.variants}
        shares = {variant: modality_shares(finetuning, variant, cells) for variant, cells in tables.items()}
        of_tasks = {variant: figures_of_tasks(finetuning, outputs) for variant, outputs in said.items()}
        for variant, figures in of_tasks.items():
            log_figures(variant, figures, finetuning.main.name if finetuning.of_classes else "")
        if finetuning.main.kind not in ("class", *WITHOUT):
            for variant, number in itertools.product(finetuning.variants, finetuning.folds):
                outputs = said[variant][finetuning.folds.index(number)][finetuning.main.name]
                told = finetuning.told_of(number, outputs)
                on_main(lambda v=variant, n=number, told=told: write_told(folder / told_name(v, n), told))
        common = {
            "task": finetuning.main.name, "about": as_dict(finetuning.main), "tasks": of_tasks,
            "modality_table": tables, "modality_shares": shares,
            "corpus": finetuning.table.corpus,
            "protocol": finetuning.protocol_title, "selection": config.selection,
            "protocol_lacks": lacks(finetuning),
            "classes": list(finetuning.main.classes), "modalities": list(finetuning.modalities),
            "gates": {v: found for v, outputs in said.items() if (found := gates_of_tasks(finetuning, v, outputs))},
            "classifier": config.classifier, "label_share": config.label_share,
            "labels_per_class": config.labels_per_class, "label_draw": config.label_draw,
        }  # fmt: skip
        if not finetuning.of_classes:
            of_folds = [
                {
                    "fold": fold, **as_result(seen[finetuning.variants[0]][i]),
                    "training_labels": finetuning.training_labels(fold)[finetuning.main.name],
                }
                for i, fold in enumerate(finetuning.folds)
            ]  # fmt: skip
            return common | {"folds": of_folds} | as_result(pooled_exposure(seen[finetuning.variants[0]]))
        tested = {
            variant: [
                _answers(finetuning, outputs, variant, fold, folder, str(of_fold["test"]))
                for fold, outputs, of_fold in zip(finetuning.folds, said[variant], seen[variant], strict=True)
            ]
            for variant in finetuning.variants
        }
        tested |= _test_baselines(finetuning, folder)
        main, *others = tested
        whole = {name: Answers.joined(answers) for name, answers in tested.items()}
        # A baseline sees what a classifier from random weights does: its fold.
        figures = {
            name: figures_over_folds(answers)
            | as_result(pooled_exposure(seen.get(name, seen[SCRATCH])))
            | _blind(finetuning, name)
            for name, answers in tested.items()
        }
        comparisons = comparisons_with(main, whole)
        for line in comparison_lines(comparisons):
            log(line)
        return {
            **common,
            "chance_ua": whole[main].result.chance_ua, "majority_wa": whole[main].result.majority_wa,
            "folds": [
                {
                    "fold": fold, **figures_with_intervals(of_fold[main]), **as_result(seen[main][i]),
                    **{f"{name}_ua": of_fold[name].result.ua for name in others},
                    "comparisons": comparisons_with(main, of_fold),
                    "training_labels": finetuning.training_labels(fold)[finetuning.main.name],
                }
                for i, fold in enumerate(finetuning.folds)
                for of_fold in [{name: answers[i] for name, answers in tested.items()}]
            ],
            **as_result(pooled_exposure(seen[main])), **figures, "comparisons": comparisons,
        }  # fmt: skip

    result = run.stage(EVALUATION, recipe | {"folds": list(finetuning.folds)}, work)
    for variant, number in itertools.product(finetuning.variants, finetuning.folds):
        on_main(lambda v=variant, n=number: _put_on_card(run.workdir, v, n))
    return result


def _put_on_card(workdir: Path, variant: str, number: int) -> None:
    """The figures of a fold's tests, on the card of its encoder, if it has left one."""
    folder = workdir / fold_name(variant, number) / ENCODER
    if folder.exists():
        add_figures(folder, figures_of_tests(workdir, variant, number))


def _answers(
    finetuning: Finetuning, outputs: dict[str, np.ndarray], variant: str, number: int, folder: Path, seen: str
) -> Answers:
    """What a fold's head of the main task answers, of the test clips whose class is clear; writes them as a table."""
    answers, probabilities_NC = finetuning.graded_answers(number, outputs[finetuning.main.name])
    on_main(lambda: write_answers(folder / table_name(variant, number), answers, probabilities_NC))
    result = answers.result
    log(
        f"{variant}, fold {number}: UA {100 * result.ua:.1f}, WA {100 * result.wa:.1f} on {len(answers.clip_ids)} test "
        f"clips; {TEST_SEEN}: {seen}"
    )
    return answers


def _test_baselines(finetuning: Finetuning, folder: Path) -> dict[str, list[Answers]]:
    """By name, of each plain baseline what it answers on every fold."""

    def test(name: str, number: int, predictions: list[int]) -> Answers:
        answers = finetuning.answers(finetuning.graded(number).test, np.array(predictions))
        on_main(lambda: write_answers(folder / table_name(name, number), answers))
        return answers

    said = on_main(lambda: answers_of_baselines(finetuning))
    return {
        name: [test(name, number, of_fold) for number, of_fold in zip(finetuning.folds, of_folds, strict=True)]
        for name, of_folds in said.items()
    }


def _blind(finetuning: Finetuning, name: str) -> dict[str, int]:
    """How many test clips a baseline has nothing of."""
    if name not in NEEDS:
        return {}
    there = finetuning.table.has(NEEDS[name])
    return {BLIND: sum(int((~there[finetuning.graded(number).test]).sum()) for number in finetuning.folds)}


COMMAND = Command(
    "evaluate",
    "tests the fine-tuned classifiers, beside plain baselines, and says whether they differ",
    lambda given: evaluate(given.begin()),
    options=(ACCEPT_CHANGES,),
)
