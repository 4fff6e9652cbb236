"""RAVDESS: acted speech and song of 24 people. All labels are in the file names; all clips are `train`, since the
protocols choose actors themselves."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.corpus import SOURCE, Argument, Corpus
from data_prep.labels import columns
from data_prep.sources import Official, Sound, SourceClip, media_files, why_missing
from mmpretrain.listing import readable

_NAME = re.compile(r"(0[123])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])")
_MODALITIES = {"01": "sound and picture", "02": "picture only", "03": "sound only"}
_CHANNELS = {"01": "speech", "02": "song"}
_EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
_STATEMENTS = ("kids are talking by the door", "dogs are sitting by the door")
_NO_SONGS = 18  # this actor sang none
# In the files with picture the sound is a picture later than in those of sound alone (measured on seven takes).
_DELAY_SEC = 1001 / 30000


def read(source: Path, channel: str = "all") -> list[SourceClip]:
    """Every take below `source`, at any depth.

    Of one take the file with sound and picture is used, else picture and sound are put together, else what there is.
    channel: "speech" or "song", what else there is is refused; or "all".
    """
    files = media_files(source)
    first: dict[str, Path] = {}
    for path in files:
        if not why_missing(path):
            first.setdefault(path.stem, path)
    clips = [_clip(path, first) for path in files]
    if channel != "all":
        clips = [_refused(clip, f"--channel {channel} leaves it out", clip.info.get("channel") != channel)
                 for clip in clips]  # fmt: skip
    return clips


def takes() -> Iterator[Official]:
    """All that was recorded, by the rule of the names."""
    for channel, emotion, intensity, statement, repetition, actor in itertools.product(
        (1, 2), range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25)
    ):
        if _was_recorded(channel, emotion, intensity, actor):
            take = "-".join(f"{code:02d}" for code in (channel, emotion, intensity, statement, repetition, actor))
            yield Official(_CHANNELS[take[:2]], take)


def _was_recorded(channel: int, emotion: int, intensity: int, actor: int) -> bool:
    strong_neutral = emotion == 1 and intensity == 2
    return not strong_neutral and (channel == 1 or (emotion <= 6 and actor != _NO_SONGS))


def _clip(path: Path, first: dict[str, Path]) -> SourceClip:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return SourceClip(readable(path.stem), path, refused="not a RAVDESS name (seven two-digit numbers joined by -)")
    modality, channel, emotion, intensity, statement, repetition, actor = match.groups()
    strength = ("normal", "strong")[int(intensity) - 1]
    clip = SourceClip(
        clip_id=path.stem,
        path=path,
        speaker=f"ravdess-{actor}",
        labels={
            "emotion": _EMOTIONS[int(emotion) - 1],
            "intensity": strength,
            "text": _STATEMENTS[int(statement) - 1],
            "sex": ("female", "male")[int(actor) % 2],
        },
        info={
            "modality": _MODALITIES[modality],
            "channel": _CHANNELS[channel],
            "intensity": strength,
            "statement": int(statement),
            "repetition": int(repetition),
        },
        official=Official(_CHANNELS[channel], path.stem[3:]),
    )
    if not _was_recorded(int(channel), int(emotion), int(intensity), int(actor)):
        return dataclasses.replace(clip, refused="RAVDESS has no such take: its name is wrong", official=None)
    whole, picture, sound = (first.get(f"{number}-{path.stem[3:]}") for number in _MODALITIES)
    if whole is not None:
        return _refused(clip, "the file of the same take with sound and picture is used", modality != "01")
    if picture is not None and sound is not None:
        clip = dataclasses.replace(
            clip, sound=Sound(sound, -_DELAY_SEC), info={**clip.info, "modality": "sound and picture"},
            note="the sound is that of the file of sound alone, one picture later",
        )  # fmt: skip
        why = f"has the name of {readable(sound)}, which is used"
        if path == sound:
            why = "it is used as the sound of the file with the picture of the same take"
        return _refused(clip, why, modality == "03")
    return clip


def _refused(clip: SourceClip, reason: str, really: bool = True) -> SourceClip:
    return dataclasses.replace(clip, refused=reason, sound=None, note="") if really and not clip.refused else clip


LAYOUT = """\
RAVDESS speech or song: Actor_01/03-01-05-01-01-01-01.wav (or mp4, flac), folders at any depth. Labels come from the
names. Where a take is there with sound and picture (01-...), its 02-... and 03-... files are left out; where it is
there as 02-... and 03-..., picture and sound are put together, the sound one picture later, as it is in 01-... files.
The protocols and the figures that are published are of speech: prepare it alone with --channel speech."""

CORPUS = Corpus(
    name="ravdess",
    layout=LAYOUT,
    terms="CC BY-NC-SA 4.0",
    arguments=(
        SOURCE,
        Argument("channel", dict(choices=("speech", "song", "all"), default="all", help="which takes (default: all)")),
    ),
    read=read,
    labels=columns("emotion", "intensity", "text", "sex"),
    official={"speech": 1_440, "song": 1_012},
    listed=takes,
)
