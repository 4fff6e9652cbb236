"""Apache Beam deals out the work: the same corpus byte for byte, whatever a clip does, however often it is tried."""

import functools
import os
import pickle
import sys
import types
from pathlib import Path

import pytest

from data_prep import beam, preparation
from data_prep.workers import CRASHED, Failed
from mmpretrain.records import CORPUS_FILE
from tests.data_prep.test_preparation import prepare_folder, report_of, sounds  # noqa: F401

OF_THE_RUN = {CORPUS_FILE, "digests.json"}  # how long it took is in the one, and its digest in the other


def files_of(output: Path) -> dict[str, bytes]:
    files = {path.relative_to(output).as_posix(): path for path in output.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith((".lease", *OF_THE_RUN))}


def in_turn_and_twice(self, work: functools.partial, count: int) -> None:
    """A runner without Beam that tries everything again, as those of Beam may."""
    for number in [*range(count), *reversed(range(count))]:
        work(number)


@pytest.fixture
def without_beam(monkeypatch):
    """Where it is not installed: all but Beam's runner."""

    class PickleCoder:
        encode, decode = staticmethod(pickle.dumps), staticmethod(pickle.loads)

    monkeypatch.setitem(sys.modules, "apache_beam", types.ModuleType("apache_beam"))
    monkeypatch.setattr(beam, "_coder", PickleCoder)
    monkeypatch.setattr(beam.BeamPipelines, "_run", in_turn_and_twice)


@pytest.mark.slow
def test_work_that_is_done_twice_makes_the_corpus_of_one_machine(sounds, tmp_path, monkeypatch, without_beam):  # noqa: F811
    monkeypatch.setattr(preparation, "SHARD_BYTES", 1e5)  # a shard holds one clip or two
    assert prepare_folder(sounds, tmp_path / "local") == 0
    assert prepare_folder(sounds, tmp_path / "beam", "--beam") == 0
    local, by_beam = files_of(tmp_path / "local"), files_of(tmp_path / "beam")
    assert len(local) > 5
    assert local == by_beam
    assert {row["status"] for row in report_of(tmp_path / "beam").values()} == {"kept", "refused"}


def crash_or_say(word: str) -> str:
    if word == "crash":
        os.abort()
    if word == "disk":
        raise OSError(28, "No space left")
    return word


def five_minutes(word: str) -> float:
    return 300.0


def test_a_clip_costs_only_itself_and_a_full_disk_everything(tmp_path, without_beam):
    pipelines = beam.BeamPipelines("", tmp_path, 1)
    run = functools.partial(pipelines.ordered_map, crash_or_say, patience_sec=five_minutes)
    assert list(run(["a", "crash", "b"])) == [("a", "a"), ("crash", Failed(CRASHED)), ("b", "b")]
    with pytest.raises(OSError, match="No space left"):
        list(run(["a", "disk"]))
    assert list(tmp_path.iterdir()) == []


def test_without_beam_the_extra_is_named(sounds, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert prepare_folder(sounds, tmp_path / "out", "--beam") == 2
    assert "pip install 'mmpretrain-jax[beam]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.multiprocess
def test_beams_own_runner_makes_the_same(sounds, tmp_path, capsys):  # noqa: F811
    pytest.importorskip("apache_beam", reason="extra `beam` is not installed")
    assert prepare_folder(sounds, tmp_path / "local") == 0
    assert prepare_folder(sounds, tmp_path / "beam", "--workers", 2, "--beam") == 0
    assert files_of(tmp_path / "local") == files_of(tmp_path / "beam")
    assert prepare_folder(sounds, tmp_path / "beam", "--overwrite", "--beam=--runner=NoSuchRunner") == 2
    assert "the pipeline does not run" in capsys.readouterr().err
