import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmpretrain.observe.metric_log import read_metrics
from tests.metric_records import without_timings

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Forty clips of the embedded corpus, prepared by the real command."""
    folder = tmp_path_factory.mktemp("corpus") / "drawn"
    sizes = ["--mouth-size", "18", "--face-size", "20"]
    command = [sys.executable, "-m", "data_prep", "synthetic", "--output", str(folder), "--clips", "40", *sizes]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, timeout=300)
    return folder


def arguments(corpus: Path, workdir: Path) -> list[str]:
    recipe = CHECKOUT / "tests" / "end_to_end" / "tiny.py"
    return [f"--config={recipe}", f"--config.workdir={workdir}", f"--config.data.corpora[0].path={corpus}"]


def results(workdir: Path) -> tuple[dict, list[dict]]:
    """What a run reached and logged, without how long it took."""
    summary = json.loads((workdir / "summary.json").read_text())
    for name in ("wall_time_sec", "goodput", "name"):
        summary.pop(name, None)
    return summary, [without_timings(record) for record in read_metrics(workdir / "metrics.jsonl")]


def start(corpus, workdir) -> subprocess.Popen:
    command = [sys.executable, "-m", "mmpretrain", "run", *arguments(corpus, workdir)]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(stage: str, workdir, process, deadline_sec: float = 400) -> bool:
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
