"""Writes the folder for `transformers`, loads it back as its users do, and compares."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from mmpretrain.config import ModelConfig
from mmpretrain.encoders.card import model_card
from mmpretrain.encoders.folder import Encoder, load_encoder, read_training_data
from mmpretrain.encoders.preprocessing import preprocessing
from mmpretrain.encoders.weights import WEIGHTS_FILE
from mmpretrain.encoders.weights import tensors_of as head_tensors
from mmpretrain.export import check_installed
from mmpretrain.export.avhubert.names import EncoderOnly, to_state_dict
from mmpretrain.export.parity import Case, Differences, cases_of, expected, in_batches
from mmpretrain.files import seal, whole_folder, write_json, write_text
from mmpretrain.records import Clip

MODELING, PROCESSING = "modeling_mmpretrain", "processing_mmpretrain"
CLASSIFIER, ENCODER = "MMPretrainForAudioClassification", "MMPretrainModel"
PREFIX = "av_encoder."  # before the encoder's tensors where there is a head
AT_ONCE = 8  # clips in a padded batch
EXAMPLE = """from transformers import {kind}, AutoProcessor

model = {kind}.from_pretrained("THIS FOLDER", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("THIS FOLDER", trust_remote_code=True)
outputs = model(**processor({given}, return_tensors="pt"), output_hidden_states=True)"""


def write_folder(source: Path, target: Path, clips: Sequence[Clip]) -> Iterable[str]:
    """Writes the encoder of the folder `source`, with its first head if it has any. Returns what to tell the user.

    Raises ValueError where torch is missing, the format cannot hold the encoder, or what was written, loaded back, says
    something else of these clips. Then there is no `target`.
    """
    check_installed("torch", "torch", "transformers")
    encoder = load_encoder(source, dtype="float32")
    cases = cases_of(clips, encoder.config)
    with whole_folder(target) as draft:
        write_json(draft / "config.json", network_config(encoder))
        save_file(tensors_of(encoder), draft / WEIGHTS_FILE, metadata={"format": "pt"})
        for name, settings in processing_configs(encoder.config).items():
            write_json(draft / name, settings)
        for module in (MODELING, PROCESSING):
            shutil.copyfile(Path(__file__).with_name(f"{module}.py"), draft / f"{module}.py")
        differences = compare(encoder, draft, cases)
        lines = differences.lines()
        seal(draft)
        write_text(draft / "README.md", card(source, encoder, differences))
    left = list(encoder.tasks)[1:]
    return [*lines, *[f"left out: the head of {task.name}; a folder holds one" for task in left]]


def card(source: Path, encoder: Encoder, differences: Differences) -> str:
    """The README.md of the folder."""
    kind = "AutoModelForAudioClassification" if encoder.tasks else "AutoModel"
    given = ", ".join({"audio": "audio=samples", "video": "videos=crops"}[name] for name in encoder.config.modalities)
    more = {"largest difference from the JAX encoder": f"{differences.largest:.2g} over {differences.compared} inputs"}
    return model_card(
        encoder.config, encoder.lineage, read_training_data(source), encoder.tasks, library="transformers", more=more,
        example=EXAMPLE.format(kind=kind, given=given),
    )  # fmt: skip


def network_config(encoder: Encoder) -> dict[str, Any]:
    """`config.json`: what the network is, which class reads it, and how it came about."""
    config, head = encoder.config, next(iter(encoder.tasks), None)
    labels = {"id2label": dict(enumerate(head.classes)), "label2id": {name: i for i, name in enumerate(head.classes)},
              "task": head.name, "pooling": head.pooling,
              "problem_type": "single_label_classification"} if head else {}  # fmt: skip
    return {
        "model_type": "mmpretrain", "architectures": [CLASSIFIER if head else ENCODER], "dtype": "float32",
        "auto_map": {
            "AutoConfig": f"{MODELING}.MMPretrainConfig", "AutoModel": f"{MODELING}.{ENCODER}",
            "AutoModelForAudioClassification": f"{MODELING}.{CLASSIFIER}",
        },
        "modalities": list(config.modalities), "image_size": config.inputs.image_size, "hidden_size": config.width,
        "num_hidden_layers": config.num_layers, "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_dim, "resnet_width": config.resnet_width,
        "resnet_blocks": list(config.resnet_blocks), "fusion": config.fusion,
        "num_conv_pos_embeddings": config.pos_conv_kernel, "num_conv_pos_embedding_groups": config.pos_conv_groups,
        "post_norm": config.reference.post_norm, "hidden_dropout": config.dropout,
        "attention_dropout": config.attention_dropout, "activation_dropout": config.activation_dropout,
        "input_dropout": config.input_dropout, "layerdrop": config.layerdrop,
        "feature_grad_scale": config.feature_grad_scale, "lineage": encoder.lineage,
        "preprocessing": preprocessing(config, encoder.crop_size), **labels,
    }  # fmt: skip


def processing_configs(config: ModelConfig) -> dict[str, dict[str, Any]]:
    """By the names of their files, the settings of the feature extractor and of the processor."""
    extractor, inputs = "MMPretrainFeatureExtractor", config.inputs
    auto_map = {
        "AutoFeatureExtractor": f"{PROCESSING}.{extractor}",
        "AutoProcessor": f"{PROCESSING}.MMPretrainProcessor",
    }
    kinds = {"feature_extractor_type": extractor, "processor_class": "MMPretrainProcessor", "auto_map": auto_map}
    sound = {"sampling_rate": 16_000, "normalization": inputs.audio_normalization}
    picture = {"image_size": inputs.image_size, "pixel_mean": inputs.pixel_mean, "pixel_std": inputs.pixel_std}
    return {
        "preprocessor_config.json": kinds | sound,
        "processor_config.json": {**kinds, **picture, "view": inputs.view},
    }


def tensors_of(encoder: Encoder) -> dict[str, np.ndarray]:
    """By the names of the PyTorch module, every tensor of the encoder and of its first head."""
    arrays = to_state_dict(EncoderOnly(encoder.module))
    arrays |= {name.replace("running_var", "num_batches_tracked"): np.zeros([], np.int64)
               for name in arrays if name.endswith(".running_var")}  # fmt: skip
    arrays = {name.replace("pos_conv.0.weight_", "pos_conv.").replace("pos_conv.0.", "pos_conv."): array
              for name, array in arrays.items()}  # fmt: skip
    for task in list(encoder.tasks)[:1]:
        arrays = {PREFIX + name: array for name, array in arrays.items()}
        for name, array in head_tensors(encoder.heads[task.name]).items():
            array = array.T if name.endswith(".kernel") else array
            arrays[f"classifier.{name.replace('.kernel', '.weight')}"] = np.ascontiguousarray(array)
    return arrays


def compare(encoder: Encoder, folder: Path, cases: Sequence[Case]) -> Differences:
    """Against what `transformers` makes of the folder: each clip alone, and all padded in batches."""
    from transformers import AutoModel, AutoModelForAudioClassification, AutoProcessor
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    kind, head = AutoModel, next(iter(encoder.tasks), None)
    if head:
        kind = AutoModelForAudioClassification
    model = kind.from_pretrained(folder, trust_remote_code=True, local_files_only=True).eval()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True, local_files_only=True)
    differences, ours = Differences(), {case.name: expected(encoder, case) for case in cases}
    for how, some in in_batches(cases, AT_ONCE):
        theirs = outputs_of(model, processor, some, encoder.config, head.name if head else None)
        for b, case in enumerate(some):
            wanted = {name: x for name, x in ours[case.name].items() if name in theirs}
            differences.add(f"{case.name}, {how}", wanted, {name: x[b] for name, x in theirs.items()})
    return differences


def outputs_of(
    model: Any, processor: Any, cases: Sequence[Case], config: ModelConfig, task: str | None
) -> Mapping[str, np.ndarray]:
    """By the names of `expected`, of a batch."""
    import torch

    audio, video = [case.audio for case in cases], [case.video for case in cases]
    given = {"audio": audio if any(x is not None for x in audio) else None,
             "videos": video if any(x is not None for x in video) else None}  # fmt: skip
    inputs = processor(**given, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        encoded = (model.av_encoder if task else model)(**inputs, output_hidden_states=True)
        values = {"fused": encoded.extract_features, "output": encoded.last_hidden_state}
        values |= {f"layer {k}": x for k, x in enumerate(encoded.hidden_states)}
        if task:
            values[f"head {task}"] = model(**inputs).logits
    return {name: x.numpy() for name, x in values.items()}
