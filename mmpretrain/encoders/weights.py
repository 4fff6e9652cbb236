"""A Flax module as one safetensors file: names are paths, e.g. `transformer.layers.attention.qkv.kernel`."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmpretrain.files import check_seal, present_folder

WEIGHTS_FILE = "model.safetensors"
WEIGHTS = (nnx.Param, nnx.BatchStat)
REMEDY = "copy the folder again, all of it, or let the command that made it make it anew"


def tensors_of(module: nnx.Module) -> dict[str, np.ndarray]:
    """Every parameter and batch statistic of `module`, by its path."""
    state = nnx.state(module, WEIGHTS)
    return {_name(path): np.asarray(jax.device_get(leaf.get_value())) for path, leaf in nnx.to_flat_state(state)}


def save_weights(folder: Path, module: nnx.Module, name: str = WEIGHTS_FILE) -> None:
    """Writes the tensors of `module`. `load_weights` asks for a seal of the folder besides. name: of the file."""
    save_file(tensors_of(module), folder / name)


def load_weights(folder: Path, module: nnx.Module, name: str = WEIGHTS_FILE) -> None:
    """Puts the file's tensors into `module`, each where and as the old value was, if all bits are as they were sealed.

    Raises ValueError naming the first tensor that is missing, left over or of another shape, or the file if damaged.
    """
    folder = present_folder(folder)
    file = folder / name
    if not file.exists():
        raise FileNotFoundError(f"{folder} has no {name}: it is no exported encoder, or a half-written one")
    check_seal(folder, name, remedy=REMEDY)
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}); {REMEDY}") from error
    put_tensors(module, tensors, file)


def put_tensors(module: nnx.Module, tensors: dict[str, np.ndarray], source: object) -> None:
    """Puts tensors by the names of `tensors_of` into `module`, each where and as the old value was.

    Raises ValueError naming the source, and the first tensor that is missing, left over, misshapen or not finite.
    """
    tensors = dict(tensors)
    for path, leaf in nnx.to_flat_state(nnx.state(module, WEIGHTS)):
        tensor, old = _name(path), leaf.get_value()
        if tensor not in tensors:
            raise ValueError(f"{source} lacks the tensor {tensor!r} that its config.json calls for")
        new = tensors.pop(tensor)
        if new.shape != old.shape:
            raise ValueError(
                f"{source}: tensor {tensor!r} has shape {new.shape}; its config.json calls for {old.shape}"
            )
        if new.dtype != np.float32 or not np.isfinite(new).all():
            raise ValueError(
                f"{source}: tensor {tensor!r} is of {new.dtype} or holds NaN or infinity, not finite float32"
            )
        leaf.set_value(jax.device_put(new.astype(old.dtype), old.sharding))
    if tensors:
        raise ValueError(f"{source} has a tensor {min(tensors)!r} that its config.json has no place for")


def _name(path: tuple) -> str:
    return ".".join(map(str, path))
