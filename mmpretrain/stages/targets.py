"""Stage `targets`: fit each codebook of a round on a share of its training clips, then label all its clips with it."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmpretrain.config import fingerprint
from mmpretrain.data.clips import ClipTable
from mmpretrain.observe.progress import Progress, is_main_process, log, track
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.mesh import of_main
from mmpretrain.parallel.processes import gather, on_main
from mmpretrain.randomness import part_seed, seed_key
from mmpretrain.run.codebook import RoundCodebook
from mmpretrain.run.command import ACCEPT_CHANGES, ROUND, Command, Given
from mmpretrain.run.layout import targets_name
from mmpretrain.run.round import Round
from mmpretrain.run.source import SourceEncoder
from mmpretrain.targets.codebook import fit_codebook, fit_rows, load_codebook, save_codebook
from mmpretrain.targets.kmeans import Codebook
from mmpretrain.targets.progress import LabelProgress
from mmpretrain.targets.store import TargetStore, codebook_hash, write_store

FITTED, LABELLING = "fitted", "labelling"  # in the folder of a codebook, beside its store


def make_targets(round_: Round) -> dict[str, Any]:
    """Makes the target stores of a round, one a codebook. Returns their quality."""
    recipe = round_.targets_recipe()

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        for codebook in round_.codebooks:
            if not on_main(codebook.store_folder.exists):
                _make_store(codebook, fingerprint(recipe))
            on_main(functools.partial(shutil.rmtree, codebook.folder / LABELLING, ignore_errors=True))
        return {"codebooks": [_result(store) for store in round_.stores]}

    return round_.run.stage(round_.targets_name, recipe, work)


def _make_store(codebook: RoundCodebook, recipe_hash: str) -> None:
    """Makes the store of one codebook, or goes on where an interrupted run had stopped."""
    centres = codebook.centring.make() if codebook.centring else None
    fitted, sample = _fit(codebook)
    (train, validation), targets = codebook.clips, codebook.config
    if isinstance(codebook.source, SourceEncoder):
        codebook.source.tell_other_scale(train, f"round {codebook.number}: encoder")
    made_by = f"{recipe_hash}-{codebook_hash(fitted.centroids)}"  # the recipe knows the clips and their order
    progress = LabelProgress(
        codebook.folder / LABELLING, made_by, num_clips=len(train) + len(validation), num_clusters=targets.num_clusters
    )
    parts = _label(codebook, fitted, progress)

    def write() -> None:
        merged = progress.merge(parts)
        write_store(
            codebook.store_folder, clip_ids=[*train.clip_ids, *validation.clip_ids], offsets=merged.offsets,
            ids_N=merged.ids, codebook=fitted, unit_counts=merged.unit_counts,
            targets_per_frame=codebook.targets_per_frame,
            lineage_fields={
                "features": targets.features, "relative_to": codebook.relative_to, "layer": targets.layer,
                "centres": centres.digest if centres else "",
                "source": codebook.source.fingerprint if codebook.source else "",
                "clips": codebook.clips_fingerprint,
                "fit_splits": ["train"], "fit_clips": len(sample),
                "fit_frames": int(sample.lengths.sum()) * codebook.targets_per_frame,
            },
        )  # fmt: skip

    on_main(write)


def _fit(codebook: RoundCodebook) -> tuple[Codebook, ClipTable]:
    """The codebook, fitted now or by an interrupted run, and the clips that it was fitted on."""
    (train, _), targets, run = codebook.clips, codebook.config, codebook.run
    sample = train.select(fit_rows(train, targets.fit_share, targets.fit_max_frames // codebook.targets_per_frame))
    folder = codebook.folder / FITTED
    fitted = load_codebook(folder) if is_main_process() else None
    shape = on_main(lambda: list(fitted.centroids.shape) if fitted else None)
    if shape is None:
        wanted = max(1, round(targets.fit_share * len(train)))
        if len(sample) < wanted:
            log(
                f"{codebook.title}: fitting on {len(sample)} clips, not the {wanted} of targets.fit_share="
                f"{targets.fit_share}: more would pass targets.fit_max_frames={targets.fit_max_frames}"
            )
        features = track(codebook.features(sample), f"{codebook.title}: features to cluster", len(sample), "clip")
        fitted = fit_codebook(
            features, sample.lengths * codebook.targets_per_frame, targets,
            key=seed_key(part_seed(run.config.seed, targets_name(codebook.number), codebook.index)),
            mesh=run.mesh, title=codebook.title,
        )  # fmt: skip
        on_main(lambda: save_codebook(folder, fitted))
    # Everywhere to the bit what process 0 has and keeps.
    centroids_KD = of_main(np.zeros(shape, np.float32) if fitted is None else fitted.centroids)
    return Codebook(centroids_KD, on_main(lambda: fitted.inertia)), sample


def _label(codebook: RoundCodebook, fitted: Codebook, progress: LabelProgress) -> list[str]:
    """Labels the clips that are left, each in one process. Returns the names of all parts.

    What is left process 0 finds out and tells, and the others tell it what they have written: so no process depends on
    when a shared folder shows it what another one did.
    """
    parts = on_main(progress.find)
    train, validation = codebook.clips
    done = np.unpackbits(of_main(np.packbits(progress.done)), count=len(progress.done)).astype(bool)
    for table, first in ((train, 0), (validation, len(train))):
        wanted = ~done[first : first + len(table)]
        if not wanted.any():
            continue
        share = -(-int(wanted.sum()) // jax.process_count())
        try:
            with Progress(f"{codebook.title}: labelling", share, "clip") as shown:
                for labelled in codebook.labels(table, wanted, fitted.centroids):
                    progress.add(labelled._replace(rows=labelled.rows + first))
                    shown.update(len(labelled.rows))
        finally:
            progress.flush()
    return sorted({*parts, *(name for names in gather(progress.written) for name in names)})


def _result(store: TargetStore) -> dict[str, Any]:
    counted = ("num_clusters", "clusters_used", "entropy_bits", "inertia", "num_clips", "num_frames", "fit_frames")
    return {name: store.lineage[name] for name in counted} | {"quality": store.lineage["quality"]}


def _command(given: Given) -> None:
    make_targets(given.begin().round(given["round"]))


COMMAND = Command("targets", "the targets of one round", _command, options=(ROUND, ACCEPT_CHANGES))
