"""What a corpus reader yields: one `SourceClip` per clip to be, and the small rules that readers share."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mmpretrain.listing import AUDIO_SUFFIXES, VIDEO_SUFFIXES, find_files, suffix_of
from mmpretrain.records import EMOTIONS

MEDIA_SUFFIXES = AUDIO_SUFFIXES | VIDEO_SUFFIXES

# Other corpora's words for our emotions, in lower case.
_EMOTION_SYNONYMS = {
    "neutral": "neu neutrality normal",
    "calm": "calmness",
    "happy": "hap happiness joy joyful",
    "sad": "sadness",
    "angry": "ang anger",
    "fearful": "fea fear afraid scared",
    "disgust": "dis disgusted",
    "surprised": "sur surprise",
    "contempt": "con contemptuous",
    "excited": "exc excitement",
    "frustrated": "fru frustration",
    "boredom": "bored bor",
    "other": "oth",
}  # fmt: skip
_EMOTION_OF = {word: name for name, words in _EMOTION_SYNONYMS.items() for word in words.split()}
_EMOTION_OF |= {name: name for name in EMOTIONS}

# Words for our splits, in lower case; "eval" is what some corpora call their test part.
SPLIT_WORDS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development"),
    "test": ("test", "tst", "eval"),
}
_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}


class Rendered(Protocol):
    """A clip that comes from no file: frames uint8 [T, H, W] grey at 25 fps, points float32 [T, 9, 2] in pixels (see
    `crops.py`), audio int16 [640 T] at 16 kHz, tracks by name [T, ...], and what else is worth keeping."""

    frames: np.ndarray
    points: np.ndarray
    audio: np.ndarray
    tracks: dict[str, np.ndarray]
    info: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class SourceClip:
    """One clip as the corpus describes it, before anything is decoded.

    clip_id: text, whatever the file is called: readers make it `readable`.
    labels: by the names of the corpus's label columns; empty ones may be left out. path: the media file, or None with
    `render`. start_sec, end_sec: the part of the file, end_sec None for its end. refused: why the reader itself leaves
    the clip out (it still gets a row in the report). note: anything the report should say. render: draws the clip, for
    corpora without files.
    """

    clip_id: str
    path: Path | None
    split: str = "train"
    speaker: str = ""
    labels: dict[str, Any] = dataclasses.field(default_factory=dict)
    info: dict[str, Any] = dataclasses.field(default_factory=dict)
    start_sec: float = 0.0
    end_sec: float | None = None
    refused: str = ""
    note: str = ""
    render: Callable[[], Rendered] | None = None

    def fingerprint(self) -> list[Any]:
        """What, if it changed, would change the prepared clip; the file stands by its size and time of change."""
        try:
            stat = os.stat(self.path) if self.path else None
        except (OSError, ValueError):  # nobody's file: its row will say so
            stat = None
        said = [self.clip_id, self.split, self.speaker, self.labels, self.info, self.refused]
        return [*said, self.start_sec, self.end_sec, *([stat.st_size, stat.st_mtime_ns] if stat else [])]


def standard_emotion(word: str) -> str | None:
    """The name in `records.EMOTIONS` for a corpus's own word, "" for no word, None for a word nobody knows."""
    return _EMOTION_OF.get(word.strip().lower()) if word.strip() else ""


def standard_split(word: str) -> str | None:
    """train, validation or test for a corpus's own word, None for any other."""
    return _SPLIT_OF.get(word.strip().casefold())


def hashed_split(key: str, validation_share: float) -> str:
    """`validation` for about `validation_share` of all keys, else `train`: a property of the key alone."""
    digest = hashlib.blake2b(f"valid/{key}".encode(), digest_size=8).digest()
    return "validation" if int.from_bytes(digest, "big") < validation_share * 2**64 else "train"


def may_have_picture(path: Path) -> bool:
    """By its name."""
    return suffix_of(path) in VIDEO_SUFFIXES


def media_files(folder: Path) -> list[Path]:
    """Every sound and video file under a folder, as `find_files` finds them. Prints what of the folder is not seen."""
    if not folder.is_dir():
        raise FileNotFoundError(f"--source {folder} is not a folder; give the folder that holds the corpus")
    found = find_files(folder, MEDIA_SUFFIXES)
    for unread in found.unread:
        print(f"note: what is in the folder {unread} is left out: it cannot be looked into")
    if found.again:
        print(f"note: {found.again} links in {folder} lead to files that have another name there, and are left out")
    return found.files


def with_unique_ids(clips: Iterable[SourceClip]) -> list[SourceClip]:
    """The clips with `-2`, `-3`, ... added to ids that came before."""
    taken: set[str] = set()
    unique = []
    for clip in clips:
        clip_id, count = clip.clip_id, 1
        while clip_id in taken:
            count += 1
            clip_id = f"{clip.clip_id}-{count}"
        taken.add(clip_id)
        if count > 1:
            clip = dataclasses.replace(clip, clip_id=clip_id, note=_join(clip.note, "the id was taken and is numbered"))
        unique.append(clip)
    return unique


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
