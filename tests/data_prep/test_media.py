"""Decoding: what is shown and heard at which time, whatever the container does."""

import numpy as np
import pytest

from data_prep import media
from tests.data_prep.authored import RATE, tone, turn, write_mkv, write_mp4, write_wav


def levels(opened) -> list[int]:
    """Which authored frame each tick shows."""
    return [round(float(frame.mean()) / 10) for frame in media.shown_frames(opened)]


def test_frames_come_at_25_hz_by_their_stamps(tmp_path):
    stamps = [0, 100, 130, 300, 310, 320, 500, 900]
    opened = media.open_media(write_mkv(tmp_path / "vfr.mkv", stamps))
    shown = levels(opened)
    expected = [max(k for k, stamp in enumerate(stamps) if stamp <= 40 * tick) for tick in range(len(shown))]
    assert shown == expected
    assert 40 * len(shown) > 900  # the last frame is shown


def test_25_fps_shows_each_frame_once(tmp_path):
    stamps = [40 * k + (k % 3 == 1) for k in range(20)]  # rounding in a container moves stamps by a millisecond
    assert levels(media.open_media(write_mkv(tmp_path / "even.mkv", stamps))) == list(range(20))


def test_ntsc_keeps_its_length(tmp_path):
    opened = media.open_media(write_mp4(tmp_path / "30.mp4", num_frames=30, fps=30))
    assert sum(count for _, count in media.video_frames(opened)) == 25
    assert (opened.width, opened.height, opened.fps) == (96, 64, 30.0)


@pytest.mark.parametrize(
    ("matrix", "corner", "size"),
    [
        ((1, 0, 0, 1), (0, 0), (64, 96)),
        ((0, 1, -1, 0), (0, -1), (96, 64)),  # a quarter turn clockwise: the upper left goes to the upper right
        ((-1, 0, 0, -1), (-1, -1), (64, 96)),
        ((0, -1, 1, 0), (-1, 0), (96, 64)),
    ],
)
def test_rotation_is_honoured(tmp_path, matrix, corner, size):
    opened = media.open_media(turn(write_mp4(tmp_path / "turned.mp4"), *matrix))
    rgb, _ = next(media.video_frames(opened))
    assert (opened.height, opened.width) == rgb.shape[:2] == size
    assert rgb.flags.c_contiguous  # MediaPipe reads the memory, not the strides
    corners = {(y, x): rgb[y, x].mean() > 128 for y in (0, -1) for x in (0, -1)}
    assert [place for place, white in corners.items() if white] == [corner]


@pytest.mark.parametrize("late_ms", [200, -200])
def test_sound_keeps_its_place_beside_the_picture(tmp_path, late_ms):
    impulse = np.zeros(RATE, np.int16)
    impulse[8000] = 30_000
    first_frame, first_sample = max(0, -late_ms), max(0, late_ms)
    stamps = [first_frame + 40 * k for k in range(25)]
    opened = media.open_media(write_mkv(tmp_path / "offset.mkv", stamps, impulse, first_sample))
    audio = media.audio_samples(opened, 25)
    assert audio.dtype == np.int16
    assert len(audio) == 25 * 640
    assert abs(int(np.abs(audio.astype(int)).argmax()) - (8000 + late_ms * 16)) <= 16  # a stamp is a millisecond
    assert not audio[: max(0, late_ms) * 16].any()


def test_a_hole_in_the_sound_stays_a_hole(tmp_path):
    audio = tone(1.0)
    path = write_mkv(tmp_path / "whole.mkv", [40 * k for k in range(25)], audio)
    whole = media.audio_samples(media.open_media(path), 25)
    np.testing.assert_array_equal(whole, audio)


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_channels_are_mixed_to_mono_16_khz(tmp_path, channels):
    sound = np.repeat(tone(1.0, 48_000)[:, None], channels, axis=1)
    audio = media.audio_samples(media.open_media(write_wav(tmp_path / "many.wav", sound, 48_000)))
    assert len(audio) == RATE
    middle = slice(2000, 14_000)
    assert np.corrcoef(audio[middle], tone(1.0)[middle])[0, 1] > 0.99
    assert 4000 < np.abs(audio[middle].astype(int)).max() < 32_000


def test_every_channel_is_heard(tmp_path):
    for channel in range(2):
        sound = np.zeros((RATE, 2), np.int16)
        sound[:, channel] = tone(1.0)
        audio = media.audio_samples(media.open_media(write_wav(tmp_path / f"{channel}.wav", sound)))
        assert np.abs(audio.astype(int)).max() > 3000


def test_zeros_are_no_sound():
    assert media.is_silent(np.zeros(100, np.int16))
    assert media.is_silent(np.zeros(0, np.int16))
    assert not media.is_silent(np.array([0, -9], np.int16))


def test_a_part_of_a_file(tmp_path):
    audio = (np.arange(4 * RATE) // 640).astype(np.int16)  # each sample says which frame it belongs to
    path = write_mkv(tmp_path / "long.mkv", [160 * k for k in range(25)], audio)
    opened = media.open_media(path, 2.0, 3.2)
    shown = levels(opened)
    assert shown == [(50 + tick) // 4 for tick in range(30)]
    part = media.audio_samples(opened, len(shown))
    np.testing.assert_array_equal(part, audio[2 * RATE : 2 * RATE + 30 * 640])
    np.testing.assert_array_equal(media.audio_samples(opened), part)


def test_sound_is_padded_or_cut_to_the_picture(tmp_path):
    path = write_mkv(tmp_path / "short.mkv", [40 * k for k in range(25)], tone(0.5))
    opened = media.open_media(path)
    assert len(media.audio_samples(opened, 25)) == 25 * 640
    assert not media.audio_samples(opened, 25)[9000:].any()
    assert len(media.audio_samples(opened, 5)) == 5 * 640


def test_a_file_that_breaks_off_is_read_as_far_as_it_goes(tmp_path):
    whole = write_mkv(tmp_path / "whole.mkv", [40 * k for k in range(25)], tone(1.0))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    shown = levels(media.open_media(cut))
    assert 5 < len(shown) < 25
    assert shown == list(range(len(shown)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"this is no video" * 100, "cannot be opened"),
        (b"", "cannot be opened"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    ],
)
def test_what_is_no_media_says_so(tmp_path, content, message):
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        media.open_media(path)


def test_an_mp4_without_its_end_cannot_be_opened(tmp_path):
    path = write_mp4(tmp_path / "cut.mp4", num_frames=50)
    path.write_bytes(path.read_bytes()[:-1200])  # the table of frames is at the end
    with pytest.raises(ValueError, match="cannot be opened"):
        media.open_media(path)


def test_a_clock_that_jumps_is_refused(tmp_path):
    path = write_mkv(tmp_path / "jump.mkv", [0, 40, 80, 120, 500_000])
    with pytest.raises(ValueError, match="time stamps jump by 500 s"):
        list(media.video_frames(media.open_media(path)))


def test_pictures_that_are_not_wanted_are_not_converted(tmp_path):
    path = write_mkv(tmp_path / "a.mkv", [0, 40, 80, 160, 200])
    all_of_them = list(media.video_frames(media.open_media(path)))
    some = list(media.video_frames(media.open_media(path), 2))
    assert [count for _, count in some] == [count for _, count in all_of_them] == [1, 1, 2, 1, 1]
    assert [rgb is None for rgb, _ in some] == [False, True, False, True, False]
    assert all((rgb == all_of_them[k][0]).all() for k, (rgb, _) in enumerate(some) if rgb is not None)
