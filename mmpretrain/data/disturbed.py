"""Clips as they are not at their best: noise, blur, hidden parts, lost frames, sound beside its picture, less of them.

A change takes a clip and how far it goes (a level), and draws by the clip's id alone, so that every classifier meets
the same noise and the same boxes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from mmpretrain.data.clips import ClipTable
from mmpretrain.data.stored import StoredClip
from mmpretrain.data.unreadable import UnreadableClipError
from mmpretrain.randomness import generator
from mmpretrain.records import FACE_TRACKS, FRAME_RATE_HZ, HAND_TRACKS, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, Clip

BABBLING = 30  # clips that babble is made of
BABBLE_SECONDS = 20
PICTURE_TRACKS = (*FACE_TRACKS, *HAND_TRACKS)  # seen in the picture, hence lost and late with it
ACTIVE = 1e-3  # times the power of the loudest 25 ms: what is above is active

Apply = Callable[[Clip, float, "Given"], Clip]


@dataclasses.dataclass(frozen=True)
class Given:
    """What changes are made of beside the clip: a generator for it, and babble, int16 [N], where that is asked for."""

    random: np.random.Generator
    babble: np.ndarray


@dataclasses.dataclass(frozen=True)
class Change:
    """needs: the parts of a clip that it is about, of "audio" and "video". unit: of its levels."""

    name: str
    needs: tuple[str, ...]
    unit: str
    levels: tuple[float, ...]
    apply: Apply


@dataclasses.dataclass(frozen=True, eq=False)
class DisturbedTable(ClipTable):
    """A table whose clips come changed: `disturbed` makes it."""

    change: Change | None
    level: float
    babble: np.ndarray
    lacks: tuple[str, ...]
    most_frames: int

    @property
    def lengths(self) -> np.ndarray:
        return np.minimum(self.index.num_frames, self.most_frames)

    def has(self, name: str) -> np.ndarray:
        return super().has(name) & (name not in self.lacks)

    def open(self, i: int) -> Clip:
        has = tuple(name for name, column in self.index.has.items() if column[i])
        source, frames = self.sources[self.source_N[i]], int(self.index.num_frames[i])
        clip = StoredClip(self.clip_ids[i], frames, has, source, int(self.record_N[i])).whole()
        frames = int(self.lengths[i])
        clip = dataclasses.replace(
            clip, audio=clip.audio[: frames * SAMPLES_PER_FRAME], mouth=clip.mouth[:frames], face=clip.face[:frames],
            tracks={name: track[:frames] for name, track in clip.tracks.items() if name not in self.lacks},
        )  # fmt: skip
        if self.change is None:
            return clip
        given = Given(generator(0, "disturbed", self.change.name, clip.clip_id), self.babble)
        return self.change.apply(clip, self.level, given)


def disturbed(
    table: ClipTable, change: Change | None = None, level: float = 0.0, babble: np.ndarray | None = None, *,
    lacks: Sequence[str] = (), seconds: float = 1e6,
) -> DisturbedTable:  # fmt: skip
    """The table with every clip changed, without the modalities `lacks`, and no longer than its first seconds.

    Without "video" nothing that was seen in it is left either.
    """
    fields = {field.name: getattr(table, field.name) for field in dataclasses.fields(ClipTable)}
    lost = (*lacks, *(PICTURE_TRACKS if "video" in lacks else ()))
    return DisturbedTable(
        **fields, change=change, level=level, babble=np.zeros(0, np.int16) if babble is None else babble,
        lacks=lost, most_frames=max(1, round(seconds * FRAME_RATE_HZ)),
    )  # fmt: skip


def babble_of(table: ClipTable) -> np.ndarray:
    """int16: many clips of the table, each as loud as the others, over one another; empty where none has sound.

    Which ones is a matter of their ids; one that cannot be read is left out.
    """
    rows = np.flatnonzero(table.has("audio"))
    rows = rows[np.argsort(table.draws("babble")[rows], kind="stable")[:BABBLING]]
    made = np.zeros(BABBLE_SECONDS * SAMPLE_RATE_HZ)
    for row in rows.tolist():
        try:
            sound = table.open(row).audio.astype(np.float64)
        except UnreadableClipError as error:
            table.unreadable.add(error)
            continue
        made += np.resize(sound / max(1.0, np.sqrt(_power(sound))), len(made))
    peak = np.abs(made).max(initial=0)
    return (made * (20_000 / peak)).astype(np.int16) if peak else np.zeros(0, np.int16)


def _power(sound_N: np.ndarray) -> float:
    """The mean square of the active part: of 25 ms that are not far below the loudest."""
    size = SAMPLE_RATE_HZ // 40
    parts = np.square(sound_N[: len(sound_N) // size * size].reshape(-1, size)).mean(1)
    active = parts[parts >= ACTIVE * parts.max(initial=0)]
    return float(active.mean()) if len(active) else float(np.square(sound_N).mean()) if len(sound_N) else 0.0


def add_at(sound_N: np.ndarray, noise_N: np.ndarray, decibels: float) -> np.ndarray:
    """int16: the sound with the noise under it, so many decibels weaker than what of the sound is active."""
    sound, noise = sound_N.astype(np.float64), noise_N.astype(np.float64)
    power = float(np.square(noise).mean()) if len(noise) else 0.0
    if not power:
        return sound_N
    scale = np.sqrt(_power(sound) / power / 10 ** (decibels / 10))
    return np.clip(np.rint(sound + scale * noise), -32768, 32767).astype(np.int16)


def _white(clip: Clip, level: float, given: Given) -> Clip:
    noise = given.random.normal(size=len(clip.audio))
    return dataclasses.replace(clip, audio=add_at(clip.audio, noise, level))


def _replace(clip: Clip, level: float, given: Given) -> Clip:
    """White noise in place of the sound, equally loud in all clips: what is left of them is how long they are."""
    noise = given.random.normal(size=len(clip.audio)) * 32768 * 10 ** (level / 20)
    return dataclasses.replace(clip, audio=np.clip(np.rint(noise), -32768, 32767).astype(np.int16))


def _babble(clip: Clip, level: float, given: Given) -> Clip:
    if not len(given.babble):
        return clip
    start = int(given.random.integers(len(given.babble)))
    noise = np.resize(np.roll(given.babble, -start), len(clip.audio))
    return dataclasses.replace(clip, audio=add_at(clip.audio, noise, level))


def _pictures(clip: Clip, made: Callable[[np.ndarray], np.ndarray]) -> Clip:
    return dataclasses.replace(clip, mouth=made(clip.mouth), face=made(clip.face)) if len(clip.mouth) else clip


def _at(clip: Clip, last: np.ndarray) -> Clip:
    """Every frame shows the picture of frame `last`, int [T], and what was seen in that."""
    if not len(last):
        return clip
    tracks = {name: track[last] if name in PICTURE_TRACKS else track for name, track in clip.tracks.items()}
    return dataclasses.replace(_pictures(clip, lambda video_THW: video_THW[last]), tracks=tracks)


def _blur(clip: Clip, level: float, given: Given) -> Clip:
    import cv2  # slow to import

    def blurred(video_THW: np.ndarray) -> np.ndarray:
        sigma = level * video_THW.shape[1] / 96  # pixels of a crop of 96
        return np.stack([cv2.GaussianBlur(picture, (0, 0), sigma) for picture in video_THW])

    return _pictures(clip, blurred)


def _hide(clip: Clip, level: float, given: Given) -> Clip:
    """A grey box of that share of the picture, in one place for the whole clip."""
    y, x = given.random.random(2)

    def hidden(video_THW: np.ndarray) -> np.ndarray:
        video, size = video_THW.copy(), video_THW.shape[1]
        side = round(size * np.sqrt(level))
        top, left = round(y * (size - side)), round(x * (size - side))
        video[:, top : top + side, left : left + side] = 128
        return video

    return _pictures(clip, hidden)


def _drop(clip: Clip, level: float, given: Given) -> Clip:
    """That share of the frames is lost, and the one before stays."""
    kept = given.random.random(len(clip.mouth)) >= level
    last = np.maximum.accumulate(np.where(kept, np.arange(len(kept)), 0)) if len(kept) else np.zeros(0, int)
    return _at(clip, last)


def _freeze(clip: Clip, level: float, given: Given) -> Clip:
    """From that share of the clip on the picture stands still."""
    last = np.minimum(np.arange(len(clip.mouth)), round((1 - level) * max(0, len(clip.mouth) - 1)))
    return _at(clip, last)


def _offset(clip: Clip, level: float, given: Given) -> Clip:
    """The sound comes so many milliseconds late, or early where it is negative."""
    shift = round(level * SAMPLE_RATE_HZ / 1000)
    audio = np.zeros_like(clip.audio)
    if abs(shift) < len(audio):
        audio[max(0, shift) : len(audio) + min(0, shift)] = clip.audio[max(0, -shift) : len(audio) - max(0, shift)]
    return dataclasses.replace(clip, audio=audio)


_SNR = (-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0)
CHANGES = {
    change.name: change
    for change in (
        Change("white", ("audio",), "dB SNR", _SNR, _white),
        Change("babble", ("audio",), "dB SNR", _SNR, _babble),
        Change("replaced", ("audio",), "dBFS of noise alone", (-30.0,), _replace),
        Change("blur", ("video",), "px of 96", (1.0, 2.0, 4.0), _blur),
        Change("hidden", ("video",), "share hidden", (0.1, 0.3, 0.5), _hide),
        Change("dropped", ("video",), "share dropped", (0.1, 0.3, 0.5), _drop),
        Change("frozen", ("video",), "share frozen", (0.5, 1.0), _freeze),
        Change("offset", ("audio", "video"), "ms late", (-400.0, -240.0, -80.0, 80.0, 240.0, 400.0), _offset),
    )
}
LENGTHS = (0.5, 1.0, 2.0, 3.0)  # seconds
