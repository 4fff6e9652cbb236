"""A handful of real recordings through the whole command: MediaPipe finds the faces, the crops show mouths."""

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.corpora import ravdess
from data_prep.landmark_cache import load_face
from mmpretrain import records
from tests.data_prep.test_preparation import clips_of, prepare_folder, report_of

SHARED = Path(os.environ.get("MMPRETRAIN_SHARED_DIR", Path(__file__).parents[2].parent / "shared"))
UPPER_LIP, LOWER_LIP = 7, 8  # see data_prep/crops.py
MODEL = SHARED / "models" / "face_landmarker.task"
AV = SHARED / "data" / "av"

CLIPS = {  # id: (path, seconds)
    "grid": ("grid/other/brbk7n.mpg", 1.0),  # 360 wide: rows are padded in memory
    "upright": ("edge/vertical_hevc_25fps.mp4", 0.6),
    "sparse": ("ravdess/sparse20/01-01-03-01-02-01-01.mp4", ""),
    "nobody": ("edge/no_face_no_audio.mp4", 0.6),
    "two": ("edge/two_people_12fps_24khz.mp4", 1.0),
    "mute": ("edge/no_audio_24.7fps.mp4", 0.6),
    "turning": ("lrs3/test/0Fi83BHQsMA/00002.mp4", ""),
    "glad": ("mead/silent/M030_front_happy_level3_001.mp4", 1.0),
    "sad": ("mead/silent/M030_front_sad_level3_001.mp4", 1.0),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    if not AV.is_dir() or not MODEL.is_file():
        pytest.skip(f"no real clips or no landmarker under {SHARED}; set MMPRETRAIN_SHARED_DIR")
    folder = tmp_path_factory.mktemp("real")
    with open(folder / "m.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "clip_id", "end_sec"])
        writer.writerows((path, clip_id, end) for clip_id, (path, end) in CLIPS.items())
    arguments = ["--manifest", folder / "m.csv", "--landmarker", MODEL, "--validation-share", 0]
    assert prepare_folder(AV, folder / "out", *arguments) == 0
    return folder / "out"


def test_real_clips_are_kept_or_refused_for_what_is_in_them(prepared):
    rows = report_of(prepared)
    kept = {name: (int(row["has_audio"]), int(row["has_video"])) for name, row in rows.items()}
    assert kept == {
        "grid": (1, 1), "upright": (1, 1), "sparse": (1, 1), "nobody": (0, 0), "two": (1, 1), "mute": (0, 1),
        "turning": (1, 1), "glad": (0, 1), "sad": (0, 1),
    }  # fmt: skip
    assert "no face found" in rows["nobody"]["reason"]
    assert rows["two"]["faces"] == "2"
    assert (rows["upright"]["width"], rows["upright"]["height"]) == ("1080", "1920")
    assert 0.8 < float(rows["turning"]["face_rate"]) < 1
    assert rows["grid"]["face_rate"] == "1.0"


def test_real_clips_lie_on_the_25_hz_grid(prepared):
    clips = {clip.clip_id: clip for clip in clips_of(prepared)}
    assert {name: clip.num_frames for name, clip in clips.items()} == {
        "grid": 25, "upright": 15, "sparse": pytest.approx(85, abs=20), "two": 25, "mute": 15, "turning": 41,
        "glad": 25, "sad": 25,
    }  # fmt: skip
    for clip in clips.values():
        assert clip.mouth.shape == (clip.num_frames, 96, 96)
        assert clip.face.shape == (clip.num_frames, 112, 112)
        assert clip.tracks["blendshapes"].shape == (clip.num_frames, records.NUM_BLENDSHAPES)
        assert len(clip.audio) in (0, records.SAMPLES_PER_FRAME * clip.num_frames)
    # Twenty pictures in three seconds: most frames repeat the one before, up to the motion of the face's square.
    assert np.abs(np.diff(clips["sparse"].face.astype(int), axis=0)).mean() < 5


def test_crops_show_what_they_should(prepared):
    for clip in clips_of(prepared):
        if clip.clip_id in ("grid", "mute", "upright"):
            # Lips are darker than the skin left and right of them, and the mouth line is near the middle.
            mean = cv2.GaussianBlur(clip.mouth.mean(0), (0, 0), 2)
            assert mean[40:60, 34:62].min() < mean[40:60, :12].mean()


def test_blendshapes_tell_a_smile_and_an_open_mouth(prepared):
    clips = {clip.clip_id: clip for clip in clips_of(prepared)}

    def score(name: str, movement: str) -> np.ndarray:
        columns = [k for k, known in enumerate(records.BLENDSHAPES) if known.startswith(movement)]
        return clips[name].tracks["blendshapes"][:, columns].astype(float).mean(1)

    assert score("glad", "mouthSmile").mean() > 0.3
    assert score("sad", "mouthSmile").max() < 0.05
    # Scores are of the frames that their landmarks are of: the lips are apart where the jaw is open.
    looked_at = map(load_face, prepared.glob("cache/landmarks/*/*.npz"))
    points = next(points for points, scores in looked_at if np.array_equal(scores, clips["grid"].tracks["blendshapes"]))
    apart = points[:, LOWER_LIP, 1] - points[:, UPPER_LIP, 1]
    assert np.ptp(score("grid", "jawOpen")) > 0.1
    assert np.corrcoef(score("grid", "jawOpen"), apart)[0, 1] > 0.7


def test_all_of_ravdess_speech_is_read():
    source = SHARED / "data" / "audio" / "ravdess_speech"
    if not source.is_dir():
        pytest.skip(f"no {source}; set MMPRETRAIN_SHARED_DIR")
    clips = ravdess.read(source)
    assert len(clips) == 1440
    assert not any(clip.refused or clip.note for clip in clips)
    assert {clip.speaker for clip in clips} == {f"ravdess-{actor:02d}" for actor in range(1, 25)}
    assert sum(clip.labels["emotion"] == "neutral" for clip in clips) == 96
