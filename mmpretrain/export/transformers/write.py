"""Writes the folder for `transformers`, loads it back as its users do, and compares."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from mmpretrain.config import ModelConfig, TaskConfig
from mmpretrain.encoders.card import model_card
from mmpretrain.encoders.encoder import Encoder, load_encoder
from mmpretrain.encoders.figures import read_figures
from mmpretrain.encoders.folder import read_training_data
from mmpretrain.encoders.preprocessing import preprocessing
from mmpretrain.encoders.weights import WEIGHTS_FILE
from mmpretrain.encoders.weights import tensors_of as head_tensors
from mmpretrain.export import check_installed
from mmpretrain.export.avhubert.names import EncoderOnly, to_state_dict
from mmpretrain.export.parity import Case, Differences, cases_of, expected, in_batches
from mmpretrain.files import seal, whole_folder, write_json, write_text
from mmpretrain.models.heads import StatisticsHead
from mmpretrain.models.task_heads import APART
from mmpretrain.records import Clip

MODELING, HEADS, PROCESSING = "modeling_mmpretrain", "heads_mmpretrain", "processing_mmpretrain"
CLASSIFIER, ENCODER = "MMPretrainForAudioClassification", "MMPretrainModel"
PREFIX = "av_encoder."  # before the encoder's tensors where there is a head
AT_ONCE = 8  # clips in a padded batch
# Kinds of labels whose heads are such as transformers knows, and what it calls their problem.
PROBLEMS = dict.fromkeys(("class", "votes", "binary", "ordinal"), "single_label_classification") | {
    "classes": "multi_label_classification", "value": "regression",
}  # fmt: skip
EXAMPLE = """from transformers import {kind}, AutoProcessor

model = {kind}.from_pretrained("THIS FOLDER", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("THIS FOLDER", trust_remote_code=True)
outputs = model(**processor({given}, return_tensors="pt"), output_hidden_states=True)"""


def write_folder(source: Path, target: Path, clips: Sequence[Clip]) -> Iterable[str]:
    """Writes the encoder of the folder `source`, with its heads if it has any. Returns what to tell the user.

    Raises ValueError where torch is missing, the format cannot hold the encoder, or what was written, loaded back, says
    something else of these clips. Then there is no `target`.
    """
    check_installed("torch", "torch", "transformers")
    encoder = load_encoder(source, dtype="float32")
    check_heads(encoder)
    cases = cases_of(clips, encoder.config)
    with whole_folder(target) as draft:
        write_json(draft / "config.json", network_config(encoder))
        save_file(tensors_of(encoder), draft / WEIGHTS_FILE, metadata={"format": "pt"})
        for name, settings in processing_configs(encoder.config).items():
            write_json(draft / name, settings)
        for module in (MODELING, HEADS, PROCESSING):
            shutil.copyfile(Path(__file__).with_name(f"{module}.py"), draft / f"{module}.py")
        differences = compare(encoder, draft, cases)
        lines = differences.lines()
        seal(draft)
        write_text(draft / "README.md", card(source, encoder, differences))
    return [*lines, *about_heads(encoder)]


def check_heads(encoder: Encoder) -> None:
    """Raises ValueError for heads that hear what PyTorch's network does not make."""
    if encoder.tasks and encoder.form in APART:
        raise ValueError(
            f"the heads of this encoder hear each modality by itself (finetune.fusion={encoder.form!r}), which this "
            "format does not hold; --format=folder and --format=stablehlo do"
        )


def classifier_of(encoder: Encoder) -> TaskConfig | None:
    """The first task whose head is one as transformers knows them: its outputs are `logits`."""
    return next((task for task in encoder.tasks if task.kind in PROBLEMS), None)


def places_of(encoder: Encoder) -> Iterator[tuple[TaskConfig, str]]:
    """Each task, and the name of its head in the PyTorch module."""
    first = classifier_of(encoder)
    others = sorted(task.name for task in encoder.tasks if task is not first)
    for task in encoder.tasks:
        yield task, "classifier" if task is first else f"heads.{others.index(task.name)}"


def about_heads(encoder: Encoder) -> list[str]:
    """For the user: where the outputs of each head are."""
    first = classifier_of(encoder)
    others = [task.name for task in encoder.tasks if task is not first]
    told = [f"`logits` are of {first.name}"] if first is not None else []
    told += [f"`heads` have {', '.join(others)}"] if others else []
    return ["; ".join(told)] if told else []


def card(source: Path, encoder: Encoder, differences: Differences) -> str:
    """The README.md of the folder."""
    kind = "AutoModelForAudioClassification" if encoder.tasks else "AutoModel"
    given = ", ".join({"audio": "audio=samples", "video": "videos=crops"}[name] for name in encoder.config.modalities)
    more = {"largest difference from the JAX encoder": f"{differences.largest:.2g} over {differences.compared} inputs"}
    return model_card(
        encoder.config, encoder.lineage, read_training_data(source), encoder.tasks, library="transformers", more=more,
            figures=read_figures(source),
        example=EXAMPLE.format(kind=kind, given=given),
    )  # fmt: skip


def network_config(encoder: Encoder) -> dict[str, Any]:
    """`config.json`: what the network is, which class reads it, and how it came about."""
    config, first = encoder.config, classifier_of(encoder)
    described = {
        task.name: describe(task, encoder.heads[task.name])
        | ({} if task is first else {"outputs": outputs_of_head(task)})
        for task in encoder.tasks
    }
    labels = {"heads": described, "classifier": first is not None} if described else {}
    if first is not None:
        names = first.classes or (first.name,)
        labels |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)},
                   "task": first.name, "pooling": described[first.name]["pooling"],
                   "ordinal": first.kind == "ordinal",
                   "problem_type": PROBLEMS[first.kind]}  # fmt: skip
    return {
        "model_type": "mmpretrain", "architectures": [CLASSIFIER if encoder.tasks else ENCODER], "dtype": "float32",
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


def describe(task: TaskConfig, head: nnx.Module) -> dict[str, Any]:
    """What a reader of the outputs of a head must know."""
    range_ = {"range": list(task.range)} if task.kind in ("value", "values") else {}
    pooling = "all_layers" if isinstance(head, StatisticsHead) else task.pooling
    return {"kind": task.kind, "classes": list(task.classes), "pooling": pooling} | range_


def outputs_of_head(task: TaskConfig) -> int:
    """How many numbers a head puts out in this format: of a class each, with classes; see `head_tensors_of`."""
    return task.embedding_dim if task.kind == "embedding" else len(task.classes) or 1


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
    """By the names of the PyTorch module, every tensor of the encoder and of its heads."""
    arrays = to_state_dict(EncoderOnly(encoder.module))
    arrays |= {name.replace("running_var", "num_batches_tracked"): np.zeros([], np.int64)
               for name in arrays if name.endswith(".running_var")}  # fmt: skip
    arrays = {name.replace("pos_conv.0.weight_", "pos_conv.").replace("pos_conv.0.", "pos_conv."): array
              for name, array in arrays.items()}  # fmt: skip
    if encoder.tasks:
        arrays = {PREFIX + name: array for name, array in arrays.items()}
    for task, place in places_of(encoder):
        for name, array in head_tensors_of(task, encoder.heads[task.name]).items():
            arrays[f"{place}.{name.replace('.kernel', '.weight')}"] = np.ascontiguousarray(array)
    return arrays


def head_tensors_of(task: TaskConfig, head: nnx.Module) -> dict[str, np.ndarray]:
    """The tensors of a head, matrices as PyTorch has them.

    Its last layer puts out what people of transformers expect: of two classes a logit each, the first one's 0, and
    numbers on the scale of their labels.
    """
    arrays = {name: array.T if name.endswith(".kernel") else array for name, array in head_tensors(head).items()}
    for name in ("out.kernel", "out.bias") if task.kind in ("binary", "value", "values") else ():
        low, high = task.range
        if task.kind == "binary":
            arrays[name] = np.concatenate([np.zeros_like(arrays[name]), arrays[name]])
        else:
            arrays[name] = arrays[name] * np.float32((high - low) / 2)
            arrays[name] += np.float32((low + high) / 2) * (name == "out.bias")
    return arrays


def as_ours(task: TaskConfig, said: np.ndarray) -> np.ndarray:
    """What the head of the encoder itself puts out, of what the written one does."""
    if task.kind == "binary":
        return said[..., 1:] - said[..., :1]
    if task.kind == "ordinal":  # the odds of each level but the lowest
        sums = [np.logaddexp.reduce(part, -1) for k in range(1, len(task.classes))
                for part in (said[..., k:], said[..., :k])]  # fmt: skip
        return np.stack([above - below for above, below in zip(sums[::2], sums[1::2], strict=True)], -1)
    low, high = task.range
    return (2 * said - low - high) / (high - low) if task.kind in ("value", "values") else said


def compare(encoder: Encoder, folder: Path, cases: Sequence[Case]) -> Differences:
    """Against what `transformers` makes of the folder: each clip alone, and all padded in batches."""
    from transformers import AutoModel, AutoModelForAudioClassification, AutoProcessor
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    kind = AutoModelForAudioClassification if encoder.tasks else AutoModel
    model = kind.from_pretrained(folder, trust_remote_code=True, local_files_only=True).eval()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True, local_files_only=True)
    differences, ours = Differences(), {case.name: expected(encoder, case) for case in cases}
    for how, some in in_batches(cases, AT_ONCE):
        theirs = outputs_of(model, processor, some, encoder)
        for b, case in enumerate(some):
            wanted = {name: x for name, x in ours[case.name].items() if name in theirs}
            differences.add(f"{case.name}, {how}", wanted, {name: x[b] for name, x in theirs.items()})
    return differences


def outputs_of(model: Any, processor: Any, cases: Sequence[Case], encoder: Encoder) -> Mapping[str, np.ndarray]:
    """By the names of `expected`, of a batch."""
    import torch

    audio, video = [case.audio for case in cases], [case.video for case in cases]
    given = {"audio": audio if any(x is not None for x in audio) else None,
             "videos": video if any(x is not None for x in video) else None}  # fmt: skip
    inputs = processor(**given, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        encoded = (model.av_encoder if encoder.tasks else model)(**inputs, output_hidden_states=True)
        values = {"fused": encoded.extract_features, "output": encoded.last_hidden_state}
        values |= {f"layer {k}": x for k, x in enumerate(encoded.hidden_states)}
        said = model(**inputs) if encoder.tasks else None
    arrays, first = {name: x.numpy() for name, x in values.items()}, classifier_of(encoder)
    for task in encoder.tasks:
        x = said.logits if task is first else said.heads[task.name]
        arrays[f"head {task.name}"] = as_ours(task, x.numpy())
    return arrays
