"""Stages `finetune` and `evaluate`: an emotion classifier per fold of a protocol, chosen on validation, tested once."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmpretrain.config import ModelConfig, as_dict, flatten
from mmpretrain.data.clips import ClipTable, open_clips
from mmpretrain.data.records import EMOTIONS, Batch
from mmpretrain.evaluation.baseline import clip_statistics, mfcc_baseline
from mmpretrain.evaluation.metrics import ClassificationResult, classification_metrics, pooled
from mmpretrain.evaluation.protocols import Fold, get_protocol, summarize_folds
from mmpretrain.export.encoder import load_encoder, read_config
from mmpretrain.export.weights import WEIGHTS, WholeFolder, load_weights, save_weights
from mmpretrain.objectives.classification import Classification
from mmpretrain.observe.progress import log, track
from mmpretrain.parallel.mesh import shard_batch
from mmpretrain.stages.context import Run
from mmpretrain.stages.targets import encoder_path
from mmpretrain.train.loop import Loop
from mmpretrain.train.optimizer import make_optimizer, make_schedule
from mmpretrain.train.step import Trainer, TrainState, make_trainer

PRETRAINED, SCRATCH = "pretrained", "scratch"
EVALUATION = "evaluation"


def fold_name(variant: str, fold: int) -> str:
    return f"finetune/{variant}/fold{fold}"


class Task:
    """What the recipe's `finetune` part stands for: labelled clips, folds, and the network for each variant."""

    def __init__(self, run: Run):
        self.run, self.config = run, _require(run)
        unknown = sorted(set(self.config.classes) - set(EMOTIONS))
        if unknown:
            raise ValueError(f"finetune.classes has {unknown}; emotions are {', '.join(EMOTIONS)}")
        self.protocol = get_protocol(self.config.protocol)
        table = open_clips(self.config.corpora or run.config.data.corpora)
        self.table: ClipTable = table.require(run.config.model.modalities)
        class_of = {name: i for i, name in enumerate(self.config.classes)}
        self.labels = np.array([class_of.get(row.emotion, -1) for row in self.table.rows], np.int32)

    @property
    def folds(self) -> tuple[int, ...]:
        return self.config.folds or tuple(range(1, self.protocol.num_folds + 1))

    @property
    def variants(self) -> tuple[str, ...]:
        if self.config.encoder == "none":
            return (SCRATCH,)
        return (PRETRAINED, SCRATCH) if self.config.compare_from_scratch else (PRETRAINED,)

    def fold(self, number: int) -> Fold:
        return self.protocol.fold(self.table.rows, number, self.config.classes)

    def encoder(self) -> Path:
        """The pretrained encoder's folder."""
        if self.config.encoder == "last_round":
            return encoder_path(self.run, len(self.run.config.rounds))
        return Path(self.config.encoder)

    def model(self, variant: str) -> ModelConfig:
        """The encoder's own architecture, or the recipe's, with the rates of fine-tuning."""
        base = read_config(self.encoder())[0] if variant == PRETRAINED else self.run.config.model
        rates = dict.fromkeys(("dropout", "attention_dropout", "input_dropout"), self.config.dropout)
        return dataclasses.replace(
            base, **rates, activation_dropout=0.0, layerdrop=0.0, feature_grad_scale=self.config.feature_grad_scale
        )

    def trainer(self, variant: str) -> Trainer:
        freeze = self.config.freeze_steps if variant == PRETRAINED else 0
        tx = make_optimizer(self.config.optimizer, self.config.num_steps, freeze_steps=freeze)
        return make_trainer(Classification(self.model(variant), self.config), tx, self.run.mesh)

    def recipe(self, variant: str) -> dict[str, Any]:
        """All that decides a fold's result but which fold it is."""
        own = {k: v for k, v in self.run.recipe("finetune", "data").items()
               if not k.startswith(("finetune.folds", "finetune.compare"))}  # fmt: skip
        source = read_config(self.encoder())[1]["fingerprint"] if variant == PRETRAINED else ""
        model = flatten(as_dict(self.model(variant)), "model")
        return own | model | {"encoder": source, "clips": self.table.fingerprint}

    def evaluation_batches(self, rows: np.ndarray, variant: str) -> Iterator[Batch]:
        """The labelled clips `rows`; `clip_B` counts within them."""
        return self.run.evaluation_batches(
            self.table.select(rows), self.model(variant),
            batch_frames=self.config.batch_frames, labels=self.labels[rows],
        )  # fmt: skip


def finetune(run: Run) -> None:
    """Trains every variant on every fold."""
    task = Task(run)
    for variant in task.variants:
        for fold in task.folds:
            _train_fold(run, task, variant, fold)


def _train_fold(run: Run, task: Task, variant: str, number: int) -> dict[str, Any]:
    config, name = task.config, fold_name(variant, number)
    title = f"{variant}, fold {number}"

    def work(folder: Path) -> dict[str, Any]:
        fold = task.fold(number)
        trainer = task.trainer(variant)
        plan, batches = run.training_batches(
            task.table.select(fold.train), task.model(variant), config.num_steps, batch_frames=config.batch_frames,
            labels=task.labels[fold.train], freq_mask=config.freq_mask, freq_warp=config.freq_warp,
        )  # fmt: skip
        log(f"{title}: {len(fold.train)} training, {len(fold.valid)} validation, {len(fold.test)} test clips; "
            f"{plan.summary()}")  # fmt: skip

        predict = predictor(trainer)

        def evaluate(state: TrainState) -> dict[str, float]:
            logits = predict(state, task.evaluation_batches(fold.valid, variant), len(fold.valid))
            labels = task.labels[fold.valid]
            result = classification_metrics(labels, logits.argmax(-1), config.classes)
            return {"valid/loss": _mean_nll(logits, labels)} | {
                f"valid/{metric}": getattr(result, metric) for metric in ("ua", "wa", "wf1", "macro_f1")
            }

        loop = Loop(
            trainer, batches, evaluate, run.writer(name), folder, f"fine-tuning {title}", seed=run.config.seed,
            num_steps=config.num_steps, log_every=run.config.log_every, eval_every=config.eval_every,
            checkpoint=run.config.checkpoint, learning_rate=make_schedule(config.optimizer, config.num_steps),
            select_by=f"valid/{config.select_by}",
            initialize=(lambda state: put_encoder(state, trainer, task.encoder())) if variant == PRETRAINED
            else (lambda state: state),
        )  # fmt: skip
        state = loop.run()
        with WholeFolder(folder / "classifier") as draft:
            save_weights(draft, trainer.model(state))
        return {"step": int(state.step)} | evaluate(state)

    return run.stage(name, task.recipe(variant), work)


def evaluate(run: Run) -> dict[str, Any]:
    """Tests every fold's classifier on its test clips, beside the plain baseline."""
    task = Task(run)
    recipe = {f"{variant}/{k}": v for variant in task.variants for k, v in task.recipe(variant).items()}

    def work(folder: Path) -> dict[str, Any]:
        baseline = _baseline(task)
        variants = {}
        for variant in task.variants:
            variants[variant] = [_test_fold(run, task, variant, fold, folder) for fold in task.folds]
        ours = variants.get(PRETRAINED, variants.get(SCRATCH))
        return {
            "protocol": f"{task.protocol.name} v{task.protocol.version}", "selection": task.protocol.selection,
            "classes": list(task.config.classes), "modalities": list(run.config.model.modalities),
            "chance_ua": pooled(ours).chance_ua, "majority_wa": pooled(ours).majority_wa,
            "folds": [{"fold": fold, **result.as_dict()} for fold, result in zip(task.folds, ours, strict=True)],
            "baseline": _summary(baseline),
            **{variant: _summary(results) for variant, results in variants.items()},
        }  # fmt: skip

    return run.stage(EVALUATION, recipe | {"folds": list(task.folds)}, work)


def predictor(trainer: Trainer):
    """A function (state, batches, num_clips) -> logits float32 [num_clips, C]."""
    graphdef, objective = trainer.graphdef, trainer.objective
    forward = jax.jit(
        lambda state, batch: objective.logits(nnx.merge(graphdef, state.params, state.stats, copy=True), batch)
    )

    def predict(state: TrainState, batches: Iterator[Batch], num_clips: int) -> np.ndarray:
        logits = np.zeros((num_clips, len(objective.finetune.classes)), np.float32)
        for batch in batches:
            rows = batch.clip_B >= 0
            logits[batch.clip_B[rows]] = np.asarray(forward(state, shard_batch(batch, trainer.mesh)))[rows]
        return logits

    return predict


def put_encoder(state: TrainState, trainer: Trainer, path: Path) -> TrainState:
    """The state with the exported encoder's weights in place of its own; everything else as it was."""
    model = trainer.model(state)
    source = nnx.state(load_encoder(path).module, WEIGHTS)
    target = nnx.state(model.encoder, WEIGHTS)
    nnx.update(model.encoder, jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), source, target))
    params, stats = nnx.state(model, nnx.Param), nnx.state(model, nnx.BatchStat)
    return dataclasses.replace(state, params=params, stats=stats)


def _test_fold(run: Run, task: Task, variant: str, number: int, folder: Path) -> ClassificationResult:
    classifier = run.workdir / fold_name(variant, number) / "classifier"
    if not classifier.exists():
        raise FileNotFoundError(f"{classifier} does not exist: run `mmpretrain finetune` with this recipe first")
    trainer = task.trainer(variant)
    state = trainer.init(run.config.seed)
    model = trainer.model(state)
    load_weights(classifier, model)
    state = dataclasses.replace(state, params=nnx.state(model, nnx.Param), stats=nnx.state(model, nnx.BatchStat))
    rows = task.fold(number).test
    logits = predictor(trainer)(state, task.evaluation_batches(rows, variant), len(rows))
    predicted = logits.argmax(-1)
    _write_predictions(folder / f"{variant}-fold{number}.csv", task, rows, logits)
    result = classification_metrics(task.labels[rows], predicted, task.config.classes)
    log(f"{variant}, fold {number}: UA {100 * result.ua:.1f}, WA {100 * result.wa:.1f} on {len(rows)} test clips")
    return result


def _baseline(task: Task) -> list[ClassificationResult]:
    """MFCC statistics and logistic regression on the same folds."""
    features = np.zeros((len(task.table), len(clip_statistics(np.zeros(0, np.int16)))), np.float32)
    for row in track(np.flatnonzero(task.labels >= 0), "baseline: statistics of MFCC", unit="clip"):
        features[row] = clip_statistics(task.table.load(row).audio)
    classes = task.config.classes
    return [mfcc_baseline(features, task.labels, task.fold(fold), classes) for fold in task.folds]


def _summary(results: list[ClassificationResult]) -> dict[str, Any]:
    return pooled(results).as_dict() | {"over_folds": summarize_folds(results)}


def _mean_nll(logits: np.ndarray, labels: np.ndarray) -> float:
    log_probs = jax.nn.log_softmax(jnp.asarray(logits))
    return float(-log_probs[np.arange(len(labels)), labels].mean())


def _write_predictions(path: Path, task: Task, rows: np.ndarray, logits: np.ndarray) -> None:
    classes = task.config.classes
    probabilities = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip_id", "speaker", "true", "predicted", *classes])
        for row, probs in zip(rows, probabilities, strict=True):
            of = task.table.rows[row]
            shown = [f"{p:.4f}" for p in probs]
            writer.writerow([of.clip_id, of.speaker, classes[task.labels[row]], classes[probs.argmax()], *shown])


def _require(run: Run):
    if run.config.finetune is None:
        raise ValueError("this recipe has no finetune part; set `finetune=FinetuneConfig(...)` in it")
    return run.config.finetune
