"""Command `adapt`: an encoder goes on pretraining on the clips of a task, and is compared with itself as it was.

`tapt`: task-adaptive pretraining (Gururangan et al. 2020), on clusters of what the recipe says. `emotion-clusters`: on
clusters of a layer of the encoder as it was fine-tuned for the fold, from the weights that it had before that (the idea
of HFLEA, arXiv 2312.16383). `inductive`: for each fold on what its classifier may see, so that an encoder for every
fold; `transductive`: on all clips, those that are tested too, without their labels. `affect-aware`: for each fold on
its labelled clips and those that an embedding of these finds expressive (our reading of SAAML / AW-HuBERT, Tran et al.,
ACM MM 2023); `affect-aware-random`: on as many hours by chance, compared with that too.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

from mmpretrain.config import CorpusConfig, RunConfig
from mmpretrain.downstream.checking import lacks, require_classes
from mmpretrain.downstream.exposure import TEST_SEEN
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.predictions import read_answers, table_name
from mmpretrain.downstream.retrieval import manifest_name
from mmpretrain.evaluation.comparison import Answers, comparisons_with, figures_over_folds
from mmpretrain.files import write_json
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main
from mmpretrain.report.comparisons import comparison_lines, interval_text
from mmpretrain.report.tables import protocol_of, text_table
from mmpretrain.run.command import ACCEPT_CHANGES, PROFILE, Command, Option
from mmpretrain.run.folds import OF_FOLD, config_of_fold
from mmpretrain.run.layout import EVALUATION, PRETRAINED, fold_name
from mmpretrain.run.run import Run
from mmpretrain.run.source import ENCODER
from mmpretrain.run.stage import read_result
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.finetune import finetune
from mmpretrain.stages.refine import refine
from mmpretrain.stages.retrieve import retrieve

INDUCTIVE, TRANSDUCTIVE, PLAIN = "tapt-inductive", "tapt-transductive", "plain"
CLUSTERS, CLUSTERS_OF_ALL = "emotion-clusters-inductive", "emotion-clusters-transductive"
AFFECT_AWARE, BY_CHANCE = "affect-aware", "affect-aware-random"
ORDER_OF = {AFFECT_AWARE: "score", BY_CHANCE: "random"}  # in which the clips of these are retrieved
METHODS = (INDUCTIVE, TRANSDUCTIVE, CLUSTERS, CLUSTERS_OF_ALL, AFFECT_AWARE, BY_CHANCE)


def adapt(run: Run, method: str) -> dict[str, Any]:
    """Adapts, fine-tunes and tests on all folds, passing over what is done; returns what is in METHOD.json."""
    check_adaptation(run.config, method)
    finetuning = Finetuning(run)
    require_classes(finetuning, "adapt")
    folds = finetuning.folds
    methods = (AFFECT_AWARE, BY_CHANCE) if method == BY_CHANCE else (method,)
    configs = {PLAIN: plain_configs(run.config, folds)}
    configs |= {name: adapted_configs(run.config, folds, name) for name in methods}
    for name, of_method in configs.items():
        for config in of_method:
            if name in ORDER_OF:
                retrieve(run.with_config(retrieving_config(run.config, config.finetune.folds[0])), ORDER_OF[name])
            one = run.with_config(config)
            log(f"{name}: {one.workdir}")
            one.announce()
            if config.rounds:
                refine(one)
            finetune(one)
            evaluate(one)
    workdirs = {name: [Path(config.workdir) for config in of_method] for name, of_method in configs.items()}
    result = on_main(lambda: _together(finetuning, workdirs, method))
    on_main(lambda: write_json(run.workdir / f"{method}.json", result))
    on_main(lambda: show(result))
    return result


def check_adaptation(config: RunConfig, method: str) -> None:
    """Raises ValueError where the recipe has nothing to adapt, or nothing to adapt it to or to make clusters of."""
    if config.finetune is None:
        raise ValueError("this recipe has no finetune part, to whose clips an encoder could be adapted; add one")
    start = config.rounds[0].init if config.rounds else ""
    if start in ("", "random", "previous_round"):
        raise ValueError(
            f"rounds[0].init={start!r}: what is adapted is an encoder that there is; give the path of its folder there"
        )
    if method in ORDER_OF and config.retrieval is None:
        raise ValueError(
            f"this recipe has no retrieval part, which {method} finds expressive clips by; set `retrieval` in it, or "
            "use another --method"
        )
    if method not in (CLUSTERS, CLUSTERS_OF_ALL):
        return
    round_, kinds = config.rounds[0], [targets.features for targets in config.rounds[0].targets]
    if "hidden" not in kinds or round_.encoder != start:
        raise ValueError(
            f"rounds[0].targets are of {' and '.join(kinds)}, rounds[0].encoder={round_.encoder!r}: {method} clusters "
            f"a layer of what it fine-tunes; set hidden(layer=..., num_clusters=...) and the encoder {start!r}"
        )
    if config.finetune.classifier != "trained":
        raise ValueError(
            f"finetune.classifier={config.finetune.classifier!r}: it leaves the encoder as it is, and {method} "
            "clusters what fine-tuning made of it; set 'trained'"
        )


def plain_configs(config: RunConfig, folds: tuple[int, ...]) -> list[RunConfig]:
    """The encoder as it is, fine-tuned: one for all folds, or, where each has an encoder of its own, one for each."""
    config, start = copy.deepcopy(config), config.rounds[0].init
    config.workdir, config.rounds = str(Path(config.workdir) / PLAIN), ()
    config.data.exclude_folds, config.finetune.encoder = (), start
    return [config_of_fold(config, fold) for fold in folds] if OF_FOLD in start else [config]


def retrieving_config(config: RunConfig, fold: int) -> RunConfig:
    """Of the run that retrieves for a fold, in the folder of `affect-aware`; its embedding begins with the encoder that
    is adapted."""
    config = copy.deepcopy(config)
    config.workdir, config.finetune.encoder = str(Path(config.workdir) / AFFECT_AWARE), config.rounds[0].init
    config.finetune.corpora = _labelled(config)
    return config_of_fold(config, fold)


def _labelled(config: RunConfig) -> tuple[CorpusConfig, ...]:
    """The corpora of the labelled clips, whatever part of them pretraining takes."""
    return config.finetune.corpora or tuple(CorpusConfig(corpus.path) for corpus in config.data.corpora)


def adapted_configs(config: RunConfig, folds: tuple[int, ...], method: str) -> list[RunConfig]:
    """One for each fold, whose rounds have not seen its speakers, or one for all, whose rounds see all clips.

    Of emotion clusters always one for each fold: what they are made of has seen the labels of its other folds.
    """
    config, whole = copy.deepcopy(config), config
    if method in (CLUSTERS, CLUSTERS_OF_ALL):
        plain = Path(config.workdir) / PLAIN
        plain = plain / f"fold{OF_FOLD}" if OF_FOLD in config.rounds[0].init else plain
        config.rounds[0].encoder = str(plain / fold_name(PRETRAINED, OF_FOLD) / ENCODER)
    config.workdir = str(Path(config.workdir) / method)
    if method in ORDER_OF:
        config.finetune.corpora = _labelled(config)
    else:
        config.data.corpora = config.finetune.corpora or config.data.corpora
    config.data.exclude_folds, config.finetune.encoder = (), "last_round"
    config.finetune.compare_from_scratch = False
    if method == TRANSDUCTIVE:
        return [config]
    configs = [config_of_fold(config, fold) for fold in folds]
    for fold, of_fold in zip(folds, configs, strict=True):
        if method == CLUSTERS_OF_ALL:
            of_fold.data.exclude_folds = ()
        if method in ORDER_OF:
            folder = Path(retrieving_config(whole, fold).workdir) / manifest_name(ORDER_OF[method], fold)
            pool = [dataclasses.replace(corpus, retrieved=str(folder)) for corpus in whole.data.corpora]
            there = {corpus.path for corpus in pool}
            of_fold.data.corpora = (*pool, *(c for c in config.finetune.corpora if c.path not in there))
    return configs


def _together(finetuning: Finetuning, workdirs: dict[str, list[Path]], method: str) -> dict[str, Any]:
    """Figures over the test clips of all folds, of all on the same clips."""
    folds, classes = finetuning.folds, finetuning.main.classes
    answers = {
        name: [
            read_answers(workdir / EVALUATION / table_name(PRETRAINED, fold), classes)
            for fold, workdir in zip(folds, of_folds * (len(folds) // len(of_folds)), strict=True)
        ]
        for name, of_folds in workdirs.items()
    }
    whole = {name: Answers.joined(of_folds) for name, of_folds in answers.items()}
    seen = {
        name: [read_result(workdir, EVALUATION)[PRETRAINED][TEST_SEEN] for workdir in of_folds]
        for name, of_folds in workdirs.items()
    }
    return {
        "method": method, "task": finetuning.main.name, "protocol": finetuning.protocol_title,
        "protocol_lacks": lacks(finetuning), "folds": list(folds),
        "classes": list(classes), "start": finetuning.run.config.rounds[0].init, "encoders": list(workdirs),
        **{name: figures_over_folds(of_folds) | {TEST_SEEN: seen[name]} for name, of_folds in answers.items()},
        "comparisons": comparisons_with(method, whole),
    }  # fmt: skip


def show(result: dict[str, Any]) -> None:
    """Prints the table."""
    rows = [
        [name, *(f"{100 * figures[m]:.1f} ({interval_text(figures, m)})" for m in ("ua", "wa")),
         "; ".join(dict.fromkeys(figures[TEST_SEEN]))]
        for name in result["encoders"] for figures in [result[name]]
    ]  # fmt: skip
    print(f"\n{result['task']}, {protocol_of(result)}, folds {', '.join(map(str, result['folds']))}")
    print(text_table((["encoder", "UA", "WA", TEST_SEEN], rows)))
    for line in comparison_lines(result["comparisons"]):
        print(f"  {line}")


COMMAND = Command(
    "adapt",
    "pretraining of an encoder goes on with the clips of a task, compared with the encoder as it was",
    lambda given: adapt(given.begin(), given["method"] or INDUCTIVE),
    options=(
        Option("method", METHODS, f"what is predicted, and whose clips (default: {INDUCTIVE})"),
        PROFILE,
        ACCEPT_CHANGES,
    ),
    examples=(
        "mmpretrain adapt --config=tapt_ravdess",
        "mmpretrain adapt --config=emotion_clusters_ravdess --method=emotion-clusters-inductive",
        "mmpretrain adapt --config=affect_aware_ravdess --method=affect-aware-random",
    ),
    details=(
        "tapt: the recipe's rounds as they are. emotion-clusters: the first round's targets are clusters of a layer of "
        "the encoder as it was fine-tuned for the fold. inductive: each fold has a run of its own in "
        "WORKDIR/METHOD/foldN, whose rounds leave out the speakers that it tests and those that it chooses by; "
        "transductive: rounds see all clips, which the figures say, and of tapt there is one run for all folds.",
        "affect-aware: for each fold an embedding of its training clips, begun with the encoder that is adapted, "
        "retrieves the most expressive hours of data.corpora (the recipe's `retrieval` part); the rounds are of these "
        "and of the labelled clips of finetune.corpora, without whom the fold tests or chooses by. "
        "affect-aware-random: the same with clips by chance, under the same quotas, compared with affect-aware too.",
        "The rounds begin with the encoder of rounds[0].init, in whose path {fold} is the fold's number. WORKDIR/plain "
        "is the encoder as it was, fine-tuned on the same folds; WORKDIR/METHOD.json has them, and how they differ. "
        "For several seeds: `crossval --by_fold` with --config.workdir=WORKDIR/METHOD.",
    ),
)
