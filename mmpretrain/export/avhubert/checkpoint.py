"""AV-HuBERT checkpoints of the reference (spec, section 16) as encoders of ours, and back.

A checkpoint is a dict in a file of `torch.save`: `model` holds the tensors, `cfg` (or, in older ones, `args`) the
configuration. `avhubert` knows the tensors; this file knows the rest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from mmpretrain.config import AUDIO_DIM, ModelConfig, ReferenceModelConfig
from mmpretrain.config.checks import check_model
from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.encoders.folder import load_head, save_encoder
from mmpretrain.encoders.preprocessing import crop_size_of, preprocessing
from mmpretrain.export.avhubert.names import UNUSED, EncoderOnly, load_state_dict, to_float32, to_state_dict
from mmpretrain.export.avhubert.pickle_data import MAX_INT, Placeholder, shown
from mmpretrain.export.avhubert.torch_file import StoredTensor, open_torch_file, write_torch_file
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.models.heads import MaskedClusterModel

FINE_TUNED = "encoder.w2v_model."  # before the name of each encoder tensor of a fine-tuned checkpoint
HEAD = ("mask_emb", "label_embs_concat", "final_proj.weight", "final_proj.bias")
OURS = "mmpretrain"  # entry of `extra_state` with what the reference has no option for

# Our field and the reference's option; of the network, then of its inputs, then ours alone.
MODEL_OPTIONS = {
    "width": "encoder_embed_dim", "num_layers": "encoder_layers", "num_heads": "encoder_attention_heads",
    "mlp_dim": "encoder_ffn_embed_dim", "fusion": "modality_fuse", "pos_conv_kernel": "conv_pos",
    "pos_conv_groups": "conv_pos_groups", "proj_dim": "final_dim", "temperature": "logit_temp", "dropout": "dropout",
    "attention_dropout": "attention_dropout", "activation_dropout": "activation_dropout",
    "input_dropout": "dropout_input", "layerdrop": "encoder_layerdrop", "feature_grad_scale": "feature_grad_mult",
}  # fmt: skip
# Our field of `model.reference`, the reference's option, and its value for each of ours.
WORDED_OPTIONS = {
    "post_norm": ("layer_norm_first", {False: True, True: False}),
    "dot_similarity": ("sim_type", {False: "cosine", True: "dot"}),
    "tied_projection": ("untie_final_proj", {False: True, True: False}),
}
INPUT_OPTIONS = {"image_size": "image_crop_size", "pixel_mean": "image_mean", "pixel_std": "image_std"}
# What the encoder has no choice of, and its name of what the reference calls so.
FIXED_MODEL_OPTIONS = {
    "audio_feat_dim": AUDIO_DIM, "resnet_relu_type": "prelu", "sub_encoder_layers": 0, "activation_fn": "gelu",
}  # fmt: skip
FIXED_INPUT_OPTIONS = {"normalize": True}
# The tensor and its dim that a size can be read off.
SIZES = {
    "width": ("encoder.layer_norm.weight", 0), "mlp_dim": ("encoder.layers.0.fc1.bias", 0),
    "pos_conv_kernel": ("encoder.pos_conv.0.weight_g", 2), "proj_dim": ("label_embs_concat", 1),
}  # fmt: skip
MAX_NAMED = 12  # parts that a message names
DIMS_PER_HEAD = 64  # in Base and Large; no tensor tells


def import_checkpoint(file: str | Path, folder: str | Path) -> list[str]:
    """Reads the encoder of a checkpoint, pretrained or fine-tuned, and writes it as an exported encoder.

    Nothing in the file is run. Weights become float32 unchanged. The pretraining head is kept beside the encoder.
    Returns what a user should know, a sentence each. Raises ValueError or OSError naming the file and the tensor or
    option.
    """
    with open_torch_file(file) as opened:
        content = _mapping(opened.content)
        nodes = _mapping(content.get("model"))
        if not nodes:
            raise ValueError("it has no `model` with tensors: it is no AV-HuBERT checkpoint")
        nodes = {name if isinstance(name, str) else shown(name): node for name, node in nodes.items()}
        fine_tuned = any(name.startswith(FINE_TUNED) for name in nodes)
        prefix = FINE_TUNED if fine_tuned else ""
        tensors = opened.tensors({k.removeprefix(prefix): node for k, node in nodes.items() if k.startswith(prefix)})
        left_out = [name for name in nodes if not name.startswith(prefix)]
        if fine_tuned:  # what is there of the head is not what pretraining left
            left_out += [name for name in HEAD if name in tensors]
        config, says = _config(_settings(content), tensors)
        crop_size = _crop_size(content, config)
        encoder = nnx.eval_shape(lambda: AVEncoder(config, rngs=nnx.Rngs(0)))  # shapes only
        load_state_dict(EncoderOnly(encoder), {k: tensor for k, tensor in tensors.items() if k not in HEAD})
        _check_taps(encoder)
        head = {} if fine_tuned else _head(tensors, config.width)
        head |= _counters(tensors)
    if left_out:
        parts = Counter(name.rpartition(".layers.")[0] or name.partition(".")[0] for name in left_out)
        named = [f"{shown(part)[1:-1]} ({count})" for part, count in sorted(parts.items())]
        says.append(
            "left out: "
            + ", ".join(named[:MAX_NAMED])
            + f", and {len(parts) - MAX_NAMED} more" * (len(parts) > MAX_NAMED)
        )
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    lineage = {
        "fingerprint": digest[:16], "checkpoint": Path(file).name,
        "layout": "fine-tuned" if fine_tuned else "pretrained", "sha256": digest,
    }  # fmt: skip
    save_encoder(folder, encoder, lineage=lineage, head=head, crop_size=crop_size)
    return says


def export_checkpoint(folder: str | Path, file: str | Path) -> list[str]:
    """Writes an exported encoder as a pretraining checkpoint of the reference. Returns what a user should know.

    Raises ValueError for an encoder that the reference cannot express.
    """
    loaded = load_encoder(folder)
    config, head = loaded.config, load_head(folder)
    if set(config.modalities) != {"audio", "video"}:
        raise ValueError(f"model.modalities={config.modalities}: the reference's networks are of audio and video")
    if config.inputs.audio_normalization != "frame":
        raise ValueError(
            f"model.inputs.audio_normalization={config.inputs.audio_normalization!r} has no counterpart in the "
            "reference, which normalizes each frame"
        )
    if config.resnet_blocks != ModelConfig.resnet_blocks:
        raise ValueError(
            f"model.resnet_blocks={config.resnet_blocks} has no counterpart in the reference, whose ResNet-18 has "
            f"{ModelConfig.resnet_blocks}"
        )
    arrays = to_state_dict(EncoderOnly(loaded.module))
    batch_norms = [name.removesuffix(".running_var") for name in arrays if name.endswith(".running_var")]
    arrays |= {name + UNUSED: np.zeros((), np.int64) for name in batch_norms} | head
    model = {theirs: getattr(config, field) for field, theirs in MODEL_OPTIONS.items()}
    model |= {theirs: values[getattr(config.reference, field)] for field, (theirs, values) in WORDED_OPTIONS.items()}
    task = {theirs: getattr(config.inputs, field) for field, theirs in INPUT_OPTIONS.items()}
    content = {
        "args": None,
        "cfg": {
            "common": {},
            "task": {"_name": "av_hubert_pretraining", **task, **FIXED_INPUT_OPTIONS},
            "model": {"_name": "av_hubert", **model, **FIXED_MODEL_OPTIONS},
        },
        "model": arrays,
        "criterion": None,
        # fairseq's loader looks for the last of the history and for the place in the data, trained on or not.
        "optimizer_history": [{"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}],
        "task_state": {},
        "extra_state": {
            "train_iterator": {"epoch": 1, "iterations_in_epoch": 0},
            OURS: {
                "view": config.inputs.view, "crop_size": loaded.crop_size, "resnet_width": config.resnet_width,
            },
        },
    }  # fmt: skip
    write_torch_file(file, content)
    return [] if "final_proj.weight" in head else [f"{folder} has no pretraining head, so neither has {file}"]


def pretraining_head(model: MaskedClusterModel) -> dict[str, np.ndarray]:
    """The tensors that `save_encoder` takes as `head`, of a model of ours."""
    return {name: array for name, array in to_state_dict(model).items() if name in HEAD}


def _check_taps(encoder: AVEncoder) -> None:
    """The weights of the position are divided by their norm at each tap."""
    norms = np.square(np.asarray(encoder.transformer.position.v[...])).sum((1, 2))
    if not (norms > 0).all():
        raise ValueError(f"'encoder.pos_conv.0.weight_v' has norm 0 at tap {int(norms.argmin())}, which divides it")


def _head(tensors: Mapping[str, StoredTensor], width: int) -> dict[str, np.ndarray]:
    """The pretraining head, whole or, if nothing of it is there, empty."""
    there = [name for name in HEAD if name in tensors]
    if not there:
        return {}
    for name in HEAD:
        if name not in tensors:
            raise ValueError(f"it lacks {name!r}, though it has {there[0]!r}")
    shapes = {name: tensors[name].shape for name in HEAD}
    rows, dim = (*shapes["label_embs_concat"], 0, 0)[:2]
    sets = max(1, (shapes["final_proj.bias"] or (0,))[0] // max(1, dim))
    wanted = {
        "mask_emb": {(AUDIO_DIM,), (width,)}, "label_embs_concat": {(rows, dim)},
        "final_proj.weight": {(sets * dim, width)}, "final_proj.bias": {(sets * dim,)},
    }  # fmt: skip
    for name, shape in shapes.items():
        if shape not in wanted[name]:
            raise ValueError(f"{name!r} has shape {shape}, not {' or '.join(map(str, sorted(wanted[name])))}")
    return {name: np.array(to_float32(name, tensors[name]), order="C") for name in HEAD}


def _counters(tensors: Mapping[str, StoredTensor]) -> dict[str, np.ndarray]:
    """The counters of batch norms. They matter to nobody, and go back as they came."""
    counters = {name: tensor for name, tensor in tensors.items() if name.endswith(UNUSED)}
    for name, tensor in counters.items():
        if tensor.shape != () or tensor.dtype.kind not in "iu":
            raise ValueError(f"{shown(name)} is {tensor.dtype} {tensor.shape}, not a whole number")
    return {name: np.asarray(tensor).astype(np.int64) for name, tensor in counters.items()}


def _config(settings: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> tuple[ModelConfig, list[str]]:
    """The architecture by the file's own word, by its tensors where it is silent, and what was taken from those."""
    fields, read_off = {}, []
    for field, theirs in MODEL_OPTIONS.items():
        value = _typed(settings.get(theirs), getattr(ModelConfig, field))
        if field == "proj_dim" and value == 0:
            value = fields["width"]
        seen = _seen(field, fields, tensors)
        if value is None and seen is not None:
            value = seen
            read_off.append(f"{field}={seen}")
        if field in SIZES and seen is not None and value != seen:
            shape = tensors[SIZES[field][0]].shape
            raise ValueError(f"{SIZES[field][0]!r} has shape {shape}, but {theirs}={shown(value)}")
        if value is not None:
            fields[field] = value
    reference = {}
    for field, (theirs, values) in WORDED_OPTIONS.items():
        given = settings.get(theirs, values[False])
        ours = [on for on, value in values.items() if value == given]
        if not ours:
            raise ValueError(f"{theirs}={shown(given)}; encoders here have {' or '.join(map(repr, values.values()))}")
        reference[field] = ours[0]
    for option, value in (FIXED_MODEL_OPTIONS | FIXED_INPUT_OPTIONS).items():
        if settings.get(option, value) != value:
            raise ValueError(f"{option}={shown(settings[option])}; encoders here have {option}={value!r}")
    if fields["num_layers"] > len(tensors):
        layers = shown(fields["num_layers"])
        raise ValueError(f"encoder_layers={layers}, but it has {len(tensors)} tensors only")
    if (channels := _typed(settings.get("resnet_width"), 0)) is not None:
        fields["resnet_width"] = channels
    for divisor in ("num_heads", "pos_conv_groups"):
        if fields[divisor] < 1 or fields["width"] % fields[divisor]:
            given = f"{MODEL_OPTIONS[divisor]}={shown(fields[divisor])}"
            raise ValueError(f"{given} does not divide the width {shown(fields['width'])}")
    config = ModelConfig(**fields, reference=ReferenceModelConfig(**reference))
    inputs = {field: _typed(settings.get(theirs), getattr(config.inputs, field))
              for field, theirs in (INPUT_OPTIONS | {"view": "view"}).items()}  # fmt: skip
    known = {field: value for field, value in inputs.items() if value is not None}
    config = dataclasses.replace(config, inputs=dataclasses.replace(config.inputs, **known))
    check_model(config)
    if not read_off:
        return config, []
    says = f"the file does not say, and its tensors do: {', '.join(read_off)}"
    if any(item.startswith("num_heads=") for item in read_off):
        says += f" (num_heads assumes {DIMS_PER_HEAD} dims a head, as in Base and Large; layer norms come first)"
    return config, [says]


def _seen(field: str, fields: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> Any:
    """What the tensors say of a field of the model; None if nothing."""
    if field in SIZES:
        name, axis = SIZES[field]
        if name in tensors and len(tensors[name].shape) > axis:
            return tensors[name].shape[axis]
        if field == "proj_dim":
            return None
        raise ValueError(f"it lacks {name!r}" if name not in tensors else f"{name!r} has shape {tensors[name].shape}")
    if field == "fusion":
        return "concat" if "post_extract_proj.weight" in tensors else "add"
    if field == "num_layers":
        return len({name.split(".")[2] for name in tensors if name.startswith("encoder.layers.")})
    if field == "num_heads":
        return max(1, fields["width"] // DIMS_PER_HEAD)
    if field == "pos_conv_groups":
        name, width = "encoder.pos_conv.0.weight_v", fields["width"]
        if name not in tensors:
            raise ValueError(f"it lacks {name!r}")
        if len(shape := tensors[name].shape) != 3 or not 0 < shape[1] <= width:
            raise ValueError(f"{name!r} has shape {shape}, not ({width}, {width} / groups, taps)")
        return width // shape[1]
    return None


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the network and its inputs by the reference's names, wherever the file has them."""
    cfg, args = _mapping(content.get("cfg")), _mapping(content.get("args"))
    model, pretraining = _mapping(cfg.get("model")), _mapping(_mapping(cfg.get("model")).get("w2v_args"))
    networks = (_mapping(pretraining.get("model")), pretraining, model, args)
    network = next((source for source in networks if "encoder_embed_dim" in source), {})
    inputs = _mapping(pretraining.get("task")) or _mapping(cfg.get("task")) or args
    own = _own(content)
    merged = {**inputs, **network, **{name: own[name] for name in ("view", "resnet_width") if name in own}}
    return {name: _plain(value) for name, value in merged.items() if isinstance(name, str)}


def _own(content: Mapping[str, Any]) -> Mapping[Any, Any]:
    """What the reference has no option for."""
    return _mapping(_mapping(content.get("extra_state")).get(OURS))


def _crop_size(content: Mapping[str, Any], config: ModelConfig) -> int | None:
    """The side of the crops that it was trained on; None: the file does not say. Raises ValueError for one that cannot
    be."""
    size = _typed(_own(content).get("crop_size"), 0)
    return None if size is None else crop_size_of(config, preprocessing(config, size))


def _mapping(node: Any) -> Mapping[Any, Any]:
    value = _plain(node)
    return value if isinstance(value, dict) else {}


def _plain(node: Any) -> Any:
    """What a placeholder of a configuration object holds: omegaconf's nodes, a namespace, an enumeration's member."""
    for _ in range(4):  # they are nested no deeper
        if not isinstance(node, Placeholder):
            break
        if isinstance(node.state, dict):
            node = node.state.get("_content", node.state.get("_val", node.state))
        else:
            node = node.args[0] if len(node.args) == 1 else node.items or None
    return node


def _typed(value: Any, like: Any) -> Any:
    """`value` if it is of the type of `like`, else None: such an option counts as not given."""
    if isinstance(like, float) and type(value) in (int, float):
        return math.inf if isinstance(value, int) and abs(value) >= MAX_INT else float(value)
    return value if type(value) is type(like) else None
