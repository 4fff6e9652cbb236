"""A folder has one owner: whoever comes second is told who it is, and takes over only from one that is gone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mmpretrain import lease
from mmpretrain.lease import LEASES, HeldError, Lease, newest_owner

QUICK = {"BEAT_SEC": 0.1, "LOST_SEC": 1.5, "POLL_SEC": 0.02}
# Another owner, which says so and stays. `elsewhere`: on a machine of which nothing can be seen but the folder.
OWNER = """
import sys, time
from pathlib import Path
from mmpretrain import lease
for name, value in {quick}.items():
    setattr(lease, name, value)
if "elsewhere" in sys.argv:
    lease._machine = lambda: "another"
with lease.Lease(Path(sys.argv[1]), "--output", on_lost=lambda line: print("LOST", line, flush=True), say=print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, value in QUICK.items():
        monkeypatch.setattr(lease, name, value)


@pytest.fixture
def other():
    """other(folder, ...): a process that holds the folder until its input ends."""
    started = []

    def start(folder, *more) -> subprocess.Popen:
        command = [sys.executable, "-c", OWNER.format(quick=QUICK), str(folder), *more]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(subprocess.Popen(command, cwd=Path(__file__).parents[1], **pipes))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def hold(folder, lost=None, said=None) -> Lease:
    lost, said = [] if lost is None else lost, [] if said is None else said
    return Lease(folder, "--config.workdir", on_lost=lost.append, say=said.append)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_the_second_is_told_who_the_first_is_and_what_to_do(tmp_path, other, where):
    process = other(tmp_path, where)
    owner = json.loads((tmp_path / LEASES / "1.json").read_text())
    with pytest.raises(HeldError) as refused, hold(tmp_path):
        pass
    for word in (f"--config.workdir={tmp_path} is in use", owner["user"], owner["host"], owner["since"],
                 f"process {process.pid}", f"kill -TERM {process.pid}", "give another --config.workdir"):  # fmt: skip
        assert word in str(refused.value)
    process.communicate("")  # it ends and says so
    begin = time.monotonic()
    with hold(tmp_path) as mine:
        assert time.monotonic() - begin < 1
        assert mine.own.number == 2
        assert mine.own.token in (tmp_path / LEASES / "2.json").read_text()


def test_an_owner_that_is_dead_on_this_machine_is_followed_at_once(tmp_path, other, monkeypatch):
    monkeypatch.setattr(lease, "LOST_SEC", 60.0)
    process = other(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)  # a zombie, which nobody has waited for, is dead too
    begin = time.monotonic()
    with hold(tmp_path) as mine:
        assert mine.own.number == 2
    process.wait()
    file = tmp_path / LEASES / "2.json"
    said = json.loads(file.read_text())
    (tmp_path / LEASES / "2.released").unlink()
    for pid, started in ((os.getpid(), "17"), (process.pid, said["started"])):  # a number used again; none
        file.write_text(json.dumps(said | {"pid": pid, "started": started}))
        assert newest_owner(tmp_path).is_gone
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("hours", [-30, 0, 30])
def test_an_owner_elsewhere_is_followed_after_it_was_silent_whatever_the_clocks_say(tmp_path, other, hours):
    process = other(tmp_path, "elsewhere")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    stamp = time.time() + 3600 * hours
    os.utime(tmp_path / LEASES / "1.json", (stamp, stamp))
    begin, said = time.monotonic(), []
    with hold(tmp_path, said=said) as mine:
        assert time.monotonic() - begin >= QUICK["LOST_SEC"]
        assert mine.own.number == 2
    assert "unless that gives a sign of life within 2 s" in said[0]


def test_a_beat_that_goes_back_in_time_is_one(tmp_path, other):
    process = other(tmp_path, "elsewhere")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    timer = threading.Timer(0.5, os.utime, (tmp_path / LEASES / "1.json", (1e9, 1e9)))
    timer.start()
    with pytest.raises(HeldError), hold(tmp_path):
        pass


def test_one_that_was_asleep_and_followed_learns_it_and_leaves_its_follower_alone(tmp_path, other):
    process = other(tmp_path, "elsewhere")
    os.kill(process.pid, signal.SIGSTOP)
    lost = []
    with hold(tmp_path, lost) as mine:
        os.kill(process.pid, signal.SIGCONT)
        told = process.stdout.readline()
        assert told.startswith(f"LOST --output={tmp_path} is not this process's any more: ")
        assert f"process {os.getpid()}" in told
        process.communicate("")
        time.sleep(3 * QUICK["BEAT_SEC"])
        assert not lost
        assert newest_owner(tmp_path) == mine.own
        assert not mine.own.is_gone
    assert mine.own.is_gone


def test_of_many_that_come_at_once_one_gets_it(tmp_path, other):
    process = other(tmp_path)
    process.kill()
    process.wait()
    outcomes, everyone = [], threading.Barrier(8)

    def try_it() -> None:
        everyone.wait()
        try:
            with hold(tmp_path):
                outcomes.append("mine")
                time.sleep(2)
        except HeldError:
            outcomes.append("refused")

    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["mine"] + ["refused"] * 7


def test_one_without_hard_links_is_as_good(tmp_path, monkeypatch):
    def none_here(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", none_here)
    with hold(tmp_path), pytest.raises(HeldError), hold(tmp_path):
        pass
    with hold(tmp_path) as mine:
        assert mine.own.number == 2


@pytest.mark.parametrize("content", ["", "{", "null", '{"token": 3}'])
def test_a_damaged_lease_is_waited_for_like_one_of_an_unknown_machine(tmp_path, content):
    (tmp_path / LEASES).mkdir()
    (tmp_path / LEASES / "4.json").write_text(content)
    begin = time.monotonic()
    with hold(tmp_path) as mine:
        assert mine.own.number == 5
    assert time.monotonic() - begin >= QUICK["LOST_SEC"]


def test_few_leases_are_kept_and_one_whose_folder_is_removed_is_lost(tmp_path):
    for _ in range(12):
        with hold(tmp_path / "run"):
            pass
    assert len(list((tmp_path / "run" / LEASES).iterdir())) <= 8
    lost = []
    with hold(tmp_path / "run", lost):
        shutil.rmtree(tmp_path / "run")
        while not lost:
            time.sleep(0.01)
    assert "its lease was removed" in lost[0]
    assert not (tmp_path / "run").exists()
