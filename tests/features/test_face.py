"""What features of a face see and what they must not see."""

import numpy as np
import pytest

from mmpretrain.features.face import (
    APPEARANCE_DIM,
    GEOMETRY_DIM,
    MOVEMENTS,
    appearance_features,
    appearance_sums,
    geometry_features,
    geometry_sums,
)
from mmpretrain.records import BLENDSHAPES, NUM_BLENDSHAPES


def face(num_frames: int = 20, size: int = 56, skin: int = 150) -> np.ndarray:
    """An oval with eyes and a mouth that opens once and closes again."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    clip = np.full((num_frames, size, size), 60.0)
    clip[:, (x / 0.4) ** 2 + (y / 0.5) ** 2 < 1] = skin
    for side in (-0.17, 0.17):
        clip[:, (x - side) ** 2 + (y + 0.15) ** 2 < 0.003] = 30
    for t, opened in enumerate(np.sin(np.pi * np.arange(num_frames) / num_frames)):
        clip[t, (x / 0.15) ** 2 + ((y - 0.28) / (0.02 + 0.08 * opened)) ** 2 < 1] = 40
    return clip.astype(np.uint8)


def test_appearance_does_not_depend_on_brightness_and_contrast():
    clip = face()
    features_TF = appearance_features(clip)
    assert features_TF.shape == (20, APPEARANCE_DIM)
    assert features_TF.dtype == np.float32
    lit = (0.6 * clip + np.linspace(0, 60, 20)[:, None, None]).astype(np.uint8)  # it grows lighter all the time
    assert np.linalg.norm(appearance_features(lit) - features_TF) < 0.05 * np.linalg.norm(features_TF)


def test_appearance_is_of_what_moves_and_the_same_in_a_mirror_and_at_any_size():
    clip = face()
    spot = clip.copy()
    spot[:, 5:15, 5:15] += 50  # a light spot on one side: part of the mean face
    values, half = appearance_features(clip), APPEARANCE_DIM // 2
    opened = np.linalg.norm(values[:, :half] - values[0, :half], axis=1)
    assert opened.argmax() == pytest.approx(10, abs=1)
    np.testing.assert_allclose(appearance_features(clip[:, :, ::-1]), values, atol=1e-5)
    assert np.linalg.norm(appearance_features(spot) - values) < 0.2 * np.linalg.norm(values)
    larger = appearance_features(face(size=112))
    assert np.linalg.norm(larger - values) < 0.2 * np.linalg.norm(values)


def test_an_even_picture_and_a_single_frame_are_finite():
    assert np.isfinite(appearance_features(np.full((5, 20, 20), 7, np.uint8))).all()
    assert not appearance_features(face(1)).any()


def test_geometry_takes_left_and_right_together():
    scores_TF = np.zeros((10, NUM_BLENDSHAPES), np.float16)
    scores_TF[:, BLENDSHAPES.index("mouthSmileLeft")] = 0.8
    scores_TF[:, BLENDSHAPES.index("mouthSmileRight")] = 0.4
    scores_TF[:, BLENDSHAPES.index("jawOpen")] = np.arange(10) / 10
    features_TF = geometry_features(scores_TF)
    assert features_TF.shape == (10, GEOMETRY_DIM)
    assert features_TF.dtype == np.float32
    np.testing.assert_allclose(features_TF[:, MOVEMENTS.index("mouthSmile")], 0.6, atol=1e-3)
    np.testing.assert_allclose(features_TF[:, MOVEMENTS.index("jawOpen")], np.arange(10) / 10, atol=1e-3)
    np.testing.assert_allclose(features_TF[2:-2, GEOMETRY_DIM // 2 + MOVEMENTS.index("jawOpen")], 0.1 / 0.25, atol=0.01)
    mirrored = {name: name.replace("Left", "*").replace("Right", "Left").replace("*", "Right") for name in BLENDSHAPES}
    swap = [BLENDSHAPES.index(mirrored[name]) for name in BLENDSHAPES]
    np.testing.assert_array_equal(geometry_features(scores_TF[:, swap]), features_TF)


@pytest.mark.parametrize("kind", ["appearance", "geometry"])
def test_over_the_speaker_s_mean_a_lasting_expression_stays_and_over_the_clip_s_it_goes(kind):
    plain, lasting = face(), face()
    lasting[:, 30:38, 18:38] = 90  # as long as the clip
    features, sums = appearance_features, appearance_sums
    if kind == "geometry":
        scores = np.random.default_rng(0).random((2, 20, NUM_BLENDSHAPES))
        plain, lasting = scores[0], scores[1] + 0.5
        features, sums = geometry_features, geometry_sums
    total, frames = np.sum([sums(clip) for clip in (plain, lasting)], axis=0)
    half = len(total)
    of_speaker = [features(clip, total / frames)[:, :half].mean(0) for clip in (plain, lasting)]
    np.testing.assert_allclose(of_speaker[0], -of_speaker[1], atol=1e-5)
    assert np.linalg.norm(of_speaker[0]) > 0.02
    absolute = [features(clip, 0.0) for clip in (plain, lasting)]
    np.testing.assert_allclose(of_speaker[0], absolute[0][:, :half].mean(0) - total / frames, atol=1e-5)
    np.testing.assert_allclose(features(lasting, None)[:, :half].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(features(plain, total / frames)[:, half:], absolute[0][:, half:], atol=1e-5)


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="a clip without video has no face; leave it out"):
        appearance_features(np.zeros((0, 20, 20), np.uint8))
    with pytest.raises(ValueError, match="a clip without blendshapes has no face geometry; leave it out"):
        geometry_features(np.zeros((0, NUM_BLENDSHAPES), np.float16))
