"""What is said in each frame: word times from a CSV file, and phones for the words of GRID.

The phones of a word are spread evenly over it, so they are phone-like labels, not measured ones.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmpretrain.decoding import read_text

COLUMNS = ("clip", "start_s", "end_s", "word")
SILENCE = "sil"

# The 51 words of GRID's sentences (Cooke et al. 2006) in ARPAbet, as Southern British speakers say them, and silence.
PRONUNCIATIONS: dict[str, tuple[str, ...]] = {
    line.split()[0]: tuple(line.split()[1:])
    for line in """
        bin B IH N
        lay L EY
        place P L EY S
        set S EH T
        blue B L UW
        green G R IY N
        red R EH D
        white W AY T
        at AE T
        by B AY
        in IH N
        with W IH DH
        a EY
        b B IY
        c S IY
        d D IY
        e IY
        f EH F
        g JH IY
        h EY CH
        i AY
        j JH EY
        k K EY
        l EH L
        m EH M
        n EH N
        o OW
        p P IY
        q K Y UW
        r AA
        s EH S
        t T IY
        u Y UW
        v V IY
        x EH K S
        y W AY
        z Z EH D
        zero Z IH R OW
        one W AH N
        two T UW
        three TH R IY
        four F AO
        five F AY V
        six S IH K S
        seven S EH V AH N
        eight EY T
        nine N AY N
        again AH G EH N
        now N AW
        please P L IY Z
        soon S UW N
        sil sil
    """.strip().splitlines()
}


class Span(NamedTuple):
    """Something said from `start_sec` to `end_sec` of a clip."""

    start_sec: float
    end_sec: float
    name: str


def read_alignments(path: str | Path) -> dict[str, list[Span]]:
    """The words of each clip in order of time, from a CSV file with the columns `clip,start_s,end_s,word`.

    The pauses `sil` and `sp` are both `sil`. Raises FileNotFoundError, or ValueError naming the line that is wrong.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"alignments={str(path)!r}: there is no such file")
    spans: dict[str, list[Span]] = {}
    text = io.StringIO(read_text(Path(path)), newline="")
    reader = csv.DictReader(text, skipinitialspace=True, strict=True)
    names = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    if absent := [column for column in COLUMNS if column not in names]:
        semicolons = len(names) == 1 and ";" in names[0]
        remedy = ", divided by commas, not by semicolons" if semicolons else ""
        raise ValueError(f"{path} has no column {', '.join(absent)}; it needs the columns {','.join(COLUMNS)}{remedy}")
    for row in _rows(reader, path):
        try:
            start, end = float(row["start_s"]), float(row["end_s"])
            clip, word = row["clip"].strip(), row["word"].strip().lower()
        except (TypeError, ValueError, AttributeError):
            start, end, clip, word = 0.0, 0.0, "", ""
        if not (clip and word and 0 <= start < end < math.inf):
            raise ValueError(
                f"{path}, line {reader.line_num}: {', '.join(str(row[column]) for column in COLUMNS)} is no clip, "
                f"start and end in seconds, and word; mend or remove the line"
            )
        spans.setdefault(clip, []).append(Span(start, end, SILENCE if word == "sp" else word))
    return {clip: sorted(words) for clip, words in spans.items()}


def _rows(reader: csv.DictReader, path: str | Path) -> Iterator[dict[str, str]]:
    first = reader.line_num + 1
    try:
        for row in reader:
            yield row
            first = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {first}: {error}; is a quotation mark not closed? mend the line") from None


def words_of_clips(path: str | Path, clip_ids: Sequence[str], clip_secs: Sequence[float]) -> dict[str, list[Span]]:
    """The words of a file of alignments, by clip id, of those of the clips that have some. clip_secs: their lengths, 0
    where nobody knows.

    Raises what `read_alignments` and `match_clips` raise, and ValueError where most words begin behind the end of their
    clip, as in other units.
    """
    words, sec_of = read_alignments(path), dict(zip(clip_ids, clip_secs, strict=True))
    spans = {clip_id: words[name] for clip_id, name in match_clips(list(words), clip_ids).items() if sec_of[clip_id]}
    late = [(clip_id, span) for clip_id, said in spans.items() for span in said if span.start_sec >= sec_of[clip_id]]
    if 2 * len(late) > sum(map(len, spans.values())):
        clip_id, span = late[0]
        raise ValueError(
            f"{path}: {len(late)} words begin behind the end of their clip ({span.name!r} at {span.start_sec:g} s of "
            f"{clip_id}, which is {sec_of[clip_id]:.1f} s long); start_s and end_s are seconds from its beginning"
        )
    return spans


def phones_of(words: Sequence[Span]) -> list[Span]:
    """The phones of these words, each word's spread evenly over it. Words not in `PRONUNCIATIONS` are left out."""
    phones = []
    for start, end, word in words:
        said = PRONUNCIATIONS.get(word, ())
        edges = np.linspace(start, end, len(said) + 1).tolist()
        phones += map(Span, edges[:-1], edges[1:], said)
    return phones


def unit_names(spans_per_clip: Mapping[str, Sequence[Span]]) -> list[str]:
    """What occurs in any of the clips, sorted; a unit's id is its position."""
    return sorted({span.name for spans in spans_per_clip.values() for span in spans})


def units_of_frames(spans: Sequence[Span], names: Sequence[str], num_frames: int, frame_rate_hz: int) -> np.ndarray:
    """int32 [num_frames]: the unit at the middle of each frame, -1 where there is none."""
    ids = {name: position for position, name in enumerate(names)}
    units_T = np.full(num_frames, -1, np.int32)
    middle_T = (np.arange(num_frames) + 0.5) / frame_rate_hz
    for start, end, name in spans:
        units_T[(middle_T >= start) & (middle_T < end)] = ids[name]
    return units_T


def match_clips(names: Sequence[str], clip_ids: Sequence[str]) -> dict[str, str]:
    """{clip id: its name in the alignments}, where the id is the name or ends with it after a slash.

    Raises ValueError if nothing matches or a name stands for several clips.
    """
    matched: dict[str, str] = {}
    clips_of: dict[str, list[str]] = {name: [] for name in names}
    for clip_id in clip_ids:
        parts = clip_id.split("/")
        for first in range(len(parts)):
            if (name := "/".join(parts[first:])) in clips_of:
                matched[clip_id] = name
                clips_of[name].append(clip_id)
                break
    for name, clips in clips_of.items():
        if len(clips) > 1:
            raise ValueError(f"alignments of clip {name!r} could be of {' or '.join(clips[:3])}; write the longer name")
    if not matched:
        raise ValueError(
            f"none of the {len(clips_of)} clips of the alignments ({', '.join(list(clips_of)[:3])}, ...) is one of the "
            f"store's ({', '.join(clip_ids[:3])}, ...); the column clip must hold clip ids, or what they end with"
        )
    return matched
