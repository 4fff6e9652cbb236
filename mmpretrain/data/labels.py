"""Tasks: what a head learns to tell of labelled clips, and where its labels come from.

A task is a name, a label column of the corpora and the kind of its labels. A kind has its array here, its head and loss
in `objectives.supervised`, and its metrics in `evaluation.tasks`, each under the name of the kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np

from mmpretrain.columns import Words
from mmpretrain.config import TaskConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.records import VOCABULARIES


def task_labels(table: ClipTable, task: TaskConfig) -> np.ndarray:
    """The labels of a task over the table, [N, ...] as `Batch.labels` has them, where a clip has none -1 or NaN.

    Raises ValueError where no corpus has the column, it is of another kind, or a class is no word of it. task: of a
    kind that there is.
    """
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


# By the kind of the labels: from the column, as `ClipTable.label` returns it, to the array.
ARRAYS: dict[str, Callable[..., np.ndarray]] = {"class": _class_ids}
