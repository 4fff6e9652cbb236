"""Crops: the geometry, on pictures where the right answer is known."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import crops

MOUTH_POINTS = np.array([[96.0, 184.0], [160.0, 184.0], [128.0, 171.0], [128.0, 201.0]])
FACE = np.concatenate([crops.MEAN_FACE, MOUTH_POINTS])  # nine points in the aligned frame


def placed(scale: float, degrees: float, shift: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The transform from aligned frame to a picture, and the nine points there."""
    angle = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    transform = np.column_stack([linear, shift])
    return transform, crops.apply(transform, FACE)


def picture_of(points: np.ndarray, shape: tuple[int, int], radius: int) -> np.ndarray:
    """Black, with a white disc on the mean of the mouth points."""
    image = np.zeros(shape, np.uint8)
    centre = points[crops.MOUTH].mean(0)
    return cv2.circle(image, tuple(round(c) for c in centre), radius, 255, -1)


def centroid(image: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(x * image).sum(), (y * image).sum()]) / image.sum()


@pytest.mark.parametrize("mouth_size", [48, 96, 128])
@pytest.mark.parametrize(("scale", "degrees"), [(0.5, 0), (1.0, 25), (3.0, -40), (6.0, 10)])
def test_the_mouth_is_centred_and_upright_at_any_size_and_scale(scale, degrees, mouth_size):
    _, points = placed(scale, degrees, (90 * scale, 120 * scale))
    shape = (int(500 * scale), int(450 * scale))
    mouth, face, *_ = crops.crop_clip(
        [picture_of(points, shape, round(12 * scale))], points[None], mouth_size=mouth_size, face_size=56
    )
    assert mouth.shape == (1, mouth_size, mouth_size)
    assert face.shape == (1, 56, 56)
    pixels = 96 / mouth_size  # of the aligned frame in one of the crop
    np.testing.assert_allclose(centroid(mouth[0]), (mouth_size - 1) / 2, atol=1.2 / pixels + 0.3 / (scale * pixels))
    area = (mouth[0] / 255.0).sum() * pixels**2
    assert area == pytest.approx(np.pi * 12**2, rel=0.12)
    left, top, side = crops.FACE_SQUARE
    expected = (FACE[crops.MOUTH].mean(0) + 0.5 - (left, top)) * 56 / side - 0.5
    np.testing.assert_allclose(centroid(face[0]), expected, atol=0.5)


def test_small_crops_show_the_same_as_large_ones():
    _, points = placed(1.5, 10, (60, 40))
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (600, 600), np.uint8), (0, 0), 6)
    large, *_ = crops.crop_clip([image], points[None], mouth_size=96)
    small, *_ = crops.crop_clip([image], points[None], mouth_size=48)
    halved = cv2.resize(large[0], (48, 48), interpolation=cv2.INTER_AREA)
    assert np.abs(small[0].astype(int) - halved).max() <= 4


def test_a_large_picture_is_reduced_without_a_shift():
    _, points = placed(6.0, 0, (30, 30))
    y, x = np.mgrid[:1700, :1700]
    image = (127 + 60 * np.sin(x / 50) + 60 * np.sin(y / 70)).astype(np.uint8)
    transform = crops.align(points[None, crops.STABLE], crops.MEAN_FACE)[0]
    square = crops.Square(80.0, 130.0, 96)
    direct = cv2.warpAffine(image, transform - [[0, 0, 80.0], [0, 0, 130.0]], (96, 96))
    assert np.abs(crops.cut(image, transform, square, 96).astype(int) - direct).max() <= 3


def test_the_mouth_square_stays_inside_the_frame():
    transform = np.array([[[1.0, 0, 0], [0, 1.0, 0]]])
    for x, y, left, top in ((-50, 10, 0, 0), (300, 400, 160, 160), (100.4, 100.6, 52, 53)):
        square = crops.mouth_squares(transform, np.full((1, 4, 2), (x, y)))[0]
        assert square == (left, top, 96)


def test_the_last_frames_share_a_transform_and_one_frame_is_enough():
    points = np.stack([placed(1.0, 0.5 * t, (t, 0))[1] for t in range(30)])
    transforms = crops.align(points[:, crops.STABLE], crops.MEAN_FACE)
    assert transforms.shape == (30, 2, 3)
    assert (transforms[18:] == transforms[18]).all()
    assert not np.allclose(transforms[17], transforms[18])
    mean = points[4:16, crops.STABLE].mean(0)
    np.testing.assert_allclose(transforms[4], crops.fit_similarity(mean, crops.MEAN_FACE))
    assert crops.align(points[:1, crops.STABLE], crops.MEAN_FACE).shape == (1, 2, 3)


@given(st.floats(0.2, 5), st.floats(-180, 180), st.floats(-300, 300), st.floats(-300, 300))
def test_a_similarity_is_recovered(scale, degrees, x, y):
    transform, points = placed(scale, degrees, (x, y))
    np.testing.assert_allclose(crops.fit_similarity(FACE, points), transform, atol=1e-6 * (1 + abs(x) + abs(y)))


def test_the_similarity_is_the_least_squares_one():
    rng = np.random.default_rng(3)
    source, target = rng.normal(size=(2, 5, 2))
    unknowns = np.zeros((10, 4))  # x' = a x - b y + u, y' = b x + a y + v
    unknowns[0::2] = np.column_stack([source[:, 0], -source[:, 1], np.ones(5), np.zeros(5)])
    unknowns[1::2] = np.column_stack([source[:, 1], source[:, 0], np.zeros(5), np.ones(5)])
    a, b, u, v = np.linalg.lstsq(unknowns, target.ravel(), rcond=None)[0]
    np.testing.assert_allclose(crops.fit_similarity(source, target), [[a, -b, u], [b, a, v]], atol=1e-9)


@pytest.mark.parametrize("num_frames", [2, 4])
def test_another_number_of_frames_than_points_is_refused(num_frames):
    points = np.stack([FACE] * 3)
    with pytest.raises(ValueError, match="changed"):
        crops.crop_clip([np.zeros((300, 300), np.uint8)] * num_frames, points)
