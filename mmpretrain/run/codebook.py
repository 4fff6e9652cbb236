"""One codebook of a round: the clips that it labels, the features that it clusters, and where its targets lie."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from mmpretrain.config import TargetsConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.observe.progress import log
from mmpretrain.parallel.stopping import check_stop
from mmpretrain.run.base import RunBase
from mmpretrain.run.forward import encode
from mmpretrain.run.layout import targets_name
from mmpretrain.run.source import SourceEncoder, left_by_round
from mmpretrain.targets.labelling import CLIP_FEATURES, ClipFeatures, clip_features
from mmpretrain.targets.quality import known_units
from mmpretrain.targets.store import TargetStore, open_store, store_fingerprint

CLIPS_BETWEEN_STOPS = 64


class RoundCodebook:
    """Codebook `index` of round `number`.

    Codebooks are counted from 0 in the recipe and from 1 in the names of folders and logs, rounds in both from 1.
    """

    def __init__(self, run: RunBase, number: int, index: int):
        self.run, self.number, self.index = run, number, index
        round_ = run.config.rounds[number - 1]
        self.config: TargetsConfig = round_.targets[index]
        self.field = f"rounds[{number - 1}].targets[{index}]"  # its place in the recipe
        self.title = f"round {number}" + (f", codebook {index + 1}" if len(round_.targets) > 1 else "")
        self.folder: Path = run.workdir / targets_name(number) / f"codebook{index + 1}"
        self.targets_per_frame: int = round_.reference.targets_per_frame

    @property
    def of_clips(self) -> ClipFeatures | None:
        """The kind of features that a clip has by itself; None: it is of a layer of the round's source encoder."""
        return CLIP_FEATURES.get(self.config.features)

    @property
    def source(self) -> SourceEncoder | None:
        """The encoder that it clusters a layer of; None: it is of the clips alone."""
        if self.of_clips:
            return None
        given = self.run.config.rounds[self.number - 1].encoder
        if given == "previous_round":
            return left_by_round(self.run.workdir, self.number - 1)
        return SourceEncoder(Path(given))

    @functools.cached_property
    def has(self) -> tuple[np.ndarray, np.ndarray]:
        """bool [N] each: which of the run's clips to train on, and to validate on, have what is clustered.

        Logs how many have not. Raises ValueError if no clip to train on has it.
        """
        train, validation = self.run.clips
        if self.of_clips is None:
            return np.ones(len(train), bool), np.ones(len(validation), bool)
        needs = self.of_clips.needs
        missing, has = {"audio": "sound"}.get(needs, needs), train.has(needs)
        if not has.any():
            raise ValueError(
                f"{self.field}.features={self.config.features!r} needs {missing}, but none of the {len(train)} "
                f"training clips of {train.folders()} that are left has any; use other features, or prepare a corpus "
                "that has it"
            )
        if not has.all():
            log(
                f"{self.title}: {int((~has).sum())} of {len(train)} training clips have no {missing}, hence no "
                f"{self.of_clips.title} targets"
            )
        if len(validation) and not validation.has(needs).any():
            log(
                f"{self.title}: none of the {len(validation)} validation clips of {validation.folders()} has "
                f"{missing}, hence none has {self.of_clips.title} targets: nothing of this codebook is validated"
            )
        return has, validation.has(needs)

    @functools.cached_property
    def clips(self) -> tuple[ClipTable, ClipTable]:
        """Those clips: the codebook labels them all, and is fitted on some to train on."""
        train, validation = (table.select(has) for table, has in zip(self.run.clips, self.has, strict=True))
        return train, validation

    def known_units(self, num_targets: int) -> np.ndarray | None:
        """int32 [num_targets]: the true unit of each of its targets, -1 where it is not known.

        None if no units are known of the clips to train on or of those to validate on, or not one a target.
        """
        units = [known_units(table, self.targets_per_frame) for table in self.clips if len(table)]
        units_N = np.concatenate(units)
        return units_N if len(units_N) == num_targets else None

    def features(self, table: ClipTable, *, everywhere: bool) -> Iterator[tuple[int, np.ndarray]]:
        """(row, float32 [T * targets_per_frame, D]) of each clip, in one process or in all. Raises Stopped between two.

        Raises ValueError for a layer that the source encoder does not have.
        """
        if self.of_clips:
            return self._of_clips(table, everywhere)
        source, layer = self.source, self.config.layer
        encoder = source.load()
        if not 1 <= layer <= encoder.config.num_layers:
            raise ValueError(
                f"{self.field}.layer={layer}; it must be 1 to {encoder.config.num_layers}, the layers of {source.path}"
            )
        clips = encode(
            self.run, encoder.module, table, lambda encoder, batch: encoder(batch, layer=layer),
            everywhere=everywhere,
        )  # fmt: skip
        return ((row, np.array(values_TD[:num_frames], np.float32)) for row, num_frames, values_TD in clips)

    def _of_clips(self, table: ClipTable, everywhere: bool) -> Iterator[tuple[int, np.ndarray]]:
        index, count = (0, 1) if everywhere else (jax.process_index(), jax.process_count())
        for start in range(0, len(table), CLIPS_BETWEEN_STOPS):
            check_stop()
            rows = np.arange(start, min(start + CLIPS_BETWEEN_STOPS, len(table)))[index::count]
            yield from clip_features(
                self.config.features, table, rows, targets_per_frame=self.targets_per_frame,
                num_workers=self.run.config.data.num_workers,
            )  # fmt: skip

    @property
    def store_folder(self) -> Path:
        return self.folder / "store"

    @property
    def fingerprint(self) -> str:
        """Of its targets, part of the recipe of what is trained on them."""
        return store_fingerprint(self.store_folder)

    @functools.cached_property
    def store(self) -> TargetStore:
        """Its targets, checked against the recipe and the clips."""
        train, validation = self.clips
        store = open_store(
            self.store_folder, expect_num_clusters=self.config.num_clusters, expect_feature_dim=self._feature_dim(),
            expect_fingerprint=train.fingerprint, expect_targets_per_frame=self.targets_per_frame,
        )  # fmt: skip
        for table in (train, validation):
            store.check_lengths(table.clip_ids, table.lengths)
        return store

    def _feature_dim(self) -> int:
        if self.of_clips:
            return self.of_clips.dim
        if self.run.config.rounds[self.number - 1].encoder == "previous_round":
            return self.run.config.model.width
        return self.source.config.width
