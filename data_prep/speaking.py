"""Which mouth moves with the sound: how well the opening of a mouth goes with the loudness of a voice, and how far one
is behind the other."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from mmpretrain.records import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

VOICE_HZ = (600.0, 1000.0, 1600.0, 2500.0, 4000.0)  # edges of the bands in which an opening mouth is heard most
FLOOR = 5.0  # powers of ten below the loudest frame count as silence
TREND_FRAMES = 15  # what changes slower than this (0.6 s) is not speech: a smile, a fade
MOST_LAG = 3  # frames: mouths and voices of one recording are seldom further apart
SEARCHED_LAG = 10  # within which the lag is looked for that is reported
STILL = 0.008  # in eye distances: what a closed mouth seems to move, since landmarks jitter
ALIKE_FRAMES = 4  # frames of speech that say about as much as one, as they follow each other
MIN_FRAMES = 12  # of fewer nothing can be said


class Agreement(NamedTuple):
    """Of a mouth and a sound. evidence: how many standard deviations their correlation (at most MOST_LAG apart) is
    above that of strangers, less where the mouth hardly moves; 0 where nothing can be said. lag_frames: how much later
    than the mouth the sound agrees best with it. confidence: their correlation there less the best at lags more than
    MOST_LAG away, so little where speech has an even beat."""

    evidence: float = 0.0
    lag_frames: int = 0
    confidence: float = 0.0


NOT_KNOWN = Agreement()


def voice_level(audio: np.ndarray, num_frames: int) -> np.ndarray:
    """Logarithm of the voice's power around the middle of each frame, float64 [T], for int16 [N] at 16 kHz."""
    padded = np.zeros((max(num_frames, 1) + 1) * SAMPLES_PER_FRAME, np.float32)
    half = SAMPLES_PER_FRAME // 2
    taken = audio[: num_frames * SAMPLES_PER_FRAME]
    padded[half : half + len(taken)] = taken
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * SAMPLES_PER_FRAME)[::SAMPLES_PER_FRAME]
    power = np.square(np.abs(np.fft.rfft(windows[:num_frames] * np.hanning(2 * SAMPLES_PER_FRAME))))
    hz = np.fft.rfftfreq(2 * SAMPLES_PER_FRAME, 1 / SAMPLE_RATE_HZ)
    bands = np.stack(
        [np.log10(power[:, (hz >= low) & (hz < high)].sum(1) + 1.0) for low, high in itertools.pairwise(VOICE_HZ)]
    )
    return np.maximum(bands, bands.max(initial=0.0) - FLOOR).mean(0)


def agreement(opening: np.ndarray, level: np.ndarray) -> Agreement:
    """opening: how far the mouth is open in each frame, in eye distances [T], NaN where it is not seen. level: that of
    the voice [T], see `voice_level`. They are compared where the mouth is seen."""
    seen = np.flatnonzero(np.isfinite(opening))
    if len(seen) < MIN_FRAMES or level.std() < 1e-6:
        return NOT_KNOWN
    filled = np.interp(np.arange(len(opening)), seen, opening[seen])
    mouth, voice = _without_trend(filled), _without_trend(level)
    mouth[~np.isfinite(opening)] = np.nan
    lags = range(-SEARCHED_LAG, SEARCHED_LAG + 1)
    found = np.array([_correlation(mouth, voice, lag) for lag in lags])
    near = found[SEARCHED_LAG - MOST_LAG : SEARCHED_LAG + MOST_LAG + 1].max()
    moves = np.nanvar(mouth)
    evidence = np.arctanh(min(near, 0.99)) * np.sqrt(len(seen) / ALIKE_FRAMES) * moves / (moves + STILL**2)
    best = int(found.argmax())
    elsewhere = [found[k] for k in range(len(lags)) if abs(k - best) > MOST_LAG]
    return Agreement(float(evidence), lags[best], float(found[best] - max(elsewhere)))


def _without_trend(values: np.ndarray) -> np.ndarray:
    width = min(TREND_FRAMES, len(values))
    window = np.ones(width)
    return values - np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def _correlation(mouth: np.ndarray, voice: np.ndarray, lag: int) -> float:
    """Of the mouth and the voice `lag` frames later, over the frames where the mouth is seen."""
    length = len(mouth)
    a, b = mouth[max(-lag, 0) : length - max(lag, 0)], voice[max(lag, 0) : length - max(-lag, 0)]
    known = np.isfinite(a)
    a, b = a[known], b[known]
    if len(a) < MIN_FRAMES or a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
