"""Clips of one content under several names: which there are, and in which splits and with which labels.

A content is what a clip was prepared to, all its arrays: the same bytes under two names have one, a copy that was
encoded anew has another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmpretrain.index import Index

SHOWN = 8


def find_doubles(index: Index) -> list[np.ndarray]:
    """The rows of every content that several clips have, ascending, in the order of the first of each."""
    order = np.argsort(index.content_hashes, kind="stable")
    ordered = index.content_hashes[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(ordered))
    several = ends - starts > 1
    groups = [order[start:end] for start, end in zip(starts[several], ends[several], strict=True)]
    return sorted(groups, key=lambda rows: rows[0])


def pairs(index: Index, ones: np.ndarray, others: np.ndarray) -> list[tuple[int, int]]:
    """For each of the rows `ones` whose content one of the rows `others` has, both rows."""
    if not len(others):
        return []
    hashes = index.content_hashes
    ordered = others[np.argsort(hashes[others], kind="stable")]
    found = ordered[np.minimum(np.searchsorted(hashes[ordered], hashes[ones]), len(ordered) - 1)]
    same = hashes[found] == hashes[ones]
    return list(zip(ones[same].tolist(), found[same].tolist(), strict=True))


def warnings(index: Index, groups: Sequence[np.ndarray]) -> list[str]:
    """What is to be said of these doubles, a line each; none where there are none."""
    if not groups:
        return []
    across = [rows for rows in groups if len(index.splits.take(rows).kinds()) > 1]
    contrary = [rows for rows in groups if _said_otherwise(index, rows)]
    lines = [f"{sum(map(len, groups))} clips have the content of another clip"]
    for some, what in (
        (across, "in several splits ({}), so that what is tested or validated on is trained on as well"),
        (contrary, "with several labels or speakers ({})"),
    ):
        if some:
            lines.append(f"of one content, but {what.format(len(some))}: {told(index, some)}")
    return lines


def told(index: Index, groups: Sequence[Sequence[int]]) -> str:
    """The clips of the first of these groups, each with its split and what it is said to be."""
    shown = [" = ".join(_told(index, int(row)) for row in rows[:SHOWN]) for rows in groups[:SHOWN]]
    return "; ".join(shown) + ("; ..." if len(groups) > SHOWN else "")


def _told(index: Index, row: int) -> str:
    clip = index.row(row)
    words = [clip.speaker, *(value for value in clip.labels.values() if isinstance(value, str))]
    return f"{clip.clip_id} ({', '.join([clip.split, *filter(None, words)])})"


def _said_otherwise(index: Index, rows: np.ndarray) -> bool:
    return len(set(index.label_hashes[rows].tolist())) > 1 or len(index.speakers.take(rows).kinds()) > 1
