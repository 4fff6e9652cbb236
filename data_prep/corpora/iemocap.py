"""IEMOCAP: dialogues of two actors, cut into turns, with what several raters said of each.

Both actors are in one picture, side by side; which of them speaks is heard, or looked up in one's own copy.
Session 5 is `test`, as in work on dialogues; the protocols choose sessions themselves.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from data_prep.corpus import SOURCE, VALIDATION_SHARE, Argument, Corpus
from data_prep.labels import columns, figure, on_scale
from data_prep.sources import Official, Region, Sound, SourceClip, hashed_split, standard_emotion, why_missing
from data_prep.tables import read_text
from data_prep.timed import WORDS_TRACK, Word, are_in_order, are_of
from mmpretrain.listing import readable
from mmpretrain.records import FACE_TRACKS

_NUMBER = r"\d+(?:\.\d+)?"
_TURN = re.compile(
    rf"\[\s*({_NUMBER})\s*-\s*({_NUMBER})\s*\]\s+(Ses0(\d)([FM])_(impro|script)\w+?_([FM])\w+)\s+(\w+)\s+"
    r"\[\s*([^,\s]*),\s*([^,\s]*),\s*([^,\]\s]*)\s*\]"
)
_SPOKEN = re.compile(r"(Ses0\d[FM]_\w+)\s+\[[\d.]+\s*-\s*[\d.]+\]:\s*(.*)")
_RATER = re.compile(r"C-E\d+:\s*([^(]*)")  # F or M instead of E is the actor's own view
_ALIGNED = re.compile(r"\s*(\d+)\s+(\d+)\s+-?\d+\s+([^\s(]+)(?:\(\d+\))?\s*")  # hundredths of a second, both included
_NO_MAJORITY = "xxx"
_FOUR = {"neutral": "neutral", "happy": "happy", "excited": "happy", "sad": "sad", "angry": "angry"}
_SESSIONS = range(1, 6)
_SCALES = ("valence", "arousal", "dominance")
_LOWEST, _HIGHEST = 1.0, 5.0
_HALVES = {"left": (0.0, 0.0, 0.5, 1.0), "right": (0.5, 0.0, 1.0, 1.0)}  # of the picture


class Turn(NamedTuple):
    """What an evaluation file says of a turn: times in the dialogue; valence, arousal and dominance, from 1 to 5, as
    they are written."""

    start_sec: float
    end_sec: float
    name: str
    session: int
    marked: str
    style: str
    actor: str
    emotion: str
    scales: tuple[str, str, str]
    votes: tuple[str, ...]


def read(source: Path, *, validation_share: float, marked: str = "unknown") -> list[SourceClip]:
    """Every turn of the sessions that are there, by dialogue and time.

    marked: the half of the picture in which the actor with the markers is, whom the name of a dialogue names; without
    it the half is taken whose mouth moves with the sound of the turn. About `validation_share` of the dialogues of
    sessions 1 to 4 are `validation`. Raises FileNotFoundError where no session is.
    """
    sessions = {number: at for number in _SESSIONS if (at := source / f"Session{number}").is_dir()}
    if not sessions:
        raise FileNotFoundError(f"--source {source} has no folder Session1; give the folder IEMOCAP_full_release")
    clips = []
    for number, session in sessions.items():
        if not (session / "dialog" / "EmoEvaluation").is_dir():
            raise FileNotFoundError(
                f"{session} has no folder dialog/EmoEvaluation, which says what its turns are; unpack the session, or "
                "take its folder away"
            )
        for file in sorted((session / "dialog" / "EmoEvaluation").glob("[!.]*.txt")):
            split = "test" if number == max(_SESSIONS) else hashed_split(file.stem, validation_share)
            texts = dict(_texts(session / "dialog" / "transcriptions" / file.name))
            content = read_text(file)
            turns = sorted(turns_of(content))
            if not turns:
                clips.append(SourceClip(file.stem, file, split, refused="its evaluation file names no turn"))
            clips += [_clip(session, file.stem, k, turn, texts, split, marked) for k, turn in enumerate(turns)]
            clips += [
                SourceClip(
                    f"{file.stem}, line {line}", file, split, refused=f"is no turn: {readable(said.strip()[:80])}"
                )
                for line, said in no_turns_of(content)
            ]
    return clips


def turns_of(content: str) -> Iterator[Turn]:
    """The turns of an evaluation file; lines that are none are passed over, as are the scales of single raters."""
    lines = content.splitlines()
    for number, line in enumerate(lines):
        if (match := _TURN.match(line)) is None:
            continue
        votes = []
        for rater in lines[number + 1 :]:
            if not rater.strip() or _TURN.match(rater):
                break
            if said := _RATER.match(rater):
                votes += [word.strip() for word in said[1].split(";") if word.strip()]
        start, end, name, session, marked, style, actor, emotion, *scales = match.groups()
        yield Turn(
            float(start), float(end), name, int(session), marked, style, actor, emotion, tuple(scales), tuple(votes),
        )  # fmt: skip


def no_turns_of(content: str) -> Iterator[tuple[int, str]]:
    """(number, line) of the lines of an evaluation file that begin like a turn's and are none."""
    for number, line in enumerate(content.splitlines(), start=1):
        if line.lstrip().startswith("[") and _TURN.match(line) is None:
            yield number, line


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """(turn, what is said) of every line of a transcription that has a time."""
    for line in read_text(path).splitlines() if path.is_file() else ():
        if match := _SPOKEN.match(line.strip()):
            yield match[1], " ".join(match[2].split())


def _clip(
    session: Path, dialogue: str, number: int, turn: Turn, texts: Mapping[str, str], split: str, marked: str
) -> SourceClip:
    sound = session / "sentences" / "wav" / dialogue / f"{turn.name}.wav"
    emotion = "" if turn.emotion == _NO_MAJORITY else standard_emotion(turn.emotion) or ""
    scales, notes = {}, []
    for name, word in zip(_SCALES, turn.scales, strict=True):
        try:
            scales[name] = on_scale(word, _LOWEST, _HIGHEST)
        except ValueError:
            notes.append(f"its {name} is none on the scale from 1 to 5, and left out")
    refused = "" if turn.end_sec > turn.start_sec else "its times are not a part of the dialogue"
    if session.name != f"Session{turn.session}":
        refused = f"is a turn of session {turn.session}, but lies in {session.name}"
    text = texts.get(turn.name, "")
    notes += [] if text else ["its dialogue's transcription does not say what is spoken"]
    words = _words(session / "sentences" / "ForcedAlignment" / dialogue / f"{turn.name}.wdseg")
    if words and not (are_of(words, text) and are_in_order(words)):
        words = ()
        notes.append("its words with times are not those of its text, in order, and left out")
    whole = SourceClip(
        turn.name,
        sound,
        split=split,
        speaker=f"iemocap-{turn.session}{turn.actor}",
        labels={
            "emotion": emotion, "emotion4": _FOUR.get(emotion, ""),
            "votes": tuple(filter(None, map(standard_emotion, turn.votes))),
            **scales, "text": text, "style": {"impro": "improvised", "script": "scripted"}[turn.style],
            "sex": {"F": "female", "M": "male"}[turn.actor],
            "session": str(turn.session), "dialogue": dialogue, "turn": float(number),
        },
        info={
            "emotion": turn.emotion, "votes": list(turn.votes), "scales": list(map(figure, turn.scales)),
            "dialogue_start": turn.start_sec, "dialogue_end": turn.end_sec,
        },
        refused=refused,
        note="; ".join(notes),
        words=words,
        official=Official("turns", turn.name),
    )  # fmt: skip
    picture = session / "dialog" / "avi" / "DivX" / f"{dialogue}.avi"
    if marked == "unknown" and (why_missing(picture) or why_missing(sound)):
        return whole
    at = turn.start_sec
    return dataclasses.replace(
        whole,
        path=picture,
        start_sec=at,
        end_sec=turn.end_sec,
        sound=Sound(sound),
        regions=_halves(marked, turn),
        by_sound=marked == "unknown",
        words=tuple(Word(word.text, at + word.start_sec, at + word.end_sec) for word in words),
    )


def _halves(marked: str, turn: Turn) -> tuple[Region, ...]:
    """The half of the picture with the actor who speaks, or both."""
    if marked == "unknown":
        return tuple(_HALVES.values())
    other = {"left": "right", "right": "left"}[marked]
    return (_HALVES[marked if turn.actor == turn.marked else other],)


def _words(path: Path) -> tuple[Word, ...]:
    """The words of a forced alignment, on the clock of the turn."""
    words = []
    for line in read_text(path).splitlines() if path.is_file() else ():
        match = _ALIGNED.fullmatch(line)
        if match and match[3][0] not in "<+":  # silence and noises
            words.append(Word(match[3].lower(), int(match[1]) / 100, (int(match[2]) + 1) / 100))
    return tuple(words)


LAYOUT = """\
IEMOCAP_full_release: Session1 to Session5 (any of them), each with dialog/EmoEvaluation/, dialog/transcriptions/,
sentences/wav/ and, for pictures, dialog/avi/DivX/. Turns are cut out of the dialogues. `emotion` is the majority's word
(none where there is no majority), `emotion4` the usual four classes with excited as happy; valence, arousal and
dominance are brought from 1..5 to -1..1. Both actors are in one picture: the half is taken whose mouth moves with the
sound of the turn, none where that is not clear. Where one has looked, --marked says in which half the actor with the
markers is (Ses01F_...: the woman)."""

CORPUS = Corpus(
    name="iemocap",
    layout=LAYOUT,
    terms="research, no redistribution, by signed request",
    arguments=(
        SOURCE,
        VALIDATION_SHARE,
        Argument(
            "marked",
            dict(
                choices=("left", "right", "unknown"), default="unknown",
                help="the half with the actor who wears the markers (default: unknown, told by the sound of each turn)",
            ),
        ),
    ),
    read=read,
    labels=columns(
        "emotion", "emotion4", "votes", "valence", "arousal", "dominance", "text", "style", "sex", "session",
        "dialogue", "turn",
    ),
    tracks={**FACE_TRACKS, **WORDS_TRACK},
    official={"turns": 10_039},
)  # fmt: skip
