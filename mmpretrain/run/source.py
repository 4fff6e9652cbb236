"""An encoder that a stage takes from elsewhere: of another round, or of a folder that the recipe names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmpretrain.config import ModelConfig, as_dict, flatten
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.exposure import TrainingData
from mmpretrain.encoders.encoder import Encoder, load_encoder
from mmpretrain.encoders.folder import read_config, read_crop_size, read_training_data
from mmpretrain.encoders.foreign import ForeignEncoder, foreign_fingerprint, is_foreign
from mmpretrain.encoders.weights import WEIGHTS
from mmpretrain.observe.progress import log
from mmpretrain.run.layout import pretrain_name
from mmpretrain.train.step import Trainer, TrainState

ENCODER = "encoder"  # the folder, in that of a stage that leaves one


def left_by_round(workdir: Path, number: int) -> SourceEncoder:
    """The encoder that round `number` (from 1) of a run leaves."""
    return SourceEncoder(workdir / pretrain_name(number) / ENCODER)


def source_of(path: Path) -> SourceEncoder | ForeignSource:
    """The encoder of a folder, ours or one of another project, whose layers can be clustered."""
    return ForeignSource(path) if is_foreign(path) else SourceEncoder(path)


def _as_given(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclasses.dataclass(frozen=True)
class ForeignSource:
    """As `SourceEncoder`, of a model that transformers saved: targets can be made of it, and no weights taken."""

    path: Path

    @property
    def fingerprint(self) -> str:
        return foreign_fingerprint(self.path)

    @property
    def training_data(self) -> TrainingData:
        """Not known."""
        return TrainingData(unknown=(self.fingerprint,))

    def load(self) -> ForeignEncoder:
        return ForeignEncoder(self.path)


@dataclasses.dataclass(frozen=True)
class SourceEncoder:
    """An encoder's folder, the currency between stages. It is read when it is asked for, and only read.

    All raise FileNotFoundError or ValueError saying what is wrong with the folder.
    """

    path: Path

    @property
    def config(self) -> ModelConfig:
        return read_config(self.path)[0]

    def check_hears(self, modalities: Sequence[str], field: str) -> None:
        """Raises ValueError where it takes what the recipe does not mean to show it.

        modalities: the recipe's. field: that names the encoder.
        """
        if not set(theirs := self.config.modalities) <= set(modalities):
            raise ValueError(
                f"{field}={str(self.path)!r} takes {' and '.join(theirs)}, but model.modalities={tuple(modalities)}; "
                f"set model.modalities={tuple(theirs)}, or name an encoder of {' and '.join(modalities)}"
            )

    def check_goes_on(self, model: ModelConfig, field: str) -> None:
        """Says what of the inputs it knows otherwise than `model`, where its weights go on as that.

        Raises ValueError where they would be another network there, though their shapes may all have a place. field:
        that names the encoder.
        """
        own, wanted = (flatten(as_dict(config), "model") for config in (self.config, model))
        differing = {name: (own[name], wanted[name]) for name in own if own[name] != wanted[name]}
        for name in ("model.modalities", "model.reference.post_norm"):
            if name in differing:
                theirs, ours = map(_as_given, differing[name])
                raise ValueError(
                    f"{field}={str(self.path)!r} is an encoder with {name}={theirs}, but the recipe has {ours}; set "
                    f"{name}={theirs}, or name another encoder"
                )
        if told := [
            f"{name}={values[0]!r}, now {values[1]!r}" for name, values in differing.items() if ".inputs." in name
        ]:
            log(f"{field}: the encoder {self.path} knows its inputs otherwise than they are here: {'; '.join(told)}")

    def why_other_scale(self, table: ClipTable) -> str:
        """Why it would see the pictures of these clips at another scale than it knows; "" if it would not.

        It takes the middle of a crop, whatever the crop's size.
        """
        config, wanted = self.config, read_crop_size(self.path)
        view = config.inputs.view
        found = table.crop_size(view)
        if "video" not in config.modalities or not table.has("video").any() or found == wanted:
            return ""
        return (
            f"{table.folders()} has {view} crops of {found} pixels, but the encoder {self.path} is of such of {wanted} "
            f"and would see all at another scale; prepare the clips with --{view}-size {wanted}"
        )

    def tell_other_scale(self, table: ClipTable, title: str) -> None:
        """Says so, where the clips are nevertheless looked at. title: of what does it."""
        if why := self.why_other_scale(table):
            log(f"{title}: {why}")

    @property
    def lineage(self) -> dict[str, Any]:
        return read_config(self.path)[1]

    @property
    def fingerprint(self) -> str:
        """Changes with all that decided its weights; part of the recipe of every stage that takes it."""
        return self.lineage["fingerprint"]

    @property
    def training_data(self) -> TrainingData:
        """What it and its ancestors were trained on."""
        return read_training_data(self.path)

    def load(self) -> Encoder:
        return load_encoder(self.path)

    def put_into(self, state: TrainState, trainer: Trainer) -> TrainState:
        """The state with this encoder's weights in place of its own; everything else as it was."""
        model = trainer.model(state)
        source = nnx.to_flat_state(nnx.state(self.load().module, WEIGHTS))
        target = dict(nnx.to_flat_state(nnx.state(model.encoder, WEIGHTS)))  # which may have adapters besides
        for path, new in source:
            old = target.get(path)
            if old is None or old.get_value().shape != new.get_value().shape:
                name, shape = ".".join(map(str, path)), list(new.get_value().shape)
                place = "no place" if old is None else list(old.get_value().shape)
                raise ValueError(
                    f"the encoder {self.path} has {name} {shape}, for which the recipe's model has {place}; set "
                    "`model` to what its config.json says"
                )
        placed = [
            (path, new.replace(jax.device_put(np.asarray(new.get_value()), target[path].get_value().sharding)))
            for path, new in source
        ]
        nnx.update(model.encoder, nnx.from_flat_state(placed))
        return trainer.with_model(state, model)
