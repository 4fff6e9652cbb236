"""Whether a recipe can work: every check says the field, its value and the remedy.

What one field may hold stands beside it (`tree`, `ranges`); here is what depends on several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpretrain.config import (
    FITTED_FUSIONS,
    LATE_FUSIONS,
    REGRESSED,
    RELATIVE_FEATURES,
    CorpusConfig,
    DataConfig,
    FinetuneConfig,
    ModelConfig,
    OptimizerConfig,
    RetrievalConfig,
    RoundConfig,
    RunConfig,
    TaskConfig,
    UnitsConfig,
)
from mmpretrain.config.ranges import check_fields, shown


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
        _check_whole(config.finetune.corpora, "finetune.corpora")
        _check_finetune(config.finetune)
    if config.retrieval is not None:
        _check_retrieval(config.retrieval)
    if config.units is not None:
        _check_whole(config.units.corpora, "units.corpora")
        _check_units(config.units)
    if config.label_efficiency.shares and config.finetune is not None:
        wanted = "'class' with label_efficiency.shares"
        _require(
            config.finetune.tasks[0].kind == "class", "finetune.tasks[0].kind", config.finetune.tasks[0].kind, wanted
        )
    if config.parallel.micro_batches > 1:
        for field, task in [
            *((f"rounds[{i}].tasks[{j}]", task) for i, r in enumerate(config.rounds) for j, task in enumerate(r.tasks)),
            *(
                (f"finetune.tasks[{i}]", task)
                for i, task in enumerate(config.finetune.tasks if config.finetune else ())
            ),
        ]:
            wanted = "squared or absolute with parallel.micro_batches above 1: CCC is of a whole batch"
            whole = task.kind in OF_VALUES and task.loss == "usual"
            _require(not whole, f"{field}.loss", task.loss, wanted)
            wanted = "class, say, with parallel.micro_batches above 1: an embedding is learned from a whole batch"
            _require(task.kind != "embedding", f"{field}.kind", task.kind, wanted)
    if config.finetune is not None and config.parallel.micro_batches > 1:
        mixup, wanted = config.finetune.mixup, "0 with parallel.micro_batches above 1: it mixes clips of a whole batch"
        _require(mixup == 0, "finetune.mixup", mixup, wanted)


def check_model(model: ModelConfig) -> None:
    """As `check`, of a model alone: one that was imported or exported."""
    check_fields(model, "model")
    _check_model(model)


def _require(holds: bool, field: str, value: Any, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{field}={shown(value)}; it must be {wanted}")


def _check_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    _require(value in choices, field, value, "one of " + ", ".join(choices))


def _check_model(model: ModelConfig) -> None:
    for divisor in ("num_heads", "pos_conv_groups"):
        wanted = f"a divisor of model.width={model.width}"
        _require(model.width % getattr(model, divisor) == 0, f"model.{divisor}", getattr(model, divisor), wanted)


def _check_data(data: DataConfig) -> None:
    buckets = data.bucket_frames
    _require(data.noise.prob == 0 or bool(data.noise.path), "data.noise.path", data.noise.path, "a folder of sounds")
    _require(data.batch_frames >= max(buckets), "data.batch_frames", data.batch_frames,
           f"at least the longest of data.bucket_frames={buckets}")  # fmt: skip


def _check_round(round_: RoundConfig, name: str, *, first: bool, model: ModelConfig) -> None:
    masking = round_.masking
    hidden_given = any(targets.features == "hidden" for targets in round_.targets)
    _require(hidden_given or round_.encoder == "previous_round", f"{name}.encoder", round_.encoder,
           f"previous_round where no {name}.targets are of a hidden layer")  # fmt: skip
    for i, targets in enumerate(round_.targets):
        relative = targets.relative_to == "usual" or targets.features in RELATIVE_FEATURES
        wanted = f"'usual' with features={shown(targets.features)}; it is of {', '.join(RELATIVE_FEATURES)}"
        _require(relative, f"{name}.targets[{i}].relative_to", targets.relative_to, wanted)
        if targets.features == "hidden" and round_.encoder == "previous_round":
            wanted = f"mfcc, say: the first round has no encoder to take a layer from; or name one in {name}.encoder"
            _require(not first, f"{name}.targets[{i}].features", "hidden", wanted)
            wanted = f"a layer from 1 to model.num_layers={model.num_layers}"
            _require(1 <= targets.layer <= model.num_layers, f"{name}.targets[{i}].layer", targets.layer, wanted)
    wanted = f"random, {'' if first else 'previous_round, '}or the path of an exported encoder"
    _require(round_.init != "" and not (first and round_.init == "previous_round"), f"{name}.init", round_.init, wanted)
    per_frame, field = round_.reference.targets_per_frame, f"{name}.reference.targets_per_frame"
    others = sorted({targets.features for targets in round_.targets} - {"mfcc"})
    _require(per_frame == 1 or not others, field, per_frame, f"1 where targets are of {' and '.join(others)}")
    if masking.visible_only:
        field, reference = f"{name}.masking.visible_only", round_.reference
        _require(masking.kind == "feature", field, True, f"False with {name}.masking.kind={shown(masking.kind)}")
        _require("video" in model.modalities, field, True, f"False with model.modalities={model.modalities}")
        for other in ("equal_mask_counts", "count_padding"):
            _require(not getattr(reference, other), field, True, f"False with {name}.reference.{other}=True")
    if masking.kind == "feature":
        _check_own_inputs(round_, name, f"with {name}.masking.kind='feature'")
    by_stream = round_.feature_penalty_of == "stream"
    wanted = f"'fused' with model.fusion={shown(model.fusion)}, which leaves no streams to tell apart"
    _require(not by_stream or model.fusion == "concat", f"{name}.feature_penalty_of", "stream", wanted)
    both = {"audio", "video"} <= set(model.modalities)
    _require(round_.modality_dropout == 0 or both, f"{name}.modality_dropout",
           round_.modality_dropout, f"0 with model.modalities={model.modalities}")  # fmt: skip
    _check_optimizer(round_.optimizer, f"{name}.optimizer", round_.num_steps)
    _check_round_tasks(round_, name)


def _check_round_tasks(round_: RoundConfig, name: str) -> None:
    names, objective = tuple(task.name for task in round_.tasks), f"with {name}.objective={shown(round_.objective)}"
    if round_.objective == "masked_prediction":
        _require(not names, f"{name}.tasks", names, f"() {objective}; multitask_prediction learns them")
    if round_.objective == "multitask_prediction":
        _require(bool(names), f"{name}.tasks", names, f"one or more {objective}; masked_prediction is without")
    _require(len(set(names)) == len(names), f"{name}.tasks", names, "tasks that each have a name of its own")
    for i, task in enumerate(round_.tasks):
        field = f"{name}.tasks[{i}]"
        _check_choice(f"{field}.kind", task.kind, ("class", "embedding"))
        if task.classes or not (task.reversal and (task.column or task.name) in OPEN_COLUMNS):
            check_task(task, field)
        wanted = "none: a round does not weigh classes"
        _require(task.class_weights == "none", f"{field}.class_weights", task.class_weights, wanted)


OPEN_COLUMNS = ("corpus", "speaker")  # of which a reversed task of a round may leave open what classes there are


def _check_own_inputs(round_: RoundConfig, name: str, where: str) -> None:
    """Nothing by which the input of a clip depends on the other clips of its batch."""
    source, lone = round_.masking.video_source, round_.reference.zero_lone_clip
    _require(source == "same_clip", f"{name}.masking.video_source", source, f"'same_clip' {where}")
    _require(not lone, f"{name}.reference.zero_lone_clip", lone, f"False {where}")


def _check_whole(corpora: Sequence[CorpusConfig], field: str) -> None:
    """That no part is asked for of corpora that are dealt out whole."""
    for i, corpus in enumerate(corpora):
        for name, usual in (("speakers", ()), ("languages", ()), ("retrieved", ""), ("hours", 0.0)):
            wanted = f"{usual}: pretraining alone (data.corpora) takes parts of corpora"
            _require(not getattr(corpus, name), f"{field}[{i}].{name}", getattr(corpus, name), wanted)


def _check_finetune(finetune: FinetuneConfig) -> None:
    names = tuple(task.name for task in finetune.tasks)
    _require(len(set(names)) == len(names) > 0, "finetune.tasks", names, "one or more, each with a name of its own")
    for i, task in enumerate(finetune.tasks):
        check_task(task, f"finetune.tasks[{i}]")
        if field := next((f for f in ("classifier", "head") if getattr(finetune, f) == "frozen_linear"), ""):
            kinds = REGRESSED if field == "classifier" else ("class",)
            wanted = f"{' or '.join(map(shown, kinds))} with finetune.{field}='frozen_linear', a regression"
            _require(task.kind in kinds, f"finetune.tasks[{i}].kind", task.kind, wanted)
            unread = {"pooling": "attentive_statistics"}
            unread |= {"reversal": 0.0, "loss": "usual", "class_weights": "none"} if field == "classifier" else {}
            for name, usual in unread.items():
                wanted = f"{usual} with finetune.{field}='frozen_linear', which does not look at it"
                _require(getattr(task, name) == usual, f"finetune.tasks[{i}].{name}", getattr(task, name), wanted)
    for field in ("layer_decay", "unfreeze_every", "freeze_steps"):
        usual = 1.0 if field == "layer_decay" else 0
        fits = finetune.lora_rank == 0 or getattr(finetune, field) == usual
        wanted = f"{usual} with finetune.lora_rank={finetune.lora_rank}: the encoder's own weights stay as they are"
        _require(fits, f"finetune.{field}", getattr(finetune, field), wanted)
    if finetune.text is not None:
        wanted = "the folder of a model of transformers with its tokenizer"
        _require(finetune.text.encoder != "", "finetune.text.encoder", "", wanted)
        wanted = "None with finetune.classifier='frozen_linear', which hears the encoder alone"
        fits = finetune.classifier == "trained" and finetune.head == "attentive"
        _require(fits, "finetune.text", finetune.text, wanted.replace("classifier", "classifier or head", 1))
        _require(finetune.mixup == 0, "finetune.mixup", finetune.mixup, "0 with finetune.text: words do not mix")
    if finetune.tracks:
        wanted = "() with finetune.classifier or head 'frozen_linear', which hears the encoder alone"
        fits = finetune.classifier == "trained" and finetune.head == "attentive"
        _require(fits, "finetune.tracks", finetune.tracks, wanted)
        wanted = "0 with finetune.tracks, which are not mixed"
        _require(finetune.mixup == 0, "finetune.mixup", finetune.mixup, wanted)
        wanted = "tracks of the corpora, e.g. ('hands',): sound, picture and text are heard otherwise"
        _require(not {"audio", "video", "text"} & {*finetune.tracks}, "finetune.tracks", finetune.tracks, wanted)
    _check_fusion(finetune)
    mixable = all(task.kind in (*OF_ONE_CLASS, "classes") and task.kind != "embedding" for task in finetune.tasks)
    _require(finetune.mixup == 0 or mixable, "finetune.mixup", finetune.mixup, "0 where tasks are no classes of clips")
    fits = finetune.sampling == "as_it_is" or finetune.tasks[0].kind in OF_ONE_CLASS
    wanted = f"as_it_is with finetune.tasks[0].kind={shown(finetune.tasks[0].kind)}"
    _require(fits, "finetune.sampling", finetune.sampling, wanted)
    per_class = finetune.labels_per_class
    _require(not per_class or finetune.label_share == 1, "finetune.label_share", finetune.label_share,
           f"1.0 with finetune.labels_per_class={per_class}: one of the two says how many labels are used")  # fmt: skip
    task, _, metric = finetune.select_by.partition("/")
    _require(task in names and bool(metric), "finetune.select_by", finetune.select_by,
           f"TASK/METRIC, e.g. {names[0]}/ua")  # fmt: skip
    wanted = "val or test-best with finetune.classifier='frozen_linear', which has no steps"
    by_steps = finetune.classifier == "trained"
    _require(by_steps or finetune.selection != "last", "finetune.selection", finetune.selection, wanted)
    if finetune.masking is not None:
        _check_choice("finetune.masking.kind", finetune.masking.kind, ("input",))
        visible = finetune.masking.visible_only
        _require(not visible, "finetune.masking.visible_only", visible, "False: it is of pretraining")
        source = finetune.masking.video_source
        _require(source == "same_clip", "finetune.masking.video_source", source, "'same_clip': it is of pretraining")
    _check_optimizer(finetune.optimizer, "finetune.optimizer", finetune.num_steps)


def _check_fusion(finetune: FinetuneConfig) -> None:
    fusion, late = finetune.fusion, finetune.fusion in LATE_FUSIONS
    alone = finetune.text is None and not finetune.tracks and fusion != "early" and not late
    wanted = "early or late_... without finetune.text or tracks: nothing meets the encoder"
    _require(not alone, "finetune.fusion", fusion, wanted)
    trained = finetune.classifier == "trained" and finetune.head == "attentive"
    wanted = "early with finetune.classifier or head 'frozen_linear', which hears the encoder alone"
    _require(trained or fusion == "early", "finetune.fusion", fusion, wanted)
    kinds = {task.kind for task in finetune.tasks}
    points = fusion == "early" or "embedding" not in kinds
    _require(points, "finetune.fusion", fusion, "early with a task of kind 'embedding'")
    of_frames = kinds & {"frames", "values"}
    _require(fusion == "early" or not of_frames, "finetune.fusion", fusion, "early where tasks are of frames")
    numbers = fusion in ("late_max", "late_product") and "value" in kinds
    _require(not numbers, "finetune.fusion", fusion, "late_mean or late_weights where a task is of numbers")
    stacked = fusion == "late_stacked" and kinds != {"class"}
    _require(
        not stacked, "finetune.fusion", fusion, "late_weights, say: late_stacked is of tasks of kind 'class' alone"
    )
    fitted = fusion in FITTED_FUSIONS and finetune.selection == "test-best"
    wanted = "val or last with finetune.fusion, which is fitted on validation clips: the test clips would be these"
    wanted = wanted.replace("fusion", f"fusion={fusion!r}", 1)
    _require(not fitted, "finetune.selection", finetune.selection, wanted)


def _check_retrieval(retrieval: RetrievalConfig) -> None:
    task, neutral = retrieval.task, set(retrieval.neutral)
    _require(task.kind == "embedding", "retrieval.task.kind", task.kind, "'embedding'")
    check_task(task, "retrieval.task")
    wanted = f"some, not all, of the classes {', '.join(task.classes)}"
    fits = neutral < set(task.classes)
    _require(fits, "retrieval.neutral", retrieval.neutral, wanted)
    _check_optimizer(retrieval.optimizer, "retrieval.optimizer", retrieval.num_steps)


def _check_units(units: UnitsConfig) -> None:
    task = units.task
    _require(task.kind == "frames", "units.task.kind", task.kind, "a kind of labels of frames: 'frames'")
    if task.classes or not (task.alignments or (task.column or task.name) == "words"):
        check_task(task, "units.task")
    _check_optimizer(units.optimizer, "units.optimizer", units.num_steps)


OF_VALUES = ("value", "values")  # kinds of labels without classes
OF_ONE_CLASS = ("class", "votes", "binary", "ordinal", "embedding")  # those of whose classes a clip has one, or shares


def check_task(task: TaskConfig, name: str) -> None:
    """Raises ValueError naming a field, as one of `name`."""
    kind = f"with {name}.kind={shown(task.kind)}"
    if task.kind in ("class", "votes", "classes", "ordinal", "frames", "embedding"):
        fits = len(set(task.classes)) == len(task.classes) >= 2
        _require(fits, f"{name}.classes", task.classes, 'two or more, e.g. ("neutral", "happy")')
    if task.kind == "binary":
        _require(len(task.classes) == 2, f"{name}.classes", task.classes, 'two, the positive one last: ("no", "yes")')
    if task.kind in OF_VALUES:
        _require(not task.classes, f"{name}.classes", task.classes, f"() {kind}, whose labels are numbers")
        low, high = task.range
        _require(low < high, f"{name}.range", task.range, "the lowest value and then a higher one")
    losses = ("usual", "squared", "absolute") if task.kind in OF_VALUES else ("usual", "focal")
    if task.kind in ("binary", "ordinal", "classes"):
        losses = ("usual",)
    if task.kind == "embedding":
        losses = ("usual", "triplet")
    _require(task.loss in losses, f"{name}.loss", task.loss, f"one of {', '.join(losses)} {kind}")
    of_class = task.reversal == 0 or task.kind == "class"
    _require(of_class, f"{name}.reversal", task.reversal, f"0 {kind}: what is not to be told is a class")
    weighted = task.class_weights == "none" or task.kind in OF_ONE_CLASS
    _require(weighted, f"{name}.class_weights", task.class_weights, f"none {kind}")


def _check_optimizer(optimizer: OptimizerConfig, name: str, num_steps: int) -> None:
    _require(
        optimizer.warmup_steps <= num_steps, f"{name}.warmup_steps", optimizer.warmup_steps, f"at most {num_steps=}"
    )
