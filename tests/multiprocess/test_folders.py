"""All processes of a run see the same folders, or none of them begins; one that loses its folder ends them all."""

import socket
import time

import pytest

from mmpretrain.files import write_json, write_new
from mmpretrain.lease import LEASES, newest_owner
from tests.multiprocess.running import Processes

pytestmark = pytest.mark.multiprocess


@pytest.fixture
def start(tmp_path):
    """start(folder of 0, of 1, corpus of 0, of 1, ...): two processes that own their folder."""
    for name in ("corpus", "other"):
        write_json(tmp_path / name / "corpus.json", {"name": name})

    def begin(*arguments) -> Processes:
        folders = [str(tmp_path / name) for name in arguments[:4]]
        return Processes(2, 1, tmp_path / "out", "tests.multiprocess.folders", *folders, *arguments[4:])

    return begin


def test_a_process_that_sees_another_folder_or_corpus_is_named(start, tmp_path):
    with start("a", "b", "corpus", "corpus") as run:
        assert run.wait(90) == [2, 2], run.output(0)
        for index in (0, 1):
            said = " ".join(run.output(index).split())
            assert f"process 1 of 2 on {socket.gethostname()} does not find in {tmp_path / 'b'} what process 0" in said
            assert "--config.workdir must be one folder that all processes share" in said
            assert "Traceback" not in said
            assert "owned" not in said
    assert newest_owner(tmp_path / "a").is_gone
    with start("a", "a", "corpus", "other") as run:
        assert run.wait(90) == [2, 2], run.output(0)
        assert f"sees another {tmp_path / 'other' / 'corpus.json'} than process 0" in run.output(0)


def test_processes_of_one_folder_begin_and_one_that_is_followed_ends_them_all(start, tmp_path):
    with start("a", "a", "corpus", "corpus", "stay") as run:
        deadline = time.monotonic() + 90
        while not all("owned" in run.output(index) for index in (0, 1)):
            assert time.monotonic() < deadline, run.output(0)
            time.sleep(0.1)
        assert newest_owner(tmp_path / "a").pid == run.started[0].pid
        write_new(tmp_path / "a" / LEASES / "2.json", "{}")
        assert run.wait(30) == [2, 2], run.output(0)
        for index in (0, 1):
            assert "is not this process's any more: another process has taken it over" in run.output(index)
