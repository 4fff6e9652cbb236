"""Tasks: what a head learns to tell of labelled clips, and where its labels come from.

A task is a name, a label column of the corpora and the kind of its labels. A kind has its array here, its head and loss
in `objectives.task_losses`, and its metrics in `evaluation.tasks`, each under the name of the kind. Labels of the kinds
in `OF_FRAMES` are of every frame, [N, T]: their column is a track, or of a table of alignments (`data.frame_labels`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from mmpretrain.columns import Words
from mmpretrain.config import TaskConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.frame_labels import frame_classes, frame_values
from mmpretrain.records import VOCABULARIES


def task_labels(table: ClipTable, task: TaskConfig) -> np.ndarray:
    """The labels of a task over the table, [N, ...] as `Batch.labels` has them, where a clip has none -1 or NaN.

    Raises ValueError where no corpus has the column, it is of another kind, or a class is no word of it. task: of a
    kind that there is.
    """
    if task.kind in OF_FRAMES:
        return ARRAYS[task.kind](table, task)
    column = task.column or task.name
    if column in KNOWN_OF_ALL and column not in table.label_kinds:
        return ARRAYS[task.kind](KNOWN_OF_ALL[column](table), task)
    values, wanted = table.label(column), COLUMN_KINDS.get(task.kind, (task.kind,))
    if (found := table.label_kinds[column]) not in wanted:
        fit = [kind for kind in ARRAYS if found in COLUMN_KINDS.get(kind, (kind,)) and kind not in OF_FRAMES]
        remedy = " or ".join(f"finetune.tasks[].kind={kind!r}" for kind in fit)
        raise ValueError(
            f"task {task.name} is of kind {task.kind!r}, but the label column {column!r} of {table.folders()} holds "
            f"{found!r}; {f'set {remedy}, or ' if fit else ''}name another column"
        )
    labels = ARRAYS[task.kind](values, task)
    if task.kind == "value":
        check_range(labels, task, table)
    return labels


def corpus_names(table: ClipTable) -> Words[str]:
    """Of every clip the name of its corpus's folder."""
    names = [Path(source.corpus_dir).name for source in table.sources]
    words = tuple(dict.fromkeys(names))
    return Words(np.array([words.index(name) for name in names], np.min_scalar_type(len(words)))[table.source_N], words)


def speaker_names(table: ClipTable) -> Words[str]:
    """Of every clip who speaks, "" where nobody knows; of several corpora `corpus/who`."""
    corpora, speakers = corpus_names(table), table.speakers
    if len(corpora.kinds()) < 2:
        return speakers
    count = len(speakers.words)
    number_M, code_N = np.unique(corpora.codes.astype(np.int64) * count + speakers.codes, return_inverse=True)
    pairs = [(corpora.words[number // count], speakers.words[number % count]) for number in number_M.tolist()]
    return Words(code_N, tuple(f"{corpus}/{who}" if who else "" for corpus, who in pairs))


def sampling(kind: str, table: ClipTable, classes_N: np.ndarray, task: TaskConfig) -> dict[str, np.ndarray]:
    """What `BatchPlan` takes of the clips to learn a task from: weights, by class, and strata.

    kind: of `FinetuneConfig.sampling`. classes_N: of each clip, of votes the most voted one, -1 where none is clear.
    Strata are the class, the corpus and the speaker of each clip.
    """
    if kind == "as_it_is":
        return {}
    strata_N3 = np.stack([classes_N, corpus_names(table).codes, table.speakers.codes], axis=1).astype(np.int64)
    return {"weights": class_weights(classes_N, task)} | ({"strata": strata_N3} if kind == "spread" else {})


def check_range(labels: np.ndarray, task: TaskConfig, table: ClipTable) -> None:
    """Raises ValueError naming the first clip with a value outside the range of a task. labels: [N, ...]."""
    low, high = task.range
    at = np.argwhere((labels < low) | (labels > high))
    if len(at):
        row, *frame = at[0].tolist()
        raise ValueError(
            f"clip {table.clip_ids[row]!r}: its {task.column or task.name} is {labels[tuple(at[0])]:g}"
            f"{f' in frame {frame[0]}' if frame else ''}, but task {task.name} has values from {low:g} to {high:g}; "
            "correct the label, or set finetune.tasks[].range"
        )


def class_weights(labels: np.ndarray, task: TaskConfig) -> np.ndarray:
    """float32 [N]: what each clip is to count, inversely to how many have its class; on average 1 over labelled ones.

    labels: as `task_labels` of the clips to learn from; of votes a clip weighs what its shares say. 1 without a label.
    """
    known = has_label(labels)
    share_NC = labels if labels.ndim > 1 else np.eye(len(task.classes))[np.maximum(labels, 0)]
    share_NC = np.where(known[:, None], np.nan_to_num(share_NC), 0.0)
    of_class_C = share_NC.sum(0)
    weight_C = known.sum() / (np.maximum(of_class_C, 1e-9) * (of_class_C > 0).sum())
    return np.where(known, share_NC @ weight_C, 1.0).astype(np.float32)


def has_label(labels: np.ndarray) -> np.ndarray:
    """bool [N]: which of a task's labels are there."""
    there = ~np.isnan(labels) if np.issubdtype(labels.dtype, np.floating) else labels >= 0
    return there.any(tuple(range(1, there.ndim)))


def class_counts(labels: np.ndarray, task: TaskConfig) -> np.ndarray:
    """int64 [C]: of how many clips, or frames, each class of a task is said.

    labels: one of its classes, several marked ones, or one a frame.
    """
    known = labels[labels >= 0] if task.kind == "frames" else labels[has_label(labels)]
    if known.ndim == 1:
        return np.bincount(known.astype(np.int64), minlength=len(task.classes))
    return (known > 0).reshape(-1, len(task.classes)).sum(0)


def few_of(labels: np.ndarray, draws_N: np.ndarray, *, share: float, per_class: int) -> np.ndarray:
    """int64, ascending: the clips to learn from, of N labelled ones.

    Of every class those with the smallest of `draws_N`, float64: a share, rounded, but at least one, or `per_class`, or
    as many as there are. More of the same draws thus hold all of fewer. Labels that are no classes are of one.
    """
    of_class = labels if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer) else np.zeros(len(labels), int)
    order, kept = np.argsort(draws_N, kind="stable"), []
    for number in np.unique(of_class):
        own = order[of_class[order] == number]
        kept.append(own[: per_class or max(1, int(share * len(own) + 0.5))])
    return np.sort(np.concatenate(kept))


def why_not_learned(labels: np.ndarray, task: TaskConfig) -> str:
    """What keeps a head from learning a task from these labels of the training clips; "" if nothing does."""
    known = labels[has_label(labels)]
    if not len(known):
        return f"none of the {len(labels)} training clips has a label of it"
    if task.classes:
        counts = class_counts(labels, task)
        missing = [name for name, count in zip(task.classes, counts, strict=True) if not count]
        of_each = ", ".join(f"{name} {count}" for name, count in zip(task.classes, counts, strict=True) if count)
        if task.kind == "frames":  # of many classes some may well be in no clip of a few
            return f"all labelled frames are of one class ({of_each})" if len(missing) == len(task.classes) - 1 else ""
        if known.ndim == 1 and len(missing) == len(task.classes) - 1:
            return f"all {len(known)} labelled training clips are of one class ({of_each})"
        if missing and task.kind != "ordinal":  # a level that nobody has lies between its neighbours all the same
            return f"no training clip is labelled {' or '.join(missing)} (there are {of_each or 'none'})"
        if task.kind == "classes" and (
            always := [c for c, n in zip(task.classes, counts, strict=True) if n == len(known)]
        ):
            return f"all {len(known)} labelled training clips are labelled {' and '.join(always)}"
    elif _all_equal(known):
        value = known.flat[0]
        return f"the labels of all {len(known)} labelled training clips are equal ({value:g})"
    return ""


def why_not_measured(labels: np.ndarray, task: TaskConfig) -> str:
    """What is lacking in the labels of validation or test clips for the metrics of a task to say all; "" if nothing."""
    known = labels[has_label(labels)]
    if not len(known):
        return "has no label of it"
    if task.kind == "frames":
        return ""
    if task.classes:
        counts = class_counts(labels, task)
        if missing := [name for name, count in zip(task.classes, counts, strict=True) if not count]:
            return f"has no clip labelled {' or '.join(missing)}"
    elif _all_equal(known):
        return f"has equal labels alone ({known.flat[0]:g})"
    return ""


def _all_equal(values: np.ndarray) -> bool:
    """Whether labels are numbers and none differs from another."""
    if not np.issubdtype(values.dtype, np.floating):
        return False
    values = values[~np.isnan(values)]
    return bool((values == values[:1]).all())


def class_of_word(task: TaskConfig, column: str) -> dict[str, int]:
    """The class of every word that means one: the classes themselves, and what `merge` takes for one of them.

    Raises ValueError for a word that the column cannot hold. task: with a merge that `check_task` lets pass.
    """
    merged = {name: i for i, name in enumerate(task.classes)}
    meant = {entry.partition("=")[2] for entry in task.merge}
    for entry in task.merge:
        word, _, name = entry.partition("=")
        merged[word] = task.classes.index(name)
    known = VOCABULARIES.get(column)
    if known and (unknown := sorted({*merged} - {*known, *meant})):
        raise ValueError(f"the classes of task {task.name} have {unknown}; {column}s are {', '.join(known)}")
    return merged


def _class_ids(values: Words[str] | np.ndarray, task: TaskConfig) -> np.ndarray:
    """int32 [N]: the position of each clip's word, or number, in the task's classes; -1 for another."""
    column = task.column or task.name
    if isinstance(values, Words):
        return values.map(class_of_word(task, column), -1, np.int32)
    class_of = class_of_word(task, column)
    try:
        numbers = [float(word) for word in class_of]
    except ValueError as error:
        raise ValueError(
            f"the classes of task {task.name} are {', '.join(task.classes)}, and its merge is {task.merge}, but its "
            f'column {column!r} holds numbers; name these, e.g. classes ("0", "1") and merge ("2=1",)'
        ) from error
    if len(set(numbers)) < len(numbers):
        raise ValueError(
            f"the classes and the merge of task {task.name} name a number of its column {column!r} twice "
            f"({', '.join(class_of)}); keep one of them"
        )
    equal_NM = np.asarray(values)[:, None] == np.array(numbers)
    return np.where(equal_NM.any(1), np.array(list(class_of.values()))[equal_NM.argmax(1)], -1).astype(np.int32)


def no_classes(values: Words[str] | np.ndarray, task: TaskConfig) -> tuple[list[str], int]:
    """The words, or numbers, of a column that are no class of a task, and how many clips have one of them."""
    if isinstance(values, Words):
        others = sorted({word for word in values.kinds() if word} - {*class_of_word(task, task.column or task.name)})
        return others, int(values.map(dict.fromkeys(others, True), False, bool).sum())
    others_M = values[~np.isnan(values) & (_class_ids(values, task) < 0)]
    return [f"{number:g}" for number in np.unique(others_M)], len(others_M)


def _counts(values: Words[tuple[str, ...]], task: TaskConfig) -> np.ndarray:
    """int64 [N, C]: how often each class is among a clip's words."""
    class_of = class_of_word(task, task.column or task.name)
    of_word = np.zeros((len(values.words), len(task.classes)), np.int64)
    for row, said in enumerate(values.words):
        np.add.at(of_word[row], [class_of[word] for word in said if word in class_of], 1)
    return of_word[values.codes]


def _shares(values: Words[tuple[str, ...]], task: TaskConfig) -> np.ndarray:
    """float32 [N, C]: of each clip's votes for one of the classes, how many each has; NaN where there are none."""
    counts_NC = _counts(values, task)
    total_N1 = counts_NC.sum(1, keepdims=True)
    return np.where(total_N1 > 0, counts_NC / np.maximum(total_N1, 1), np.nan).astype(np.float32)


def _marked(values: Words[tuple[str, ...]], task: TaskConfig) -> np.ndarray:
    """int32 [N, C]: 1 for every class that is among a clip's words, else 0; -1 where there is no word at all."""
    there_N1 = values.map({(): False}, True, bool)[:, None]
    return np.where(there_N1, _counts(values, task) > 0, -1).astype(np.int32)


def _values(values: np.ndarray, task: TaskConfig) -> np.ndarray:
    """float32 [N], NaN for none."""
    del task
    return np.asarray(values, np.float32)


def _frame_values(table: ClipTable, task: TaskConfig) -> np.ndarray:
    labels_NT = frame_values(table, task)
    check_range(labels_NT, task, table)
    return labels_NT


def labels_fingerprint(labels: Mapping[str, np.ndarray]) -> str:
    """16 hex digits of the labels by task, in their order."""
    digest = hashlib.blake2b(digest_size=8)
    for task, of_clips in sorted(labels.items()):
        digest.update(f"{task}:{of_clips.dtype}:{of_clips.shape};".encode())
        digest.update(np.ascontiguousarray(of_clips).data)
    return digest.hexdigest()


# By the kind of the labels: from the column, as `ClipTable.label` returns it, to the array; of frames, from the table.
ARRAYS: dict[str, Callable[..., np.ndarray]] = {
    "class": _class_ids, "votes": _shares, "classes": _marked, "binary": _class_ids, "ordinal": _class_ids,
    "value": _values, "frames": frame_classes, "values": _frame_values, "embedding": _class_ids,
}  # fmt: skip
OF_FRAMES = ("frames", "values")
# The columns that every corpus has, whatever it declares.
KNOWN_OF_ALL: dict[str, Callable[[ClipTable], Words[str]]] = {"corpus": corpus_names, "speaker": speaker_names}
# The kinds of columns that labels of a kind are made of, where these are not called alike.
COLUMN_KINDS = {
    "votes": ("classes",), "binary": ("class", "value"), "ordinal": ("class", "value"),
    "embedding": ("class", "value"),
}  # fmt: skip
