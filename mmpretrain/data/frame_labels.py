"""Labels of every frame: classes on the 25 Hz grid, from a track of the corpora or from words with their times.

Dims: N clips, T frames of the longest of them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mmpretrain.config import TaskConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.unreadable import UnreadableClipError
from mmpretrain.records import FRAME_RATE_HZ
from mmpretrain.text.alignments import Span, phones_of, unit_names, units_of_frames, words_of_clips

ALIGNED = {"words": lambda spans: spans, "phones": phones_of}  # the columns of a file of alignments
WORDS = "words"  # the track that says which word of the clip's text is spoken, -1: none


def with_classes(table: ClipTable, task: TaskConfig) -> TaskConfig:
    """The task with the words or phones that occur as its classes, where it names none; any other task as it is."""
    if task.classes or not (task.alignments or _column(task) == WORDS):
        return task
    if task.alignments:
        names = unit_names(_spans(table, task))
    else:
        texts = (table.text(row) for row in np.flatnonzero(table.has(WORDS)))
        names = sorted({word for text in texts for word in text.split()} | ({task.silence} - {""}))
    return dataclasses.replace(task, classes=tuple(names))


def frame_classes(table: ClipTable, task: TaskConfig) -> np.ndarray:
    """int32 [N, T]: the class of every frame, -1 where nothing is known, beyond the end of a clip included, and
    nothing of a clip that cannot be read.

    Where a task has no alignments its classes are the numbers of a track, int [T], in their order; of the track `words`
    the words of the clip's text, frames without one being silent. Raises ValueError where no clip has that track, or it
    has another shape or numbers that are no classes.
    """
    labels_NT = np.full((len(table), int(table.lengths.max(initial=0))), -1, np.int32)
    class_of = {name: number for number, name in enumerate(task.classes)}
    if task.alignments:
        row_of = {clip_id: row for row, clip_id in enumerate(table.clip_ids)}
        for clip_id, spans in _spans(table, task).items():
            row, known = row_of[clip_id], [span for span in spans if span.name in class_of]
            num_frames = int(table.lengths[row])
            labels_NT[row, :num_frames] = units_of_frames(known, task.classes, num_frames, FRAME_RATE_HZ)
        return labels_NT
    for row in _with_track(table, task, ", or give `alignments`: a table of words with their times"):
        try:
            clip = table.open(row)
            ids_T = clip.tracks[_column(task)]
        except UnreadableClipError as error:
            table.unreadable.add(error)
            continue
        if _column(task) == WORDS:
            of_word = [class_of.get(word, -1) for word in clip.labels.get("text", "").split()]
            ids_T = np.array([*of_word, class_of.get(task.silence, -1)], np.int32)[np.maximum(ids_T, -1)]
        if ids_T.ndim != 1 or not np.issubdtype(ids_T.dtype, np.integer) or ids_T.max() >= len(task.classes):
            raise ValueError(
                f"clip {table.clip_ids[row]!r}: its track {_column(task)!r} is {ids_T.dtype} {list(ids_T.shape)} with "
                f"values up to {ids_T.max()}, but task {task.name} wants one number a frame, below its "
                f"{len(task.classes)} classes; name a class for every number, or another track"
            )
        labels_NT[row, : len(ids_T)] = np.maximum(ids_T, -1)
    return labels_NT


def frame_values(table: ClipTable, task: TaskConfig) -> np.ndarray:
    """float32 [N, T]: the number of every frame by a track, NaN where there is none, beyond the end of a clip included.

    Raises ValueError where no clip has that track, or it is no number a frame.
    """
    labels_NT = np.full((len(table), int(table.lengths.max(initial=0))), np.nan, np.float32)
    for row in _with_track(table, task):
        try:
            values_T = table.open(row).tracks[_column(task)]
        except UnreadableClipError as error:
            table.unreadable.add(error)
            continue
        if values_T.ndim != 1:
            raise ValueError(
                f"clip {table.clip_ids[row]!r}: its track {_column(task)!r} is {values_T.dtype} "
                f"{list(values_T.shape)}, but task {task.name} wants one number a frame; name another track"
            )
        labels_NT[row, : len(values_T)] = values_T
    return labels_NT


def _with_track(table: ClipTable, task: TaskConfig, remedy: str = "") -> np.ndarray:
    """The rows that have the track of a task. Raises ValueError where none has."""
    rows = np.flatnonzero(table.has(_column(task)))
    if not len(rows):
        tracks = ", ".join(sorted(set(table.index.has) - {"audio", "video"})) or "none"
        raise ValueError(
            f"task {task.name} is of kind {task.kind!r}, but no clip of {table.folders()} has a track "
            f"{_column(task)!r} (tracks: {tracks}); name another in its `column`{remedy}"
        )
    return rows


def _column(task: TaskConfig) -> str:
    return task.column or task.name


def _spans(table: ClipTable, task: TaskConfig) -> dict[str, list[Span]]:
    """By clip id of the table, what is said when."""
    if _column(task) not in ALIGNED:
        raise ValueError(
            f"task {task.name}: alignments hold {' and '.join(ALIGNED)}, not {_column(task)!r}; set its `column` to "
            "one of them"
        )
    words = words_of_clips(task.alignments, list(table.clip_ids), (table.lengths / FRAME_RATE_HZ).tolist())
    return {clip_id: ALIGNED[_column(task)](said) for clip_id, said in words.items()}
