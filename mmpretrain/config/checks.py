"""Whether a recipe can work: every check says the field, its value and the remedy."""

from __future__ import annotations

from typing import Any

from mmpretrain.config import (
    FEATURES,
    DataConfig,
    FinetuneConfig,
    MaskingConfig,
    ModelConfig,
    OptimizerConfig,
    RoundConfig,
    RunConfig,
    TargetsConfig,
    TaskConfig,
)


def check(config: RunConfig) -> None:
    """Raises ValueError naming the field, its value and the remedy if this recipe cannot work."""
    if not config.workdir:
        raise ValueError("workdir is empty; say where the run goes: --config.workdir=runs/NAME")
    check_model(config.model)
    _check_data(config.data)
    for number, round_ in enumerate(config.rounds, start=1):
        _check_round(round_, f"rounds[{number - 1}]", first=number == 1, model=config.model)
        if config.parallel.micro_batches > 1:
            parts = f"with parallel.micro_batches={config.parallel.micro_batches}"
            _check_own_inputs(round_, f"rounds[{number - 1}]", parts)
    if config.finetune is not None:
        _check_finetune(config.finetune)
    sizes = [config.parallel.data, config.parallel.fsdp, config.parallel.tensor]
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ValueError(f"parallel={sizes}: sizes are positive, and at most one is -1 (all that is left)")
    _require(config.parallel.slices >= 1, "parallel.slices", config.parallel.slices, "at least 1")
    _check_positive("parallel.micro_batches", config.parallel.micro_batches)
    _require(
        config.parallel.lost_after_sec >= 5, "parallel.lost_after_sec", config.parallel.lost_after_sec, "at least 5"
    )
    for field in ("log_every", "validation_every"):
        _require(getattr(config, field) > 0, field, getattr(config, field), "a positive number of steps")
    for field in ("every_steps", "keep"):
        _check_positive(f"checkpoint.{field}", getattr(config.checkpoint, field))
    _require(
        (peak := config.observe.peak_tflops) >= 0, "observe.peak_tflops", peak, "above 0, or 0: by the device's name"
    )
    _check_share("health.min_clusters_used", config.health.min_clusters_used)
    _require(-1 <= (gain := config.health.min_accuracy_gain) < 1, "health.min_accuracy_gain", gain, "-1 to below 1")
    rise, skip = config.health.max_loss_rise, config.health.skip_bad_steps
    _require(rise == 0 or rise > 1, "health.max_loss_rise", rise, "above 1, or 0: no finite loss is bad")
    _require(skip >= 0, "health.skip_bad_steps", skip, "0 (stop at the first) or more")


def _require(holds: bool, field: str, value: Any, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{field}={value!r}; it must be {wanted}")


def _check_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    _require(value in choices, field, value, "one of " + ", ".join(choices))


def _check_share(field: str, value: float) -> None:
    _require(0 <= value <= 1, field, value, "between 0 and 1")


def _check_positive(field: str, value: float) -> None:
    _require(value > 0, field, value, "above 0")


def check_model(model: ModelConfig) -> None:
    """As `check`, of a model alone: one that was imported or exported."""
    fits = len(set(model.modalities)) == len(model.modalities) > 0
    _require(fits, "model.modalities", model.modalities, 'one or more, each once, e.g. ("audio", "video")')
    _check_choice("model.fusion", model.fusion, ("concat", "add"))
    _check_choice("model.dtype", model.dtype, ("float32", "bfloat16"))
    _check_choice("model.remat", model.remat, ("none", "layers", "dots"))
    _check_choice("model.inputs.view", model.inputs.view, ("mouth", "face"))
    _check_choice("model.inputs.audio_normalization", model.inputs.audio_normalization, ("frame", "level"))
    for size in ("width", "num_layers", "num_heads", "mlp_dim", "resnet_width", "pos_conv_kernel", "pos_conv_groups",
                 "proj_dim", "temperature"):  # fmt: skip
        _check_positive(f"model.{size}", getattr(model, size))
    _check_positive("model.inputs.image_size", model.inputs.image_size)
    for divisor in ("num_heads", "pos_conv_groups"):
        wanted = f"a divisor of model.width={model.width}"
        _require(model.width % getattr(model, divisor) == 0, f"model.{divisor}", getattr(model, divisor), wanted)
    for rate in ("dropout", "attention_dropout", "activation_dropout", "input_dropout", "layerdrop"):
        _check_share(f"model.{rate}", getattr(model, rate))


def _check_data(data: DataConfig) -> None:
    buckets = data.bucket_frames
    _require(len(buckets) > 0 and min(buckets) > 0, "data.bucket_frames", buckets, "positive lengths in frames")
    _check_choice("data.long_clips", data.long_clips, ("crop", "drop"))
    _check_share("data.validation_share", data.validation_share)
    _check_share("data.noise.prob", data.noise.prob)
    _require(data.noise.prob == 0 or bool(data.noise.path), "data.noise.path", data.noise.path, "a folder of sounds")
    _require(data.batch_multiple >= 1, "data.batch_multiple", data.batch_multiple, "at least 1")
    _require(data.num_workers >= 0, "data.num_workers", data.num_workers, "0 (no threads) or more")
    _require(data.batch_frames >= max(buckets), "data.batch_frames", data.batch_frames,
           f"at least the longest of data.bucket_frames={buckets}")  # fmt: skip


def _check_round(round_: RoundConfig, name: str, *, first: bool, model: ModelConfig) -> None:
    masking = round_.masking
    _require(len(round_.targets) > 0, f"{name}.targets", round_.targets, "at least one codebook, e.g. mfcc(100)")
    hidden_given = any(targets.features == "hidden" for targets in round_.targets)
    _require(hidden_given or round_.encoder == "previous_round", f"{name}.encoder", round_.encoder,
           f"previous_round where no {name}.targets are of a hidden layer")  # fmt: skip
    for i, targets in enumerate(round_.targets):
        _check_targets(targets, f"{name}.targets[{i}]")
        if targets.features == "hidden" and round_.encoder == "previous_round":
            wanted = f"mfcc, say: the first round has no encoder to take a layer from; or name one in {name}.encoder"
            _require(not first, f"{name}.targets[{i}].features", "hidden", wanted)
            wanted = f"a layer from 1 to model.num_layers={model.num_layers}"
            _require(1 <= targets.layer <= model.num_layers, f"{name}.targets[{i}].layer", targets.layer, wanted)
    _check_choice(f"{name}.init", round_.init, ("random",) if first else ("random", "previous_round"))
    per_frame, field = round_.reference.targets_per_frame, f"{name}.reference.targets_per_frame"
    _require(per_frame in (1, 4), field, per_frame, "1 or 4")
    others = sorted({targets.features for targets in round_.targets} - {"mfcc"})
    _require(per_frame == 1 or not others, field, per_frame, f"1 where targets are of {' and '.join(others)}")
    dead_classes = round_.reference.dead_classes
    _require(dead_classes >= 0, f"{name}.reference.dead_classes", dead_classes, "0 or more")
    _check_choice(f"{name}.masking.kind", masking.kind, ("feature", "input"))
    _check_masking(masking, f"{name}.masking")
    if masking.kind == "feature":
        _check_own_inputs(round_, name, f"with {name}.masking.kind='feature'")
    _check_share(f"{name}.modality_dropout", round_.modality_dropout)
    _check_share(f"{name}.audio_dropout", round_.audio_dropout)
    both = {"audio", "video"} <= set(model.modalities)
    _require(round_.modality_dropout == 0 or both, f"{name}.modality_dropout",
           round_.modality_dropout, f"0 with model.modalities={model.modalities}")  # fmt: skip
    _check_optimizer(round_.optimizer, f"{name}.optimizer", round_.num_steps)


def _check_own_inputs(round_: RoundConfig, name: str, where: str) -> None:
    """Nothing by which the input of a clip depends on the other clips of its batch."""
    source, lone = round_.masking.video_source, round_.reference.zero_lone_clip
    _require(source == "same_clip", f"{name}.masking.video_source", source, f"'same_clip' {where}")
    _require(not lone, f"{name}.reference.zero_lone_clip", lone, f"False {where}")


def _check_targets(targets: TargetsConfig, name: str) -> None:
    _check_choice(f"{name}.features", targets.features, FEATURES)
    _require(targets.num_clusters >= 2, f"{name}.num_clusters", targets.num_clusters, "at least 2")
    _check_positive(f"{name}.weight", targets.weight)
    _require(0 < targets.fit_share <= 1, f"{name}.fit_share", targets.fit_share, "above 0 and at most 1")
    _check_positive(f"{name}.fit_restarts", targets.fit_restarts)
    _check_positive(f"{name}.fit_passes", targets.fit_passes)


def _check_masking(masking: MaskingConfig, name: str) -> None:
    _check_choice(f"{name}.video_source", masking.video_source, ("same_clip", "other_clip"))
    for share in ("prob", "audio_prob", "video_prob"):
        _check_share(f"{name}.{share}", getattr(masking, share))
    for span in ("span_frames", "audio_span_frames", "video_span_frames"):
        _check_positive(f"{name}.{span}", getattr(masking, span))


def _check_finetune(finetune: FinetuneConfig) -> None:
    names = tuple(task.name for task in finetune.tasks)
    _require(len(set(names)) == len(names) > 0, "finetune.tasks", names, "one or more, each with a name of its own")
    for i, task in enumerate(finetune.tasks):
        _check_task(task, f"finetune.tasks[{i}]")
    task, _, metric = finetune.select_by.partition("/")
    _require(task in names and bool(metric), "finetune.select_by", finetune.select_by,
           f"TASK/METRIC, e.g. {names[0]}/ua")  # fmt: skip
    _require(finetune.eval_every > 0, "finetune.eval_every", finetune.eval_every, "a positive number of steps")
    _require(0 <= finetune.freq_mask <= 26, "finetune.freq_mask", finetune.freq_mask, "0 to 26 filterbank channels")
    _check_share("finetune.dropout", finetune.dropout)
    _check_share("finetune.label_smoothing", finetune.label_smoothing)
    if finetune.masking is not None:
        _check_choice("finetune.masking.kind", finetune.masking.kind, ("input",))
        _check_masking(finetune.masking, "finetune.masking")
        source = finetune.masking.video_source
        _require(source == "same_clip", "finetune.masking.video_source", source, "'same_clip': it is of pretraining")
    _require(0 <= finetune.freq_warp < 0.5, "finetune.freq_warp", finetune.freq_warp, "from 0 to below 0.5")
    _check_optimizer(finetune.optimizer, "finetune.optimizer", finetune.num_steps)


def _check_task(task: TaskConfig, name: str) -> None:
    _require(task.name.isidentifier(), f"{name}.name", task.name, 'a plain word, e.g. "emotion"')
    _check_positive(f"{name}.weight", task.weight)
    if task.kind == "class":
        fits = len(set(task.classes)) == len(task.classes) >= 2
        _require(fits, f"{name}.classes", task.classes, 'two or more, e.g. ("neutral", "happy")')


def _check_optimizer(optimizer: OptimizerConfig, name: str, num_steps: int) -> None:
    _check_choice(f"{name}.schedule", optimizer.schedule, ("polynomial", "tri_stage"))
    _check_positive(f"{name.removesuffix('optimizer')}num_steps", num_steps)
    _check_positive(f"{name}.peak_lr", optimizer.peak_lr)
    _require(
        optimizer.warmup_steps <= num_steps, f"{name}.warmup_steps", optimizer.warmup_steps, f"at most {num_steps=}"
    )
