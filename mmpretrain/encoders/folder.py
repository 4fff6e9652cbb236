"""Encoders as folders that outlive the code that trained them: `config.json`, `model.safetensors`, `README.md`.

Beside them lies what it and its ancestors were trained on (`TRAINING_DATA_FILE`), and there may be what the encoder
does not need but a pretraining checkpoint of the reference holds (`HEAD_FILE`). `digests.json` says what the files
were, and each is checked before it is believed. The card, README.md, is for people: no command reads it, so it may be
changed; so may files be added.

encoder = mmpretrain.load_encoder("runs/demo/export/encoder")
features = encoder.features(audio=samples, video=crops)  # [T, D], 25 a second
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmpretrain.config import ModelConfig, as_dict, from_dict, shown
from mmpretrain.config.checks import check_model
from mmpretrain.data.batch import empty_batch, put_clip
from mmpretrain.data.exposure import TrainingData
from mmpretrain.data.inputs import INPUTS
from mmpretrain.data.windows import windows
from mmpretrain.encoders.card import model_card
from mmpretrain.encoders.weights import REMEDY, load_weights, save_weights
from mmpretrain.files import (
    check_local,
    check_seal,
    present_folder,
    read_json,
    seal,
    sealed,
    whole_folder,
    write_json,
    write_text,
)
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.records import FRAME_RATE_HZ, SAMPLE_RATE_HZ, Clip

FORMAT = "mmpretrain-encoder-3"  # 3: with the digests of its files, and with what it was trained on
ENCODER_CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 2**20
HEAD_FILE = "pretraining_head.safetensors"
TRAINING_DATA_FILE = "training_data.npz"
FRAME_MULTIPLE = 100  # clips are padded to a multiple of this many frames, so that few shapes are compiled


def save_encoder(
    path: str | Path,
    encoder: AVEncoder,
    *,
    lineage: dict[str, Any],
    training_data: TrainingData | None = None,
    head: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes the folder, whole or not at all. lineage: how the encoder came about, for its card and for people.

    training_data: what decided its weights; None: that is not known, and so it is called where it is used.
    head: the tensors of pretraining that are not the encoder's, under the reference's names (`export.avhubert`).
    """
    if training_data is None:
        training_data = TrainingData(unknown=(lineage.get("checkpoint", lineage["fingerprint"]),))
    with whole_folder(path) as draft:
        training_data.write(draft / TRAINING_DATA_FILE)
        config = {"format": FORMAT, "model": as_dict(encoder.config), "lineage": lineage}
        config |= {"training_data": training_data.summary()}
        config |= {"frame_rate_hz": FRAME_RATE_HZ, "sample_rate_hz": SAMPLE_RATE_HZ}
        write_json(draft / ENCODER_CONFIG_FILE, config)
        save_weights(draft, encoder)
        if head:
            save_file(dict(head), draft / HEAD_FILE)
        seal(draft)
        write_text(draft / "README.md", model_card(encoder.config, lineage, training_data))


def read_config(path: str | Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The model configuration and lineage of an exported encoder. Raises ValueError or FileNotFoundError."""
    config = _read_config(Path(path))
    try:
        model, lineage = from_dict(ModelConfig, config.get("model")), config.get("lineage")
        check_model(model)
        if not isinstance(lineage, dict):
            raise ValueError(f"lineage={shown(lineage)}; it must be how the encoder came about, by names")
    except ValueError as error:
        raise ValueError(f"{path}/{ENCODER_CONFIG_FILE}: {error}; {REMEDY}") from error
    return model, lineage


def read_training_data(path: str | Path) -> TrainingData:
    """What an exported encoder and its ancestors were trained on. Raises ValueError or FileNotFoundError."""
    _read_config(Path(path))
    path = present_folder(path)
    check_seal(path, TRAINING_DATA_FILE, remedy=REMEDY)
    return TrainingData.read(path / TRAINING_DATA_FILE)


def _read_config(path: Path) -> dict[str, Any]:
    check_local("the folder of an encoder", path)
    path = present_folder(path)
    file = path / ENCODER_CONFIG_FILE
    if not file.exists():
        raise FileNotFoundError(
            f"{path} is no exported encoder: it has no {ENCODER_CONFIG_FILE}; `mmpretrain export` makes one"
        )
    if (size := file.stat().st_size) > MAX_CONFIG_BYTES:
        raise ValueError(f"{file} has {size} bytes: it is no configuration of an encoder; {REMEDY}")
    config = read_json(file, remedy=REMEDY)
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{file}: format={shown(config.get('format'))}, but this version reads {FORMAT!r}; export it again, or let "
            f"the version that made it write a checkpoint (`mmpretrain export {path} --format=avhubert "
            "--output=FILE.pt`) and read that with `mmpretrain import-avhubert FILE.pt --output=DIR`"
        )
    check_seal(path, ENCODER_CONFIG_FILE, remedy=REMEDY)
    return config


def load_head(path: str | Path) -> dict[str, np.ndarray]:
    """The `head` that the folder was saved with; empty if without one."""
    path = present_folder(path)
    file = path / HEAD_FILE
    if not file.exists() and HEAD_FILE not in sealed(path):
        return {}
    check_seal(path, HEAD_FILE, remedy=REMEDY)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}); {REMEDY}") from error


def load_encoder(path: str | Path) -> Encoder:
    """Loads an exported encoder. Raises ValueError or FileNotFoundError saying what is wrong with the folder."""
    config, lineage = read_config(path)
    module = nnx.eval_shape(lambda: AVEncoder(config, rngs=nnx.Rngs(0)))  # shapes only: drawing weights takes seconds
    load_weights(Path(path), module)
    return Encoder(module, lineage)


class Encoder:
    """A pretrained encoder, ready to use."""

    def __init__(self, module: AVEncoder, lineage: dict[str, Any]):
        self.module, self.config, self.lineage = module, module.config, lineage

    def features(
        self,
        audio: np.ndarray | None = None,
        video: np.ndarray | None = None,
        *,
        layer: int | None = None,
        **tracks: np.ndarray,
    ) -> np.ndarray:
        """The features of one clip, float32 [T, D], one row per 40 ms.

        audio: int16 [N], mono at 16 kHz. video: uint8 [T, S, S], grey crops at 25 fps as `data_prep` makes them (S at
        least `config.inputs.image_size`; the centre is used). tracks: of modalities beyond these, [T, ...] by the name
        that a record has for them. Any may be missing; the video, if it is there, decides T. layer: None for the final
        output, k for the stream after layer k, 0 for the transformer's input. A clip of more than a minute goes through
        in overlapping windows (`data.windows`). Raises ValueError for a clip of another kind.
        """
        present = self._check(audio, video, tracks)
        none = np.zeros(0, np.int16)
        crops = np.zeros((0, 1, 1), np.uint8) if video is None else video
        clip = Clip(clip_id="", audio=none if audio is None else audio, mouth=crops, face=crops, tracks=tracks)
        num_frames = clip.num_frames or max(map(len, tracks.values()), default=0)
        if num_frames == 0 or (video is not None and not len(video)):
            raise ValueError("the clip is empty: features() needs at least one frame of 40 ms")
        if layer is not None and not 0 <= layer <= self.config.num_layers:
            raise ValueError(f"layer={layer}; this encoder has layers 1 to {self.config.num_layers}, and 0, its input")
        made = [self._window(clip, present, layer, *window) for window in windows(num_frames)]
        return np.concatenate(made).astype(np.float32)

    def _window(self, clip: Clip, present: Sequence[str], layer: int | None, frames: range, own: range) -> np.ndarray:
        batch = empty_batch(1, -(-len(frames) // FRAME_MULTIPLE) * FRAME_MULTIPLE, self.config)
        put_clip(batch, 0, clip, frames, present, self.config)
        features_TD = np.asarray(self._forward(layer, nnx.state(self.module), batch))[0]
        return features_TD[own.start - frames.start : own.stop - frames.start]

    def features_of(self, clip: Clip, *, layer: int | None = None) -> np.ndarray:
        """As `features`, of what a prepared clip has of the encoder's modalities."""
        view = {"mouth": clip.mouth, "face": clip.face}[self.config.inputs.view]
        contents = {"audio": clip.audio, "video": view, **clip.tracks}
        wanted = {INPUTS[name].needs for name in self.config.modalities}
        return self.features(layer=layer, **{k: v for k, v in contents.items() if k in wanted and len(v)})

    def _check(self, audio: np.ndarray | None, video: np.ndarray | None, tracks: Mapping[str, np.ndarray]) -> list[str]:
        """The modalities of the encoder that are given."""
        modalities, given = self.config.modalities, {"audio": audio, "video": video, **tracks}
        if unknown := set(tracks) - (needed := {INPUTS[name].needs for name in modalities}):
            raise ValueError(f"this encoder takes no {min(unknown)!r}: features() needs {' or '.join(sorted(needed))}")
        present = [name for name in modalities if given.get(INPUTS[name].needs) is not None]
        if not present:
            needs = " or ".join(INPUTS[name].needs for name in modalities)
            raise ValueError(f"this encoder is of {' and '.join(modalities)}: features() needs {needs}")
        size = self.config.inputs.image_size if "video" in modalities else 1  # else nobody looks at the pictures
        if audio is not None and (audio.dtype != np.int16 or audio.ndim != 1):
            raise ValueError(f"audio must be int16 [N], mono at 16 kHz, but is {audio.dtype} {list(audio.shape)}")
        if video is not None and (video.dtype != np.uint8 or video.ndim != 3 or min(video.shape[1:]) < size):
            raise ValueError(
                f"video must be uint8 [T, S, S], grey crops with S at least {size}, but is {video.dtype} "
                f"{list(video.shape)}"
            )
        return present

    @cached_property
    def _forward(self):
        graphdef = nnx.graphdef(self.module)
        return jax.jit(
            lambda layer, state, batch: nnx.merge(graphdef, state, copy=True)(batch, layer=layer), static_argnums=0
        )
