"""Which clips are retrieved, within quotas, and the text of their manifest (`data.manifest` reads it)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmpretrain.data.clips import ClipTable
from mmpretrain.records import FRAME_RATE_HZ

COLUMNS = ("clip_id", "content", "speaker", "class", "score", "seconds")


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


def manifest_text(table: ClipTable, rows: np.ndarray, classes: Sequence[str], scores: np.ndarray) -> str:
    """CSV, a row a clip in this order. classes, scores: of all clips of the table."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows.tolist():
        content, seconds = f"{int(table.content_hashes[row]):016x}", f"{table.lengths[row] / FRAME_RATE_HZ:.2f}"
        of_clip = (table.clip_ids[row], content, table.speakers[row], classes[row], f"{scores[row]:.4f}", seconds)
        writer.writerow(of_clip)
    return text.getvalue()
