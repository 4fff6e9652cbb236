"""Whether what a recipe learns from labels can work: tasks, fine-tuning, retrieval, units. As `checks` say it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mmpretrain.config import (
    FITTED_FUSIONS,
    REGRESSED,
    CorpusConfig,
    FinetuneConfig,
    ModelConfig,
    OptimizerConfig,
    RetrievalConfig,
    TaskConfig,
    UnitsConfig,
)
from mmpretrain.config.ranges import check_choice, require, shown


def check_whole(corpora: Sequence[CorpusConfig], field: str) -> None:
    """Raises ValueError where parts are asked for of corpora that are dealt out whole."""
    for i, corpus in enumerate(corpora):
        for name, usual in (("speakers", ()), ("languages", ()), ("retrieved", ""), ("hours", 0.0)):
            wanted = f"{usual}: pretraining alone (data.corpora) takes parts of corpora"
            require(not getattr(corpus, name), f"{field}[{i}].{name}", getattr(corpus, name), wanted)


def check_finetune(finetune: FinetuneConfig, model: ModelConfig) -> None:
    """Raises ValueError naming a field. model: of the recipe."""
    names = tuple(task.name for task in finetune.tasks)
    require(len(set(names)) == len(names) > 0, "finetune.tasks", names, "one or more, each with a name of its own")
    for i, task in enumerate(finetune.tasks):
        check_task(task, f"finetune.tasks[{i}]")
        check_read(task, f"finetune.tasks[{i}]")
        if field := next((f for f in ("classifier", "head") if getattr(finetune, f) == "frozen_linear"), ""):
            kinds = REGRESSED if field == "classifier" else ("class",)
            wanted = f"{' or '.join(map(shown, kinds))} with finetune.{field}='frozen_linear', a regression"
            require(task.kind in kinds, f"finetune.tasks[{i}].kind", task.kind, wanted)
            unread = {"pooling": "attentive_statistics"}
            unread |= {"reversal": 0.0, "loss": "usual", "class_weights": "none"} if field == "classifier" else {}
            for name, usual in unread.items():
                wanted = f"{usual} with finetune.{field}='frozen_linear', which does not look at it"
                require(getattr(task, name) == usual, f"finetune.tasks[{i}].{name}", getattr(task, name), wanted)
    for field in ("layer_decay", "unfreeze_every", "freeze_steps"):
        usual = 1.0 if field == "layer_decay" else 0
        fits = finetune.lora_rank == 0 or getattr(finetune, field) == usual
        wanted = f"{usual} with finetune.lora_rank={finetune.lora_rank}: the encoder's own weights stay as they are"
        require(fits, f"finetune.{field}", getattr(finetune, field), wanted)
    if finetune.text is not None:
        wanted = "the folder of a model of transformers with its tokenizer"
        require(finetune.text.encoder != "", "finetune.text.encoder", "", wanted)
        wanted = "None with finetune.classifier='frozen_linear', which hears the encoder alone"
        fits = finetune.classifier == "trained" and finetune.head == "attentive"
        require(fits, "finetune.text", finetune.text, wanted.replace("classifier", "classifier or head", 1))
        require(finetune.mixup == 0, "finetune.mixup", finetune.mixup, "0 with finetune.text: words do not mix")
    if finetune.tracks:
        wanted = "() with finetune.classifier or head 'frozen_linear', which hears the encoder alone"
        fits = finetune.classifier == "trained" and finetune.head == "attentive"
        require(fits, "finetune.tracks", finetune.tracks, wanted)
        wanted = "0 with finetune.tracks, which are not mixed"
        require(finetune.mixup == 0, "finetune.mixup", finetune.mixup, wanted)
        wanted = "tracks of the corpora, e.g. ('hands',): sound, picture and text are heard otherwise"
        require(not {"audio", "video", "text"} & {*finetune.tracks}, "finetune.tracks", finetune.tracks, wanted)
    _check_fusion(finetune, model)
    mixable = all(task.kind in (*OF_ONE_CLASS, "classes") and task.kind != "embedding" for task in finetune.tasks)
    require(finetune.mixup == 0 or mixable, "finetune.mixup", finetune.mixup, "0 where tasks are no classes of clips")
    fits = finetune.sampling == "as_it_is" or finetune.tasks[0].kind in OF_ONE_CLASS
    wanted = f"as_it_is with finetune.tasks[0].kind={shown(finetune.tasks[0].kind)}"
    require(fits, "finetune.sampling", finetune.sampling, wanted)
    per_class = finetune.labels_per_class
    require(not per_class or finetune.label_share == 1, "finetune.label_share", finetune.label_share,
           f"1.0 with finetune.labels_per_class={per_class}: one of the two says how many labels are used")  # fmt: skip
    task, _, metric = finetune.select_by.partition("/")
    require(task in names and bool(metric), "finetune.select_by", finetune.select_by,
           f"TASK/METRIC, e.g. {names[0]}/ua")  # fmt: skip
    wanted = "val or test-best with finetune.classifier='frozen_linear': it has no last step, but a penalty to choose"
    by_steps = finetune.classifier == "trained"
    require(by_steps or finetune.selection != "last", "finetune.selection", finetune.selection, wanted)
    if finetune.masking is not None:
        check_choice("finetune.masking.kind", finetune.masking.kind, ("input",))
        visible = finetune.masking.visible_only
        require(not visible, "finetune.masking.visible_only", visible, "False: it is of pretraining")
        source = finetune.masking.video_source
        require(source == "same_clip", "finetune.masking.video_source", source, "'same_clip': it is of pretraining")
    check_optimizer(finetune.optimizer, "finetune.optimizer", finetune.num_steps)


def unread(finetune: FinetuneConfig, model: ModelConfig) -> list[str]:
    """Fields that are set and of which training by steps makes nothing, with the reasons. model: that is trained."""
    alone, silent = _num_streams(finetune, model) == 1, "audio" not in model.modalities
    numbers = all(task.kind in (*OF_VALUES, "embedding") for task in finetune.tasks)
    reasons = {
        "modality_dropout": "there is one modality" if alone else "",
        "freq_mask": "there is no sound" if silent else "",
        "freq_warp": "there is no sound" if silent else "",
        "label_smoothing": "no task asks for the probability of a class" if numbers else "",
    }
    set_to = {name: getattr(finetune, name) for name, reason in reasons.items() if reason}
    return [f"finetune.{name}={value} ({reasons[name]})" for name, value in set_to.items() if value]


def _num_streams(finetune: FinetuneConfig, model: ModelConfig) -> int:
    return len(model.modalities) + (finetune.text is not None) + len(finetune.tracks)


def _check_fusion(finetune: FinetuneConfig, model: ModelConfig) -> None:
    fusion, streams = finetune.fusion, _num_streams(finetune, model)
    wanted = f"early with model.modalities={model.modalities} and no finetune.text or tracks: nothing meets"
    require(streams > 1 or fusion == "early", "finetune.fusion", fusion, wanted)
    trained = finetune.classifier == "trained" and finetune.head == "attentive"
    wanted = "early with finetune.classifier or head 'frozen_linear', which hears the encoder alone"
    require(trained or fusion == "early", "finetune.fusion", fusion, wanted)
    kinds = {task.kind for task in finetune.tasks}
    points = fusion == "early" or "embedding" not in kinds
    require(points, "finetune.fusion", fusion, "early with a task of kind 'embedding'")
    of_frames = kinds & {"frames", "values"}
    require(fusion == "early" or not of_frames, "finetune.fusion", fusion, "early where tasks are of frames")
    numbers = fusion in ("late_max", "late_product") and "value" in kinds
    require(not numbers, "finetune.fusion", fusion, "late_mean or late_weights where a task is of numbers")
    stacked = fusion == "late_stacked" and kinds != {"class"}
    require(not stacked, "finetune.fusion", fusion, "late_weights, say: late_stacked is of tasks of kind 'class' alone")
    fitted = fusion in FITTED_FUSIONS and finetune.selection == "test-best"
    wanted = "val or last with finetune.fusion, which is fitted on validation clips: the test clips would be these"
    wanted = wanted.replace("fusion", f"fusion={fusion!r}", 1)
    require(not fitted, "finetune.selection", finetune.selection, wanted)


def check_retrieval(retrieval: RetrievalConfig) -> None:
    """Raises ValueError naming a field."""
    task, neutral = retrieval.task, set(retrieval.neutral)
    require(task.kind == "embedding", "retrieval.task.kind", task.kind, "'embedding'")
    check_task(task, "retrieval.task")
    check_read(task, "retrieval.task")
    wanted = f"some, not all, of the classes {', '.join(task.classes)}"
    fits = neutral < set(task.classes)
    require(fits, "retrieval.neutral", retrieval.neutral, wanted)
    check_optimizer(retrieval.optimizer, "retrieval.optimizer", retrieval.num_steps)


def check_units(units: UnitsConfig) -> None:
    """Raises ValueError naming a field."""
    task = units.task
    require(task.kind == "frames", "units.task.kind", task.kind, "a kind of labels of frames: 'frames'")
    if task.classes or not (task.alignments or (task.column or task.name) == "words"):
        check_task(task, "units.task")
    check_read(task, "units.task")
    check_optimizer(units.optimizer, "units.optimizer", units.num_steps)


OF_VALUES = ("value", "values")  # kinds of labels without classes
OF_ONE_CLASS = ("class", "votes", "binary", "ordinal", "embedding")  # those of whose classes a clip has one, or shares
OF_WORDS = (*OF_ONE_CLASS, "classes")  # those of a column whose words, or numbers, mean classes
# Field -> the kinds of labels that read it, and the loss that must be asked for besides, "" for any. What is not here
# all kinds read, or `check_task` says of it which do.
READ_BY = {
    "merge": (OF_WORDS, ""),
    "range": (OF_VALUES, ""),
    "focal_gamma": (("class", "votes", "frames"), "focal"),
    "embedding_dim": (("embedding",), ""),
    "temperature": (("embedding",), "usual"),
    "margin": (("embedding",), "triplet"),
    "pooling": ((*OF_WORDS, "value"), ""),
    "alignments": (("frames",), ""),
    "silence": (("frames",), ""),
}


def check_read(task: TaskConfig, name: str) -> None:
    """Raises ValueError for a field that is set and that nothing reads of a task of this kind, as one of `name`."""
    for field in dataclasses.fields(task):
        kinds, loss = READ_BY.get(field.name, ((task.kind,), ""))
        given = f"{name}.kind={shown(task.kind)}" + (f" and loss={shown(task.loss)}" if loss else "")
        needed = f"kind {' or '.join(map(shown, kinds))}" + (f" and loss {shown(loss)}" if loss else "")
        wanted = f"{shown(field.default)} with {given}, which does not read it: leave it out, or set {needed}"
        read = task.kind in kinds and loss in ("", task.loss)
        require(read or getattr(task, field.name) == field.default, f"{name}.{field.name}", getattr(task, field.name),
                f"{wanted} (task {task.name})")  # fmt: skip


def check_task(task: TaskConfig, name: str) -> None:
    """Raises ValueError naming a field, as one of `name`."""
    kind = f"with {name}.kind={shown(task.kind)}"
    if task.kind in ("class", "votes", "classes", "ordinal", "frames", "embedding"):
        fits = len(set(task.classes)) == len(task.classes) >= 2
        require(fits, f"{name}.classes", task.classes, 'two or more, e.g. ("neutral", "happy")')
    if task.kind == "ordinal":
        wanted = f"three or more {kind}: two are told apart with kind='binary'"
        require(len(task.classes) >= 3, f"{name}.classes", task.classes, wanted)
    if task.kind == "binary":
        require(len(task.classes) == 2, f"{name}.classes", task.classes, 'two, the positive one last: ("no", "yes")')
    if task.kind in OF_VALUES:
        require(not task.classes, f"{name}.classes", task.classes, f"() {kind}, whose labels are numbers")
        low, high = task.range
        require(low < high, f"{name}.range", task.range, "the lowest value and then a higher one")
    _check_merge(task, name)
    losses = ("usual", "squared", "absolute") if task.kind in OF_VALUES else ("usual", "focal")
    if task.kind in ("binary", "ordinal", "classes"):
        losses = ("usual",)
    if task.kind == "embedding":
        losses = ("usual", "triplet")
    require(task.loss in losses, f"{name}.loss", task.loss, f"one of {', '.join(losses)} {kind}")
    of_class = task.reversal == 0 or task.kind == "class"
    require(of_class, f"{name}.reversal", task.reversal, f"0 {kind}: what is not to be told is a class")
    weighted = task.class_weights == "none" or task.kind in OF_ONE_CLASS
    require(weighted, f"{name}.class_weights", task.class_weights, f"none {kind}")


def _check_merge(task: TaskConfig, name: str) -> None:
    meant: dict[str, str] = {}
    for entry in task.merge if task.kind in OF_WORDS else ():
        word, _, of_class = entry.partition("=")
        usual = f"WORD=CLASS, e.g. 'excited={task.classes[0]}'"
        wanted = f"{usual}, the class one of {', '.join(task.classes)} and the word none of them (not {shown(entry)})"
        fits = bool(word) and of_class in task.classes and word not in task.classes
        require(fits, f"{name}.merge", task.merge, wanted)
        wanted = f"of one class for each word, but {shown(word)} is taken for {meant.get(word)} and {of_class}"
        require(word not in meant, f"{name}.merge", task.merge, wanted)
        meant[word] = of_class


def check_optimizer(optimizer: OptimizerConfig, name: str, num_steps: int) -> None:
    """Raises ValueError naming a field, as one of `name`, where steps are too few for it."""
    require(
        optimizer.warmup_steps <= num_steps, f"{name}.warmup_steps", optimizer.warmup_steps, f"at most {num_steps=}"
    )
