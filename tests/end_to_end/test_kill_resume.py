"""A run that is killed at random moments ends with the numbers of one that was left alone; Ctrl-C leaves cleanly.

A kill in every stage is in test_demo.py, beside the run that it is compared with.
"""

import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.end_to_end.conftest import CHECKOUT, results, start, wait_for


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
