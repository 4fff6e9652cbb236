"""Parts of files, pictures shown in another order than decoded, recordings joined: nothing is lost or moved."""

import os
from pathlib import Path

import numpy as np
import pytest

from data_prep import media
from data_prep.accounting import row_of
from data_prep.inspection import FaceFacts, FileFacts, Inspection, PictureFacts, SoundFacts
from data_prep.media import container
from data_prep.options import Options
from data_prep.sources import SourceClip
from tests.data_prep.numbered import joined, number_of, shifted, write_film
from tests.slow import others_slow

CASES = Path(os.environ.get("MMPRETRAIN_SHARED_DIR", Path(__file__).parents[2].parent / "shared")) / "data" / "cases"

FILMS = {  # name: video, audio, other arguments of write_film
    "long_gop.ts": ("libx264", "aac", {"x264": "keyint=infinite:bframes=3:scenecut=0"}),
    "open_gop.ts": ("libx264", "mp2", {"x264": "keyint=20:bframes=3:open-gop=1:scenecut=0"}),
    "mpeg1.mpg": ("mpeg1video", "mp2", {"b_frames": 2}),
    "mpeg2.mpg": ("mpeg2video", "mp2", {"b_frames": 2, "key_every": 300}),
    "open_gop.mkv": ("libx264", "ac3", {"x264": "keyint=40:bframes=3:open-gop=1", "rate": 48_000}),
    "h264.mp4": ("libx264", "aac", {}),
    "b_frames.avi": ("libx264", "libmp3lame", {"x264": "keyint=60:bframes=16:b-adapt=0:scenecut=0"}),
    "divx.avi": ("mpeg4", "mp2", {"b_frames": 2}),
    "h264.flv": ("libx264", "aac", {"rate": 44_100}),
    "vp8.webm": ("libvpx", "libopus", {"b_frames": None, "rate": 48_000}),
    "sound.ogg": (None, "libopus", {"rate": 48_000}),
}
PARTS = [(0.0, 2.0), (2.0, 4.0), (3.72, 5.2), (4.0, 6.0), (7.0, None)]


def make_film(folder: Path, name: str, **changed) -> Path:
    video, audio, others = FILMS[name]
    rate = 44_100 if audio in ("mp2", "libmp3lame") else 16_000  # mp2 has no 16 kHz
    return write_film(folder / name, video, audio, **{"rate": rate} | others | changed)


def numbers(opened: media.Media) -> list[int]:
    return [number_of(frame) for frame in media.shown_frames(opened)] if opened.has_picture else []


def off_by(part: np.ndarray, whole: np.ndarray) -> int:
    """By how many samples the part lies beside its place in the whole."""
    middle = slice(3000, 20_000)
    steps = range(-40, 41)
    apart = [np.abs(part[3000 + step : 20_000 + step].astype(int) - whole[middle]).mean() for step in steps]
    return abs(steps[int(np.argmin(apart))])


@pytest.mark.parametrize("sought", others_slow([False, True], True), ids=["from the beginning", "sought"])
@pytest.mark.parametrize("name", FILMS)
def test_a_part_is_what_is_cut_out_of_the_whole(tmp_path, monkeypatch, name, sought):
    path = make_film(tmp_path, name)
    whole = media.open_media(path)
    shown, sound = list(media.shown_frames(whole)) if whole.has_picture else [], media.audio_samples(whole)
    if shown:
        assert [number_of(frame) for frame in shown] == list(range(200))
    if sought:
        monkeypatch.setattr(container, "FROM_BEGINNING_SEC", {"video": 1.5, "audio": 1.5})
        monkeypatch.setattr(container, "RUN_UP_SEC", {"video": 0.5, "audio": 1.5})
    for start, end in PARTS:
        part = media.open_media(path, start, end)
        last = None if end is None else round(end * 25)
        cut = shown[round(start * 25) : last]
        frames = list(media.shown_frames(part)) if part.has_picture else []
        assert len(frames) == len(cut)
        assert all((frame == other).all() for frame, other in zip(frames, cut, strict=True))
        heard, cut = media.audio_samples(part), sound[round(start * 16_000) : last and last * 640]
        if sought:  # stamps of some containers are rounded to a millisecond
            assert abs(len(heard) - len(cut)) <= 16
            assert len(cut) < 20_000 or off_by(heard, cut) <= 16
        else:
            np.testing.assert_array_equal(heard, cut)
        assert part.damaged == part.dropped == 0


def test_b_frames_of_an_avi_are_all_shown_in_order(tmp_path):
    opened = media.open_media(make_film(tmp_path, "b_frames.avi", seconds=3.0))
    assert numbers(opened) == list(range(75))
    assert opened.dropped == 0


@pytest.mark.parametrize("ending", ["ts", "mpg", "webm", "ogg"])
def test_recordings_whose_clock_starts_anew_follow_each_other(tmp_path, ending):
    name = {"ts": "open_gop.ts", "mpg": "mpeg1.mpg", "webm": "vp8.webm", "ogg": "sound.ogg"}[ending]
    folders = [tmp_path / str(k) for k in range(2)]
    for folder in folders:
        folder.mkdir()
    halves = [make_film(folder, name, seconds=3.0, first=75 * k) for k, folder in enumerate(folders)]
    opened = media.open_media(joined(tmp_path / f"both.{ending}", *halves))
    assert opened.clock.num_restarts == 1
    assert abs(opened.declared_sec - 6) < 0.1
    assert numbers(opened) == (list(range(150)) if opened.has_picture else [])
    sound = media.audio_samples(opened)
    assert abs(len(sound) / 16_000 - 6) < 0.1
    # The second half lies beside its picture: as its own file has it, moved by 3 s.
    second = media.audio_samples(media.open_media(halves[1]))
    assert off_by(sound[3 * 16_000 :], second) <= 640
    assert opened.dropped <= 3


@pytest.mark.parametrize("jump_sec", [-900.0, 10.0, 2000.0])
def test_recordings_whose_clock_jumps_follow_each_other(tmp_path, jump_sec):
    first = write_film(tmp_path / "1.ts", "libx264", "mp2", seconds=3.0, rate=44_100)
    second = write_film(tmp_path / "2.ts", "libx264", "mp2", seconds=3.0, rate=44_100, first=75)
    first = shifted(tmp_path / "first.ts", first, max(0.0, -jump_sec))
    second = shifted(tmp_path / "second.ts", second, 3 + max(0.0, jump_sec))
    opened = media.open_media(joined(tmp_path / "both.ts", first, second))
    assert numbers(opened) == list(range(150))
    assert abs(len(media.audio_samples(opened)) / 16_000 - 6) < 0.1
    assert abs(opened.declared_sec - 6) < 0.1
    part = media.open_media(tmp_path / "both.ts", 2.0, 4.0)
    assert numbers(part) == list(range(50, 100))


def test_a_part_of_one_stream_may_be_missing_in_a_recording(tmp_path):
    mute = write_film(tmp_path / "mute.ts", "libx264", None, seconds=2.0)
    heard = write_film(tmp_path / "heard.ts", "libx264", "mp2", seconds=2.0, first=50, rate=44_100)
    opened = media.open_media(joined(tmp_path / "both.ts", mute, heard))
    assert numbers(opened) == list(range(100))
    sound = media.audio_samples(opened)
    assert not sound[: round(1.9 * 16_000)].any()
    assert abs(len(sound) / 16_000 - 4) < 0.1


def test_frames_whose_stamps_go_back_are_counted(tmp_path):
    first = write_film(tmp_path / "1.ts", "libx264", None, seconds=2.0)
    second = write_film(tmp_path / "2.ts", "libx264", None, seconds=2.0, first=50)
    opened = media.open_media(joined(tmp_path / "both.ts", first, shifted(tmp_path / "late.ts", second, 1.8)))
    assert numbers(opened) == [*range(50), *range(55, 100)]
    assert opened.dropped == 5


def test_what_a_reader_cannot_reach_is_known(tmp_path):
    halves = [write_film(tmp_path / f"{k}.mp4", "libx264", "aac", seconds=4.0) for k in range(2)]
    assert media.open_media(halves[0]).unread == 0
    assert 0.4 < media.open_media(joined(tmp_path / "both.mp4", *halves)).unread < 0.7


@pytest.mark.parametrize(
    ("found", "note"),
    [
        ({"restarts": 1}, "2 recordings joined, whose clocks start anew"),
        ({"dropped": 21}, "21 frames passed over whose time stamps go back"),
        ({"still_sec": 2.0}, "one picture is shown for 2.0 s"),
        ({"unread": 0.5}, "the last 50 % of the file cannot be read"),
        ({"dropped": 3, "still_sec": 1.0, "unread": 0.1}, ""),
    ],
)
def test_the_report_says_what_the_clock_did(found, note):
    sound = SoundFacts(num_samples=48_000, sample_rate=16_000)
    seen = Inspection(
        PictureFacts(num_frames=75, fps=25.0), FaceFacts(faces=1, face_rate=1.0), sound, FileFacts(**found)
    )
    row = row_of(SourceClip("a", Path("a.ts")), seen, Options())
    assert row.status == "kept"
    assert note in row.notes if note else row.notes == ""


needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="no cases; set MMPRETRAIN_SHARED_DIR")


@needs_cases
def test_case_parts_of_a_transport_stream():
    path = CASES / "ts" / "talk.ts"
    whole = list(media.shown_frames(media.open_media(path)))
    for start, end in ((0, 3), (3, 6), (6, 9), (12, 15)):
        frames = list(media.shown_frames(media.open_media(path, start, end)))
        assert len(frames) == 75
        assert all((a == b).all() for a, b in zip(frames, whole[25 * start : 25 * end], strict=True))


@needs_cases
def test_case_b_frames_in_avi():
    opened = media.open_media(CASES / "avi" / "h264_bframes.avi")
    frames = [(frame, count) for frame, count in media.video_frames(opened)]
    assert [count for _, count in frames] == [1] * 75
    assert len({frame.tobytes() for frame, _ in frames}) == 75
    assert opened.dropped == 0


@needs_cases
@pytest.mark.parametrize(("name", "num_frames"), [("cat.ts", 150), ("cat_ogg.ogg", 0)])
def test_case_joined_recordings(name, num_frames):
    opened = media.open_media(CASES / "joined" / name)
    counts = [count for _, count in media.video_frames(opened)] if opened.has_picture else []
    assert counts == [1] * num_frames
    assert abs(len(media.audio_samples(opened)) / 16_000 - 6) < 0.05
