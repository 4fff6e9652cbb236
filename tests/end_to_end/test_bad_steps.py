"""Bad steps through the command: stopped, looked into, passed over; and killed on the way, to the same numbers."""

import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from mmpretrain.observe.metric_log import read_metrics
from tests.end_to_end.conftest import CHECKOUT
from tests.metric_records import without_timings

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]

# So strict that ordinary ups and downs count as explosions: bad steps that all runs of this recipe have, and get over.
STRICT = "--config.health.max_loss_rise=1.0001"


def command(stage: str, corpus, workdir, *arguments: str) -> list[str]:
    recipe = CHECKOUT / "tests" / "multiprocess" / "sound.py"
    return [
        sys.executable, "-m", "mmpretrain", stage, "--round=1", f"--config={recipe}", f"--config.workdir={workdir}",
        f"--config.data.corpora[0].path={corpus}", "--config.finetune=None", "--config.rounds[0].num_steps=16",
        "--config.rounds[0].optimizer.peak_lr=1e-5", "--config.checkpoint.every_steps=3", "--config.log_every=1",
        *arguments,
    ]  # fmt: skip


def run(arguments: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(arguments, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=400)


def records(workdir) -> list[dict]:
    return [without_timings(record) for record in read_metrics(workdir / "metrics.jsonl")]


def test_a_bad_step_stops_the_run_is_replayed_and_passed_over_to_the_same_end(corpus, tmp_path):
    workdir, straight = tmp_path / "run", tmp_path / "straight"
    skip = "--config.health.skip_bad_steps=16"
    for folder in (workdir, straight):
        done = run(command("targets", corpus, folder))
        assert done.returncode == 0, done.stderr
    done = run(command("pretrain", corpus, straight, STRICT, skip))
    assert done.returncode == 0, done.stderr
    passed_over = [int(step) for step in re.findall(r"(?:passed over|,) step (\d+) \(", done.stderr)]
    counts = [record["train/passed_over"] for record in records(straight) if "train/passed_over" in record]
    assert len(passed_over) == counts[-1] > 0

    done = run(command("pretrain", corpus, workdir, STRICT))
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    message = done.stderr.splitlines()[-1]
    assert f"stopped before step {passed_over[0]} (loss " in message
    replay = shlex.split(re.search(r"`(mmpretrain replay [^`]+)`", message)[1])
    done = run([sys.executable, "-m", *replay])
    assert done.returncode == 0, done.stderr
    assert f"Step {passed_over[0]} of round1/pretrain: BAD" in done.stdout
    assert re.search(r"encoder\.transformer\.layers\.2 +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]", done.stdout)
    said, seen = re.search(r"\(loss ([\d.]+)", message)[1], re.search(r" loss +([\d.]+)", done.stdout)[1]
    assert f"{float(seen):.4g}" == said

    before = len(records(workdir))
    process = subprocess.Popen(
        command("pretrain", corpus, workdir, STRICT, skip), cwd=CHECKOUT, stderr=subprocess.DEVNULL
    )
    while len(records(workdir)) < before + 3 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = run(command("pretrain", corpus, workdir, STRICT, skip))
    assert done.returncode == 0, done.stderr
    assert records(workdir) == records(straight)
