"""The encoder that a path or an address stands for: of a run, of a stage, of one checkpoint, or a folder of its own.

What does not lie in a local folder of an encoder is put into one. Of a checkpoint the encoder and its heads are read,
neither the optimizer's moments nor what pretraining alone needs, and neither recipe nor corpus.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path

from flax import nnx

from mmpretrain.addresses import Place
from mmpretrain.config import ModelConfig, TaskConfig
from mmpretrain.encoders.folder import (
    ENCODER_CONFIG_FILE,
    new_heads,
    read_config,
    read_crop_size,
    read_form,
    read_tasks,
    read_training_data,
    save_encoder,
)
from mmpretrain.encoders.weights import put_tensors
from mmpretrain.files import whole_folder
from mmpretrain.models.adapters import attach, merge
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.observe.progress import log
from mmpretrain.run.layout import CHECKPOINTS, EXPORT, pretrain_name, saved_steps
from mmpretrain.run.source import ENCODER
from mmpretrain.run.stage import RECIPE_FILE
from mmpretrain.train.checkpoint_part import array_names, check_whole, read_arrays

DESCRIPTION = "encoder_description"  # of a stage that trains: what it will leave, all but weights


def encoder_folder(given: str | Path, scratch: Path) -> Path:
    """A local folder of the encoder that `given` stands for; made in `scratch` where there is none.

    Raises FileNotFoundError or ValueError saying what is wrong with what is given, and OSError where it cannot be read.
    """
    place = Place(given)
    if place.above.last == CHECKPOINTS:
        return _of_checkpoint(place, scratch / ENCODER)
    if place.local and not place.path.is_dir():
        raise FileNotFoundError(f"{place}: there is no such folder")
    found = _encoder_in(place)
    if found is None:
        known = ", ".join(map(str, _checkpoints_in(place)))
        remedy = f"give one of its checkpoints: {known}" if known else "`mmpretrain export --config=RECIPE` makes one"
        raise FileNotFoundError(
            f"{place} is no exported encoder, and no run or stage that has left one (no {ENCODER_CONFIG_FILE} of an "
            f"encoder in it); {remedy}"
        )
    if found != place:
        log(f"the encoder is {found}")
    return found.path if found.local else _copied(found, scratch / ENCODER)


def _encoder_in(place: Place) -> Place | None:
    """What its run exported, what its stage left, what the last whole round of its run left, or `place` itself."""
    inner = [f"{EXPORT}/{ENCODER}", ENCODER, *[f"{name}/{ENCODER}" for name in reversed(_rounds_in(place))]]
    found = (place / name for name in inner if (place / name).read(ENCODER_CONFIG_FILE) is not None)
    return next(found, place if _is_encoder(place) else None)


def _is_encoder(place: Place) -> bool:
    """Whether its config.json is not that of a run; of what else may be wrong with it, its reader speaks."""
    text = place.read(ENCODER_CONFIG_FILE)
    try:
        return text is not None and not ({"workdir", "rounds"} <= json.loads(text).keys())
    except (ValueError, AttributeError, RecursionError):
        return True


def _rounds_in(place: Place) -> list[str]:
    """The pretraining stages that a run has begun, in order."""
    numbers = itertools.takewhile(
        lambda number: (place / pretrain_name(number)).read(RECIPE_FILE) is not None, itertools.count(1)
    )
    return [pretrain_name(number) for number in numbers]


def _checkpoints_in(place: Place) -> list[Place]:
    """Of the stage `place`, or else of the last round of that run, in order."""
    for stage in (place, *[place / name for name in reversed(_rounds_in(place))]):
        if steps := _steps(stage / CHECKPOINTS):
            return [stage / CHECKPOINTS / str(step) for step in steps]
    return []


def _steps(checkpoints: Place) -> list[int]:
    """Of whole checkpoints."""
    if checkpoints.local:
        return saved_steps(checkpoints.path)
    return sorted({int(name.partition("/")[0]) for name in checkpoints.files() if re.match(r"\d+/", name)})


def _copied(place: Place, target: Path) -> Path:
    """A local copy of an encoder's folder."""
    with whole_folder(target) as draft:
        for name in place.files():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(place.read(name))
    return target


def _of_checkpoint(checkpoint: Place, target: Path) -> Path:
    """Writes the encoder of a checkpoint, with its heads; the folder is as its stage would have left it."""
    checkpoints, stage = checkpoint.above, checkpoint.above.above
    steps = _steps(checkpoints)
    if not steps:
        raise FileNotFoundError(f"{checkpoints} has no checkpoints: there is no such folder, or nothing is saved yet")
    if checkpoint.last not in map(str, steps):
        raise FileNotFoundError(
            f"{checkpoints} has no checkpoint of step {checkpoint.last}; it has {', '.join(map(str, steps))}"
        )
    described = stage / DESCRIPTION
    if described.read(ENCODER_CONFIG_FILE) is None:
        raise FileNotFoundError(
            f"{stage} has no {DESCRIPTION}, which a stage that trains encoders begins with; the same command of its "
            "run, given again, writes it"
        )
    folder = described.path if described.local else _copied(described, target.with_name(DESCRIPTION))
    (config, lineage), tasks, form = read_config(folder), read_tasks(folder), read_form(folder)
    check_whole(checkpoint)
    encoder, heads = _read_network(checkpoint, config, tasks, form)
    step, planned = int(checkpoint.last), lineage["steps"]
    lineage |= {"steps": step, "fingerprint": f"{lineage['fingerprint']}-{step}"}
    lineage |= {"taken from": f"the checkpoint of step {step}, of the {planned} that its stage was to have"}
    save_encoder(
        target, encoder, lineage=lineage, training_data=read_training_data(folder), tasks=tasks, heads=heads, form=form,
        crop_size=read_crop_size(folder),
    )  # fmt: skip
    return target


def _read_network(
    checkpoint: Place, config: ModelConfig, tasks: Sequence[TaskConfig], form: str
) -> tuple[AVEncoder, nnx.Dict | None]:
    """The encoder, adapters merged, and the heads of the tasks; nothing else is read."""
    ours = {}  # by its name in the checkpoint, which part a tensor is of, and its name there
    heads_wanted = "|".join(re.escape(task.name) for task in tasks) or "(?!)"
    wanted = re.compile(rf"(?:params|kept)\.(?:encoder|heads(?=\.(?:{heads_wanted})\.))\.(.+)\.value")
    for name in array_names(checkpoint):
        if match := wanted.fullmatch(name):
            ours[name] = (name.split(".")[1], match[1])
    arrays, parts = read_arrays(checkpoint, ours), {"encoder": {}, "heads": {}}
    for name, (part, tensor) in ours.items():
        parts[part][tensor] = arrays[name]
    encoder = nnx.eval_shape(lambda: AVEncoder(config, rngs=nnx.Rngs(0)))
    if rank := next((x.shape[-1] for name, x in parts["encoder"].items() if name.endswith("lora_qkv.down")), 0):
        encoder = nnx.eval_shape(lambda: _with_adapters(config, rank, nnx.Rngs(0)))
    put_tensors(encoder, parts["encoder"], checkpoint)
    merge(encoder.transformer)
    if not tasks:
        return encoder, None
    heads = new_heads(config, tasks, form)
    put_tensors(heads, parts["heads"], checkpoint)
    return encoder, heads


def _with_adapters(config: ModelConfig, rank: int, rngs: nnx.Rngs) -> AVEncoder:
    encoder = AVEncoder(config, rngs=rngs)
    attach(encoder.transformer, rank, rngs=rngs)
    return encoder
