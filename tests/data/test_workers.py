"""Processes that load: what they give back, what they say of errors, and that none outlives its caller."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mmpretrain.data import pipeline
from mmpretrain.data.pipeline import iterate
from mmpretrain.data.workers import Workers
from tests.data import loading

CALLER = """
import os, signal, sys, time
from mmpretrain.data.workers import Workers
from tests.data.loading import who

if __name__ == "__main__":
    with Workers(who, 2) as workers:
        print(*(pid for _, (pid, _) in workers.map(range(2), 0, 2)), flush=True)
        time.sleep(60)
"""


def alive(pid: int) -> bool:
    """Whether it is a process still; one that has ended and is waited for by nobody is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def all_gone(pids: list[int], within_sec: float = 10.0) -> bool:
    deadline = time.monotonic() + within_sec
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


@pytest.mark.parametrize("end", ["used up", "closed", "dropped"])
def test_workers_are_processes_without_jax_that_end_with_the_iterator(monkeypatch, end):
    monkeypatch.setattr(pipeline, "WORTH_SEC", 0.0)
    loaded = iterate(range(9), loading.who, first_step=0, num_steps=9, num_workers=2)
    assert next(loaded)[1][0] == os.getpid()
    pids, foreign = zip(*(next(loaded)[1] for _ in range(2)), strict=True)
    assert len({os.getpid(), *pids}) == 3
    assert foreign == ([], [])
    if end == "used up":
        assert len(list(loaded)) == 6
    elif end == "closed":
        loaded.close()
    else:
        del loaded
    assert not any(map(alive, pids)), "ended and waited for"


def test_the_thread_that_loads_little_ends_with_the_iterator():
    loaded = iterate(range(9), loading.who, first_step=0, num_steps=9, num_workers=2)
    assert {pid for _, (pid, _) in itertools.islice(loaded, 5)} == {os.getpid()}
    del loaded
    deadline = time.monotonic() + 5
    while of_grain() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not of_grain()


def of_grain() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")]


def test_large_arrays_can_be_written_and_stay_when_the_workers_have_ended():
    with Workers(loading.large, 1) as workers:
        ((_, first), (_, second)) = workers.map(range(2), 0, 2)
    first += 1
    assert (first == 1).all()
    assert (second == 1).all()


def test_memory_is_used_again_only_when_nobody_has_what_lies_in_it():
    with Workers(loading.large, 1) as workers:
        loaded, kept = workers.map(range(12), 0, 12), []
        for step, array in loaded:
            assert (array == step).all()
            kept += [array[:5]] * (step == 2)
        assert kept[0].tolist() == [2] * 5
        del array
        assert len(workers._workers[0]._receiver._memories) <= 5


def test_an_error_comes_in_its_turn_with_what_the_worker_knows_of_it():
    with Workers(loading.refused_at_5, 2) as workers:
        loaded = workers.map(range(9), 0, 9)
        assert [next(loaded)[1] for _ in range(5)] == list(range(5))
        with pytest.raises(ValueError, match=r"^clip 'c7' cannot be read$") as raised:
            next(loaded)
    assert "in refused_at_5" in str(raised.value.__cause__)
    with (
        Workers(loading.unpicklable, 1) as workers,
        pytest.raises(RuntimeError, match=r"RefusedError: clip 'c7' of step 0 cannot be read"),
    ):
        next(workers.map([0], 0, 1))


def test_a_worker_that_is_killed_ends_the_run():
    with Workers(loading.killed_at_3, 2) as workers:
        loaded = workers.map(range(9), 0, 9)
        assert [next(loaded)[1] for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ChildProcessError, match=r"a process that loads clips was killed \(Killed: out of"):
            next(loaded)


@pytest.mark.parametrize(
    ("number", "of_group", "code"),
    [(signal.SIGKILL, False, -signal.SIGKILL), (signal.SIGTERM, True, -signal.SIGTERM), (signal.SIGINT, True, -2)],
)
def test_no_worker_outlives_the_caller(tmp_path, number, of_group, code):
    script = tmp_path / "caller.py"
    script.write_text(CALLER)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    ) as caller:  # fmt: skip
        pids = list(map(int, caller.stdout.readline().split()))
        assert len(pids) == 2
        assert all(map(alive, pids))
        (os.killpg if of_group else os.kill)(caller.pid, number)
        assert caller.wait(10) == code
        assert all_gone(pids)
        assert "tests/data/loading.py" not in caller.stderr.read(), "workers leave the signal to the caller"
