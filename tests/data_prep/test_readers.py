"""Corpus readers: which clips they see, with which labels and splits. Files need not decode for that."""

from pathlib import Path

import pytest

from data_prep.check import of_no_clip
from data_prep.corpora import folder, lrs3, ravdess
from data_prep.sources import hashed_split, standard_emotion
from mmpretrain.records import EMOTIONS


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def read_folder(source, manifest=None, *, validation_share=0.05, split_by="clip"):
    return folder.read(source, manifest, validation_share=validation_share, split_by=split_by)


def test_a_folder_is_read_recursively_with_unique_ids(tmp_path):
    touch(*(tmp_path / name for name in ("b.mp4", "a/b.mp4", "a/b.wav", "a/notes.txt", "a/._b.mp4", "a/c.MPG")))
    clips = read_folder(tmp_path)
    assert [clip.clip_id for clip in clips] == ["a/b", "a/b-2", "a/c", "b"]
    assert clips[1].path.name == "b.wav"
    assert "was taken" in clips[1].note


def test_a_manifest_finds_its_files_from_three_places(tmp_path):
    source = tmp_path / "data" / "av"
    touch(source / "x" / "one.mp4", source / "lists" / "two.mp4", source / "three.mp4", source / "unnamed.mp4")
    manifest = source / "lists" / "m.csv"
    # The last one is meant from the folder above the manifest's.
    manifest.write_text(
        "path,speaker\nx/one.mp4,a\ntwo.mp4,b\nav/../three.mp4,c\nlists/../three.mp4,c\nnowhere.mp4,d\n"
    )
    clips = read_folder(source, manifest)
    assert [bool(clip.refused) for clip in clips] == [False, False, True, False, True]
    assert clips[0].clip_id == "x/one"
    assert clips[-1].refused == "the file does not exist"
    assert list(of_no_clip(clips, source)) == ["no clip is made of 1 files of sound or picture (unnamed.mp4)"]
    above = tmp_path / "data" / "av" / "m.csv"
    above.write_text("path\nav/x/one.mp4\n")
    assert read_folder(source, above)[0].clip_id == "x/one"


def test_a_manifest_labels_and_cuts(tmp_path):
    touch(tmp_path / "a.mp4")
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "\ufeffpath,clip_id,speaker,text,emotion,split,start_sec,end_sec,mood\n"
        'a.mp4,one,s1,"well, hi",Anger,dev,1.5,2.5,grim\n'
        "a.mp4,two,s1,,puzzled,dev,,,\n"
        "a.mp4,three,s1,,,test,3,2,\n"
        "a.mp4,four,s1,,,train,soon,,\n",
        encoding="utf-8",
    )
    one, two, three, four = read_folder(tmp_path, manifest)
    assert (one.clip_id, one.speaker, one.split) == ("one", "s1", "validation")
    assert one.labels == {"text": "well, hi", "emotion": "angry"}
    assert (one.start_sec, one.end_sec, one.info) == (1.5, 2.5, {"mood": "grim"})
    assert two.labels["emotion"] == ""
    assert two.info == {"emotion": "puzzled"}
    assert "puzzled" in two.note
    assert two.split == "validation"
    assert "is not a part of a file" in three.refused
    assert "is not a number" in four.refused


@pytest.mark.parametrize(
    ("content", "message"), [("file,speaker\na.mp4,x\n", "no column `path`"), ("", "no column `path`"), (None, "exist")]
)
def test_a_manifest_that_cannot_be_used_says_why(tmp_path, content, message):
    manifest = tmp_path / "m.csv"
    if content is not None:
        manifest.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_folder(tmp_path, manifest)


def test_splits_are_drawn_by_clip_or_by_speaker(tmp_path):
    touch(*(tmp_path / f"{k:03d}.mp4" for k in range(200)))
    clips = read_folder(tmp_path, validation_share=0.2)
    assert 20 < sum(clip.split == "validation" for clip in clips) < 60
    assert clips == read_folder(tmp_path, validation_share=0.2)
    assert {clip.split for clip in read_folder(tmp_path, validation_share=0.0)} == {"train"}
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,speaker\n" + "".join(f"{k:03d}.mp4,s{k % 20}\n" for k in range(200)))
    splits: dict[str, set[str]] = {}
    for clip in read_folder(tmp_path, manifest, validation_share=0.3, split_by="speaker"):
        splits.setdefault(clip.speaker, set()).add(clip.split)
    assert all(len(of_speaker) == 1 for of_speaker in splits.values())
    assert len(set.union(*splits.values())) == 2


def test_emotion_words_of_other_corpora_are_known():
    words = {"joy": "happy", "Anger": "angry", "ANG": "angry", "fear": "fearful", "disgusted": "disgust"}
    words |= {"surprise": "surprised", "sadness": "sad", "exc": "excited", "fru": "frustrated", "": ""}
    assert {word: standard_emotion(word) for word in words} == words
    assert all(standard_emotion(name) == name for name in EMOTIONS)
    assert standard_emotion("wistful") is None


def test_a_source_that_is_no_folder_is_named(tmp_path):
    for read in (
        read_folder,
        ravdess.read,
        lambda source: lrs3.read(source, validation_share=0.0),
    ):
        with pytest.raises(FileNotFoundError, match="--source"):
            read(tmp_path / "nowhere")


def test_hashed_split_is_a_property_of_the_key():
    keys = [f"clip{k}" for k in range(4000)]
    share = sum(hashed_split(key, 0.1) == "validation" for key in keys) / len(keys)
    assert share == pytest.approx(0.1, abs=0.02)
    assert all(hashed_split(key, 0.2) == "validation" for key in keys if hashed_split(key, 0.1) == "validation")


def test_an_id_that_is_given_is_not_moved_by_numbers_of_others(tmp_path):
    touch(*(tmp_path / f"{name}.wav" for name in "abcd"))
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,clip_id\na.wav,dup\nb.wav,dup\nc.wav,dup-2\nd.wav,dup\n")
    clips = read_folder(tmp_path, manifest)
    assert [clip.clip_id for clip in clips] == ["dup", "dup-3", "dup-2", "dup-4"]
    assert [bool(clip.note) for clip in clips] == [False, True, False, True]
    manifest.write_text("path,clip_id\na.wav,\nb.wav,a\nc.wav,\n")
    assert [clip.clip_id for clip in read_folder(tmp_path, manifest)] == ["a-2", "a", "c"]


def test_clips_that_share_frames_are_noted_as_folds_of_clips_would_part_them(tmp_path, capsys):
    touch(tmp_path / "a.wav", tmp_path / "b.wav")
    (tmp_path / "m.csv").write_text("path,start_sec,end_sec\na.wav,0,2\na.wav,1,3\na.wav,5,6\nb.wav,0,2\n")
    clips = read_folder(tmp_path, tmp_path / "m.csv")
    assert ["frames of it" in clip.note for clip in clips] == [True, True, False, False]
    assert "2 clips have frames in common with another clip of their file" in capsys.readouterr().out


def split_by_speaker(tmp_path, rows, **share):
    touch(*(tmp_path / f"{name}.wav" for name in "abcd"))
    (tmp_path / "m.csv").write_text("path,speaker,split,start_sec,end_sec\n" + rows)
    return read_folder(tmp_path, tmp_path / "m.csv", split_by="speaker", **share)


def test_neither_a_speaker_nor_a_part_of_a_recording_is_in_two_splits(tmp_path):
    rows = [f"{name}.wav,s{k},,{k},{k + 1.5}" for name in "abc" for k in range(12)]
    rows += [f"d.wav,s{k},,{2 * k},{2 * k + 1}" for k in range(12)]
    clips = split_by_speaker(tmp_path, "\n".join(rows) + "\n", validation_share=0.5)
    assert len({clip.split for clip in clips}) == 1  # everybody overlaps somebody
    clips = split_by_speaker(tmp_path, "a.wav,x,,0,2\na.wav,y,,1,3\nb.wav,y,test,,\nc.wav,x,,,\nd.wav,z,,,\n")
    assert [clip.split for clip in clips[:4]] == ["test"] * 4
    assert clips[4].split != "test"


def test_speakers_that_nobody_names_are_not_held_out_and_that_is_said(tmp_path, capsys):
    split_by_speaker(tmp_path, "a.wav,x,,,\nb.wav,,,,\nc.wav,nan,,,\nd.wav,,test,,\n", validation_share=0.5)
    assert "note: --split-by speaker: 2 clips name no speaker, such as b, and are held out" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--split-by speaker: no row of --manifest .*m\.csv names a speaker; fill"):
        split_by_speaker(tmp_path, "a.wav,,,,\nb.wav,,,,\n")
    for given in ({"split_by": "speaker"}, {"emotion_word": [("ilo", "happy")]}):
        with pytest.raises(ValueError, match=r"(--split-by speaker|--emotion-word ilo=happy) is of a manifest; give"):
            folder.read(tmp_path, None, **{"validation_share": 0.0, "split_by": "clip", **given})


@pytest.mark.parametrize(
    "rows", ["a.wav,x,train,,\nb.wav,x,test,,\n", "a.wav,x,train,,\nb.wav,y,test,1,2\nb.wav,x,,1,2\n"]
)
def test_a_speaker_that_rows_put_into_two_splits_is_refused(tmp_path, rows):
    with pytest.raises(ValueError, match=r"line 2 \(speaker 'x'\) is in train and line 3 .* in test, but with"):
        split_by_speaker(tmp_path, rows)
