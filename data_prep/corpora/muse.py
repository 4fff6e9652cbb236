"""MuSe challenges of 2021 to 2023: one task at a time, its partition, and labels in time, by segment or by recording.

The challenges hand out labels and features; the recordings themselves have to be asked for.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.corpus import SOURCE, Argument, Corpus
from data_prep.labels import columns
from data_prep.sources import Official, SourceClip, may_have_picture, media_files, standard_split
from data_prep.tables import find_table, read_table
from data_prep.timed import Curve
from mmpretrain.listing import readable
from mmpretrain.records import FACE_TRACKS, TrackSpec

# By the folder of `label_segments` the track of ours; what is in none of them is of the humour task.
_TRACK_OF = {"valence": "valence", "arousal": "arousal", "physio-arousal": "physio_arousal",
             "physio_arousal": "physio_arousal", "anno12_EDA": "physio_arousal"}  # fmt: skip
_HUMOR = "humor"
_OF_RECORDINGS = ("adoration", "amusement", "anxiety", "disgust", "empathic_pain", "fear", "surprise",
                  "approval", "disappointment", "uncertainty")  # fmt: skip
_MS = 1000.0

Segment = tuple[str, str]  # id of the recording, and of the segment ("" for all of it)


def read(source: Path, media: Path | None = None) -> list[SourceClip]:
    """A clip for every segment of every recording of the task's partition.

    media: where the recordings are, by default below the source. Raises FileNotFoundError where there is no partition,
    ValueError for a table that is not of a challenge.
    """
    table = find_table(source, "metadata/partition.csv", "partition.csv")
    if table is None:
        raise FileNotFoundError(f"--source {source} has no metadata/partition.csv; give the folder of one task")
    files = {}
    for path in media_files(media or source):  # a picture rather than sound alone
        if path.stem not in files or may_have_picture(path):
            files[path.stem] = path
    curves, classes = _of_segments(source)
    values = _of_recordings(source)
    clips = []
    for row in read_table(table, ["Id", "Proposal"]):
        name, proposal = _plain(row["Id"]), row["Proposal"]
        split = standard_split(proposal)
        if split is None:
            raise ValueError(f"{table}: {proposal!r} is no part; the challenges say train, devel and test")
        segments = sorted((key for key in {*curves, *classes} if key[0] == name), key=_by_number) or [(name, "")]
        for segment in segments:
            clips.append(
                _clip(
                    segment, files.get(name, (media or source) / f"{name}.mp4"), split, Official(proposal, name),
                    curves.get(segment, {}), {**values.get(name, {}), **classes.get(segment, {})},
                    _times(source, segment) if segment not in curves and segment[1] else None,
                )
            )  # fmt: skip
    return clips


def _clip(
    segment: Segment,
    path: Path,
    split: str,
    official: Official,
    curves: Mapping[str, Curve],
    labels: dict[str, Any],
    times: tuple[float, float] | None,
) -> SourceClip:
    name, number = segment
    if number and curves:
        at = np.concatenate([curve.times_sec for curve in curves.values()])
        step = min(
            np.median(np.diff(curve.times_sec)) if len(curve.times_sec) > 1 else 0.0 for curve in curves.values()
        )
        times = float(at.min()), float(at.max() + step)
    start, end = times or (0.0, None)
    return SourceClip(
        readable(f"{name}_{number}" if number else name),
        path,
        split=split,
        speaker=f"muse-{readable(re.sub(r'_[0-9]+$', '', name))}",
        labels=labels,
        info={"segment": number} if number else {},
        start_sec=start,
        end_sec=end if end is None or end > start else None,
        curves={track: curve for track, curve in curves.items() if not np.isnan(curve.values).all()},
        official=official,
    )


def _of_segments(source: Path) -> tuple[dict[Segment, dict[str, Curve]], dict[Segment, dict[str, str]]]:
    """By segment the curves of `label_segments`, and the classes of those of its files that have no times."""
    curves, classes = defaultdict(dict), defaultdict(dict)
    root = source / "label_segments"
    for path in sorted(root.rglob("*.csv")) if root.is_dir() else ():
        track = _TRACK_OF.get(path.relative_to(root).parts[0], _HUMOR)
        of_segment = defaultdict(list)
        rows = read_table(path, [])
        for row in rows:
            of_segment[path.stem, _plain(row.get("segment_id", ""))].append(row)
        timed = bool(rows) and any(name.startswith("timestamp") for name in rows[0])
        for segment, of_one in of_segment.items():
            if timed:
                curves[segment][track] = _curve(path, of_one, hold=track == _HUMOR)
            else:
                classes[segment][f"{track}_class"] = _value(of_one[0])
    return curves, classes


def _curve(path: Path, rows: Iterable[Mapping[str, str]], *, hold: bool) -> Curve:
    """Of the column `value`, else the last one, at `timestamp`, else in the middle of what its row is about."""
    times, values = [], []
    for row in rows:
        try:
            stamps = [float(row[name]) for name in row if name.startswith("timestamp")]
            times.append(sum(stamps) / len(stamps) / _MS)
            values.append(float(_value(row) or math.nan))
        except ValueError as error:
            raise ValueError(f"{path}: {error}; get the file anew") from None
    order = np.argsort(times, kind="stable")
    return Curve(np.array(times)[order], np.array(values)[order], hold)


def _value(row: Mapping[str, str]) -> str:
    return row["value"] if "value" in row else row[list(row)[-1]]


def _of_recordings(source: Path) -> dict[str, dict[str, float]]:
    """By recording what `labels.csv` says of it as a whole."""
    table = find_table(source, "labels.csv", "label_segments/labels.csv")
    found = {}
    for row in read_table(table, []) if table else []:
        ours = {re.sub(r"\W+", "_", name).strip("_").lower(): cell for name, cell in row.items()}
        values = {name: float(ours[name] or math.nan) for name in _OF_RECORDINGS if name in ours}
        found[_plain(next(iter(row.values())))] = values
    return found


def _times(source: Path, segment: Segment) -> tuple[float, float] | None:
    """When a segment begins and ends, by the first table of features that has it."""
    name, number = segment
    for path in sorted((source / "feature_segments").glob(f"*/{name}.csv")):
        rows = read_table(path, ["timestamp", "segment_id"])
        at = [float(row["timestamp"]) / _MS for row in rows if _plain(row["segment_id"]) == number]
        if at:
            return min(at), max(at) + (at[1] - at[0] if len(at) > 1 else 0.0)
    return None


def _plain(name: str) -> str:
    """Without quotation marks and blanks around."""
    return name.strip().strip("\"'").strip()


def _by_number(segment: Segment) -> tuple[int, str]:
    return int(segment[1]) if segment[1].isdigit() else -1, segment[1]


LAYOUT = """\
One task of a MuSe challenge, such as c1_muse_stress_2022: metadata/partition.csv, label_segments/<dimension>/<id>.csv
or labels.csv, and, with --media, the recordings called <id>.mp4 or <id>.wav. Labels in time are tracks on the 25 Hz
grid (valence, arousal, physio_arousal, humor), those of segments are classes, those of recordings values. Labels of the
test are withheld."""

CORPUS = Corpus(
    name="muse",
    layout=LAYOUT,
    terms="by signed agreement",
    arguments=(SOURCE, Argument("media", dict(type=Path, metavar="DIR", help="the recordings (default: --source)"))),
    read=read,
    labels=dict.fromkeys(_OF_RECORDINGS, "value") | columns("valence_class", "arousal_class"),
    tracks={**FACE_TRACKS, **dict.fromkeys((*_TRACK_OF.values(), _HUMOR), TrackSpec((), "float32"))},
    prepared_name=lambda source, **_: readable(source.resolve().name),
)
