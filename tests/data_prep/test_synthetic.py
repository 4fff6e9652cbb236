"""The embedded corpus: what it promises to those who train and measure on it."""

import collections
import itertools

import numpy as np
import pytest

from data_prep import shards
from data_prep.corpora import synthetic
from data_prep.options import Options
from data_prep.processing import Task
from data_prep.synthesis import language
from data_prep.synthesis.draws import stream
from mmpretrain import records

SEED = 3
MOUTH_RIGHT, MOUTH_LEFT, UPPER_LIP, LOWER_LIP = range(5, 9)


@pytest.fixture(scope="module")
def specs():
    return synthetic.clip_specs(480, SEED)


@pytest.fixture(scope="module")
def clips(specs):
    """The first 90: every speaker three times."""
    return [synthetic.render(spec, SEED) for spec in specs[:90]]


def test_a_clip_is_the_same_bit_for_bit_whatever_else_is_made(clips):
    spec = synthetic.clip_specs(20, SEED)[17]
    again = synthetic.render(spec, SEED)
    assert spec.clip_id == clips[17].clip_id
    for name in ("frames", "points", "audio", "units"):
        np.testing.assert_array_equal(getattr(again, name), getattr(clips[17], name))
    assert again.info == clips[17].info


def test_another_seed_is_another_corpus(clips):
    other = synthetic.render(synthetic.clip_specs(4, SEED + 1)[0], SEED + 1)
    assert other.clip_id != clips[0].clip_id
    assert other.audio.shape != clips[0].audio.shape or np.any(other.audio != clips[0].audio)


def test_shapes_and_types_agree_on_the_frame_grid(clips):
    for clip in clips:
        num_frames = len(clip.units)
        assert 25 <= num_frames <= 100
        assert clip.frames.shape == (num_frames, 128, 128)
        assert clip.frames.dtype == np.uint8
        assert clip.points.shape == (num_frames, 9, 2)
        assert clip.points.dtype == np.float32
        assert clip.audio.shape == (num_frames * records.SAMPLES_PER_FRAME,)
        assert clip.audio.dtype == np.int16
        assert clip.units.dtype == np.int32
        assert clip.emotion in records.EMOTIONS
        assert clip.split in records.SPLITS


def test_speakers_belong_to_one_split_and_speak_every_emotion(specs):
    splits, emotions = collections.defaultdict(set), collections.defaultdict(collections.Counter)
    for spec in specs:
        splits[spec.speaker].add(spec.split)
        emotions[spec.speaker][spec.emotion] += 1
    assert all(len(names) == 1 for names in splits.values())
    assert collections.Counter(next(iter(names)) for names in splits.values()) == {
        "train": 40,
        "validation": 8,
        "test": 12,
    }
    assert all(set(counts.values()) == {2} and len(counts) == 4 for counts in emotions.values())


def test_every_split_has_every_emotion_and_unit(clips):
    for split in records.SPLITS:
        of_split = [clip for clip in clips if clip.split == split]
        assert {clip.emotion for clip in of_split[:30]} == set(synthetic.EMOTIONS)
        assert set(np.concatenate([clip.units for clip in of_split])) == set(range(len(synthetic.UNITS)))


def test_four_clips_fill_every_split_and_fewer_are_refused():
    assert {spec.split for spec in synthetic.clip_specs(4, SEED)} == set(records.SPLITS)
    with pytest.raises(ValueError, match="num_clips=3"):
        synthetic.clip_specs(3, SEED)


def test_nothing_can_be_read_from_ids_or_words(specs):
    assert len({spec.clip_id for spec in specs}) == len(specs)
    for spec in specs:
        assert int(spec.clip_id, 16) >= 0
        assert len(spec.clip_id) == 12
    # Each is independent of the emotion: the ids' order carries nothing, and every emotion uses nearly all words.
    by_id = [spec.emotion for spec in sorted(specs, key=lambda spec: spec.clip_id)]
    repeats = np.mean([a == b for a, b in itertools.pairwise(by_id)])
    assert 0.13 < repeats < 0.37
    for emotion in synthetic.EMOTIONS:
        words = {word for spec in specs if spec.emotion == emotion for word in spec.words}
        assert len(words) > 0.9 * len(language.LEXICON)


def test_units_follow_the_words(clips):
    for clip in clips[:20]:
        spoken = [synthetic.UNITS[unit] for unit in clip.units]
        runs = [unit for unit, before in zip(spoken, ["", *spoken], strict=False) if unit != before]
        assert runs[0] == runs[-1] == "_"
        # Every unit lasts more than a frame, so that none is skipped; neighbours that are equal make one run.
        letters = [unit for unit in runs if unit != "_"]
        wanted = clip.text.replace(" ", "")
        merged = [letter for letter, before in zip(wanted, " " + wanted, strict=False) if letter != before]
        paused = len(letters) - len(merged)  # equal neighbours with a pause between them
        assert 0 <= paused <= len(wanted) - len(merged)


def test_words_predict_the_next_word():
    followers = language.FOLLOW_PROBS
    np.testing.assert_allclose(followers.sum(axis=1), 1.0)
    entropy_bits = -np.sum(followers * np.log2(np.maximum(followers, 1e-12)), axis=1).mean()
    assert 2.0 < entropy_bits < 0.9 * np.log2(len(language.LEXICON))


def test_every_unit_lasts_60_to_200_ms():
    line = language.time_sentence(language.LEXICON[:5], 1.0, stream("test"))
    edges = np.flatnonzero(np.diff(line.unit_K, prepend=-1, append=-1))
    seconds = np.diff(edges)[1:-1] / language.CONTROL_HZ
    assert seconds.min() > 0.045
    assert seconds.max() < 0.215
    np.testing.assert_array_equal(line.units_T, line.unit_K[2::4])
    assert len(line.units_T) == line.num_frames


def test_points_lie_inside_the_picture_in_anatomical_order(clips):
    for clip in clips:
        assert clip.points.min() > 4
        assert clip.points.max() < 124
        x, y = clip.points.mean(axis=0).T
        assert np.all(np.diff(x[:4]) > 0)
        assert y[:4].max() < y[4] < y[UPPER_LIP] < y[LOWER_LIP]
        assert x[MOUTH_RIGHT] < x[4] < x[MOUTH_LEFT]


def test_an_open_mouth_is_dark_between_the_lips_and_eyes_have_dark_irises(clips):
    for clip in clips[:30]:
        gap = clip.points[:, LOWER_LIP, 1] - clip.points[:, UPPER_LIP, 1]
        widest = int(np.argmax(gap))
        frame, points = clip.frames[widest].astype(float), clip.points[widest]
        cheek = _patch(frame, (points[1] + points[MOUTH_RIGHT]) / 2)
        below_middle = 0.4 * points[UPPER_LIP] + 0.6 * points[LOWER_LIP]
        assert _patch(frame, below_middle) < 0.75 * cheek
        open_eyes = np.median(clip.frames[::5].astype(float), axis=0)  # blinks are short
        still = np.median(clip.points, axis=0)
        eye_row = (still[0] + still[1]) / 2
        assert _patch(open_eyes, eye_row - (0, 1)) < 0.95 * cheek


def _patch(frame, point):
    x, y = np.round(point).astype(int)
    return frame[y - 1 : y + 2, x - 1 : x + 2].mean()


def test_the_mouth_opens_on_open_vowels_and_closes_on_bilabials(clips):
    openings = collections.defaultdict(list)
    dark, opening = [], []
    for clip in clips:
        gaps = np.linalg.norm(clip.points[:, LOWER_LIP] - clip.points[:, UPPER_LIP], axis=1)
        for unit, gap in zip(clip.units, gaps, strict=True):
            openings[synthetic.UNITS[unit]].append(gap)
        middle = clip.points[:, MOUTH_RIGHT:].mean(axis=1)
        patches = np.stack(
            [
                f[int(y) - 8 : int(y) + 13, int(x) - 8 : int(x) + 9]
                for f, (x, y) in zip(clip.frames, middle, strict=True)
            ]
        )
        share = (patches < 0.6 * np.median(patches)).mean(axis=(1, 2))
        dark.append(share - share.mean())
        opening.append(gaps - gaps.mean())
    mean = {unit: np.mean(gaps) for unit, gaps in openings.items()}
    assert mean["a"] > 1.5 * max(mean["m"], mean["p"], mean["b"])
    assert mean["a"] > mean["e"] > mean["m"]
    # And it is in the pixels, not only in the points.
    assert np.corrcoef(np.concatenate(dark), np.concatenate(opening))[0, 1] > 0.6


def test_vowels_are_louder_than_silence_and_sibilants_are_bright(clips):
    energy, bright = collections.defaultdict(list), collections.defaultdict(list)
    for clip in clips:
        power = np.abs(np.fft.rfft(clip.audio.reshape(len(clip.units), -1) / 32768.0)) ** 2  # bins of 25 Hz
        for unit, spectrum in zip(clip.units, power, strict=True):
            energy[synthetic.UNITS[unit]].append(np.log(spectrum.sum()))
            bright[synthetic.UNITS[unit]].append(np.log(spectrum[120:].sum() / spectrum[:120].sum()))
    assert np.mean(energy["a"]) > np.mean(energy["_"]) + 1.0
    assert np.mean(bright["s"]) > np.mean(bright["a"]) + 1.0


def test_corners_of_the_mouth_and_tempo_follow_the_emotion(clips):
    lift, frames_a_unit = collections.defaultdict(list), collections.defaultdict(list)
    for clip in clips:
        y = clip.points[:, :, 1].mean(axis=0)
        lift[clip.emotion].append((y[UPPER_LIP] + y[LOWER_LIP] - y[MOUTH_RIGHT] - y[MOUTH_LEFT]) / 2)
        frames_a_unit[clip.emotion].append(np.count_nonzero(clip.units != language.SILENCE) / len(clip.text))
    assert np.mean(lift["happy"]) > np.mean(lift["neutral"]) + 1.0 > np.mean(lift["sad"]) + 2.0
    assert np.mean(frames_a_unit["sad"]) > 1.1 * np.mean(frames_a_unit["angry"])
    # The classes overlap: no threshold on the corners tells the smiles.
    assert min(lift["happy"]) < max(lift["neutral"])


@pytest.mark.parametrize("drawn", [shards.MANY_DRAWN - 1, shards.MANY_DRAWN])
def test_many_clips_are_drawn_by_worker_processes(drawn):
    tasks, given = [Task(clip, "", 1, 1, Options()) for clip in synthetic.read(drawn, SEED)], []
    shards.shards_here(
        tasks, [drawn], {}, lambda function, items, **_: given.extend(items) or iter(()), lambda _: 1.0, lambda: None
    )
    assert given == (tasks if drawn == shards.MANY_DRAWN else [])
