"""MSP-IMPROV: twelve actors in six sessions, with what many raters said of every turn. All clips are `train`, since the
protocols choose sessions themselves."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep.corpus import SOURCE, Corpus
from data_prep.labels import columns, figure, on_scale
from data_prep.sources import Official, Sound, SourceClip, best_file, may_have_picture, media_files, standard_emotion
from data_prep.tables import find_table, read_text
from mmpretrain.listing import readable

_NAME = re.compile(r"MSP-IMPROV-S(\d\d)([AHNS])-([FM])0([1-6])-([PRST])-([FM]{2}\d+)")
_RATED = re.compile(r"(?:UTD|MSP)-(IMPROV-[\w-]+)(?:\.\w+)?\s*;\s*(\w)\s*;(.*)")
_SCALE = re.compile(r"([AVDN])\s*:\s*([^\s;]*)")
_EMOTIONS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad", "O": "other", "X": ""}
_SCALES = {"V": "valence", "A": "arousal", "D": "dominance"}
_STYLES = {"P": "natural", "R": "read", "S": "improvised", "T": "improvised target"}
_WORDS = {"depressed": "sad"}  # raters' words that are none of ours, nor nearly
_LOWEST, _HIGHEST = 1.0, 5.0


class Rating(NamedTuple):
    """Of a turn: the letter of the majority, the means of the scales by their letters as they are written, a word for
    each rater; and the line."""

    letter: str
    scales: dict[str, str]
    votes: tuple[str, ...]
    line: int


def read(source: Path) -> list[SourceClip]:
    """The turns that the evaluation names and those that are there. Raises FileNotFoundError without an evaluation."""
    table = find_table(source, *(f"{at}{name}.txt" for at in ("", "Labels/") for name in ("Evalution", "Evaluation")))
    if table is None:
        raise FileNotFoundError(f"--source {source} has no Evalution.txt; give the folder of the release")
    ratings: dict[str, Rating] = {}
    odd = []
    for name, rating in ratings_of(read_text(table)):
        if isinstance(rating, str):
            odd.append(SourceClip(f"{table.name}, {name}", table, refused=rating))
        elif ratings.setdefault(name, rating) is not rating:
            why = f"{name} is rated in line {ratings[name].line} too, which counts"
            odd.append(SourceClip(f"{table.name}, line {rating.line}", table, refused=why))
    of_name = defaultdict(list)
    for path in media_files(source):
        of_name[path.stem].append(path)
    clips = [_clip(source, name, of_name.get(name, []), ratings.get(name)) for name in sorted({*ratings, *of_name})]
    return [*clips, *odd]


def ratings_of(content: str) -> Iterator[tuple[str, Rating | str]]:
    """(name, rating) of each turn: a line of the turn, then one for each rater; (line, why) of one that is neither."""
    name, letter, scales, votes, first = "", "", {}, [], 0
    for number, line in enumerate([*content.splitlines(), ""], start=1):
        match, is_turn = _RATED.match(line.strip()), line.lstrip().startswith(("UTD-", "MSP-"))
        if (is_turn or not line.strip()) and name:
            yield name, Rating(letter, scales, tuple(votes), first)
            name, votes = "", []
        if match:
            name, letter, scales, first = f"MSP-{match[1]}", match[2], dict(_SCALE.findall(match[3])), number
        elif is_turn:
            yield f"line {number}", f"is no rating of a turn: {readable(line.strip()[:80])}"
        elif name and len(fields := line.split(";")) > 1:
            votes.append(fields[1].strip())


def _clip(source: Path, name: str, files: list[Path], rating: Rating | None) -> SourceClip:
    match, path = _NAME.fullmatch(name), best_file(files) if files else source / name
    if match is None:
        return SourceClip(readable(name), path, refused="not a name of MSP-IMPROV (MSP-IMPROV-S01A-F01-P-FM01)")
    sentence, target, sex, session, style, _ = match.groups()
    at = Path(f"session{session}") / f"S{sentence}{target}" / style
    labels = {
        "style": _STYLES[style], "sex": {"F": "female", "M": "male"}[sex], "session": session,
        "dialogue": f"{session}/S{sentence}{target}/{style}", "language": "en",
    }  # fmt: skip
    info = {"sentence": int(sentence), "target": target, "style": style}
    notes = []
    if rating:
        labels |= {
            "emotion": _EMOTIONS.get(rating.letter, ""),
            "votes": tuple(filter(None, (standard_emotion(_WORDS.get(v.lower(), v)) for v in rating.votes))),
        }  # fmt: skip
        info |= {
            "emotion": rating.letter,
            "votes": list(rating.votes),
            "scales": {scale: figure(word) for scale, word in rating.scales.items()},
        }
        for scale, column in _SCALES.items():
            try:
                labels[column] = on_scale(rating.scales.get(scale, "nothing"), _LOWEST, _HIGHEST)
            except ValueError:
                notes.append(f"its {column} is none on the scale from 1 to 5, and left out")
    else:
        notes.append("the evaluation does not name it")
    sounds = [file for file in files if not may_have_picture(file)]
    return SourceClip(
        name,
        path if files else source / "Audio" / at / f"{name}.wav",
        speaker=f"improv-{session}{sex}",
        labels=labels,
        info=info,
        note="; ".join(notes),
        sound=Sound(best_file(sounds)) if sounds and may_have_picture(path) else None,
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
