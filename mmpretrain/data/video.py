"""Cutting and mirroring the picture of a clip. It stays uint8: the model normalises it on the device."""

from __future__ import annotations

import numpy as np


def crop_and_flip(video_THW: np.ndarray, size: int, offset_yx: tuple[int, int], flip: bool) -> np.ndarray:
    """View of the square of `size` pixels at `offset_yx` of every frame, mirrored left to right if `flip`.

    Raises ValueError if the picture is smaller than that.
    """
    check_size(video_THW, size)
    top, left = offset_yx
    cropped = video_THW[:, top : top + size, left : left + size]
    return cropped[:, :, ::-1] if flip else cropped


def centre_offset(video_THW: np.ndarray, size: int) -> tuple[int, int]:
    """Top and left of the square in the middle."""
    return tuple((stored - size) // 2 for stored in video_THW.shape[1:])


def random_offset(video_THW: np.ndarray, size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left of a square drawn uniformly: one for the whole clip."""
    check_size(video_THW, size)
    top, left = (int(rng.integers(0, stored - size, endpoint=True)) for stored in video_THW.shape[1:])
    return top, left


def check_size(video_THW: np.ndarray, size: int) -> None:
    """Raises ValueError if frames are smaller than `size`."""
    height, width = video_THW.shape[1:]
    if min(height, width) < size:
        raise ValueError(
            f"model.inputs.image_size={size} is more than the {height} x {width} pixels of the prepared clips; "
            f"set it to {min(height, width)} or less, or prepare the corpus with larger crops"
        )
