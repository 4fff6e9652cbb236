"""Which rows of a manifest go into one split, so that what is tested or validated on is not trained on."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable
from pathlib import Path

from data_prep.manifest import Row
from data_prep.sources import SourceClip
from mmpretrain.listing import readable
from mmpretrain.records import FRAME_RATE_HZ


def keep_together(manifest: Path, rows: list[Row], clips: list[SourceClip], *, by_speaker: bool) -> list[SourceClip]:
    """The clips, where parts of one file that have a frame in common are in one split, and by_speaker those of one
    speaker as well.

    Those without a split of their own follow the others. Raises ValueError where two rows say otherwise.
    """
    of_file: dict[tuple[int, int], list[int]] = {}
    of_speaker: dict[str, list[int]] = {}
    for i, clip in enumerate(clips):
        if not clip.refused:
            found = os.stat(clip.path)  # two names may be of one file
            of_file.setdefault((found.st_dev, found.st_ino), []).append(i)
        if by_speaker and clip.speaker and (clip.missing or not clip.refused):  # its text alone may be kept
            of_speaker.setdefault(clip.speaker, []).append(i)
    parts = list(_overlapping(clips, of_file.values()))
    for same in parts:
        if found := _in_two_splits(rows, clips, same):
            i, j = found
            raise ValueError(
                f"--manifest {manifest}: {readable(clips[i].path)} is in {clips[i].split} by line {rows[i].line} and "
                f"in {clips[j].split} by line {rows[j].line}; what is tested or validated on must not be trained on: "
                "remove one of them"
            )
    clips = list(clips)
    for same in _joined(len(clips), [*parts, *of_speaker.values()]):
        if found := _in_two_splits(rows, clips, same):
            i, j = found
            raise ValueError(
                f"--manifest {manifest}: line {rows[i].line} (speaker {clips[i].speaker!r}) is in {clips[i].split} and "
                f"line {rows[j].line} (speaker {clips[j].speaker!r}) in {clips[j].split}, but with --split-by speaker "
                "nobody, nor who is in the same part of a recording, is in two splits; correct one of them, or leave "
                "--split-by out"
            )
        said = next((i for i in same if rows[i].values.get("split")), same[0])
        for i in same:
            clips[i] = dataclasses.replace(clips[i], split=clips[said].split)
    return _noted(clips, parts)


def _noted(clips: list[SourceClip], parts: list[list[int]]) -> list[SourceClip]:
    """The clips, with a note where another one has frames of them, which folds do not know. Prints how many."""
    overlapping = [i for same in parts for i in same]
    if overlapping:
        print(
            f"note: {len(overlapping):,} clips have frames in common with another clip of their file; the split keeps "
            "them together, folds of clips (`clips-K`) would not: take a protocol of splits or of speakers"
        )
    for i in overlapping:
        said = "another clip of its file has frames of it: not for folds of clips"
        clips[i] = dataclasses.replace(clips[i], note="; ".join(filter(None, (clips[i].note, said))))
    return clips


def _in_two_splits(rows: list[Row], clips: list[SourceClip], same: list[int]) -> tuple[int, int] | None:
    """The first clip with a split of its own and the first with another one, if there are."""
    said = [i for i in same if rows[i].values.get("split")]
    other = next((j for j in said if clips[j].split != clips[said[0]].split), None)
    return None if other is None else (said[0], other)


def _joined(count: int, groups: Iterable[list[int]]) -> Iterable[list[int]]:
    """The groups, those with a member in common as one. count: members are below it."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for group in groups:
        for i in group:
            parent[root(i)] = root(group[0])
    members: dict[int, list[int]] = {}
    for i in sorted({i for group in groups for i in group}):
        members.setdefault(root(i), []).append(i)
    return members.values()


def _overlapping(clips: list[SourceClip], of_files: Iterable[list[int]]) -> Iterable[list[int]]:
    """Groups of two or more clips of a file of which each shares more than a frame with another one of them."""
    for of_file in of_files:
        group: list[int] = []
        end = 0.0
        for i in sorted(of_file, key=lambda i: (clips[i].start_sec, i)):
            if group and clips[i].start_sec + 1 / FRAME_RATE_HZ < end:
                group.append(i)
            else:
                if len(group) > 1:
                    yield sorted(group)
                group, end = [i], 0.0
            end = max(end, math.inf if clips[i].end_sec is None else clips[i].end_sec)
        if len(group) > 1:
            yield sorted(group)
