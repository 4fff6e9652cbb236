"""The end of a round: its figures beside those of the round before, and a stop if it has collapsed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmpretrain.config import fingerprint
from mmpretrain.encoders.folder import load_encoder, read_config
from mmpretrain.evaluation.probe import linear_probe
from mmpretrain.evaluation.protocols import Fold
from mmpretrain.files import read_json, write_json
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.observe.progress import log, track
from mmpretrain.parallel.mesh import replicated, shard_batch
from mmpretrain.parallel.processes import on_main
from mmpretrain.records import FRAME_RATE_HZ, Batch
from mmpretrain.report.tables import render_health
from mmpretrain.run.collapse import check_predictions
from mmpretrain.run.layout import health_file, round_figures
from mmpretrain.run.run import Run
from mmpretrain.stages.finetune import Task
from mmpretrain.stages.targets import encoder_path, open_targets


def finish_round(run: Run, number: int, *, show: bool = True) -> None:
    """Measures the encoder of round `number`, shows its figures and those of the rounds before. Raises Collapsed."""
    _measure(run, number)
    rounds = on_main(lambda: round_figures(run.workdir, number))
    if show:
        log(render_health(rounds))
    check_predictions(number, rounds[-1].get("codebooks") or [rounds[-1]], run.config.health)


def _measure(run: Run, number: int) -> None:
    """Measures the round's encoder and writes health.json; once for each encoder and set of labelled clips.

    Without labelled clips there is no probe; it is measured once there are.
    """
    task, fold = _labelled(run, number) or (None, None)
    of = read_config(encoder_path(run, number))[1]["fingerprint"]
    if task is not None:
        protocol = {"classes": list(task.config.classes), "protocol": task.config.protocol, "fold": task.folds[0]}
        of = fingerprint({"encoder": of, "clips": task.table.fingerprint} | protocol)
    file = health_file(run.workdir, number)
    if on_main(lambda: read_json(file, if_missing={}).get("of")) == of:
        return
    result = {
        "of": of,
        "chance_accuracy": _chance(run, number),
        "probe": None if task is None else _probe(run, task, fold, number),
    }
    on_main(lambda: write_json(file, result))


def _chance(run: Run, number: int) -> list[float | None]:
    """The accuracy of always answering the commonest cluster, of each codebook, on the validation clips."""
    _, validation = run.clips_of_round(number)
    if not len(validation):
        return [None] * len(run.config.rounds[number - 1].targets)
    shares = []
    for store in open_targets(run, number):
        per_frame = store.lineage["frame_rate_hz"] // FRAME_RATE_HZ
        counts = np.bincount(np.concatenate([store.clip(clip_id)[::per_frame] for clip_id in validation.clip_ids]))
        shares.append(float(counts.max() / counts.sum()))
    return shares


def _labelled(run: Run, number: int) -> tuple[Task, Fold] | None:
    """The fine-tuning task and its first fold. None where the recipe has no `finetune`.

    None too, with a line in the log, where its clips cannot be opened or split: that ends fine-tuning, but no round.
    """
    if run.config.finetune is None:
        return None
    try:
        task = Task(run)
        return task, task.fold(task.folds[0])
    except (ValueError, FileNotFoundError) as error:
        log(f"round {number}: no linear probe: {error}")
        return None


def _probe(run: Run, task: Task, fold: Fold, number: int) -> dict[str, Any]:
    """UA of every layer of round `number` on the fold's validation clips; no test clip is read."""
    rows = np.concatenate([fold.train, fold.validation])
    features_NLD, labels_N = _pooled(run, task, number, rows), task.labels[rows]
    train, validation = np.split(np.arange(len(rows)), [len(fold.train)])

    def score() -> dict[str, Any]:
        results = linear_probe(features_NLD, labels_N, train, validation, task.config.classes)
        best = max(range(len(results)), key=lambda layer: results[layer].ua)
        return {
            "ua": results[best].ua, "layer": best + 1, "ua_by_layer": [result.ua for result in results],
            "chance_ua": results[best].chance_ua, "clips": len(validation), "training_clips": len(train),
            "protocol": f"{task.protocol.name} v{task.protocol.version}", "fold": task.folds[0],
        }  # fmt: skip

    return on_main(score)


def _pooled(run: Run, task: Task, number: int, rows: np.ndarray) -> np.ndarray:
    """The mean over time of every layer's stream, float32 [clips, layers, dims]."""
    encoder = load_encoder(encoder_path(run, number))
    config = encoder.config
    graphdef, state = nnx.split(encoder.module)
    state = jax.device_put(jax.tree.map(np.asarray, state), replicated(run.mesh))

    def forward(state: nnx.State, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return _pool(nnx.merge(graphdef, state, copy=True), batch), batch.clip_B

    forward = jax.jit(forward, out_shardings=replicated(run.mesh))
    features_NLD = np.zeros((len(rows), config.num_layers, config.width), np.float32)
    batches = run.evaluation_batches(task.table.select(rows), config, batch_frames=run.config.data.batch_frames)
    for batch in track(batches, f"round {number}: features to probe", unit="part"):
        pooled_BLD, clip_B = jax.device_get(forward(state, shard_batch(batch, run.mesh)))
        features_NLD[clip_B[clip_B >= 0]] = pooled_BLD[clip_B >= 0]
    return features_NLD


def _pool(encoder: AVEncoder, batch: Batch) -> jax.Array:
    layers_LBTD = encoder.all_layers(encoder.embed_batch(batch), batch.valid_BT)[1:].astype(jnp.float32)
    sums_BLD = jnp.einsum("lbtd,bt->bld", layers_LBTD, batch.valid_BT.astype(jnp.float32))
    return sums_BLD / jnp.maximum(batch.valid_BT.sum(1), 1)[:, None, None]
