"""`launch/local.sh` with a stand-in for the program: what each process is told, and how they end together."""

import os
import re
import signal
import subprocess
import time

import pytest

from tests.launch.conftest import LAUNCH

# Says what it was told, then does what its second argument says for its number: leaves with that code, or waits for
# a signal.
PROGRAM = """
import os, signal, sys

signals = signal.SIGTERM, signal.SIGUSR1
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
names = ("MMPRETRAIN_COORDINATOR", "MMPRETRAIN_NUM_PROCESSES", "MMPRETRAIN_PROCESS_ID", "CUDA_VISIBLE_DEVICES")
print("told", *(os.environ[name] for name in names), *sys.argv[1:], flush=True)
does = sys.argv[2].split(",")[int(os.environ["MMPRETRAIN_PROCESS_ID"])]
if does == "wait":
    signal.sigwait(signals)
    print("saved", flush=True)
    does = 75
sys.exit(int(does))
"""


@pytest.fixture
def local(stub, monkeypatch):
    stub("mmpretrain", PROGRAM)
    monkeypatch.setenv("MMPRETRAIN_GRACE_SEC", "1")

    def start(*arguments) -> subprocess.Popen:
        return subprocess.Popen(
            [LAUNCH / "local.sh", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    return start


def finish(process) -> tuple[int, list[str], str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, sorted(out.splitlines()), err


def test_each_process_is_told_its_place(local):
    code, out, err = finish(local("3", "pretrain", "0,0,0", "--config.workdir=two words"))
    assert (code, err) == (0, "")
    address = re.search(r"127\.0\.0\.1:\d+", out[0])[0]
    assert out == [f"[{i}] told {address} 3 {i}  pretrain 0,0,0 --config.workdir=two words" for i in range(3)]


def test_gpus_are_dealt_out_one_each(local, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    code, out, _ = finish(local("2", "pretrain", "0,0"))
    assert code == 0
    assert [line.split()[5] for line in out] == ["2", "5"]
    code, out, _ = finish(local("1", "pretrain", "0,0"))
    assert [line.split()[5] for line in out] == ["2,5"], "one process alone has them all"
    code, out, err = finish(local("3", "pretrain", "0,0,0"))
    assert (code, out) == (2, [])
    assert "3 processes cannot share 2 GPUs" in err


def test_a_failing_process_ends_the_others_and_its_code_is_the_jobs(local):
    begin = time.monotonic()
    code, out, err = finish(local("3", "pretrain", "wait,3,wait"))
    assert code == 3
    assert "process 1 left with 3" in err
    assert "saved" not in "".join(out), "an error is no preemption"
    assert time.monotonic() - begin < 20


def test_an_error_outweighs_a_preemption(local):
    assert finish(local("2", "pretrain", "75,0"))[0] == 75
    assert finish(local("2", "pretrain", "75,4"))[0] == 4


@pytest.mark.parametrize("to_group", [False, True], ids=["to the launcher", "to all"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_reaches_every_process_and_the_job_is_preempted(local, name, to_group):
    process = local("2", "pretrain", "wait,wait")
    first = [process.stdout.readline() for _ in range(2)]
    assert all("told" in line for line in first)
    (os.killpg if to_group else os.kill)(process.pid, signal.Signals[name])
    code, out, err = finish(process)
    assert (code, err) == (75, "")
    assert out == ["[0] saved", "[1] saved"]


@pytest.mark.parametrize("arguments", [[], ["2"], ["0", "pretrain"], ["pretrain", "--config=a.py"]])
def test_wrong_arguments_are_told_the_right_ones(local, arguments):
    code, out, err = finish(local(*arguments))
    assert (code, out) == (2, [])
    assert err.startswith("usage: launch/local.sh NUM_PROCESSES COMMAND")
