"""The end of a round: its figures beside those of the round before, and a stop if it has collapsed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmpretrain.config import fingerprint
from mmpretrain.evaluation.probe import linear_probe
from mmpretrain.evaluation.protocols import Fold
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main
from mmpretrain.records import Batch
from mmpretrain.report.tables import render_health
from mmpretrain.run.collapse import check_predictions
from mmpretrain.run.exposure import VALIDATION_SEEN
from mmpretrain.run.finetuning import Finetuning
from mmpretrain.run.forward import encode
from mmpretrain.run.layout import health_file, read_health, round_figures
from mmpretrain.run.round import Round
from mmpretrain.run.sealed import write_sealed


def finish_round(round_: Round, *, show: bool = True) -> None:
    """Measures the encoder of a round, shows its figures and those of the rounds before. Raises Collapsed."""
    run = round_.run
    _measure(round_)
    rounds = on_main(lambda: round_figures(run.workdir, round_.number))
    if show:
        log(render_health(rounds))
    check_predictions(round_.number, rounds[-1].get("codebooks") or [rounds[-1]], run.config.health)


def _measure(round_: Round) -> None:
    """Measures the round's encoder and writes health.json; once for each encoder and set of labelled clips.

    Without labelled clips there is no probe; it is measured once there are.
    """
    finetuning, fold = _labelled(round_) or (None, None)
    of = round_.encoder.fingerprint
    if finetuning is not None:
        config = finetuning.config
        protocol = {"classes": list(finetuning.main.classes), "protocol": config.protocol, "fold": finetuning.folds[0]}
        of = fingerprint({"encoder": of} | finetuning.reads(finetuning.folds[0]) | protocol)
    file = health_file(round_.run.workdir, round_.number)
    known = on_main(lambda: read_health(round_.run.workdir, round_.number))
    if known.get("of") == of:
        return
    if not known and on_main(file.exists):
        log(f"{file} is damaged; it is measured again")
    probe = None if finetuning is None else _probe(round_, finetuning, fold)
    result = {"of": of, "chance_accuracy": _chance(round_), "probe": probe}
    on_main(lambda: write_sealed(file, result))


def _chance(round_: Round) -> list[float | None]:
    """The accuracy of always answering the commonest cluster, of each codebook, on its validation clips."""
    shares = []
    for codebook in round_.codebooks:
        _, rows = codebook.rows
        counts = codebook.store.counts(rows[rows >= 0])
        shares.append(float(counts.max() / counts.sum()) if counts.any() else None)
    return shares


def _labelled(round_: Round) -> tuple[Finetuning, Fold] | None:
    """The fine-tuning of the recipe and its first fold. None where the recipe has no `finetune`.

    None too, with a line in the log, where its clips cannot be opened or split: that ends fine-tuning, but no round.
    """
    if round_.run.config.finetune is None:
        return None
    try:
        finetuning = Finetuning(round_.run)
        return finetuning, finetuning.fold(finetuning.folds[0])
    except (ValueError, FileNotFoundError) as error:
        log(f"{round_.title}: no linear probe: {error}")
        return None


def _probe(round_: Round, finetuning: Finetuning, fold: Fold) -> dict[str, Any]:
    """UA of every layer of the round's encoder on the fold's validation clips; no test clip is read."""
    rows = np.concatenate([fold.train, fold.validation])
    features_NLD, labels_N = _pooled(round_, finetuning, rows), finetuning.labels[finetuning.main.name][rows]
    train, validation = np.split(np.arange(len(rows)), [len(fold.train)])
    data = round_.encoder.training_data | finetuning.own_data(finetuning.folds[0], "train")
    seen = data.exposure(finetuning.table, fold.validation, finetuning.main_column)

    def score() -> dict[str, Any]:
        results = linear_probe(features_NLD, labels_N, train, validation, finetuning.main.classes)
        best = max(range(len(results)), key=lambda layer: results[layer].ua)
        return {
            "ua": results[best].ua, "layer": best + 1, "ua_by_layer": [result.ua for result in results],
            "chance_ua": results[best].chance_ua, "clips": len(validation), "training_clips": len(train),
            "protocol": finetuning.protocol_title, "fold": finetuning.folds[0], VALIDATION_SEEN: str(seen),
        }  # fmt: skip

    return on_main(score)


def _pooled(round_: Round, finetuning: Finetuning, rows: np.ndarray) -> np.ndarray:
    """The mean over time of every layer's stream, float32 [clips, layers, dims], in every process."""
    encoder = round_.encoder.load()
    features_NLD = np.zeros((len(rows), encoder.config.num_layers, encoder.config.width), np.float32)
    title = f"{round_.title}: features to probe"
    clips = encode(round_.run, encoder.module, finetuning.table.select(rows), _pool, everywhere=True, title=title)
    for row, _, pooled_LD in clips:
        features_NLD[row] = pooled_LD
    return features_NLD


def _pool(encoder: AVEncoder, batch: Batch) -> jax.Array:
    layers_LBTD = encoder.all_layers(encoder.embed_batch(batch), batch.valid_BT)[1:].astype(jnp.float32)
    sums_BLD = jnp.einsum("lbtd,bt->bld", layers_LBTD, batch.valid_BT.astype(jnp.float32))
    return sums_BLD / jnp.maximum(batch.valid_BT.sum(1), 1)[:, None, None]
