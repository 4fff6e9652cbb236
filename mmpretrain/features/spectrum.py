"""Sound in windows, and their spectra: what the filterbank and MFCC begin with. N samples at 16 kHz."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

WINDOW = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms
FFT_SIZE = 512
STACK = 4  # 10 ms rows in a frame of 40 ms
BLOCK = 64  # windows that are worked on at a time


def check_sound(name: str, audio_N: np.ndarray) -> None:
    """Raises ValueError unless the array, called `name`, is mono sound."""
    if audio_N.dtype != np.int16 or audio_N.ndim != 1:
        raise ValueError(f"{name} must be int16 [N], mono at 16 kHz, but is {audio_N.dtype} {list(audio_N.shape)}")


def windows(signal_N: np.ndarray) -> np.ndarray:
    """View [count, 400] of the whole windows in the signal."""
    return np.lib.stride_tricks.sliding_window_view(signal_N, WINDOW)[::HOP]


def band_energies(
    frames: np.ndarray, weights: np.ndarray, prepare: Callable[[np.ndarray], np.ndarray] = lambda block: block
) -> np.ndarray:
    """float64 [count, bands]: power spectra of windows [count, 400], summed with weights [up to 257, bands].

    prepare: what is done to some of the windows before. A few windows are worked on at a time, in the same memory: that
    of all of them at once would be asked of the system anew for every clip, which takes longer than the arithmetic.
    """
    padded, spectrum = np.zeros((BLOCK, FFT_SIZE)), np.empty((BLOCK, FFT_SIZE // 2 + 1), np.complex128)
    power, squares = np.empty(spectrum.shape), np.empty(spectrum.shape)
    energies = np.empty((len(frames), weights.shape[1]))
    for start in range(0, len(frames), BLOCK):
        block = frames[start : start + BLOCK]
        padded[: len(block), :WINDOW] = prepare(block)
        np.fft.rfft(padded, out=spectrum)
        np.square(spectrum.real, out=power)
        np.square(spectrum.imag, out=squares)
        power += squares
        np.matmul(power[: len(block), : len(weights)], weights, out=energies[start : start + BLOCK])
    return energies
