"""Cropping and mirroring of the picture."""

import numpy as np
import pytest

from mmpretrain.data.video import centre_offset, crop_and_flip, random_offset


@pytest.fixture
def video_THW():
    return np.arange(2 * 7 * 9, dtype=np.uint8).reshape(2, 7, 9)


def test_crop_takes_rows_then_columns(video_THW):
    cropped = crop_and_flip(video_THW, 4, (1, 3), flip=False)
    assert cropped.dtype == np.uint8
    assert np.array_equal(cropped, video_THW[:, 1:5, 3:7])
    assert np.array_equal(crop_and_flip(video_THW, 4, (1, 3), flip=True), cropped[:, :, ::-1])


@pytest.mark.parametrize(("size", "expected"), [(7, (0, 1)), (6, (0, 1)), (4, (1, 2)), (3, (2, 3))])
def test_centre_rounds_down(video_THW, size, expected):
    assert centre_offset(video_THW, size) == expected


def test_random_offsets_reach_every_place():
    video_THW = np.zeros((1, 6, 5), np.uint8)
    rng = np.random.default_rng(0)
    assert {random_offset(video_THW, 4, rng) for _ in range(200)} == {(y, x) for y in range(3) for x in range(2)}
    assert random_offset(np.zeros((1, 4, 4), np.uint8), 4, rng) == (0, 0)


def test_a_picture_that_is_too_small_is_refused(video_THW):
    message = r"model\.inputs\.image_size=8 is more than the 7 x 9 pixels .* set it to 7 or less"
    with pytest.raises(ValueError, match=message):
        crop_and_flip(video_THW, 8, (0, 0), flip=False)
    with pytest.raises(ValueError, match=message):
        random_offset(video_THW, 8, np.random.default_rng(0))
