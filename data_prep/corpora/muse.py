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
from data_prep.sources import Official, SourceClip, best_file, media_files, standard_split
from data_prep.tables import Row, by_key, find_table, read_table
from data_prep.timed import Curve
from mmpretrain.listing import readable
from mmpretrain.records import FACE_TRACKS, TrackSpec

# By the folder of `label_segments` the track of ours; what is in none of them is of the humour task.
_TRACK_OF = {"valence": "valence", "arousal": "arousal", "physio-arousal": "physio_arousal",
             "physio_arousal": "physio_arousal", "anno12_EDA": "physio_arousal"}  # fmt: skip
_HUMOR = "humor"
_OF_RECORDINGS = ("adoration", "amusement", "anxiety", "disgust", "empathic_pain", "fear", "surprise",
                  "approval", "disappointment", "uncertainty")  # fmt: skip
_CLASSES = {word: word for word in ("", "0", "1", "2", "3", "4")}
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
    files = defaultdict(list)
    for path in media_files(media, "--media") if media else media_files(source):
        files[path.stem].append(path)
    curves, classes = _of_segments(source)
    values, tracks = _of_recordings(source), sorted({track for of_one in curves.values() for track in of_one})
    clips = []
    rows = by_key(read_table(table, ["Id", "Proposal"]), "Id").values()
    named = {_plain(row["Id"]) for row in rows}
    if strangers := sorted({name for name, _ in {*curves, *classes}} - named | values.keys() - named):
        print(f"note: {table} does not name {len(strangers)} recordings that have labels, such as {strangers[0]}")
    if media and (unnamed := sorted(files.keys() - named)):
        print(f"note: {table} does not name {len(unnamed)} recordings of {media}, such as {readable(unnamed[0])}")
    for row in rows:
        name, proposal = _plain(row["Id"]), row["Proposal"]
        if (split := standard_split(proposal)) is None:
            row.refuse("Proposal", "train, devel or test")
        path = best_file(files.get(name) or [(media or source) / f"{name}.mp4"])
        segments = sorted((key for key in {*curves, *classes} if key[0] == name), key=_by_number) or [(name, "")]
        for segment in segments:
            clips.append(
                _clip(
                    segment, path, split, Official(proposal, name),
                    curves.get(segment, {}), {**values.get(name, {}), **classes.get(segment, {})},
                    _times(source, segment) if segment not in curves and segment[1] else None,
                    tracks,
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
    tracks: Iterable[str],
) -> SourceClip:
    name, number = segment
    if number and curves:
        at = np.concatenate([curve.times_sec for curve in curves.values()])
        step = min(
            np.median(np.diff(curve.times_sec)) if len(curve.times_sec) > 1 else 0.0 for curve in curves.values()
        )
        times = float(at.min()), float(at.max() + step)
    start, end = times or (0.0, None)
    refused = ""
    if number and times is None:
        refused = "no table of feature_segments says when its segment is"
    elif end is not None and end <= start:
        refused = "of its segment one time is known only, not how long it is"
    lacking = [track for track in tracks if track not in curves] or (["label"] if not curves and not labels else [])
    return SourceClip(
        readable(f"{name}_{number}" if number else name),
        path,
        split=split,
        speaker=f"muse-{readable(re.sub(r'_[0-9]+$', '', name))}",
        labels=labels,
        info={"segment": number} if number else {},
        start_sec=start,
        end_sec=None if refused else end,
        refused=refused,
        curves={track: curve for track, curve in curves.items() if not np.isnan(curve.values).all()},
        note=f"it has no {', '.join(lacking)}" if lacking and split != "test" else "",
        official=official,
    )


def _of_segments(source: Path) -> tuple[dict[Segment, dict[str, Curve]], dict[Segment, dict[str, str]]]:
    """By segment the curves of `label_segments`, and the classes of those of its files that have no times."""
    curves, classes = defaultdict(dict), defaultdict(dict)
    root = source / "label_segments"
    for path in sorted(root.rglob("[!.]*.csv")) if root.is_dir() else ():
        folder = path.relative_to(root).parts[0]
        if folder not in _TRACK_OF and folder != _HUMOR and not path.stem.startswith(f"{folder}_"):
            raise ValueError(
                f"{path} is in a folder of no dimension ({', '.join(_TRACK_OF)}) and of nobody who jokes "
                "(COACH/COACH_1.csv); give the folder of one task as it was handed out"
            )
        track = _TRACK_OF.get(folder, _HUMOR)
        of_segment = defaultdict(list)
        rows = read_table(path, [])
        for row in rows:
            of_segment[path.stem, _plain(row.get("segment_id", ""))].append(row)
        timed = bool(rows) and any(name.startswith("timestamp") for name in rows[0])
        for segment, of_one in of_segment.items():
            if timed:
                curves[segment][track] = _curve(of_one, hold=track == _HUMOR)
            else:
                if len(of_one) > 1 and len({row[_value(row)] for row in of_one}) > 1:
                    of_one[1].refuse(_value(of_one[1]), f"that of {of_one[0].place} of the same segment")
                classes[segment][f"{track}_class"] = of_one[0].one_of(_value(of_one[0]), _CLASSES)
    return curves, classes


def _curve(rows: Iterable[Row], *, hold: bool) -> Curve:
    """Of the column `value`, else the last one, at `timestamp`, else in the middle of what its row is about."""
    times, values = [], []
    for row in rows:
        stamps = [_seconds(row, name) for name in row if name.startswith("timestamp")]
        times.append(sum(stamps) / len(stamps))
        values.append(row.number(_value(row)))
        if times[-2:] != sorted(set(times[-2:])):
            raise ValueError(f"{row.place}: its time is not behind that of the row before; get the file anew")
    return Curve(np.array(times), np.array(values), hold)


def _seconds(row: Row, column: str) -> float:
    if math.isnan(stamp := row.number(column)):
        row.refuse(column, "a time in milliseconds")
    return stamp / _MS


def _value(row: Row) -> str:
    """The column that has it."""
    return "value" if "value" in row else list(row)[-1]


def _of_recordings(source: Path) -> dict[str, dict[str, float]]:
    """By recording what `labels.csv` says of it as a whole."""
    table = find_table(source, "labels.csv", "label_segments/labels.csv")
    found = {}
    for row in read_table(table, []) if table else []:
        theirs = {re.sub(r"\W+", "_", name).strip("_").lower(): name for name in row}
        values = {name: row.number(theirs[name]) for name in _OF_RECORDINGS if name in theirs}
        found[_plain(next(iter(row.values())))] = values
    return found


def _times(source: Path, segment: Segment) -> tuple[float, float] | None:
    """When a segment begins and ends, by the first table of features that has it."""
    name, number = segment
    for path in sorted((source / "feature_segments").glob(f"*/{name}.csv")):
        rows = read_table(path, ["timestamp", "segment_id"])
        at = [_seconds(row, "timestamp") for row in rows if _plain(row["segment_id"]) == number]
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
