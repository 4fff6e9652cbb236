"""One file as preparation makes it, at once and without a corpus: the same decisions, the same code."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

from data_prep.accounting import ReportRow, row_of
from data_prep.landmark_cache import inspect_clip
from data_prep.options import Options
from data_prep.parts import cut_at, find_spans
from data_prep.processing import make_clip, task_of
from data_prep.sources import SourceClip, why_missing
from mmpretrain.listing import readable
from mmpretrain.records import Clip


@dataclasses.dataclass(frozen=True)
class Single:
    """A clip, or None where it is refused, and its row of the report, which says why. start_sec: in the file."""

    clip: Clip | None
    row: ReportRow
    start_sec: float


def clips_of_file(path: Path, options: Options, model: Path | None) -> Iterator[Single]:
    """What preparation makes of a file: one clip, or several that follow each other where it is long.

    model: the face landmarker; None where the file has no picture, or none is wanted. Raises ValueError or OSError
    where there is no file, and what `is_shortage` knows.
    """
    if why := why_missing(path):
        raise FileNotFoundError(f"{path}: {why}")
    whole = SourceClip(readable(path.stem), path)
    spans = find_spans(whole, options.max_clip_sec)
    for source in cut_at(whole, *spans).parts if spans else [whole]:
        yield _prepared(source, options, model)


def _prepared(source: SourceClip, options: Options, model: Path | None) -> Single:
    with tempfile.TemporaryDirectory() as cache:
        found = inspect_clip(source, cache_dir=Path(cache), model=model, model_hash="", every=options.detect_every)
        row = row_of(source, found, options)
        if row.status != "kept":
            return Single(None, row, source.start_sec)
        made = make_clip(task_of(source, found, row, options))
    if isinstance(made, str):
        row.refuse(made)
        return Single(None, row, source.start_sec)
    row.set_contents(made.clip, made.note, made.measures)
    return Single(made.clip, row, source.start_sec)
