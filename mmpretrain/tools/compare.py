"""`mmpretrain compare RUN_A RUN_B`: whether two runs' classifiers differ, on the test clips that both were tested on.

Reads the results and the tables of answers that `mmpretrain evaluate` left in both. Does without JAX.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from mmpretrain.evaluation.comparison import Answers, compare, on_shared_clips
from mmpretrain.files import write_json
from mmpretrain.report.comparisons import NAMES, READING, comparison_lines, comparison_table
from mmpretrain.report.tables import text_table
from mmpretrain.run.command import Argument, Command, Given, Option
from mmpretrain.run.layout import EVALUATION, PRETRAINED, SCRATCH
from mmpretrain.run.predictions import read_answers, table_name
from mmpretrain.run.stage import read_result

SAME = ("task", "protocol", "selection", "classes")  # of two results that compare


def compare_runs(first: Path, second: Path) -> dict[str, Any]:
    """The pretrained classifiers of two runs, and those from scratch, on the clips that both tested, ready for JSON.

    Of a run without a pretrained classifier the one from scratch is taken. {"first", "second": folders, "task",
    "protocol", "selection", "classes", "pairs": [{"first", "second": classifiers, "left_out": of each run how many
    clips the other has not tested, "pooled": a `compare` of all clips, "folds": [{"fold", **a `compare`}]}]}. A fold
    is there if both have it, with some clips in both.

    Raises FileNotFoundError for a run that is not evaluated, DamagedError for damaged files, and ValueError where the
    task, its classes or the protocol differ, no clip was tested by both, or a clip has two labels or speakers.
    """
    folders = (first, second)
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise FileNotFoundError(f"{missing[0]}: there is no such folder; a run's is what --config.workdir names")
    results = [read_result(folder, EVALUATION) for folder in folders]
    for name in SAME:
        one, other = (result.get(name) for result in results)
        if one != other:
            raise ValueError(
                f"{first} and {second} do not compare: their {name} is {one!r} and {other!r}; compare runs that were "
                "evaluated alike"
            )
    same, classes = {name: results[0].get(name) for name in SAME}, results[0]["classes"]
    variants = [[name for name in (PRETRAINED, SCRATCH) if name in result] for result in results]
    pairs = []
    for names in zip(*variants, strict=False):
        of_folds = [
            {
                fold["fold"]: read_answers(folder / EVALUATION / table_name(name, fold["fold"]), classes)
                for fold in result["folds"]
            }
            for folder, name, result in zip(folders, names, results, strict=True)
        ]
        try:
            pairs.append(dict(zip(("first", "second"), names, strict=True)) | _compare_pair(*of_folds))
        except ValueError as error:
            raise ValueError(f"{first} and {second} do not compare: {error}") from error
    return {"first": str(first), "second": str(second), **same, "pairs": pairs}


def _compare_pair(first: dict[int, Answers], second: dict[int, Answers]) -> dict[str, Any]:
    wholes = [Answers.joined(list(of_folds.values())) for of_folds in (first, second)]
    shared = on_shared_clips(*wholes)
    folds = []
    for fold in sorted(first.keys() & second.keys()):
        if set(first[fold].clip_ids) & set(second[fold].clip_ids):
            folds.append({"fold": fold, **compare(*on_shared_clips(first[fold], second[fold]))})
    left_out = [len(whole.clip_ids) - len(shared[0].clip_ids) for whole in wholes]
    return {"left_out": left_out, "pooled": compare(*shared), "folds": folds}


def render(found: dict[str, Any]) -> str:
    """As text, several lines without a trailing line end."""
    blocks = [f"first: {found['first']}\nsecond: {found['second']}\n{found['task']}, protocol {found['protocol']}"]
    for pair in found["pairs"]:
        sides = {side: f"{NAMES[pair[side]]} ({side})" for side in ("first", "second")}
        names = {side: pair[side] for side in sides}
        of_folds = [(f"fold {each['fold']}", [each | names]) for each in pair["folds"]]
        table = comparison_table([*of_folds * (len(of_folds) > 1), ("all", [pair["pooled"] | names])], found)
        lines = comparison_lines([pair["pooled"] | sides])
        if any(pair["left_out"]):
            first, second = pair["left_out"]
            lines.append(f"left out: {first} clips that the first alone was tested on, and {second} of the second")
        blocks.append("\n".join([text_table(table), *map(_wrapped, lines)]))
    return "\n\n".join([*blocks, _wrapped(READING)])


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 116, initial_indent="  ", subsequent_indent="    ")


def _command(given: Given) -> None:
    found = compare_runs(*given.paths)
    print(render(found))
    if given["json"]:
        write_json(given["json"], found)


COMMAND = Command(
    "compare",
    "whether the classifiers of two runs differ, on the test clips of both",
    _command,
    takes=Argument("RUN_A RUN_B", "the folder of a run that is evaluated, and that of another", count=2),
    options=(Option("json", str, "where to write all figures", "FILE"),),
    examples=("mmpretrain compare runs/mine runs/other --json=compared.json  # paired tests",),
    details=(
        "Difference, 95% interval by resampling the speakers, and McNemar's test, in each fold and in all; clips that "
        "one of them alone was tested on are left out.",
    ),
)
