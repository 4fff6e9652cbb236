"""Pictures that change their size or shape inside a stream, and crops in which nothing is to be seen."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from data_prep import crops, faces, media, processing
from data_prep.landmarker import find_faces
from data_prep.options import Options
from data_prep.sources import SourceClip
from tests.data_prep.authored import tone, write_mkv
from tests.data_prep.numbered import joined, number_of, write_film
from tests.data_prep.test_faces import main_face

SHARED = Path(os.environ.get("MMPRETRAIN_SHARED_DIR", Path(__file__).parents[2].parent / "shared"))
CASES, MODEL = SHARED / "data" / "cases" / "reschange", SHARED / "models" / "face_landmarker.task"


@pytest.mark.parametrize(
    ("then", "aspect", "shape"),
    [
        ((160, 96), None, (96, 160)),
        ((40, 24), None, (24, 40)),
        ((48, 80), None, (80, 48)),
        ((48, 48), Fraction(5, 3), (48, 80)),
    ],
    ids=["larger", "smaller", "turned", "other pixels"],
)
@pytest.mark.parametrize(("ending", "video"), [("ts", "libx264"), ("mpg", "mpeg2video")])
def test_each_picture_is_shown_in_its_own_shape(tmp_path, ending, video, then, aspect, shape):
    if video == "mpeg2video" and aspect:
        aspect, shape = Fraction(4, 3), (48, 64)  # MPEG-2 knows few shapes
    before = write_film(tmp_path / f"1.{ending}", video, None, seconds=1.0)
    after = write_film(tmp_path / f"2.{ending}", video, None, seconds=1.0, first=25, size=then, aspect=aspect)
    frames = list(media.shown_frames(media.open_media(joined(tmp_path / f"both.{ending}", before, after))))
    assert [frame.shape[:2] for frame in frames] == [(48, 80)] * 25 + [shape] * 25
    assert [number_of(frame) for frame in frames] == list(range(50))


def face_in(size: tuple[int, int], left: float, top: float, scale: float) -> np.ndarray:
    """The nine points of the mean face, placed in a picture."""
    mouth = [(100, 185), (156, 185), (128, 178), (128, 194)]
    return (np.concatenate([crops.MEAN_FACE, mouth]) * scale + (left, top)).astype(np.float32)


def scene(size: tuple[int, int], left: float, top: float, scale: float) -> np.ndarray:
    """A grey picture of one pattern that lies where the face does."""
    y, x = np.mgrid[: size[0], : size[1]]
    u, v = (x - left) / scale, (y - top) / scale
    return (128 + 60 * np.sin(u / 9) * np.cos(v / 7) + 40 * np.sin(v / 23)).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "left", "top", "scale"),
    [((600, 800), 100, 80, 2.0), ((150, 200), 24.625, 19.625, 0.5), ((400, 300), 20, 90, 1.0)],
    ids=["larger", "smaller", "upright"],
)
def test_crops_stay_on_the_face_where_the_picture_changes(size, left, top, scale):
    first = (300, 400), 49.75, 39.75, 1.0
    to_first = crops.laid_onto(size, first[0])
    points = np.stack([face_in(*first)] * 15 + [crops.apply(to_first, face_in(size, left, top, scale))] * 15)
    cut = crops.crop_clip([scene(*first)] * 15 + [scene(size, left, top, scale)] * 15, points)
    assert not cut.empty.any()
    for k in (14, 15, 20, 29):  # right up to the change and from it on
        assert np.corrcoef(cut.mouth[k].ravel(), cut.mouth[0].ravel())[0, 1] > 0.95
        assert np.corrcoef(cut.face[k].ravel(), cut.face[0].ravel())[0, 1] > 0.95


def test_a_face_is_followed_into_a_picture_of_another_shape():
    near, far = face_in((0, 0), 0, 0, 1.0)[None], face_in((0, 0), 900, 300, 1.0)[None]
    frames = [near] * 5 + [far] * 5
    assert main_face(frames, shapes=[0] * 5 + [1] * 5) == [0] * 10
    assert main_face(frames) == [0] * 5 + [-1] * 5


def test_crops_that_show_nothing_are_known():
    size, place = (300, 400), (49.75, 39.75, 1.0)
    points = np.stack([face_in(size, *place)] * 4)
    black = np.zeros(size, np.uint8)
    dark = (scene(size, *place) * 0.05).astype(np.uint8)
    cut = crops.crop_clip([scene(size, *place), black, black + 77, dark], points)
    assert cut.empty.tolist() == [False, True, True, False]
    below = np.stack([face_in(size, 50, 200, 1.0)])  # the mouth lies below the edge
    assert crops.crop_clip([scene(size, 50, 200, 1.0)], below).empty.tolist() == [True]


@pytest.mark.parametrize(("num_empty", "has_audio"), [(0, 1), (10, 1), (20, 1), (20, 0)])
def test_empty_crops_are_noted_or_refused(tmp_path, monkeypatch, num_empty, has_audio):
    path = write_mkv(tmp_path / "a.mkv", [40 * k for k in range(25)], tone(1.0))
    crop = np.zeros((25, 96, 96), np.uint8)
    seen = crops.Crops(crop, crop[:, :64, :64], np.arange(25) < num_empty)
    monkeypatch.setattr(processing, "load_face", lambda _: (np.zeros((25, 9, 2)), np.zeros((25, 52), np.float16)))
    monkeypatch.setattr(processing, "crop_clip", lambda *_, **__: seen)
    made = processing.make_clip(processing.Task(SourceClip("a", path), "", has_audio, 1, Options(face_size=64)))
    if num_empty == 20 and not has_audio:
        assert made == "80 % of the crops are empty or outside of the picture"
        return
    assert (
        made.note
        == {
            0: "",
            10: "40 % of the crops are empty or outside of the picture",
            20: "80 % of the crops are empty or outside of the picture; kept as sound only",
        }[num_empty]
    )
    assert len(made.clip.mouth) == len(made.clip.face) == (0 if num_empty == 20 else 25)
    assert bool(made.clip.tracks) == (num_empty < 20)
    assert len(made.clip.audio) == 16_000


def test_where_every_crop_must_show_something_the_one_that_does_not_is_the_reason(tmp_path, monkeypatch):
    path = write_mkv(tmp_path / "a.mkv", [160 * k for k in range(25)], tone(4.0))
    crop = np.zeros((100, 96, 96), np.uint8)
    seen = crops.Crops(crop, crop[:, :64, :64], np.arange(100) < 1)
    monkeypatch.setattr(processing, "load_face", lambda _: (np.zeros((100, 9, 2)), np.zeros((100, 52), np.float16)))
    monkeypatch.setattr(processing, "crop_clip", lambda *_, **__: seen)
    tasks = [
        processing.Task(SourceClip("a", path), "", has_audio, 1, Options(face_size=64, min_face_rate=1.0))
        for has_audio in (0, 1)
    ]
    reason = "1 % of the crops are empty or outside of the picture"
    assert processing.make_clip(tasks[0]) == reason
    assert processing.make_clip(tasks[1]).note == f"{reason}; kept as sound only"


@pytest.mark.skipif(not CASES.is_dir() or not MODEL.is_file(), reason="no cases; set MMPRETRAIN_SHARED_DIR")
def test_case_a_stream_that_drops_its_resolution_shows_the_same_face():
    cut = []
    for name in ("control.mp4", "drop70.webm"):
        opened = media.open_media(CASES / name)
        track = faces.track_face(find_faces(media.video_frames(opened), MODEL))
        assert track.detected.mean() > 0.95
        cut.append(crops.crop_clip(media.shown_frames(opened), track.points))
    whole, dropped = cut
    assert not dropped.empty.any()
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(whole.mouth, dropped.mouth, strict=True)]
    assert min(alike) > 0.85
