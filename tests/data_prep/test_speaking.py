"""Of several people the one is followed whose mouth moves with the sound, and it stays that one."""

import dataclasses
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from data_prep import faces, media
from data_prep.accounting import row_of, span_of
from data_prep.corpora import iemocap
from data_prep.inspection import FaceFacts, Inspection, PictureFacts, SoundFacts
from data_prep.landmark_cache import inspect_clip
from data_prep.landmarker import find_faces
from data_prep.options import Options
from data_prep.sources import Sound, SourceClip
from data_prep.speaking import MOST_LAG, agreement, voice_level
from mmpretrain.records import SAMPLES_PER_FRAME
from tests.data_prep.authored import write_wav
from tests.data_prep.corpora.trees import write
from tests.data_prep.test_faces import face_at, seen, stack
from tests.data_prep.test_real_clips import AV, MODEL

FRAMES = 75
REAL = pytest.mark.skipif(not AV.is_dir() or not MODEL.is_file(), reason="no real clips; set MMPRETRAIN_SHARED_DIR")


def voice(loud_T: np.ndarray, seed: int = 0) -> np.ndarray:
    """Noise as loud in each frame as it says, int16."""
    noise = np.random.default_rng(seed).standard_normal((len(loud_T), SAMPLES_PER_FRAME))
    return (3000 * noise * loud_T[:, None]).astype(np.int16).ravel()


def syllables(seed: int) -> np.ndarray:
    """How far somebody's mouth is open in each frame, in eye distances."""
    steps = np.random.default_rng(seed).random(FRAMES // 4 + 2)
    return 0.2 * np.interp(np.arange(FRAMES) / 4, np.arange(len(steps)), steps)


@pytest.mark.parametrize("lag", [0, 2, -6])
def test_a_mouth_agrees_with_its_own_voice_and_the_lag_is_known(lag):
    mouth = syllables(1)
    level = voice_level(voice(np.roll(mouth, lag)), FRAMES)
    own = agreement(mouth, level)
    assert own.lag_frames == lag
    assert own.confidence > 0.2
    for stranger in (syllables(2), np.random.default_rng(3).normal(0, 0.003, FRAMES), np.full(FRAMES, np.nan)):
        assert abs(lag) > MOST_LAG or agreement(stranger, level).evidence < own.evidence / 3
    assert agreement(mouth, voice_level(np.zeros(0, np.int16), FRAMES)).evidence == 0


def test_the_small_face_that_speaks_is_taken_before_the_large_one_that_listens():
    openings = np.stack([0.01 * syllables(5), syllables(1)], axis=1)
    points = stack(face_at(100, 100, 0.8), face_at(400, 110, 0.5))
    found = [(seen(points, opening=opening), 1) for opening in openings]
    track = faces.track_face(found, voice(openings[:, 1]))
    assert track.by_sound
    assert track.points[:, :, 0].min() > 300
    assert track.speaks.evidence > 1.5 > track.rival
    # Another voice, or none: the large one.
    for audio in (voice(syllables(7)), faces.NO_SOUND):
        track = faces.track_face(found, audio)
        assert not track.by_sound
        assert track.points[:, :, 0].max() < 300


def test_another_person_at_the_same_place_is_another_track():
    """After a cut, and where somebody else comes back after a while; a picture that merely moves ends nothing."""
    here, she, he = stack(face_at(100, 100, 0.8)), np.array([[1.0, 0.0]]), np.array([[0.3, 0.954]])
    cut = [seen(here, looks=she if t < 12 else he, change=40.0 if t == 12 else 2.0) for t in range(20)]
    assert [len(track) for track in faces.follow(cut)] == [12, 8]
    jump = [seen(here, looks=she, change=40.0 if t == 12 else 2.0) for t in range(20)]
    assert [len(track) for track in faces.follow(jump)] == [20]
    moving = [seen(here, looks=she if t < 12 else he, change=30.0 + t % 5) for t in range(20)]
    assert [len(track) for track in faces.follow(moving)] == [20]
    away = [seen(stack() if 5 <= t < 12 else here, looks=she[: int(not 5 <= t < 12)]) for t in range(20)]
    assert [len(track) for track in faces.follow(away)] == [13]
    changed = [
        picture._replace(looks=he[: len(picture.looks)]) if t > 11 else picture for t, picture in enumerate(away)
    ]
    assert [len(track) for track in faces.follow(changed)] == [5, 8]


@pytest.mark.parametrize(
    ("gaps", "span"),
    [
        ((), None),
        (((10, 30),), None),
        (((10, 40),), (40, 100)),
        (((0, 30), (80, 100)), (30, 100)),
        (((30, 70),), (0, 30)),
    ],
)
def test_a_long_gap_cuts_the_clip_and_a_short_one_is_filled(gaps, span):
    sound = SoundFacts(num_samples=64_000, sample_rate=16_000)
    found = Inspection(PictureFacts(num_frames=100), FaceFacts(faces=1, face_rate=0.7, gaps=gaps), sound)
    assert span_of(found, Options()) == span
    row = row_of(SourceClip("a", Path("a.mp4"), labels={"text": "so it is"}), found, Options())
    assert row.has_video == (span is None or span[1] - span[0] >= 50)
    if not row.has_video:
        assert "away for longer than 1 s" in row.notes
    elif span:
        assert row.frames == span[1] - span[0]
        assert f"cut to {span[0] / 25:.2f} to {span[1] / 25:.2f} s" in row.notes
        assert "without its text" in row.notes


def side_by_side(left: str, right: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pictures of two real clips in one, and the sounds of both."""
    shown, sounds = [], []
    for name in (left, right):
        opened = media.open_media(AV / name, 0.0, FRAMES / 25)
        frames = [cv2.resize(frame, (360, 288)) for frame in media.shown_frames(opened)]
        shown.append(frames + frames[-1:] * (FRAMES - len(frames)))
        sounds.append(media.audio_samples(opened, FRAMES))
    return [np.hstack(pair) for pair in zip(*shown, strict=True)], sounds


@REAL
@pytest.mark.parametrize("speaks", [0, 1])
def test_of_two_real_faces_the_one_whose_sound_it_is(speaks):
    """Both speak: one of them what is heard, the other something else."""
    frames, sounds = side_by_side("talk/hdtf/WDA_BobMenendez_000.mp4", "mead/W040_level_3_happy_029.mp4")
    track = faces.track_face(find_faces([(frame, 1) for frame in frames], MODEL), sounds[speaks])
    assert (track.num_faces, track.by_sound) == (2, True)
    assert (track.points[:, :, 0] > 360).all() == bool(speaks)
    assert (track.points[:, :, 0] < 360).all() != bool(speaks)
    assert track.speaks.evidence > track.rival + 0.5
    assert abs(track.speaks.lag_frames) <= 3


@REAL
def test_turns_of_a_split_screen_are_of_the_half_that_speaks(tmp_path):
    frames, sounds = side_by_side("grid/other/pwij3p.mpg", "ravdess/recon/01-01-04-01-02-01-01.mp4")
    name, session = "Ses01F_impro01", tmp_path / "Session1"
    lines = [f"[0.0000 - 3.0000]\t{name}_{who}000\tneu\t[2.5, 2.5, 2.5]\n\n" for who in "FM"]
    write(session / "dialog" / "EmoEvaluation" / f"{name}.txt", "\n".join(lines))
    for who, sound in zip("FM", sounds, strict=True):
        write_wav(session / "sentences" / "wav" / name / f"{name}_{who}000.wav", sound)
    picture = session / "dialog" / "avi" / "DivX" / f"{name}.avi"
    picture.parent.mkdir(parents=True)
    with av.open(str(picture), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt, video.bit_rate = 720, 288, "yuv420p", 4_000_000
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(video.encode())
    turns = {clip.clip_id[-4]: clip for clip in iemocap.read(tmp_path, validation_share=0.0)}
    for who, turn in turns.items():
        found = inspect_clip(turn, cache_dir=tmp_path / "cache", model=MODEL, model_hash="")
        assert found.face.by_sound
        row = row_of(turn, found, Options())
        assert (row.has_video, row.has_audio) == (1, 1)
        points = np.load(found.cache_file)["points"]
        assert (points[..., 0] > 360).all() == (who == "M")
        assert (points[..., 0] < 360).all() == (who == "F")
    # Somebody else's voice: nobody is seen speaking, and the turn is sound only.
    sound = write_wav(
        tmp_path / "other.wav", media.audio_samples(media.open_media(AV / "talk/marlin/video03.mp4"))[:48_000]
    )
    stranger = dataclasses.replace(turns["F"], sound=Sound(sound))
    found = inspect_clip(stranger, cache_dir=tmp_path / "cache", model=MODEL, model_hash="")
    row = row_of(stranger, found, Options())
    assert (row.has_video, row.has_audio) == (0, 1)
    assert "which face speaks cannot be told" in row.notes
