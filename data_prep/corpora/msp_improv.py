"""MSP-IMPROV: twelve actors in six sessions, with what many raters said of every turn. All clips are `train`, since the
protocols choose sessions themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep.corpus import SOURCE, Corpus
from data_prep.labels import between, columns
from data_prep.sources import Official, Sound, SourceClip, may_have_picture, media_files, standard_emotion
from data_prep.tables import find_table, read_text
from mmpretrain.listing import readable

_NAME = re.compile(r"MSP-IMPROV-S(\d\d)([AHNS])-([FM])0([1-6])-([PRST])-([FM]{2}\d+)")
_RATED = re.compile(r"(?:UTD|MSP)-(IMPROV-[\w-]+)(?:\.\w+)?\s*;\s*(\w)\s*;(.*)")
_SCALE = re.compile(r"([AVDN])\s*:\s*([\d.]+)")
_EMOTIONS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad", "O": "other", "X": ""}
_SCALES = {"V": "valence", "A": "arousal", "D": "dominance"}
_STYLES = {"P": "natural", "R": "read", "S": "improvised", "T": "improvised target"}
_WORDS = {"depressed": "sad"}  # raters' words that are none of ours, nor nearly
_LOWEST, _HIGHEST = 1.0, 5.0


class Rating(NamedTuple):
    """Of a turn: the letter of the majority, the means of the scales by their letters, a word for each rater."""

    letter: str
    scales: dict[str, float]
    votes: tuple[str, ...]


def read(source: Path) -> list[SourceClip]:
    """The turns that the evaluation names and those that are there. Raises FileNotFoundError without an evaluation."""
    table = find_table(source, *(f"{at}{name}.txt" for at in ("", "Labels/") for name in ("Evalution", "Evaluation")))
    if table is None:
        raise FileNotFoundError(f"--source {source} has no Evalution.txt; give the folder of the release")
    ratings = dict(ratings_of(read_text(table)))
    pictures, sounds = {}, {}
    for path in media_files(source):
        (pictures if may_have_picture(path) else sounds).setdefault(path.stem, path)
    return [
        _clip(source, name, pictures.get(name), sounds.get(name), ratings.get(name))
        for name in sorted({*ratings, *pictures, *sounds})
    ]


def ratings_of(content: str) -> Iterator[tuple[str, Rating]]:
    """(name, rating) of each turn: a line of the turn, then one for each rater."""
    name, letter, scales, votes = "", "", {}, []
    for line in [*content.splitlines(), ""]:
        match = _RATED.match(line.strip())
        if (match or not line.strip()) and name:
            yield name, Rating(letter, scales, tuple(votes))
            name, votes = "", []
        if match:
            name, letter = f"MSP-{match[1]}", match[2]
            scales = {scale: float(value) for scale, value in _SCALE.findall(match[3])}
        elif name and len(fields := line.split(";")) > 1:
            votes.append(fields[1].strip())


def _clip(source: Path, name: str, picture: Path | None, sound: Path | None, rating: Rating | None) -> SourceClip:
    match = _NAME.fullmatch(name)
    if match is None:
        path = picture or sound or source / name
        return SourceClip(readable(name), path, refused="not a name of MSP-IMPROV (MSP-IMPROV-S01A-F01-P-FM01)")
    sentence, target, sex, session, style, _ = match.groups()
    at = Path(f"session{session}") / f"S{sentence}{target}" / style
    labels = {
        "style": _STYLES[style], "sex": {"F": "female", "M": "male"}[sex], "session": session,
        "dialogue": f"{session}/S{sentence}{target}/{style}", "language": "en",
    }  # fmt: skip
    info = {"sentence": int(sentence), "target": target, "style": style}
    if rating:
        labels |= {
            "emotion": _EMOTIONS.get(rating.letter, ""),
            "votes": tuple(filter(None, (standard_emotion(_WORDS.get(v.lower(), v)) for v in rating.votes))),
        } | {
            column: between(rating.scales[scale], _LOWEST, _HIGHEST)
            for scale, column in _SCALES.items()
            if scale in rating.scales
        }  # fmt: skip
        info |= {"emotion": rating.letter, "votes": list(rating.votes), "scales": rating.scales}
    return SourceClip(
        name,
        picture or sound or source / "Audio" / at / f"{name}.wav",
        speaker=f"improv-{session}{sex}",
        labels=labels,
        info=info,
        note="" if rating else "the evaluation does not name it",
        sound=Sound(sound) if picture and sound else None,
        official=Official("turns", name),
    )


LAYOUT = """\
MSP-IMPROV: Evalution.txt (so it is called), Audio/session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav and Video/... with
the same names in .avi; the sound of a turn with both is that of Audio. `emotion` is the word of most raters (none where
they do not agree), `votes` each rater's; valence, arousal and dominance are brought from 1..5 to -1..1."""

CORPUS = Corpus(
    name="msp_improv",
    layout=LAYOUT,
    terms="research, no redistribution, by signed request",
    arguments=(SOURCE,),
    read=read,
    labels=columns(
        "emotion", "votes", "valence", "arousal", "dominance", "style", "sex", "session", "dialogue", "language"
    ),
    official={"turns": 8_438},
)
