"""Who speaks (identity: pitch, tract, face geometry) and in which manner (emotion: prosody, brows, mouth corners)."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_prep.synthesis.draws import stream

EMOTIONS = ("neutral", "happy", "sad", "angry")


@dataclasses.dataclass(frozen=True)
class Speaker:
    """Identity. Lengths of the face are in the units of `face.py`; shades are grey values; factors are around 1."""

    pitch_hz: float
    tract_scale: float  # of all formants
    tilt_db: float  # spectral slope of the voice, dB per octave
    breath: float
    rough: float  # jitter of the glottal pulses
    slowness: float
    articulation: float  # how far the lips move
    skin: float
    hair: float
    lip: float  # darker than the skin by so much
    face_width: float
    face_height: float
    eye_spacing: float
    eye_size: float
    brow_height: float
    brow_thickness: float
    brow_rest: float
    nose_width: float
    mouth_drop: float
    mouth_width: float
    lip_thickness: float
    corner_rest: float


def make_speaker(name: str, seed: int) -> Speaker:
    rng = stream(seed, "speaker", name)
    size, variation = rng.random(2)  # small people have high voices, loosely
    skin = rng.uniform(115, 205)
    return Speaker(
        pitch_hz=90.0 * (250.0 / 90.0) ** size,
        tract_scale=float(np.exp(0.14 * (2 * (0.65 * size + 0.35 * variation) - 1))),
        tilt_db=rng.normal(0.0, 1.0),
        breath=rng.uniform(0.02, 0.12),
        rough=rng.uniform(0.003, 0.02),
        slowness=float(np.exp(0.07 * rng.standard_normal())),
        articulation=rng.uniform(0.8, 1.2),
        skin=skin,
        hair=rng.uniform(20, 0.75 * skin),
        lip=rng.uniform(22, 45),
        face_width=rng.uniform(0.90, 1.10),
        face_height=rng.uniform(0.94, 1.06),
        eye_spacing=rng.normal(0.0, 2.0),
        eye_size=rng.uniform(0.85, 1.15),
        brow_height=rng.normal(0.0, 2.0),
        brow_thickness=rng.uniform(4.0, 7.5),
        brow_rest=rng.normal(0.0, 1.2),
        nose_width=rng.uniform(0.85, 1.2),
        mouth_drop=rng.normal(0.0, 2.0),
        mouth_width=rng.uniform(0.9, 1.12),
        lip_thickness=rng.uniform(0.75, 1.3),
        corner_rest=rng.normal(0.0, 1.2),
    )


@dataclasses.dataclass(frozen=True)
class Manner:
    """Deviation from plain speech. The first eight are heard, the others seen."""

    pitch: float = 0.0  # semitones
    accent: float = 0.0  # of the pitch range, relative
    slope: float = 0.0  # semitones per second
    final: float = 0.0  # semitones at the end
    slowness: float = 0.0  # log
    tilt_db: float = 0.0  # per octave
    breath: float = 0.0
    punch_db: float = 0.0  # of accented words over the others
    brow_raise: float = 0.0
    brow_slant: float = 0.0  # inner ends up
    corners: float = 0.0  # up
    eyes: float = 0.0  # wider
    motion: float = 0.0  # of the head, relative

    HEARD = ("pitch", "accent", "slope", "final", "slowness", "tilt_db", "breath", "punch_db")


# At full intensity. Happy and angry are both high in arousal, sad and neutral both low.
FULL = {
    "neutral": Manner(),
    "happy": Manner(2.5, 0.9, 0.3, 3.0, -0.10, 1.5, 0.00, 1.5, 3.0, 0.5, 7.5, -0.8, 0.5),
    "sad": Manner(-1.0, -0.5, -1.2, -1.5, 0.15, -3.0, 0.12, -2.5, 0.5, 5.0, -6.0, -2.2, -0.4),
    "angry": Manner(2.0, 0.6, -1.5, -2.5, -0.12, 3.5, -0.02, 7.0, -3.5, -5.0, -2.5, 1.8, 0.3),
}
# What varies from clip to clip whatever the emotion (standard deviations), so that the classes overlap.
SPREAD = Manner(1.0, 0.20, 0.6, 1.0, 0.05, 0.6, 0.02, 1.2, 1.0, 1.1, 1.5, 0.5, 0.2)


def make_manner(emotion: str, rng: np.random.Generator) -> tuple[Manner, float, float]:
    """The manner of one clip, and how strongly the emotion is heard and seen (each drawn for itself, 0.4 to 1.2)."""
    heard, seen = rng.uniform(0.4, 1.2, 2)
    values = {}
    for field in dataclasses.fields(Manner):
        intensity = heard if field.name in Manner.HEARD else seen
        spread = getattr(SPREAD, field.name) * rng.standard_normal()
        values[field.name] = intensity * getattr(FULL[emotion], field.name) + spread
    return Manner(**values), float(heard), float(seen)
