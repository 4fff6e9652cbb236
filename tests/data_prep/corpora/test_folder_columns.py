"""Any CSV: somebody else's columns, words and scales, said on the command line."""

import json
import math

import pytest

from data_prep.__main__ import main
from data_prep.column_map import mapped_column
from mmpretrain.records import CORPUS_FILE
from tests.data_prep.authored import tone, write_wav
from tests.data_prep.test_preparation import clips_of, report_of

FINNISH = """tiedosto;puhuja;tunne;valenssi;laatu;istunto;merkit;muu
a.wav;Aino;Ilo;7,5;hyv\u00e4;1;nauru|hymy;x
b.wav;Eino;viha;1;;2;;
c.wav;Eino;kaipuu;;huono;2;;
d.wav;Eino;suru;11;huono;2;;
"""
MAP = ("tiedosto=path", "puhuja=speaker", "tunne=emotion", "valenssi=valence:1..9", "laatu=class:quality",
       "istunto=session", "merkit=classes:marks")  # fmt: skip
WORDS = ("ilo=happy", "viha=angry", "suru=sad")


@pytest.fixture
def command(tmp_path):
    for name in "abcd":
        write_wav(tmp_path / "in" / f"{name}.wav", tone(0.4, hz=300 + ord(name)))
    (tmp_path / "in" / "tiedot.csv").write_text(FINNISH, encoding="utf-8")
    return ["folder", "--source", str(tmp_path / "in"), "--manifest", str(tmp_path / "in" / "tiedot.csv"), "--output",
            str(tmp_path / "out"), "--workers", "1", "--validation-share", "0"]  # fmt: skip


def mapped(*pairs: str, words: tuple[str, ...] = WORDS) -> list[str]:
    return [word for pair in pairs for word in ("--column", pair)] + [w for p in words for w in ("--emotion-word", p)]


def test_a_finnish_corpus_is_prepared_with_its_own_columns(command, tmp_path):
    assert main([*command, *mapped(*MAP)]) == 0
    clips = {clip.clip_id: clip for clip in clips_of(tmp_path / "out")}
    assert clips["a"].speaker == "Aino"
    assert clips["a"].labels == {
        "emotion": "happy", "valence": 0.625, "quality": "hyv\u00e4", "session": "1", "marks": ("nauru", "hymy"),
    }  # fmt: skip
    assert clips["a"].info == {"emotion": "Ilo", "muu": "x"}
    assert clips["b"].labels == {"emotion": "angry", "valence": -1.0, "session": "2"}
    assert "emotion" not in clips["c"].labels
    assert clips["c"].info["emotion"] == "kaipuu"
    assert math.isnan(clips["c"].labels.get("valence", math.nan))
    assert report_of(tmp_path / "out")["d"]["reason"] == "valenssi 11 is not on the scale from 1 to 9"
    described = json.loads((tmp_path / "out" / CORPUS_FILE).read_text())
    assert described["schema"]["labels"] == {
        "emotion": "class", "text": "text", "valence": "value", "quality": "class", "session": "class",
        "marks": "classes",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("laatu", "is not THEIRS=OURS"),
        ("laatu=quality", "say of what kind it is: laatu=class:quality"),
        ("laatu=value:session", "'session' is of kind class"),
        ("laatu=class:1..5", "say of what kind it is"),
        ("laatu=quality:1..5", "say of what kind it is"),
        ("laatu=session:1..5", "only a value has a scale"),
        ("laatu=class:speaker", "is a column of ours"),
    ],
)
def test_a_map_that_says_nothing_sensible_is_refused(command, capsys, pair, message):
    with pytest.raises(SystemExit, match=r"^2$"):
        main([*command, *mapped(pair)])
    assert message in capsys.readouterr().err


def test_what_programs_write_for_none_is_none_and_said(command, tmp_path):
    columns = "valenssi=valence:1..9", "paino=value:weight", "laatu=class:quality", "kaikki=votes", "muut=perceived"
    (tmp_path / "in" / "tiedot.csv").write_text(
        "path,valenssi,paino,laatu,kaikki,muut,text\na.wav,NA,nan,NaN,ilo;NA,N/A,nan\nb.wav,5,1,hyva,na,ilo,hei\n"
        "c.wav,5,inf,hyva,ilo,ilo,hei\n"
    )
    assert main([*command, *mapped(*columns, words=("ilo=happy",))]) == 0
    assert {clip.clip_id: clip.labels for clip in clips_of(tmp_path / "out")} == {
        "a": {"votes": ("happy",), "text": "nan"},
        "b": {"valence": 0.0, "weight": 1.0, "quality": "hyva", "perceived": "happy", "text": "hei"},
    }
    report = report_of(tmp_path / "out")
    assert report["c"]["reason"] == "paino 'inf' is no number"
    for note in ("valenssi NA: na, n/a and nan are taken for none", "laatu NaN: na", "kaikki ilo;NA: na",
                 "text nan is taken for what is spoken"):  # fmt: skip
        assert note in report["a"]["notes"]
    assert mapped_column("muut=perceived").note("na", {"na": "neutral"}) == ""


def test_a_column_that_is_not_there_and_a_word_that_is_no_emotion_are_named(command, capsys):
    assert main([*command, *mapped("aika=start_sec", *MAP)]) == 2
    assert "has no column `aika`; its first line reads: tiedosto, puhuja, tunne" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"^2$"):
        main([*command, *mapped(*MAP, words=("ilo=riemu",))])
    assert "such as ilo=happy" in capsys.readouterr().err


def test_a_column_is_mapped_once(command, capsys):
    assert main([*command, *mapped(*MAP, "Valenssi=class:level")]) == 2
    said = "--column Valenssi is given twice, as valence and as level; leave one out, or copy the column in the CSV"
    assert said in capsys.readouterr().err


def test_words_for_emotions_are_those_of_mapped_columns_too(command, tmp_path):
    rows = "tiedosto,havaittu,kaikki\na.wav,Ilo,ilo|viha\nb.wav,suru,sad\n"
    (tmp_path / "in" / "tiedot.csv").write_text(rows, encoding="utf-8")
    assert main([*command, *mapped("tiedosto=path", "havaittu=perceived", "kaikki=votes")]) == 0
    labels = {clip.clip_id: clip.labels for clip in clips_of(tmp_path / "out")}
    assert labels == {
        "a": {"perceived": "happy", "votes": ("happy", "angry")}, "b": {"perceived": "sad", "votes": ("sad",)},
    }  # fmt: skip


def test_a_word_is_one_emotion(command, capsys):
    assert main([*command, *mapped(*MAP, words=("ilo=happy", "Ilo=joy"))]) == 0
    assert main([*command, *mapped(*MAP, words=("ilo=happy", "Ilo=sad"))]) == 2
    assert "--emotion-word ilo is given as happy and as sad; leave one out" in capsys.readouterr().err
