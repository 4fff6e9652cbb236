"""CREMA-D in the layout of its repository: names, tables of votes, pointers of git-lfs, clips known to be broken."""

import math
from collections import Counter

import pytest

from tests.data_prep.corpora.trees import POINTER, check, clips_of, corpus_of, touch, write

SUMMARY = """"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel","MultiModalVote","MultiModalLevel"
"1","1001_DFA_ANG_XX","A","52.67","A:D","48.00:51.50","A","61.5"
"2","1001_IEO_HAP_LO","N","71.67","H","57","F:N","64.75:61.50"
"""
VOTES = """"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"
"100001",9,0,0,0,0,0,"1001_DFA_ANG_XX",9,1,"A"
"300001",2,1,0,0,1,0,"1001_DFA_ANG_XX",4,0.5,"A"
"""


@pytest.fixture
def tree(tmp_path):
    video, wav = tmp_path / "VideoFlash", tmp_path / "AudioWAV"
    touch(video / "1001_DFA_ANG_XX.flv", wav / "1001_DFA_ANG_XX.wav", tmp_path / "AudioMP3" / "1001_DFA_ANG_XX.mp3")
    touch(wav / "1001_IEO_HAP_LO.wav", tmp_path / "AudioMP3" / "1001_IEO_HAP_LO.mp3", wav / "1076_MTI_SAD_XX.wav")
    (video / "1001_IEO_HAP_LO.flv").write_bytes(POINTER)
    (video / "1091_WSI_NEU_XX.flv").write_bytes(POINTER)
    touch(video / "1001_XXX_ANG_XX.flv")
    names = ["1001_DFA_ANG_XX", "1001_IEO_HAP_LO", "1076_MTI_SAD_XX", "1091_WSI_NEU_XX", "1002_TIE_FEA_XX"]
    write(
        tmp_path / "SentenceFilenames.csv",
        '"Stimulus_Number","Filename"\n' + "".join(f'1,"{name}"\n' for name in names),
    )
    demographics = '"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","Caucasian","Not Hispanic"\n'
    write(tmp_path / "VideoDemographics.csv", demographics)
    write(tmp_path / "processedResults" / "summaryTable.csv", SUMMARY)
    return tmp_path


def test_names_say_what_was_meant_and_tables_what_was_understood(tree):
    clips = clips_of("crema_d", tree)
    angry, happy = clips["1001_DFA_ANG_XX"], clips["1001_IEO_HAP_LO"]
    assert (angry.path.suffix, angry.speaker, angry.split) == (".flv", "crema-1001", "train")
    assert angry.labels == {
        "emotion": "angry", "perceived": "angry", "perceived_voice": "angry", "perceived_face": "",
        "perceived_level": 0.615, "votes": ("angry",), "intensity": "", "text": "don't forget a jacket",
        "sex": "male", "age": 51.0, "race": "Caucasian",
    }  # fmt: skip
    assert angry.info == {
        "emotion": "ANG", "sentence": "DFA", "level": "XX",
        "voice_vote": "A 52.67", "face_vote": "A:D 48.00:51.50", "multimodal_vote": "A 61.5",
    }  # fmt: skip
    assert happy.path.suffix == ".wav"  # the picture is a pointer only
    assert (happy.labels["emotion"], happy.labels["intensity"], happy.labels["text"]) == (
        "happy", "low", "it's eleven o'clock",
    )  # fmt: skip
    assert happy.labels["perceived"] == ""  # a tie
    assert happy.labels["perceived_voice"] == "neutral"
    assert happy.labels["votes"] == ("fearful", "neutral")
    assert math.isnan(happy.labels["perceived_level"])


def test_an_actor_whom_the_table_of_actors_lacks_is_noted(tree):
    known, unknown = (clips_of("crema_d", tree)[name] for name in ("1001_DFA_ANG_XX", "1076_MTI_SAD_XX"))
    assert "actor" not in known.note
    assert "VideoDemographics.csv has no actor 1076" in unknown.note
    (tree / "VideoDemographics.csv").unlink()
    assert "actor" not in clips_of("crema_d", tree)["1076_MTI_SAD_XX"].note


def test_the_table_of_all_votes_is_read_where_it_is_there(tree):
    write(tree / "processedResults" / "tabulatedVotes.csv", VOTES)
    clips = clips_of("crema_d", tree)
    assert clips["1001_DFA_ANG_XX"].labels["votes"] == ("angry", "angry", "disgust", "neutral")
    assert clips["1001_IEO_HAP_LO"].labels["votes"] == ("fearful", "neutral")


def test_votes_that_do_not_add_up_are_left_out_and_said(tree):
    write(tree / "processedResults" / "tabulatedVotes.csv", VOTES.replace('"1001_DFA_ANG_XX",4', '"1001_DFA_ANG_XX",5'))
    clip = clips_of("crema_d", tree)["1001_DFA_ANG_XX"]
    assert clip.labels["votes"] == ()
    assert clip.note == "its 4 votes are not the 5 of numResponses, and are left out"


def test_pointers_missing_and_broken_clips_are_told_apart(tree, capsys):
    clips = clips_of("crema_d", tree)
    assert {clip_id: (clip.refused.split(",")[0], clip.missing) for clip_id, clip in clips.items() if clip.refused} == {
        "1001_XXX_ANG_XX": ("not a name of CREMA-D (1001_DFA_ANG_XX: actor", False),
        "1002_TIE_FEA_XX": ("the file does not exist", True),
        "1076_MTI_SAD_XX": ("known to be unreadable or silent", False),
        "1091_WSI_NEU_XX": ("is a pointer of git-lfs", True),
    }
    code, said = check(capsys, "crema_d", tree)
    assert code == 1
    assert "3 of 7,442 recordings; 2 are listed and not here: 1002_TIE_FEA_XX, 1091_WSI_NEU_XX" in said
    assert "left out 1: is a pointer of git-lfs, not the file itself; run `git lfs pull`" in said


def test_a_table_of_another_release_is_refused_with_file_and_column(tree):
    write(tree / "processedResults" / "summaryTable.csv", "FileName,Voice\n1001_DFA_ANG_XX,A\n")
    with pytest.raises(ValueError, match=r"summaryTable\.csv has no column 'VoiceVote'"):
        clips_of("crema_d", tree)


def test_the_real_lists_name_all_clips_with_all_labels(real_data):
    clips = clips_of("crema_d", real_data / "text" / "crema_d").values()
    assert len(clips) == corpus_of("crema_d").official["clips"]
    assert all(clip.missing for clip in clips)
    assert Counter(clip.labels["emotion"] for clip in clips) == {
        "angry": 1271, "disgust": 1271, "fearful": 1271, "happy": 1271, "sad": 1271, "neutral": 1087,
    }  # fmt: skip
    assert len({clip.speaker for clip in clips}) == 91
    assert Counter(clip.labels["perceived"] for clip in clips)["neutral"] == 1972
    assert Counter(clip.labels["sex"] for clip in clips)["male"] > 3700
