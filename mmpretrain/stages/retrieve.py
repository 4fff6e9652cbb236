"""Command `retrieve`: the most expressive hours of unlabelled clips, by an embedding of labelled ones, for each fold.

Our reading of the retrieval of SAAML / AW-HuBERT (Tran et al., ACM MM 2023), of which no code is public.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.config import RetrievalConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.exposure import TrainingData
from mmpretrain.data.manifest import MANIFEST_FILE, SEEN_FILE
from mmpretrain.data.retrieved import Heard, Quotas, choose, manifest_text
from mmpretrain.downstream.finetuning import CLASSIFIER, Finetuning
from mmpretrain.downstream.retrieval import (
    RETRIEVAL,
    Embedding,
    check_held_out,
    embedding_config,
    expressiveness,
    manifest_name,
    pool_config,
    precision,
    prototypes,
)
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.processes import on_main
from mmpretrain.records import FRAME_RATE_HZ
from mmpretrain.run.command import ACCEPT_CHANGES, PROFILE, Command, Option
from mmpretrain.run.layout import PRETRAINED, fold_name
from mmpretrain.run.run import Run
from mmpretrain.run.sealed import write_sealed_text
from mmpretrain.stages.finetune import finetune

ORDERS = ("score", "random")
ENOUGH = 0.95  # of the hours that are wanted
HELD_OUT_SHARE = 0.25  # of a fold's test clips, the most expressive ones, whose precision is told


def retrieve(run: Run, order: str = ORDERS[0]) -> list[dict[str, Any]]:
    """Trains the embedding of every fold, passing over what is done, and a manifest by each; returns the results."""
    finetuning, wanted = Finetuning(run.with_config(embedding_config(run.config))), run.config.retrieval
    pool = run.with_config(pool_config(run.config)).clips[0]
    for number in finetuning.folds:
        check_held_out(finetuning, number, pool)
    frames = wanted.hours * 3600 * FRAME_RATE_HZ
    quotas = Quotas(*(math.floor(frames * share) for share in (1.0, wanted.class_share, wanted.speaker_share)))
    _check_quotas(pool, quotas, wanted)
    finetuning.run.announce()
    finetune(finetuning.run)
    classes = np.array(finetuning.main.classes)
    is_neutral = np.isin(classes, wanted.neutral)
    variant = finetuning.variants[0]

    def of_fold(number: int) -> dict[str, Any]:
        def work(folder: Path, wall: WallTime) -> dict[str, Any]:
            del wall
            embed = Embedding(finetuning, variant, finetuning.run.workdir / fold_name(variant, number) / CLASSIFIER)
            train, test = (
                finetuning.table.select(getattr(finetuning.fold(number), part)) for part in ("train", "test")
            )
            class_of = {
                part: finetuning.classes_N[getattr(finetuning.fold(number), part)] for part in ("train", "test")
            }
            of_class = prototypes(embed(train), class_of["train"], len(classes))
            said = expressiveness(embed(pool, f"fold {number}: scored"), of_class, is_neutral)
            ranks = -np.round(said.scores, 4) if order == "score" else pool.draws("retrieval")
            rows = choose(
                np.lexsort((pool.draws("retrieval"), ranks)), said.classes, list(pool.speakers), pool.lengths, quotas
            )
            heard = Heard(finetuning.main_column, said.scores, classes[said.classes], classes[said.nearest])
            on_main(lambda: _leave(finetuning, variant, number, folder, manifest_text(pool, rows, heard)))
            test_scores = expressiveness(embed(test), of_class, is_neutral).scores
            seconds = pool.lengths[rows] / FRAME_RATE_HZ
            return {
                "fold": number, "clips": len(rows), "hours": float(seconds.sum() / 3600),
                "of_clips": len(pool), "of_hours": float(pool.lengths.sum() / FRAME_RATE_HZ / 3600),
                "lowest_score": float(said.scores[rows].min()) if len(rows) else None,
                "seconds_of_class": {
                    str(name): float(seconds[said.nearest[rows] == c].sum()) for c, name in enumerate(classes)
                },
                "held_out": {
                    "clip_ids": list(test.clip_ids), "speakers": list(test.speakers),
                    "expressive": (~is_neutral[class_of["test"]]).tolist(), "scores": np.round(test_scores, 4).tolist(),
                },
            }  # fmt: skip

        recipe = finetuning.recipe(variant) | finetuning.reads(number, test=True)
        recipe |= run.fields(RETRIEVAL) | {"order": order, "clips to retrieve from": pool.fingerprint}
        recipe |= {"speakers of these": pool.index.fingerprint("speakers")}  # who have quotas
        return run.stage(manifest_name(order, number), recipe, work)

    results = [of_fold(number) for number in finetuning.folds]
    on_main(lambda: show(results, wanted.hours))
    return results


def _check_quotas(pool: ClipTable, quotas: Quotas, wanted: RetrievalConfig) -> None:
    """Raises ValueError where they have room for no clip, before an embedding is trained."""
    named_N = np.array([who != "" for who in pool.speakers], bool)
    if not (pool.lengths <= np.where(named_N, min(quotas), min(quotas.whole, quotas.of_class))).any():
        whole, of_class, of_speaker, shortest = (x / FRAME_RATE_HZ for x in (*quotas, int(pool.lengths.min())))
        raise ValueError(
            f"retrieval.hours={wanted.hours:g} are {whole:g} s, of which a class may have {of_class:g} s "
            f"(class_share={wanted.class_share:g}) and a speaker {of_speaker:g} s (speaker_share="
            f"{wanted.speaker_share:g}), but the shortest of the {len(pool)} clips has {shortest:g} s; raise these"
        )


def _leave(finetuning: Finetuning, variant: str, number: int, folder: Path, text: str) -> None:
    """The manifest, and what the embedding that made it has seen."""
    before = finetuning.encoder_data if variant == PRETRAINED else TrainingData()
    (before | finetuning.own_data(number, "train")).write(folder / SEEN_FILE)
    write_sealed_text(folder / MANIFEST_FILE, text)


def held_out_precision(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the test clips of all folds, which no embedding of theirs has seen: `precision` of each fold's highest."""
    parts = [result["held_out"] for result in results]
    taken = []
    for part in parts:
        count = max(1, round(HELD_OUT_SHARE * len(part["scores"])))
        best = np.argsort(-np.array(part["scores"]), kind="stable")[:count]
        taken.append(np.isin(np.arange(len(part["scores"])), best))
    joined = {name: [x for part in parts for x in part[name]] for name in parts[0]}
    yes, scores = np.array(joined["expressive"], bool), np.array(joined["scores"])
    return precision(joined["clip_ids"], joined["speakers"], yes, scores, np.concatenate(taken))


def show(results: list[dict[str, Any]], wanted_hours: float) -> None:
    """Logs what was retrieved, whether there was as much as wanted, and what of it can be checked."""
    for result in results:
        why = "there are no more" if result["clips"] == result["of_clips"] else "the quotas leave no more"
        fewer = f"; not the {wanted_hours:g} h of retrieval.hours: {why}" * (result["hours"] < ENOUGH * wanted_hours)
        log(
            f"fold {result['fold']}: {result['clips']} of {result['of_clips']} clips, {result['hours']:.3f} of "
            f"{result['of_hours']:.3f} h{fewer}"
        )
    found = held_out_precision(results)
    over = found["over_chance"]
    print(
        f"held-out clips: {100 * found['precision']:.1f} % of the {found['taken']} most expressive of {found['clips']} "
        f"are not neutral, of all {100 * found['chance']:.1f} %: {100 * over['difference']:+.1f} "
        f"({100 * over['low']:+.1f} to {100 * over['high']:+.1f}, {found['resampled']}); "
        + ("" if found["auc"] is None else f"AUC {found['auc']:.3f}")
    )


COMMAND = Command(
    "retrieve",
    "the most expressive hours of unlabelled clips, by an embedding of labelled ones",
    lambda given: retrieve(given.begin(), given["order"] or ORDERS[0]),
    options=(
        Option("order", ORDERS, "the highest scores first, or by chance under the same quotas (default: score)"),
        PROFILE,
        ACCEPT_CHANGES,
    ),
    examples=("mmpretrain retrieve --config=retrieval_ravdess --config.retrieval.hours=0.2",),
    details=(
        "The recipe's `retrieval` part says how many hours, the quotas of a class and of a speaker, and which "
        "embedding is trained, on the folds and the labelled clips of its `finetune` part, from the encoder of "
        "finetune.encoder. It retrieves from the clips of data.corpora to train on, with those of which a share "
        "would be held out, and must find nobody whom the fold tests or chooses by. "
        "WORKDIR/retrieval/ORDER/foldN has manifest.csv and what the embedding has seen.",
    ),
)
