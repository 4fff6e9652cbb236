"""One codebook of a round: the clips that it labels, the features that it clusters, and where its targets lie."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmpretrain.config import TargetsConfig
from mmpretrain.data.batch import TrueUnits
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.inputs import INPUTS
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.observe.progress import log
from mmpretrain.parallel.mesh import local_mesh
from mmpretrain.records import Batch
from mmpretrain.run.base import RunBase
from mmpretrain.run.centring import Centring
from mmpretrain.run.forward import encode, forward_of
from mmpretrain.run.layout import targets_name
from mmpretrain.run.source import ForeignSource, SourceEncoder, left_by_round, source_of
from mmpretrain.targets.clip_features import CLIP_FEATURES, CentreOf, ClipFeatures
from mmpretrain.targets.kmeans import NOT_FINITE, nearest_ids
from mmpretrain.targets.labelling import clip_features, label_clips
from mmpretrain.targets.progress import Labelled, select_ids
from mmpretrain.targets.store import TargetStore, open_store, store_fingerprint


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

    @functools.cached_property
    def of_clips(self) -> ClipFeatures | None:
        """Features that are made clip by clip; None: they are of a layer of one of our encoders, made by batches.

        Raises ValueError for a layer that an encoder of another project does not have.
        """
        if not isinstance(self.source, ForeignSource):
            return CLIP_FEATURES.get(self.config.features)
        encoder = self.source.load()
        layer = self._checked_layer(encoder.num_layers)
        title = f"layer {layer} of {self.source.fingerprint}"
        return ClipFeatures(title, encoder.width, encoder.modality, lambda clip: encoder.frames(clip)[layer])

    @functools.cached_property
    def source(self) -> SourceEncoder | ForeignSource | None:
        """The encoder that it clusters a layer of; None: it is of the clips alone."""
        if self.config.features in CLIP_FEATURES:
            return None
        given = self.run.config.rounds[self.number - 1].encoder
        if given == "previous_round":
            return left_by_round(self.run.workdir, self.number - 1)
        return source_of(Path(given))

    @property
    def _needs(self) -> tuple[str, ...] | None:
        """What a clip must have one of, as in `IndexRow.has`; None: all have it, as the run's model looks at them."""
        if self.of_clips is not None:
            return (self.of_clips.needs,)
        if self.run.config.rounds[self.number - 1].encoder == "previous_round":
            return None
        return tuple(INPUTS[modality].needs for modality in self.source.config.modalities)

    @functools.cached_property
    def has(self) -> tuple[np.ndarray, np.ndarray]:
        """bool [N] each: which of the run's clips to train on, and to validate on, have what is clustered.

        Logs how many have not. Raises ValueError if no clip to train on has it.
        """
        train, validation = self.run.clips
        if (needs := self._needs) is None:
            return np.ones(len(train), bool), np.ones(len(validation), bool)
        has, validated = (np.any([table.has(name) for name in needs], axis=0) for table in (train, validation))
        missing = " or ".join({"audio": "sound"}.get(name, name) for name in needs)
        if not has.any():
            of_layer = self.config.features == "hidden"
            field, value, other = (
                (f"rounds[{self.number - 1}].encoder", str(self.source.path), "another encoder") if of_layer
                else (f"{self.field}.features", self.config.features, "other features")
            )  # fmt: skip
            raise ValueError(
                f"{field}={value!r} needs {missing}, but none of the {len(train)} training clips of {train.folders()} "
                f"that are left has any; use {other}, or prepare a corpus that has it"
            )
        title = self.of_clips.title if self.of_clips else f"layer {self.config.layer}"
        if not has.all():
            log(
                f"{self.title}: {int((~has).sum())} of {len(train)} training clips have no {missing}, hence no "
                f"{title} targets"
            )
        if len(validation) and not validated.any():
            log(
                f"{self.title}: none of the {len(validation)} validation clips of {validation.folders()} has "
                f"{missing}, hence none has {title} targets: nothing of this codebook is validated"
            )
        return has, validated

    @functools.cached_property
    def clips(self) -> tuple[ClipTable, ClipTable]:
        """Those clips: the codebook labels them all, and is fitted on some to train on."""
        train, validation = (table.select(has) for table, has in zip(self.run.clips, self.has, strict=True))
        return train, validation

    @property
    def clips_fingerprint(self) -> str:
        """Of those clips in their order, which is that of the rows of the store, and of who speaks if that counts."""
        train, validation = self.clips
        return train.fingerprint + validation.fingerprint + (self.centring.fingerprint if self.centring else "")

    @property
    def relative_to(self) -> str:
        """ "clip", "speaker" or "none"; "" of features that cannot be relative to anything."""
        if self.of_clips is None or self.of_clips.relative is None:
            return ""
        return self.of_clips.relative.usual if self.config.relative_to == "usual" else self.config.relative_to

    @functools.cached_property
    def centring(self) -> Centring | None:
        """The speakers that its features are relative to. Raises ValueError where none is known."""
        if self.relative_to != "speaker":
            return None
        return Centring(
            self.config.features, self.clips, self.folder / "centres", self.field, self.title,
            self.run.config.data.num_workers,
        )  # fmt: skip

    def _centre_of(self, table: ClipTable) -> CentreOf:
        if self.centring:
            return self.centring.of(table)
        centre_C = self.of_clips.relative.typical if self.relative_to == "none" else None
        return CentreOf.same(centre_C, len(table))

    def features(self, table: ClipTable) -> Iterator[tuple[int, np.ndarray]]:
        """(row, float32 [T * targets_per_frame, D]) of each clip, in every process. Raises Stopped between two.

        Raises ValueError for a layer that the source encoder does not have.
        """
        if self.of_clips:
            return clip_features(self.of_clips, table, range(len(table)), **self._of_clips(table))
        encoder, layer = self._encoder(), self.config.layer
        clips = encode(
            self.run, encoder, table, lambda encoder, batch: encoder(batch, layer=layer), everywhere=True
        )  # fmt: skip
        return ((row, np.array(values_TD[:num_frames], np.float32)) for row, num_frames, values_TD in clips)

    def labels(self, table: ClipTable, wanted: np.ndarray, centroids_KD: np.ndarray) -> Iterator[Labelled]:
        """The nearest centroids of every frame of this process's share of the clips, and their true units if known.

        wanted: bool [N], the clips to be among them; what comes of a clip does not depend on it, bit for bit. Features
        of a layer never leave the devices. All processes take part. Raises as `features` does, and for features that
        are not finite.
        """
        if self.of_clips:
            return label_clips(
                self.of_clips, table, wanted, centroids_KD, mesh=local_mesh(self.run.mesh),
                share=(jax.process_index(), jax.process_count()), **self._of_clips(table),
            )  # fmt: skip
        return self._labels_of_layer(table, wanted, centroids_KD)

    def _labels_of_layer(self, table: ClipTable, wanted: np.ndarray, centroids_KD: np.ndarray) -> Iterator[Labelled]:
        encoder, layer, mesh = self._encoder(), self.config.layer, self.run.mesh
        known = bool(table.has("units").any())

        def ids_and_units(encoder: AVEncoder, batch: Batch, centroids_KD: jax.Array) -> tuple[jax.Array, ...]:
            ids_BT = nearest_ids(encoder(batch, layer=layer), centroids_KD, mesh=mesh)
            return (ids_BT, batch.targets_BTS[..., 0]) if known else (ids_BT,)

        targets = (TrueUnits(),) if known else ()
        forward, state = forward_of(self.run, encoder, ids_and_units, centroids_KD, targets=targets)
        for rows, num_frames, values in forward.batches(state, table, wanted):
            ids, *units = (select_ids(values_CT, num_frames) for values_CT in values)
            if (ids == len(centroids_KD)).any():
                raise ValueError(NOT_FINITE)
            yield Labelled(rows, num_frames, ids, *units)

    def _of_clips(self, table: ClipTable) -> dict[str, Any]:
        given = {"centre_of": self._centre_of(table)} if self.relative_to else {}
        # A network of another project is on all cores by itself, and of other bits on one.
        workers = 0 if isinstance(self.source, ForeignSource) else self.run.config.data.num_workers
        own = {"targets_per_frame": self.targets_per_frame, "num_workers": workers}
        return own | given

    def _encoder(self) -> AVEncoder:
        encoder = self.source.load()
        self._checked_layer(encoder.config.num_layers)
        return encoder.module

    def _checked_layer(self, num_layers: int) -> int:
        layer = self.config.layer
        if not 1 <= layer <= num_layers:
            raise ValueError(
                f"{self.field}.layer={layer}; it must be 1 to {num_layers}, the layers of {self.source.path}"
            )
        return layer

    @property
    def store_folder(self) -> Path:
        return self.folder / "store"

    @property
    def fingerprint(self) -> str:
        """Of its targets, part of the recipe of what is trained on them."""
        return store_fingerprint(self.store_folder)

    @functools.cached_property
    def store(self) -> TargetStore:
        """Its targets, checked once: their digests, and against the recipe and the clips."""
        store = open_store(
            self.store_folder, expect_num_clusters=self.config.num_clusters, expect_feature_dim=self._feature_dim(),
            expect_clips=self.clips_fingerprint, expect_targets_per_frame=self.targets_per_frame,
        )  # fmt: skip
        store.check_lengths(np.concatenate([table.lengths for table in self.clips]))
        return store

    @functools.cached_property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """int64 [N] each: the row in the store of each of the run's clips to train on, and to validate on; -1: none."""
        train, validation = (np.where(has, np.cumsum(has) - 1, -1) for has in self.has)
        return train, np.where(validation < 0, -1, validation + len(self.clips[0]))

    def _feature_dim(self) -> int:
        if self.of_clips:
            return self.of_clips.dim
        if self.run.config.rounds[self.number - 1].encoder == "previous_round":
            return self.run.config.model.width
        return self.source.config.width
