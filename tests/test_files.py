"""What is written is there whole or not at all, whatever ends or disturbs the writing."""

import os
import re
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
    check_local,
    check_seal,
    present_folder,
    read_arrays,
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


JSON = b'{"step": 1, "names": ["a"]}\n'


@pytest.mark.parametrize(
    "content",
    [b"", JSON[:9], bytes(20), b"\xff\xfe\xfa", b"null", b"[]", b"3", b'"text"', b"{}", b"[" * 100_000, b"9" * 5000,
     JSON[:-2] + b"\0}"],
)  # fmt: skip
def test_json_of_any_other_content_is_damage_that_is_named_with_the_remedy(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    for given in ({}, {"if_missing": None}):
        with pytest.raises(DamagedError, match=r"file is damaged \(.*\); make it again$"):
            read_json(tmp_path / "file", fields=("step",), remedy="make it again", **given)


def test_json_that_is_missing_or_of_the_kind_that_was_asked_for(tmp_path):
    assert read_json(tmp_path / "none", if_missing=None) is None
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")
    write_json(tmp_path / "list", [1])
    assert read_json(tmp_path / "list", kind=list) == [1]
    with pytest.raises(DamagedError, match=r"it holds \[1\], no object"):
        read_json(tmp_path / "list")


def test_arrays_of_any_other_content_are_damage_that_is_named(tmp_path):
    ids, names_ = np.arange(300), np.array(["a", "b"])
    write_arrays(tmp_path / "whole", ids=ids, names=names_)
    arrays = read_arrays(tmp_path / "whole", "names", "ids")
    assert arrays["ids"].tolist() == ids.tolist()
    assert arrays["names"].tolist() == ["a", "b"]
    content = (tmp_path / "whole").read_bytes()
    with open(tmp_path / "pickled", "wb") as file:
        np.savez(file, ids=np.array([{}], dtype=object), names=names_)
    np.save(tmp_path / "array.npy", ids)
    contents = [b"", content[: len(content) // 2], content[:-1], bytes(500), b"{}", b"null", b"PK"]
    contents += [(tmp_path / other).read_bytes() for other in ("pickled", "array.npy")]
    for place in range(0, len(content), 37):  # no changed bit of what is read is believed
        contents.append(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
    believed, said = 0, set()
    for changed in contents:
        (tmp_path / "file").write_bytes(changed)
        try:
            arrays = read_arrays(tmp_path / "file", "ids", "names", remedy="remove it")
        except DamagedError as error:
            said.add(re.sub(r"file: .*", "", str(error).replace(str(tmp_path), "")) + str(error)[-11:])
        else:  # a bit that means nothing, a time or a version
            assert (arrays["ids"].tolist(), arrays["names"].tolist()) == (ids.tolist(), ["a", "b"])
            believed += 1
    assert said == {"/file is damaged (no whole .npz ; remove it"}
    assert believed < len(contents) / 10
    with pytest.raises(DamagedError, match=r"no item named 'other\.npy'"):
        read_arrays(tmp_path / "whole", "other")
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "none", "ids")
    with pytest.raises(IsADirectoryError):  # of the disk, no damage
        read_arrays(tmp_path, "ids")


def test_what_is_put_in_its_place_is_on_the_disk_before_and_its_name_after(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace", "rename"):
        real = getattr(os, name)

        def told(*arguments, name=name, real=real):
            of = [os.readlink(f"/proc/self/fd/{a}") if isinstance(a, int) else str(a) for a in arguments]
            calls.append((name, *(Path(path).name for path in of)))
            return real(*arguments)

        monkeypatch.setattr(os, name, told)
    write_text(tmp_path / "file", "text")
    folder = tmp_path.name
    assert calls == [("fsync", "file.draft"), ("replace", "file.draft", "file"), ("fsync", folder)]
    calls.clear()
    with whole_folder(tmp_path / "new") as draft:
        (draft / "below").mkdir()
        (draft / "below" / "a").touch()
    assert sorted(calls[:3]) == [("fsync", "a"), ("fsync", "below"), ("fsync", "new.draft")]
    assert calls[3:] == [("rename", "new.draft", "new"), ("fsync", folder)]


@pytest.mark.parametrize("exchange", [True, False])
def test_at_every_moment_of_replacing_a_folder_a_whole_one_is_found(tmp_path, monkeypatch, exchange):
    """Killed at each call that moves or removes something, by the system's exchange and without it."""
    path, found = tmp_path / "encoder", set()
    for moment in range(1, 8):
        with whole_folder(path) as draft:
            (draft / "weights").write_text("old")
        code = (
            "import mmpretrain.files as files, shutil\n"
            f"if not {exchange}: files._renameat2 = lambda: None\n"
            "calls = 0\n"
            "def counted(real):\n"
            "    def call(*given, **named):\n"
            "        global calls\n"
            "        calls += 1\n"
            f"        if calls == {moment}: die()\n"
            "        return real(*given, **named)\n"
            "    return call\n"
            "for module, name in ((os, 'rename'), (files, '_exchange'), (shutil, 'rmtree')):\n"
            "    setattr(module, name, counted(getattr(module, name)))\n"
            f"with whole_folder({str(path)!r}) as draft: (draft / 'weights').write_text('new')\n"
            "calls = -1000\n"
            "die()"
        )
        run_until_it_kills_itself(code)
        found.add((present_folder(path) / "weights").read_text())
        if exchange:
            assert path.exists()
    assert found == {"old", "new"}
    with whole_folder(path) as draft:
        (draft / "weights").write_text("newest")
    assert (present_folder(path) / "weights").read_text() == "newest"
    assert not (tmp_path / "encoder.replaced.draft").exists()


@pytest.mark.parametrize(
    ("path", "remedy"),
    [("gs://bucket/run", "Cloud Storage FUSE"), ("gs:/bucket/run", "Cloud Storage FUSE"), ("s3://b", "mount"),
     ("hdfs://host:9000/x", "mount"), ("abfss+v2://c", "mount"), ("file:///data", "leave out file://")],
)  # fmt: skip
def test_addresses_are_refused_with_a_remedy(path, remedy):
    with pytest.raises(ValueError, match=rf"^workdir='{re.escape(path)}' is an address.*{remedy}"):
        check_local("workdir", path)


def test_paths_that_only_look_a_little_like_addresses_are_none():
    for path in ("runs/mine", "/data/a:b", "a:b/c", "gs", "", "C:/x", "./gs://", "./~", "~$a.docx", "a/~/b"):
        check_local("workdir", path)


def test_a_tilde_that_no_shell_replaced_is_no_folder_of_that_name(monkeypatch):
    """As in --config.workdir=~/runs."""
    monkeypatch.setenv("HOME", "/people/ada")
    for path, whole in (("~/runs", "/people/ada/runs"), (Path("~"), "/people/ada")):
        with pytest.raises(ValueError, match=rf"^workdir='{path}': a shell .* of a word alone; give '{whole}'$"):
            check_local("workdir", path)


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
