"""Whether a recipe can work: every check says the field, its value and the remedy.

What one field may hold stands beside it (`tree`, `ranges`); here is what depends on several, and
in `task_checks` what depends on several of what learns from labels.
"""

from __future__ import annotations

from mmpretrain.config import REGRESSED, RELATIVE_FEATURES, DataConfig, ModelConfig, RoundConfig, RunConfig
from mmpretrain.config.ranges import check_choice, check_fields, require, shown
from mmpretrain.config.task_checks import (
    OF_VALUES,
    check_finetune,
    check_optimizer,
    check_read,
    check_retrieval,
    check_task,
    check_units,
    check_whole,
)


def check(config: RunConfig) -> None:
    """Raises ValueError naming the field, its value and the remedy if this recipe cannot work."""
    if not isinstance(config, RunConfig):
        raise ValueError(f"get_config() of the recipe returned {shown(config)}; it must be a RunConfig")
    if config.workdir == "":
        raise ValueError("workdir is empty; say where the run goes: --config.workdir=runs/NAME")
    sizes = [getattr(config.parallel, axis, 1) for axis in ("data", "fsdp", "tensor")]
    if sizes.count(-1) > 1 or any(isinstance(size, int) and size < 1 and size != -1 for size in sizes):
        raise ValueError(f"parallel={shown(sizes)}: sizes are positive, and at most one is -1 (all that is left)")
    check_fields(config)
    _check_model(config.model)
    _check_data(config.data)
    for number, round_ in enumerate(config.rounds, start=1):
        _check_round(round_, f"rounds[{number - 1}]", first=number == 1, model=config.model)
        if config.parallel.micro_batches > 1:
            parts = f"with parallel.micro_batches={config.parallel.micro_batches}"
            _check_own_inputs(round_, f"rounds[{number - 1}]", parts)
    if config.finetune is not None:
        check_whole(config.finetune.corpora, "finetune.corpora")
        check_finetune(config.finetune, config.model)
    if config.retrieval is not None:
        check_retrieval(config.retrieval)
    if config.units is not None:
        check_whole(config.units.corpora, "units.corpora")
        check_units(config.units)
    if config.label_efficiency.shares and config.finetune is not None:
        kind = config.finetune.tasks[0].kind
        wanted = f"one of {', '.join(REGRESSED)} with label_efficiency.shares"
        require(kind in REGRESSED, "finetune.tasks[0].kind", kind, wanted)
    if config.parallel.micro_batches > 1:
        for field, task in [
            *((f"rounds[{i}].tasks[{j}]", task) for i, r in enumerate(config.rounds) for j, task in enumerate(r.tasks)),
            *(
                (f"finetune.tasks[{i}]", task)
                for i, task in enumerate(config.finetune.tasks if config.finetune else ())
            ),
            *(("retrieval.task", part.task) for part in [config.retrieval] if part is not None),
        ]:
            wanted = "squared or absolute with parallel.micro_batches above 1: CCC is of a whole batch"
            whole = task.kind in OF_VALUES and task.loss == "usual"
            require(not whole, f"{field}.loss", task.loss, wanted)
            wanted = "class, say, with parallel.micro_batches above 1: an embedding is learned from a whole batch"
            require(task.kind != "embedding", f"{field}.kind", task.kind, wanted)
    if config.finetune is not None and config.parallel.micro_batches > 1:
        mixup, wanted = config.finetune.mixup, "0 with parallel.micro_batches above 1: it mixes clips of a whole batch"
        require(mixup == 0, "finetune.mixup", mixup, wanted)


def check_model(model: ModelConfig) -> None:
    """As `check`, of a model alone: one that was imported or exported."""
    check_fields(model, "model")
    _check_model(model)


def _check_model(model: ModelConfig) -> None:
    for divisor in ("num_heads", "pos_conv_groups"):
        wanted = f"a divisor of model.width={model.width}"
        require(model.width % getattr(model, divisor) == 0, f"model.{divisor}", getattr(model, divisor), wanted)


def _check_data(data: DataConfig) -> None:
    buckets = data.bucket_frames
    require(data.noise.prob == 0 or bool(data.noise.path), "data.noise.path", data.noise.path, "a folder of sounds")
    require(data.batch_frames >= max(buckets), "data.batch_frames", data.batch_frames,
           f"at least the longest of data.bucket_frames={buckets}")  # fmt: skip


def _check_round(round_: RoundConfig, name: str, *, first: bool, model: ModelConfig) -> None:
    masking = round_.masking
    hidden_given = any(targets.features == "hidden" for targets in round_.targets)
    require(hidden_given or round_.encoder == "previous_round", f"{name}.encoder", round_.encoder,
           f"previous_round where no {name}.targets are of a hidden layer")  # fmt: skip
    for i, targets in enumerate(round_.targets):
        relative = targets.relative_to == "usual" or targets.features in RELATIVE_FEATURES
        wanted = f"'usual' with features={shown(targets.features)}; it is of {', '.join(RELATIVE_FEATURES)}"
        require(relative, f"{name}.targets[{i}].relative_to", targets.relative_to, wanted)
        if targets.features == "hidden" and round_.encoder == "previous_round":
            wanted = f"mfcc, say: the first round has no encoder to take a layer from; or name one in {name}.encoder"
            require(not first, f"{name}.targets[{i}].features", "hidden", wanted)
            wanted = f"a layer from 1 to model.num_layers={model.num_layers}"
            require(1 <= targets.layer <= model.num_layers, f"{name}.targets[{i}].layer", targets.layer, wanted)
    wanted = f"random, {'' if first else 'previous_round, '}or the path of an exported encoder"
    require(round_.init != "" and not (first and round_.init == "previous_round"), f"{name}.init", round_.init, wanted)
    per_frame, field = round_.reference.targets_per_frame, f"{name}.reference.targets_per_frame"
    others = sorted({targets.features for targets in round_.targets} - {"mfcc"})
    require(per_frame == 1 or not others, field, per_frame, f"1 where targets are of {' and '.join(others)}")
    if masking.visible_only:
        field, reference = f"{name}.masking.visible_only", round_.reference
        require(masking.kind == "feature", field, True, f"False with {name}.masking.kind={shown(masking.kind)}")
        require("video" in model.modalities, field, True, f"False with model.modalities={model.modalities}")
        for other in ("equal_mask_counts", "count_padding"):
            require(not getattr(reference, other), field, True, f"False with {name}.reference.{other}=True")
    if masking.kind == "feature":
        _check_own_inputs(round_, name, f"with {name}.masking.kind='feature'")
    by_stream = round_.feature_penalty_of == "stream"
    wanted = f"'fused' with model.fusion={shown(model.fusion)}, which leaves no streams to tell apart"
    require(not by_stream or model.fusion == "concat", f"{name}.feature_penalty_of", "stream", wanted)
    both = {"audio", "video"} <= set(model.modalities)
    require(round_.modality_dropout == 0 or both, f"{name}.modality_dropout",
           round_.modality_dropout, f"0 with model.modalities={model.modalities}")  # fmt: skip
    check_optimizer(round_.optimizer, f"{name}.optimizer", round_.num_steps)
    _check_round_tasks(round_, name)


def _check_round_tasks(round_: RoundConfig, name: str) -> None:
    names, objective = tuple(task.name for task in round_.tasks), f"with {name}.objective={shown(round_.objective)}"
    if round_.objective == "masked_prediction":
        require(not names, f"{name}.tasks", names, f"() {objective}; multitask_prediction learns them")
    if round_.objective == "multitask_prediction":
        require(bool(names), f"{name}.tasks", names, f"one or more {objective}; masked_prediction is without")
    require(len(set(names)) == len(names), f"{name}.tasks", names, "tasks that each have a name of its own")
    for i, task in enumerate(round_.tasks):
        field = f"{name}.tasks[{i}]"
        check_choice(f"{field}.kind", task.kind, ("class", "embedding"))
        if task.classes or not (task.reversal and (task.column or task.name) in OPEN_COLUMNS):
            check_task(task, field)
        else:
            require(not task.merge, f"{field}.merge", task.merge, f"() with {field}.classes=(), which are left open")
        check_read(task, field)
        wanted = "none: a round does not weigh classes"
        require(task.class_weights == "none", f"{field}.class_weights", task.class_weights, wanted)


OPEN_COLUMNS = ("corpus", "speaker")  # of which a reversed task of a round may leave open what classes there are


def _check_own_inputs(round_: RoundConfig, name: str, where: str) -> None:
    """Nothing by which the input of a clip depends on the other clips of its batch."""
    source, lone = round_.masking.video_source, round_.reference.zero_lone_clip
    require(source == "same_clip", f"{name}.masking.video_source", source, f"'same_clip' {where}")
    require(not lone, f"{name}.reference.zero_lone_clip", lone, f"False {where}")
