"""Pictures against the reference's numbers: grey, crops at load time, normalisation, mouth crops (spec 4 and 17)."""

import random

import numpy as np
import pytest

from data_prep import crops, faces
from mmpretrain.config import InputConfig
from mmpretrain.data import video
from mmpretrain.models.frontends.video import normalize_pixels
from tests.parity.fixture_files import check, check_error, groups, load_arrays

GREY_LEVEL = 1  # the reference warps with another library


def test_grey():
    arrays, _ = load_arrays("video_transform.npz")
    ours = crops.grey(arrays["bgr"][..., ::-1])
    check_error("grey of a colour frame", np.abs(ours.astype(int) - arrays["gray"]).max(), 0)


def transformed(frames_THW: np.ndarray, meta: dict, offset_yx: tuple[int, int], flip: bool) -> np.ndarray:
    """What the network sees of a clip."""
    inputs = InputConfig(image_size=meta["crop"], pixel_mean=meta["mean"], pixel_std=meta["std"])
    cropped = video.crop_and_flip(frames_THW, meta["crop"], offset_yx, flip)
    valid_BT = np.ones((1, len(frames_THW)), bool)
    return np.asarray(normalize_pixels(cropped[None].copy(), valid_BT, inputs))[0]


def test_centre_crop():
    arrays, meta = load_arrays("video_transform.npz")
    for clip in groups(arrays, "v").values():
        frames = clip["frames_u8"]
        ours = transformed(frames, meta, video.centre_offset(frames, meta["crop"]), False)
        check("picture, centre crop", ours, clip["center"], relative=1e-6)


def test_random_crop_and_flip():
    arrays, meta = load_arrays("video_transform.npz")
    for clip in groups(arrays, "v").values():
        frames = clip["frames_u8"]
        height, width = frames.shape[1:]
        for name in sorted({key.split("/")[0] for key in clip if key.startswith("train")}):
            stored = {key.partition("/")[2]: array for key, array in clip.items() if key.startswith(f"{name}/")}
            left, top, flip = stored["params"].tolist()
            # The reference's draws: one place and one mirroring for the clip. Ours have the same range.
            draws = random.Random(int(stored["seed"]))
            assert left == draws.randint(0, width - meta["crop"])
            assert top == draws.randint(0, height - meta["crop"])
            assert flip == (draws.random() < 0.5)
            ours = transformed(frames, meta, (top, left), bool(flip)).astype(np.float64)
            check("picture, random crop and flip", ours[0], stored["frame0"], relative=1e-6)
            check("sums of such a clip", [ours.sum(), np.abs(ours).sum()], stored["sum"], relative=1e-6)


def test_random_offsets_cover_what_the_reference_draws_from():
    arrays, meta = load_arrays("video_transform.npz")
    rng = np.random.default_rng(0)
    for clip in groups(arrays, "v").values():
        frames = clip["frames_u8"]
        spare = [side - meta["crop"] for side in frames.shape[1:]]
        draws = np.array([video.random_offset(frames, meta["crop"], rng) for _ in range(60 * (max(spare) + 1))])
        for axis in (0, 1):
            assert set(draws[:, axis]) == set(range(spare[axis] + 1))


def mouth_crops() -> tuple[dict, dict]:
    arrays, meta = load_arrays("mouth_crop.npz")
    frame, crop = [crops.FRAME_SIDE] * 2, [crops.MOUTH_SIDE] * 2
    if meta["std_size"] != frame or meta["crop"] != crop:
        pytest.skip(f"std_size={meta['std_size']}, crop={meta['crop']}; ours are {frame} and {crop}")
    return arrays, meta


def test_landmarks_between_detections():
    arrays, _ = mouth_crops()
    ours = faces.fill_gaps(arrays["landmarks_raw"].astype(np.float64), arrays["landmarks_valid"])
    check("landmarks of frames without a face", ours, arrays["landmarks_interpolated"], relative=1e-9)


def test_mouth_crops():
    arrays, meta = mouth_crops()
    stable, points = meta["stable_points"], arrays["landmarks_interpolated"]
    transforms = crops.align(points[:, stable], arrays["mean_face"][stable], meta["window_margin"])
    squares = crops.mouth_squares(transforms, points[:, slice(*meta["mouth_points"])])
    for t, (transform, square) in enumerate(zip(transforms, squares, strict=True)):
        cut = crops.cut(arrays["frames_bgr"][t], transform, square, crops.MOUTH_SIDE)
        for kind, ours in {"bgr": cut, "gray": crops.grey(cut[..., ::-1])}.items():
            error = np.abs(ours.astype(int) - arrays[f"roi_{kind}"][t]).max()
            check_error(f"mouth crop, {kind}, grey levels", error, GREY_LEVEL)
