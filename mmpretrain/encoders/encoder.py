"""A pretrained encoder in memory: what it makes of one clip.

encoder = mmpretrain.load_encoder("runs/demo/export/encoder")
features = encoder.features(audio=samples, video=crops)  # [T, D], 25 a second
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmpretrain import compiler
from mmpretrain.config import TaskConfig
from mmpretrain.config.checks import check_model
from mmpretrain.data.batch import empty_batch, put_clip
from mmpretrain.data.inputs import INPUTS
from mmpretrain.data.windows import windows
from mmpretrain.encoders.finite import finite
from mmpretrain.encoders.folder import TASK_HEADS_FILE, new_heads, read_config, read_crop_size, read_form, read_tasks
from mmpretrain.encoders.preprocessing import default_crop_size
from mmpretrain.encoders.weights import load_weights
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.models.task_heads import FORMS, HEADS, ask_heads
from mmpretrain.records import Batch, Clip

FRAME_MULTIPLE = 100  # clips are padded to a multiple of this many frames, so that few shapes are compiled


def load_encoder(path: str | Path, *, dtype: str | None = None, kind: type[AnyEncoder] | None = None) -> AnyEncoder:
    """Loads an exported encoder, with the heads that it may have.

    dtype: of its activations, "float32" or "bfloat16"; None: the one that it was trained with. kind: of `Encoder`, that
    class by default. Raises ValueError or FileNotFoundError saying what is wrong with the folder.
    """
    kind = kind or Encoder
    (config, lineage), tasks, crop_size = read_config(path), read_tasks(path), read_crop_size(path)
    config = dataclasses.replace(config, dtype=dtype or config.dtype)
    check_model(config)
    module = nnx.eval_shape(lambda: AVEncoder(config, rngs=nnx.Rngs(0)))  # shapes only: drawing weights takes seconds
    load_weights(Path(path), module)
    if not tasks:
        return kind(module, lineage, crop_size=crop_size)
    form = read_form(path)
    heads = new_heads(config, tasks, form)
    load_weights(Path(path), heads, TASK_HEADS_FILE)
    return kind(module, lineage, tasks, heads, crop_size, form)


class Outputs(NamedTuple):
    """What an encoder makes of a clip.

    fused: float32 [T, D], the modalities, before the transformer. layers: [L + 1, T, D], row 0 what the first layer
    takes, with the position added, row k what layer k makes of it. output: [T, D], the last with one norm more
    (pre-norm). logits: by task what its head puts out, [N], or of every frame [T, N]; of a clip in several windows
    their mean, by how much of the clip each owns, and of frames what the window says that owns them. answers: by task
    what that says: the chance of each class, in their order, a number on the scale of the labels, [1], or a point of
    length 1; of every frame [T, ...].
    """

    fused: np.ndarray
    layers: np.ndarray
    output: np.ndarray
    logits: dict[str, np.ndarray]
    answers: dict[str, np.ndarray]


AnyEncoder = TypeVar("AnyEncoder", bound="Encoder")


class _Network(nnx.Module):
    def __init__(self, encoder: AVEncoder, heads: nnx.Dict):
        self.encoder, self.heads = encoder, heads


class Encoder:
    """A pretrained encoder, ready to use. tasks: those that it has `heads` for. crop_size, form: see `save_encoder`."""

    def __init__(
        self,
        module: AVEncoder,
        lineage: dict[str, Any],
        tasks: Sequence[TaskConfig] = (),
        heads: nnx.Dict | None = None,
        crop_size: int | None = None,
        form: str = FORMS[0],
    ):
        self.crop_size, self.form = crop_size or default_crop_size(module.config), form
        self.module, self.config, self.lineage = module, module.config, lineage
        self.tasks, self.heads = tuple(tasks), nnx.Dict({}) if heads is None else heads

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
        in overlapping windows (`data.windows`). Raises ValueError for a clip of another kind, or of which the encoder
        says NaN or infinity.
        """
        if layer is not None and layer not in range(self.config.num_layers + 1):
            raise ValueError(f"layer={layer}; this encoder has layers 1 to {self.config.num_layers}, and 0, its input")
        made = self._windows(lambda model, batch: model.encoder(batch, layer=layer), layer, audio, video, tracks)
        return finite(np.concatenate([x[inner] for x, inner in made])[:, None], [layer])[:, 0]

    def outputs(
        self, audio: np.ndarray | None = None, video: np.ndarray | None = None, **tracks: np.ndarray
    ) -> Outputs:
        """All that there is of a clip as `features` takes it, in one pass."""

        def run(network: _Network, batch: Batch) -> dict[str, Any]:
            encoder, valid_BT = network.encoder, batch.valid_BT
            prepared = encoder.prepare(batch.inputs, valid_BT)
            x_BTD, _ = encoder.embed(prepared, valid_BT, batch.present)
            layers_LBTD = encoder.all_layers(x_BTD, valid_BT)
            frames = {"fused": x_BTD, "output": encoder.contextualize(x_BTD, valid_BT)}
            frames |= {"layers": jnp.moveaxis(layers_LBTD, 0, 2)}
            logits = ask_heads(encoder, network.heads, self.form, layers_LBTD, prepared, valid_BT, batch.present)
            return {"frames": frames, "logits": logits}

        made = self._windows(run, "outputs", audio, video, tracks)
        frames = {name: np.concatenate([x["frames"][name][inner] for x, inner in made]).astype(np.float32)
                  for name in ("fused", "layers", "output")}  # fmt: skip
        finite(frames["layers"], range(self.config.num_layers + 1))
        shares = np.array([inner.stop - inner.start for _, inner in made], np.float32)
        logits, answers = {}, {}
        for task in self.tasks:
            of_windows = [x["logits"][task.name] for x, _ in made]
            if HEADS[task.kind].of_frames:
                logits[task.name] = np.concatenate([x[own] for x, (_, own) in zip(of_windows, made, strict=True)])
            else:
                logits[task.name] = np.average(of_windows, axis=0, weights=shares)
            answers[task.name] = np.asarray(HEADS[task.kind].says(logits[task.name], task))
        layers = np.moveaxis(frames["layers"], 1, 0)
        return Outputs(frames["fused"], layers, frames["output"], logits, answers)

    def _windows(
        self,
        run: Callable[[_Network, Batch], Any],
        name: int | str | None,
        audio: np.ndarray | None,
        video: np.ndarray | None,
        tracks: Mapping[str, np.ndarray],
    ) -> list[tuple[Any, slice]]:
        """What `run`, compiled under `name`, makes of every window of a clip, and the window's own frames of it."""
        audio, video = (None if x is None else np.asarray(x) for x in (audio, video))  # a list or a tensor, say
        if audio is not None and video is not None and not len(audio):
            audio = None  # a clip without sound, which is not one of silence
        present = self._check(audio, video, tracks)
        none = np.zeros(0, np.int16)
        crops = np.zeros((0, 1, 1), np.uint8) if video is None else video
        clip = Clip(clip_id="", audio=none if audio is None else audio, mouth=crops, face=crops, tracks=tracks)
        num_frames = clip.num_frames or max(map(len, tracks.values()), default=0)
        if num_frames == 0 or (video is not None and not len(video)):
            raise ValueError("the clip is empty: features() needs at least one frame of 40 ms")
        graphdef, state = nnx.split(_Network(self.module, self.heads))
        if name not in self._compiled:
            options = compiler.for_forward(jax.default_backend())
            self._compiled[name] = jax.jit(
                lambda state, batch: run(nnx.merge(graphdef, state, copy=True), batch), compiler_options=options
            )
        made = []
        for frames, own in windows(num_frames):
            batch = empty_batch(1, -(-len(frames) // FRAME_MULTIPLE) * FRAME_MULTIPLE, self.config)
            put_clip(batch, 0, clip, frames, present, self.config)
            values = jax.tree.map(lambda x: np.asarray(x)[0], self._compiled[name](state, batch))
            made.append((values, slice(own.start - frames.start, own.stop - frames.start)))
        return made

    def features_of(self, clip: Clip, *, layer: int | None = None) -> np.ndarray:
        """As `features`, of what a prepared clip has of the encoder's modalities."""
        return self.features(layer=layer, **self.arrays_of(clip))

    def outputs_of(self, clip: Clip) -> Outputs:
        """As `outputs`, likewise."""
        return self.outputs(**self.arrays_of(clip))

    def arrays_of(self, clip: Clip) -> dict[str, np.ndarray]:
        """What a prepared clip has of the encoder's modalities, by the names that `features` has for it."""
        view = {"mouth": clip.mouth, "face": clip.face}[self.config.inputs.view]
        contents = {"audio": clip.audio, "video": view, **clip.tracks}
        wanted = {INPUTS[name].needs for name in self.config.modalities}
        return {name: array for name, array in contents.items() if name in wanted and len(array)}

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
    def _compiled(self) -> dict[int | str | None, Callable[..., Any]]:
        return {}
