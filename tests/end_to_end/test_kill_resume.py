"""A run that is killed again and again ends with the numbers of one that was left alone, bit for bit."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from mmpretrain.observe.metric_log import read_metrics
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


def moment(kind: str, workdir, file):
    """A function that says whether a run came to such a moment since this was called."""
    metrics = workdir / "metrics.jsonl"

    def logged() -> int:
        return metrics.stat().st_size if metrics.exists() else 0

    before = logged()
    return {
        "loading": lambda: "taken up again" in file.read_text(),
        "a step": lambda: logged() > before,
        "saving": lambda: any(workdir.rglob("*.orbax-checkpoint-tmp*")),
    }[kind]


def kill_at_random(kills: int, seed: int, corpus, folder) -> None:
    """Kills runs at random moments; each that comes to its end equals the straight one."""
    arguments_ = [
        f"--config={CHECKOUT / 'tests' / 'multiprocess' / 'sound.py'}",
        f"--config.data.corpora[0].path={corpus}",
    ]

    def begin(workdir):
        file = workdir.with_name(workdir.name + ".log")
        command = [sys.executable, "-m", "mmpretrain", "run", *arguments_, f"--config.workdir={workdir}"]
        with open(file, "w") as output:
            return subprocess.Popen(command, cwd=CHECKOUT, stdout=output, stderr=subprocess.STDOUT), file

    straight, file = begin(folder / "straight")
    assert straight.wait(600) == 0, file.read_text()
    expected = results(folder / "straight")
    rng, killed, runs = random.Random(seed), Counter(), 0
    while True:
        workdir = folder / f"run{runs}"
        kind = rng.choice(["loading", "a step", "a step", "saving", "saving"]) if killed.total() < kills else ""
        process, file = begin(workdir)
        come = moment(kind, workdir, file) if kind else lambda: False
        while process.poll() is None and not come():
            time.sleep(0.003)
        if process.poll() is None:
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed[kind] += 1
            continue
        assert process.returncode in (0, -signal.SIGKILL), file.read_text()
        if process.returncode == 0:
            assert results(workdir) == expected
            assert "damaged" not in file.read_text()  # no half-written checkpoint was ever taken for a whole one
            if not kind:
                break
            runs += 1
    assert killed.total() >= kills
    assert len(killed) == 3, killed


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.timeout(3000)
def test_twenty_random_kills_change_nothing(corpus, tmp_path):
    kill_at_random(20, 7, corpus, tmp_path)


@pytest.mark.multiprocess
def test_ctrl_c_leaves_cleanly(corpus, tmp_path):
    process = start(corpus, tmp_path / "run")
    assert wait_for("round1/pretrain", tmp_path / "run", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "the same command continues" in output
    assert "Traceback" not in output
