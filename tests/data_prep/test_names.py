"""Files are found wherever they are and prepared whatever they are called."""

import contextlib
import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest

from data_prep import media, sources
from data_prep.corpora import folder, lrs3, ravdess
from mmpretrain import listing
from mmpretrain.index import read_index
from mmpretrain.listing import find_files, readable
from tests.data_prep.authored import tone, write_wav
from tests.data_prep.test_preparation import clips_of, prepare_folder, report_of

# Name of the file (bytes) to the id of its clip.
ODD = {
    b"12:30.wav": "12:30", b"http:a.wav": "http:a", b"-x.wav": "-x", b"%d.wav": "%d", b"img%03d.wav": "img%03d",
    b"a?b#c.wav": "a?b#c", b"two\nlines.wav": "two%0Alines", "\N{GRINNING FACE}.wav".encode(): "\N{GRINNING FACE}",
    b"blank .wav": "blank ", b"behind.wav ": "behind", b"caf\xe9.wav": "caf%E9", b"caf%E9.wav": "caf%E9-2",
    b'"q", r.WAV': '"q", r', b"l" * 251 + b".wav": "l" * 251, "caf\N{COMBINING ACUTE ACCENT}.wav".encode():
    "caf\N{COMBINING ACUTE ACCENT}",
}  # fmt: skip


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(files, root) -> list[str]:
    return [file.relative_to(root).as_posix() for file in files]


def test_files_of_any_name_are_prepared(tmp_path, monkeypatch):
    """Under `--source .`, where a name stands at the beginning of its path; printed on a terminal of plain ASCII."""
    tmp_path = tmp_path / os.fsdecode(b"f\xf6lder")
    source = tmp_path / "source"
    for number, name in enumerate(ODD):
        write_wav(source / os.fsdecode(name), tone(0.4, hz=200 + 50 * number))
    touch(source / os.fsdecode(b"broken\xff.wav"))
    monkeypatch.chdir(source)
    output = tmp_path.parent / "out"
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "ascii")):
        assert prepare_folder(".", output, "--validation-share", 0) == 0
    rows = report_of(output)
    kept = {clip_id for clip_id, row in rows.items() if row["status"] == "kept"}
    assert kept == set(ODD.values())
    assert "cannot be opened" in rows["broken%FF"]["reason"]
    assert {row["source"] for row in rows.values()} >= {"caf%E9.wav", "two%0Alines.wav", "12:30.wav"}
    assert {clip.clip_id: len(clip.audio) for clip in clips_of(output)} == dict.fromkeys(ODD.values(), 6400)
    assert set(read_index(output, "train").clip_ids) == set(ODD.values())


def test_a_corpus_is_called_by_a_name_that_is_text(tmp_path, monkeypatch):
    source = tmp_path / os.fsdecode(b"stra\xdfe")
    write_wav(source / "a.wav", tone(0.4))
    assert prepare_folder(source, tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "corpus.json").read_text())["name"] == "stra%DFe"


def test_an_output_must_have_a_name_that_is_text(tmp_path, capsys):
    write_wav(tmp_path / "a.wav", tone(0.4))
    assert prepare_folder(tmp_path, tmp_path / os.fsdecode(b"\xff") / "out") == 2
    assert "%FF/out: it or a folder above it has a name that is no text" in capsys.readouterr().err
    assert not (tmp_path / os.fsdecode(b"\xff")).exists()


def test_readers_of_named_corpora_have_ids_of_text(tmp_path):
    touch(tmp_path / "r" / os.fsdecode(b"\xe9.wav"), tmp_path / "l" / "test" / os.fsdecode(b"\xe9") / "00001.mp4")
    touch(tmp_path / "l" / "test" / "talk" / "._00001.mp4")
    assert [clip.clip_id for clip in ravdess.read(tmp_path / "r")] == ["%E9"]
    (clip,) = lrs3.read(tmp_path / "l", validation_share=0.0)
    assert (clip.clip_id, clip.speaker) == ("test/%E9/00001", "lrs3-%E9")


def test_links_are_followed_and_each_file_is_found_once(tmp_path):
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    touch(source / "real" / "a.wav", elsewhere / "deep" / "b.wav", elsewhere / "c.mp4", source / "real" / "._a.wav")
    (source / "a_link").symlink_to(source / "real")  # before it in the alphabet: files keep their own names
    (source / "out").symlink_to(elsewhere)
    (source / "out_again").symlink_to(elsewhere / "deep")
    (source / "real" / "loop").symlink_to(source)
    (elsewhere / "round").symlink_to(elsewhere)
    (source / "again.wav").symlink_to(source / "real" / "a.wav")
    (source / "nowhere.wav").symlink_to(tmp_path / "gone.wav")
    (source / "unmounted").symlink_to(tmp_path / "gone")
    os.mkfifo(source / "pipe.wav")
    (source / "folder.wav").mkdir()
    found = find_files(source, sources.MEDIA_SUFFIXES)
    assert names(found.files, source) == ["nowhere.wav", "out/c.mp4", "out/deep/b.wav", "real/a.wav"]
    assert found.again == 1
    assert found.unread == [f"{source / 'unmounted'} (a link that leads nowhere)"]
    clips = {clip.clip_id: clip for clip in folder.read(source, None, validation_share=0.0, split_by="clip")}
    assert clips["nowhere"].refused == "the file does not exist"


def test_what_cannot_be_looked_into_is_said(tmp_path, monkeypatch, capsys):
    touch(tmp_path / "open" / "a.wav", tmp_path / "shut" / "b.wav")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names(sources.media_files(tmp_path), tmp_path) == ["open/a.wav"]
    assert f"note: what is in the folder {tmp_path / 'shut'} (Permission denied) is left out" in capsys.readouterr().out


def test_a_name_is_readable_in_any_file():
    stray = os.fsdecode(b"a\x80\xc3") + "\x07\u2028 \N{GRINNING FACE}\u3000"
    assert readable(stray) == "a%80%C3%07%E2%80%A8 \N{GRINNING FACE}\u3000"
    readable(stray).encode()


def test_a_report_is_utf_8_whatever_an_error_says(tmp_path):
    from data_prep.accounting import ReportRow, write_report

    stray = os.fsdecode(b"/x/\xff")
    write_report(tmp_path / "report.csv", [ReportRow("a", stray, "refused", f"no such file: {stray}", notes=stray)])
    with open(tmp_path / "report.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["reason"] == "no such file: /x/%FF"


def test_a_file_is_no_address_for_libav(tmp_path, monkeypatch):
    write_wav(tmp_path / "concat:b.wav", tone(0.4))
    shutil.copy(tmp_path / "concat:b.wav", tmp_path / "pipe:.wav")
    monkeypatch.chdir(tmp_path)
    for name in ("concat:b.wav", "pipe:.wav"):
        assert len(media.audio_samples(media.open_media(Path(name)))) == 6400
    assert listing.file_url(Path("a:b")) == "file:a:b"


@pytest.mark.parametrize("source", ["-dash", "with:colon", "%d"])
def test_a_source_of_any_name(tmp_path, monkeypatch, source):
    write_wav(tmp_path / source / "a.wav", tone(0.4))
    monkeypatch.chdir(tmp_path)
    (clip,) = folder.read(Path(source), None, validation_share=0.0, split_by="clip")
    assert (clip.clip_id, clip.path) == ("a", Path(source, "a.wav"))
