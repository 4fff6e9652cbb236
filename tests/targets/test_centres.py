"""Centres of speakers: means of their clips, the same however these were shared out, and nothing else believed."""

import numpy as np
import pytest

from mmpretrain.files import DamagedError
from mmpretrain.targets.centres import (
    ONE,
    CentreProgress,
    Centres,
    ClipSums,
    centres_of,
    load_centres,
    save_centres,
)

CLIPS, SPEAKERS, DIM = 40, 3, 2


@pytest.fixture(scope="module")
def of_clips():
    random = np.random.default_rng(0)
    values = [random.normal(size=(random.integers(5, 60), DIM)) * 10 + 3 for _ in range(CLIPS)]
    speakers = random.integers(0, SPEAKERS, CLIPS)
    return [
        (int(speaker), x, ClipSums(x.sum(0), np.full(DIM, float(len(x)))))
        for speaker, x in zip(speakers, values, strict=True)
    ]


def summed(folder, of_clips, rows) -> CentreProgress:
    progress = CentreProgress(folder, "f1", num_clips=CLIPS)
    for row in rows:
        speaker, _, sums = of_clips[row]
        progress.add(row, speaker, sums)
    progress.flush()
    return progress


def test_centres_are_means_over_frames_and_equal_however_clips_are_shared_and_interrupted(tmp_path, of_clips):
    alone = summed(tmp_path / "alone", of_clips, range(CLIPS))
    total = alone.total(alone.written, SPEAKERS, DIM)
    centres, lacking = centres_of(total, np.zeros(DIM))
    assert lacking == 0
    for speaker in range(SPEAKERS):
        frames = np.concatenate([x for of_clip, x, _ in of_clips if of_clip == speaker])
        np.testing.assert_allclose(centres[speaker], frames.mean(0), atol=1e-5)

    for first in (0, 1):  # two processes, each stopped half-way
        summed(tmp_path / "shared", of_clips, range(first, CLIPS // 2, 2))
    again = CentreProgress(tmp_path / "shared", "f1", num_clips=CLIPS)
    parts = again.find()
    assert np.flatnonzero(~again.done).tolist() == list(range(CLIPS // 2, CLIPS))
    rest = summed(tmp_path / "shared", of_clips, range(CLIPS - 1, CLIPS // 2 - 1, -1))
    np.testing.assert_array_equal(again.total([*parts, *rest.written], SPEAKERS, DIM), total)


def test_a_part_that_was_changed_is_summed_again(tmp_path, of_clips, capsys):
    (name,) = summed(tmp_path, of_clips, range(10)).written
    file = tmp_path / "f1" / name
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    again = CentreProgress(tmp_path, "f1", num_clips=CLIPS)
    assert again.find() == []
    assert not again.done.any()
    assert "is damaged" in capsys.readouterr().err
    assert CentreProgress(tmp_path, "f2", num_clips=CLIPS).find() == [], "of other clips or speakers"


def test_where_a_speaker_has_under_a_second_the_mean_of_all_stands():
    weights = np.array([[100, 24], [300, 50], [0, 0]])
    total = np.stack([weights * [2, 8], weights], axis=1) * ONE
    total[1, 0] = total[1, 1] * 6
    centres, lacking = centres_of(total, np.array([7.0, 7.0]))
    mean = [(100 * 2 + 300 * 6) / 400, (24 * 8 + 50 * 6) / 74]
    np.testing.assert_allclose(centres, [[2, mean[1]], [6, 6], mean], rtol=1e-6)
    assert lacking == 2
    nobody, _ = centres_of(np.zeros((2, 2, 1), np.int64), np.array([7.0]))
    assert nobody.tolist() == [[7], [7]], "of what nobody has, the typical value"


def test_features_that_are_not_finite_are_refused(tmp_path):
    progress = CentreProgress(tmp_path, "f1", num_clips=1)
    with pytest.raises(ValueError, match="not finite"):
        progress.add(0, 0, ClipSums(np.array([np.nan]), np.ones(1)))


def test_centres_come_back_as_they_were_saved_and_say_whose_they_are(tmp_path):
    saved = Centres((("c", "anna"), ("c", "bert")), np.arange(4, dtype=np.float32).reshape(2, 2), "prosody-0123")
    save_centres(tmp_path / "centres", saved)
    loaded = load_centres(tmp_path / "centres")
    assert (loaded.speakers, loaded.made_of, loaded.digest) == (saved.speakers, saved.made_of, saved.digest)
    np.testing.assert_array_equal(loaded.centres_SC, saved.centres_SC)
    other = Centres((("c", "anna"), ("d", "bert")), saved.centres_SC, saved.made_of)
    assert other.digest != saved.digest
    file = tmp_path / "centres" / "centres.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(DamagedError, match=r"centres\.npz"):
        load_centres(tmp_path / "centres")
