"""RAVDESS: acted speech and song of 24 people. All labels are in the file names; all clips are `train`, since the
protocols choose actors themselves."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from data_prep.corpus import SOURCE, Corpus
from data_prep.sources import SourceClip, media_files, with_unique_ids
from mmpretrain.listing import readable

_NAME = re.compile(r"(0[123])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d)")
_MODALITIES = {"01": "sound and picture", "02": "picture only", "03": "sound only"}
_CHANNELS = {"01": "speech", "02": "song"}
_EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
_STATEMENTS = ("kids are talking by the door", "dogs are sitting by the door")


def read(source: Path) -> list[SourceClip]:
    """Every take below `source`, at any depth. Of one take the file with sound and picture is used."""
    clips = [_clip(path) for path in media_files(source)]
    whole_takes = {_take(clip.path) for clip in clips if _take(clip.path) and clip.path.stem.startswith("01-")}
    return with_unique_ids(_without_parts(clip, whole_takes) for clip in clips)


def _take(path: Path) -> str:
    """What two files of one take have in common, "" for a name that is not RAVDESS'."""
    return path.stem[3:] if _NAME.fullmatch(path.stem) else ""


def _without_parts(clip: SourceClip, whole_takes: set[str]) -> SourceClip:
    if not clip.path.stem.startswith("01-") and _take(clip.path) in whole_takes:
        return dataclasses.replace(clip, refused="the file of the same take with sound and picture is used")
    return clip


def _clip(path: Path) -> SourceClip:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return SourceClip(readable(path.stem), path, refused="not a RAVDESS name (seven two-digit numbers joined by -)")
    modality, channel, emotion, intensity, statement, repetition, actor = match.groups()
    return SourceClip(
        clip_id=path.stem,
        path=path,
        speaker=f"ravdess-{actor}",
        labels={"emotion": _EMOTIONS[int(emotion) - 1], "text": _STATEMENTS[int(statement) - 1]},
        info={
            "modality": _MODALITIES[modality],
            "channel": _CHANNELS[channel],
            "intensity": ("normal", "strong")[int(intensity) - 1],
            "statement": int(statement),
            "repetition": int(repetition),
        },
    )


LAYOUT = """\
RAVDESS speech or song: Actor_01/03-01-05-01-01-01-01.wav (or mp4, flac), folders at any depth. Labels come from the
names. Where a take is there with sound and picture (01-...), its 02-... and 03-... files are left out."""

CORPUS = Corpus(
    name="ravdess",
    layout=LAYOUT,
    arguments=(SOURCE,),
    read=read,
    labels={"emotion": "class", "text": "text"},
    official={"speech": 1_440, "song": 1_012},
)
