"""Stage `targets`: fit each codebook of a round on a share of the training clips, then label every clip with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmpretrain.config import fingerprint
from mmpretrain.data.clips import ClipTable
from mmpretrain.encoders.folder import load_encoder, read_config
from mmpretrain.files import write_arrays
from mmpretrain.observe.progress import Progress, log, track
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.mesh import batch_sharding, local_mesh, own_rows, replicated, shard_batch
from mmpretrain.parallel.processes import barrier, on_main
from mmpretrain.parallel.stopping import check_stop
from mmpretrain.randomness import stream_key, unit_hash
from mmpretrain.records import FRAME_RATE_HZ, Batch
from mmpretrain.run.command import ACCEPT_CHANGES, ROUND, Command, Given
from mmpretrain.run.layout import targets_name
from mmpretrain.run.run import Run
from mmpretrain.targets.kmeans import Codebook, fit
from mmpretrain.targets.labelling import CLIP_FEATURES, clip_features, hidden_features, label
from mmpretrain.targets.quality import cluster_quality
from mmpretrain.targets.store import LabelProgress, TargetStore, codebook_hash, open_store, write_store

STORE = "store"
CLIPS_BETWEEN_STOPS = 64


def encoder_path(run: Run, number: int) -> Path:
    """Where round `number` leaves its encoder."""
    return run.workdir / f"round{number}" / "pretrain" / "encoder"


def source_encoder(run: Run, number: int) -> Path:
    """The encoder whose layers round `number` clusters."""
    given = run.config.rounds[number - 1].encoder
    return encoder_path(run, number - 1) if given == "previous_round" else Path(given)


def make_targets(run: Run, number: int) -> dict[str, Any]:
    """Makes the target stores of round `number` (from 1), one a codebook. Returns their quality."""
    round_ = run.config.rounds[number - 1]
    train, validation = run.clips_of_round(number)
    recipe = (
        run.recipe("model", "data") | _round_recipe(run, number) | {"clips": train.fingerprint + validation.fingerprint}
    )

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        stores = [
            _make_store(run, number, index, folder / codebook_name(index), train, validation, fingerprint(recipe))
            for index in range(len(round_.targets))
        ]
        return {"codebooks": [_result(store) for store in stores]}

    return run.stage(targets_name(number), recipe, work)


def codebook_name(index: int) -> str:
    """The folder of a round's codebook, counted from 0 here and from 1 there."""
    return f"codebook{index + 1}"


def _make_store(
    run: Run, number: int, index: int, folder: Path, train: ClipTable, validation: ClipTable, recipe_hash: str
) -> TargetStore:
    """Makes the store of one codebook of round `number`, or takes up where an interrupted run had stopped."""
    round_ = run.config.rounds[number - 1]
    targets, rows_per_frame = round_.targets[index], round_.reference.targets_per_frame

    def features(table: ClipTable, *, everywhere: bool) -> Iterator[tuple[int, np.ndarray]]:
        if targets.features in CLIP_FEATURES:
            return _of_clips(run, table, targets.features, rows_per_frame, everywhere)
        return _hidden(run, table, number, index, everywhere)

    if on_main((folder / STORE).exists):
        return open_store(folder / STORE, expect_frame_rate_hz=FRAME_RATE_HZ * round_.reference.targets_per_frame)
    title = f"round {number}" + (f", codebook {index + 1}" if len(round_.targets) > 1 else "")
    codebook, sample = _codebook(run, number, index, folder, train, features, title)
    made_by = f"{recipe_hash}-{codebook_hash(codebook.centroids)}"
    progress = LabelProgress(folder / "labelling", made_by, writer=jax.process_index())
    barrier()  # all have read what is labelled before one labels more
    for table in (train, validation):
        todo = table.select(np.array([clip_id not in progress.ids for clip_id in table.clip_ids], bool))
        own = features(todo, everywhere=False) if len(todo) else ()
        clips = track(own, f"{title}: labelling", -(-len(todo) // jax.process_count()), "clip")
        for rows, ids in label(clips, codebook.centroids, local_mesh(run.mesh)):
            progress.add([todo.clip_ids[row] for row in rows], ids)
    barrier()

    def write() -> None:
        progress = LabelProgress(folder / "labelling", made_by)
        clip_ids = train.clip_ids + validation.clip_ids
        ids = progress.merge(clip_ids)
        write_store(
            folder / STORE, clip_ids=clip_ids, ids_per_clip=ids, codebook=codebook,
            frame_rate_hz=FRAME_RATE_HZ * round_.reference.targets_per_frame,
            lineage_fields={
                "features": targets.features, "layer": targets.layer,
                "source": _encoder_fingerprint(run, number) if targets.features == "hidden" else "",
                "corpus_fingerprint": train.fingerprint,
                "fit_splits": ["train"], "fit_clips": sample["clips"], "fit_frames": sample["frames"],
                "quality": _quality(ids, (train, validation), targets.num_clusters, rows_per_frame),
            },
        )  # fmt: skip
        progress.remove()

    on_main(write)
    return open_store(folder / STORE, expect_frame_rate_hz=FRAME_RATE_HZ * round_.reference.targets_per_frame)


def open_targets(run: Run, number: int) -> tuple[TargetStore, ...]:
    """The stores of round `number`, one a codebook, checked against the recipe and the clips."""
    round_, (train, validation) = run.config.rounds[number - 1], run.clips_of_round(number)
    stores = tuple(
        open_store(
            run.workdir / targets_name(number) / codebook_name(index) / STORE,
            expect_num_clusters=targets.num_clusters,
            expect_feature_dim=_feature_dim(run, number, targets.features),
            expect_fingerprint=train.fingerprint,
            expect_frame_rate_hz=FRAME_RATE_HZ * round_.reference.targets_per_frame,
        )
        for index, targets in enumerate(round_.targets)
    )
    for store in stores:
        for table in (train, validation):
            store.check_lengths(table.clip_ids, table.lengths)
    return stores


def fit_rows(train: ClipTable, share: float, max_frames: int) -> np.ndarray:
    """The rows of the clips that a codebook is fitted on: `share` of them, fewer if they have more than `max_frames`.

    Drawn by clip id: the order of the corpus does not matter, and a larger share holds the clips of a smaller one.
    """
    order = np.argsort([unit_hash("codebook", clip_id) for clip_id in train.clip_ids], kind="stable")
    order = order[: max(1, round(share * len(train)))]
    fitting = np.cumsum(train.lengths[order]) <= max_frames
    return np.sort(order[: max(1, int(fitting.sum()))])


def known_units(table: ClipTable, per_frame: int = 1) -> np.ndarray:
    """The true units of all frames of a table in order, int32 [N], -1 where unknown; empty if no clip has any.

    per_frame: how often each is repeated, for labels at a higher rate.
    """
    has_units = table.has("units")
    if not has_units.any():
        return np.zeros(0, np.int32)
    units = [
        table.load(row).tracks["units"] if has else np.full(length, -1, np.int32)
        for row, (has, length) in enumerate(zip(has_units, table.lengths, strict=True))
    ]
    flat = np.concatenate(units)
    return np.repeat(flat, per_frame) if (flat >= 0).any() else np.zeros(0, np.int32)


def _round_recipe(run: Run, number: int) -> dict[str, Any]:
    """The fields of the rounds up to this one's targets, on which its targets depend."""
    before = {k: v for k, v in run.recipe("rounds").items() if _round_of(k) < number}
    prefixes = tuple(f"rounds[{number - 1}].{field}" for field in ("targets[", "reference.targets_per_frame"))
    own = {k: v for k, v in run.recipe("rounds").items() if k.startswith(prefixes)}
    if run.config.rounds[number - 1].encoder != "previous_round":
        own[f"rounds[{number - 1}].encoder"] = _encoder_fingerprint(run, number)
    return before | own


def _round_of(field: str) -> int:
    return int(field.removeprefix("rounds[").split("]")[0]) + 1 if field.startswith("rounds[") else 0


def _codebook(
    run: Run, number: int, index: int, folder: Path, train: ClipTable, features, title: str
) -> tuple[Codebook, dict[str, int]]:
    """Fits the codebook, or takes the one that an interrupted run had fitted."""
    round_ = run.config.rounds[number - 1]
    targets, rows_per_frame = round_.targets[index], round_.reference.targets_per_frame
    rows = fit_rows(train, targets.fit_share, targets.fit_max_frames // rows_per_frame)
    wanted, sample = max(1, round(targets.fit_share * len(train))), train.select(rows)
    lengths = sample.lengths * rows_per_frame
    size = {"clips": len(sample), "frames": int(lengths.sum())}
    saved = folder / "codebook.npz"
    if on_main(saved.exists):
        return _load_codebook(saved), size
    if len(sample) < wanted:
        log(
            f"{title}: fitting on {len(sample)} clips, not the {wanted} of targets.fit_share="
            f"{targets.fit_share}: more would pass targets.fit_max_frames={targets.fit_max_frames}"
        )
    starts = np.cumsum(lengths) - lengths
    frames_ND = None
    clips = features(sample, everywhere=True)
    for row, features_TD in track(clips, f"{title}: features to cluster", len(sample), "clip"):
        if frames_ND is None:
            frames_ND = np.empty((size["frames"], features_TD.shape[1]), np.float32)
        frames_ND[starts[row] : starts[row] + lengths[row]] = features_TD

    log(f"{title}: fitting {targets.num_clusters} clusters on {frames_ND.shape[0]} x {frames_ND.shape[1]}")
    with Progress(f"{title}: fitting", unit="pass") as progress:
        codebook = fit(
            frames_ND, targets.num_clusters,
            key=stream_key(jax.random.key(run.config.seed + index), number, "codebook"),
            passes=targets.fit_passes, restarts=targets.fit_restarts, mesh=run.mesh,
            on_pass=lambda num_frames, inertia: progress.update(frames=num_frames, inertia=inertia),
        )  # fmt: skip

    on_main(lambda: write_arrays(saved, centroids_KD=codebook.centroids, inertia=codebook.inertia))
    return _load_codebook(saved), size


def _load_codebook(saved: Path) -> Codebook:
    with np.load(saved, allow_pickle=False) as arrays:
        return Codebook(arrays["centroids_KD"], float(arrays["inertia"]))


def _of_clips(
    run: Run, table: ClipTable, kind: str, rows_per_frame: int, everywhere: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Features of the clips alone, each clip's made by one process, or with `everywhere` by all of them."""
    index, count = (0, 1) if everywhere else (jax.process_index(), jax.process_count())
    workers = run.config.data.num_workers
    for start in range(0, len(table), CLIPS_BETWEEN_STOPS):
        check_stop()
        rows = np.arange(start, min(start + CLIPS_BETWEEN_STOPS, len(table)))[index::count]
        yield from clip_features(kind, table, rows, rows_per_frame=rows_per_frame, num_workers=workers)


def _hidden(run: Run, table: ClipTable, number: int, index: int, everywhere: bool) -> Iterator[tuple[int, np.ndarray]]:
    """The layer that a codebook of round `number` is of.

    Each process has the clips that its devices hold, or with `everywhere` all of them.
    """
    encoder = load_encoder(source_encoder(run, number))
    layer = run.config.rounds[number - 1].targets[index].layer
    if not 1 <= layer <= encoder.config.num_layers:
        raise ValueError(
            f"rounds[{number - 1}].targets[{index}].layer={layer}; it must be 1 to {encoder.config.num_layers}, the "
            f"layers of {source_encoder(run, number)}"
        )
    graphdef, state = nnx.split(encoder.module)
    state = jax.device_put(jax.tree.map(np.asarray, state), replicated(run.mesh))

    def forward(state: nnx.State, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        return nnx.merge(graphdef, state, copy=True)(batch, layer=layer), batch.clip_B, batch.valid_BT

    forward = jax.jit(forward, out_shardings=replicated(run.mesh) if everywhere else batch_sharding(run.mesh))
    for batch in run.evaluation_batches(table, encoder.config, batch_frames=run.config.data.batch_frames):
        yield from hidden_features(*map(own_rows, forward(state, shard_batch(batch, run.mesh))))


def _feature_dim(run: Run, number: int, features: str) -> int:
    if features in CLIP_FEATURES:
        return CLIP_FEATURES[features].dim
    given = run.config.rounds[number - 1].encoder
    return run.config.model.width if given == "previous_round" else read_config(Path(given))[0].width


def _encoder_fingerprint(run: Run, number: int) -> str:
    return read_config(source_encoder(run, number))[1]["fingerprint"]


def _quality(
    ids: list[np.ndarray], tables: tuple[ClipTable, ...], num_clusters: int, per_frame: int
) -> dict[str, float]:
    units_N = np.concatenate([known_units(table, per_frame) for table in tables if len(table)])
    clusters_N = np.concatenate(ids)
    offsets = np.concatenate([[0], np.cumsum([len(clip) for clip in ids])])
    known = units_N if len(units_N) == len(clusters_N) else None
    return cluster_quality(clusters_N, known, num_clusters, offsets)


def _result(store: TargetStore) -> dict[str, Any]:
    counted = ("num_clusters", "clusters_used", "entropy_bits", "inertia", "num_clips", "num_frames", "fit_frames")
    return {name: store.lineage[name] for name in counted} | {"quality": store.lineage["quality"]}


def _command(given: Given) -> None:
    make_targets(given.begin(), given["round"])


COMMAND = Command("targets", "the targets of one round", _command, options=(ROUND, ACCEPT_CHANGES))
