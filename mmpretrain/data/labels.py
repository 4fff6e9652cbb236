"""Tasks: what a head learns to tell of labelled clips, and where its labels come from.

A task is a name, a label column of the corpora and the kind of its labels. A kind has its array here, its head and loss
in `objectives.supervised`, and its metrics in `evaluation.tasks`, each under the name of the kind. Labels of the kinds
in `OF_FRAMES` are of every frame, [N, T]: their column is a track, or of a table of alignments (`data.frame_labels`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np

from mmpretrain.columns import Words
from mmpretrain.config import TaskConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.frame_labels import frame_classes
from mmpretrain.records import VOCABULARIES


def task_labels(table: ClipTable, task: TaskConfig) -> np.ndarray:
    """The labels of a task over the table, [N, ...] as `Batch.labels` has them, where a clip has none -1 or NaN.

    Raises ValueError where no corpus has the column, it is of another kind, or a class is no word of it. task: of a
    kind that there is.
    """
    if task.kind in OF_FRAMES:
        return ARRAYS[task.kind](table, task)
    column = task.column or task.name
    values = table.label(column)
    if (found := table.label_kinds[column]) != task.kind:
        raise ValueError(
            f"task {task.name} is of kind {task.kind!r}, but the label column {column!r} of {table.folders()} holds "
            f"{found!r}; set finetune.tasks[].kind={found!r}, or name another column"
        )
    return ARRAYS[task.kind](values, task)


def has_label(labels: np.ndarray) -> np.ndarray:
    """bool [N]: which of a task's labels are there."""
    there = ~np.isnan(labels) if np.issubdtype(labels.dtype, np.floating) else labels >= 0
    return there.reshape(len(labels), -1).any(1)


def class_counts(labels: np.ndarray, task: TaskConfig) -> np.ndarray:
    """int64 [C]: of how many clips, or frames, each class of a task is said.

    labels: one of its classes, several marked ones, or one a frame.
    """
    known = labels[labels >= 0] if task.kind in OF_FRAMES else labels[has_label(labels)]
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
        if task.kind in OF_FRAMES:  # of many classes some may well be in no clip of a few
            return f"all labelled frames are of one class ({of_each})" if len(missing) == len(task.classes) - 1 else ""
        if known.ndim == 1 and len(missing) == len(task.classes) - 1:
            return f"all {len(known)} labelled training clips are of one class ({of_each})"
        if missing:
            return f"no training clip is labelled {' or '.join(missing)} (there are {of_each or 'none'})"
        if known.ndim > 1 and (always := [c for c, n in zip(task.classes, counts, strict=True) if n == len(known)]):
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
    if task.kind in OF_FRAMES:
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


def _class_ids(values: Words[str], task: TaskConfig) -> np.ndarray:
    """int32 [N]: the position of each clip's word in the task's classes."""
    column = task.column or task.name
    known = VOCABULARIES.get(column)
    if known and (unknown := sorted(set(task.classes) - set(known))):
        raise ValueError(f"the classes of task {task.name} have {unknown}; {column}s are {', '.join(known)}")
    class_of = {name: i for i, name in enumerate(task.classes)}
    return values.map(class_of, -1, np.int32)


def labels_fingerprint(labels: Mapping[str, np.ndarray]) -> str:
    """16 hex digits of the labels by task, in their order."""
    digest = hashlib.blake2b(digest_size=8)
    for task, of_clips in sorted(labels.items()):
        digest.update(f"{task}:{of_clips.dtype}:{of_clips.shape};".encode())
        digest.update(np.ascontiguousarray(of_clips).data)
    return digest.hexdigest()


# By the kind of the labels: from the column, as `ClipTable.label` returns it, to the array; of frames, from the table.
ARRAYS: dict[str, Callable[..., np.ndarray]] = {"class": _class_ids, "frames": frame_classes}
OF_FRAMES = ("frames",)
