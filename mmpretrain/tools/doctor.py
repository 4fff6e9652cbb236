"""`mmpretrain doctor CORPUS`: what a prepared corpus holds, and what in it would spoil a training or a figure.

Reads the index alone; opens no clip and changes nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from mmpretrain.config import CorpusConfig
from mmpretrain.data.clips import ClipTable, open_clips
from mmpretrain.doubles import SHOWN, find_doubles, warnings
from mmpretrain.records import FRAME_RATE_HZ, SPLITS
from mmpretrain.report.tables import duration, text_table
from mmpretrain.run.command import Argument, Command, Given, Option

WIDTH = 118


def examine(corpora: Sequence[str]) -> str:
    """The report as text: of all corpora together, so that a clip of one is found again in another.

    Raises FileNotFoundError or ValueError for a folder that is no whole prepared corpus.
    """
    table = open_clips([CorpusConfig(path) for path in corpora])
    blocks = [f"{table.folders()}: {len(table)} clips", text_table(_splits(table))]
    blocks += [text_table(of_words) for of_words in _words(table)]
    found = warnings(table.index, find_doubles(table.index)) or ["no clip has the content of another"]
    lines = [*found, *_speakers(table)]
    blocks.append("\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines))
    return "\n\n".join(blocks)


def _splits(table: ClipTable) -> tuple[list[str], list[list[str]]]:
    rows = []
    for split, of_split in _by_split(table):
        frames = int(table.lengths[of_split].sum(dtype=int))
        speakers = len(set(table.speakers.take(of_split).kinds()) - {""})
        has = [str(int(table.has(name)[of_split].sum())) for name in ("audio", "video")]
        rows.append([split, str(int(of_split.sum())), duration(frames / FRAME_RATE_HZ), str(speakers), *has])
    return ["split", "clips", "length", "speakers", "with sound", "with picture"], rows


def _words(table: ClipTable) -> list[tuple[list[str], list[list[str]]]]:
    """Of each label column of words, how many clips of each split have each."""
    tables, parts = [], _by_split(table)
    for name, kind in table.label_kinds.items():
        if kind == "class" and set(table.label(name).kinds()) - {""}:
            counts = {split: table.label(name).take(of_split).counts for split, of_split in parts}
            words = sorted((word or "none", i) for i, word in enumerate(table.label(name).words))
            rows = [[word, *(int(of[i]) for of in counts.values())] for word, i in words]
            tables.append(([name, *counts], [list(map(str, row)) for row in rows if any(row[1:])]))
    return tables


def _speakers(table: ClipTable) -> list[str]:
    splits_of: dict[str, list[str]] = {}
    for split, of_split in _by_split(table):
        for speaker in filter(None, table.speakers.take(of_split).kinds()):
            splits_of.setdefault(speaker, []).append(split)
    several = [f"{speaker} ({', '.join(splits)})" for speaker, splits in sorted(splits_of.items()) if len(splits) > 1]
    if not several:
        return []
    more = ", ..." if len(several) > SHOWN else ""
    return [f"{len(several)} speakers are in several splits: {', '.join(several[:SHOWN])}{more}"]


def _by_split(table: ClipTable) -> list[tuple[str, np.ndarray]]:
    """The splits that there are, each with bool [N]."""
    there = table.index.splits.kinds()
    return [(split, table.index.splits.map({split: True}, False, bool)) for split in SPLITS if split in there]


def _command(given: Given) -> None:
    print(examine([str(given.path), *map(str, given["corpus"] or ())]))


COMMAND = Command(
    "doctor",
    "what a prepared corpus holds, and what is there twice",
    _command,
    takes=Argument("CORPUS", "a prepared corpus"),
    options=(Option("corpus", list, "another one, to be looked at together with it; may be given again", "DIR"),),
    examples=("mmpretrain doctor prepared/mine --corpus=prepared/other",),
)
