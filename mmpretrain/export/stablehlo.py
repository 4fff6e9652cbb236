"""Encoders as StableHLO by `jax.export`, for CPUs, NVIDIA GPUs and TPUs, to be run by JAX without this package.

    exported = jax.export.deserialize(bytearray(open("encoder.stablehlo", "rb").read()))
    weights = safetensors.numpy.load_file("model.safetensors")
    outputs = exported.call(weights, inputs, present, valid)

inputs: by modality, "audio" float32 [B, T, 104], rows of filterbanks, and "video" uint8 [B, T, S, S]; present: by
modality, bool [B], which clips have it; valid: bool [B, T], the frames that are real, the first of each clip. Outputs:
"output" and "fused" [B, T, D], "layers" [B, L + 1, T, D], and by task "logits", [B, N], of heads of frames [B, T, N],
and "answers", what these say: see `mmpretrain.encoders.encoder.Outputs`. B and T are free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export as jax_export
from safetensors.numpy import load_file, save_file

from mmpretrain.config import as_dict
from mmpretrain.data.batch import empty_batch, put_clip
from mmpretrain.encoders.card import model_card
from mmpretrain.encoders.encoder import Encoder, load_encoder
from mmpretrain.encoders.figures import read_figures
from mmpretrain.encoders.folder import read_training_data
from mmpretrain.encoders.preprocessing import preprocessing
from mmpretrain.encoders.weights import WEIGHTS, WEIGHTS_FILE
from mmpretrain.export import ExportFormat
from mmpretrain.export.parity import Case, Differences, cases_of, expected
from mmpretrain.files import seal, whole_folder, write_json, write_text
from mmpretrain.models.sharing import Undivided, share_out
from mmpretrain.models.task_heads import HEADS, ask_heads
from mmpretrain.records import SAMPLES_PER_FRAME, Batch, Clip

FILE = "encoder.stablehlo"
EXAMPLE = """exported = jax.export.deserialize(bytearray(open("encoder.stablehlo", "rb").read()))
weights = safetensors.numpy.load_file("model.safetensors")
outputs = exported.call(weights, inputs, present, valid)"""
PLATFORMS = ("cpu", "cuda", "tpu")
ALONE = 1  # cases that are run by themselves too: every length is compiled


class _Network(nnx.Module):
    def __init__(self, encoder: Encoder):
        self.encoder, self.heads = encoder.module, encoder.heads


def write_folder(source: Path, target: Path, clips: Sequence[Clip]) -> Iterable[str]:
    """Writes the encoder of the folder `source`, its weights beside it. Returns what to tell the user.

    Raises ValueError where what was written says something else of these clips. Then there is no `target`.
    """
    encoder = load_encoder(source, dtype="float32")
    cases = cases_of(clips, encoder.config)
    with whole_folder(target) as draft:
        exported, weights = exported_of(encoder)
        (draft / FILE).write_bytes(exported.serialize())
        save_file(weights, draft / WEIGHTS_FILE)
        config = {
            "platforms": PLATFORMS, "jax": jax.__version__, "calling_convention": exported.calling_convention_version,
            "model": as_dict(encoder.config), "tasks": [as_dict(task) for task in encoder.tasks],
            "lineage": encoder.lineage, "preprocessing": preprocessing(encoder.config, encoder.crop_size),
        }  # fmt: skip
        write_json(draft / "config.json", config)
        differences = compare(encoder, draft, cases)
        lines = differences.lines()
        seal(draft)
        more = {"StableHLO": f"for {', '.join(PLATFORMS)}, by JAX {jax.__version__}",
                "largest difference from the JAX encoder": f"{differences.largest:.2g}"}  # fmt: skip
        text = model_card(
            encoder.config, encoder.lineage, read_training_data(source), encoder.tasks, library="jax", more=more,
            figures=read_figures(source),
            example=EXAMPLE,
        )  # fmt: skip
        write_text(draft / "README.md", text)
    return [f"for {', '.join(PLATFORMS)}; compared on {jax.default_backend()}: {lines[0]}"]


def exported_of(encoder: Encoder) -> tuple[jax_export.Exported, dict[str, np.ndarray]]:
    """The function that this module's docstring describes, and the weights that it takes."""
    network, config = _Network(encoder), encoder.config
    share_out(network, Undivided(platform="cpu"))  # plain operations, which every platform has
    graphdef, state = nnx.split(network)
    places = nnx.to_flat_state(nnx.state(network, WEIGHTS))
    names = [".".join(map(str, path)) for path, _ in places]
    weights = {name: np.asarray(leaf.get_value()) for name, (_, leaf) in zip(names, places, strict=True)}
    tree = jax.tree.structure(state)
    if len(jax.tree.leaves(state)) != len(weights):
        raise ValueError("the encoder keeps something that is neither a parameter nor a batch statistic")

    def run(
        weights: Mapping[str, jax.Array],
        inputs: Mapping[str, jax.Array],
        present: Mapping[str, jax.Array],
        valid_BT: jax.Array,
    ) -> dict[str, Any]:
        merged = nnx.merge(graphdef, jax.tree.unflatten(tree, [weights[name] for name in names]), copy=True)
        body = merged.encoder
        prepared = body.prepare(inputs, valid_BT)
        x_BTD, _ = body.embed(prepared, valid_BT, present)
        layers_LBTD = body.all_layers(x_BTD, valid_BT)
        outputs = {"output": body.contextualize(x_BTD, valid_BT), "fused": x_BTD}
        logits = ask_heads(body, merged.heads, encoder.form, layers_LBTD, prepared, valid_BT, present)
        answers = {task.name: HEADS[task.kind].says(logits[task.name], task) for task in encoder.tasks}
        outputs |= {"layers": jnp.moveaxis(layers_LBTD, 0, 1), "logits": logits, "answers": answers}
        return outputs

    B, T = jax_export.symbolic_shape("b, t")
    like = empty_batch(1, 1, config)
    inputs = {name: jax.ShapeDtypeStruct((B, T, *x.shape[2:]), x.dtype) for name, x in like.inputs.items()}
    present = {name: jax.ShapeDtypeStruct((B,), bool) for name in like.present}
    valid = jax.ShapeDtypeStruct((B, T), bool)
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in weights.items()}
    return jax_export.export(jax.jit(run), platforms=PLATFORMS)(shapes, inputs, present, valid), weights


def compare(encoder: Encoder, folder: Path, cases: Sequence[Case]) -> Differences:
    """What the files of the folder say, read as anyone would, against what ours says."""
    exported = jax_export.deserialize(bytearray((folder / FILE).read_bytes()))
    weights, call, differences = load_file(folder / WEIGHTS_FILE), jax.jit(exported.call), Differences()
    for some in (*([case] for case in cases[:ALONE]), cases):
        batch = batch_of(encoder, some)
        outputs = jax.tree.map(np.asarray, call(weights, batch.inputs, batch.present, batch.valid_BT))
        for b, case in enumerate(some):
            theirs = {"output": outputs["output"][b], "fused": outputs["fused"][b]}
            theirs |= {f"layer {k}": x_TD for k, x_TD in enumerate(outputs["layers"][b])}
            theirs |= {f"head {task}": x_BC[b] for task, x_BC in outputs["logits"].items()}
            differences.add(f"{case.name}, {'alone' if len(some) == 1 else 'padded in a batch'}",
                            expected(encoder, case), theirs)  # fmt: skip
    return differences


def batch_of(encoder: Encoder, cases: Sequence[Case]) -> Batch:
    """These cases, padded to the longest."""
    lengths = [-(-len(case.audio) // SAMPLES_PER_FRAME) if case.video is None else len(case.video) for case in cases]
    batch = empty_batch(len(cases), max(lengths), encoder.config)
    for b, (case, length) in enumerate(zip(cases, lengths, strict=True)):
        crops = np.zeros((0, 1, 1), np.uint8) if case.video is None else case.video
        sound = np.zeros(0, np.int16) if case.audio is None else case.audio
        clip = Clip(clip_id=case.name, audio=sound, mouth=crops, face=crops, tracks={})
        given = {"audio": case.audio is not None, "video": case.video is not None}
        put_clip(
            batch, b, clip, range(length), [name for name in encoder.config.modalities if given[name]], encoder.config
        )
    return batch


FORMAT = ExportFormat("stablehlo", "", f"StableHLO by jax.export, for {', '.join(PLATFORMS)}", write_folder)
