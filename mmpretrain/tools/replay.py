"""`mmpretrain replay RUN`: one step of a run again, alone and looked into: what each layer computed, of which clips.

The run stays as it is; only `replays/` beside its stages gets a file.
"""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.starting import training_of
from mmpretrain.files import write_json
from mmpretrain.observe.metric_log import read_metrics
from mmpretrain.observe.progress import is_main_process, log, track
from mmpretrain.parallel.mesh import replicated, shard_batch
from mmpretrain.parallel.processes import on_main
from mmpretrain.records import Batch
from mmpretrain.report.tables import text_table
from mmpretrain.run.command import RUN, Command, Option
from mmpretrain.run.layout import (
    CHECKPOINTS,
    CONFIG_FILE,
    METRICS_FILE,
    PRETRAINED,
    SCRATCH,
    recipe_of_run,
    saved_steps,
    training_stages,
)
from mmpretrain.run.run import Run
from mmpretrain.run.stage import changes_since
from mmpretrain.train.checkpoint import read
from mmpretrain.train.guard import GOOD
from mmpretrain.train.loop import TRAIN_PREFIX
from mmpretrain.train.step import Trainer, TrainState
from mmpretrain.train.training import Training

CLIPS_TO_SHOW = 12
LAST_LAYER = "last_layer_max"  # of a clip, beside the least and greatest number of each input
# In the order in which a step goes through them; what is not named comes last.
ORDER = (
    "encoder.frontends.audio", "encoder.frontends.video.resnet.stem", "encoder.frontends.video.resnet.blocks",
    "encoder.frontends.video.proj", "encoder.frontends", "encoder.fusion.norm", "encoder.fusion.proj", "mask_embedding",
    "encoder.transformer.position", "encoder.transformer.layers", "encoder.transformer.norm", "head.proj", "head",
)  # fmt: skip


def replay(run: Run, step: int, stage: str | None) -> dict[str, Any]:
    """Runs step `step` (from 1) of a training stage alone, prints what was seen and writes it as JSON.

    It starts from the newest checkpoint before that step and goes forward to it, without updating anything on disk.
    stage: such as "round2/pretrain"; None: the last that has checkpoints. Raises ValueError for a step or stage that
    there is not, and where the stage was made with another recipe than the run's last command had.
    """
    stage = stage or _last_stage(run)
    training = _training(run, stage)
    if not 1 <= step <= training.num_steps:
        raise ValueError(f"--step={step}: {stage} has the steps 1 to {training.num_steps}")
    state, batch = _before(run, stage, training, step)
    report = {"stage": stage, "step": step} | _look(training, state, batch, step)
    report["logged"] = on_main(lambda: _logged(run, stage, step))
    file = run.workdir / "replays" / f"{stage.replace('/', '-')}-step{step}.json"
    on_main(lambda: write_json(file, _plain(report)))
    if is_main_process():
        print(render(report))
    log(f"{file} has all of it")
    return report


def _last_stage(run: Run) -> str:
    stages = [name for name in training_stages(run.config) if saved_steps(run.workdir / name / CHECKPOINTS)]
    if not stages:
        raise ValueError(f"{run.workdir}: no stage has a checkpoint; name one, e.g. --stage=round1/pretrain")
    return stages[-1]


def _training(run: Run, stage: str) -> Training:
    if (pretraining := re.fullmatch(r"round(\d+)/pretrain", stage)) and 1 <= int(pretraining[1]) <= len(
        run.config.rounds
    ):
        round_ = run.round(int(pretraining[1]))
        _check_made_with(run, stage, round_.pretrain_recipe())
        return round_.training()
    if stage not in (known := training_stages(run.config)):
        raise ValueError(f"--stage={stage}: this run trains in {', '.join(known)}")
    variant, fold = re.fullmatch(rf"finetune/({PRETRAINED}|{SCRATCH})/fold(\d+)", stage).groups()
    finetuning = Finetuning(run)
    _check_made_with(run, stage, finetuning.recipe(variant) | finetuning.reads(int(fold)))
    return training_of(finetuning, variant, int(fold))


def _check_made_with(run: Run, stage: str, recipe: dict[str, Any]) -> None:
    """Raises ValueError if the stage was made with another recipe than the last command of the run had."""
    if changes := on_main(lambda: changes_since(run.workdir, stage, recipe)):
        raise ValueError(
            f"{run.workdir / CONFIG_FILE} is what the last command of this run was given, and {stage} was made with "
            f"another recipe ({changes}): its steps would be others; give the command that made {stage} again, which "
            "does nothing more where it is finished, and then replay"
        )


def _before(run: Run, stage: str, training: Training, step: int) -> tuple[TrainState, Batch]:
    """The state before a step and its batch, both on the devices."""
    trainer, folder = training.trainer, run.workdir / stage / CHECKPOINTS
    state = trainer.init(training.seed)
    if earlier := [saved for saved in saved_steps(folder) if saved < step]:
        state = read(folder, earlier[-1], state)
    else:
        state = training.initialize(state)
    first = int(state.step)
    log(f"{stage}: from {f'checkpoint {first}' if earlier else 'the start'} to step {step}")
    batches = training.batches(first)
    for _ in track(range(first + 1, step), "steps before it", unit="step"):
        state, _ = trainer.step(state, shard_batch(next(batches), trainer.mesh))
    if (reached := int(state.step)) < step - 1:
        raise ValueError(
            f"--step={step}: step {reached + 1} is bad and stops the run before that; replay --step={reached + 1}, or "
            f"let the run pass over it (health.skip_bad_steps)"
        )
    return state, shard_batch(next(batches), trainer.mesh)


def _look(training: Training, state: TrainState, batch: Batch, step: int) -> dict[str, Any]:
    """Does the step that comes after `state` and returns all that is seen of it. `state` cannot be used afterwards."""
    trainer = training.trainer
    phase = trainer.trainable.phase_of(int(state.step))
    seen = jax.jit(lambda state, batch: _forward(trainer, state, batch, phase), out_shardings=replicated(trainer.mesh))
    norms = jax.jit(_by_layer, out_shardings=replicated(trainer.mesh))
    activations, clips = jax.device_get(seen(state, batch))
    parameters, gradients = jax.device_get((norms(state.params), norms(trainer.gradient(phase)(state, batch))))
    usual = float(state.guard.usual_loss)
    _, metrics = trainer.step(state, batch)  # the very program that the run has
    metrics = {name: value.item() for name, value in jax.device_get(metrics).items()}
    names = sorted(parameters, key=_order)
    layers = [
        {"layer": name, "parameters": parameters.get(name), "activations": activations.get(name),
         "gradients": gradients.get(name)} for name in names
    ]  # fmt: skip
    ids = training.batches.clip_ids(step)
    entries = [{"clip": ids[row]} | {name: of_clips[row] for name, of_clips in clips.items()}
               for row in range(len(ids))]  # fmt: skip
    verdict = metrics.pop("verdict")
    return {
        "bad": verdict != GOOD, "metrics": metrics, "usual_loss": usual, "layers": layers, "clips": entries,
        "first_not_finite": _first_not_finite(entries, layers, metrics["loss"]),
    }  # fmt: skip


def _forward(trainer: Trainer, state: TrainState, batch: Batch, phase: int) -> tuple[dict, dict]:
    """Figures of every layer's output, and of every clip, [B] each."""
    model = trainer.model(state)
    model.encoder.transformer.inspected = True
    inspect = functools.partial(trainer.inspect, state=state, batch=batch, phase=phase)
    _, captured = nnx.capture(inspect, nnx.Intermediate, method_outputs=nnx.Intermediate)(model)
    outputs: dict[str, list[jax.Array]] = {}
    for path, variable in nnx.to_flat_state(captured):
        *module, method = map(str, path)
        arrays = jax.tree.leaves(variable.get_value())
        if method == "layers":
            stream_LBTD = arrays[-1]
            outputs |= {f"{'.'.join(module)}.layers.{i}": [x] for i, x in enumerate(stream_LBTD, start=1)}
        elif method == "__call__" and _layer((*module, "")) == ".".join(module):
            outputs[".".join(module)] = arrays
    activations = {
        name: {
            "rms": jnp.sqrt(sum(jnp.square(x.astype(jnp.float32)).sum() for x in arrays) / sum(x.size for x in arrays)),
            "max": jnp.stack([jnp.abs(x).max() for x in arrays]).max(), "not_finite": sum(map(_not_finite, arrays)),
        } for name, arrays in outputs.items()
    }  # fmt: skip
    clips = {"frames": batch.valid_BT.sum(1)}
    for name, x in batch.inputs.items():
        x = x.reshape(len(x), -1)
        finite = jnp.isfinite(x).all(1)  # min and max may pass over NaN
        clips |= {
            f"{name}_min": jnp.where(finite, x.min(1), jnp.nan),
            f"{name}_max": jnp.where(finite, x.max(1), jnp.nan),
        }
    clips[LAST_LAYER] = jnp.abs(stream_LBTD[-1]).max((1, 2))
    return activations, clips


def _by_layer(params: nnx.State) -> dict[str, dict[str, jax.Array]]:
    """The L2 norm of the parameters (or their gradients) of each layer, and how many are not finite."""
    parts = defaultdict(list)
    for path, leaf in nnx.to_flat_state(params):
        path, x = tuple(map(str, path)), leaf[...]
        if path[:3] == ("encoder", "transformer", "layers"):  # a stack
            for i in range(len(x)):
                parts[f"encoder.transformer.layers.{i + 1}"].append(x[i])
        else:
            parts[_layer(path)].append(x)
    return {
        name: {"norm": jnp.sqrt(sum(jnp.square(x).sum() for x in xs)), "not_finite": sum(map(_not_finite, xs))}
        for name, xs in parts.items()
    }


def _layer(path: tuple[str, ...]) -> str:
    """The name of the layer that holds a parameter, e.g. a block of the ResNet or a norm."""
    depth = 6 if path[:2] == ("encoder", "frontends") else 4
    return ".".join(path[:-1][:depth]) or path[0]


def _order(name: str) -> tuple[int, list]:
    place = next((i for i, prefix in enumerate(ORDER) if name.startswith(prefix)), len(ORDER))
    return place, [int(part) if part.isdigit() else 0 for part in name.split(".")]


def _not_finite(x: jax.Array) -> jax.Array:
    return (~jnp.isfinite(x)).sum()


def _first_not_finite(clips: list[dict], layers: list[dict], loss: float) -> str:
    """The first place, in the order of computation, where a number is not finite; "" if there is none."""
    for clip in clips:
        for name, value in clip.items():
            if name.endswith(("_min", "_max")) and name != LAST_LAYER and not np.isfinite(value):
                return f"input: {name[:-4]} of clip {clip['clip']}"
    for kind, entries in (("parameters", layers), ("activations", layers), ("gradients", layers[::-1])):
        if kind == "gradients" and not math.isfinite(loss):
            return "loss"
        for entry in entries:
            if entry[kind] and entry[kind]["not_finite"]:
                return f"{kind} of {entry['layer']}"
    return ""


def _logged(run: Run, stage: str, step: int) -> dict[str, float | None] | None:
    """What the run itself wrote of the step, if it did."""
    for record in read_metrics(run.workdir / METRICS_FILE):
        if (record["stage"], record["step"]) == (stage, step) and TRAIN_PREFIX + "loss" in record:
            return {name: record[TRAIN_PREFIX + name] for name in ("loss", "grad_norm")}
    return None


def render(report: dict[str, Any]) -> str:
    """The report as text."""
    metrics, logged = report["metrics"], report["logged"]
    lines = [f"Step {report['step']} of {report['stage']}: {'BAD' if report['bad'] else 'good'}"]
    lines.append(text_table((["metric", "value"], [[name, _number(value)] for name, value in metrics.items()])))
    if logged is not None:
        same = all(value is None or value == metrics[name] for name, value in logged.items())
        shown = ", ".join(f"{name} {_number(value)}" for name, value in logged.items())
        lines.append("  the run logged the same loss and gradient norm" if same else f"  the run logged {shown}")
    lines.append(f"  mean loss of the good steps before: {_number(report['usual_loss'])}")
    rows = []
    for entry in report["layers"]:
        kinds = [entry[kind] or {} for kind in ("parameters", "activations", "gradients")]
        figures = [kinds[0].get("norm"), kinds[1].get("rms"), kinds[1].get("max"), kinds[2].get("norm")]
        bad = sum(int(kind.get("not_finite", 0)) for kind in kinds)
        rows.append([entry["layer"], *map(_number, figures), str(bad)])
    columns = ["layer", "parameters, norm", "output, rms", "output, max", "gradient, norm", "not finite"]
    lines += ["", "Layers, in the order of the step; gradients of the mean loss, not clipped"]
    lines.append(text_table((columns, rows)))
    lines.append(f"  the first that is not finite: {report['first_not_finite'] or 'none, all numbers are finite'}")
    clips = sorted(report["clips"], key=lambda clip: -np.nan_to_num(clip[LAST_LAYER], nan=np.inf))
    names = [name for name in clips[0] if name != "clip"]
    rows = [[clip["clip"], *(_number(clip[name]) for name in names)] for clip in clips[:CLIPS_TO_SHOW]]
    more = f", {CLIPS_TO_SHOW} of {len(clips)}" if len(clips) > CLIPS_TO_SHOW else ""
    lines += ["", f"Clips, by the largest number of the last layer{more}"]
    lines.append(text_table((["clip", *(name.replace("_", " ") for name in names)], rows)))
    return "\n".join(lines)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int | np.integer) else f"{float(value):.5g}"


def _plain(value: Any) -> Any:
    """For JSON, which cannot express infinity and NaN: they become text."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.ndarray | np.generic) else value
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


COMMAND = Command(
    "replay",
    "one step of a training stage again, alone: its clips, and norms by layer",
    lambda given: replay(Run(given.config), given["step"], given["stage"]),
    takes=RUN,
    recipe_at=recipe_of_run,
    options=(
        Option("step", int, "the step, from 1", "S", required=True, lower=1),
        Option("stage", str, "the stage, by default the last that has checkpoints", "round2/pretrain"),
    ),
    examples=("mmpretrain replay runs/mine --step=437 --stage=round2/pretrain",),
)
