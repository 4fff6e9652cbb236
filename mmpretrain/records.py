"""What a clip is, on disk and in memory, and what a batch of clips is.

This is the contract between `data_prep`, which writes clips, and everything that reads them. It imports neither JAX
nor anything of ours.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
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

# A prepared corpus is a folder: the TFDS dataset `clips`, one index file a split beside its shards, and `corpus.json`,
# which is written last: a folder without it is not whole.
DATASET_NAME = "clips"
DATASET_VERSION = "2.0.0"  # of what a record holds; a corpus of another version is not read (2: blendshapes)
CORPUS_FILE = "corpus.json"


@dataclasses.dataclass(frozen=True)
class Clip:
    """One utterance of one person on the 25 Hz grid. A missing modality is an array of length zero.

    mouth, face: uint8 [T, S, S], grey crops at 25 fps, both present or both empty.
    audio: int16 [N], mono at 16 kHz.
    units: int32 [T], the true phone-like unit of each frame where it is known, else empty.
    blendshapes: float16 [T, 52], how far each movement of the face goes (0 to 1), in the order of `BLENDSHAPES`, such
    as a smile or an opened jaw, whoever's face it is. Empty where there is no video or the face is drawn.
    emotion: one of `EMOTIONS`, or "" where there is none. info: the corpus's own words and anything else worth keeping.
    """

    clip_id: str
    audio: np.ndarray
    mouth: np.ndarray
    face: np.ndarray
    units: np.ndarray
    blendshapes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, NUM_BLENDSHAPES), np.float16))
    split: str = "train"
    speaker: str = ""
    text: str = ""
    emotion: str = ""
    info: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def num_frames(self) -> int:
        """Length in frames of 40 ms: that of the video, or of the sound (rounded up) where there is no video."""
        return len(self.mouth) if len(self.mouth) else -(-len(self.audio) // SAMPLES_PER_FRAME)


@dataclasses.dataclass(frozen=True)
class IndexRow:
    """What planning needs to know of a clip without touching it. Row i of a split's index is record i of that split."""

    clip_id: str
    num_frames: int
    has_audio: bool
    has_video: bool
    has_blendshapes: bool
    split: str
    speaker: str
    emotion: str
    content_hash: str

    @classmethod
    def of(cls, clip: Clip) -> IndexRow:
        digest = hashlib.blake2b(digest_size=8)
        for array in (clip.audio, clip.mouth, clip.face, clip.units, clip.blendshapes):
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        return cls(
            clip.clip_id, clip.num_frames, len(clip.audio) > 0, len(clip.mouth) > 0, len(clip.blendshapes) > 0,
            clip.split, clip.speaker, clip.emotion, digest.hexdigest(),
        )  # fmt: skip


class Batch(NamedTuple):
    """A global (or one process's) batch of B clips padded to T frames; F = 104 audio features a frame.

    audio_BTF: float32, normalised, or None for a model without audio.
    video_BTHW: uint8, cropped and flipped but not normalised (the model does that), or None for a model without video.
    valid_BT: bool, True on real frames. has_audio_B, has_video_B: bool, whether the clip has that modality at all.
    targets_BTS: int32 cluster ids of S codebooks, -1 where there is none (padding included).
    label_B: int32 class ids, -1 where there is none. clip_B: int32 row in the clip table, -1 for a filler row.
    """

    audio_BTF: Any
    video_BTHW: Any
    valid_BT: Any
    has_audio_B: Any
    has_video_B: Any
    targets_BTS: Any
    label_B: Any
    clip_B: Any


def dataset_features(mouth_size: int, face_size: int) -> tfds.features.FeaturesDict:
    """The TFDS features of a clip. Sizes are fixed per corpus, since TFDS reads one unknown dim without TensorFlow."""
    import tensorflow_datasets as tfds

    def tensor(shape, dtype):
        return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=tfds.features.Encoding.BYTES)

    text = tfds.features.Text
    return tfds.features.FeaturesDict(
        {
            "clip_id": text(),
            "audio": tensor((None,), np.int16),
            "mouth": tensor((None, mouth_size, mouth_size), np.uint8),
            "face": tensor((None, face_size, face_size), np.uint8),
            "units": tensor((None,), np.int32),
            "blendshapes": tensor((None, NUM_BLENDSHAPES), np.float16),
            "split": text(),
            "speaker": text(),
            "text": text(),
            "emotion": text(),
            "info_json": text(),
        }
    )


def encode_clip(clip: Clip) -> dict[str, Any]:
    """A clip as the example that the TFDS builder writes."""
    example = {field.name: getattr(clip, field.name) for field in dataclasses.fields(clip) if field.name != "info"}
    return example | {"info_json": json.dumps(clip.info, sort_keys=True)}


def decode_clip(example: dict[str, Any]) -> Clip:
    """The inverse of `encode_clip`, from what a TFDS data source returns."""
    fields = {k: v.decode() if isinstance(v, bytes) else v for k, v in example.items()}
    return Clip(info=json.loads(fields.pop("info_json")), **fields)


def dataset_dir(corpus_dir: str | Path) -> Path:
    return Path(corpus_dir) / DATASET_NAME / DATASET_VERSION


def index_path(corpus_dir: str | Path, split: str) -> Path:
    return dataset_dir(corpus_dir) / f"index-{split}.jsonl"


def write_index(corpus_dir: str | Path, split: str, rows: Iterable[IndexRow]) -> None:
    with open(index_path(corpus_dir, split), "w") as file:
        file.writelines(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows)


def read_index(corpus_dir: str | Path, split: str) -> list[IndexRow]:
    with open(index_path(corpus_dir, split)) as file:
        return [IndexRow(**json.loads(line)) for line in file]


def corpus_fingerprint(rows: Iterable[IndexRow]) -> str:
    """16 hex digits that change when any clip's identity, split or content does, whatever the order of the rows."""
    lines = sorted(f"{row.split} {row.clip_id} {row.num_frames} {row.content_hash}" for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
