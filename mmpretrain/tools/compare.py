"""`mmpretrain compare RUN_A RUN_B`: whether two runs' classifiers differ, on the test clips that both were tested on.

Reads the results and the tables of answers that `mmpretrain evaluate`, or `crossval`, left in both. Does without JAX.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmpretrain.config import TaskConfig, from_dict
from mmpretrain.downstream.predictions import read_answers, read_told, table_name, told_beside
from mmpretrain.evaluation.comparison import Answers, compare, on_shared_clips, resampled_units
from mmpretrain.evaluation.draws import differences_over_draws
from mmpretrain.evaluation.tasks import TASK_METRICS
from mmpretrain.evaluation.told import WITHOUT, Told
from mmpretrain.files import read_json, write_json
from mmpretrain.report.comparisons import NAMES, READING, comparison_lines, comparison_table, metrics_table
from mmpretrain.report.crossval import READING as READING_OF_SEEDS
from mmpretrain.report.few_labels import TITLES
from mmpretrain.report.tables import TEST_SEEN, text_table
from mmpretrain.run.command import Argument, Command, Given, Option
from mmpretrain.run.layout import EVALUATION, PRETRAINED, RESULTS_FILE, SCRATCH
from mmpretrain.run.stage import known_result, read_result

SAME = ("task", "protocol", "selection", "classes")  # of two results that compare
OF_TASK = ("kind", "range")  # likewise, of their tasks
LABELS = {"label_share": 1.0, "labels_per_class": 0}  # what may differ, and is said: of how many labels each learned


class Tested(NamedTuple):
    """Of a run: its result, its task, and by classifier of every seed the tables of its folds."""

    result: dict[str, Any]
    task: TaskConfig
    tables: dict[str, list[dict[int, Path]]]


def compare_runs(first: Path, second: Path, *, crossval: bool = False) -> dict[str, Any]:
    """The pretrained classifiers of two runs, and those from scratch, on the clips that both tested, ready for JSON.

    Of a run without a pretrained classifier the one from scratch is taken. {"first", "second": folders, "task",
    "protocol", "selection", "classes", "labels": of each run its "label_share" and "labels_per_class", "pairs":
    [{"first", "second": classifiers, "unlabelled_test_seen": of each, "left_out": of each run how many
    clips the other has not tested, "pooled": a `compare` of all clips, "folds": [{"fold", **a `compare`}]}]}. A fold
    is there if both have it, with some clips in both. Where labels are not of one class a clip, or of more than that, a
    `compare` has their other metrics under "metrics", {metric: {"difference", "low", "high"}}, if not these alone.

    crossval: of what `mmpretrain crossval` left, every classifier that both have, all seeds together: {"difference",
    "low", "high"} are of means over seeds, and there is no McNemar's test.

    Raises FileNotFoundError for a run that is not evaluated, DamagedError for damaged files, and ValueError where the
    task, its classes or the protocol differ, no clip was tested by both, or a clip has two labels or speakers.
    """
    folders = (first, second)
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise FileNotFoundError(f"{missing[0]}: there is no such folder; a run's is what --config.workdir names")
    if crossval and all((folder / RESULTS_FILE).is_file() for folder in folders):
        tested = [_crossvalidated(folder) for folder in folders]
    elif crossval:
        missing = [folder for folder in folders if not (folder / RESULTS_FILE).is_file()]
        raise FileNotFoundError(f"{missing[0]} has no {RESULTS_FILE}: run `mmpretrain crossval` first")
    else:
        tested = [_evaluated(folder) for folder in folders]
    about = [{name: each.result.get(name) for name in SAME} | {n: getattr(each.task, n) for n in OF_TASK}
             for each in tested]  # fmt: skip
    for name in (*SAME, *OF_TASK):
        one, other = (each[name] for each in about)
        if one != other:
            raise ValueError(
                f"{first} and {second} do not compare: their {name} is {one!r} and {other!r}; compare runs that were "
                "evaluated alike"
            )
    names = [list(each.tables) for each in tested]
    if crossval:
        shared = [name for name in names[0] if name in names[1]]
        if not shared:
            raise ValueError(
                f"{first} and {second} have no classifier in common: {', '.join(names[0])}; {', '.join(names[1])}"
            )
        names = [shared, shared]
    command, pairs = "label-efficiency" if crossval else "evaluate", []
    for of_pair in zip(*names, strict=False):
        read = [
            _read(each.tables[name], each.task, command, prefix)
            for name, each, prefix in zip(of_pair, tested, _prefixes(*tested), strict=True)
        ]
        try:
            seen = {TEST_SEEN: [_seen(each, name) for each, name in zip(tested, of_pair, strict=True)]}
            pairs.append(dict(zip(("first", "second"), of_pair, strict=True)) | seen | _compare_pair(*read))
        except ValueError as error:
            raise ValueError(f"{first} and {second} do not compare: {error}") from error
    same = {name: about[0][name] for name in SAME}
    same["labels"] = [{name: each.result.get(name, usual) for name, usual in LABELS.items()} for each in tested]
    return {"first": str(first), "second": str(second), "crossval": crossval, **same, "pairs": pairs}


def _seen(tested: Tested, classifier: str) -> str:
    """What a classifier has seen of the test clips, as its run says; "" where it does not."""
    figures = tested.result.get("classifiers", tested.result).get(classifier, {})
    first = next(iter(tested.tables))  # of which a result as a whole says it
    return figures.get(TEST_SEEN, tested.result.get(TEST_SEEN, "") if classifier == first else "")


def _evaluated(folder: Path) -> Tested:
    if known_result(folder, EVALUATION) is None and (folder / RESULTS_FILE).is_file():
        raise FileNotFoundError(f"{folder} is not evaluated; compare what crossval left in both: --crossval")
    result = read_result(folder, EVALUATION)
    task = _task(result)
    if task.kind in WITHOUT and TASK_METRICS[task.kind].chances is None:
        raise ValueError(f"{folder}: labels of kind {task.kind!r} are not compared clip by clip")
    tables = {
        name: [{of["fold"]: folder / EVALUATION / table_name(name, of["fold"]) for of in result["folds"]}]
        for name in (PRETRAINED, SCRATCH)
        if name in result or name in result.get("tasks", {})
    }
    return Tested(result, task, tables)


def _crossvalidated(folder: Path) -> Tested:
    result = read_json(folder / RESULTS_FILE, remedy="run `mmpretrain crossval` again")
    try:
        tables = {
            name: [{int(fold): folder / path for fold, path in of_seed.items()} for of_seed in figures["tables"]]
            for name, figures in result["classifiers"].items()
        }
        return Tested(result, _task(result), tables)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / RESULTS_FILE} is not as crossval left it ({type(error).__name__}: {error}); run `mmpretrain "
            "crossval` again"
        ) from error


def _task(result: Mapping[str, Any]) -> TaskConfig:
    return from_dict(TaskConfig, result.get("about", {"name": result["task"], "classes": result["classes"]}))


class Said(NamedTuple):
    """Of every seed by fold; none of what the kind of labels does not have."""

    answers: list[dict[int, Answers]]
    told: list[dict[int, Told]]


def _prefixes(*tested: Tested) -> list[str]:
    """Of the names of each run's clips: those of one corpus lack its name, which a mixture's have."""
    corpora = [each.result.get("corpus", "") for each in tested]  # "": a result of before it was written
    return [f"{corpus}/" if corpus and None in corpora else "" for corpus in corpora]


def _read(tables: Sequence[Mapping[int, Path]], task: TaskConfig, command: str, prefix: str) -> Said:
    """prefix: for the names of clips."""
    answers, told = [], []
    for of_seed in tables:
        if TASK_METRICS[task.kind].chances is not None:
            read = {fold: read_answers(path, task.classes, command) for fold, path in of_seed.items()}
            answers.append({fold: _named(said, prefix) for fold, said in read.items()})
        if task.kind != "class":
            beside = {fold: path.with_name(told_beside(path.name)) for fold, path in of_seed.items()}
            told.append({fold: _named(read_told(path, task, command), prefix) for fold, path in beside.items()})
    return Said(answers, told)


def _named(said: Any, prefix: str) -> Any:
    return dataclasses.replace(said, clip_ids=tuple(prefix + clip_id for clip_id in said.clip_ids))


def _compare_pair(first: Said, second: Said) -> dict[str, Any]:
    found: dict[str, Any] = {"pooled": {}, "folds": {}}
    for ones, others, kind in zip(first, second, (Answers, Told), strict=True):
        if not ones:
            continue
        wholes = [[kind.joined(list(of_seed.values())) for of_seed in of] for of in (ones, others)]
        shared = _shared(*wholes)
        found["pooled"] |= _difference(*shared)
        found["left_out"] = [
            len(whole[0].clip_ids) - len(on_both[0].clip_ids) for whole, on_both in zip(wholes, shared, strict=True)
        ]
        for fold in sorted(ones[0].keys() & others[0].keys()):
            if set(ones[0][fold].clip_ids) & set(others[0][fold].clip_ids):
                of_fold = _shared(*([of_seed[fold] for of_seed in of] for of in (ones, others)))
                found["folds"].setdefault(fold, {"fold": fold}).update(_difference(*of_fold))
    return found | {"folds": list(found["folds"].values())}


def _shared(first: Sequence[Any], second: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Of every seed, on the clips that both were tested on."""
    one, other = on_shared_clips(first[0], second[0])
    return [on_shared_clips(one, of_seed)[1] for of_seed in first], [on_shared_clips(other, of)[1] for of in second]


def _difference(first: Sequence[Any], second: Sequence[Any]) -> dict[str, Any]:
    if len(first) == len(second) == 1 and isinstance(first[0], Answers):
        return compare(first[0], second[0])
    found = {
        name: {"difference": figure.pop("mean"), **figure}
        for name, figure in differences_over_draws(first, second).items()
        if name != "loss"
    }
    if isinstance(first[0], Told):
        found = {"metrics": found}
    _, resampled = resampled_units(first[0].clip_ids, first[0].speakers)
    return found | {"resampled": resampled, "clips": len(first[0].clip_ids), "seeds": [len(first), len(second)]}


def render(found: dict[str, Any]) -> str:
    """As text, several lines without a trailing line end."""
    blocks = [f"first: {found['first']}\nsecond: {found['second']}\n{found['task']}, protocol {found['protocol']}"]
    if found["labels"][0] != found["labels"][1]:
        of_each = [", ".join(f"{name} {value:g}" for name, value in labels.items()) for labels in found["labels"]]
        blocks[0] += f"\nnot learned from as many labels: the first from {of_each[0]}; the second from {of_each[1]}"
    titles = TITLES if found["crossval"] else NAMES
    for pair in found["pairs"]:
        sides = {side: f"{titles[pair[side]]} ({side})" for side in ("first", "second")}
        names, parts = {side: pair[side] for side in sides}, []
        of_folds = [(f"fold {each['fold']}", [each | names]) for each in pair["folds"]]
        clips = [*of_folds * (len(of_folds) > 1), ("all", [pair["pooled"] | names])]
        if "ua" in pair["pooled"]:
            lines = comparison_lines([pair["pooled"] | sides])
            parts += [text_table(comparison_table(clips, found)), *map(_wrapped, lines)]
        if "metrics" in pair["pooled"]:
            parts.append(text_table(metrics_table(clips, found)))
        for side, seen in zip(sides.values(), pair[TEST_SEEN], strict=True):
            if seen not in ("", "no"):
                parts.append(_wrapped(f"{TEST_SEEN} by {side}: {seen}"))
        if any(pair["left_out"]):
            first, second = pair["left_out"]
            parts.append(
                _wrapped(f"left out: {first} clips that the first alone was tested on, and {second} of the second")
            )
        blocks.append("\n".join(parts))
    return "\n\n".join([*blocks, _wrapped(READING_OF_SEEDS if found["crossval"] else READING)])


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 116, initial_indent="  ", subsequent_indent="    ")


def _command(given: Given) -> None:
    if given["json"] and Path(given["json"]).is_dir():
        raise ValueError(f"--json={given['json']} is a folder; give the name of a file")
    found = compare_runs(*given.paths, crossval=bool(given["crossval"]))
    print(render(found))
    if given["json"]:
        write_json(given["json"], found)


COMMAND = Command(
    "compare",
    "whether the classifiers of two runs differ, on the test clips of both",
    _command,
    takes=Argument("RUN_A RUN_B", "the folder of a run that is evaluated, and that of another", count=2),
    options=(
        Option("json", str, "where to write all figures", "FILE"),
        Option("crossval", bool, "of what `crossval` left: every classifier that both have, all seeds together"),
    ),
    examples=("mmpretrain compare runs/mine runs/other --json=compared.json  # paired tests",),
    details=(
        "Difference, 95% interval by resampling the speakers, and McNemar's test, in each fold and in all; of labels "
        "of other kinds their own metrics. Clips that one of them alone was tested on are left out.",
    ),
)
