"""Command `folds`: all stages of a recipe for every fold by itself, pretraining included; then figures of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpretrain.downstream.baselines import PICTURE, SOUND
from mmpretrain.downstream.checking import lacks, require_classes
from mmpretrain.downstream.curve import Curve
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.predictions import read_answers, table_name
from mmpretrain.evaluation.comparison import Answers, comparisons_with, figures_over_folds
from mmpretrain.files import write_json
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main
from mmpretrain.report.few_labels import flat
from mmpretrain.run.command import ACCEPT_CHANGES, PROFILE, Command
from mmpretrain.run.layout import EVALUATION, LABEL_EFFICIENCY, PRETRAINED, SCRATCH
from mmpretrain.run.run import Run
from mmpretrain.run.stage import read_result
from mmpretrain.stages.label_efficiency import figures_of_curve
from mmpretrain.stages.report import show, with_ours
from mmpretrain.stages.run import run_all

OF_RECIPE = (
    "task", "protocol", "selection", "classes", "modalities", "classifier", "label_share", "labels_per_class",
    "label_draw",
)  # fmt: skip


def run_folds(run: Run) -> dict[str, Any]:
    """Runs all stages in a folder for each fold, passing over what is done; returns the summary of all."""
    finetuning = Finetuning(run)
    require_classes(finetuning, "folds")
    numbers, runs = finetuning.folds, finetuning.runs_of_folds()
    for number, of_fold in runs.items():
        log(f"fold {number}, of {', '.join(map(str, numbers))}: {of_fold.workdir}")
        of_fold.announce()
        run_all(of_fold)
    summary = on_main(lambda: _together(run, runs, lacks(finetuning)))
    on_main(lambda: write_json(run.workdir / "summary.json", summary))
    on_main(lambda: show(summary))
    return summary


def _together(run: Run, runs: Mapping[int, Run], lacking: str) -> dict[str, Any]:
    """The figures over the test clips of all folds, as a summary has them; `label_efficiency.json` beside it.

    lacking: what of the protocol's corpus these folds should test and is not there, in words.
    """
    results = {number: read_result(of_fold.workdir, EVALUATION) for number, of_fold in runs.items()}
    first = next(iter(results.values()))
    names = [n for n in (PRETRAINED, SCRATCH, SOUND, PICTURE) if all(n in result for result in results.values())]
    answers = {
        name: [
            read_answers(of_fold.workdir / EVALUATION / table_name(name, number), first["classes"])
            for number, of_fold in runs.items()
        ]
        for name in names
    }
    whole = {name: Answers.joined(of_folds) for name, of_folds in answers.items()}
    evaluation = {name: first[name] for name in OF_RECIPE} | {
        "protocol_lacks": lacking,
        "chance_ua": whole[names[0]].result.chance_ua, "majority_wa": whole[names[0]].result.majority_wa,
        "folds": [entry for result in results.values() for entry in result["folds"]],
        **{name: figures_over_folds(of_folds) for name, of_folds in answers.items()},
        "comparisons": comparisons_with(names[0], whole),
    }  # fmt: skip
    summary = {"name": run.workdir.name, "seed": run.config.seed, "evaluation": with_ours(evaluation)}
    if run.config.label_efficiency.shares:
        curve = figures_of_curve([Curve(of_fold) for of_fold in runs.values()])
        write_json(run.workdir / f"{LABEL_EFFICIENCY}.json", curve)
        summary = {curve["task"]: flat(curve)} | summary | {LABEL_EFFICIENCY: curve}
    return summary


COMMAND = Command(
    "folds",
    "all stages for every fold by itself, pretraining without its speakers included",
    lambda given: run_folds(given.begin()),
    options=(PROFILE, ACCEPT_CHANGES),
    examples=("mmpretrain folds --config=ravdess '--config.data.exclude_folds=()'",),
    details=(
        "Every fold of the recipe has a run of its own in WORKDIR/foldN, whose rounds leave out the speakers that the "
        "fold tests and those that it chooses by. Their figures over all test clips, and the label-efficiency curve "
        "where the recipe asks for one, are printed and in WORKDIR/summary.json.",
    ),
)
