"""Prosody of sounds whose pitch, loudness and brightness are known."""

import jax
import numpy as np
import pytest

from mmpretrain.features import prosody
from mmpretrain.features.prosody import PROSODY_DIM, TYPICAL, measure_prosody, prosody_features, prosody_sums
from mmpretrain.records import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from mmpretrain.targets.kmeans import assign, fit

VOICING, PITCH, LEVEL, TILT, PITCH_CHANGE, LEVEL_CHANGE = range(6)


def vowel(f0_hz, num_frames: int, peak: float = 8000) -> np.ndarray:
    """Pulses of this pitch (a number, or one a frame) through three resonances, as int16."""
    f0_N = np.repeat(np.broadcast_to(f0_hz, num_frames), SAMPLES_PER_FRAME)
    phase_N = np.cumsum(f0_N) / SAMPLE_RATE_HZ
    harmonics = np.arange(1, 40)[:, None]
    gains = sum(1 / (1 + ((harmonics * f0_N.mean() - formant) / 120) ** 2) for formant in (650, 1100, 2500))
    wave_N = (gains / harmonics * np.sin(2 * np.pi * harmonics * phase_N) * (harmonics * f0_N < 7500)).sum(0)
    return (wave_N / np.abs(wave_N).max() * peak).astype(np.int16)


def noise(num_frames: int, bright: bool, peak: float = 8000) -> np.ndarray:
    white_N = np.random.default_rng(0).standard_normal(num_frames * SAMPLES_PER_FRAME)
    sound_N = np.diff(white_N, prepend=0) if bright else np.convolve(white_N, np.ones(16), mode="same")
    return (sound_N / np.abs(sound_N).max() * peak).astype(np.int16)


@pytest.mark.parametrize("f0_hz", [80.0, 120.0, 210.0, 400.0])
def test_the_pitch_of_a_vowel_is_found(f0_hz):
    measured = measure_prosody(vowel(f0_hz, 20), 20)
    np.testing.assert_allclose(measured.f0_hz[1:-1], f0_hz, rtol=0.02)
    assert measured.voicing[1:-1].min() > 0.9


def test_noise_is_not_voiced_and_the_brighter_one_has_the_higher_tilt():
    bright, dark = (measure_prosody(noise(20, bright), 20) for bright in (True, False))
    assert max(bright.voicing.mean(), dark.voicing.mean()) < 0.3
    assert bright.tilt_db.min() > dark.tilt_db.max() + 3


def test_clusters_follow_a_glide():
    f0_hz = 110 * 2 ** (np.arange(100) / 100)
    features_TF = prosody_features(vowel(f0_hz, 100), 100)
    np.testing.assert_allclose(features_TF[:, PITCH] * 3, 12 * np.log2(f0_hz / np.median(f0_hz)), atol=0.5)
    np.testing.assert_allclose(features_TF[5:-5, PITCH_CHANGE], 12 / 100, atol=0.05)
    codebook = fit(features_TF, 4, key=jax.random.key(0), passes=20, restarts=3)
    ids_T = assign(features_TF, codebook.centroids)
    order = np.argsort([np.flatnonzero(ids_T == cluster).mean() for cluster in range(4)])
    assert np.corrcoef(np.argsort(order)[ids_T], f0_hz)[0, 1] > 0.9


def test_neither_the_voice_nor_the_microphone_counts_but_loudness_does_a_little():
    melody = 1 + 0.2 * np.sin(np.arange(60) / 6)
    low, high = (prosody_features(vowel(f0_hz * melody, 60), 60) for f0_hz in (100, 200))
    np.testing.assert_allclose(low[:, PITCH], high[:, PITCH], atol=0.15)
    loud, soft = (prosody_features(vowel(120 * melody, 60, peak), 60) for peak in (16_000, 4_000))
    np.testing.assert_allclose(loud[5:-5, LEVEL] - soft[5:-5, LEVEL], 0.5 * 12 / 12, atol=0.04)
    np.testing.assert_allclose(np.delete(loud, LEVEL, 1)[5:-5], np.delete(soft, LEVEL, 1)[5:-5], atol=0.1)


def test_relative_to_the_speaker_a_clip_keeps_what_it_is_all_along():
    melody = 1 + 0.05 * np.sin(np.arange(60) / 6)
    calm, excited = vowel(120 * melody, 60, 4_000), vowel(180 * melody, 60, 16_000)
    (sums, weights) = np.sum([prosody_sums(sound, 60) for sound in (calm, excited)], axis=0)
    centre = sums / weights
    np.testing.assert_allclose(centre[0], 12 * np.log2(np.sqrt(120 * 180) / 150), atol=0.5)
    over = [prosody_features(sound, 60, centre)[5:-5].mean(0) for sound in (calm, excited)]
    np.testing.assert_allclose(over[1][PITCH] - over[0][PITCH], 12 * np.log2(1.5) / 3, atol=0.1)
    louder_db = 20 * np.log10(excited.std() / calm.std())
    np.testing.assert_allclose(over[1][LEVEL] - over[0][LEVEL], louder_db / 12, atol=0.05, err_msg="all of it")
    np.testing.assert_allclose(over[0][PITCH], -over[1][PITCH], atol=0.1)
    alone = [prosody_features(sound, 60)[5:-5].mean(0) for sound in (calm, excited)]
    np.testing.assert_allclose(alone[0][PITCH], alone[1][PITCH], atol=0.1)


def test_another_voice_and_microphone_leave_what_is_relative_to_the_speaker():
    f0_hz = np.repeat([120.0, 170.0], 40)
    one, other = vowel(f0_hz, 80, 12_000), vowel(1.6 * f0_hz, 80, 3_000)
    features = []
    for sound in (one, other):
        sums, weights = prosody_sums(sound, 80)
        features.append(prosody_features(sound, 80, sums / weights)[5:-5, [PITCH, LEVEL]])
    np.testing.assert_allclose(*features, atol=0.3)
    absolute = [prosody_features(sound, 80, TYPICAL)[5:-5].mean(0) for sound in (one, other)]
    np.testing.assert_allclose(absolute[1][PITCH] - absolute[0][PITCH], 12 * np.log2(1.6) / 3, atol=0.1)


def test_a_sound_without_a_voice_has_no_pitch_to_add():
    _, weights = prosody_sums(noise(20, True), 20)
    assert (weights[0] < 5) & (weights[1:] > 10).all()
    assert prosody_sums(np.zeros(9600, np.int16), 15)[1][0] == 0
    np.testing.assert_array_equal(prosody_features(np.zeros(9600, np.int16), 15, TYPICAL)[:, PITCH], 0)
    with pytest.raises(ValueError, match="a clip of 0 frames has no prosody"):
        prosody_features(np.ones(100, np.int16), 0)


def test_a_pause_is_silence_whatever_the_clip():
    pause = np.zeros(20 * SAMPLES_PER_FRAME, np.int16)
    sounds = [vowel(100, 20), vowel(220, 20, 20_000), noise(20, True)]
    silences = [prosody_features(np.concatenate([sound, pause]), 40)[25:] for sound in sounds]
    for silence in silences:
        np.testing.assert_allclose(silence, silences[0], atol=1e-5)
    assert silences[0][:, VOICING].max() == 0


@pytest.mark.parametrize(
    ("audio_N", "num_frames"),
    [
        (np.zeros(9600, np.int16), 15),
        (np.ones(1, np.int16), 1),
        (np.ones(1, np.int16), 30),  # the picture goes on long after the sound
        (np.full(3200, 32767, np.int16), 5),
        (noise(10, True), 3),  # the sound goes on
    ],
)
def test_nothing_breaks_it(audio_N, num_frames):
    features_TF = prosody_features(audio_N, num_frames)
    assert features_TF.shape == (num_frames, PROSODY_DIM)
    assert features_TF.dtype == np.float32
    assert np.isfinite(features_TF).all()
    np.testing.assert_array_equal(features_TF, prosody_features(audio_N, num_frames))


def test_a_long_clip_is_like_its_parts():
    long = measure_prosody(np.tile(vowel(150, 100), 7), 700)  # 2,800 rows: two blocks
    np.testing.assert_allclose(long.f0_hz[1:-1], 150, rtol=0.02)


def test_no_sound_is_refused():
    with pytest.raises(ValueError, match="a clip without sound has no prosody; leave it out"):
        prosody_features(np.zeros(0, np.int16), 5)


def test_a_clip_is_measured_once_as_long_as_that_fits(monkeypatch):
    sound, other = vowel(150.0, 20), vowel(210.0, 20)
    afresh, measured = prosody_features(sound, 20, TYPICAL), []
    monkeypatch.setattr(prosody, "measure_prosody", lambda *given: measured.append(given) or measure_prosody(*given))
    for room, times in ((10_000, 2), (0, 4)):
        monkeypatch.setattr(prosody, "_measured", prosody._Measured(room))
        measured.clear()
        prosody_sums(sound, 20)
        np.testing.assert_array_equal(prosody_features(sound.copy(), 20, TYPICAL), afresh)
        prosody_features(sound, 20, TYPICAL)
        prosody_features(other, 20)
        assert len(measured) == times
