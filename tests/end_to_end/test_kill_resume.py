"""A run that is killed again and again ends with the numbers of one that was left alone, bit for bit."""

import random
import signal
import subprocess
import sys
import time

import pytest

from mmpretrain.observe.metrics import read_metrics
from tests.end_to_end.conftest import CHECKOUT, arguments, results

# The recipe's longest piece of work between two of these is a few seconds.
MOMENTS = (
    "round1/targets", "round1/pretrain", "round1/pretrain", "round2/targets", "round2/pretrain",
    "finetune/pretrained/fold1", "finetune/scratch/fold1", "evaluation", "export",
)  # fmt: skip


def start(corpus, workdir) -> subprocess.Popen:
    command = [sys.executable, "-m", "mmpretrain", "run", *arguments(corpus, workdir)]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(stage: str, workdir, process, deadline_sec: float = 180) -> bool:
    """Waits until the stage has begun and, if it trains, has logged one step more; False if the run ended first."""
    file = workdir / "metrics.jsonl"

    def logged() -> int:
        return sum(record["stage"] == stage for record in read_metrics(file))

    before, deadline = logged(), time.monotonic() + deadline_sec
    trains = "pretrain" in stage or "finetune" in stage
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        if (workdir / stage / "recipe.json").exists() and (not trains or logged() > before):
            return True
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"{stage} did not begin within {deadline_sec} s: {process.communicate()[0]}")


@pytest.mark.multiprocess
def test_killed_run_equals_the_straight_one(corpus, tmp_path):
    straight = start(corpus, tmp_path / "straight")
    output, _ = straight.communicate(timeout=300)
    assert straight.returncode == 0, output

    rng, kills = random.Random(5), 0
    for stage in MOMENTS:
        process = start(corpus, tmp_path / "killed")
        if wait_for(stage, tmp_path / "killed", process):
            time.sleep(rng.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills >= 6

    last = start(corpus, tmp_path / "killed")
    output, _ = last.communicate(timeout=300)
    assert last.returncode == 0, output
    assert results(tmp_path / "killed") == results(tmp_path / "straight")


@pytest.mark.multiprocess
def test_ctrl_c_leaves_cleanly(corpus, tmp_path):
    process = start(corpus, tmp_path / "run")
    assert wait_for("round1/pretrain", tmp_path / "run", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "the same command continues" in output
    assert "Traceback" not in output
