"""MFCC with deltas, as Kaldi makes them: what the targets of a first round are made of.

The definition is AV-HuBERT's, number for number, as it is part of the method. No JAX: data workers use this.
Dims: N samples at 16 kHz or 10 ms rows, T frames of 40 ms, F features.
"""

from __future__ import annotations

import functools

import numpy as np

from mmpretrain.features.deltas import deltas
from mmpretrain.features.scale import standardized
from mmpretrain.features.spectrum import FFT_SIZE, STACK, WINDOW, band_energies, check_sound, windows
from mmpretrain.records import SAMPLE_RATE_HZ

NUM_CEPSTRA = 13
MFCC_DIM = 3 * NUM_CEPSTRA  # with deltas and second deltas
CEPSTRA_DIM = STACK * NUM_CEPSTRA
MFCC_BANDS = 23
MFCC_LOW_HZ, MFCC_HIGH_HZ = 20.0, 8000.0


def mfcc39(audio_N: np.ndarray) -> np.ndarray:
    """13 Kaldi-style cepstra, their deltas and second deltas every 10 ms.

    audio_N: int16 at 16 kHz. Returns float32 [N, 39] with 4T-2 rows for 640T samples (only whole windows count), none
    for sound under 25 ms. Raises ValueError for another dtype or shape.
    """
    check_sound("audio", audio_N)
    if len(audio_N) < WINDOW:
        return np.zeros((0, MFCC_DIM), np.float32)
    energies = band_energies(windows(audio_N / 32768.0), _mfcc_weights(), _emphasised)
    cepstra = np.log(np.maximum(energies, np.finfo(np.float32).eps)) @ _cepstral_transform()
    slopes = deltas(cepstra)
    return np.concatenate([cepstra, slopes, deltas(slopes)], axis=1).astype(np.float32)


def levels_db(mfcc_NF: np.ndarray) -> np.ndarray:
    """How loud each row of `mfcc39` is, float32 [N]: the mean over the bands of their level in dB.

    The first cepstrum is that mean, on another scale. Digital silence is at -69 dB.
    """
    return (10 / np.log(10) / np.sqrt(MFCC_BANDS) * mfcc_NF[:, 0]).astype(np.float32)


def _emphasised(frames: np.ndarray) -> np.ndarray:
    """Windows [count, 400] without their mean, high frequencies raised, faded out at both ends."""
    frames = frames - frames.mean(axis=1, keepdims=True)
    previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    return (frames - 0.97 * previous) * _mfcc_window()


def mfcc39_of_frames(audio_N: np.ndarray, num_frames: int, targets_per_frame: int = 1) -> np.ndarray:
    """Every fourth row of `mfcc39` (or all four of a frame): float32 [num_frames * targets_per_frame, 39].

    Where the sound ends early, its last row is repeated. Raises ValueError where there is no sound at all.
    """
    if not len(audio_N):
        raise ValueError("a clip without sound has no MFCC; leave it out, or use other targets.features")
    rows = mfcc39(np.pad(audio_N, (0, max(0, WINDOW - len(audio_N)))))[:: STACK // targets_per_frame]
    return rows[np.minimum(np.arange(num_frames * targets_per_frame), len(rows) - 1)]


def cepstra_of_frames(audio_N: np.ndarray, num_frames: int) -> np.ndarray:
    """The 13 cepstra of all four rows of each frame, each cepstrum on its own scale over the clip: [num_frames, 52].

    One row of 10 ms, as a frame of `mfcc39_of_frames` is, does not say what happens within the 40 ms, and its scale is
    the speaker's. Where the sound ends early, its last row is repeated. Raises ValueError where there is no sound.
    """
    rows_NF = mfcc39_of_frames(audio_N, num_frames, STACK)[:, :NUM_CEPSTRA]
    return standardized(rows_NF).reshape(num_frames, CEPSTRA_DIM)


@functools.cache
def _mfcc_window() -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1))) ** 0.85


@functools.cache
def _mfcc_weights() -> np.ndarray:
    """[256, 23] triangles that are straight in mel(f) = 1127 ln(1 + f / 700); the Nyquist bin is left out."""

    def mel(f):
        return 1127 * np.log(1 + f / 700)

    edges = np.linspace(mel(MFCC_LOW_HZ), mel(MFCC_HIGH_HZ), MFCC_BANDS + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bin_mel = mel(np.arange(FFT_SIZE // 2) * SAMPLE_RATE_HZ / FFT_SIZE)[:, None]
    return np.maximum(0, np.minimum((bin_mel - left) / (centre - left), (right - bin_mel) / (right - centre)))


@functools.cache
def _cepstral_transform() -> np.ndarray:
    """[23, 13]: the first rows of the orthonormal DCT-II, liftered."""
    k = np.arange(NUM_CEPSTRA)
    dct = np.sqrt(2 / MFCC_BANDS) * np.cos(np.pi / MFCC_BANDS * (np.arange(MFCC_BANDS)[:, None] + 0.5) * k)
    dct[:, 0] = np.sqrt(1 / MFCC_BANDS)
    return dct * (1 + 11 * np.sin(np.pi * k / 22))
