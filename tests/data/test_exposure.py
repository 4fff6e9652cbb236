"""What was seen in training: clips by content, speakers by corpus, and how much of a fold that is."""

import dataclasses

import numpy as np
import pytest

from mmpretrain.config import CorpusConfig
from mmpretrain.data.clips import open_clips
from mmpretrain.data.exposure import Exposure, TrainingData
from mmpretrain.files import DamagedError
from tests.corpus_fixture import make_clip, write_corpus


def noise(clip_id, seed, **fields):
    """A clip of its own sound for each seed."""
    clip = make_clip(clip_id, 6, size=8, video=False, labels={"emotion": ("happy", "sad")[seed % 2]}, **fields)
    sound = np.random.default_rng(seed).integers(-9000, 9000, len(clip.audio)).astype(np.int16)
    return dataclasses.replace(clip, audio=sound)


def table_of(*folders):
    return open_clips([CorpusConfig(str(folder)) for folder in folders])


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """first: speakers a, b, c, d of three clips each. copies: a's and c's first clips under other names of everything.
    others: other clips of people called a and z; unnamed: two clips without a speaker, one of them b's first."""
    root = tmp_path_factory.mktemp("corpora")
    made = {
        "first": [noise(f"{who}{i}", 10 * k + i, speaker=who) for k, who in enumerate("abcd") for i in range(3)],
        "copies": [noise("x", 0, speaker="p"), noise("y", 20, speaker="q")],
        "others": [noise(f"{who}{i}", 100 + 10 * k + i, speaker=who) for k, who in enumerate("az") for i in range(2)],
        "unnamed": [noise("u", 10), noise("v", 200)],
    }
    return {name: write_corpus(root / name, clips, 8, 24) for name, clips in made.items()}


@pytest.fixture(scope="module")
def first(corpora):
    return table_of(corpora["first"])


def rows_of(table, *speakers):
    return np.flatnonzero([speaker in speakers for speaker in table.speakers])


def exposure(seen, table, *speakers):
    return str(seen.exposure(table, rows_of(table, *speakers), "emotion"))


def test_nothing_is_seen_of_other_speakers_and_everything_of_the_same(first):
    seen = TrainingData.of(first.select(rows_of(first, "a", "b")))
    assert exposure(seen, first, "c", "d") == "no"
    assert exposure(seen, first, "b", "c") == "3 of 6 clips, 1 of 2 speakers"
    assert exposure(TrainingData(), first, "a") == "no"


def test_a_speaker_is_seen_in_other_clips_than_the_tested_ones(first):
    rows = rows_of(first, "a")
    seen = TrainingData.of(first.select(rows[:1]))
    assert str(seen.exposure(first, rows[1:], "emotion")) == "0 of 2 clips, 1 of 1 speakers"


def test_a_copy_is_known_again_in_another_corpus_under_other_names(corpora, first):
    seen = TrainingData.of(table_of(corpora["copies"]))
    assert exposure(seen, first, "a", "b", "c") == "2 of 9 clips, 2 of 3 speakers"
    both = table_of(corpora["others"], corpora["first"])  # ids and places differ, contents do not
    rows = np.flatnonzero(["first/" in clip_id for clip_id in both.clip_ids])
    assert str(seen.exposure(both, rows, "emotion")) == "2 of 12 clips, 2 of 4 speakers"


def test_people_of_the_same_name_in_another_corpus_are_told_apart_and_named(corpora, first):
    seen = TrainingData.of(table_of(corpora["others"]))
    assert exposure(seen, first, "a", "b") == "no; 1 speakers have namesakes in other corpora"


def test_clips_that_name_no_speaker_count_as_clips(corpora):
    table = table_of(corpora["unnamed"])
    everything = np.arange(2)
    assert str(TrainingData().exposure(table, everything, "emotion")) == "no; 2 clips name no speaker"
    seen = TrainingData.of(table_of(corpora["first"]))
    assert str(seen.exposure(table, everything, "emotion")) == (
        "1 of 2 clips, 0 of 0 speakers; 2 clips name no speaker"
    )


def test_labels_count_by_their_column(first):
    known = np.arange(len(first)) % 3 == 0
    seen = TrainingData.of(first, {"emotion": known, "mood": ~known})
    found = seen.exposure(first, np.arange(len(first)), "emotion")
    assert found.clips_seen_labelled == known.sum()
    assert str(found).endswith(f"; {known.sum()} clips with their label")
    assert seen.exposure(first, np.arange(len(first)), "accent").clips_seen_labelled == 0


def test_what_is_not_known_is_called_so(first):
    seen = TrainingData(unknown=("base.pt",))
    assert exposure(seen, first, "a") == "unknown (base.pt)"
    seen |= TrainingData.of(first.select(rows_of(first, "b")))
    assert exposure(seen, first, "a", "b") == "unknown, at least 3 of 6 clips, 1 of 2 speakers (base.pt)"
    assert seen.describe().startswith("unknown (base.pt), and 3 clips; speakers: 1 of first")


def test_folds_add_up(first):
    seen = TrainingData.of(first.select(rows_of(first, "a", "c")))
    folds = [seen.exposure(first, rows_of(first, *pair), "emotion") for pair in ("ab", "cd")]
    assert str(Exposure.summed(folds)) == "6 of 12 clips, 2 of 4 speakers"


def test_ancestors_are_joined_in_any_order_and_each_clip_counts_once(corpora, first):
    a, b = rows_of(first, "a", "b"), rows_of(first, "b", "c")
    parts = [TrainingData.of(first.select(a), {"emotion": np.arange(6) < 2}), TrainingData.of(first.select(b)),
             TrainingData.of(table_of(corpora["others"])), TrainingData(unknown=("x.pt",))]  # fmt: skip
    joined = [parts[0] | parts[1] | parts[2] | parts[3], parts[3] | (parts[2] | (parts[1] | parts[0]))]
    assert joined[0].summary() == joined[1].summary() == {
        "clips": 9 + 4, "speakers": {"first": 3, "others": 2}, "labelled_clips": {"emotion": 2}, "unknown": ["x.pt"],
    }  # fmt: skip
    np.testing.assert_array_equal(joined[0].clips, joined[1].clips)


def test_what_may_not_be_trained_on_is_found_by_content_and_by_speaker(corpora, first):
    test = TrainingData.of(first.select(rows_of(first, "a")))
    both = table_of(corpora["first"], corpora["copies"], corpora["others"])
    found = set(both.select(test.shares_with(both)).clip_ids)
    assert found == {"first/a0", "first/a1", "first/a2", "copies/x"}
    one_clip = TrainingData.of(first.select(rows_of(first, "a")[:1]))
    assert one_clip.shares_with(first).sum() == 3, "the speaker's other clips as well"


def test_it_comes_back_from_its_file_and_damage_is_noticed(first, tmp_path):
    seen = TrainingData.of(first, {"emotion": np.arange(len(first)) < 5}) | TrainingData(unknown=("x.pt",))
    seen.write(tmp_path / "data.npz")
    back = TrainingData.read(tmp_path / "data.npz")
    assert back.summary() == seen.summary()
    assert back.speakers == seen.speakers
    np.testing.assert_array_equal(back.clips, seen.clips)
    np.testing.assert_array_equal(back.labelled["emotion"], seen.labelled["emotion"])
    whole = (tmp_path / "data.npz").read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"{}"):
        (tmp_path / "data.npz").write_bytes(content)
        with pytest.raises(DamagedError, match=r"data\.npz is damaged"):
            TrainingData.read(tmp_path / "data.npz")


def test_a_clip_takes_eight_bytes(tmp_path):
    clips = np.unique(np.random.default_rng(0).integers(0, 2**64, 100_000, np.uint64))
    TrainingData(clips).write(tmp_path / "data.npz")
    assert (tmp_path / "data.npz").stat().st_size < 8 * len(clips) + 2000
