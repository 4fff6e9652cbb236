"""How high, how loud, how bright and how voiced each frame of a clip sounds: what an affect codebook clusters.

No JAX: data workers use this. Dims: N samples at 16 kHz, R rows of 10 ms, T frames of 40 ms, F features.
"""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple

import numpy as np

from mmpretrain.features.deltas import deltas
from mmpretrain.features.filterbank import LEVEL_FLOOR, NUM_BANDS, band_centres_hz, log_filterbank
from mmpretrain.features.spectrum import HOP, STACK, WINDOW
from mmpretrain.records import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

PROSODY_DIM = 7

PITCH_LOW_HZ, PITCH_HIGH_HZ = 65.0, 500.0  # men's low voices to women's shouts
PITCH_WINDOW = 1024  # samples: four periods of the lowest pitch
_KNOWN_BYTES = 256_000_000  # of measurements that are kept: of nearly 200 hours
_ENTRY_BYTES = 1000  # of one clip's beside its arrays
_BLOCK_ROWS = 2048  # pitch is found in so many rows at once, so that memory does not grow with the clip

# Periodicity (correlation of the sound with itself one period later) from which a row is a little voiced, and wholly.
VOICED_FROM, VOICED_WHOLLY = 0.4, 0.8
RANGE_DB = 40.0  # below the clip's loud frames; what is quieter is silence
QUIET_DB = 20.0  # an RMS of 10 of 32768: a clip that is never louder is silence
# How much of a clip's own loudness is left in, and what it is on average: as in filterbank.py, since emotion is heard
# in it (on RAVDESS the clusters tell half as much again of it); in recordings found anywhere it is the gain.
LOUDNESS_SHARE, LOUDNESS_DB = 0.5, 65.0
# Pitch in semitones over so much. What takes the place of a speaker's pitch, loudness and tilt: typical ones.
PITCH_FROM_HZ, VOICED = 150.0, 0.5
TYPICAL = np.array([0.0, LOUDNESS_DB, 1.5], np.float32)
# Typical deviations, measured over RAVDESS and GRID and rounded: with them each feature counts about equally.
PITCH_SCALE, LEVEL_SCALE, TILT_SCALE = 3.0, 12.0, 2.0  # semitones, dB, dB per octave
CHANGE_SCALES = (1.0, 4.0, 0.6)  # of their slopes, per frame


class Prosody(NamedTuple):
    """As measured, each float32 [T]: f0_hz (means something only where voiced), voicing from 0 to 1, level_db (RMS of
    int16 samples, at least 0), tilt_db (per octave; more is brighter)."""

    f0_hz: np.ndarray
    voicing: np.ndarray
    level_db: np.ndarray
    tilt_db: np.ndarray


def measure_prosody(audio_N: np.ndarray, num_frames: int) -> Prosody:
    """Prosody of each frame from four rows of 10 ms. audio_N: int16 at 16 kHz; beyond its end all is silence.

    Pitch is librosa's YIN (de Cheveigne and Kawahara 2002), not its pYIN: 300 against 11 times faster than real time
    on one core (39 hours of processor time for LRS3), while on RAVDESS the two differ by over 20 % in 0.1 % of the rows
    that pYIN calls voiced. YIN does not say what is voiced; here the periodicity at the lag that it found does, as a
    share rather than a decision. Tilt is the slope of a line through the 26 log filterbank energies over octaves.
    Raises ValueError where there is no sound or no frame at all.
    """
    if not len(audio_N):
        raise ValueError("a clip without sound has no prosody; leave it out, or use other targets.features")
    if num_frames < 1:
        raise ValueError(f"a clip of {num_frames} frames has no prosody; leave it out: data.min_frames is at least 1")
    import librosa  # takes seconds, and only those who cluster prosody need it

    num_samples = num_frames * SAMPLES_PER_FRAME
    sound_N = np.pad(audio_N[:num_samples], (0, max(0, num_samples - len(audio_N))))

    def around_rows(window: int) -> np.ndarray:
        """The sound with margins, so that the k-th window of it is centred on the k-th row."""
        return np.pad(sound_N, (window - HOP) // 2)

    close_N = around_rows(WINDOW)
    rms_R = librosa.feature.rms(y=close_N.astype(np.float32), frame_length=WINDOW, hop_length=HOP, center=False)[0]
    level_R = 20 * np.log10(np.maximum(rms_R, 1))
    tilt_R = np.maximum(log_filterbank(close_N), LEVEL_FLOOR) @ _tilt_weights()
    f0_R, voicing_R = _pitch(around_rows(PITCH_WINDOW).astype(np.float32) / 32768, len(rms_R))

    def mean(x_R: np.ndarray, weights_R: np.ndarray | None = None) -> np.ndarray:
        weights = None if weights_R is None else weights_R.reshape(-1, STACK)
        return np.average(x_R.reshape(-1, STACK), axis=1, weights=weights).astype(np.float32)

    f0_T = np.exp(mean(np.log(f0_R), voicing_R + 1e-6))
    return Prosody(f0_T, mean(voicing_R), mean(level_R), mean(tilt_R))


class _Measured:
    """What `measure_prosody` said of clips that it was asked of before, as far as that fits: a stage comes to each clip
    two or three times, for its speaker's centre, for the codebook and for its labels, a later round again.

    By the content of the sound. The first to come stay: whoever goes through a corpus in order would find none of the
    last ones.
    """

    def __init__(self, max_bytes: int):
        self._left_bytes, self._known = max_bytes, {}

    def __call__(self, audio_N: np.ndarray, num_frames: int) -> Prosody:
        key = hashlib.blake2b(np.ascontiguousarray(audio_N), digest_size=16).digest(), num_frames
        if (known := self._known.get(key)) is not None:
            return known
        made = measure_prosody(audio_N, num_frames)
        size = sum(x.nbytes for x in made) + _ENTRY_BYTES
        if size <= self._left_bytes:  # two threads may both find room: the bound is of the size, not to the byte
            self._known[key] = made
            self._left_bytes -= size
        return made


_measured = _Measured(_KNOWN_BYTES)


def prosody_features(audio_N: np.ndarray, num_frames: int, centre_3: np.ndarray | None = None) -> np.ndarray:
    """What clusters of prosody are made of: float32 [num_frames, 7].

    voicing; pitch in semitones over the centre's, times voicing; level under the clip's loud frames (95 in 100 are
    below), cut at -40 dB, with the clip's loudness over the centre's added; tilt over the centre's; and the slopes of
    the last three over five frames. Loudness and tilt fade out towards silence, so that silence is the same in all
    clips. Each is divided by a fixed scale, never by a spread: a lively clip stays lively, a lively speaker too.

    centre_3: pitch, loudness and tilt that they are relative to, as `prosody_sums` has them: of the speaker, so that
    what an emotion does to a whole clip stays; or `TYPICAL`, of nobody. None: the clip's own median pitch and mean
    tilt, and half of its loudness over a fixed one: neither who speaks nor the microphone decides a cluster, but what
    an emotion does to the mean pitch or tilt of a clip is lost with them. Raises ValueError where there is no sound.
    """
    measured = _measured(audio_N, num_frames)
    loud_db, presence_T = _presence(measured.level_db)
    voicing_T = measured.voicing * presence_T
    pitch_T, voiced_T = _semitones(measured.f0_hz), voicing_T > VOICED
    if centre_3 is None:
        pitch = np.median(pitch_T[voiced_T]) if voiced_T.any() else 0.0
        tilt = np.sum(measured.tilt_db * presence_T) / max(float(presence_T.sum()), 1e-6)
        loudness, most = LOUDNESS_SHARE * (loud_db - LOUDNESS_DB), 12
    else:
        pitch, loudness, tilt = np.asarray(centre_3, np.float32)
        loudness, most = loud_db - loudness, 24
    pitch_T = _contour(np.clip(pitch_T - pitch, -most, most), voiced_T)
    tilt_T = (measured.tilt_db - tilt) * presence_T
    level_T = (presence_T - 1) * RANGE_DB + loudness * presence_T
    track_T3 = np.stack([pitch_T, level_T, tilt_T], axis=1)
    heard_T3 = np.stack([voicing_T, np.ones_like(voicing_T), np.ones_like(voicing_T)], axis=1)
    values_T3 = track_T3 * heard_T3 / (PITCH_SCALE, LEVEL_SCALE, TILT_SCALE)
    changes_T3 = deltas(track_T3) * heard_T3 / CHANGE_SCALES
    return np.concatenate([voicing_T[:, None], values_T3, changes_T3], axis=1).astype(np.float32)


def prosody_sums(audio_N: np.ndarray, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """What a clip adds to its speaker's centre: sums and weights, float64 [3] each, whose ratios are the centre.

    Semitones over `PITCH_FROM_HZ` of voiced frames; the level in dB of the clip's loud frames, and the tilt in dB per
    octave, of all frames as far as they are no silence. Weights are frames. Raises ValueError where there is no sound.
    """
    measured = _measured(audio_N, num_frames)
    loud_db, presence_T = _presence(measured.level_db)
    voicing_T = measured.voicing * presence_T
    weights_T3 = np.stack([voicing_T * (voicing_T > VOICED), presence_T, presence_T], axis=1).astype(np.float64)
    values_T3 = np.stack([_semitones(measured.f0_hz), np.full_like(presence_T, loud_db), measured.tilt_db], axis=1)
    return (weights_T3 * values_T3).sum(0), weights_T3.sum(0)


def _presence(level_T: np.ndarray) -> tuple[float, np.ndarray]:
    """The level of a clip's loud frames, and of each frame how far it is from silence: 0 to 1 [T]."""
    loud_db = max(float(np.percentile(level_T, 95)), QUIET_DB)
    return loud_db, 1 + np.clip((level_T - loud_db) / RANGE_DB, -1, 0)


def _semitones(f0_T: np.ndarray) -> np.ndarray:
    return 12 * np.log2(f0_T / PITCH_FROM_HZ)


def _contour(pitch_T: np.ndarray, voiced_T: np.ndarray) -> np.ndarray:
    """The pitch of the voiced frames, joined by lines where nothing is voiced; all 0 where nothing is at all."""
    if not voiced_T.any():
        return np.zeros_like(pitch_T)
    return np.interp(np.arange(len(pitch_T)), np.flatnonzero(voiced_T), pitch_T[voiced_T])


def _pitch(sound_N: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(fundamental frequency in Hz, voicing), each [R], of the windows that begin every `HOP` samples of `sound_N`."""
    import librosa

    f0, voicing = [], []
    for first in range(0, num_rows, _BLOCK_ROWS):
        last = min(first + _BLOCK_ROWS, num_rows)
        block_N = sound_N[first * HOP : (last - 1) * HOP + PITCH_WINDOW]
        f0_R = librosa.yin(
            block_N, fmin=PITCH_LOW_HZ, fmax=PITCH_HIGH_HZ, sr=SAMPLE_RATE_HZ, frame_length=PITCH_WINDOW,
            hop_length=HOP, center=False,
        )  # fmt: skip
        f0.append(f0_R)
        voicing.append((_periodicity(block_N, f0_R) - VOICED_FROM) / (VOICED_WHOLLY - VOICED_FROM))
    return np.concatenate(f0), np.clip(np.concatenate(voicing), 0, 1)


def _periodicity(sound_N: np.ndarray, f0_R: np.ndarray) -> np.ndarray:
    """Correlation, -1 to 1, of two half windows one period apart in the middle of each window."""
    half = PITCH_WINDOW // 2
    period_R = np.round(SAMPLE_RATE_HZ / f0_R).astype(int)
    start_R = np.arange(len(f0_R)) * HOP + (half - period_R) // 2
    first_RN = sound_N[start_R[:, None] + np.arange(half)]
    second_RN = sound_N[(start_R + period_R)[:, None] + np.arange(half)]
    first_RN = first_RN - first_RN.mean(axis=1, keepdims=True)
    second_RN = second_RN - second_RN.mean(axis=1, keepdims=True)
    energy_R = np.sqrt(np.sum(first_RN**2, axis=1) * np.sum(second_RN**2, axis=1))
    return np.sum(first_RN * second_RN, axis=1) / (energy_R + 1e-6)


@functools.cache
def _tilt_weights() -> np.ndarray:
    """[26]: takes log energies to the slope in dB per octave of the line through them."""
    octaves = np.log2(band_centres_hz())
    centred = octaves - octaves.mean()
    assert len(centred) == NUM_BANDS
    return 10 / np.log(10) * centred / np.sum(centred**2)
