"""Audio features and noise mixing against the reference implementation's numbers (spec sections 3 and 5)."""

import numpy as np
import pytest

from mmpretrain.data import audio
from tests.parity.fixture_files import groups, load_arrays


def test_filterbank_and_stacking():
    arrays, _ = load_arrays("audio_features.npz")
    for name, clip in groups(arrays, "c").items():
        fbank_NF = audio.log_filterbank(clip["wav"])
        np.testing.assert_allclose(fbank_NF, clip["logfbank"], rtol=1e-6, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(audio.stack_frames(fbank_NF), clip["stacked"], rtol=1e-6, atol=1e-6, err_msg=name)


def test_features_normalised_and_matched_to_the_video():
    arrays, _ = load_arrays("audio_features.npz")
    for name, clip in groups(arrays, "c").items():
        lengths = {f"normalized_{key}": int(clip[key]) for key in clip if key.startswith("nv")}
        lengths["normalized_audio_only"] = len(clip["stacked"])
        for key, num_frames in lengths.items():
            features_TF = audio.audio_features(clip["wav"], num_frames)
            np.testing.assert_allclose(features_TF, clip[key], rtol=0, atol=5e-6, err_msg=f"{name} {key}")


def test_mfcc39():
    arrays, _ = load_arrays("mfcc39.npz")
    for name, clip in groups(arrays, "c").items():
        limit = 1e-4 * max(1, np.abs(clip["mfcc39"]).max())
        np.testing.assert_allclose(audio.mfcc39(clip["wav"]), clip["mfcc39"], rtol=0, atol=limit, err_msg=name)


def test_noise_is_mixed_exactly():
    arrays, cases = load_arrays("noise_mix.npz")
    for i, case in enumerate(cases):
        clip = groups(arrays, "n")[f"n{i}"]
        if not isinstance(case["snr"], int | float):
            pytest.skip(f"case {i} draws its SNR {case['snr']!r} at random, which is not part of mixing")
        picked = [clip[f"noise{k}"] for k in clip["pick"]]
        shortest = min(map(len, picked))
        # The reference averages several picked noises; we mix one, so that step is the test's.
        noise_N = np.floor(np.mean([noise[:shortest] for noise in picked], axis=0)).astype(np.int16)
        np.testing.assert_array_equal(audio.mix_noise(clip["clean"], noise_N, case["snr"]), clip["mixed"], f"case {i}")
