import json
import math
import os
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from mmpretrain.observe.metric_log import MetricWriter, read_metrics
from tests.metric_records import without_timings


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "metrics.jsonl"


def test_records_come_back_in_order_as_plain_json(path):
    writer = MetricWriter(path, "round1/pretrain")
    writer.write(0, {"train/loss": jnp.float32(0.1), "train/count": 3})
    writer.write(np.int64(100), {"train/loss": np.float64(2.0)})
    assert [without_timings(record) for record in read_metrics(path)] == [
        {"stage": "round1/pretrain", "step": 0, "train/loss": float(np.float32(0.1)), "train/count": 3},
        {"stage": "round1/pretrain", "step": 100, "train/loss": 2.0},
    ]


def test_what_is_not_finite_is_null(path):
    MetricWriter(path, "s").write(1, {"train/loss": math.nan, "validation/loss": jnp.inf})
    assert without_timings(json.loads(path.read_text())) == {
        "stage": "s",
        "step": 1,
        "train/loss": None,
        "validation/loss": None,
    }


def test_resume_removes_what_will_be_written_again_and_nothing_of_other_stages(path):
    other, stage = MetricWriter(path, "round1/pretrain"), MetricWriter(path, "round2/pretrain")
    for step in (0, 10, 20):
        other.write(step, {"train/loss": 1.0})
        stage.write(step, {"train/loss": 2.0})
    straight = read_metrics(path)
    again = MetricWriter(path, "round2/pretrain")
    again.resume(1, 0)
    assert [(r["stage"], r["step"]) for r in read_metrics(path) if r["step"] >= 10] == [
        ("round1/pretrain", 10),
        ("round1/pretrain", 20),
    ]
    for step in (10, 20):
        again.write(step, {"train/loss": 2.0})
    again, straight = (
        [str(without_timings(record)) for record in records] for records in (read_metrics(path), straight)
    )
    assert sorted(again) == sorted(straight)
    assert os.listdir(path.parent) == ["metrics.jsonl"]


def test_half_a_last_line_is_dropped_and_never_joined_to_the_next_record(path):
    MetricWriter(path, "s").write(1, {"train/loss": 1.0})
    with open(path, "a") as file:
        file.write('{"stage": "s", "step": 2, "tra')
    assert [record["step"] for record in read_metrics(path)] == [1]
    writer = MetricWriter(path, "s")
    writer.resume(1, 1)
    writer.write(2, {"train/loss": 2.0})
    assert [record["step"] for record in read_metrics(path)] == [1, 2]


def test_a_whole_last_record_survives_the_loss_of_its_line_end(path):
    MetricWriter(path, "s").write(1, {"train/loss": 1.0})
    path.write_text(path.read_text().rstrip("\n"))
    MetricWriter(path, "s").write(2, {"train/loss": 2.0})
    assert [record["step"] for record in read_metrics(path)] == [1, 2]


@pytest.mark.parametrize(
    "line", ["noise", "null", "{}", "[]", '{"stage": "s", "step": null, "time/unix_sec": 1}', "\0\0\0", "[" * 10_000]
)
def test_a_damaged_line_is_named_and_left_out_and_the_run_goes_on(path, capsys, line):
    writer = MetricWriter(path, "s")
    for step in (1, 2, 3, 4):
        writer.write(step, {"train/loss": 1.0})
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[2:], ""]))
    named = []
    assert [record["step"] for record in read_metrics(path, named.append)] == [1, 3, 4]
    assert named == [2]
    again = MetricWriter(path, "s")
    assert "1 lines, of which line 2 is the first, are no records; they are left out" in capsys.readouterr().err
    again.resume(3, 3)  # from a checkpoint of step 3, after three records
    again.write(4, {"train/loss": 1.0})
    assert [record["step"] for record in read_metrics(path, named.append)] == [1, 3, 4]
    assert named == [2]


def test_no_file_means_no_records(path):
    assert read_metrics(path) == []
    MetricWriter(path, "s").resume(0, 0)
    assert read_metrics(path) == []


def test_facts_are_said_once_after_every_start_and_change_nothing_else(path):
    for attempt, step in (("one", 10), ("two", 30)):
        writer = MetricWriter(path, "s", {"run/devices": attempt, "run/parameters": 7})
        for later in (0, 10):
            writer.write(step + later, {"train/loss": 1.0})
    records = read_metrics(path)
    assert [record.get("run/devices") for record in records] == ["one", None, "two", None]
    assert [without_timings(record) for record in records] == [
        {"stage": "s", "step": step, "train/loss": 1.0} for step in (10, 20, 30, 40)
    ]


def test_timings_can_be_told_from_what_a_run_must_reproduce():
    record = {"stage": "s", "step": 1, "train/loss": 1.0, "time/step_sec": 0.2, "throughput/clips_per_sec": 9.0}
    assert without_timings(record) == {"stage": "s", "step": 1, "train/loss": 1.0}


def test_every_record_is_there_after_kill_9(path):
    program = (
        "import os, signal, sys\n"
        "from mmpretrain.observe.metric_log import MetricWriter\n"
        "writer = MetricWriter(sys.argv[1], 's')\n"
        "for step in range(20): writer.write(step, {'train/loss': 1.0})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(path)])
    assert killed.returncode == -signal.SIGKILL
    assert [record["step"] for record in read_metrics(path)] == list(range(20))
