"""MELD in the layout of its archives: rows of three tables, whose numbers start anew in every split."""

from collections import Counter

import numpy as np
import pytest

from data_prep.__main__ import main
from data_prep.corpora import meld
from data_prep.sources import with_text_alone
from mmpretrain.config import CorpusConfig
from mmpretrain.data.clips import open_clips
from mmpretrain.evaluation.protocols import get_protocol
from mmpretrain.index import Index
from mmpretrain.records import IndexRow
from tests.data_prep.corpora.trees import check, clips_of, corpus_of, touch, write

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
ROWS = {
    "train": '1,"Oh, I\u2019m \u201cfine\u201d\x85 so",Chandler,joy,positive,0,0,8,21,"00:16:16,059","00:16:21,731"\n'
    '2,What?,Monica and Ross,surprise,negative,125,3,8,21,"0:16:21,940","0:16:23,442"\n',
    "dev": '1,No.,Chandler,fear,negative,0,0,4,7,"00:20:57,256","00:21:00,049"\n',
    "test": '1,Yes.,All,neutral,neutral,0,0,3,19,"00:14:38,127","00:14:40,378"\n'
    '2,So.,Joey,anger,negative,38,4,3,19,"00:14:38,127","00:19:43,067"\n',
}
FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}


@pytest.fixture
def tree(tmp_path):
    for split, rows in ROWS.items():
        write(tmp_path / f"{split}_sent_emo.csv", HEADER + rows)
        touch(tmp_path / FOLDERS[split] / "dia0_utt0.mp4")
    test = tmp_path / FOLDERS["test"]
    touch(test / "dia38_utt4.mp4", test / "._dia0_utt0.mp4", test / "final_videos_testdia0_utt0.mp4")
    return tmp_path


def test_every_row_is_a_clip_of_its_own_split(tree):
    clips = clips_of("meld", tree)
    assert {clip_id: (clip.split, clip.path.parent.name) for clip_id, clip in clips.items()} == {
        "train/dia0_utt0": ("train", "train_splits"),
        "train/dia125_utt3": ("train", "train_splits"),
        "dev/dia0_utt0": ("validation", "dev_splits_complete"),
        "test/dia0_utt0": ("test", "output_repeated_splits_test"),
        "test/dia38_utt4": ("test", "output_repeated_splits_test"),
    }
    first = clips["train/dia0_utt0"]
    assert first.speaker == "meld-Chandler"
    assert first.labels == {
        "emotion": "happy", "sentiment": "positive", "text": "Oh, I'm \"fine\"... so",
        "dialogue": "train/dia0", "turn": 0.0,
    }  # fmt: skip
    assert first.info["emotion"] == "joy"
    assert (first.info["season"], first.info["episode_start"]) == (8, "00:16:16,059")


def test_broken_and_overlong_clips_are_left_out_and_not_missing(tree, capsys):
    clips = clips_of("meld", tree)
    assert clips["train/dia125_utt3"].refused == "known to be broken or missing in every copy"
    assert clips["test/dia38_utt4"].refused == "is 305 s long by its times, which is more than an utterance"
    assert not any(clip.missing for clip in clips.values())
    code, said = check(capsys, "meld", tree)
    assert code == 1
    assert "MISSING: train: 2 of 9,989 recordings; 9,987 more are not here and in no list" in said
    assert (
        "no clip is made of 1 files of sound or picture (output_repeated_splits_test/final_videos_testdia0_utt0.mp4)"
        in said
    )


def test_rows_without_a_film_are_kept_for_their_text_where_that_is_asked_for(tree, tmp_path, capsys):
    for file in tree.glob("*/*.mp4"):
        file.unlink()
    words = ["meld", f"--source={tree}", f"--output={tmp_path / 'out'}", "--text-alone", "--workers=1"]
    assert main(words) == 0
    assert "kept 5 of 5 clips, 0.0 min\n  5 text only" in capsys.readouterr().out
    table = open_clips((CorpusConfig(str(tmp_path / "out")),))
    clips = {table.clip_ids[i]: table.load(i) for i in range(len(table))}
    assert clips["test/dia38_utt4"].labels["text"] == "So."
    assert all(clip.num_frames == 0 and not clip.tracks for clip in clips.values())
    assert len(set(table.content_hashes.tolist())) == 5, "no two are the same recording"
    with pytest.raises(ValueError, match=r"none of the 5 clips of .* has audio; change model\.modalities"):
        table.require(("audio",))


def test_a_row_that_is_there_twice_is_no_second_text(tree):
    for file in tree.glob("*/*.mp4"):
        file.unlink()
    table = tree / "dev_sent_emo.csv"
    table.write_text(table.read_text() + table.read_text().splitlines()[-1] + "\n")
    again = with_text_alone(clips_of("meld", tree)["dev/dia0_utt0-2"])
    assert again.refused == "is listed twice"


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train_sent_emo\.csv"):
        meld.read(tmp_path)


def test_the_real_tables_have_the_published_counts(real_data):
    clips = clips_of("meld", real_data / "text" / "meld").values()
    assert Counter(clip.official.part for clip in clips) == corpus_of("meld").official
    emotions = {split: Counter(clip.labels["emotion"] for clip in clips if clip.split == split) for split in FOLDERS}
    assert emotions["train"] == {
        "neutral": 4710, "happy": 1743, "surprised": 1205, "angry": 1109, "sad": 683, "disgust": 271, "fearful": 268,
    }  # fmt: skip
    assert emotions["test"]["fearful"] == 50
    assert {clip.clip_id for clip in clips if not clip.missing} == {"train/dia125_utt3", "dev/dia110_utt7"}
    assert len({clip.speaker for clip in clips if clip.split == "train"}) == 260
    assert all(clip.labels["text"].isprintable() for clip in clips)


def test_the_official_splits_have_a_protocol_though_people_are_in_all_of_them():
    rows = [
        IndexRow(f"c{i}", 10, ("audio",), split, "meld-Joey", {"emotion": "sad"}, i, i)
        for i, split in enumerate(("train", "validation", "test"))
    ]
    index = Index.of(rows, {"emotion": "class"})
    fold = get_protocol("meld-official").fold(index, 1, column="emotion")
    assert [part.tolist() for part in (fold.train, fold.validation, fold.test)] == [[0], [1], [2]]
    assert isinstance(fold.train, np.ndarray)
    with pytest.raises(ValueError, match="speaker meld-Joey is both in"):
        get_protocol("official").fold(index, 1, column="emotion")
