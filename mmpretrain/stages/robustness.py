"""Command `robustness`: the fine-tuned classifiers on test clips that are noisy, blurred, cut short or lack a part."""

from __future__ import annotations

import copy
import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.clips import ClipTable
from mmpretrain.data.disturbed import CHANGES, LENGTHS, PICTURE_TRACKS, babble_of, disturbed
from mmpretrain.data.inputs import INPUTS
from mmpretrain.downstream.checking import check_folds, lacks
from mmpretrain.downstream.exposure import check_exposure
from mmpretrain.downstream.finetuning import CLASSIFIER, Finetuning
from mmpretrain.downstream.frozen import Frozen
from mmpretrain.downstream.trained import trained_outputs
from mmpretrain.evaluation.comparison import Answers, intervals
from mmpretrain.evaluation.shapley import shapley
from mmpretrain.evaluation.tasks import TASK_METRICS
from mmpretrain.files import present_folder, write_json
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.processes import on_main
from mmpretrain.report.robustness import render_robustness
from mmpretrain.run.command import ACCEPT_CHANGES, Command, Given, Option
from mmpretrain.run.layout import fold_name
from mmpretrain.run.run import Run

MODALITIES, LENGTH = "modalities", "length"
RESULTS_FILE, PAGE_FILE = "robustness.json", "robustness.html"


def robustness(run: Run, names: Sequence[str] = ()) -> dict[str, Any]:
    """Tests the classifiers of every fold under every change at every level, passing over what is done.

    names: of `CHANGES`, `modalities` and `length`; none: all that the network's inputs have. Raises ValueError for one
    that there is not, and FileNotFoundError where the recipe is not fine-tuned.
    """
    finetuning = Finetuning(run)
    if not finetuning.of_classes:
        raise ValueError(f"finetune.tasks[0].kind={finetuning.main.kind!r}: robustness is shown of classes alone")
    needs = {INPUTS[name].needs for name in finetuning.modalities}
    able = [name for name, change in CHANGES.items() if set(change.needs) <= needs]
    able += [MODALITIES] * (len(needs & {"audio", "video"}) > 1) + [LENGTH]
    if unknown := [name for name in names if name not in able]:
        raise ValueError(f"--change={unknown[0]}; what the network's inputs can be changed in is {', '.join(able)}")
    check_folds(finetuning)
    finetuning.check_trained()
    check_exposure(finetuning)
    seen = [name for name in finetuning.config.tracks if name in PICTURE_TRACKS]
    if seen and (clear := [name for name in ("blur", "hidden") if name in (names or able)]):
        log(f"robustness: {' and '.join(clear)} leave {' and '.join(seen)} as they were found in the clear picture")
    recipe = {f"{v}/{k}": value for v in finetuning.variants for k, value in finetuning.recipe(v).items()}
    for number in finetuning.folds:
        recipe |= {f"fold {number}/{k}": value for k, value in finetuning.reads(number, test=True).items()}
    kept = on_main(lambda: babble_of(finetuning.table).tolist()) if "babble" in (names or able) else []
    babble = np.array(kept, np.int16)
    measured = {}
    for name in ["clean", *(names or able)]:
        stage, of_levels = f"robustness/{name}", recipe | {"folds": list(finetuning.folds)}
        of_levels |= {name: hashlib.sha256(babble).hexdigest()[:16]} if name == "babble" else {}
        run.check_begun(stage, of_levels)
        work = functools.partial(_measure, finetuning, _levels(finetuning.table, name, needs, babble))
        measured[name] = run.stage(stage, of_levels, work)["levels"]
    results = _results(finetuning, measured)

    def write() -> None:
        from mmpretrain.report.robustness_page import write_robustness_page  # brings matplotlib

        write_json(run.workdir / RESULTS_FILE, results)
        write_robustness_page(run.workdir / PAGE_FILE, run.workdir.name, results)

    on_main(write)
    log(f"robustness: {run.workdir / RESULTS_FILE}, {run.workdir / PAGE_FILE}\n{render_robustness(results)}")
    return results


def _levels(table: ClipTable, name: str, needs: set[str], babble: np.ndarray) -> dict[Any, Callable[[], ClipTable]]:
    """By level what makes the table of it."""
    if name == "clean":
        return {"clean": lambda: table}
    if name == LENGTH:
        return {seconds: functools.partial(disturbed, table, seconds=seconds) for seconds in LENGTHS}
    if name == MODALITIES:
        able = sorted(needs & {"audio", "video"})
        sets = [kept for count in range(len(able) + 1) for kept in itertools.combinations(able, count)]
        lacks = {"+".join(kept): [name for name in able if name not in kept] for kept in sets}
        return {kept: functools.partial(disturbed, table, lacks=those) for kept, those in lacks.items()}
    change = CHANGES[name]
    return {level: functools.partial(disturbed, table, change, level, babble) for level in change.levels}


def _measure(
    finetuning: Finetuning,
    levels: dict[Any, Callable[[], ClipTable]],
    folder: Path,
    wall: WallTime,
) -> dict[str, Any]:
    found = []
    for level, make in levels.items():
        changed = copy.copy(finetuning)  # with the same programs
        changed.table, changed.layers = make(), {}
        outputs_of = _asked(changed)
        with wall.during("evaluation"):
            said = {
                variant: Answers.joined([_answers(changed, outputs_of, variant, k) for k in changed.folds])
                for variant in finetuning.variants
            }
        figures = {v: answers.result.as_dict() | {"intervals": intervals(answers)} for v, answers in said.items()}
        found.append({"level": level, "classifiers": figures})
        log(f"{level}: " + ", ".join(f"{v} UA {100 * of_one['ua']:.1f}" for v, of_one in figures.items()))
    return {"levels": found}


def _asked(changed: Finetuning) -> Callable[[str, Path, np.ndarray], dict[str, np.ndarray]]:
    if not changed.frozen:
        return functools.partial(trained_outputs, changed)
    tested = np.unique(np.concatenate([changed.fold(number).test for number in changed.folds]))
    return Frozen(changed, tested).outputs


def _answers(changed: Finetuning, outputs_of: Callable[..., Any], variant: str, number: int) -> Answers:
    classifier = changed.run.workdir / fold_name(variant, number) / CLASSIFIER
    if not on_main(lambda: present_folder(classifier).exists()):
        raise FileNotFoundError(f"{classifier} does not exist: run `mmpretrain finetune` with this recipe first")
    rows = changed.graded(number).test
    outputs = outputs_of(variant, classifier, rows)[changed.main.name]
    return changed.answers(rows, TASK_METRICS[changed.main.kind].chances(outputs).argmax(-1))


def _results(finetuning: Finetuning, measured: dict[str, Any]) -> dict[str, Any]:
    (clean,) = measured.pop("clean")
    units = {name: change.unit for name, change in CHANGES.items()} | {LENGTH: "s", MODALITIES: ""}
    shares = {}
    for variant in finetuning.variants if MODALITIES in measured else ():
        of_sets = {frozenset(filter(None, e["level"].split("+"))): e["classifiers"][variant]["ua"]
                   for e in measured[MODALITIES]}  # fmt: skip
        shares[variant] = shapley(of_sets, sorted(max(of_sets, key=len)))
    return {
        "task": finetuning.main.name, "protocol": finetuning.protocol_title, "selection": finetuning.config.selection,
        "protocol_lacks": lacks(finetuning), "folds": list(finetuning.folds), "clean": clean["classifiers"],
        "chance_ua": next(iter(clean["classifiers"].values()))["chance_ua"],
        "changes": [{"change": name, "unit": units[name], "levels": levels} for name, levels in measured.items()],
        "shapley": shares,
    }  # fmt: skip


def _command(given: Given) -> None:
    robustness(given.begin(), given["change"] or ())


COMMAND = Command(
    "robustness",
    "the fine-tuned classifiers under noise, blur, lost frames, missing parts",
    _command,
    options=(
        Option("change", list, "one, several times for several (default: all that apply)", "NAME"),
        ACCEPT_CHANGES,
    ),
    examples=("mmpretrain robustness --config=ravdess --change=white --change=babble",),
    details=(
        f"Changes: {', '.join(CHANGES)}, {MODALITIES} (every set of them, with Shapley's share of each) and {LENGTH}. "
        "Every classifier meets the same noise and the same boxes. Results are in WORKDIR/robustness.json, with a plot "
        "in robustness.html.",
    ),
)
