"""Which clips are retrieved, within quotas, and the text of their manifest (`data.manifest` reads it)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmpretrain.data.clips import ClipTable
from mmpretrain.data.manifest import heard_column
from mmpretrain.records import FRAME_RATE_HZ

COLUMNS = ("clip_id", "content", "speaker", "class", "score", "seconds")  # and last what `heard_column` says


class Quotas(NamedTuple):
    """At most so many frames in all, of one class, and of one speaker."""

    whole: int
    of_class: int
    of_speaker: int


def choose(
    order: np.ndarray, class_N: np.ndarray, speakers: Sequence[str], frames_N: np.ndarray, quotas: Quotas
) -> np.ndarray:
    """int64, in this order: the clips that are taken, each one that still fits into all quotas when it comes up.

    order: int [N], which clip comes first. speakers: "" for nobody named, who has no quota.
    """
    left, of_class, of_speaker, taken = quotas.whole, {}, {}, []
    for row in order.tolist():
        frames, name, who = int(frames_N[row]), int(class_N[row]), speakers[row]
        if frames > left or of_class.get(name, 0) + frames > quotas.of_class:
            continue
        if who and of_speaker.get(who, 0) + frames > quotas.of_speaker:
            continue
        left -= frames
        of_class[name] = of_class.get(name, 0) + frames
        of_speaker[who] = of_speaker.get(who, 0) + frames
        taken.append(row)
    return np.array(taken, np.int64)


class Heard(NamedTuple):
    """What the embedding of a label column hears in the clips of a table: their score, the class that is nearest of
    those that are not neutral, and of all classes."""

    column: str
    scores: np.ndarray
    classes: Sequence[str]
    nearest: Sequence[str]


def manifest_text(table: ClipTable, rows: np.ndarray, heard: Heard) -> str:
    """CSV, a row a clip in this order. heard: of all clips of the table."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow((*COLUMNS, heard_column(heard.column)))
    for row in rows.tolist():
        content, seconds = f"{int(table.content_hashes[row]):016x}", f"{table.lengths[row] / FRAME_RATE_HZ:.2f}"
        named = (table.clip_ids[row], content, table.speakers[row])
        writer.writerow((*named, heard.classes[row], f"{heard.scores[row]:.4f}", seconds, heard.nearest[row]))
    return text.getvalue()
