"""Labels of every frame: classes on the 25 Hz grid, from a track of the corpora or from words with their times.

Dims: N clips, T frames of the longest of them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from mmpretrain.config import TaskConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.records import FRAME_RATE_HZ
from mmpretrain.text.alignments import Span, match_clips, phones_of, read_alignments, unit_names, units_of_frames

ALIGNED = {"words": lambda spans: spans, "phones": phones_of}  # the columns of a file of alignments


def with_classes(table: ClipTable, task: TaskConfig) -> TaskConfig:
    """The task with the classes that its alignments have, where it names none; any other task as it is."""
    if task.classes or not task.alignments:
        return task
    return dataclasses.replace(task, classes=tuple(unit_names(_spans(table, task))))


def frame_classes(table: ClipTable, task: TaskConfig) -> np.ndarray:
    """int32 [N, T]: the class of every frame, -1 where nothing is known, beyond the end of a clip included.

    Where a task has no alignments its classes are the numbers of a track, int [T], in their order. Raises ValueError
    where no clip has that track, or it has another shape or numbers that are no classes.
    """
    labels_NT = np.full((len(table), int(table.lengths.max(initial=0))), -1, np.int32)
    if task.alignments:
        class_of = {name: number for number, name in enumerate(task.classes)}
        row_of = {clip_id: row for row, clip_id in enumerate(table.clip_ids)}
        for clip_id, spans in _spans(table, task).items():
            row, known = row_of[clip_id], [span for span in spans if span.name in class_of]
            num_frames = int(table.lengths[row])
            labels_NT[row, :num_frames] = units_of_frames(known, task.classes, num_frames, FRAME_RATE_HZ)
        return labels_NT
    track = task.column or task.name
    rows = np.flatnonzero(table.has(track))
    if not len(rows):
        tracks = ", ".join(sorted(set(table.index.has) - {"audio", "video"})) or "none"
        raise ValueError(
            f"task {task.name} is of kind 'frames', but no clip of {table.folders()} has a track {track!r} (tracks: "
            f"{tracks}); name another in its `column`, or give `alignments`: a table of words with their times"
        )
    for row in rows:
        ids_T = table.load(row).tracks[track]
        if ids_T.ndim != 1 or not np.issubdtype(ids_T.dtype, np.integer) or ids_T.max() >= len(task.classes):
            raise ValueError(
                f"clip {table.clip_ids[row]!r}: its track {track!r} is {ids_T.dtype} {list(ids_T.shape)} with values "
                f"up to {ids_T.max()}, but task {task.name} wants one number a frame, below its {len(task.classes)} "
                "classes; name a class for every number, or another track"
            )
        labels_NT[row, : len(ids_T)] = np.maximum(ids_T, -1)
    return labels_NT


def labelled(table: ClipTable, task: TaskConfig) -> np.ndarray:
    """bool [N]: which clips have the track, or are in the alignments."""
    if not task.alignments:
        return table.has(task.column or task.name)
    known = _spans(table, task)
    return np.array([clip_id in known for clip_id in table.clip_ids])


def _spans(table: ClipTable, task: TaskConfig) -> dict[str, list[Span]]:
    """By clip id of the table, what is said when."""
    column, words = task.column or task.name, read_alignments(Path(task.alignments))
    if column not in ALIGNED:
        raise ValueError(
            f"task {task.name}: alignments hold {' and '.join(ALIGNED)}, not {column!r}; set its `column` to one "
            "of them"
        )
    matched = match_clips(list(words), list(table.clip_ids))
    return {clip_id: ALIGNED[column](words[name]) for clip_id, name in matched.items()}
