"""Files in parts and windows: what comes out does not depend on where the parts end, and people stay themselves."""

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import mmpretrain
from data_prep import people
from data_prep.landmarker import Faces
from data_prep.options import Options
from data_prep.people import Contents, Facts, Part, Person
from mmpretrain.predict import over_time
from mmpretrain.predict.judge import Judge
from mmpretrain.predict.over_time import OverTime, Windows, spans
from mmpretrain.predict.reading import Reading
from mmpretrain.records import Clip
from tests.data_prep.authored import tone, write_mkv

N = 25 * 11 + 7  # frames of the file
SAMPLES = np.random.default_rng(0).integers(-999, 999, 640 * N).astype(np.int16)


class Said:
    """A head of two classes whose answer is of what it is given: how bright, and how loud."""

    modalities = ("audio", "video")
    reading = Reading("light", "class", ("dark", "bright"))
    of_frames = False
    view = "face"

    def says(self, clips, num_frames, without=()):
        assert all(clip.num_frames <= num_frames for clip in clips)
        light = [np.mean(c.face) / 255 if len(c.face) and "video" not in without else 0.5 for c in clips]
        loud = [np.abs(c.audio).mean() / 1e6 if len(c.audio) and "audio" not in without else 0.0 for c in clips]
        first = np.array(light, np.float32) + np.array(loud, np.float32)
        return np.stack([1 - first, first], axis=1)


def seen(first: int, last: int, x: float, light: int, start: int, stop: int) -> Person | None:
    """A face at `x` in frames first to last of the file, as it is in the part of frames start to stop."""
    a, b = max(first, start), min(last, stop)
    if b <= a:
        return None
    boxes = np.tile(np.array([x, 0.2, x + 0.2, 0.6], np.float32), (b - a, 1))
    crops = np.full((b - a, 8, 8), light, np.uint8)
    return Person(a - start, boxes, np.ones(b - a, bool), crops, crops)


ANN, BEN = (0, N, 0.1, 50), (100, 225, 0.6, 200)


def predicted(part_sec: int, monkeypatch, windows=Windows(smoothing_sec=0), audio=SAMPLES, faces=(ANN, BEN)):  # noqa: B008
    """Ann is on the left all the time, Ben comes after 4 s for 5 s."""
    monkeypatch.setattr(over_time, "PART_SEC", part_sec)
    facts = Facts(N / 25, True, True, 100, 100, 25.0)
    found = OverTime(Said(), windows, "clip.mp4", facts)
    parts = spans(facts, windows)
    for number, (start_sec, end_sec) in enumerate(parts, start=1):
        start, stop = round(start_sec * 25), min(round(end_sec * 25), N)
        people = [seen(*face, start, stop) for face in faces]
        contents = Contents(
            stop - start, True, audio[start * 640 : stop * 640], tuple(person for person in people if person)
        )
        found.add(Part(Path("clip.mp4"), start_sec, end_sec, None, None, 5), contents, is_last=number == len(parts))
    return len(parts), found.result()


def test_parts_make_no_difference(monkeypatch):
    one, whole = predicted(60, monkeypatch)
    several, of_parts = predicted(4, monkeypatch)
    assert (one, several) == (1, 3)
    assert [person.name for person in of_parts.people] == ["person 1", "person 2"]
    for ours, theirs in zip(of_parts.people, whole.people, strict=True):
        np.testing.assert_array_equal(ours.moments.start_sec, theirs.moments.start_sec)
        np.testing.assert_allclose(ours.moments.values, theirs.moments.values)
        assert ours.first_frame == theirs.first_frame
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
    ann, ben = whole.people
    assert ann.moments.start_sec[:3].tolist() == [0, 0.48, 1]
    assert ann.moments.end_sec[-1] == N / 25
    assert (ben.moments.end_sec > 4 + 1.5).all()  # half of every window at least is his
    assert ben.moments.overall.argmax() == 1
    assert len(ben.crops) == 8
    assert {int(crop.max()) for crop in ben.crops} == {200}
    assert all(crop.base is None for crop in ben.crops)  # no view, which would keep the crops of all parts


def test_frames_are_each_said_once_by_the_window_whose_middle_is_nearest(monkeypatch):
    class OfFrames(Said):
        """Says of every frame how many frames it is from the middle of what is judged at once."""

        of_frames = True

        def says(self, clips, num_frames, without=()):
            off = [np.pad(np.abs(np.arange(c.num_frames) - (c.num_frames - 1) / 2), (0, num_frames - c.num_frames))
                   for c in clips]  # fmt: skip
            return np.stack([np.stack([x, x], -1) for x in off]) if off else np.zeros((0, num_frames, 2))

    monkeypatch.setattr(sys.modules[__name__], "Said", OfFrames)
    for part_sec in (60, 4):
        _, found = predicted(part_sec, monkeypatch, Windows())
        ann, ben = (person.moments for person in found.people)
        np.testing.assert_allclose(ann.start_sec, np.arange(N) / 25)
        np.testing.assert_allclose(ann.end_sec, np.arange(1, N + 1) / 25)
        assert ann.values[38:-38].max() <= 7, "a window begins every 12 or 13 frames"
        assert ann.values.max() <= 37
        np.testing.assert_allclose(ben.start_sec, np.arange(100, 225) / 25)


@pytest.mark.parametrize("part_sec", [60, 4])
def test_who_is_seen_for_less_than_half_a_window_is_judged_by_that(monkeypatch, part_sec):
    _, found = predicted(part_sec, monkeypatch, faces=[ANN, (98, 118, 0.6, 200)])  # a part of 4 s ends meanwhile
    _, person = found.people
    assert (person.moments.start_sec.tolist(), person.moments.end_sec.tolist()) == ([98 / 25], [118 / 25])
    assert person.moments.overall.argmax() == 1


def test_smoothing_and_contributions(monkeypatch):
    _, plain = predicted(60, monkeypatch, Windows(smoothing_sec=0, contributions=True))
    _, smooth = predicted(60, monkeypatch, Windows(smoothing_sec=1.0, contributions=True))
    alone = plain.people[1].moments.alone
    np.testing.assert_allclose(alone["video"][:, 1], 200 / 255, atol=1e-6)
    assert (alone["audio"][:, 1] > 0.5).all()
    before, after = (found.people[0].moments.values for found in (plain, smooth))
    np.testing.assert_allclose(after[5], before[4:7].mean(0), atol=1e-6)


def test_without_a_sound_and_without_a_face(monkeypatch):
    _, mute = predicted(60, monkeypatch, audio=SAMPLES[:0])
    assert {use for person in mute.people for use in person.moments.uses} == {"video"}
    found = OverTime(Said(), Windows(), "clip.wav", Facts(2.0, False, True))
    found.add(Part(Path("clip.wav"), 0, 63, None, None, 5), Contents(50, False, SAMPLES[: 640 * 50]), is_last=True)
    (voice,) = found.result().people
    assert (voice.name, voice.moments.uses, voice.moments.end_sec.tolist()) == ("voice", ("audio",), [2.0])
    nothing = OverTime(Said(), Windows(), "clip.mp4", Facts(2.0, True, True))
    nothing.add(Part(Path("clip.mp4"), 0, 63, None, None, 5), Contents(50, True), is_last=True)
    assert "no face is seen for half a second, and its sound is silence" in nothing.result().error


def test_a_classifier_says_in_batches_what_the_encoder_says_of_one_clip(encoder_folder):
    encoder, random = mmpretrain.load_encoder(encoder_folder), np.random.default_rng(1)
    judge = Judge(encoder)
    clips = []
    for frames in (10, 25, 17):
        crops = random.integers(0, 256, (frames, 32, 32)).astype(np.uint8)
        clips.append(Clip("", random.integers(-5000, 5000, 640 * frames).astype(np.int16), crops, crops))
    clips[2] = Clip("", clips[2].audio, crops[:0], crops[:0])
    found = judge.says(clips, 25)
    for clip, row in zip(clips, found, strict=True):
        given = {"audio": clip.audio} | ({"video": clip.mouth} if len(clip.mouth) else {})
        logits = encoder.outputs(**given).logits["emotion"]
        np.testing.assert_allclose(row, np.exp(logits) / np.exp(logits).sum(), atol=1e-5)
    muted = judge.says(clips, 25, without=["audio"])
    assert np.isnan(muted[2]).all()
    assert not np.isnan(muted[:2]).any()
    with pytest.raises(ValueError, match="no head of that name, but of emotion"):
        Judge(encoder, "valence")


def test_less_than_a_clip_is_refused_for_its_length():
    found = OverTime(Said(), Windows(), "clip.wav", Facts(0.1, False, True))
    found.add(Part(Path("clip.wav"), 0, 63, None, None, 5), Contents(3, False, SAMPLES[: 640 * 3]), is_last=True)
    assert found.result().error == "it is 0.12 s long; at least 0.2 s are needed"


def test_memory_does_not_grow_with_the_length_of_a_file():
    windows, minutes = Windows(), 60
    facts = Facts(60.0 * minutes, True, True, 100, 100, 25.0)
    found, frames, held = OverTime(Said(), windows, "clip.mp4", facts), 63 * 25, []
    parts = spans(facts, windows)
    assert len(parts) == minutes
    tracemalloc.start()
    for number, (start_sec, end_sec) in enumerate(parts, start=1):
        crops = np.full((frames, 64, 64), 9, np.uint8)  # 6 MB
        boxes = np.tile(np.array([0.1, 0.2, 0.3, 0.6], np.float32), (frames, 1))
        somebody = Person(0, boxes, np.ones(frames, bool), crops, crops)
        contents = Contents(frames, True, np.zeros(640 * frames, np.int16), (somebody,))
        found.add(Part(Path("clip.mp4"), start_sec, end_sec, None, None, 5), contents, is_last=number == minutes)
        del crops, somebody, contents
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.reset_peak()
    assert found.result().people[0].moments.end_sec[-1] == pytest.approx(60 * minutes + 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held[-1] - held[1] < 12e6  # boxes, probabilities and a few crops of an hour
    assert peak < 40e6  # smoothing too


def test_sound_is_heard_where_the_picture_has_ended_and_what_comes_before_the_picture_is_told(tmp_path, monkeypatch):
    nobody = Faces(np.zeros((0, 9, 2)), np.zeros((0, 0)), np.zeros(0), np.zeros((0, 256)))
    monkeypatch.setattr(people, "find_everybody", lambda frames, *_: ((nobody, count) for _, count in frames))
    sound = tone(4.0)

    def heard(name: str, stamps_ms: range, audio: np.ndarray):
        path = write_mkv(tmp_path / name, list(stamps_ms), audio)
        part = Part(path, 0.0, 60.0, Options(), Path("any.task"), 5)
        found = OverTime(Said(), Windows(window_sec=1), name, people.look_into(path))
        contents = people.read_part(part)
        found.add(part, contents, is_last=True)
        return contents, found.result()

    contents, found = heard("ends.mkv", range(0, 1000, 40), sound)
    assert (contents.num_frames, len(contents.audio)) == (100, 100 * 640)
    assert found.people[0].moments.end_sec[-1] == 4
    assert found.notes == ("where the picture has ended, or cannot be decoded, there is the sound alone",)
    contents, found = heard("begins.mkv", range(1000, 4000, 160), sound)
    assert (contents.num_frames, len(contents.audio)) == (73, 73 * 640)
    assert found.notes == (
        "the first 1.0 s of the sound, before the picture, are left out: times are from the first picture on",
    )
    contents, found = heard("alike.mkv", range(0, 3800, 160), sound)
    assert (contents.num_frames, len(contents.audio), found.notes) == (93, 93 * 640, ())
