"""Writes the ONNX graphs of an encoder, runs them in onnxruntime, and compares.

The graphs are of the PyTorch network (`export.transformers`), hence take what its processor makes. Those with INT8
weights hold the matrices of the transformer and of the heads as 8-bit integers, scaled per output, and quantise
activations as they come (dynamic quantisation); convolutions stay in float32.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.config import TaskConfig
from mmpretrain.encoders.card import model_card
from mmpretrain.encoders.encoder import Encoder, load_encoder
from mmpretrain.encoders.figures import read_figures
from mmpretrain.encoders.folder import read_training_data
from mmpretrain.export import check_installed
from mmpretrain.export.parity import Case, Differences, cases_of, expected, in_batches
from mmpretrain.export.transformers.write import (
    AT_ONCE,
    about_heads,
    as_ours,
    check_heads,
    classifier_of,
    network_config,
    places_of,
    processing_configs,
    tensors_of,
)
from mmpretrain.files import seal, whole_folder, write_json, write_text
from mmpretrain.models.task_heads import HEADS
from mmpretrain.records import Clip

OPSET = 18  # what runtimes of the last years read
FLOAT_FILE, INT8_FILE = "encoder.onnx", "encoder.int8.onnx"
MAX_SINGLE_FILE_BYTES = 1_800_000_000  # a graph is one protobuf message, of 2 GB at most
EXAMPLE = """import onnxruntime

session = onnxruntime.InferenceSession("{file}")
(features,) = session.run(["last_hidden_state"], inputs)   # {inputs}"""
OF_ONE_CLASS = ("class", "votes", "binary", "ordinal", "frames")  # of whose classes a clip or a frame has one
# The two inputs of each modality: what it is, and where there is any.
INPUTS = {
    "audio": ("input_values", "attention_mask"), "video": ("pixel_values_videos", "padding_mask_videos"),
}  # fmt: skip


def write_folder(source: Path, target: Path, clips: Sequence[Clip]) -> Iterable[str]:
    """Writes the graphs of the encoder of the folder `source`. Returns what to tell the user.

    Raises ValueError where a package is missing, the format cannot hold the encoder, or onnxruntime says something else
    of these clips. Then there is no `target`.
    """
    check_installed("onnx", "torch", "transformers", "onnx", "onnxscript", "onnxruntime")
    encoder = load_encoder(source, dtype="float32")
    check_heads(encoder)
    cases = cases_of(clips, encoder.config)
    with whole_folder(target) as draft:
        write_graph(encoder, draft / FLOAT_FILE)
        quantize(draft / FLOAT_FILE, draft / INT8_FILE)
        float_outputs = dict(run(encoder, draft / FLOAT_FILE, cases))
        differences = compare(encoder, cases, float_outputs)
        lines = differences.lines()
        loss = int8_loss(encoder, float_outputs, dict(run(encoder, draft / INT8_FILE, cases)))
        sizes = {name: (draft / name).stat().st_size for name in (FLOAT_FILE, INT8_FILE)}
        settings = network_config(encoder) | {"opset": OPSET, "int8": loss | {"bytes": sizes[INT8_FILE]}}
        del settings["auto_map"], settings["architectures"]
        write_json(draft / "config.json", settings)
        for name, given in processing_configs(encoder.config).items():
            write_json(draft / name, given)
        seal(draft)
        more = {"ONNX opset": OPSET, "largest difference from the JAX encoder": f"{differences.largest:.2g}",
                **{f"INT8, {name.replace('_', ' ')}": f"{value:.4g}" for name, value in loss.items()}}  # fmt: skip
        text = model_card(
            encoder.config, encoder.lineage, read_training_data(source), encoder.tasks, library="onnx", more=more,
            figures=read_figures(source),
            weights=FLOAT_FILE, example=EXAMPLE.format(file=FLOAT_FILE, inputs=", ".join(input_names(encoder))),
        )  # fmt: skip
        write_text(draft / "README.md", text)
    int8 = (
        f"INT8: {sizes[INT8_FILE]:_} bytes instead of {sizes[FLOAT_FILE]:_}, output off by {loss['relative_rms']:.1%}"
    )
    if "same_class" in loss:
        int8 += f", the same class on {loss['same_class']:.0%}"
    return [f"opset {OPSET}; {lines[0]}", f"{int8} of {len(cases)} inputs", *about_heads(encoder)]


def write_graph(encoder: Encoder, file: Path) -> None:
    """The graph in float32. Inputs have any number of clips and frames; outputs are those of `output_names`."""
    import torch

    from mmpretrain.export.transformers import modeling_mmpretrain as network

    of_others = ("auto_map", "lineage", "preprocessing")
    given = {name: value for name, value in network_config(encoder).items() if name not in of_others}
    config = network.MMPretrainConfig(**given)
    kind = network.MMPretrainForAudioClassification if encoder.tasks else network.MMPretrainModel
    model = kind(config).eval()
    model.load_state_dict({name: torch.tensor(array) for name, array in tensors_of(encoder).items()})

    class Graph(torch.nn.Module):
        """The network with inputs by position and outputs in the order of `output_names`."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            named = dict(zip(input_names(encoder), inputs, strict=True))
            body = self.model.av_encoder if encoder.tasks else self.model
            encoded = body(**named, output_hidden_states=True, return_dict=True)
            made = (encoded.last_hidden_state, encoded.extract_features, *encoded.hidden_states)
            heads = (self.model.get_submodule(place) for _, place in places_of(encoder))
            return made + tuple(head(encoded.hidden_states, encoded.frame_mask) for head in heads)

    batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
    size = encoder.config.inputs.image_size
    shapes = {"input_values": (2, 9, 104), "pixel_values_videos": (2, 9, 1, size, size)}
    names = input_names(encoder)
    example = tuple(
        torch.rand(shapes[name]) if name in shapes else torch.ones(2, 9, dtype=torch.int64) for name in names
    )
    large = sum(tensor.numel() * 4 for tensor in model.parameters()) > MAX_SINGLE_FILE_BYTES
    for name in ("onnxscript", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        torch.onnx.export(
            Graph().eval(), example, file, input_names=names, output_names=output_names(encoder), opset_version=OPSET,
            dynamo=True, dynamic_shapes=(tuple({0: batch, 1: time} for _ in names),), external_data=large,
            verbose=False,
        )  # fmt: skip


def input_names(encoder: Encoder) -> list[str]:
    """The inputs of the graph. A modality that all clips of a batch lack is given as zeros, with a mask of zeros."""
    return [name for modality in encoder.config.modalities for name in INPUTS[modality]]


def output_names(encoder: Encoder) -> list[str]:
    """last_hidden_state, the fused modalities, what layer 1 is given and what each layer makes of it, and the heads:
    `logits` of the one that `export.transformers` makes the classifier, `heads.TASK` of others."""
    layers = [f"hidden_states.{k}" for k in range(encoder.config.num_layers + 1)]
    return [
        "last_hidden_state",
        "extract_features",
        *layers,
        *map(functools.partial(head_output, encoder), encoder.tasks),
    ]


def head_output(encoder: Encoder, task: TaskConfig) -> str:
    return "logits" if task is classifier_of(encoder) else f"heads.{task.name}"


def quantize(source: Path, target: Path) -> None:
    """The same graph with matrices of 8 bits."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it warns that graphs should be preprocessed, with no effect on these
    quantize_dynamic(
        source, target, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8,
    )  # fmt: skip


def run(
    encoder: Encoder, file: Path, cases: Sequence[Case]
) -> Iterator[tuple[str, tuple[Sequence[Case], dict[str, np.ndarray]]]]:
    """What onnxruntime makes of each case alone and of all in padded batches, by the names of `expected`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = ["output", "fused", *[f"layer {k}" for k in range(encoder.config.num_layers + 1)]]
    names += [f"head {task.name}" for task in encoder.tasks]
    read = {f"head {task.name}": functools.partial(as_ours, task) for task in encoder.tasks}
    for number, (how, some) in enumerate(in_batches(cases, AT_ONCE)):
        values = session.run(output_names(encoder), graph_inputs(encoder, some))
        found = {name: read.get(name, np.asarray)(x) for name, x in zip(names, values, strict=True)}
        yield f"{how}, {number}", (some, found)


def graph_inputs(encoder: Encoder, cases: Sequence[Case]) -> dict[str, np.ndarray]:
    """Of these cases, as the processor of `export.transformers` makes them."""
    from mmpretrain.export.transformers.processing_mmpretrain import MMPretrainFeatureExtractor, MMPretrainProcessor

    inputs = encoder.config.inputs
    extractor = MMPretrainFeatureExtractor(normalization=inputs.audio_normalization)
    processor = MMPretrainProcessor(extractor, inputs.image_size, inputs.pixel_mean, inputs.pixel_std, inputs.view)
    given: dict[str, Any] = {}
    if "audio" in encoder.config.modalities:
        given["audio"] = [case.audio for case in cases]
    if "video" in encoder.config.modalities:
        given["videos"] = [case.video for case in cases]
    made = {name: np.asarray(x) for name, x in processor(**given).items()}
    frames = max(x.shape[1] for x in made.values())
    return {name: np.pad(x, [(0, 0), (0, frames - x.shape[1])] + [(0, 0)] * (x.ndim - 2)) for name, x in made.items()}


def compare(
    encoder: Encoder, cases: Sequence[Case], found: dict[str, tuple[Sequence[Case], dict[str, np.ndarray]]]
) -> Differences:
    """What `run` found against what ours says."""
    differences, ours = Differences(), {case.name: expected(encoder, case) for case in cases}
    for how, (some, values) in found.items():
        for b, case in enumerate(some):
            wanted = {name: x for name, x in ours[case.name].items() if name in values}
            differences.add(f"{case.name}, {how}", wanted, {name: x[b] for name, x in values.items()})
    return differences


def int8_loss(
    encoder: Encoder,
    exact: dict[str, tuple[Sequence[Case], dict[str, np.ndarray]]],
    rounded: dict[str, tuple[Sequence[Case], dict[str, np.ndarray]]],
) -> dict[str, float]:
    """How far INT8 is off, of the clips alone: `relative_rms`, root mean square of the output's error by that of the
    output; `same_class`, how often heads of classes that exclude one another say the same; TASK_off, the mean error of
    what others say."""
    errors, sizes, same, off = [], [], [], {}
    for how, (some, values) in exact.items():
        if len(some) > 1:
            continue
        other = rounded[how][1]
        errors.append(np.square(other["output"] - values["output"]).mean())
        sizes.append(np.square(values["output"]).mean())
        for task in encoder.tasks:
            one, two = (np.asarray(HEADS[task.kind].says(x[f"head {task.name}"], task)) for x in (values, other))
            if task.kind in OF_ONE_CLASS:
                same.append(float((one.argmax(-1) == two.argmax(-1)).mean()))
            else:
                off.setdefault(f"{task.name}_off", []).append(float(np.abs(one - two).mean()))
    loss = {"relative_rms": float(np.sqrt(np.mean(errors) / np.mean(sizes)))}
    loss |= {"same_class": float(np.mean(same))} if same else {}
    return loss | {name: float(np.mean(each)) for name, each in off.items()}
