"""Command `probe`: frozen encoders under the named probes of benchmarks, ours beside those of other projects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.downstream.baselines import SOUND, statistics_of_clips
from mmpretrain.downstream.checking import check_folds, lacks
from mmpretrain.downstream.exposure import TEST_SEEN, as_result, check_exposure, exposure_of_fold, pooled_exposure
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.predictions import table_name, write_answers
from mmpretrain.downstream.probe_features import OURS, Probed, all_probed, reads_text
from mmpretrain.downstream.texts import texts_of_clips
from mmpretrain.evaluation.baselines import SVM_INVERSE_PENALTIES, baseline_answers, svm, text_answers
from mmpretrain.evaluation.comparison import Answers, comparisons_with, figures_over_folds
from mmpretrain.evaluation.probes import Features, Probe, fit_probe, get_probe
from mmpretrain.evaluation.protocols import Fold
from mmpretrain.files import write_json
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.processes import on_main
from mmpretrain.report.comparisons import READING, comparison_lines, interval_text, marked
from mmpretrain.report.tables import percent, protocol_line, text_table
from mmpretrain.run.command import ACCEPT_CHANGES, Command, Given, Option
from mmpretrain.run.layout import SCRATCH
from mmpretrain.run.run import Run

MFCC_SVM, TFIDF = "mfcc-svm", "tfidf"
MODELS = ("pretrained", "untrained", MFCC_SVM)
RESULTS_FILE = "probes.json"


def probe(run: Run, probes: Sequence[str], models: Sequence[str], shorter: int = 1) -> dict[str, Any]:
    """Every model under every probe on all folds of the recipe's protocol, passing over what is done.

    models: `pretrained`, `untrained`, `mfcc-svm` and `tfidf` (of no probe), or folders of models of transformers. Where
    one of them reads texts, clips that have nothing else are among those that are tested.
    """
    asked = [get_probe(name) for name in probes]
    of_texts = any(name == TFIDF or (name not in BASELINES and reads_text(name)) for name in models)
    finetuning = Finetuning(run, texts=of_texts)
    if finetuning.main.kind != "class":
        raise ValueError(f"finetune.tasks[0].kind={finetuning.main.kind!r}: probes tell classes alone; put one first")
    check_folds(finetuning)
    check_exposure(finetuning)
    said: dict[str, list[Answers]] = {}
    for name in [name for name in models if name in BASELINES]:
        said[name] = _plain(finetuning, BASELINES[name])
    frames = any(one.reads == "frames" for one in asked)  # for all, so that each model looks at every clip once
    encoders = all_probed(finetuning, [name for name in models if name not in BASELINES])
    while encoders:  # each forgotten, with what it said of clips, before the next is asked
        probed = encoders.pop(0)
        for one in asked:
            said[f"{probed.title}, {one.name}"] = _measure(finetuning, probed, one, shorter, frames)
    results = on_main(lambda: _results(finetuning, said, shorter))
    on_main(lambda: write_json(run.workdir / RESULTS_FILE, results))
    log(f"probes: {run.workdir / RESULTS_FILE}\n{render_probes(results)}")
    return results


def _svm(finetuning: Finetuning) -> Iterator[np.ndarray]:
    features, labels = statistics_of_clips(finetuning)[SOUND], finetuning.classes_N
    for fold in map(finetuning.fold, finetuning.folds):
        yield baseline_answers(features, labels, fold, finetuning.main.classes, svm, SVM_INVERSE_PENALTIES)


def _tfidf(finetuning: Finetuning) -> Iterator[np.ndarray]:
    texts, labels = texts_of_clips(finetuning.table, f"--model={TFIDF}"), finetuning.classes_N
    for fold in map(finetuning.fold, finetuning.folds):
        yield text_answers(texts, labels, fold, finetuning.main.classes)


BASELINES = {MFCC_SVM: _svm, TFIDF: _tfidf}


def _plain(finetuning: Finetuning, answer: Callable[[Finetuning], Iterator[np.ndarray]]) -> list[Answers]:
    of_folds = on_main(lambda: [ids.tolist() for ids in answer(finetuning)])
    said = zip(finetuning.folds, of_folds, strict=True)
    return [finetuning.answers(finetuning.fold(number).test, np.array(ids)) for number, ids in said]


def _measure(finetuning: Finetuning, probed: Probed, one: Probe, shorter: int, frames: bool) -> list[Answers]:
    run, folds = finetuning.run, {number: finetuning.fold(number) for number in finetuning.folds}
    reads = {f"fold {n}/{k}": v for n in folds for k, v in finetuning.reads(n, test=True).items()}
    own = run.fields("seed") | {"probe": one.title, "shorter": shorter, "folds": list(folds)}
    own |= probed.recipe | reads | {"modality": probed.modality}
    made: list[Answers] = []

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        used = np.unique(np.concatenate([part for fold in folds.values() for part in vars(fold).values()]))
        features = probed.features(used, frames=frames)
        place = {row: i for i, row in enumerate(used.tolist())}
        chosen = []
        for number, fold in folds.items():
            with wall.during("evaluation"):
                said = on_main(lambda fold=fold: _fit(finetuning, one, features, place, fold, shorter))
            answers = finetuning.answers(fold.test, np.argmax(said["probabilities"], -1))
            table = folder / table_name("probe", number)
            on_main(
                lambda table=table, answers=answers, p=said["probabilities"]: write_answers(table, answers, np.array(p))
            )
            chosen.append({"fold": number, "ua": answers.result.ua, **said["chosen"]})
            made.append(answers)
        return {"probe": one.title, "about": one.about, "model": probed.name, "of_folds": chosen}

    few = f"-1in{shorter}" * (shorter > 1)
    name = f"probes/{one.name}{few}/" + re.sub(r"[^\w.-]", "_", probed.title)
    run.check_begun(name, own)
    run.stage(name, own, work)
    return made or [_read(finetuning, run.workdir / name, number) for number in folds]


def _read(finetuning: Finetuning, folder: Path, number: int) -> Answers:
    from mmpretrain.downstream.predictions import read_answers

    return read_answers(folder / table_name("probe", number), finetuning.main.classes, "probe")


def _fit(
    finetuning: Finetuning, one: Probe, features: Features, place: dict[int, int], fold: Fold, shorter: int
) -> dict[str, Any]:
    train, validation = fold.train, fold.validation
    if one.validation == "fifth":  # of the clips that are not tested, whoever speaks
        rest = np.sort(np.concatenate([train, validation]))
        drawn = np.argsort(finetuning.table.draws("fifth of a probe")[rest], kind="stable")
        validation, train = np.sort(rest[drawn[: len(rest) // 5]]), np.sort(rest[drawn[len(rest) // 5 :]])
    at = [np.array([place[row] for row in rows.tolist()]) for rows in (train, validation, fold.test)]
    labels = np.full(len(place), -1)
    labels[list(place.values())] = finetuning.classes_N[list(place)]
    fitted = fit_probe(
        one, features, labels, *at, len(finetuning.main.classes), seed=finetuning.run.config.seed,
        shorter=shorter,
    )  # fmt: skip
    chosen = {"step": fitted.step, "num_steps": fitted.num_steps, "validation_wa": fitted.validation_wa}
    return {"probabilities": fitted.probabilities_NC.tolist(), "chosen": chosen}


def _results(finetuning: Finetuning, said: dict[str, list[Answers]], shorter: int) -> dict[str, Any]:
    whole = {name: Answers.joined(of_folds) for name, of_folds in said.items()}
    some = next(iter(whole.values()))
    main = next(
        (name for name in whole if name not in BASELINES), next(iter(whole))
    )  # what the others are held against
    seen = {
        variant: as_result(pooled_exposure([exposure_of_fold(finetuning, variant, k) for k in finetuning.folds]))
        for variant in {*finetuning.variants, SCRATCH}
    }
    known = {name: OURS.get(name.partition(",")[0], "") for name in said} | dict.fromkeys(BASELINES, SCRATCH)
    seen[""] = {TEST_SEEN: "unknown (an encoder of another project)"}
    return {
        "task": finetuning.main.name, "protocol": finetuning.protocol_title, "selection": finetuning.config.selection,
        "protocol_lacks": lacks(finetuning), "folds": list(finetuning.folds), "shorter": shorter,
        "classes": list(finetuning.main.classes), "chance_ua": some.result.chance_ua,
        "majority_wa": some.result.majority_wa,
        "models": {
            name: figures_over_folds(of_folds) | seen[known[name]]
            for name, of_folds in said.items()
        },
        "comparisons": comparisons_with(main, whole) if len(whole) > 1 else [],
    }  # fmt: skip


def render_probes(results: dict[str, Any]) -> str:
    """For the terminal; several lines without a trailing line end."""
    columns = [marked("model, probe", results), "UA", "UA, 95%", "WA", "WA, 95%", "WF1", "macro F1", "UA over folds"]
    chance = [
        "chance, majority class",
        percent(results["chance_ua"]),
        "",
        percent(results["majority_wa"]),
        "",
        "",
        "",
        "",
    ]
    rows = [chance]
    for name, figures in results["models"].items():
        over = figures["over_folds"]["ua"]
        rows.append([
            name, percent(figures["ua"]), interval_text(figures), percent(figures["wa"]), interval_text(figures, "wa"),
            percent(figures["wf1"]), percent(figures["macro_f1"]),
            f"{percent(over['mean'])} +- {100 * over['std']:.1f}",
        ])  # fmt: skip
    kept = ("protocol", "selection", "protocol_lacks", "folds")
    line = protocol_line({"evaluation": {name: results[name] for name in kept}})
    short = [f"trained for 1 in {results['shorter']} steps: for a try"] * (results["shorter"] > 1)
    return "\n".join(
        [text_table((columns, rows)), f"  {line}", *short, *comparison_lines(results["comparisons"]), READING]
    )


def _command(given: Given) -> None:
    probes, models = given["probe"] or ["probe-superb"], given["model"] or list(MODELS)
    probe(given.begin(), probes, models, given["shorter"] or 1)


COMMAND = Command(
    "probe",
    "frozen encoders under the named probes of benchmarks, beside those of others",
    _command,
    options=(
        Option("probe", list, "its name, several times for several (default: probe-superb)", "NAME"),
        Option("model", list, f"{', '.join(MODELS)} (the default), {TFIDF}, or a folder of transformers", "MODEL"),
        Option("shorter", int, "learn for one in N of a probe's steps, for a try", "N", lower=1),
        ACCEPT_CHANGES,
    ),
    examples=("mmpretrain probe --config=ravdess --probe=probe-emobox --model=wavlm-base",),
    details=(
        "Probes: probe-superb, probe-avsuperb, probe-emobox, probe-emotion2vec, probe-merbench; folds and labels are "
        "those of the recipe's finetune part. A folder is one that transformers saved: a model of sound (wav2vec 2.0, "
        "HuBERT, WavLM), of pictures (ViT) or of texts (BERT, RoBERTa); it needs the extra torch. Results are in "
        "WORKDIR/probes.json.",
    ),
)
