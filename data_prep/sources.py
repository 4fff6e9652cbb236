"""What a corpus reader yields: one `SourceClip` per clip to be, and the small rules that readers share."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from data_prep.timed import Curve, Word, spoken, words_within
from mmpretrain.decoding import GIT_LFS
from mmpretrain.listing import AUDIO_SUFFIXES, VIDEO_SUFFIXES, find_files, readable, suffix_of
from mmpretrain.records import EMOTIONS

MEDIA_SUFFIXES = AUDIO_SUFFIXES | VIDEO_SUFFIXES
LARGEST_POINTER_BYTES = 1024
_BEST_LAST = (".mp3", *sorted(MEDIA_SUFFIXES - {".mp3", ".wav"}), ".wav")

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


Region = tuple[float, float, float, float]  # left, top, right, bottom of a part of the picture, as shares of it
WHOLE: Region = (0.0, 0.0, 1.0, 1.0)


class Sound(NamedTuple):
    """Sound from a file of its own. start_sec: where in that file the clip begins; below 0, so much silence first."""

    path: Path
    start_sec: float = 0.0


class Landmarks(NamedTuple):
    """A file of landmarks that are known already, and where in the clip's file it begins."""

    path: Path
    from_sec: float = 0.0


class Official(NamedTuple):
    """What a clip counts for where its makers count: a part of the corpus (see `Corpus.official`) and the name of the
    recording there, which several clips may be made of."""

    part: str
    name: str


@dataclasses.dataclass(frozen=True)
class SourceClip:
    """One clip as the corpus describes it, before anything is decoded.

    clip_id: text, whatever the file is called: readers make it `readable`.
    labels: by the names of the corpus's label columns; empty ones may be left out. path: the media file, or None with
    `render`, and of a clip that is its text alone. start_sec, end_sec: the part of the file, end_sec None for its end.
    refused: why the reader itself leaves the clip out (it still gets a row in the report). note: anything the report
    should say. render: draws the clip, for corpora without files. words, curves: what is said of stretches of time, on
    the clock of `path`; where there are words they are those of the label `text`. sound: where that is in another file.
    regions: the parts of the picture in which faces are looked for, all of it without any. by_sound: only a face whose
    mouth moves with the sound will do. landmarks: of its face, if they are known already. official: what the clip
    counts for. missing: the corpus has the clip, but its file is not here, as `refused` says. broken: it is refused as
    every copy of its file is known to be broken, which says nothing against its text.
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
    words: tuple[Word, ...] = ()
    curves: Mapping[str, Curve] = dataclasses.field(default_factory=dict)
    sound: Sound | None = None
    regions: tuple[Region, ...] = ()
    by_sound: bool = False
    landmarks: Landmarks | None = None
    official: Official | None = None
    missing: bool = False
    broken: bool = False

    @property
    def needs_landmarker(self) -> bool:
        """Whether faces may have to be looked for in it."""
        return not self.refused and self.path is not None and may_have_picture(self.path) and not self.landmarks

    def part(self, start_sec: float, end_sec: float | None, **changes: Any) -> SourceClip:
        """The clip from start_sec to end_sec of its file, which it holds, with what is said of that time.

        Of its text that is the words that are spoken then, none where that is not known.
        """
        sound = self.sound and self.sound._replace(start_sec=self.sound.start_sec + start_sec - self.start_sec)
        words = words_within(self.words, start_sec, end_sec)
        labels = {name: value for name, value in self.labels.items() if name != "text"}
        labels |= {"text": spoken(words)} if words else {}
        return dataclasses.replace(
            self, start_sec=start_sec, end_sec=end_sec, sound=sound, words=words, labels=labels, **changes
        )

    def fingerprint(self) -> list[Any]:
        """What, if it changed, would change the prepared clip; files stand by their sizes and times of change, not by
        where they are."""
        refused = "refused" if self.refused else ""  # for whatever reason, which may name a place
        said = [self.clip_id, self.split, self.speaker, self.labels, self.info, refused]
        said += [self.start_sec, self.end_sec, *(_stamp(self.path) if self.path else [])]
        curves = {name: [curve.times_sec.tolist(), curve.values.tolist()] for name, curve in self.curves.items()}
        sound = self.sound and [*_stamp(self.sound.path), self.sound.start_sec]
        landmarks = self.landmarks and [self.landmarks.path.stat().st_mtime_ns, self.landmarks.from_sec]
        return said + [more for more in (self.words, curves, sound, self.regions, self.by_sound, landmarks) if more]


def _stamp(path: Path) -> list[int]:
    """Size and time of change of a file; nothing of nobody's, whose row will say so."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return []
    return [found.st_size, found.st_mtime_ns]


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


def why_missing(path: Path) -> str:
    """Why there is nothing to read at a path, in a few words; "" where something is."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            return "is no file"
        if found.st_size < LARGEST_POINTER_BYTES:
            if not found.st_size:
                return "the file is empty"
            with open(path, "rb") as file:
                if file.read(len(GIT_LFS)) == GIT_LFS:
                    return "is a pointer of git-lfs, not the file itself; run `git lfs pull` where it was cloned"
        return ""
    except (FileNotFoundError, NotADirectoryError):
        return "the file does not exist"
    except OSError as error:
        return f"the file cannot be reached: {error.strerror}"


def without_missing(clips: Iterable[SourceClip]) -> list[SourceClip]:
    """The clips, those refused whose file, or file of sound, is not there."""
    return [clip if clip.refused or clip.path is None else _if_there(clip) for clip in clips]


def with_text_alone(clip: SourceClip) -> SourceClip:
    """A clip whose file is not here, but of which it is known what is spoken, as one of its text alone; else itself, as
    where it is refused for more than its file."""
    if not clip.labels.get("text") or clip.path is None or not (why := why_missing(clip.path)):
        return clip
    if clip.refused and not (clip.missing or clip.broken):
        return clip
    return dataclasses.replace(
        clip, path=None, sound=None, landmarks=None, words=(), curves={}, refused="", missing=False, broken=False,
        note=_join(clip.note, f"its text alone: {why}"),
    )  # fmt: skip


def _if_there(clip: SourceClip) -> SourceClip:
    if why := why_missing(clip.path):
        return dataclasses.replace(clip, refused=why, missing=True)
    if clip.sound and (why := why_missing(clip.sound.path)):
        return dataclasses.replace(clip, sound=None, note=_join(clip.note, f"the sound {clip.sound.path.name}: {why}"))
    return clip


def may_have_picture(path: Path) -> bool:
    """By its name: whatever is not called a sound."""
    return suffix_of(path) not in AUDIO_SUFFIXES


def best_file(paths: Sequence[Path]) -> Path:
    """Of files of one recording the one to use: rather one that is there than a pointer or an empty one, rather a
    picture than sound, rather WAV than other sound than MP3; of equals the first."""

    def rank(path: Path) -> tuple[bool, bool, int]:
        return not why_missing(path), may_have_picture(path), _BEST_LAST.index(suffix_of(path))

    return paths[0] if len(paths) == 1 else max(paths, key=rank)


def media_files(folder: Path, option: str = "--source") -> list[Path]:
    """Every sound and video file under a folder, as `find_files` finds them. Prints what of the folder is not seen.

    Raises FileNotFoundError, naming the option, where there is no folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{option} {folder} is not a folder; give the folder that holds the corpus")
    found = find_files(folder, MEDIA_SUFFIXES)
    for unread in found.unread:
        print(f"note: what is in the folder {unread} is left out: it cannot be looked into")
    if found.again:
        print(f"note: {found.again} links in {folder} lead to files that have another name there, and are left out")
    return found.files


def with_unique_ids(clips: Iterable[SourceClip]) -> list[SourceClip]:
    """The clips with `-2`, `-3`, ... added to ids that came before, so that no id that was given moves."""
    clips = list(clips)
    given, taken = {clip.clip_id for clip in clips}, set()
    unique = []
    for clip in clips:
        clip_id, count = clip.clip_id, 1
        while clip_id in taken or (count > 1 and clip_id in given):  # what others are called already stays theirs
            count += 1
            clip_id = f"{clip.clip_id}-{count}"
        taken.add(clip_id)
        if count > 1:
            clip = dataclasses.replace(clip, clip_id=clip_id, note=_join(clip.note, "the id was taken and is numbered"))
        unique.append(clip)
    return unique


def without_copies(clips: Iterable[SourceClip]) -> list[SourceClip]:
    """The clips of a corpus in which a name is one recording: of those with one id all but the first are refused, but
    for one whose file is there in place of one whose is not."""
    of_id: dict[str, list[SourceClip]] = {}
    for clip in clips:
        of_id.setdefault(clip.clip_id, []).append(clip)
    kept = []
    for same in of_id.values():
        if len(same) > 1:
            same.sort(key=lambda clip: bool(clip.refused or (clip.path and why_missing(clip.path))))
        kept += [same[0], *(_copy(clip, same[0]) for clip in same[1:])]
    return with_unique_ids(kept)


def _copy(clip: SourceClip, other: SourceClip) -> SourceClip:
    if clip.path != other.path:
        why = f"has the name of {readable(other.path)}, which is used"
    else:
        same = clip.labels == other.labels and (clip.start_sec, clip.end_sec) == (other.start_sec, other.end_sec)
        why = "is listed twice" + ("" if same else ", not alike: the first time counts")
    return dataclasses.replace(clip, refused=clip.refused or why)


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
