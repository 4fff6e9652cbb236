"""Landmarks from files: crops on a drawn face need no detector, and files that do not fit are refused by name."""

import numpy as np
import pytest

from data_prep import media
from data_prep.crops import crop_clip
from data_prep.given_landmarks import LAYOUTS, with_landmarks
from data_prep.landmarker import MODEL_ENV
from data_prep.sources import SourceClip
from mmpretrain.records import Clip
from tests.data_prep.authored import write_mp4
from tests.data_prep.test_faces import face_at
from tests.data_prep.test_preparation import clips_of, prepare_folder, report_of

FRAMES = 20


def mesh(num_points: int, x: float, y: float, scale: float) -> np.ndarray:
    """A face of so many points, of which only those that are used lie right."""
    points = np.full((num_points, 2), 1.0)
    nine, lips = LAYOUTS[num_points]
    points[list(nine)] = face_at(x, y, scale)
    points[list(lips)] = face_at(x, y, scale)[7:9]
    return points


def prepared(tmp_path, monkeypatch, **arrays) -> Clip | str:
    """The clip of a video of 96 x 64 pixels with these landmarks; or why it is refused."""
    monkeypatch.setenv(MODEL_ENV, str(tmp_path / "nowhere"))  # nobody looks for faces
    source, known = tmp_path / "in", tmp_path / "known"
    source.mkdir()
    known.mkdir()
    write_mp4(source / "a.mp4", FRAMES)
    np.savez(known / "a.npz", **arrays)
    code = prepare_folder(
        source, tmp_path / "out", "--landmarks", known, "--validation-share", 0, "--min-face-rate", 0.4
    )
    return clips_of(tmp_path / "out")[0] if code == 0 else report_of(tmp_path / "out")["a"]["reason"]


@pytest.mark.parametrize(("num_points", "fps", "shares"), [(68, 25, False), (478, 50, False), (478, 25, True)])
def test_crops_lie_on_the_given_face_without_a_detector(tmp_path, monkeypatch, num_points, fps, shares):
    points = np.stack([mesh(num_points, 26, 17, 0.15)] * (FRAMES * fps // 25))
    points[8 * fps // 25 : 10 * fps // 25] = np.nan
    scale = np.array([96, 64]) if shares else 1
    clip = prepared(
        tmp_path, monkeypatch, points=(points + 0.5 * shares) / scale, **({} if fps == 25 else {"fps": fps})
    )
    assert isinstance(clip, Clip), clip
    assert clip.mouth.shape[0] == FRAMES
    assert not clip.tracks
    frames = list(media.shown_frames(media.open_media(tmp_path / "in" / "a.mp4")))
    expected = crop_clip(frames, np.stack([face_at(26, 17, 0.15)] * FRAMES).astype(np.float32))
    assert np.abs(clip.mouth.astype(int) - expected.mouth).max() <= 1
    assert np.abs(clip.face.astype(int) - expected.face).max() <= 1


def test_landmarks_of_no_clip_and_clips_without_landmarks_are_said(tmp_path, capsys):
    clips = [SourceClip("anna/01", tmp_path / "01.mp4"), SourceClip("ben/02", tmp_path / "02.mp4"),
             SourceClip("c", tmp_path / "c.wav")]  # fmt: skip
    (tmp_path / "known" / "anna").mkdir(parents=True)
    (tmp_path / "known" / "01.npz").touch()
    with pytest.raises(ValueError, match=r"known has no file of any clip with a picture, such as anna/01\.npz; call"):
        with_landmarks(clips, tmp_path / "known")
    (tmp_path / "known" / "anna" / "01.npz").touch()
    assert [clip.landmarks is not None for clip in with_landmarks(clips, tmp_path / "known")] == [True, False, False]
    said = capsys.readouterr().out
    assert "note: of 1 clips" in said
    assert "such as ben/02: faces are looked for" in said
    assert "note: 1 files of landmarks are of no clip, such as 01.npz" in said
    assert with_landmarks(clips[2:], tmp_path / "known") == clips[2:], "sound needs none"


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"points": np.zeros((FRAMES, 5, 2))}, r"have the shape \[20, 5, 2\]; give \[frames, 68 or 478, 2 or 3\]"),
        ({"points": np.ones((2 * FRAMES, 68, 2))}, "have 40 rows at 25 a second, but there are 20 frames"),
        ({"landmarks": np.ones((FRAMES, 68, 2))}, "no npz with an array `points`"),
        ({"points": np.full((FRAMES, 68, 2), np.nan)}, "no face found"),
        ({"points": np.array([object()])}, "no npz with an array `points`"),
    ],
    ids=["points", "rows", "name", "nobody", "pickle"],
)
def test_landmarks_that_do_not_fit_are_the_reason(tmp_path, monkeypatch, arrays, reason):
    import re

    assert re.search(reason, prepared(tmp_path, monkeypatch, **arrays))
