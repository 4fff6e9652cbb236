"""Audio features against slow writings of the same formulas, and the promises about lengths, level and refusals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpretrain.data.noise import mix_noise
from mmpretrain.features.filterbank import (
    FBANK_DIM,
    LEVEL_FLOOR,
    LEVEL_MEAN,
    LEVEL_SCALE,
    LEVEL_SHARE,
    NORMALIZATIONS,
    audio_features,
    fbank_of_frames,
    log_filterbank,
    stack_frames,
)
from mmpretrain.features.mfcc import CEPSTRA_DIM, cepstra_of_frames, mfcc39, mfcc39_of_frames


def speech(num_samples: int, seed: int = 0, level: float = 3000) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(num_samples) * level).clip(-32768, 32767).astype(np.int16)


def slow_log_filterbank(wave: np.ndarray) -> np.ndarray:
    signal = [float(wave[0])] + [float(wave[n]) - 0.97 * float(wave[n - 1]) for n in range(1, len(wave))]
    count = 1 if len(wave) <= 400 else 1 + math.ceil((len(wave) - 400) / 160)
    signal += [0.0] * (count * 160 + 400)
    top = 2595 * math.log10(1 + 8000 / 700)
    bins = [math.floor(513 * 700 * (10 ** (j * top / 27 / 2595) - 1) / 16000) for j in range(28)]
    angle = 2 * np.pi * np.outer(np.arange(257), np.arange(400)) / 512
    rows = np.zeros((count, 26))
    for t in range(count):
        frame = np.array(signal[160 * t : 160 * t + 400])
        power = ((np.cos(angle) @ frame) ** 2 + (np.sin(angle) @ frame) ** 2) / 512
        for j in range(26):
            left, centre, right = bins[j : j + 3]
            energy = sum(power[i] * (i - left) / (centre - left) for i in range(left, centre))
            energy += sum(power[i] * (right - i) / (right - centre) for i in range(centre, right))
            rows[t, j] = math.log(energy or 2.220446049250313e-16)
    return rows


def slow_mfcc(wave: np.ndarray) -> np.ndarray:
    def mel(f):
        return 1127 * math.log(1 + f / 700)

    x = wave / 32768
    edges = [mel(20) + j * (mel(8000) - mel(20)) / 24 for j in range(25)]
    rows = []
    for start in range(0, len(x) - 399, 160):
        frame = x[start : start + 400] - x[start : start + 400].mean()
        frame = [frame[max(n, 0)] - 0.97 * frame[max(n - 1, 0)] for n in range(400)]
        frame = [v * (0.5 - 0.5 * math.cos(2 * math.pi * n / 399)) ** 0.85 for n, v in enumerate(frame)]
        power = np.abs(np.fft.fft(frame, 512)) ** 2
        logs = []
        for left, centre, right in zip(edges, edges[1:], edges[2:], strict=False):
            weights = [
                max(0, min((mel(i * 31.25) - left) / (centre - left), (right - mel(i * 31.25)) / (right - centre)))
                for i in range(256)
            ]
            logs.append(math.log(max(np.dot(weights, power[:256]), 1.1920929e-07)))
        rows.append(
            [
                (math.sqrt(1 / 23) if k == 0 else math.sqrt(2 / 23))
                * sum(v * math.cos(math.pi * k * (j + 0.5) / 23) for j, v in enumerate(logs))
                * (1 + 11 * math.sin(math.pi * k / 22))
                for k in range(13)
            ]
        )
    return np.array(rows)


@pytest.mark.parametrize("num_samples", [1, 399, 400, 401, 1603])
def test_log_filterbank_follows_its_formula(num_samples):
    wave = speech(num_samples)
    fbank_NF = log_filterbank(wave)
    assert fbank_NF.dtype == np.float32
    np.testing.assert_allclose(fbank_NF, slow_log_filterbank(wave), rtol=1e-5, atol=1e-5)


def test_mfcc_follows_its_formula():
    wave = speech(1903)
    rows = mfcc39(wave)
    slow = slow_mfcc(wave)
    deltas = [sum(k * slow[np.clip(t + k, 0, len(slow) - 1)] for k in (-2, -1, 1, 2)) / 10 for t in range(len(slow))]
    np.testing.assert_allclose(rows[:, :13], slow, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(rows[:, 13:26], deltas, rtol=1e-4, atol=1e-4)
    double = [sum(k * deltas[np.clip(t + k, 0, len(slow) - 1)] for k in (-2, -1, 1, 2)) / 10 for t in range(len(slow))]
    np.testing.assert_allclose(rows[:, 26:], double, rtol=1e-4, atol=1e-4)


def test_digital_silence_is_the_log_of_eps_and_normalises_to_zero():
    silence = np.zeros(1600, np.int16)
    np.testing.assert_array_equal(log_filterbank(silence), np.float32(np.log(np.finfo(np.float64).eps)))
    np.testing.assert_array_equal(audio_features(silence, 2), 0)


def test_stacking_puts_four_frames_in_a_row_and_fills_the_last_with_zeros():
    fbank_NF = np.arange(6 * 26, dtype=np.float32).reshape(6, 26)
    rows = stack_frames(fbank_NF)
    np.testing.assert_array_equal(rows[0], fbank_NF[:4].ravel())
    np.testing.assert_array_equal(rows[1], np.concatenate([fbank_NF[4], fbank_NF[5], np.zeros(52)]))


@given(st.integers(0, 3000), st.integers(1, 6), st.sampled_from(NORMALIZATIONS))
@settings(max_examples=30, deadline=None)
def test_features_have_the_length_of_the_video(num_samples, num_frames, normalization):
    features_TF = audio_features(speech(num_samples), num_frames, normalization)
    assert features_TF.shape == (num_frames, 104)
    assert features_TF.dtype == np.float32
    heard = -(-len(log_filterbank(speech(num_samples))) // 4)
    assert not features_TF[heard:].any()
    if normalization != "clip" or num_samples > 400:  # a single row is its own mean
        assert features_TF[: min(heard, num_frames)].any(axis=1).all()


def test_frame_normalization_forgets_the_level_and_level_normalization_keeps_it():
    quiet, loud = speech(6400, level=300), speech(6400, level=300) * np.int16(10)
    np.testing.assert_allclose(audio_features(quiet, 9), audio_features(loud, 9), atol=1e-4)
    louder = audio_features(loud, 9, "level") - audio_features(quiet, 9, "level")
    np.testing.assert_allclose(louder, LEVEL_SHARE * math.log(100) / LEVEL_SCALE, atol=1e-4)


def test_clip_normalization_takes_off_speaker_and_channel_and_leaves_what_is_said():
    """Each band has mean 0 and variance 1 over the rows of the clip; a fixed filter and a gain change next to nothing,
    silence stays 0, and rows behind the sound, which the last frame is filled up with, are the mean."""
    wave = np.concatenate([speech(6400, seed=1, level=2000), speech(6400, seed=2, level=300)])
    rows_TF = audio_features(wave, 20, "clip")
    bands_NF = rows_TF.reshape(-1, 26)[: len(log_filterbank(wave))]
    np.testing.assert_allclose(bands_NF.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(bands_NF.std(0), 1, atol=1e-4)
    assert not rows_TF.reshape(-1, 26)[len(bands_NF) :].any()
    filtered = np.convolve(wave, [1.0, 0.6])[: len(wave)].astype(np.int16)
    same, frame = (np.corrcoef(audio_features(filtered, 20, n).ravel(), audio_features(wave, 20, n).ravel())[0, 1]
                   for n in ("clip", "frame"))  # fmt: skip
    assert same > 0.99 > frame
    assert not audio_features(np.zeros(3200, np.int16), 5, "clip").any()
    stretch = audio_features(wave, 10, "clip")
    np.testing.assert_allclose(stretch.reshape(-1, 26).mean(0), 0, atol=1e-5)  # of what is given, not of what follows


def test_cepstra_of_frames_have_all_four_rows_on_the_scale_of_the_clip():
    wave = speech(640 * 9, level=2000)
    rows = cepstra_of_frames(wave, 9)
    assert (rows.shape, rows.dtype) == ((9, CEPSTRA_DIM), np.float32)
    plain = mfcc39_of_frames(wave, 9, 4)[:, :13]
    np.testing.assert_allclose(rows.reshape(-1, 13), (plain - plain.mean(0)) / plain.std(0), atol=1e-3)
    np.testing.assert_allclose(cepstra_of_frames((wave * 3).astype(np.int16), 9), rows, atol=0.02)
    assert not cepstra_of_frames(np.zeros(6400, np.int16), 10).any()
    for num_samples, num_frames in ((1, 1), (100, 4), (1280, 5), (6400, 3)):
        assert np.isfinite(cepstra_of_frames(speech(num_samples), num_frames)).all()
    with pytest.raises(ValueError, match="without sound"):
        cepstra_of_frames(np.zeros(0, np.int16), 2)


def test_level_normalization_limits_digital_silence():
    features_TF = audio_features(np.zeros(3200, np.int16), 4, "level")
    lowest = LEVEL_SHARE * (LEVEL_FLOOR - LEVEL_MEAN) / LEVEL_SCALE
    np.testing.assert_allclose(features_TF, lowest)


def test_frequency_warp_moves_a_tone_to_another_band():
    tone = (8000 * np.sin(2 * np.pi * 2000 * np.arange(6400) / 16_000)).astype(np.int16)
    loudest = [
        int(audio_features(tone, 10, freq_warp=warp)[1:-1].reshape(-1, 26).mean(0).argmax())
        for warp in (0.8, 1.0, 1.25)
    ]
    assert loudest[0] > loudest[1] > loudest[2]
    assert loudest[0] == pytest.approx(loudest[1] / 0.8, abs=1)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_frequency_mask_hides_one_band_of_all_stacked_frames(normalization):
    wave = speech(3200)
    plain = audio_features(wave, 4, normalization).reshape(4, 4, 26)
    masked = audio_features(wave, 4, normalization, freq_mask=(20, 3)).reshape(4, 4, 26)
    assert not masked[..., 20:23].any()
    np.testing.assert_array_equal(np.delete(masked, [20, 21, 22], 2), np.delete(plain, [20, 21, 22], 2))


@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_mfcc_at_25hz_has_a_row_for_every_frame(num_frames):
    wave = speech(640 * num_frames)
    rows = mfcc39(wave)
    assert len(rows) == 4 * num_frames - 2
    np.testing.assert_array_equal(mfcc39_of_frames(wave, num_frames), rows[::4])


def test_mfcc_at_25hz_repeats_its_last_row_where_the_sound_ends_early():
    rows = mfcc39_of_frames(speech(1280), 5)
    np.testing.assert_array_equal(rows[2:], np.repeat(rows[1:2], 3, axis=0))
    assert mfcc39_of_frames(speech(100), 2).shape == (2, 39)
    with pytest.raises(ValueError, match="without sound"):
        mfcc39_of_frames(np.zeros(0, np.int16), 2)


def test_clusters_of_filterbanks_see_the_spectrum_more_than_the_level_and_not_the_gain():
    tones = [np.sin(2 * np.pi * hz * np.arange(6400) / 16_000) * 8000 for hz in (300, 3000)]
    quiet = tones[0] * 0.3
    wave = np.concatenate([*tones, quiet]).astype(np.int16) + speech(19_200, level=3)
    rows = fbank_of_frames(wave, 30)
    assert rows.shape == (30, FBANK_DIM)
    assert rows.dtype == np.float32
    low, high, soft = rows[2:8, :26].mean(0), rows[12:18, :26].mean(0), rows[22:28, :26].mean(0)
    assert np.linalg.norm(low - high) > 2 * np.linalg.norm(low - soft) > 0
    np.testing.assert_allclose(fbank_of_frames((wave // 4).astype(np.int16), 30)[:20], rows[:20], atol=0.35)
    assert np.abs(rows[:, 26:]).argmax() // 26 in (9, 10, 19, 20), "slopes are steepest where the sound changes"


def test_filterbanks_at_25hz_cover_every_frame():
    for num_samples, num_frames in ((1, 1), (100, 4), (1280, 5), (6400, 3)):
        rows = fbank_of_frames(speech(num_samples), num_frames)
        assert rows.shape == (num_frames, FBANK_DIM)
        assert np.isfinite(rows).all()
    assert not fbank_of_frames(np.zeros(6400, np.int16), 10).any()
    with pytest.raises(ValueError, match="without sound"):
        fbank_of_frames(np.zeros(0, np.int16), 2)


@given(st.floats(-10, 20), st.integers(1, 2500), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_noise_stands_at_the_asked_ratio(snr_db, noise_samples, seed):
    clean, noise = speech(2000, seed, 500), speech(noise_samples, seed + 1, 100)
    if not noise.any():
        noise[0] = 1
    added = mix_noise(clean, noise, snr_db).astype(float) - clean
    ratio = 10 * np.log10(np.mean(clean.astype(float) ** 2) / np.mean(added**2))
    assert abs(ratio - snr_db) < 0.2  # the mixture is rounded to integers


def test_loud_mixtures_are_scaled_not_clipped():
    clean, noise = speech(4000, 0, 9000), speech(4000, 1, 9000)
    mixed = mix_noise(clean, noise, -10)
    gain = np.sqrt(np.mean(clean.astype(float) ** 2) / np.mean(noise.astype(float) ** 2)) * 10**0.5
    expected = clean + gain * noise
    expected *= min(32767 / expected.max(), -32768 / expected.min())
    np.testing.assert_allclose(mixed, expected, atol=1.01)


def test_silent_noise_changes_nothing():
    clean = speech(500)
    np.testing.assert_array_equal(mix_noise(clean, np.zeros(30, np.int16), 0), clean)


def test_refusals():
    with pytest.raises(ValueError, match=r"must be int16 \[N\].*float32"):
        log_filterbank(np.zeros(800, np.float32))
    with pytest.raises(ValueError, match=r"must be int16 \[N\].*\[2, 800\]"):
        mfcc39(np.zeros((2, 800), np.int16))
    with pytest.raises(ValueError, match="noise of length 0"):
        mix_noise(speech(5), np.zeros(0, np.int16), 0)
    with pytest.raises(ValueError, match="audio_normalization='band' is not known"):
        audio_features(speech(800), 1, "band")
