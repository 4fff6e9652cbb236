"""Sound of a timeline: glottal pulses and noise, shaped over time by formants and a recording channel."""

from __future__ import annotations

import numpy as np

from data_prep.synthesis.character import Manner, Speaker
from data_prep.synthesis.draws import wander
from data_prep.synthesis.language import CONTROL_HZ, INVENTORY, Timeline, coarticulate
from mmpretrain.records import SAMPLE_RATE_HZ

HOP = SAMPLE_RATE_HZ // CONTROL_HZ
FFT = 512
BIN_HZ = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE_HZ)
OCTAVES = np.log2(np.maximum(BIN_HZ, 60.0) / 500.0)  # of each bin above 500 Hz


def speak(line: Timeline, speaker: Speaker, manner: Manner, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The recording, int16 [640 T] at 16 kHz, and its signal-to-noise ratio in dB."""
    pitch_K = _pitch_hz(line, speaker, manner, rng)
    pulses = _pulses(pitch_K, len(pitch_K) * HOP, speaker.rough, rng)
    hiss = rng.standard_normal(len(pulses))
    voice_KF, noise_KF = _filters(line, speaker, manner)
    speech = _filter(pulses, voice_KF) + _filter(hiss, noise_KF)
    return _record(speech[: 4 * HOP * line.num_frames], rng)


def _pitch_hz(line: Timeline, speaker: Speaker, manner: Manner, rng: np.random.Generator) -> np.ndarray:
    """The melody [K]: a slope, an accent on each word, a movement at the end, and a little wandering."""
    now_K = np.arange(len(line.unit_K)) / CONTROL_HZ
    accent_AK = np.exp(-0.5 * ((now_K - line.stress_sec_A[:, None]) / 0.09) ** 2)
    semitones_K = manner.pitch + (manner.slope - 0.8) * (now_K - now_K[-1] / 2)
    semitones_K += 2.5 * max(0.2, 1.0 + manner.accent) * (line.stress_A @ accent_AK)
    semitones_K += manner.final * np.clip((now_K - now_K[-1] + 0.6) / 0.4, 0.0, 1.0)
    semitones_K += 0.35 * wander(rng, len(now_K), 1, 30)[:, 0]
    return speaker.pitch_hz * 2.0 ** (semitones_K / 12.0)


def _pulses(pitch_K: np.ndarray, num_samples: int, rough: float, rng: np.random.Generator) -> np.ndarray:
    """An impulse per glottal period with jitter and shimmer, shared between the two samples it falls between."""
    pitch = np.interp(np.arange(num_samples) / HOP, np.arange(len(pitch_K)), pitch_K)
    phase = np.cumsum(pitch / SAMPLE_RATE_HZ)
    at = np.interp(np.arange(1, int(phase[-1])), phase, np.arange(num_samples))
    period = SAMPLE_RATE_HZ / pitch[at.astype(int)]
    at = np.clip(at + rough * period * rng.standard_normal(len(at)), 0, num_samples - 2)
    # A longer period carries proportionally more: the power of the voice does not depend on its pitch.
    height = np.sqrt(period) * (1.0 + 3.0 * rough * rng.standard_normal(len(at)))
    whole = at.astype(int)
    pulses = np.zeros(num_samples)
    np.add.at(pulses, whole, height * (1.0 - (at - whole)))
    np.add.at(pulses, whole + 1, height * (at - whole))
    return pulses


def _filters(line: Timeline, speaker: Speaker, manner: Manner) -> tuple[np.ndarray, np.ndarray]:
    """Responses [K, F] for the glottal pulses (complex) and for noise: breath through the tract, and frication."""
    unit_K = line.unit_K
    flat_K = np.ones(len(unit_K))

    def track(values, width):
        return coarticulate(np.asarray(values, float)[unit_K], flat_K, width)

    tract_KF = np.ones((len(unit_K), len(BIN_HZ)), complex)
    for i, bandwidth in enumerate((80.0, 110.0, 160.0)):
        formant_K = speaker.tract_scale * track([unit.formants[i] for unit in INVENTORY], 9)
        tract_KF *= _resonance(formant_K[:, None], bandwidth)
    for formant, bandwidth in ((3500.0, 220.0), (4500.0, 300.0)):
        tract_KF *= _resonance(speaker.tract_scale * formant, bandwidth)
    tilt_db = speaker.tilt_db + manner.tilt_db - 5.0
    tract_KF *= 10.0 ** (tilt_db * OCTAVES / 20.0)

    accent_AK = np.exp(-0.5 * ((np.arange(len(unit_K)) / CONTROL_HZ - line.stress_sec_A[:, None]) / 0.12) ** 2)
    loud_K = 10.0 ** ((2.0 + manner.punch_db) * (line.stress_A @ accent_AK - 0.5) / 20.0)
    voice_K = loud_K * track([unit.voice for unit in INVENTORY], 5)
    breath_K = max(0.01, speaker.breath + manner.breath) * voice_K

    stop_K = np.array([unit.stop for unit in INVENTORY])[unit_K]
    released_K = np.where(stop_K, 1.6 * (line.place_K > 0.6), 1.0)
    friction_K = np.array([unit.noise for unit in INVENTORY])[unit_K] * released_K
    friction_K = loud_K * coarticulate(friction_K, flat_K, 3)
    centre_K = speaker.tract_scale**0.5 * track([unit.noise_hz for unit in INVENTORY], 5)
    friction_KF = np.exp(-0.5 * ((BIN_HZ - centre_K[:, None]) / (350.0 + 0.22 * centre_K[:, None])) ** 2)
    return voice_K[:, None] * tract_KF, breath_K[:, None] * np.abs(tract_KF) + friction_K[:, None] * friction_KF


def _resonance(centre_hz, bandwidth_hz) -> np.ndarray:
    return centre_hz**2 / (centre_hz**2 - BIN_HZ**2 + 1j * BIN_HZ * bandwidth_hz)


def _filter(source: np.ndarray, response_KF: np.ndarray) -> np.ndarray:
    """Filters with a response that changes every hop, by overlap-add of Hann windows (which sum to 1)."""
    num_points = len(response_KF)
    padded = np.pad(source, (HOP, HOP))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, 2 * HOP)[: num_points * HOP : HOP]
    window = 0.5 - 0.5 * np.cos(np.pi * np.arange(2 * HOP) / HOP)
    shaped = np.fft.irfft(np.fft.rfft(pieces * window, FFT) * response_KF, FFT)
    out = np.zeros((num_points + 4, HOP))
    for part in range(-(-FFT // HOP)):
        block = shaped[:, part * HOP : (part + 1) * HOP]
        out[part : part + num_points, : block.shape[1]] += block
    return out.ravel()[HOP:]


def _record(speech: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Adds coloured background noise at 5 to 25 dB, then a channel of random slope and ripple and a random level."""
    snr_db = rng.uniform(5.0, 25.0)
    num_samples = len(speech)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE_HZ), 60.0) / 500.0)
    noise_slope_db, channel_slope_db = rng.uniform(-6.0, -1.0), rng.uniform(-1.5, 1.5)
    ripple_db = 1.2 * np.sin(rng.uniform(0.5, 1.5) * np.pi * octaves / 2 + rng.uniform(0, 2 * np.pi))

    noise = np.fft.rfft(rng.standard_normal(num_samples)) * 10.0 ** (noise_slope_db * octaves / 20.0)
    noise = np.fft.irfft(noise, num_samples)
    noise *= np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * 10.0 ** (-snr_db / 20.0)
    channel = 10.0 ** ((channel_slope_db * octaves + ripple_db) / 20.0)
    recording = np.fft.irfft(np.fft.rfft(speech + noise) * channel, num_samples)
    recording *= 32768.0 * 10.0 ** (rng.uniform(-32.0, -22.0) / 20.0) / np.sqrt(np.mean(recording**2))
    return np.clip(np.round(recording), -32768, 32767).astype(np.int16), float(snr_db)
