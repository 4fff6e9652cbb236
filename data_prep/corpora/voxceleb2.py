"""VoxCeleb2: interviews of celebrities, unlabelled. `dev` trains, but for some people who validate; `test` tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from data_prep.corpus import SOURCE, VALIDATION_SHARE, Argument, Corpus
from data_prep.labels import columns
from data_prep.lists import read_ids, without_file
from data_prep.sources import Official, Sound, SourceClip, hashed_split, may_have_picture, media_files, why_missing
from data_prep.tables import by_key, find_table, read_table
from mmpretrain.listing import readable

_PLACE = re.compile(r"(?:^|.*/)(dev|test)/(?:(?:mp4|aac|wav)/)?(id\d+)/([^/]+)/(\d+)")

_SEXES = {"m": "male", "f": "female", "": ""}


def read(
    source: Path, *, validation_share: float, language_list: Path | None = None, language: str = ""
) -> list[SourceClip]:
    """Every utterance of `dev` and `test`, the sound from the file of sound alone where there is one.

    About `validation_share` of the people of `dev` are `validation`. With a list only what it names is kept, and of
    that what is in `language`, where the list says languages. Raises ValueError if a language is given and no list.
    """
    if language and language_list is None:
        raise ValueError(f"--language {language} needs --language-list, which says what is in which language")
    languages = read_ids(language_list, depth=3) if language_list else None
    sexes = _sexes(source)
    root = source.resolve()
    found = [(path, _place(root / path.relative_to(source))) for path in media_files(source)]
    sounds = {place: path for path, place in found if place and not may_have_picture(path)}
    seen = {place for path, place in found
            if place and may_have_picture(path) and not (place in sounds and why_missing(path))}  # fmt: skip
    clips = []
    for path, place in found:
        if place is None:
            refused = "not a place of VoxCeleb2 (dev/mp4/id00012/21Uxsk56VDQ/00001)"
            clips.append(SourceClip(readable(path.relative_to(source)), path, refused=refused))
        elif may_have_picture(path) or place not in seen:
            clips.append(_clip(path, place, sounds.get(place), sexes, validation_share, languages, language))
    if languages is not None:
        without_file(languages, {"/".join(place[1:]) for _, place in found if place}, language_list)
    return clips


def _place(path: Path) -> tuple[str, ...] | None:
    """(dev or test, person, video, number)."""
    match = _PLACE.fullmatch(path.with_suffix("").as_posix())
    return match.groups() if match else None


def _sexes(source: Path) -> dict[str, str]:
    table = find_table(source, "vox2_meta.csv")
    rows = read_table(table, ["VoxCeleb2 ID", "Gender"]) if table else []
    return {person: row.one_of("Gender", _SEXES) for person, row in by_key(rows, "VoxCeleb2 ID").items()}


def _clip(
    path: Path,
    place: tuple[str, ...],
    sound: Path | None,
    sexes: Mapping[str, str],
    validation_share: float,
    languages: Mapping[str, str] | None,
    language: str,
) -> SourceClip:
    part, person, video, number = place
    clip_id = readable("/".join(place))
    spoken, refused = "", ""
    if languages is not None:
        key = f"{person}/{video}/{number}"
        spoken = languages.get(key) or (language if key in languages else "")
        if key not in languages:
            refused = "the language list does not name it"
        elif language and spoken != language.lower():
            refused = f"is in another language than --language {language}"
    return SourceClip(
        clip_id,
        path,
        split="test" if part == "test" else hashed_split(person, validation_share),
        speaker=f"vox-{person}",
        labels={"sex": sexes.get(person, ""), "language": spoken},
        info={"video": readable(video), "set": part},
        refused=refused,
        sound=Sound(sound) if sound and sound != path else None,
        official=Official(part, clip_id),
    )


LAYOUT = """\
VoxCeleb2 as released: dev/mp4/id00012/21Uxsk56VDQ/00001.mp4 and test/mp4/..., the sound in dev/aac/.../00001.m4a, and
vox2_meta.csv if it is there. --language-list names the clips to keep, one on a line, such as
dev/id00012/21Uxsk56VDQ/00001 (the list of 628,418 English clips that is in use has this form); a language may stand
behind each, then --language en keeps those."""

CORPUS = Corpus(
    name="voxceleb2",
    layout=LAYOUT,
    terms="CC BY 4.0 for the metadata; the videos are their owners'",
    arguments=(
        SOURCE,
        VALIDATION_SHARE,
        Argument("language_list", dict(type=Path, metavar="FILE", help="the clips to keep, and their languages")),
        Argument("language", dict(default="", metavar="CODE", help="of the clips to keep, as the list calls it")),
    ),
    read=read,
    labels=columns("sex", "language"),
    official={"dev": 1_092_009, "test": 36_237},
)
