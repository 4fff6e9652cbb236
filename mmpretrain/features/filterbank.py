"""Log filterbanks: stacked and normalised for the encoder to hear, or with their slopes for clusters to be made of.

The definitions are AV-HuBERT's, number for number, as they are part of the method. No JAX: data workers use this.
Dims: N samples at 16 kHz or 10 ms rows, T frames of 40 ms, F features.
"""

from __future__ import annotations

import functools

import numpy as np

from mmpretrain.features.deltas import deltas
from mmpretrain.features.scale import standardized
from mmpretrain.features.spectrum import FFT_SIZE, HOP, STACK, WINDOW, band_energies, check_sound, windows
from mmpretrain.records import SAMPLE_RATE_HZ

NUM_BANDS = 26
PRE_EMPHASIS = 0.97

FBANK_DIM = 2 * NUM_BANDS  # with deltas
FBANK_CHANGE_SCALE = np.float32(0.5)  # with it the slopes vary about half as much as the bands (RAVDESS)

NORMALIZATIONS = ("frame", "level", "clip")
# For "level": log energies measured over RAVDESS, GRID, MEAD, HDTF and LRS3 in about equal parts, rounded (mean 7.5,
# deviation 5.1 after the floor). The floor is the rounding noise of int16: without it digital silence, at -36, would
# be the loudest event of a clip. With the whole level left in, 90 % of the variance of a row is the level (RAVDESS).
LEVEL_FLOOR, LEVEL_MEAN, LEVEL_SCALE, LEVEL_SHARE = np.float32(0), np.float32(8), np.float32(5), np.float32(0.5)


def log_filterbank(audio_N: np.ndarray) -> np.ndarray:
    """Log energies of 26 mel bands in a rectangular window of 25 ms every 10 ms.

    audio_N: int16 at 16 kHz. Returns float32 [N, 26]; the last frame is filled up with zeros, digital silence is
    log(2.2e-16). No sound, no frames. Raises ValueError for another dtype or shape.
    """
    check_sound("audio", audio_N)
    if not len(audio_N):
        return np.zeros((0, NUM_BANDS), np.float32)
    num_frames = 1 + max(0, -(-(len(audio_N) - WINDOW) // HOP))
    signal = np.zeros((num_frames - 1) * HOP + WINDOW)
    signal[: len(audio_N)] = audio_N
    signal[1 : len(audio_N)] -= PRE_EMPHASIS * audio_N[:-1]
    energies = band_energies(windows(signal), _filterbank_weights() / FFT_SIZE)
    return np.log(np.where(energies == 0, np.finfo(np.float64).eps, energies)).astype(np.float32)


def stack_frames(fbank_NF: np.ndarray) -> np.ndarray:
    """[N, 26] at 100 Hz -> [ceil(N / 4), 104] at 25 Hz, earliest frame first; the last row is filled up with zeros."""
    num_rows = -(-len(fbank_NF) // STACK)
    return _filled_up(fbank_NF, num_rows * STACK).reshape(num_rows, STACK * fbank_NF.shape[1])


def audio_features(
    audio_N: np.ndarray,
    num_frames: int,
    normalization: str = "frame",
    freq_mask: tuple[int, int] | None = None,
    freq_warp: float = 1.0,
) -> np.ndarray:
    """What the encoder hears: float32 [num_frames, 104], stacked log filterbanks at 25 Hz, normalised.

    normalization: "frame" scales each row to mean 0 and variance 1 (AV-HuBERT): nothing of the level survives. "level"
    adds a share of the row's level back (on a fixed scale, the same for all clips), since emotion is heard in it.
    "clip" scales each of the 26 bands to mean 0 and variance 1 over the sound that is given, whatever the speaker's
    voice and the channel add to it (cepstral mean and variance normalisation, Viikki and Laurila 1998).
    freq_mask: (first, width) of the bands, of 26, that are set to 0 after normalisation. freq_warp: the band that
    stands at place b is b * freq_warp, as if the speaker's vocal tract were that much longer (Jaitly and Hinton 2013).
    Sound that ends early is continued with rows of zeros, sound that goes on is cut; no sound is all zeros.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"model.inputs.audio_normalization={normalization!r} is not known; use one of {NORMALIZATIONS}"
        )
    fbank_NF = _warp(log_filterbank(audio_N), freq_warp)
    if normalization != "frame":
        fbank_NF = np.maximum(fbank_NF, LEVEL_FLOOR)
    if normalization == "clip":
        fbank_NF = standardized(fbank_NF[: num_frames * STACK])
    rows_TF = stack_frames(fbank_NF)[:num_frames]
    if normalization != "clip":
        rows_TF = _of_rows(rows_TF, normalization)
    if freq_mask is not None:
        first, width = freq_mask
        rows_TF.reshape(-1, STACK, NUM_BANDS)[:, :, first : first + width] = 0
    return _filled_up(rows_TF, num_frames)


def _of_rows(rows_TF: np.ndarray, normalization: str) -> np.ndarray:
    """Each row scaled by itself, as "frame" and "level" say."""
    # In float64, where the mean of equal values is exactly that value: digital silence becomes 0, not noise.
    mean_T1 = rows_TF.mean(axis=1, keepdims=True, dtype=np.float64)
    centred = rows_TF - mean_T1
    rows_TF = (centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + 1e-5)).astype(np.float32)
    if normalization == "level":
        rows_TF += LEVEL_SHARE * ((mean_T1 - LEVEL_MEAN) / LEVEL_SCALE).astype(np.float32)
    return rows_TF


def _filled_up(rows_TF: np.ndarray, num_rows: int) -> np.ndarray:
    """With rows of zeros to that many."""
    if len(rows_TF) == num_rows:
        return rows_TF
    filled = np.zeros((num_rows, rows_TF.shape[1]), rows_TF.dtype)
    filled[: len(rows_TF)] = rows_TF
    return filled


def _warp(fbank_NF: np.ndarray, factor: float) -> np.ndarray:
    """Reads band b at b * factor, between bands by interpolation, beyond the last one the last."""
    if factor == 1.0:
        return fbank_NF
    place_F = np.minimum(np.arange(NUM_BANDS) * factor, NUM_BANDS - 1)
    below_F = np.minimum(place_F.astype(int), NUM_BANDS - 2)
    share_F = (place_F - below_F).astype(np.float32)
    return fbank_NF[:, below_F] * (1 - share_F) + fbank_NF[:, below_F + 1] * share_F


def fbank_of_frames(audio_N: np.ndarray, num_frames: int) -> np.ndarray:
    """What clusters of log filterbanks are made of: float32 [num_frames, 52].

    The 26 bands, each the mean of a frame's four rows; not the rows side by side, which differ little, so that k-means
    would spend clusters on where in a frame a sound begins; how they change is in the slopes over five frames instead.
    From each band its mean over the clip is taken (speaker and microphone), from each frame half of its level (as in
    `audio_features`), which would otherwise outweigh everything else. docs/targets.md has the comparison. Where the
    sound ends early, its last row is repeated. Raises ValueError where there is no sound at all.
    """
    if not len(audio_N):
        raise ValueError("a clip without sound has no filterbank; leave it out, or use other targets.features")
    rows_NF = np.maximum(log_filterbank(audio_N), LEVEL_FLOOR) / LEVEL_SCALE
    rows_NF = rows_NF[np.minimum(np.arange(num_frames * STACK), len(rows_NF) - 1)]
    bands_TF = rows_NF.reshape(num_frames, STACK, NUM_BANDS).mean(axis=1)
    bands_TF = bands_TF - bands_TF.mean(axis=0)
    bands_TF = bands_TF - (1 - LEVEL_SHARE) * bands_TF.mean(axis=1, keepdims=True)
    return np.concatenate([bands_TF, deltas(bands_TF) / FBANK_CHANGE_SCALE], axis=1)


def band_centres_hz() -> np.ndarray:
    """[26]: where the bands of `log_filterbank` lie."""
    return _band_edges_hz()[1:-1]


def _band_edges_hz() -> np.ndarray:
    """[28]: equally spaced in mel(f) = 2595 log10(1 + f / 700); band k goes from edge k over k + 1 to k + 2."""
    mel = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700), NUM_BANDS + 2)
    return 700 * (10 ** (mel / 2595) - 1)


@functools.cache
def _filterbank_weights() -> np.ndarray:
    """[257, 26] triangles between the edges, moved down to the next bin."""
    bins = np.floor((FFT_SIZE + 1) * _band_edges_hz() / SAMPLE_RATE_HZ)
    left, centre, right = bins[:-2], bins[1:-1], bins[2:]
    i = np.arange(FFT_SIZE // 2 + 1)[:, None]
    rising = np.where((left <= i) & (i < centre), (i - left) / (centre - left), 0)
    falling = np.where((centre <= i) & (i < right), (right - i) / (right - centre), 0)
    return rising + falling
