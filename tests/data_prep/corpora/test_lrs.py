"""LRS3 and LRS2: texts and word times, long clips cut at pauses, sets, lists and what is missing of them."""

import pytest

from data_prep.sources import with_text_alone
from data_prep.timed import tracks_of
from data_prep.transcripts import cut_at_pauses, parse_text
from tests.data_prep.corpora.trees import check, clips_of, touch, write

TEXT = """Text:  AND {LG} I THINK IT'S FINE
Conf:  4

FRAME \tX \tY \tW \tH \n000412 \t0.373 \t0.254 \t0.106 \t0.188 \n
WORD START END ASDSCORE
AND 0.11 0.22 4.3
{LG} 0.30 0.50 1.0
I 8.00 8.25 4.1
THINK 8.30 9.00 4.1
IT'S 9.50 10.00 4.1
FINE 15.20 15.50 4.1
"""


def test_texts_are_parsed_by_their_marks():
    text, words, _ = parse_text(TEXT)
    assert text == "and i think it's fine"
    assert [word.text for word in words] == ["and", "i", "think", "it's", "fine"]
    assert words[1][1:] == (8.0, 8.25)
    assert parse_text("Text: HI: THERE\n")[:2] == ("hi: there", ())


def test_long_clips_are_cut_in_the_middle_of_pauses():
    words = parse_text(TEXT).words
    pieces = cut_at_pauses(words)
    assert [" ".join(word.text for word in piece.words) for piece in pieces] == ["and", "i think", "it's", "fine"]
    assert [(piece.start_sec, piece.end_sec) for piece in pieces] == [
        (0.0, 4.08), (4.08, 9.24), (9.24, 12.6), (12.6, None),
    ]  # fmt: skip
    assert len(cut_at_pauses(words[:-1])) == 1  # shorter than 15 s


@pytest.fixture
def lrs3(tmp_path):
    for name, number in (("pretrain", "00001"), ("trainval", "50001"), ("trainval", "50002"), ("test", "00001")):
        path = tmp_path / name / "-a_video_id" / f"{number}.mp4"
        touch(path)
        write(path.with_suffix(".txt"), TEXT if number != "50002" else "Text:  NO TABLE\n")
    return tmp_path


def test_lrs3_sets_ids_splits_and_words(lrs3, capsys):
    clips = clips_of("lrs3", lrs3, validation_share=0.0)
    talk = "-a_video_id"
    assert [(clip_id, clip.split) for clip_id, clip in clips.items()] == [
        *((f"pretrain/{talk}/00001_{k}", "train") for k in range(4)),
        (f"trainval/{talk}/50001", "train"), (f"trainval/{talk}/50002", "train"), (f"test/{talk}/00001", "test"),
    ]  # fmt: skip
    assert {clip.speaker for clip in clips.values()} == {"lrs3--a_video_id"}
    whole = clips[f"trainval/{talk}/50001"]
    assert whole.labels == {"text": "and i think it's fine", "language": "en"}
    assert (whole.start_sec, whole.end_sec, len(whole.words)) == (0.0, None, 5)
    piece = clips[f"pretrain/{talk}/00001_1"]
    assert piece.labels["text"] == "i think"
    track = tracks_of(piece.words, {}, piece.start_sec, 129)["words"]
    assert (track >= 0).argmax() == 98  # "i" from 8.00 s, in a piece that begins at 4.08 s
    code, said = check(capsys, "lrs3", lrs3)
    assert code == 1
    assert "MISSING: pretrain: 1 of 118,516" in said  # four pieces are of one recording
    assert "MISSING: trainval: 2 of 31,982" in said


def test_a_list_says_what_of_lrs3_is_held_out(lrs3, tmp_path):
    for line in ("trainval/-a_video_id/50002", "-a_video_id/50002.mp4"):
        listed = write(tmp_path / "valid.id", line + "\n")
        clips = clips_of("lrs3", lrs3, validation_share=1.0, validation_list=listed)
        assert [clip_id for clip_id, clip in clips.items() if clip.split == "validation"] == [
            "trainval/-a_video_id/50002"
        ]
    with pytest.raises(ValueError, match="names no clip"):
        clips_of("lrs3", lrs3, validation_share=0.0, validation_list=write(tmp_path / "empty.id", "\n"))


@pytest.fixture
def lrs2(tmp_path):
    clips = ("main/6001854301505575951/00005", "main/6001854301505575951/00006", "main/7/00001", "main/8/00001",
             "pretrain/6001854301505575951/00005")  # fmt: skip
    for clip in clips:
        path = tmp_path / "mvlrs_v1" / f"{clip}.mp4"
        touch(path)
        write(path.with_suffix(".txt"), TEXT)
    lists = {
        "pretrain": "6001854301505575951/00005\n",
        "train": "6001854301505575951/00005\n",
        "val": "6001854301505575951/00006\n9/00001\n",
        "test": "7/00001 NF\n",
    }
    for name, lines in lists.items():
        write(tmp_path / f"{name}.txt", lines)
    return tmp_path


def test_lrs2_splits_come_of_its_lists(lrs2, capsys):
    clips = clips_of("lrs2", lrs2)
    programme = "6001854301505575951"
    listed = {clip_id: clip for clip_id, clip in clips.items() if clip_id != "main/8/00001"}
    assert [(clip_id, clip.split, clip.missing) for clip_id, clip in listed.items()] == [
        (f"main/{programme}/00005", "train", False), (f"main/{programme}/00006", "validation", False),
        ("main/7/00001", "test", False), ("main/9/00001", "validation", True),
        *((f"pretrain/{programme}/00005_{k}", "train", False) for k in range(4)),
    ]  # fmt: skip
    assert "is in none of the lists" in clips["main/8/00001"].refused
    assert clips["main/7/00001"].speaker == "lrs2-7"
    assert clips["main/7/00001"].words[0].text == "and"
    code, said = check(capsys, "lrs2", lrs2)
    assert code == 1
    assert "MISSING: val: 1 of 1,082 recordings; 1 are listed and not here: main/9/00001" in said
    with pytest.raises(FileNotFoundError, match="mvlrs_v1/main"):
        clips_of("lrs2", lrs2 / "mvlrs_v1" / "main" / "7")


def test_no_text_alone_of_a_clip_that_may_be_of_the_test(lrs2):
    for file in lrs2.rglob("*.mp4"):
        file.unlink()
    refused = {clip_id for clip_id, clip in clips_of("lrs2", lrs2).items() if with_text_alone(clip).refused}
    assert refused == {"main/8/00001", "main/9/00001"}, "in no list; without a text"


def test_the_real_clips_of_lrs3(real_data):
    clips = clips_of("lrs3", real_data / "av" / "lrs3", validation_share=0.0)
    assert sorted(clip.labels["text"] for clip in clips.values()) == ["the net outcome", "we really don't walk anymore"]
    assert {clip.split for clip in clips.values()} == {"test"}
