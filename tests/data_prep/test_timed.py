"""What is known of stretches of time follows its clip: onto the frames, through cuts, beside sound of another file."""

import dataclasses
import functools

import numpy as np
import pytest

from data_prep import media
from data_prep.opening import open_clip
from data_prep.options import Options
from data_prep.parts import cut_long_clips
from data_prep.preparation import prepare
from data_prep.sources import Sound, SourceClip
from data_prep.timed import WORDS_TRACK, Curve, Word, are_of, words_track
from data_prep.workers import ordered_map
from mmpretrain.records import TrackSpec
from tests.data_prep.authored import RATE, tone, write_mkv, write_wav
from tests.data_prep.test_preparation import clips_of

WORDS = (Word("one", 0.1, 0.3), Word("two", 0.3, 0.38), Word("three", 1.0, 1.2))


def test_the_word_of_a_frame_is_the_one_at_its_middle():
    track = words_track(WORDS, start_sec=0.0, num_frames=12)
    # Frame 2 (80 to 120 ms) is at 100 ms in its middle, frame 7 (280 to 320 ms) at 300 ms, frame 9 at 380 ms.
    assert track.tolist() == [-1, -1, 0, 0, 0, 0, 0, 1, 1, -1, -1, -1]
    assert words_track(WORDS, start_sec=1.0, num_frames=6).tolist() == [2, 2, 2, 2, 2, -1]


def test_a_curve_is_read_between_its_values_and_not_beyond_them():
    curve = Curve(np.array([0.0, 0.5, 1.0, 1.5]), np.array([0.0, 1.0, np.nan, 2.0]))
    track = curve.track(start_sec=0.0, num_frames=50)
    assert track.dtype == np.float32
    assert track[:12] == pytest.approx((np.arange(12) + 0.5) / 25 / 0.5, abs=1e-6)
    assert np.isnan(track[13:37]).all()  # on both sides of what nobody said
    assert track[40:43] == pytest.approx(2.0)  # half a step behind the last
    assert np.isnan(track[44:]).all()
    assert np.isnan(Curve(np.zeros(0), np.zeros(0)).track(0.0, 3)).all()


def test_words_and_curves_are_written_with_the_clip(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(2.0))
    curve = Curve(np.array([0.0, 2.0]), np.array([-1.0, 1.0]))
    clip = SourceClip("a", path, start_sec=1.0, end_sec=2.0, words=WORDS[2:], curves={"arousal": curve})
    assert are_of(WORDS, "One two, three.")
    assert not are_of(WORDS, "one two")
    assert not are_of(WORDS[:2], "one three")
    tracks = {**WORDS_TRACK, "arousal": TrackSpec((), "float32")}
    prepare([clip], tmp_path / "out", Options(), name="a", tracks=tracks, labels={})
    (written,) = clips_of(tmp_path / "out")
    assert written.tracks["words"].tolist() == [0] * 5 + [-1] * 20
    assert written.tracks["arousal"] == pytest.approx((np.arange(25) + 0.5) / 25, abs=1e-6)
    assert written.info["word_times"] == [["three", 0.0, 0.2]]


def test_parts_of_a_long_clip_have_their_own_words(tmp_path):
    samples = tone(20.0)
    samples[int(9.5 * RATE) : int(10.5 * RATE)] = 0
    words = (Word("before", 2.0, 3.0), Word("after", 12.0, 13.0))
    clip = SourceClip("long", write_wav(tmp_path / "a.wav", samples), labels={"text": "before after"}, words=words)
    parts, _, _ = cut_long_clips([clip], 15.0, functools.partial(ordered_map, num_workers=1))
    assert [part.labels["text"] for part in parts] == ["before", "after"]
    assert parts[1].words == words[1:]
    assert "without its text" not in parts[0].note


def test_sound_of_another_file_begins_where_it_is_told_to(tmp_path):
    picture = write_mkv(tmp_path / "v.mkv", list(range(0, 2000, 80)))
    samples = np.zeros(2 * RATE, np.int16)
    samples[RATE:] = tone(1.0)
    clip = SourceClip("v", picture, sound=Sound(write_wav(tmp_path / "s.wav", samples), start_sec=-0.2))

    def first_heard(clip: SourceClip) -> float:
        opened, sound = open_clip(clip)
        assert opened.has_picture
        return np.flatnonzero(np.abs(media.audio_samples(sound, 60)) > 50)[0] / RATE

    assert first_heard(clip) == pytest.approx(1.2, abs=0.002)
    assert first_heard(clip.part(0.8, 2.0)) == pytest.approx(0.4, abs=0.002)
    assert clip.fingerprint() != dataclasses.replace(clip, sound=None).fingerprint()
