"""The folder of noise that is mixed under training clips: which files, and their sound at 16 kHz."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mmpretrain.features.spectrum import check_sound
from mmpretrain.files import known_digest
from mmpretrain.listing import AUDIO_SUFFIXES, file_url, find_files, readable
from mmpretrain.records import SAMPLE_RATE_HZ

_SHOWN = 5  # files that cannot be read, in a message


@functools.cache
def noise_files(folder: str) -> tuple[str, ...]:
    """The sound files anywhere below `folder`, as `find_files` finds them.

    Raises FileNotFoundError if there is none, ValueError if a folder cannot be looked into.
    """
    found = find_files(Path(folder), AUDIO_SUFFIXES) if folder else None
    if found and found.unread:
        raise ValueError(
            f"data.noise.path={readable(folder)!r}: the folder {found.unread[0]} cannot be looked into; let it be read,"
            " or move it away"
        )
    if not found or not found.files:
        raise FileNotFoundError(
            f"data.noise.path={readable(folder)!r} has no sound file ({', '.join(sorted(AUDIO_SUFFIXES))}); "
            f"name a folder of noise or set data.noise.prob=0"
        )
    return tuple(map(str, found.files))


def noise_fingerprint(folder: str) -> str:
    """16 hex digits of the sound files below `folder`, of their names there and of their bytes, wherever it lies.

    Raises what `noise_files` raises.
    """
    files = noise_files(folder)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        made_of = zip(files, threads.map(known_digest, files), strict=True)
    named = [[os.path.relpath(file, folder), digest] for file, digest in made_of]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]


@functools.cache
def check_noise(folder: str) -> float:
    """Reads every noise file whole, so that none ends a training hours later. Returns their length in seconds.

    Raises what `noise_files` raises, and ValueError naming the files that cannot be used.
    """
    files = noise_files(folder)
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # libav decodes without Python's lock
        looked = list(threads.map(_look, files))
    if bad := [found for found in looked if isinstance(found, str)]:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise ValueError(
            f"data.noise.path={readable(folder)!r}: {len(bad)} of its {len(files)} sound files cannot be used: "
            f"{'; '.join(bad[:_SHOWN])}{more}; repair or remove them"
        )
    return sum(looked) / SAMPLE_RATE_HZ


def _look(file: str) -> int | str:
    """The length of a noise file in samples, or why it cannot be used."""
    try:
        return len(_decode(file))
    except ValueError as error:
        return f"{readable(file)} {error}"


@functools.lru_cache(maxsize=256)  # bounds memory: a few hundred pieces of seconds to minutes
def read_noise(file: str) -> np.ndarray:
    """int16 [N], mono at 16 kHz. Raises ValueError naming the file if it cannot be decoded or has no sound."""
    try:
        return _decode(file)
    except ValueError as error:
        raise ValueError(f"data.noise.path: {readable(file)} {error}; repair or remove it") from error


def _decode(file: str) -> np.ndarray:
    """As `read_noise`. Raises ValueError, which does not name the file."""
    import av  # only those who mix noise wait for it

    resampler, pieces = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ), []
    try:
        with av.open(file_url(file)) as container:
            for frame in container.decode(audio=0):
                if frame.format.name.startswith(("flt", "dbl")) and not np.isfinite(frame.to_ndarray()).all():
                    raise ValueError("has samples that are no numbers")
                pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
        pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    except (av.FFmpegError, OSError, IndexError) as error:
        reason = getattr(error, "strerror", None) or "it has no sound track"
        raise ValueError(f"cannot be decoded: {reason}") from error
    if not sum(map(len, pieces)):
        raise ValueError("has no sound")
    return np.concatenate(pieces)


def noise_segment(folder: str, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """int16 [num_samples] from a place drawn in a file drawn from the folder; at its end the file starts over."""
    files = noise_files(folder)
    noise_N = read_noise(files[rng.integers(len(files))])
    start = int(rng.integers(len(noise_N)))
    if start + num_samples <= len(noise_N):
        return noise_N[start : start + num_samples]
    return np.take(noise_N, np.arange(start, start + num_samples), mode="wrap")


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
    noise = (noise_N if len(noise_N) == len(clean_N) else np.resize(noise_N, len(clean_N))).astype(np.float32)
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
