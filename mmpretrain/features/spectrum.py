"""Sound in windows, and their spectra: what the filterbank and MFCC begin with. N samples at 16 kHz."""

from __future__ import annotations

import numpy as np

WINDOW = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms
FFT_SIZE = 512
STACK = 4  # 10 ms rows in a frame of 40 ms


def check_sound(name: str, audio_N: np.ndarray) -> None:
    """Raises ValueError unless the array, called `name`, is mono sound."""
    if audio_N.dtype != np.int16 or audio_N.ndim != 1:
        raise ValueError(f"{name} must be int16 [N], mono at 16 kHz, but is {audio_N.dtype} {list(audio_N.shape)}")


def windows(signal_N: np.ndarray) -> np.ndarray:
    """View [count, 400] of the whole windows in the signal."""
    return np.lib.stride_tricks.sliding_window_view(signal_N, WINDOW)[::HOP]


def power_spectrum(frames: np.ndarray) -> np.ndarray:
    """[count, 257] of windows [count, 400]."""
    spectrum = np.fft.rfft(frames, FFT_SIZE)
    return np.square(spectrum.real) + np.square(spectrum.imag)
