"""CREMA-D: 91 actors say twelve sentences in six emotions.

What was to be shown is in the names, what was seen and heard in tables of votes. All clips are `train`, since the
protocols choose actors themselves.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from data_prep.corpus import SOURCE, Corpus
from data_prep.labels import columns
from data_prep.sources import Official, SourceClip, best_file, media_files, why_missing
from data_prep.tables import Row, by_key, find_table, read_table
from mmpretrain.listing import readable

_NAME = re.compile(r"(1\d{3})_([A-Z]{3})_([A-Z]{3})_(LO|MD|HI|XX)")
_INTENDED = {"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
_VOTED = {"A": "angry", "D": "disgust", "F": "fearful", "H": "happy", "N": "neutral", "S": "sad"}
_SENTENCES = {
    "IEO": "it's eleven o'clock",
    "TIE": "that is exactly what happened",
    "IOM": "i'm on my way to the meeting",
    "IWW": "i wonder what this is about",
    "TAI": "the airplane is almost full",
    "MTI": "maybe tomorrow it will be cold",
    "IWL": "i would like a new alarm clock",
    "ITH": "i think i have a doctor's appointment",
    "DFA": "don't forget a jacket",
    "ITS": "i think i've seen this before",
    "TSI": "the surface is slick",
    "WSI": "we'll stop in a couple of minutes",
}
_LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": ""}
_BROKEN = {"1064_IEO_DIS_MD", "1064_TIE_SAD_XX", "1076_MTI_NEU_XX", "1076_MTI_SAD_XX"}
_SEXES = {"female": "female", "male": "male", "": ""}
_VOTES_OF = {"1": "Voice", "2": "Face", "3": "MultiModal"}  # how a row number of tabulatedVotes.csv begins


def read(source: Path) -> list[SourceClip]:
    """The clips that the file list names, and others that are there. Of one clip the file with a picture is used.

    Raises FileNotFoundError if the source is no folder, ValueError for a table that is not of the release.
    """
    of_name = defaultdict(list)
    for path in media_files(source):
        of_name[path.stem].append(path)
    files = {name: best_file(paths) for name, paths in of_name.items()}
    listed = find_table(source, "SentenceFilenames.csv")
    names = [row["Filename"] for row in read_table(listed, ["Filename"])] if listed else []
    actors, winners, votes = _actors(source), _winners(source), _votes(source)
    clips = []
    for name in sorted({*names, *files}):
        path = files.get(name, source / "VideoFlash" / f"{name}.flv")
        match = _NAME.fullmatch(name)
        if match is None or match[2] not in _SENTENCES or match[3] not in _INTENDED:
            refused = "not a name of CREMA-D (1001_DFA_ANG_XX: actor, sentence, emotion, level)"
            clips.append(SourceClip(readable(name), path, refused=refused))
            continue
        actor, sentence, emotion, level = match.groups()
        labels = {"emotion": _INTENDED[emotion], "intensity": _LEVELS[level], "text": _SENTENCES[sentence]}
        labels |= actors.get(actor, {}) | _perceived(winners.get(name))
        said, note = votes.get(name, (None, ""))
        if said is not None:
            labels["votes"] = said
        if actors and actor not in actors:
            note = "; ".join(filter(None, (note, f"VideoDemographics.csv has no actor {actor}: no sex, age or race")))
        clips.append(
            SourceClip(
                name, path, speaker=f"crema-{actor}", labels=labels,
                info={"emotion": emotion, "sentence": sentence, "level": level, **_said(winners.get(name))},
                refused="known to be unreadable or silent" if name in _BROKEN and not why_missing(path) else "",
                note=note, official=Official("clips", name),
            )
        )  # fmt: skip
    return clips


def _actors(source: Path) -> dict[str, dict[str, Any]]:
    table = find_table(source, "VideoDemographics.csv")
    rows = read_table(table, ["ActorID", "Age", "Sex", "Race"]) if table else []
    return {
        actor: {"sex": row.one_of("Sex", _SEXES), "age": row.number("Age", 0, 120), "race": row["Race"]}
        for actor, row in by_key(rows, "ActorID").items()
    }


def _winners(source: Path) -> dict[str, Row]:
    table = find_table(source, "processedResults/summaryTable.csv", "summaryTable.csv")
    needed = ["FileName", *(f"{way}{what}" for way in _VOTES_OF.values() for what in ("Vote", "Level"))]
    return by_key(read_table(table, needed) if table else [], "FileName")


def _votes(source: Path) -> dict[str, tuple[tuple[str, ...], str]]:
    """By clip a word for each vote of those who saw and heard it; none, and why, where they do not add up."""
    table = find_table(source, "processedResults/tabulatedVotes.csv", "tabulatedVotes.csv")
    rows = read_table(table, ["", *_VOTED, "fileName"]) if table else []
    together = by_key([row for row in rows if _VOTES_OF.get(row[""][:1]) == "MultiModal"], "fileName")
    found = {}
    for name, row in together.items():
        words = tuple(word for letter, word in _VOTED.items() for _ in range(row.whole(letter)))
        count = row.whole("numResponses") if "numResponses" in row else len(words)
        differs = f"its {len(words)} votes are not the {count} of numResponses, and are left out"
        found[name] = (words, "") if len(words) == count else ((), differs)
    return found


def _perceived(row: Row | None) -> dict[str, Any]:
    """Labels of a row of winners. A tie has no winner; without a table of all votes its words are the votes."""
    if row is None:
        return {}
    voice, face, both = (_winners_of(row, f"{way}Vote") for way in _VOTES_OF.values())
    return {
        "perceived": _alone(both),
        "perceived_voice": _alone(voice),
        "perceived_face": _alone(face),
        "perceived_level": row.number("MultiModalLevel", 0, 100) / 100 if len(both) == 1 else math.nan,
        "votes": both,
    }


def _winners_of(row: Row, column: str) -> tuple[str, ...]:
    letters = row[column].split(":")
    if not set(letters) <= set(_VOTED):
        row.refuse(column, f"one of the letters {', '.join(_VOTED)}, or several joined by `:`")
    return tuple(_VOTED[letter] for letter in letters)


def _alone(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else ""


def _said(row: Row | None) -> dict[str, str]:
    return {f"{way.lower()}_vote": f"{row[way + 'Vote']} {row[way + 'Level']}" for way in _VOTES_OF.values() if row}


LAYOUT = """\
CREMA-D as cloned: VideoFlash/1001_DFA_ANG_XX.flv or AudioWAV/1001_DFA_ANG_XX.wav (or other formats, folders at any
depth), SentenceFilenames.csv, VideoDemographics.csv and processedResults/ with summaryTable.csv and tabulatedVotes.csv.
`emotion` is what was to be shown; `perceived` what most raters saw and heard (none for a tie), `perceived_voice` what
those heard who saw nothing, `perceived_face` the reverse; `votes` has a word for each vote, or, without
tabulatedVotes.csv, for each winner. Files that git-lfs has not fetched are named."""

CORPUS = Corpus(
    name="crema_d",
    layout=LAYOUT,
    terms="ODbL 1.0, DbCL 1.0",
    arguments=(SOURCE,),
    read=read,
    labels=columns(
        "emotion", "perceived", "perceived_voice", "perceived_face", "perceived_level", "votes", "intensity", "text",
        "sex", "age", "race",
    ),
    official={"clips": 7_442},
)  # fmt: skip
