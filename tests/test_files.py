"""What is written is there whole or not at all, whatever ends or disturbs the writing."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from mmpretrain.files import (
    SEAL,
    DamagedError,
    check_seal,
    read_json,
    seal,
    whole_file,
    whole_folder,
    write_arrays,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run_until_it_kills_itself(code: str) -> None:
    """Runs Python code in which `die()` is a SIGKILL: nothing is tidied up."""
    die = "import os, signal\nfrom mmpretrain.files import *\ndef die(): os.kill(os.getpid(), signal.SIGKILL)\n"
    done = subprocess.run([sys.executable, "-c", die + code], cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_killed_write_leaves_the_old_file_and_no_litter_for_long(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"step": 1})
    run_until_it_kills_itself(
        f"with whole_file({str(path)!r}) as draft:\n    draft.write_text('a much longer text, not finished'); die()"
    )
    assert read_json(path) == {"step": 1}
    assert names(tmp_path) == ["result.json", "result.json.draft"]
    write_json(path, 2)
    assert path.read_text() == "2\n"
    assert names(tmp_path) == ["result.json"]


def test_a_killed_write_leaves_the_old_folder_and_no_litter_for_long(tmp_path):
    path = tmp_path / "encoder"
    with whole_folder(path) as draft:
        (draft / "weights").write_text("old")
        assert not path.exists()
    code = f"with whole_folder({str(path)!r}) as draft:\n    (draft / 'sub').mkdir(); (draft / 'part').touch(); die()"
    run_until_it_kills_itself(code)
    assert names(path) == ["weights"]
    with whole_folder(path) as draft:
        assert names(draft) == []
        (draft / "weights").write_text("new")
    assert names(tmp_path) == ["encoder"]
    assert (path / "weights").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there_and_no_draft(tmp_path, error):
    write_text(tmp_path / "file", "old")
    with whole_folder(tmp_path / "folder") as draft:
        (draft / "file").write_text("old")

    def stop_half_way(file: Path) -> None:
        file.write_text("half")
        raise error

    with pytest.raises(error), whole_file(tmp_path / "file") as draft:
        stop_half_way(draft)
    with pytest.raises(error), whole_folder(tmp_path / "folder") as draft:
        stop_half_way(draft / "file")
    with pytest.raises(TypeError):
        write_json(tmp_path / "file", {"no JSON": object()})
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "file").read_text() == "old"


def test_two_that_write_the_same_file_at_once_do_not_mix(tmp_path):
    path = tmp_path / "file"
    with whole_file(path) as first:
        first.write_text("first, ")
        with whole_file(path) as second:
            second.write_text("second, whole")
        assert path.read_text() == "second, whole"
        with open(first, "a") as file:
            file.write("whole")
    assert path.read_text() == "first, whole"
    assert names(tmp_path) == ["file"]


def test_two_that_write_the_same_folder_at_once_do_not_mix(tmp_path):
    with whole_folder(tmp_path / "folder") as first, whole_folder(tmp_path / "folder") as second:
        (first / "a").touch()
        (second / "b").touch()
        assert (names(first), names(second)) == (["a"], ["b"])
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["a"]


def test_a_reader_beside_many_writers_sees_whole_files_only(tmp_path):
    path, errors = tmp_path / "file", []

    def write(letter: str) -> None:
        try:
            for _ in range(50):
                write_text(path, letter * 100_000)
        except OSError as error:
            errors.append(error)

    write_text(path, "a" * 100_000)
    writers = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        text = path.read_text()
        assert len(text) == 100_000
        assert len(set(text)) == 1
    assert not errors
    assert names(tmp_path) == ["file"]


def test_folders_above_are_made_and_rights_are_as_always(tmp_path):
    write_text(tmp_path / "a" / "b" / "file", "text")
    (tmp_path / "plain").touch()
    assert (tmp_path / "a" / "b" / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_text_is_written_as_it_is(tmp_path):
    write_text(tmp_path / "file", "\u00e4\r\n\n")
    assert (tmp_path / "file").read_bytes() == b"\xc3\xa4\r\n\n"


def test_arrays_keep_the_name_they_are_given(tmp_path):
    write_arrays(tmp_path / "part-0.kept", ids=np.arange(3), names=np.array(["a"]))
    assert names(tmp_path) == ["part-0.kept"]
    with np.load(tmp_path / "part-0.kept", allow_pickle=False) as arrays:
        assert arrays["ids"].tolist() == [0, 1, 2]
        assert arrays["names"].tolist() == ["a"]


def test_json_that_is_missing_or_damaged(tmp_path):
    assert read_json(tmp_path / "none", if_missing=None) is None
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")
    (tmp_path / "half").write_text('{"step": ')
    for given in ({}, {"if_missing": None}):
        with pytest.raises(ValueError, match="half is damaged"):
            read_json(tmp_path / "half", **given)


def test_locks_that_are_not_there_are_done_without(tmp_path, monkeypatch):
    def none_here(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none_here)
    write_text(tmp_path / "file.draft", "left by a killed process")
    write_text(tmp_path / "file", "text")
    assert names(tmp_path) == ["file"]
    assert os.path.getsize(tmp_path / "file") == 4


def test_a_seal_notices_every_change_of_a_file(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "a").write_bytes(bytes(100))
    (tmp_path / "below" / "b").write_bytes(b"b")
    seal(tmp_path)
    check_seal(tmp_path)
    changed = bytearray(100)
    changed[50] ^= 4
    for name, content in {"a": bytes(changed), "below/b": b"", "c": b"new"}.items():
        old = (tmp_path / name).read_bytes() if (tmp_path / name).exists() else None
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DamagedError, match=name):
            check_seal(tmp_path)
        (tmp_path / name).write_bytes(old) if old is not None else (tmp_path / name).unlink()
    (tmp_path / "a").unlink()
    with pytest.raises(DamagedError, match="missing"):
        check_seal(tmp_path, "a")
    (tmp_path / SEAL).write_text("{}")
    with pytest.raises(DamagedError, match=r"below/b"):
        check_seal(tmp_path)
