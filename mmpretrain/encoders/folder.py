"""Encoders as folders that outlive the code that trained them: `config.json`, `model.safetensors`, `README.md`.

Beside them lies what it and its ancestors were trained on (`TRAINING_DATA_FILE`), and there may be what the encoder
does not need but a pretraining checkpoint of the reference holds (`HEAD_FILE`), and the heads that it was fine-tuned
with (`TASK_HEADS_FILE`). `digests.json` says what the files were, and each is checked before it is believed. The card,
README.md, is for people: no command reads it, so it may be changed; so may files be added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmpretrain.config import ModelConfig, TaskConfig, as_dict, from_dict, shown
from mmpretrain.config.checks import check_model
from mmpretrain.config.task_checks import check_task
from mmpretrain.data.exposure import TrainingData
from mmpretrain.encoders.card import CARD_FILE, model_card
from mmpretrain.encoders.preprocessing import crop_size_of, default_crop_size, preprocessing
from mmpretrain.encoders.weights import REMEDY, save_weights
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
from mmpretrain.models.task_heads import FORMS, HEADS, make_head, why_no_head
from mmpretrain.records import FRAME_RATE_HZ, SAMPLE_RATE_HZ

FORMAT = "mmpretrain-encoder-4"  # 4: says how recordings are prepared; 3: digests, and what it was trained on
ENCODER_CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 2**20
HEAD_FILE = "pretraining_head.safetensors"
TASK_HEADS_FILE = "task_heads.safetensors"
TRAINING_DATA_FILE = "training_data.npz"


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
