"""Audio features and noise mixing against the reference implementation's numbers (spec sections 3 and 5)."""

import numpy as np

from mmpretrain.data.noise import mix_noise
from mmpretrain.features.filterbank import audio_features, log_filterbank, stack_frames
from mmpretrain.features.mfcc import mfcc39
from tests.parity.fixture_files import check, check_error, groups, load_arrays


def check_close(quantity: str, ours, reference) -> None:
    """Each number within 1e-6 + 1e-6 of its size."""
    assert ours.shape == reference.shape
    check_error(quantity, (np.abs(ours - reference) / (1 + np.abs(reference))).max(initial=0), 1e-6)


def test_filterbank_and_stacking():
    arrays, _ = load_arrays("audio_features.npz")
    for clip in groups(arrays, "c").values():
        fbank_NF = log_filterbank(clip["wav"])
        check_close("log filterbank", fbank_NF, clip["logfbank"])
        check_close("log filterbank, stacked", stack_frames(fbank_NF), clip["stacked"])


def test_features_normalised_and_matched_to_the_video():
    arrays, _ = load_arrays("audio_features.npz")
    for clip in groups(arrays, "c").values():
        lengths = {f"normalized_{key}": int(clip[key]) for key in clip if key.startswith("nv")}
        lengths["normalized_audio_only"] = len(clip["stacked"])
        for key, num_frames in lengths.items():
            features_TF = audio_features(clip["wav"], num_frames)
            assert features_TF.shape == clip[key].shape
            kind = "alone" if key == "normalized_audio_only" else "as long as the video"
            check_error(f"audio features, {kind}", np.abs(features_TF - clip[key]).max(initial=0), 5e-6)


def test_mfcc39():
    arrays, _ = load_arrays("mfcc39.npz")
    for clip in groups(arrays, "c").values():
        check("MFCC-39", mfcc39(clip["wav"]), clip["mfcc39"])


def test_noise_is_mixed_exactly():
    arrays, cases = load_arrays("noise_mix.npz")
    for i, case in enumerate(cases):
        clip, draws = groups(arrays, "n")[f"n{i}"], np.random.RandomState(case["np_seed"])
        noises = [clip[f"noise{k}"] for k in range(sum(key.startswith("noise") for key in clip))]
        np.testing.assert_array_equal(draws.randint(0, len(noises), case["noise_num"]), clip["pick"])
        # A pair means a whole number of decibels between them.
        snr_db = case["snr"] if np.isscalar(case["snr"]) else draws.randint(case["snr"][0], case["snr"][1] + 1)
        picked = [noises[k] for k in clip["pick"]]
        shortest = min(map(len, picked))
        # The reference averages several picked noises; we mix one, so that step is the test's.
        noise_N = np.floor(np.mean([noise[:shortest] for noise in picked], axis=0)).astype(np.int16)
        mixed_N = mix_noise(clip["clean"], noise_N, snr_db)
        check_error("sound with noise", np.abs(mixed_N.astype(int) - clip["mixed"]).max(), 0)
