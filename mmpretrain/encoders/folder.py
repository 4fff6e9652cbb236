"""Encoders as folders that outlive the code that trained them: `config.json`, `model.safetensors`, `README.md`.

Beside them lies what it and its ancestors were trained on (`TRAINING_DATA_FILE`), and there may be what the encoder
does not need but a pretraining checkpoint of the reference holds (`HEAD_FILE`), and the heads that it was fine-tuned
with (`TASK_HEADS_FILE`). `digests.json` says what the files were, and each is checked before it is believed. The card,
README.md, is for people: no command reads it, so it may be changed; so may files be added.

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
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmpretrain import compiler
from mmpretrain.config import ModelConfig, TaskConfig, as_dict, from_dict, shown
from mmpretrain.config.checks import check_model
from mmpretrain.config.task_checks import check_task
from mmpretrain.data.batch import empty_batch, put_clip
from mmpretrain.data.exposure import TrainingData
from mmpretrain.data.inputs import INPUTS
from mmpretrain.data.windows import windows
from mmpretrain.encoders.card import CARD_FILE, model_card
from mmpretrain.encoders.finite import finite
from mmpretrain.encoders.preprocessing import crop_size_of, default_crop_size, preprocessing
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
from mmpretrain.models.task_heads import FORMS, HEADS, ask_heads, make_head, why_no_head
from mmpretrain.records import FRAME_RATE_HZ, SAMPLE_RATE_HZ, Batch, Clip

FORMAT = "mmpretrain-encoder-4"  # 4: says how recordings are prepared; 3: digests, and what it was trained on
ENCODER_CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 2**20
HEAD_FILE = "pretraining_head.safetensors"
TASK_HEADS_FILE = "task_heads.safetensors"
TRAINING_DATA_FILE = "training_data.npz"
FRAME_MULTIPLE = 100  # clips are padded to a multiple of this many frames, so that few shapes are compiled


def save_encoder(
    path: str | Path,
    encoder: AVEncoder,
    *,
    lineage: dict[str, Any],
    training_data: TrainingData | None = None,
    head: Mapping[str, np.ndarray] | None = None,
    tasks: Sequence[TaskConfig] = (),
    heads: nnx.Module | None = None,
    form: str = FORMS[0],
    crop_size: int | None = None,
) -> None:
    """Writes the folder, whole or not at all. lineage: how the encoder came about, for its card and for people.

    training_data: what decided its weights; None: that is not known, and so it is called where it is used.
    head: the tensors of pretraining that are not the encoder's, under the reference's names (`export.avhubert`).
    tasks: that it was fine-tuned for, of kinds in `HEADS`; heads: an `nnx.Dict` of what these make, by task.
    form: of the heads, one of `FORMS`.
    crop_size: the side of the crops that it was trained on, of which it takes the middle; None: preparation's default.
    """
    if training_data is None:
        training_data = TrainingData(unknown=(lineage.get("checkpoint", lineage["fingerprint"]),))
    with whole_folder(path) as draft:
        _describe(draft, encoder.config, lineage, training_data, tasks, form, crop_size)
        save_weights(draft, encoder)
        if tasks:
            save_weights(draft, heads, TASK_HEADS_FILE)
        if head:
            save_file(dict(head), draft / HEAD_FILE)
        seal(draft)
        write_text(draft / CARD_FILE, model_card(encoder.config, lineage, training_data, tasks))


def save_description(
    path: str | Path,
    model: ModelConfig,
    *,
    lineage: dict[str, Any],
    training_data: TrainingData,
    tasks: Sequence[TaskConfig] = (),
    form: str = FORMS[0],
    crop_size: int | None = None,
) -> None:
    """Writes a folder of all that `save_encoder` would but weights, of an encoder that is about to be trained.

    `read_config` and its like read it: so a checkpoint becomes an encoder wherever it lies, without recipe or corpus.
    """
    with whole_folder(path) as draft:
        _describe(draft, model, lineage, training_data, tasks, form, crop_size)
        seal(draft)


def _describe(
    draft: Path,
    model: ModelConfig,
    lineage: dict[str, Any],
    training_data: TrainingData,
    tasks: Sequence[TaskConfig],
    form: str,
    crop_size: int | None,
) -> None:
    training_data.write(draft / TRAINING_DATA_FILE)
    config = {"format": FORMAT, "model": as_dict(model), "lineage": lineage}
    config |= {"training_data": training_data.summary()}
    config |= {"frame_rate_hz": FRAME_RATE_HZ, "sample_rate_hz": SAMPLE_RATE_HZ}
    config |= {"preprocessing": preprocessing(model, crop_size or default_crop_size(model))}
    if tasks:
        config |= {"tasks": [as_dict(task) for task in tasks], "head": form}
    write_json(draft / ENCODER_CONFIG_FILE, config)


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


def read_crop_size(path: str | Path) -> int:
    """The side of the crops that the encoder was trained on. Raises ValueError or FileNotFoundError."""
    model, _ = read_config(path)
    try:
        return crop_size_of(model, _read_config(Path(path)).get("preprocessing"))
    except ValueError as error:
        raise ValueError(f"{path}/{ENCODER_CONFIG_FILE}: {error}; {REMEDY}") from error


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


def read_tasks(path: str | Path) -> tuple[TaskConfig, ...]:
    """The tasks that the folder has heads for. Raises ValueError or FileNotFoundError."""
    try:
        given = _read_config(Path(path)).get("tasks", [])
        tasks = tuple(from_dict(TaskConfig, task) for task in (given if isinstance(given, list) else [given]))
        for i, task in enumerate(tasks):
            check_task(task, f"tasks[{i}]")
            if task.kind not in HEADS:
                raise ValueError(f"tasks[{i}].kind={shown(task.kind)}; this version knows {', '.join(HEADS)}")
        if len({task.name for task in tasks}) < len(tasks):
            raise ValueError("tasks must each have a name of its own")
    except ValueError as error:
        raise ValueError(f"{path}/{ENCODER_CONFIG_FILE}: {error}; {REMEDY}") from error
    return tasks


def read_form(path: str | Path) -> str:
    """Of its heads, one of `FORMS`. Raises ValueError or FileNotFoundError."""
    form, (model, _) = _read_config(Path(path)).get("head", FORMS[0]), read_config(path)
    for task in read_tasks(path):
        if why := why_no_head(model, task, form):
            raise ValueError(f"{path}/{ENCODER_CONFIG_FILE}: head={shown(form)}; {why}; {REMEDY}")
    return form


def new_heads(config: ModelConfig, tasks: Sequence[TaskConfig], form: str) -> nnx.Dict:
    """The heads of these tasks, shapes only."""
    return nnx.eval_shape(lambda: nnx.Dict({task.name: make_head(config, task, form, nnx.Rngs(0)) for task in tasks}))


def load_encoder(path: str | Path, *, dtype: str | None = None, kind: type[AnyEncoder] | None = None) -> AnyEncoder:
    """Loads an exported encoder, with the heads that it may have.

    dtype: of its activations, "float32" or "bfloat16"; None: the one that it was trained with. kind: of `Encoder`, that
    class by default. Raises ValueError or FileNotFoundError saying what is wrong with the folder.
    """
    kind = kind or Encoder
    (config, lineage), tasks, crop_size = read_config(path), read_tasks(path), read_crop_size(path)
    config = dataclasses.replace(config, dtype=dtype or config.dtype)
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
        if layer is not None and not 0 <= layer <= self.config.num_layers:
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
    def _compiled(self) -> dict[int | str | None, Callable[..., Any]]:
        return {}
