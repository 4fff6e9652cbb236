"""What a clip is, on disk and in memory, and what a batch of clips is.

This is the contract between `data_prep`, which writes clips, and everything that reads them. It imports neither JAX
nor anything of ours. Which tracks and labels the clips of a corpus may have is its `Schema`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

FRAME_RATE_HZ = 25
SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAME_RATE_HZ  # 640

# MediaPipe's scores of the movements of a face, in the order of a record.
BLENDSHAPES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft",
    "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft",
    "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft",
    "jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft",
    "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
NUM_BLENDSHAPES = len(BLENDSHAPES)

# One vocabulary across corpora; a class id is a position in the list of classes a recipe uses, never in this tuple.
EMOTIONS = (
    "neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised",
    "contempt", "excited", "frustrated", "boredom", "other",
)  # fmt: skip

SPLITS = ("train", "validation", "test")

# A prepared corpus is a folder: the TFDS dataset `clips`, one index file a split beside its shards, and `corpus.json`
# with the digests of them all (prepared.py): a folder without it is not whole.
DATASET_NAME = "clips"
DATASET_VERSION = "5.0.0"  # a corpus of another version is not read (5: sound and pictures in files of their own)
CORPUS_FILE = "corpus.json"

# Words that may stand in a label of this name; labels of other names may be any word.
VOCABULARIES = dict.fromkeys(
    ("emotion", "emotion4", "perceived", "perceived_voice", "perceived_face", "votes"), EMOTIONS
)
NOT_COLUMNS = ("audio", "video", "mouth", "face")  # these arrays every clip has


def _tensor(features: Any, shape: tuple[int | None, ...], dtype: str) -> Any:
    """A TFDS feature, kept as bytes, since TFDS would keep its numbers as float32 or int64."""
    return features.Tensor(shape=shape, dtype=np.dtype(dtype), encoding=features.Encoding.BYTES)


@dataclasses.dataclass(frozen=True)
class LabelKind:
    """How labels of one kind are checked, stored, and kept in the index.

    means: what a value is, for messages. empty: the value that stands for none. accepts: whether a value is of this
    kind. feature: what TFDS stores it as, given `tensorflow_datasets.features`. decode: from what TFDS reads to the
    value. indexed: what the index keeps of it.
    """

    means: str
    empty: Any
    accepts: Callable[[Any], bool]
    feature: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    indexed: Callable[[Any], Any] = lambda value: value


def _is_word(value: Any) -> bool:
    return isinstance(value, str)


def _are_words(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_is_word, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _are_tokens(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == np.int32


# Of a whole clip: what changes from frame to frame is a track.
LABEL_KINDS = {
    "class": LabelKind("one word, empty for none", "", _is_word, lambda features: features.Text(), bytes.decode),
    "classes": LabelKind(
        "a tuple of words, empty for none", (), _are_words, lambda features: features.Sequence(features.Text()),
        lambda words: tuple(word.decode() for word in words),
    ),
    "value": LabelKind(
        "a number, NaN for none", math.nan, _is_number, lambda features: _tensor(features, (), "float64"), float,
        indexed=float,
    ),
    "text": LabelKind(
        "a string, empty for none", "", _is_word, lambda features: features.Text(), bytes.decode, indexed=len
    ),
    "tokens": LabelKind(
        "an int32 array [N], empty for none", np.zeros(0, np.int32), _are_tokens,
        lambda features: _tensor(features, (None,), "int32"), np.asarray, indexed=len,
    ),
}  # fmt: skip
LONG = ("text", "tokens")  # kinds of which the index keeps the length


@dataclasses.dataclass(frozen=True)
class TrackSpec:
    """A track of T frames is an array [T, *shape] of `dtype`, such as "float32"."""

    shape: tuple[int, ...] = ()
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class Schema:
    """Which arrays and labels the clips of a corpus may have; any clip may lack any of them.

    mouth_size, face_size: sides of the crops. tracks: by name, what has a value per frame. labels: by name, the kind of
    the column, one of `LABEL_KINDS`. Raises ValueError for a kind that there is not, or a name that cannot be a
    column's.
    """

    mouth_size: int
    face_size: int
    tracks: Mapping[str, TrackSpec] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.tracks, *self.labels):
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in NOT_COLUMNS:
                raise ValueError(
                    f"a track or label cannot be called {name!r}; use small letters, digits and _, and another name "
                    f"than {', '.join(NOT_COLUMNS)}"
                )
        for name, kind in self.labels.items():
            if kind not in LABEL_KINDS:
                raise ValueError(f"label {name!r} has the kind {kind!r}; use one of {', '.join(LABEL_KINDS)}")

    def to_json(self) -> dict[str, Any]:
        """What `json` can write and `from_json` reads."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Schema:
        tracks = {name: TrackSpec(tuple(spec["shape"]), spec["dtype"]) for name, spec in fields["tracks"].items()}
        return cls(fields["mouth_size"], fields["face_size"], tracks, fields["labels"])

    def check_labels(self, clip_id: str, labels: Mapping[str, Any]) -> None:
        """Raises ValueError for a label that is not a column of the corpus, or no value of its kind."""
        for name, value in labels.items():
            kind = LABEL_KINDS.get(self.labels.get(name, ""))
            if kind is None:
                columns = ", ".join(self.labels) or "none"
                raise ValueError(
                    f"clip {clip_id!r} has a label {name!r} ({value!r}), but the label columns of its corpus are "
                    f"{columns}; declare it in the corpus's schema or leave it out"
                )
            if not kind.accepts(value):
                raise ValueError(
                    f"clip {clip_id!r}: label {name!r} is {value!r}, but its column is of kind "
                    f"{self.labels[name]!r}; give {kind.means}"
                )
            words = {value} if isinstance(value, str) else set(value) if isinstance(value, tuple) else set()
            if name in VOCABULARIES and words - {"", *VOCABULARIES[name]}:
                raise ValueError(
                    f"clip {clip_id!r}: label {name!r} is {value!r}, but its words are "
                    f"{', '.join(VOCABULARIES[name])}; use one of them or leave the label out"
                )

    def check_views(self, clip: Clip) -> None:
        """Raises ValueError for sound or pictures of another shape or dtype."""
        for view, found, wanted in (
            ("audio", clip.audio, ("int16", ())),
            ("mouth", clip.mouth, ("uint8", (self.mouth_size,) * 2)),
            ("face", clip.face, ("uint8", (self.face_size,) * 2)),
        ):
            if found.ndim != 1 + len(wanted[1]) or (found.dtype, found.shape[1:]) != (np.dtype(wanted[0]), wanted[1]):
                dims = ["N" if view == "audio" else "T", *wanted[1]]
                raise ValueError(
                    f"clip {clip.clip_id!r}: {view} is {found.dtype} {list(found.shape)}, but its corpus has "
                    f"{wanted[0]} {dims}; convert it, or change the corpus's schema"
                )
        if len(clip.face) != len(clip.mouth):
            raise ValueError(
                f"clip {clip.clip_id!r} has {len(clip.mouth)} pictures of the mouth and {len(clip.face)} of the face; "
                "give both of every frame"
            )

    def check_tracks(self, clip: Clip) -> None:
        """Raises ValueError for a track that is not one of the corpus, or that has another shape or dtype."""
        for name, track in clip.tracks.items():
            if name not in self.tracks:
                raise ValueError(
                    f"clip {clip.clip_id!r} has a track {name!r}, but the tracks of its corpus are "
                    f"{', '.join(self.tracks) or 'none'}; declare it in the corpus's schema or leave it out"
                )
            spec = self.tracks[name]
            wanted, found = (clip.num_frames, *spec.shape), track.shape
            if found != wanted or track.dtype != np.dtype(spec.dtype):
                raise ValueError(
                    f"clip {clip.clip_id!r}: track {name!r} is {track.dtype} {list(found)}, but its corpus declares "
                    f"{spec.dtype} {list(wanted)} for a clip of {clip.num_frames} frames; convert it, or change the "
                    "corpus's schema"
                )


FACE_TRACKS = {"blendshapes": TrackSpec((NUM_BLENDSHAPES,), "float16")}  # what preparation finds in every face
HAND_TRACKS = {"hands": TrackSpec((146,), "float16")}  # see `features.hands`
TRUE_UNITS = {"units": TrackSpec((), "int32")}


@dataclasses.dataclass(frozen=True)
class Clip:
    """One utterance of one person on the 25 Hz grid. A missing modality is an array of length zero.

    mouth, face: uint8 [T, S, S], grey crops at 25 fps, both present or both empty.
    audio: int16 [N], mono at 16 kHz.
    tracks: by name, what is known of every frame, arrays [T, ...]. `units`: int32 [T], the true phone-like unit.
    `blendshapes`: float16 [T, 52], how far each movement of the face goes (0 to 1), in the order of `BLENDSHAPES`, such
    as a smile or an opened jaw, whoever's face it is. `hands`: float16 [T, 146], see `features.hands`.
    labels: by name, what somebody said of the clip. `emotion`: one of `EMOTIONS`. `text`: what is spoken.
    Tracks and labels that are empty are left out. info: the corpus's own words and anything else worth keeping.
    """

    clip_id: str
    audio: np.ndarray
    mouth: np.ndarray
    face: np.ndarray
    tracks: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    split: str = "train"
    speaker: str = ""
    info: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        # One way of having none, wherever a clip comes from.
        object.__setattr__(self, "tracks", {name: track for name, track in self.tracks.items() if len(track)})
        object.__setattr__(self, "labels", {name: v for name, v in self.labels.items() if not _is_none(v)})

    @property
    def num_frames(self) -> int:
        """Length in frames of 40 ms: that of the video, or of the sound (rounded up) where there is no video."""
        return len(self.mouth) if len(self.mouth) else -(-len(self.audio) // SAMPLES_PER_FRAME)


def _is_none(value: Any) -> bool:
    """Whether a label is empty, of whatever kind it is."""
    return math.isnan(value) if _is_number(value) else hasattr(value, "__len__") and len(value) == 0


@dataclasses.dataclass(frozen=True)
class IndexRow:
    """What planning needs to know of a clip without touching it. Row i of a split's index is record i of that split.

    has: "audio", "video" and the names of its tracks, as far as the clip has them. labels: those of the clip that are
    not empty; of texts and tokens their length. content_hash, label_hash: 64 bits, of all arrays (without any, of its
    id), and of all labels as they are in the record, not by their length.
    """

    clip_id: str
    num_frames: int
    has: tuple[str, ...]
    split: str
    speaker: str
    labels: Mapping[str, Any]
    content_hash: int
    label_hash: int

    @classmethod
    def of(cls, clip: Clip, schema: Schema) -> IndexRow:
        digest = hashlib.blake2b(digest_size=8)
        arrays = {"audio": clip.audio, "mouth": clip.mouth, "face": clip.face} | dict(sorted(clip.tracks.items()))
        if not any(map(len, arrays.values())):
            digest.update(clip.clip_id.encode())  # of text alone: no two are the same recording
        for name, array in arrays.items():
            digest.update(f"{name}{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        has = [name for name, array in (("audio", clip.audio), ("video", clip.mouth)) if len(array)]
        labels = {name: LABEL_KINDS[schema.labels[name]].indexed(value) for name, value in clip.labels.items()}
        said = sorted({**labels, **{name: clip.labels[name] for name in labels if schema.labels[name] in LONG}}.items())
        of_labels = hashlib.blake2b(json.dumps(said, default=lambda value: value.tolist()).encode(), digest_size=8)
        return cls(
            clip.clip_id, clip.num_frames, (*has, *sorted(clip.tracks)), clip.split, clip.speaker, labels,
            int.from_bytes(digest.digest()), int.from_bytes(of_labels.digest()),
        )  # fmt: skip


class Batch(NamedTuple):
    """A global (or one process's) batch of B clips padded to T frames.

    inputs: for each modality of the model, what `data.inputs` makes of a clip, [B, T, ...]; 0 where there is no frame.
    present: for each of them whether a clip has it at all, bool [B]. valid_BT: bool, True on real frames,
    which are the first of each clip.
    targets_BTS: int32 cluster ids of S codebooks, -1 where there is none (padding included).
    labels: by task, [B, ...]; -1 (or NaN) where there is none. clip_B: int32 row in the clip table, -1 for a row that
    only fills the batch. chance_B: uint32, what the draws for a clip are told apart by: of its id, and of how often it
    came before in the epoch.
    """

    inputs: dict[str, Any]
    present: dict[str, Any]
    valid_BT: Any
    targets_BTS: Any
    labels: dict[str, Any]
    clip_B: Any
    chance_B: Any


def dataset_features(schema: Schema) -> tfds.features.FeaturesDict:
    """The TFDS features of a clip without its sound and pictures (storage.py)."""
    from tensorflow_datasets import features

    text = features.Text
    return features.FeaturesDict(
        {
            "clip_id": text(),
            "tracks": {
                name: _tensor(features, (None, *spec.shape), spec.dtype) for name, spec in schema.tracks.items()
            },
            "labels": {name: LABEL_KINDS[kind].feature(features) for name, kind in schema.labels.items()},
            "split": text(),
            "speaker": text(),
            "info_json": text(),
        }
    )


def encode_clip(clip: Clip, schema: Schema) -> dict[str, Any]:
    """What the TFDS builder writes of a clip: all but its sound and pictures. Raises ValueError for what is not in the
    schema."""
    schema.check_views(clip)
    schema.check_tracks(clip)
    schema.check_labels(clip.clip_id, clip.labels)
    absent = {name: np.zeros((0, *spec.shape), spec.dtype) for name, spec in schema.tracks.items()}
    empty = {name: LABEL_KINDS[kind].empty for name, kind in schema.labels.items()}
    return {
        "clip_id": clip.clip_id, "tracks": absent | dict(clip.tracks), "labels": empty | dict(clip.labels),
        "split": clip.split, "speaker": clip.speaker, "info_json": json.dumps(clip.info, sort_keys=True),
    }  # fmt: skip


def decode_clip(example: Mapping[str, Any], schema: Schema) -> Clip:
    """The inverse of `encode_clip`, from what a TFDS data source returns: a clip without sound and pictures."""
    fields = {name: value.decode() if isinstance(value, bytes) else value for name, value in example.items()}
    labels = {name: LABEL_KINDS[schema.labels[name]].decode(value) for name, value in fields.pop("labels").items()}
    info, no_picture = json.loads(fields.pop("info_json")), np.zeros((0, 0, 0), np.uint8)
    return Clip(audio=np.zeros(0, np.int16), mouth=no_picture, face=no_picture, labels=labels, info=info, **fields)


def read_schema(corpus_dir: str | Path) -> Schema:
    """What the clips of a whole prepared corpus may have."""
    return Schema.from_json(json.loads((Path(corpus_dir) / CORPUS_FILE).read_text())["schema"])


def dataset_dir(corpus_dir: str | Path) -> Path:
    return Path(corpus_dir) / DATASET_NAME / DATASET_VERSION
