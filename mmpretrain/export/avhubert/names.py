"""The one place that knows the reference's tensor names and PyTorch layouts (spec, section 16).

Both directions are pure: no file is read or written here. The classes of a model that takes a reference's weights
include the four special symbols, which the reference keeps as extra classes of every label set. Several label sets lie
one after the other in `final_proj` and `label_embs_concat`, as in ours. Dims: D width, P projection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
from flax import nnx

from mmpretrain.config import AUDIO_DIM
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.models.heads import MaskedClusterModel
from mmpretrain.models.resnet import STEM_FRAMES

WEIGHTS = (nnx.Param, nnx.BatchStat)
# PyTorch puts outputs first and kernel taps last; ours has taps, inputs, outputs. By number of dims.
AXES = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}
FLOATS = tuple(map(np.dtype, (np.float32, np.float16, ml_dtypes.bfloat16, np.float64)))
UNUSED = ".num_batches_tracked"  # of every batch norm; a fixed momentum does not need it


class Tensor(NamedTuple):
    """One tensor of the reference and the part of one of ours that holds the same numbers."""

    name: str
    shape: tuple[int, ...]
    path: str
    part: tuple = ()  # index into our tensor, where it holds several of the reference's
    axes: tuple[int, ...] | None = None  # of the reference, in our order, where not AXES


class EncoderOnly(nnx.Module):
    """An encoder in the place of a pretraining model: the functions below then leave the head out."""

    def __init__(self, encoder: AVEncoder):
        self.encoder = encoder


def load_state_dict(model: MaskedClusterModel | EncoderOnly, tensors: Mapping[str, np.ndarray]) -> None:
    """Puts a reference state dict (name -> array, PyTorch layouts) into `model`, as float32.

    An array may be anything with a shape that `np.asarray` takes; none is read before all names and shapes are found
    to be right. Raises ValueError naming the first tensor that is missing, of another shape than the model calls for,
    left over, of whole numbers, or with NaN or infinity in it; the model is then as it was.
    """
    wanted = list(reference_tensors(model))
    for tensor in wanted:
        if tensor.name not in tensors:
            raise ValueError(f"the state dict lacks {tensor.name!r}, which this model configuration calls for")
        shape = tensors[tensor.name].shape
        if shape != tensor.shape:
            raise ValueError(f"{tensor.name!r} has shape {shape}; this model configuration calls for {tensor.shape}")
    known = {tensor.name for tensor in wanted}
    for name in tensors:
        if name not in known and not name.endswith(UNUSED):
            raise ValueError(f"the state dict has {name!r}, which this model configuration has no place for")
    places = _weights(model)
    values = {path: np.zeros(place.shape, np.float32) for path, place in places.items()}
    for tensor in wanted:
        part = values[tensor.path][tensor.part]
        array = to_float32(tensor.name, tensors[tensor.name])
        part[...] = array.transpose(_axes(tensor)).reshape(part.shape)
    for path, place in places.items():
        old = place.get_value()
        place.set_value(jax.device_put(values[path].astype(old.dtype), old.sharding))


def to_float32(name: str, tensor: Any) -> np.ndarray:
    """The numbers of one tensor. Raises ValueError naming it if they are none that a network can have."""
    if (dtype := tensor.dtype) not in FLOATS:
        raise ValueError(f"{name!r} is of {dtype}, not of {', '.join(map(str, FLOATS))}")
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.asarray(tensor).astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{name!r} holds numbers that are none or too large (NaN, infinity)")
    return array


def to_state_dict(model: MaskedClusterModel | EncoderOnly) -> dict[str, np.ndarray]:
    """The inverse of `load_state_dict`: name -> float32 array in PyTorch layouts, without `num_batches_tracked`."""
    values = {path: np.asarray(place.get_value(), np.float32) for path, place in _weights(model).items()}
    arrays = {}
    for tensor in reference_tensors(model):
        axes = _axes(tensor)
        array = values[tensor.path][tensor.part].reshape([tensor.shape[axis] for axis in axes])
        arrays[tensor.name] = np.ascontiguousarray(array.transpose(np.argsort(axes)))
    return arrays


def _weights(model: nnx.Module) -> dict[str, nnx.Variable]:
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(nnx.state(model, WEIGHTS))}


def _axes(tensor: Tensor) -> tuple[int, ...]:
    return tensor.axes or AXES[len(tensor.shape)]


def reference_tensors(model: MaskedClusterModel | EncoderOnly) -> Iterator[Tensor]:
    """Every tensor that `load_state_dict` asks for. `model` may be abstract (`nnx.eval_shape`); of a ResNet-18."""
    config, D = model.encoder.config, model.encoder.config.width
    fused = D * len(config.modalities) if config.fusion == "concat" else D
    if not isinstance(model, EncoderOnly):
        num_clusters, P = model.head.embeddings.shape
        yield Tensor("mask_emb", model.mask_embedding.shape, "mask_embedding")
        yield Tensor("label_embs_concat", (num_clusters, P), "head.embeddings", axes=(0, 1))
        yield from _linear("final_proj", (model.head.proj.out_features, D), "head.proj")
    if "audio" in config.modalities:
        yield from _linear("feature_extractor_audio.proj", (D, AUDIO_DIM), "encoder.frontends.audio.proj")
    if "video" in config.modalities:
        yield from _resnet(config.resnet_width, config.resnet_blocks)
        yield from _linear("feature_extractor_video.proj", (D, 8 * config.resnet_width), "encoder.frontends.video.proj")
    yield from _norm("layer_norm", fused, "encoder.fusion.norm")
    if config.fusion == "concat":
        yield from _linear("post_extract_proj", (D, fused), "encoder.fusion.proj")
    position, taps = "encoder.transformer.position", config.pos_conv_kernel
    yield Tensor("encoder.pos_conv.0.bias", (D,), f"{position}.bias")
    yield Tensor("encoder.pos_conv.0.weight_g", (1, 1, taps), f"{position}.g")
    yield Tensor("encoder.pos_conv.0.weight_v", (D, D // config.pos_conv_groups, taps), f"{position}.v")
    for n in range(config.num_layers):
        yield from _layer(n, D, config.mlp_dim)
    yield from _norm("encoder.layer_norm", D, "encoder.transformer.norm")


def _layer(n: int, D: int, mlp_dim: int) -> Iterator[Tensor]:
    """Layer n is row n of every tensor of ours, and q, k and v are one tensor."""
    theirs, ours = f"encoder.layers.{n}", "encoder.transformer.layers"
    for i, name in enumerate("qkv"):
        yield Tensor(f"{theirs}.self_attn.{name}_proj.weight", (D, D), f"{ours}.attention.qkv.kernel", np.s_[n, :, i])
        yield Tensor(f"{theirs}.self_attn.{name}_proj.bias", (D,), f"{ours}.attention.qkv.bias", np.s_[n, i])
    yield from _linear(f"{theirs}.self_attn.out_proj", (D, D), f"{ours}.attention.out", np.s_[n,])
    yield from _norm(f"{theirs}.self_attn_layer_norm", D, f"{ours}.attention_norm", np.s_[n,])
    yield from _linear(f"{theirs}.fc1", (mlp_dim, D), f"{ours}.mlp_in", np.s_[n,])
    yield from _linear(f"{theirs}.fc2", (D, mlp_dim), f"{ours}.mlp_out", np.s_[n,])
    yield from _norm(f"{theirs}.final_layer_norm", D, f"{ours}.mlp_norm", np.s_[n,])


def _resnet(channels: int, blocks: tuple[int, ...]) -> Iterator[Tensor]:
    root, ours = "feature_extractor_video.resnet", "encoder.frontends.video.resnet"
    yield Tensor(f"{root}.frontend3D.0.weight", (channels, 1, STEM_FRAMES, 7, 7), f"{ours}.stem.kernel")
    yield from _batch_norm(f"{root}.frontend3D.1", channels, f"{ours}.stem.bn")
    yield Tensor(f"{root}.frontend3D.2.weight", (channels,), f"{ours}.stem.act.slope")
    c_in = channels
    for stage, num_blocks in enumerate(blocks):
        c_out = channels * 2**stage
        for i in range(num_blocks):
            theirs, block = f"{root}.trunk.layer{stage + 1}.{i}", f"{ours}.blocks.{sum(blocks[:stage]) + i}"
            for k, width in ((1, c_in), (2, c_out)):
                yield Tensor(f"{theirs}.conv{k}.weight", (c_out, width, 3, 3), f"{block}.conv{k}.kernel")
                yield from _batch_norm(f"{theirs}.bn{k}", c_out, f"{block}.bn{k}")
                yield Tensor(f"{theirs}.relu{k}.weight", (c_out,), f"{block}.act{k}.slope")
            if c_in != c_out:
                yield Tensor(f"{theirs}.downsample.0.weight", (c_out, c_in, 1, 1), f"{block}.shortcut.kernel")
                yield from _batch_norm(f"{theirs}.downsample.1", c_out, f"{block}.shortcut_bn")
            c_in = c_out


def _linear(theirs: str, shape: tuple[int, int], ours: str, part: tuple = ()) -> Iterator[Tensor]:
    yield Tensor(f"{theirs}.weight", shape, f"{ours}.kernel", part)
    yield Tensor(f"{theirs}.bias", shape[:1], f"{ours}.bias", part)


def _norm(theirs: str, width: int, ours: str, part: tuple = ()) -> Iterator[Tensor]:
    yield Tensor(f"{theirs}.weight", (width,), f"{ours}.scale", part)
    yield Tensor(f"{theirs}.bias", (width,), f"{ours}.bias", part)


def _batch_norm(theirs: str, width: int, ours: str) -> Iterator[Tensor]:
    yield from _norm(theirs, width, ours)
    yield Tensor(f"{theirs}.running_mean", (width,), f"{ours}.mean")
    yield Tensor(f"{theirs}.running_var", (width,), f"{ours}.var")
