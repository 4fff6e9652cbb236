"""`--check`: says what is missing, there twice, odd and left out, and decodes nothing."""

import os

import pytest

from data_prep.__main__ import main
from tests.data_prep.corpora.trees import POINTER, check, touch


@pytest.fixture
def folder(tmp_path):
    touch(*(tmp_path / name for name in ("a.mp4", "b/c.wav", "unnamed.mp3")))
    (tmp_path / "b" / "same.wav").write_bytes((tmp_path / "b" / "c.wav").read_bytes())
    (tmp_path / "pointer.mp4").write_bytes(POINTER)
    (tmp_path / "empty.wav").write_bytes(b"")
    touch(tmp_path / os.fsdecode(b"bad\xff.wav"))
    rows = ["a.mp4,happy", "b/c.wav,wistful", "b/same.wav,", "pointer.mp4,sad", "empty.wav,", "nowhere.mp4,"]
    (tmp_path / "m.csv").write_text("path,emotion\n" + "\n".join(rows) + "\n")
    return tmp_path


def test_all_that_will_not_be_prepared_is_said(folder, capsys):
    code, said = check(capsys, "folder", folder, "all", "--manifest", str(folder / "m.csv"))
    assert code == 0  # nobody has said how many clips there should be
    for line in (
        "same bytes: c.wav = same.wav",
        "unreadable: 1 names are no text (",
        "bad%FF.wav",
        "no clip is made of 2 files of sound or picture (bad%FF.wav, unnamed.mp3)",
        "left out 1: is a pointer of git-lfs, not the file itself; run `git lfs pull` where it was cloned (pointer)",
        "left out 1: the file is empty (empty)",
        "left out 1: the file does not exist (nowhere)",
        "note on 1: emotion wistful is not one of ours and kept in info only (b/c)",
        "3 of 6 clips can be prepared",
        "emotion: happy 1, none 2",
    ):
        assert line in said, said


def test_official_counts_decide_on_the_exit_code(tmp_path, capsys):
    names = [f"03-02-{e:02d}-01-01-01-01" for e in range(1, 7)]
    touch(*(tmp_path / "Actor_01" / f"{name}.wav" for name in names))
    code, said = check(capsys, "ravdess", tmp_path, "song")
    assert code == 1
    assert "MISSING: song: 6 of 1,012 recordings" in said
    assert "speech" not in said


def test_what_check_cannot_be_is_said_in_a_line(tmp_path, capsys):
    touch(tmp_path / "a.wav")
    assert main(["ravdess", "--source", str(tmp_path), "--check", "films"]) == 2
    assert "--check films is no part of this corpus; its parts are speech, song" in capsys.readouterr().err
    assert main(["ravdess", "--source", str(tmp_path / "nowhere"), "--check"]) == 2
    assert "--source" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["mead", "--source", str(tmp_path / "empty"), "--check"]) == 2
    assert "no clips found in the source" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["ravdess", "--source", str(tmp_path)])
    assert "required: --output (or --check)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-clip-sec", "nan"], "--max-clip-sec nan is out of range"),
        (["--detect-every", "9"], "--detect-every 9 is out of range"),
        (["--landmarks", "nowhere"], "--landmarks nowhere is not a folder"),
        (["--landmarker", "nowhere"], "--landmarker nowhere does not exist"),
        (["--workers", "0"], "--workers 0 does no work"),
    ],
)
def test_options_that_would_be_refused_are_refused_by_check_too(tmp_path, capsys, arguments, message):
    touch(tmp_path / "a.wav", tmp_path / "b.mp4")
    assert main(["folder", "--source", str(tmp_path), "--check", *arguments]) == 2
    assert message in capsys.readouterr().err
