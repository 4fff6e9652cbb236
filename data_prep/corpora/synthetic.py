"""The embedded corpus: drawn talking faces with sound made from the same hidden state. It needs no files.

Sixty speakers, each in every emotion; speakers of validation and test are never in training. Words are independent
of the emotion. Every clip is rendered from random streams of its own, so it depends on the seed and itself alone.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np

from data_prep.corpus import Argument, Corpus
from data_prep.sources import SourceClip
from data_prep.synthesis import face, language, voice
from data_prep.synthesis.character import EMOTIONS, make_manner, make_speaker
from data_prep.synthesis.draws import stream
from data_prep.synthesis.language import UNITS
from mmpretrain.records import TRUE_UNITS

__all__ = ["EMOTIONS", "UNITS", "ClipSpec", "SyntheticClip", "clip_specs", "render"]

# Split of each speaker; clips take speakers in this order, so the first four already have all splits.
SPEAKER_SPLITS = ("train", "test", "train", "validation", "train", "train", "test", "train",
                  "train", "train", "validation", "train", "test", "train", "train") * 4  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """Who says what and how. `clip_id` is a hash: nothing can be read from it."""

    clip_id: str
    split: str
    speaker: str
    emotion: str
    words: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SyntheticClip:
    """One rendered clip of T frames at 25 fps.

    frames: uint8 [T, 128, 128], grey. points: float32 [T, 9, 2], x and y in pixels of the points named in
    `data_prep.synthesis.face.draw`. audio: int16 [640 T] at 16 kHz. units: int32 [T], index into `UNITS` at each
    frame's centre. info: signal-to-noise ratio, and how strongly the emotion is heard and seen.
    """

    clip_id: str
    split: str
    speaker: str
    emotion: str
    text: str
    info: dict[str, Any]
    frames: np.ndarray
    points: np.ndarray
    audio: np.ndarray
    units: np.ndarray

    @property
    def tracks(self) -> dict[str, np.ndarray]:
        return {"units": self.units}


def read(clips: int, seed: int) -> list[SourceClip]:
    """The clips to be drawn, the first `clips` of the corpus of this seed. Raises ValueError for too few."""
    return [
        SourceClip(
            clip_id=spec.clip_id, path=None, split=spec.split, speaker=spec.speaker,
            labels={"emotion": spec.emotion, "text": " ".join(spec.words)},
            render=functools.partial(render, spec, seed),
        )
        for spec in clip_specs(clips, seed)
    ]  # fmt: skip


def clip_specs(num_clips: int, seed: int) -> list[ClipSpec]:
    """The first `num_clips` clips of the corpus of this seed. From 30 on, every split has every emotion."""
    if num_clips < 4:
        raise ValueError(
            f"num_clips={num_clips} leaves a split of the synthetic corpus empty; use 4 or more (demo: 240)"
        )
    return [_clip_spec(index, seed) for index in range(num_clips)]


def _clip_spec(index: int, seed: int) -> ClipSpec:
    turn, who = divmod(index, len(SPEAKER_SPLITS))
    split = SPEAKER_SPLITS[who]
    place = SPEAKER_SPLITS[:who].count(split)  # among the speakers of the split, so that its emotions differ at once
    return ClipSpec(
        clip_id=hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=6).hexdigest(),
        split=split,
        speaker=f"speaker{who + 1:02d}",
        emotion=EMOTIONS[(place + turn) % len(EMOTIONS)],
        words=language.sample_sentence(stream(seed, "words", index)),
    )


def render(spec: ClipSpec, seed: int) -> SyntheticClip:
    """Draws and speaks one clip; `seed` is that of `clip_specs`."""
    speaker = make_speaker(spec.speaker, seed)
    manner, heard, seen = make_manner(spec.emotion, stream(seed, "manner", spec.clip_id))
    slowness = speaker.slowness * float(np.exp(manner.slowness))
    line = language.time_sentence(spec.words, slowness, stream(seed, "timing", spec.clip_id))
    audio, snr_db = voice.speak(line, speaker, manner, stream(seed, "voice", spec.clip_id))
    frames, points = face.draw(line, speaker, manner, stream(seed, "face", spec.clip_id))
    return SyntheticClip(
        clip_id=spec.clip_id,
        split=spec.split,
        speaker=spec.speaker,
        emotion=spec.emotion,
        text=" ".join(spec.words),
        info={"snr_db": round(snr_db, 2), "heard": round(heard, 3), "seen": round(seen, 3)},
        frames=frames,
        points=points,
        audio=audio,
        units=line.units_T,
    )


LAYOUT = """\
Talking faces drawn and voiced by this program, with true units for every frame: for the demo and for tests. Needs no
files and no face landmarker."""

CORPUS = Corpus(
    name="synthetic",
    layout=LAYOUT,
    terms="none: it is drawn",
    arguments=(
        Argument("clips", dict(type=int, default=240, help="how many clips (default: %(default)s)")),
        Argument("seed", dict(type=int, default=1, help="another seed, another corpus (default: %(default)s)")),
    ),
    read=read,
    labels={"emotion": "class", "text": "text"},
    tracks=TRUE_UNITS,
    prepared_name=lambda seed, **_: f"synthetic-{seed}",
    drawn=True,
)
