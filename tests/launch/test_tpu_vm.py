"""`launch/tpu_vm.sh` with a stand-in for gcloud, which runs on this machine what it would send to the workers."""

import ast
import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.launch.conftest import LAUNCH

# Records its arguments. `ssh` runs the command for two workers in turn; `describe` says what the test has put there.
GCLOUD = """
import os, pathlib, subprocess, sys
with open("calls", "a") as calls:
    print(sys.argv[1:], file=calls)
if sys.argv[4] == "describe":
    states = pathlib.Path("states").read_text().split()
    pathlib.Path("states").write_text(" ".join(states[1:]))
    print(states[0])
    sys.exit(states[0] == "none")
command = sys.argv[-1].removeprefix("--command=")
bash = ["bash", "-c", command]
running = [subprocess.Popen(bash, cwd=f"worker{i}", env=os.environ | {"WORKER": str(i)}) for i in range(2)]
sys.exit(next((code for code in [process.wait() for process in running] if code), 0))
"""
CURL = """
import os, sys
print({"worker-network-endpoints": "unknown:unknown:10.0.0.7,unknown:unknown:10.0.0.9",
       "agent-worker-number": os.environ["WORKER"]}[sys.argv[-1].rsplit("/", 1)[1]])
"""
# Appends what it was told; leaves with the code on the file's next line, or waits for a signal.
PROGRAM = """
import json, os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(75))
told = {name: value for name, value in os.environ.items() if name.startswith("MMPRETRAIN_")}
with open("../told", "a") as file:
    print(json.dumps([sys.argv[1:], told]), file=file)
tries = len(pathlib.Path("../told").read_text().splitlines())
does = pathlib.Path("../../codes").read_text().split()[tries - 1]
if does == "wait":
    print("waiting", flush=True)
    time.sleep(60)
sys.exit(int(does))
"""


@pytest.fixture
def tpu_vm(stub, tmp_path, monkeypatch):
    """tpu_vm(codes, states): starts the launcher; the program leaves with `codes`, try by try."""
    for name, code in {"gcloud": GCLOUD, "curl": CURL, "mmpretrain": PROGRAM}.items():
        stub(name, code)
    for worker in range(2):
        (tmp_path / f"worker{worker}" / "mmpretrain").mkdir(parents=True)  # its home and the checkout
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMPRETRAIN_TPU_POLL_SEC", "0.01")

    def start(codes: str, states: str = "") -> subprocess.Popen:
        Path("codes").write_text(codes)
        Path("states").write_text(states)
        command = [LAUNCH / "tpu_vm.sh", "pod", "us-central1-a", "pretrain", "--config.workdir=it's $HOME"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def finish(process) -> tuple[int, str]:
    err = process.communicate(timeout=30)[1]
    return process.returncode, err


def told(worker: int) -> list:
    return [json.loads(line) for line in Path(f"worker{worker}", "told").read_text().splitlines()]


def calls() -> list[list[str]]:
    return [ast.literal_eval(line) for line in Path("calls").read_text().splitlines()]


def test_every_worker_runs_the_command_and_knows_its_place(tpu_vm):
    assert finish(tpu_vm("0")) == (0, "")
    for worker in range(2):
        [[arguments, environment]] = told(worker)
        assert arguments == ["pretrain", "--config.workdir=it's $HOME"]
        del environment["MMPRETRAIN_TPU_POLL_SEC"]
        assert environment == {
            "MMPRETRAIN_COORDINATOR": "10.0.0.7:8476",
            "MMPRETRAIN_NUM_PROCESSES": "2",
            "MMPRETRAIN_PROCESS_ID": str(worker),
        }
    [call] = calls()
    assert call[:-1] == ["compute", "tpus", "tpu-vm", "ssh", "pod", "--zone=us-central1-a", "--worker=all", "--quiet"]


def test_an_error_is_passed_on_and_not_tried_again(tpu_vm):
    assert finish(tpu_vm("3")) == (3, "")
    assert len(calls()) == 1


def test_a_preempted_run_continues_when_the_tpu_is_ready_again(tpu_vm):
    code, err = finish(tpu_vm("75 75 0", "REPAIRING READY READY"))
    assert code == 0
    assert err.count("preempted; waiting for pod to be ready") == 2
    assert [call[3] for call in calls()] == ["ssh", "describe", "describe", "ssh", "describe", "ssh"]
    assert len(told(0)) == len(told(1)) == 3


@pytest.mark.parametrize("state", ["PREEMPTED", "none"])
def test_a_tpu_that_is_gone_is_named_and_the_job_is_to_be_requeued(tpu_vm, state):
    code, err = finish(tpu_vm("75", state))
    assert code == 75
    assert "create it again and give the same command" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_makes_the_workers_save_and_the_launcher_leave(tpu_vm, number):
    process = tpu_vm("wait")
    assert process.stdout.readline() == process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    code, _ = finish(process)
    assert code == 75
    assert "kill -TERM" in calls()[1][-1]
    assert len(calls()) == 2, "a run that was told to stop is not started again"
