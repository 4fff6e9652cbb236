"""What the embedding of a fold says of clips: how expressive they are. Dims: N clips, D numbers, C classes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from mmpretrain.config import LabelEfficiencyConfig, RunConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.exposure import TrainingData, people_of
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.encoders.weights import load_weights
from mmpretrain.evaluation.comparison import RESAMPLES, resampled_units
from mmpretrain.evaluation.intervals import bounds, reach
from mmpretrain.evaluation.tasks import area_under_curve
from mmpretrain.models.sharing import share_out
from mmpretrain.parallel.mesh import FrameShares
from mmpretrain.randomness import generator
from mmpretrain.records import Batch
from mmpretrain.run.folds import folds_left_out
from mmpretrain.run.forward import Forward
from mmpretrain.run.source import left_by_round

RETRIEVAL = "retrieval"  # the folder, in a run's, of the embeddings and of what they found


def manifest_name(order: str, fold: int) -> str:
    return f"{RETRIEVAL}/{order}/fold{fold}"


def check_held_out(finetuning: Finetuning, number: int, pool: ClipTable) -> None:
    """Raises ValueError naming whom a fold tests or chooses by that is among the clips to retrieve from."""
    fold, protocol = finetuning.fold(number), finetuning.protocol
    if protocol.shared:
        raise ValueError(
            f"finetune.protocol={protocol.name!r} has the same people in several parts ({protocol.description}), so "
            "that nobody would be left to retrieve from; use a protocol such as speakers-5"
        )
    rows = np.concatenate([fold.test, fold.validation])
    shared = TrainingData.of(finetuning.table.select(rows)).shares_with(pool)
    if shared.any():
        people = sorted({name or "nobody named" for _, name in people_of(pool.select(shared))[0]})
        wanted = folds_left_out(protocol.name, number)
        raise ValueError(
            f"data.corpora: {int(shared.sum())} of the {len(pool)} clips to retrieve from are of {', '.join(people)}, "
            f"whom fold {number} of {finetuning.protocol_title} tests or chooses by; leave them out: "
            f"data.exclude_folds={wanted}, or name them in data.exclude_speakers"
        )


def embedding_config(config: RunConfig) -> RunConfig:
    """The recipe of a run in the folder `retrieval` of that of `config`, whose fine-tuning is the embedding's."""
    if config.retrieval is None or config.finetune is None:
        missing = "retrieval" if config.retrieval is None else "finetune"
        raise ValueError(
            f"this recipe has no {missing} part; clips are retrieved by an embedding (`retrieval`) of labelled clips "
            "(`finetune`): set both"
        )
    wanted, task = config.retrieval, config.retrieval.task
    start = config.finetune.encoder
    if start == "last_round" and config.rounds:
        start = str(left_by_round(Path(config.workdir), len(config.rounds)).path)
    part = dataclasses.replace(
        config.finetune, encoder=start, tasks=(task,), select_by=f"{task.name}/map", selection="last",
        sampling="spread", compare_from_scratch=False, classifier="trained", head="attentive", text=None, tracks=(),
        fusion="early", mixup=0.0, label_smoothing=0.0, modality_table=False, num_steps=wanted.num_steps,
        eval_every=wanted.num_steps, optimizer=wanted.optimizer,
    )  # fmt: skip
    return dataclasses.replace(
        config, workdir=str(Path(config.workdir) / RETRIEVAL), rounds=(), finetune=part, units=None,
        label_efficiency=LabelEfficiencyConfig(),
    )  # fmt: skip


def pool_config(config: RunConfig) -> RunConfig:
    """As `config`, holding out no share to validate on: of what is retrieved one still can be. A split `validation`
    stays out."""
    corpora = tuple(
        dataclasses.replace(corpus, validation_share=min(corpus.validation_share, 0.0))
        for corpus in config.data.corpora
    )
    return dataclasses.replace(config, data=dataclasses.replace(config.data, corpora=corpora, validation_share=0.0))


class Embedding:
    """That of a fold. Every call gives the points of a table's clips, float32 [N, D] of length 1, in every process."""

    def __init__(self, finetuning: Finetuning, variant: str, classifier: Path):
        trainer, run, name = finetuning.trainer(variant), finetuning.run, finetuning.main.name
        state = trainer.init(run.config.seed)
        model = trainer.model(state)
        load_weights(classifier, model)
        self._state = trainer.with_model(state, model)

        def apply(state: Any, batch: Batch) -> jax.Array:
            model = nnx.merge(trainer.graphdef, state.params, state.kept, copy=True)
            share_out(model, FrameShares(run.mesh))
            return trainer.objective.outputs(model, batch)[name]

        frames = finetuning.config.batch_frames
        self._forward = Forward(run, finetuning.model(variant), apply, frames, everywhere=True, of_clips=True)
        self._dim = finetuning.main.embedding_dim

    def __call__(self, table: ClipTable, title: str = "") -> np.ndarray:
        points_ND = np.zeros((len(table), self._dim), np.float32)
        for row, _, point in self._forward(self._state, table, title):
            points_ND[row] = point
        return _of_length_1(points_ND)  # of a long clip it is the mean of its windows' points


def prototypes(points_ND: np.ndarray, class_N: np.ndarray, num_classes: int) -> np.ndarray:
    """float32 [C, D], of length 1: the mean of the points of each class."""
    return _of_length_1(np.stack([points_ND[class_N == c].sum(0) for c in range(num_classes)]))


def _of_length_1(points_ND: np.ndarray) -> np.ndarray:
    return points_ND / np.maximum(np.linalg.norm(points_ND, axis=1, keepdims=True), 1e-12)


class Said(NamedTuple):
    """What an embedding says of N clips: float32, the largest cosine to the prototype of a class that is not neutral,
    less the largest to one that is; and int, of which class the former is, and which class is nearest of all."""

    scores: np.ndarray
    classes: np.ndarray
    nearest: np.ndarray


def expressiveness(points_ND: np.ndarray, prototypes_CD: np.ndarray, neutral_C: np.ndarray) -> Said:
    """How expressive clips are. neutral_C: bool."""
    cosine_NC = points_ND @ prototypes_CD.T
    others_NC = np.where(neutral_C, -np.inf, cosine_NC)
    scores_N = others_NC.max(1) - np.where(neutral_C, cosine_NC, -np.inf).max(1)
    return Said(scores_N, others_NC.argmax(1), cosine_NC.argmax(1))


def precision(
    clip_ids: list[str], speakers: list[str], yes_N: np.ndarray, score_N: np.ndarray, taken_N: np.ndarray
) -> dict[str, Any]:
    """Of the clips that are taken how many are `yes`, over how many of all are, by speakers resampled; ready for JSON.

    chance: of all clips. over_chance: the difference, with its 95 % interval. auc: how often a clip that is scores
    above one that is not. taken_N: bool.
    """
    unit_N, resampled = resampled_units(clip_ids, speakers)
    units = int(unit_N.max()) + 1
    counts_U4 = np.stack(
        [np.bincount(unit_N, x, units) for x in (yes_N & taken_N, taken_N, yes_N, np.ones(len(yes_N)))]
    )
    drawn = generator(0, "retrieval/bootstrap", units).integers(units, size=(RESAMPLES, units))
    hits, taken, yes, whole = (counts_U4[:, drawn]).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        gains_B = hits / taken - yes / whole
    found, chance = float(yes_N[taken_N].mean()), float(yes_N.mean())
    over = {
        "difference": found - chance,
        **bounds(found - chance, reach(gains_B[np.isfinite(gains_B)], units), lowest=-1),
    }
    both = yes_N.any() and not yes_N.all()
    return {
        "clips": len(yes_N), "taken": int(taken_N.sum()), "precision": found, "chance": chance, "over_chance": over,
        "auc": area_under_curve(yes_N, score_N) if both else None, "resampled": resampled, "units": units,
    }  # fmt: skip
