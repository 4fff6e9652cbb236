"""What a language model says of the transcripts of a fine-tuning's clips: made once, and kept with its lineage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.config import TextConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.extras import ClipFeatures
from mmpretrain.files import read_arrays, whole_file, write_arrays
from mmpretrain.observe.progress import log, track
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.processes import on_main
from mmpretrain.run.base import RunBase
from mmpretrain.text.transcripts import FIELD, TextEncoder, Turn, folder_digest, with_context

TEXT, FEATURES_FILE = "text", "features.npz"


def text_recipe(config: TextConfig, table: ClipTable, field: str = FIELD) -> dict[str, Any]:
    """All that decides the features: the model's files, and what is spoken. field: that names the model's folder."""
    return {
        "text.encoder": folder_digest(config.encoder, field), "text.context": config.context,
        "text.max_tokens": config.max_tokens, "text.clips": table.fingerprint,
        "text.transcripts": table.index.fingerprint("label_hashes", "speakers"),
    }  # fmt: skip


def text_features(run: RunBase, config: TextConfig, table: ClipTable) -> ClipFeatures:
    """Of every clip that has a text, from the run's stage `text`, which is made if it is not there.

    Raises ValueError where no clip has a text, or the model cannot be loaded.
    """

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        del wall
        return on_main(lambda: _make(config, table, folder))

    recipe = text_recipe(config, table)
    run.stage(TEXT, recipe, work)
    found = read_arrays(
        run.workdir / TEXT / FEATURES_FILE, "clip_ids", "starts", "tokens", remedy="remove the folder text"
    )
    return ClipFeatures(found["clip_ids"].tolist(), found["starts"], found["tokens"], config.max_tokens)


def turns_of_clips(table: ClipTable, context: int, asked: str) -> list[Turn]:
    """What is spoken in every clip, with so many turns before it. asked, errors: as of `texts_of_clips`."""
    texts = texts_of_clips(table, asked)
    kinds = table.label_kinds
    # Corpora, and MELD's splits, count their dialogues from the same number.
    named = list(table.label("dialogue")) if kinds.get("dialogue") == "class" else [""] * len(table)
    dialogues = [name and f"{source}/{name}" for source, name in zip(table.source_N.tolist(), named, strict=True)]
    turns = table.label("turn") if kinds.get("turn") == "value" else np.full(len(table), np.nan)
    return with_context(texts, list(table.speakers), dialogues, turns, context)


def encoded(encoder: TextEncoder, spoken: list[Turn], *, layers: bool) -> Iterator[tuple[int, np.ndarray]]:
    """(place among these, what `TextEncoder.layers`, or else `tokens`, makes of it) of each, short ones first."""
    by_length = sorted(range(len(spoken)), key=lambda i: sum(map(len, (spoken[i].text, *spoken[i].before))))
    together = [by_length[first : first + encoder.at_once] for first in range(0, len(spoken), encoder.at_once)]
    make = encoder.layers if layers else encoder.tokens
    for some in track(together, "texts: encoded", unit="group"):
        yield from zip(some, make([spoken[i] for i in some]), strict=True)


def _make(config: TextConfig, table: ClipTable, folder: Path) -> dict[str, Any]:
    spoken = turns_of_clips(table, config.context, "finetune.text")
    encoder = TextEncoder(config.encoder, config.max_tokens)
    made = [np.zeros((0, encoder.dim), np.float16)] * len(spoken)
    for row, tokens in encoded(encoder, spoken, layers=False):
        made[row] = tokens.astype(np.float16)
    starts = np.cumsum([0, *map(len, made)])
    rows = np.concatenate([*made, np.zeros((0, encoder.dim), np.float16)])
    with whole_file(folder / FEATURES_FILE) as draft:
        write_arrays(draft, clip_ids=np.array(list(table.clip_ids)), starts=starts, tokens=rows)
    with_text = sum(map(bool, map(len, made)))
    log(f"text: {with_text} of {len(table)} clips have one, {len(rows) / max(with_text, 1):.1f} tokens on average")
    return {"clips": len(table), "clips_with_text": with_text, "dim": encoder.dim}


def texts_of_clips(table: ClipTable, asked: str) -> list[str]:
    """What is spoken in every clip, "" where nobody knows.

    asked: what wants it, in the words of the user; the ValueError where no clip has a text begins with it.
    """
    if table.label_kinds.get("text") != "text":
        raise ValueError(f"{asked}: the corpora {table.folders()} have no label column 'text'; leave it out")
    texts = [table.text(row) for row in track(range(len(table)), "texts: read", unit="clip")]
    if not any(text.strip() for text in texts):
        raise ValueError(f"{asked}: no clip of {table.folders()} has a text; leave it out")
    return texts
