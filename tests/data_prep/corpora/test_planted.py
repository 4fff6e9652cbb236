"""Faults that copies of corpora have, planted into fake trees: each is named with its place and remedy, or is a row."""

import shutil

import pytest

from data_prep.__main__ import main
from data_prep.sources import SourceClip
from mmpretrain.config import CorpusConfig
from mmpretrain.data.clips import open_clips
from tests.data_prep.authored import tone, write_wav
from tests.data_prep.corpora import test_iemocap, test_meld, test_msp_improv
from tests.data_prep.corpora.trees import POINTER, check, clips_of, corpus_of, touch, write

SUMMARY = "FileName,VoiceVote,VoiceLevel,FaceVote,FaceLevel,MultiModalVote,MultiModalLevel\n"
DEMOGRAPHICS = "ActorID,Age,Sex,Race\n"
CREMA = "1001_DFA_ANG_XX"
VOX = "VoxCeleb2 ID,Gender\n"
MELD = test_meld.HEADER + '1,Hi,Joey,{emotion},{sentiment},0,0,{season},1,"{start}","00:00:09,000"\n'
GOOD = dict(emotion="joy", sentiment="positive", season=8, start="00:00:01,000")


FAULTS = (
    ("crema_d", "summaryTable.csv", POINTER, "summaryTable.csv is a pointer of git-lfs, not the file itself; run `"),
    ("crema_d", "summaryTable.csv", b"", "has no column 'FileName' (its first line names none); get the file of"),
    ("crema_d", "summaryTable.csv", SUMMARY + f"{CREMA},A,1,A,1,Q,1\n", "line 2: MultiModalVote is 'Q', which is not"),
    ("crema_d", "summaryTable.csv", SUMMARY + f"{CREMA},A,1,A,1,A,300\n", "MultiModalLevel is '300', which is not"),
    ("crema_d", "summaryTable.csv", SUMMARY + "a,A,1,A,1,A,1\na,A,1,A,1,F,1\n", "line 3: FileName 'a' is that of"),
    ("crema_d", "VideoDemographics.csv", DEMOGRAPHICS + "1001,old,Male,x\n", "line 2: Age is 'old', which is not a"),
    ("crema_d", "VideoDemographics.csv", DEMOGRAPHICS + "1001,50,Mann,x\n", "Sex is 'Mann', which is not one of"),
    ("crema_d", "VideoDemographics.csv", DEMOGRAPHICS + "1001,50,Male\n", "line 2: 3 cells, but the first line"),
    ("crema_d", "VideoDemographics.csv", "ActorID,Age,Sex,Race,Age\n", "has two columns 'Age'"),
    ("crema_d", "VideoDemographics.csv", b"\x89\0PNG", "is no text (it has NUL in it)"),
    ("voxceleb2", "vox2_meta.csv", VOX + "id1,x\n", "line 2: Gender is 'x', which is not one of m, f;"),
    ("meld", "train_sent_emo.csv", MELD.format(**GOOD | {"sentiment": "good"}), "line 2: Sentiment is 'good', which"),
    ("meld", "train_sent_emo.csv", MELD.format(**GOOD | {"season": "x"}), "line 2: Season is 'x', which is not a"),
    ("meld", "train_sent_emo.csv", MELD.format(**GOOD | {"start": "9"}), "StartTime is '9', which is not a time such"),
    ("meld", "train_sent_emo.csv", MELD.format(**GOOD).replace(",Hi", ',"Hi'), "line 2: ',' expected after '\"'; is a"),
    ("meld", "train_sent_emo.csv", MELD.format(**GOOD) + '2,"a\nb"\n', "line 3: a cell goes on in the next line; is a"),
    ("muse", "partition.csv", "Id,Proposal\n1,public\n", "line 2: Proposal is 'public', which is not train, devel"),
    ("muse", "partition.csv", "Id,Proposal\n1,train\n1,test\n", "line 3: Id '1' is that of "),
    ("grid", "s1/alignments.csv", "clip,start_s,end_s,word\nbbaf2n,soon,1,bin\n", "start_s is 'soon', which is not"),
    ("lrs2", "val.txt", "", "names no clip; write the id of a clip on each line"),
    ("lrs2", "val.txt", "7/00001\n", "train.txt does; remove it from one of them"),
    ("iemocap", "Session1/readme.txt", "", "Session1 has no folder dialog/EmoEvaluation, which says what its"),
)


@pytest.mark.parametrize(
    ("name", "table", "content", "said"), FAULTS, ids=[f"{name}-{said}" for name, *_, said in FAULTS]
)
def test_a_table_that_is_not_as_it_was_released_is_named_with_line_column_and_remedy(
    tmp_path, capsys, name, table, content, said
):
    touch(tmp_path / f"{CREMA}.wav")
    write(tmp_path / "train.txt", "7/00001\n")
    write(tmp_path / table, "").write_bytes(content if isinstance(content, bytes) else content.encode())
    for does in ("--check", f"--output={tmp_path / 'out'}"):
        assert main([name, f"--source={tmp_path}", does]) == 2
        told = capsys.readouterr().err
        assert said in told
        assert str(tmp_path / table.split("/")[0]) in told
        assert len(told.splitlines()) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_tables_are_read_in_whatever_they_were_saved(tmp_path, encoding):
    content = MELD.format(**GOOD).replace("Hi", "d\u00e9j\u00e0 vu").replace("\n", "\r\n")
    write(tmp_path / "dev_sent_emo.csv", "").write_bytes(content.encode(encoding))
    (clip,) = clips_of("meld", tmp_path).values()
    assert (clip.labels["text"], clip.labels["emotion"]) == ("d\u00e9j\u00e0 vu", "happy")


TEXT = "Text: ONE TWO\n\nWORD START END ASDSCORE\nONE 0.1 0.4 1\nTWO {} 0.9 1\n"
TIMES_OF = {
    "b": (b"\xef\xbb\xbf" + TEXT.format("0.5").encode(), "", 2),
    "c": (TEXT.format("0.5").encode("utf-16"), "", 2),
    "d": (TEXT.format("nan").encode(), "the times of words are not in order, and left out", 0),
    "e": (TEXT.format("0.05").encode(), "the times of words are not in order, and left out", 0),
    "f": (TEXT.format("").encode()[:-8], "the table of words cannot be read, and their times are left out", 0),
    "g": (TEXT.format("0.5").replace("TWO 0", "O 0").encode(), "the words that are timed are not those of the text", 0),
    "h": (b"", "the text file has no line `Text:`", 0),
    "i": (None, "no text file", 0),
}  # fmt: skip


def test_every_text_of_lrs3_that_is_not_as_it_should_be_has_a_note(tmp_path, capsys):
    for talk, (content, _, _) in TIMES_OF.items():
        path = tmp_path / "trainval" / talk / "50001.MP4"
        touch(path)
        if content is not None:
            path.with_suffix(".txt").write_bytes(content)
    clips = clips_of("lrs3", tmp_path, validation_share=0.0)
    found = {clip_id.split("/")[1]: (clip.note, len(clip.words)) for clip_id, clip in clips.items()}
    assert found == {talk: (note, words) for talk, (_, note, words) in TIMES_OF.items()}
    write(tmp_path / "trainval" / "alone" / "50001.txt", TEXT)
    touch(tmp_path / "test" / "50001" / "talk.mp4", tmp_path / "test" / "too" / "deep" / "00001.mp4")
    code, said = check(capsys, "lrs3", tmp_path)
    assert code == 1
    for line in (
        "left out 1: the file does not exist (trainval/alone/50001)",
        "left out 1: not a place of LRS3 (trainval/<video id>/50001.mp4) (test/50001/talk)",
        "no clip is made of 1 files of sound or picture (test/too/deep/00001.mp4)",
    ):
        assert line in said, said


def refused(clips: dict[str, SourceClip]) -> dict[str, str]:
    return {clip_id: clip.refused for clip_id, clip in clips.items() if clip.refused}


def test_of_several_files_of_a_recording_one_that_is_there_is_used(tmp_path):
    """A pointer or an empty file beside it takes nothing away."""
    used = {
        "ravdess": ("Actor_01/03-01-03-01-01-01-01.wav", "old/03-01-03-01-01-01-01.wav", "a/01-01-03-01-01-01-01.mp4"),
        "emodb": ("wav/03a01Fa.wav", "new/03a01Fa.wav", "old/03a01Fa.wav"),
        "mead": ("M003/audio/angry/level_3/001.m4a", "M003/video/front/angry/level_3/001.mp4"),
        "voxceleb2": ("dev/aac/id1/v/00001.m4a", "dev/mp4/id1/v/00001.mp4"),
        "grid": ("audio/s1/bbaf2n.wav", "s1/bbaf2n.mpg"),
        "msp_improv": ("Audio/MSP-IMPROV-S01A-F01-P-FM01.wav", "Video/MSP-IMPROV-S01A-F01-P-FM01.avi"),
        "muse": ("raw/12.wav", "raw/12.mp4"),
        "meld": ("new/train_splits/dia0_utt0.mkv", "a/train_splits/dia0_utt0.mp4"),
    }
    more = {"mead": {"view": "front"}, "voxceleb2": {"validation_share": 0.0}, "grid": {"validation_share": 0.0}}
    for name, (good, *bad) in used.items():
        source = tmp_path / name
        touch(source / good)
        for number, path in enumerate(bad):
            write(source / path, "").write_bytes((POINTER, b"")[number % 2])
        write(source / "Evalution.txt", "")
        write(source / "partition.csv", "Id,Proposal\n12,train\n")
        write(source / "train_sent_emo.csv", MELD.format(**GOOD))
        clips = clips_of(name, source, **more.get(name, {}))
        assert [clip.path for clip in clips.values() if not clip.refused] == [source / good], name
        assert not any(clip.sound for clip in clips.values() if not clip.refused)


def test_lines_of_ratings_that_are_none_are_rows_and_scales_that_are_none_are_left_out(tmp_path):
    name = test_iemocap.DIALOGUE
    turns = test_iemocap.EVALUATION
    for old, new in (
        ("[2.5000, 2.5000, 2.5000]", "[nan, 7.5000, 2.5000]"), ("[3.0000 - 5.5000]", "[3.00.0 - 5.5]"),
        ("fru\t[2.0000", "fru\t2.0000"),
    ):  # fmt: skip
        assert old in turns
        turns = turns.replace(old, new)
    turns += "\n[20.0 - 21.0]\tSes02F_impro01_F009\tneu\t[2.5, 2.5, 2.5]\n"
    write(tmp_path / "Session1" / "dialog" / "EmoEvaluation" / f"{name}.txt", turns)
    clips = clips_of("iemocap", tmp_path, validation_share=0.0)
    labels = clips[f"{name}_F000"].labels
    assert {column: labels.get(column) for column in ("valence", "arousal", "dominance")} == {
        "valence": None, "arousal": None, "dominance": -0.25,
    }  # fmt: skip
    said = refused(clips)
    assert sum("is no turn: [" in why for why in said.values()) == 2
    assert said["Ses02F_impro01_F009"] == "is a turn of session 2, but lies in Session1"
    evaluation = test_msp_improv.EVALUATION.replace("V:5.000000", "V:nan").replace("MF01.avi; O;", "MF01.avi O")
    evaluation += "\nUTD-IMPROV-S01A-F01-P-FM01.avi; S; A:1; V:1; D:1;\n"
    write(tmp_path / "improv" / "Evalution.txt", evaluation)
    touch(tmp_path / "improv" / "MSP-IMPROV-S01A-F01-P-FM01.wav")
    clips = clips_of("msp_improv", tmp_path / "improv")
    turn = clips["MSP-IMPROV-S01A-F01-P-FM01"]
    assert (turn.labels["emotion"], turn.labels.get("valence"), turn.labels["arousal"]) == ("happy", None, -0.25)
    assert turn.note == "its valence is none on the scale from 1 to 5, and left out"
    assert refused(clips)["Evalution.txt, line 11"] == "MSP-IMPROV-S01A-F01-P-FM01 is rated in line 1 too, which counts"
    assert "is no rating of a turn: UTD-IMPROV-S02N-M03-R" in refused(clips)["Evalution.txt, line 9"]


def test_labels_in_time_are_asked_for_their_order_their_folder_and_their_recordings(tmp_path, capsys):
    write(tmp_path / "partition.csv", "Id,Proposal\n1,train\n2,devel\n3,test\n")
    touch(*(tmp_path / f"{name}.wav" for name in "123"))
    label = tmp_path / "label_segments" / "valence"
    write(label / "1.csv", "timestamp,value\n0,1\n500,0\n")
    write(label / "9.csv", "timestamp,value\n0,1\n500,0\n")
    assert {clip.clip_id: clip.note for clip in clips_of("muse", tmp_path).values()} == {
        "1": "", "2": "it has no valence", "3": "",
    }  # fmt: skip
    assert "partition.csv does not name 1 recordings that have labels, such as 9" in capsys.readouterr().out
    for rows in ("0,1\n0,2\n", "500,1\n0,2\n", "nan,1\n0,2\n"):
        write(label / "1.csv", "timestamp,value\n" + rows)
        with pytest.raises(ValueError, match=r"1\.csv, line [23]: .* (behind that of the row before|milliseconds)"):
            clips_of("muse", tmp_path)
    write(label / "1.csv", "value,segment_id\n1,1\n2,2\n")
    assert set(refused(clips_of("muse", tmp_path)).values()) == {
        "no table of feature_segments says when its segment is"
    }
    shutil.move(label, label.with_name("valense"))
    with pytest.raises(ValueError, match="is in a folder of no dimension"):
        clips_of("muse", tmp_path)


def test_a_list_that_names_what_is_not_here_says_so(tmp_path, capsys):
    touch(tmp_path / "trainval" / "a" / "50001.mp4")
    listed = write(tmp_path / "valid.id", "trainval/a/50001\ntrainval/b/50001\n")
    clips_of("lrs3", tmp_path, validation_share=0.0, validation_list=listed)
    said = capsys.readouterr().out
    assert f"note: 1 of the 2 clips that {listed} names are not here, such as trainval/b/50001" in said
    write(listed, "trainval/b/50001\n")
    with pytest.raises(ValueError, match="none of the 1 clips that it names is here, such as 'trainval/b/50001'"):
        clips_of("lrs3", tmp_path, validation_share=0.0, validation_list=listed)
    write(listed, "dev/id1/v/00001,en\ndev/id1/v/00001,fr\n")
    touch(tmp_path / "dev" / "aac" / "id1" / "v" / "00001.m4a")
    with pytest.raises(ValueError, match=r"valid\.id, line 2: behind id1/v/00001 stands 'fr' here and 'en' before"):
        clips_of("voxceleb2", tmp_path, validation_share=0.0, language_list=listed)


def test_a_preparation_says_what_it_leaves_and_what_is_said_of_times_that_are_not(tmp_path, capsys):
    write_wav(tmp_path / "s1" / "bbaf2n.wav", tone(1.0))
    write_wav(tmp_path / "s1" / "old" / "bbaf2n.wav", tone(0.5))
    words = enumerate(("bin", "blue", "at", "f", "two", "now"))
    write(tmp_path / "s1" / "align" / "bbaf2n.align", "".join(f"{k}0000 {k}9000 {word}\n" for k, word in words))
    write(tmp_path / "s1" / "align" / "bbaf3n.align", "0 1 bin\n")
    out = tmp_path / "out"
    assert main(["grid", f"--source={tmp_path}", f"--output={out}", "--workers=1", "--validation-share=0"]) == 0
    said = capsys.readouterr().out
    assert "note: no clip is made of 1 files of sound or picture (s1/old/bbaf2n.wav)" in said
    assert "kept 1 of 2 clips" in said
    assert "refused 1: the file does not exist" in said
    assert "note on 1: 3 of the 6 words are timed behind its end" in said
    assert len(open_clips([CorpusConfig(str(out))])) == 1
    assert corpus_of("grid").official  # of which something is there; what has nothing of a part says so
