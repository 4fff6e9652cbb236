"""The folder of noise that is mixed under training clips: which files, and their sound at 16 kHz."""

from __future__ import annotations

import functools
from pathlib import Path

import av
import numpy as np

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
