"""What TensorBoard and Weights & Biases show is what `metrics.jsonl` holds, also after a kill."""

import importlib.util
import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmpretrain.observe.boards import TensorBoard, Wandb
from mmpretrain.observe.metric_log import MetricWriter, read_metrics

STAGE = "round1/pretrain"


def shown(folder):
    """{name: [(step, value, time)]} of all event files of a folder."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value, event.wall_time) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def logged(path):
    """The same of the records."""
    names = {}
    for record in read_metrics(path):
        for name, value in record.items():
            if name not in ("stage", "step", "time/unix_sec") and isinstance(value, int | float):
                names.setdefault(name, []).append((record["step"], pytest.approx(value), record["time/unix_sec"]))
    return names


def test_events_equal_the_records_after_a_kill_and_a_restart(tmp_path):
    path, folder = tmp_path / "metrics.jsonl", tmp_path / "tensorboard" / STAGE
    facts = {"run/devices": "8 x cpu", "run/parameters": 12_345}

    def start(num_records):
        writer = MetricWriter(path, STAGE, facts, [TensorBoard(folder)])
        writer.resume(num_records, 6 if num_records else 0)
        return writer

    writer = start(0)
    for step in (2, 4, 6, 8):
        writer.write(step, {"train/loss": 1 / step, "time/step_sec": 0.1 * step})
        writer.write(step, {"validation/loss": 2 / step, "validation/ua": float("nan")})
    assert shown(folder) == logged(path), "at once, before anything is closed"
    writer.close()
    writer = start(5)  # killed; the checkpoint knows of five records
    assert shown(folder) == logged(path)
    assert len(shown(folder)["train/loss"]) == 3
    for step in (6, 8):
        writer.write(step, {"train/loss": 1 / step, "time/step_sec": 0.3 * step})
    writer.close()
    events = shown(folder)
    assert events == logged(path)
    assert [step for step, *_ in events["train/loss"]] == [2, 4, 6, 6, 8]
    assert set(events) == {"train/loss", "validation/loss", "time/step_sec", "run/parameters"}
    assert b"8 x cpu" in b"".join(file.read_bytes() for file in folder.iterdir())


def test_a_run_that_fails_before_it_has_begun_has_nothing_to_close(tmp_path):
    writer = MetricWriter(tmp_path / "metrics.jsonl", STAGE, {}, [TensorBoard(tmp_path / "tensorboard")])
    writer.close()
    assert not (tmp_path / "tensorboard").exists()


def test_without_weights_and_biases_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"observe.wandb_project='faces' needs .* 'mmpretrain-jax\[wandb\]'"):
        Wandb(tmp_path, "faces", "run", STAGE, {})


@pytest.mark.filterwarnings("default")  # theirs
def test_weights_and_biases_go_on_with_the_same_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    ids = []
    for _ in range(2):
        board = Wandb(tmp_path / "wandb", "faces", "run", STAGE, {"config.seed": 7})
        board.begin([{"stage": STAGE, "step": 1, "time/unix_sec": 1.0, "train/loss": 0.5, "run/devices": "8 x cpu"}])
        board.write({"stage": STAGE, "step": 2, "time/unix_sec": 2.0, "train/loss": 0.25, "validation/ua": None})
        board.close()
        ids.append((tmp_path / "wandb" / "id").read_text())
    assert len(set(ids)) == 1
    files = list((tmp_path / "wandb").rglob(f"run-{ids[0]}.wandb"))
    assert files
    content = b"".join(file.read_bytes() for file in files)
    assert b"train/loss" in content
    assert json.dumps("8 x cpu").encode() in content
