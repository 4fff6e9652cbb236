"""Command `retrieve`: the most expressive hours of unlabelled clips, by an embedding of labelled ones, for each fold.

Our reading of the retrieval of SAAML / AW-HuBERT (Tran et al., ACM MM 2023), of which no code is public.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.exposure import TrainingData
from mmpretrain.data.manifest import MANIFEST_FILE, SEEN_FILE
from mmpretrain.data.retrieved import Quotas, choose, manifest_text
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.processes import on_main
from mmpretrain.records import FRAME_RATE_HZ
from mmpretrain.run.command import ACCEPT_CHANGES, PROFILE, Command, Option
from mmpretrain.run.finetuning import CLASSIFIER, Finetuning
from mmpretrain.run.layout import PRETRAINED, fold_name
from mmpretrain.run.retrieval import Embedding, check_held_out, expressiveness, precision, prototypes
from mmpretrain.run.run import Run
from mmpretrain.run.sealed import write_sealed_text
from mmpretrain.stages.finetune import finetune

ORDERS = ("score", "random")
HELD_OUT_SHARE = 0.25  # of a fold's test clips, the most expressive ones, whose precision is told


def retrieve(
    run: Run, hours: float, neutral: tuple[str, ...], class_share: float, speaker_share: float, order: str
) -> list[dict[str, Any]]:
    """Trains the embedding of every fold, passing over what is done, and a manifest by each; returns the results."""
    finetuning = Finetuning(run)
    check_retrieval(finetuning, neutral)
    pool = run.clips[0]
    for number in finetuning.folds:
        check_held_out(finetuning, number, pool)
    finetune(run)
    classes = np.array(finetuning.main.classes)
    is_neutral = np.isin(classes, neutral)
    frames = hours * 3600 * FRAME_RATE_HZ
    quotas = Quotas(*(math.floor(frames * share) for share in (1.0, class_share, speaker_share)))
    variant = finetuning.variants[0]

    def of_fold(number: int) -> dict[str, Any]:
        def work(folder: Path, wall: WallTime) -> dict[str, Any]:
            del wall
            embed = Embedding(finetuning, variant, run.workdir / fold_name(variant, number) / CLASSIFIER)
            train, test = (
                finetuning.table.select(getattr(finetuning.fold(number), part)) for part in ("train", "test")
            )
            class_of = {
                part: finetuning.classes_N[getattr(finetuning.fold(number), part)] for part in ("train", "test")
            }
            of_class = prototypes(embed(train), class_of["train"], len(classes))
            scores, found = expressiveness(embed(pool, f"fold {number}: scored"), of_class, is_neutral)
            ranks = -np.round(scores, 4) if order == "score" else pool.draws("retrieval")
            rows = choose(
                np.lexsort((pool.draws("retrieval"), ranks)), found, list(pool.speakers), pool.lengths, quotas
            )
            on_main(
                lambda: _leave(finetuning, variant, number, folder, manifest_text(pool, rows, classes[found], scores))
            )
            test_scores, _ = expressiveness(embed(test), of_class, is_neutral)
            seconds = pool.lengths[rows] / FRAME_RATE_HZ
            return {
                "fold": number, "clips": len(rows), "hours": float(seconds.sum() / 3600),
                "of_clips": len(pool), "of_hours": float(pool.lengths.sum() / FRAME_RATE_HZ / 3600),
                "lowest_score": float(scores[rows].min()) if len(rows) else None,
                "seconds_of_class": {
                    str(name): float(seconds[classes[found[rows]] == name].sum()) for name in classes[~is_neutral]
                },
                "held_out": {
                    "clip_ids": list(test.clip_ids), "speakers": list(test.speakers),
                    "expressive": (~is_neutral[class_of["test"]]).tolist(), "scores": np.round(test_scores, 4).tolist(),
                },
            }  # fmt: skip

        recipe = finetuning.recipe(variant) | finetuning.reads(number, test=True) | {
            "hours": hours, "neutral": list(neutral), "class_share": class_share, "speaker_share": speaker_share,
            "order": order, "clips to retrieve from": pool.fingerprint,
        }  # fmt: skip
        return run.stage(f"retrieval/{order}/fold{number}", recipe, work)

    results = [of_fold(number) for number in finetuning.folds]
    on_main(lambda: show(results))
    return results


def check_retrieval(finetuning: Finetuning, neutral: tuple[str, ...]) -> None:
    """Raises ValueError where the recipe's first task is no embedding, or the neutral classes are not of it."""
    main = finetuning.main
    if main.kind != "embedding":
        raise ValueError(f"finetune.tasks[0].kind={main.kind!r}: `retrieve` measures by one of kind 'embedding', first")
    if finetuning.config.selection != "last" or finetuning.frozen:
        raise ValueError(
            f"finetune.selection={finetuning.config.selection!r}, classifier={finetuning.config.classifier!r}: "
            "`retrieve` takes an embedding that is trained by steps and chosen on nobody; set 'last' and 'trained'"
        )
    unknown = sorted(set(neutral) - set(main.classes))
    if unknown or not 0 < len(set(neutral)) < len(main.classes):
        raise ValueError(
            f"--neutral={','.join(neutral)}: it must be some, not all, of the classes {', '.join(main.classes)}"
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


def show(results: list[dict[str, Any]]) -> None:
    """Logs what was retrieved, and what of it can be checked."""
    for result in results:
        log(
            f"fold {result['fold']}: {result['clips']} of {result['of_clips']} clips, {result['hours']:.3f} of "
            f"{result['of_hours']:.3f} h"
        )
    found = held_out_precision(results)
    over = found["over_chance"]
    print(
        f"held-out clips: {100 * found['precision']:.1f} % of the {found['taken']} most expressive of {found['clips']} "
        f"are not neutral, of all {100 * found['chance']:.1f} %: {100 * over['difference']:+.1f} "
        f"({100 * over['low']:+.1f} to {100 * over['high']:+.1f}, {found['resampled']}); "
        + ("" if found["auc"] is None else f"AUC {found['auc']:.3f}")
    )


def _share(name: str, text: str | None, usual: float, most: float, wanted: str) -> float:
    try:
        value = usual if text is None else float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= most:
        raise ValueError(f"--{name}={text}; it must be {wanted}")
    return value


def _run(given: Any) -> None:
    hours = _share("hours", given["hours"], 0.0, 1_000_000, "a number of hours above 0")
    class_share = _share("class_share", given["class_share"], 1.0, 1, "a share of the hours, above 0 and at most 1")
    speaker_share = _share("speaker_share", given["speaker_share"], 0.01, 1, "a share, above 0 and at most 1")
    neutral = tuple((given["neutral"] or "neutral").split(","))
    retrieve(given.begin(), hours, neutral, class_share, speaker_share, given["order"] or ORDERS[0])


COMMAND = Command(
    "retrieve",
    "the most expressive hours of unlabelled clips, by an embedding of labelled ones",
    _run,
    options=(
        Option("hours", str, "how many to take", "B", required=True),
        Option("neutral", str, "the classes that are not expressive (default: neutral)", "CLASS,..."),
        Option("class_share", str, "of the hours that clips nearest to one class may have (default: 1)", "S"),
        Option("speaker_share", str, "of the hours that one speaker may have (default: 0.01)", "S"),
        Option("order", ORDERS, "the highest scores first, or by chance under the same quotas (default: score)"),
        PROFILE,
        ACCEPT_CHANGES,
    ),
    examples=("mmpretrain retrieve --config=configs/adapt/retrieval_ravdess.py --hours=0.1 --speaker_share=0.2",),
    details=(
        "The recipe's first task is of kind 'embedding', which is fine-tuned on its folds; the clips to retrieve from "
        "are those of data.corpora to train on, and must have nobody whom the fold tests or chooses by. "
        "WORKDIR/retrieval/ORDER/foldN has manifest.csv and what the embedding has seen.",
    ),
)
