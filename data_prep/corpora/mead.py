"""MEAD: actors say sentences in eight emotions of three strengths, filmed from seven sides, the sound in files beside
the pictures. All clips are `train`."""

from __future__ import annotations

import re
from pathlib import Path

from data_prep.corpus import SOURCE, Argument, Corpus
from data_prep.labels import columns
from data_prep.sources import Sound, SourceClip, may_have_picture, media_files, standard_emotion, why_missing
from mmpretrain.listing import readable

VIEWS = ("front", "down", "top", "left_30", "left_60", "right_30", "right_60")
_LEVELS = {"1": "low", "2": "medium", "3": "high"}
_VIEW = "|".join(VIEWS)
_EMOTION = "angry|disgusted|contempt|fear|happy|sad|surprised|neutral"
_PLACES = (
    # As released: M003/video/front/angry/level_3/001.mp4 and M003/audio/angry/level_3/001.m4a.
    re.compile(
        rf"(?P<person>[MW]\d{{3}})/(?:video/(?P<view>{_VIEW})|audio)/(?P<emotion>{_EMOTION})/level_(?P<level>[123])/"
        r"(?P<take>\d+)"
    ),
    # As single clips go round: M030_front_angry_level3_001.mp4, M030_level_3_sad_001.mp4.
    re.compile(rf"(?P<person>[MW]\d{{3}})_(?P<view>{_VIEW})_(?P<emotion>{_EMOTION})_level_?(?P<level>[123])_(?P<take>\d+)"),
    re.compile(rf"(?P<person>[MW]\d{{3}})_level_?(?P<level>[123])_(?P<emotion>{_EMOTION})_(?P<take>\d+)"),
)  # fmt: skip


def read(source: Path, view: str) -> list[SourceClip]:
    """Every take below `source`: the picture from the view (or from all of them) with the sound beside it.

    A take of which there is no picture is a clip of sound. Other views of it are refused: they have the same sound.
    """
    root = source.resolve()
    found = [(path, _place(root / path.relative_to(source))) for path in media_files(source)]
    sounds = {_take(place): path for path, place in found if place and not may_have_picture(path)}
    seen = {_take(place) for path, place in found if place and may_have_picture(path) and _is_wanted(place, view)
            and not (_take(place) in sounds and why_missing(path))}  # fmt: skip
    return [_clip(path, place, view, sounds, seen) for path, place in found]


def _place(path: Path) -> re.Match[str] | None:
    """What the path says, folders above the source that belong to the corpus included."""
    named = path.with_suffix("").as_posix()
    return next((match for place in _PLACES if (match := re.search(f"(?:^|/){place.pattern}$", named))), None)


def _take(place: re.Match[str]) -> tuple[str, ...]:
    return tuple(place[name] for name in ("person", "emotion", "level", "take"))


def _view(place: re.Match[str]) -> str:
    return place.groupdict().get("view") or "front"


def _is_wanted(place: re.Match[str], view: str) -> bool:
    return view in ("all", _view(place))


def _clip(
    path: Path, place: re.Match[str] | None, view: str, sounds: dict[tuple, Path], seen: set[tuple]
) -> SourceClip:
    if place is None:
        return SourceClip(readable(path.stem), path, refused="not a place of MEAD (M003/video/front/angry/level_3/001)")
    person, emotion, level, take = _take(place)
    has_picture = may_have_picture(path)
    sound = sounds.get(_take(place)) if has_picture else None
    refused = ""
    if has_picture and not _is_wanted(place, view):
        refused = f"--view {view} leaves it out"
    elif not has_picture and _take(place) in seen:
        refused = "it is used as the sound of the picture of the same take"
    elif emotion == "neutral" and level != "1":
        refused = "MEAD has no such take: neutral has level_1 only"
    seen_from = _view(place) if has_picture else "sound"
    return SourceClip(
        f"{person}/{seen_from}/{emotion}/level_{level}/{take}",
        path,
        speaker=f"mead-{person}",
        labels={
            "emotion": standard_emotion(emotion), "intensity": _LEVELS[level], "language": "en",
            "sex": {"M": "male", "W": "female"}[person[0]],
        },
        info={"emotion": emotion, "level": int(level), "view": seen_from},
        refused=refused,
        sound=Sound(sound) if sound and not refused else None,
    )  # fmt: skip


LAYOUT = """\
MEAD: M003/video/front/angry/level_3/001.mp4 with M003/audio/angry/level_3/001.m4a, people at any depth (or single clips
called M030_front_angry_level3_001.mp4). Of the seven views of a take --view is taken, front by default, since all have
the same sound; a take without a picture is kept as sound."""

CORPUS = Corpus(
    name="mead",
    layout=LAYOUT,
    terms="research, not commercial",
    arguments=(
        SOURCE,
        Argument("view", dict(choices=(*VIEWS, "all"), default="front", help="which pictures (default: front)")),
    ),
    read=read,
    labels=columns("emotion", "intensity", "language", "sex"),
)
