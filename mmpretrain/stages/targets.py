"""Stage `targets`: fit each codebook of a round on a share of its training clips, then label all its clips with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmpretrain.config import fingerprint
from mmpretrain.data.clips import ClipTable
from mmpretrain.observe.progress import log, track
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.mesh import local_mesh
from mmpretrain.parallel.processes import barrier, on_main
from mmpretrain.randomness import part_seed, seed_key
from mmpretrain.run.codebook import RoundCodebook
from mmpretrain.run.command import ACCEPT_CHANGES, ROUND, Command, Given
from mmpretrain.run.layout import targets_name
from mmpretrain.run.round import Round
from mmpretrain.targets.codebook import fit_codebook, fit_rows, load_codebook, save_codebook
from mmpretrain.targets.kmeans import Codebook
from mmpretrain.targets.labelling import label
from mmpretrain.targets.quality import cluster_quality
from mmpretrain.targets.store import LabelProgress, TargetStore, codebook_hash, write_store

LABELLING = "labelling"


def make_targets(round_: Round) -> dict[str, Any]:
    """Makes the target stores of a round, one a codebook. Returns their quality."""
    recipe = round_.targets_recipe()

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        for codebook in round_.codebooks:
            if not on_main(codebook.store_folder.exists):
                _make_store(codebook, fingerprint(recipe))
        return {"codebooks": [_result(store) for store in round_.stores]}

    return round_.run.stage(round_.targets_name, recipe, work)


def _make_store(codebook: RoundCodebook, recipe_hash: str) -> None:
    """Makes the store of one codebook, or goes on where an interrupted run had stopped."""
    fitted, sample = _fit(codebook)
    made_by = f"{recipe_hash}-{codebook_hash(fitted.centroids)}"
    _label(codebook, fitted, LabelProgress(codebook.folder / LABELLING, made_by, writer=jax.process_index()))

    def write() -> None:
        progress, (train, validation) = LabelProgress(codebook.folder / LABELLING, made_by), codebook.clips
        clip_ids, targets = [*train.clip_ids, *validation.clip_ids], codebook.config
        ids = progress.merge(clip_ids)
        write_store(
            codebook.store_folder, clip_ids=clip_ids, ids_per_clip=ids, codebook=fitted,
            targets_per_frame=codebook.targets_per_frame,
            lineage_fields={
                "features": targets.features, "layer": targets.layer,
                "source": "" if codebook.of_clips else codebook.source.fingerprint,
                "corpus_fingerprint": train.fingerprint,
                "fit_splits": ["train"], "fit_clips": len(sample),
                "fit_frames": int(sample.lengths.sum()) * codebook.targets_per_frame,
                "quality": _quality(codebook, ids),
            },
        )  # fmt: skip
        progress.remove()

    on_main(write)


def _fit(codebook: RoundCodebook) -> tuple[Codebook, ClipTable]:
    """The codebook, fitted now or by an interrupted run, and the clips that it was fitted on."""
    (train, _), targets, run = codebook.clips, codebook.config, codebook.run
    sample = train.select(fit_rows(train, targets.fit_share, targets.fit_max_frames // codebook.targets_per_frame))
    file = codebook.folder / "codebook.npz"
    if not on_main(file.exists):
        wanted = max(1, round(targets.fit_share * len(train)))
        if len(sample) < wanted:
            log(
                f"{codebook.title}: fitting on {len(sample)} clips, not the {wanted} of targets.fit_share="
                f"{targets.fit_share}: more would pass targets.fit_max_frames={targets.fit_max_frames}"
            )
        features = codebook.features(sample, everywhere=True)
        fitted = fit_codebook(
            track(features, f"{codebook.title}: features to cluster", len(sample), "clip"),
            sample.lengths * codebook.targets_per_frame, targets,
            key=seed_key(part_seed(run.config.seed, targets_name(codebook.number), codebook.index)),
            mesh=run.mesh, title=codebook.title,
        )  # fmt: skip
        on_main(lambda: save_codebook(file, fitted))
    return load_codebook(file), sample


def _label(codebook: RoundCodebook, fitted: Codebook, progress: LabelProgress) -> None:
    """Labels the clips that are left, each in one process."""
    barrier()  # all have read what is labelled before one labels more
    for table in codebook.clips:
        todo = table.select(np.array([clip_id not in progress.ids for clip_id in table.clip_ids], bool))
        own = codebook.features(todo, everywhere=False) if len(todo) else ()
        clips = track(own, f"{codebook.title}: labelling", -(-len(todo) // jax.process_count()), "clip")
        for rows, ids in label(clips, fitted.centroids, local_mesh(codebook.run.mesh)):
            progress.add([todo.clip_ids[row] for row in rows], ids)
    barrier()


def _quality(codebook: RoundCodebook, ids: list[np.ndarray]) -> dict[str, float]:
    clusters_N, offsets = np.concatenate(ids), np.concatenate([[0], np.cumsum([len(clip) for clip in ids])])
    return cluster_quality(clusters_N, codebook.known_units(len(clusters_N)), codebook.config.num_clusters, offsets)


def _result(store: TargetStore) -> dict[str, Any]:
    counted = ("num_clusters", "clusters_used", "entropy_bits", "inertia", "num_clips", "num_frames", "fit_frames")
    return {name: store.lineage[name] for name in counted} | {"quality": store.lineage["quality"]}


def _command(given: Given) -> None:
    make_targets(given.begin().round(given["round"]))


COMMAND = Command("targets", "the targets of one round", _command, options=(ROUND, ACCEPT_CHANGES))
