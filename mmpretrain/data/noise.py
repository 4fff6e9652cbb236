"""The folder of noise that is mixed under training clips: which files, and their sound at 16 kHz."""

from __future__ import annotations

import functools
from pathlib import Path

import av
import numpy as np

from mmpretrain.features.spectrum import check_sound
from mmpretrain.records import SAMPLE_RATE_HZ

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".m4a")


@functools.cache
def noise_files(folder: str) -> tuple[str, ...]:
    """The sound files anywhere under `folder`, sorted. Raises FileNotFoundError if there is none."""
    found = Path(folder).rglob("*") if folder else ()
    files = tuple(sorted(str(file) for file in found if file.suffix.lower() in SUFFIXES))
    if not files:
        raise FileNotFoundError(
            f"data.noise.path={folder!r} has no sound file ({', '.join(SUFFIXES)}); "
            f"name a folder of noise or set data.noise.prob=0"
        )
    return files


@functools.lru_cache(maxsize=256)  # bounds memory: a few hundred pieces of seconds to minutes
def read_noise(file: str) -> np.ndarray:
    """int16 [N], mono at 16 kHz. Raises ValueError naming the file if it cannot be decoded or has no sound."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
    try:
        with av.open(file) as container:
            frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
        return np.concatenate([frame.to_ndarray()[0] for frame in frames])
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise ValueError(f"data.noise.path: {file} cannot be decoded ({error}); remove it") from error


def noise_segment(folder: str, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """int16 [num_samples] from a place drawn in a file drawn from the folder; at its end the file starts over."""
    files = noise_files(folder)
    noise_N = read_noise(files[rng.integers(len(files))])
    return np.take(noise_N, np.arange(num_samples) + rng.integers(len(noise_N)), mode="wrap")


def mix_noise(clean_N: np.ndarray, noise_N: np.ndarray, snr_db: float) -> np.ndarray:
    """Adds noise at a signal-to-noise ratio: int16 of the length of `clean_N`, both int16 at 16 kHz.

    Noise is used from its beginning, repeated where it is shorter. A mixture beyond int16 is scaled down as a whole.
    Silent noise changes nothing. Raises ValueError for another dtype or for noise of no length.
    """
    check_sound("clean", clean_N)
    check_sound("noise", noise_N)
    if not len(noise_N):
        raise ValueError("noise of length 0 cannot be mixed; remove the empty file from data.noise.path")
    clean = clean_N.astype(np.float32)
    noise = np.resize(noise_N, len(clean_N)).astype(np.float32)
    noise_rms = _rms(noise)
    if noise_rms == 0:
        return clean_N.copy()
    mixed = clean + noise * np.float32(_rms(clean) / 10 ** (snr_db / 20) / noise_rms)
    high, low = mixed.max(), mixed.min()
    if high > 32767 or low < -32768:
        mixed = mixed * (np.float32(32767) / high if high >= -low else np.float32(-32768) / low)
    return mixed.astype(np.int16)


def _rms(x_N: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x_N))))
