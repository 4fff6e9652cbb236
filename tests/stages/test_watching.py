"""A round that is watched: its first record, its traces, what `status` says of it at any time, and what a kill changes.

A kill is the copy of the run's folder at some moment: what another process would find.
"""

import json
import re
import shutil
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mmpretrain import lease
from mmpretrain.config import CorpusConfig, HealthConfig, ObserveConfig, mfcc
from mmpretrain.cost.flops import step_flops
from mmpretrain.observe.memory import peak_memory
from mmpretrain.observe.metric_log import MetricWriter, read_metrics
from mmpretrain.observe.wall_time import PARTS
from mmpretrain.run.run import Run
from mmpretrain.run.sealed import write_sealed
from mmpretrain.run.watching import peak_flops
from mmpretrain.stages.refine import refine
from mmpretrain.stages.report import report
from mmpretrain.tools.status import status
from tests.corpus_fixture import make_clip, write_corpus
from tests.metric_records import without_timings
from tests.observe.test_boards import logged, shown
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_round, tiny_run

STAGE, PEAK_TFLOPS = "round1/pretrain", 0.01
KILLED_AT, CHECKPOINT = 6, 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    clips = [make_clip(f"c{i}", 16 + i % 4, size=IMAGE_SIZE, video=False, speaker=f"s{i}") for i in range(16)]
    return write_corpus(tmp_path_factory.mktemp("corpora") / "hums", clips, IMAGE_SIZE, IMAGE_SIZE + 16)


def make_run(corpus, workdir, **options) -> Run:
    few = dict(fit_share=1.0, fit_passes=2, fit_restarts=1)
    config = tiny_run(
        workdir=str(workdir), model=tiny_model("audio"), health=HealthConfig(min_accuracy_gain=-1), finetune=None,
        rounds=(tiny_round(targets=mfcc(5, **few), num_steps=8),), log_every=2, validation_every=4,
    )  # fmt: skip
    config.data.corpora, config.checkpoint.every_steps = (CorpusConfig(str(corpus)),), CHECKPOINT
    config.data.validation_share = 0.3
    config.observe.peak_tflops = PEAK_TFLOPS
    return Run(config, **options)


@pytest.fixture(scope="module")
def watched(corpus, tmp_path_factory):
    """A run that was traced by flag and by touch, and its folder as a kill after step 6 would have left it."""
    straight, killed = (tmp_path_factory.mktemp("runs") / name for name in ("straight", "killed"))
    write = MetricWriter.write

    def and_copy(self, step, metrics):
        write(self, step, metrics)
        if step == KILLED_AT:
            while not (straight / STAGE / "checkpoints" / str(CHECKPOINT)).exists():
                time.sleep(0.01)
            shutil.copytree(straight, killed, ignore=shutil.ignore_patterns("*.orbax-checkpoint-tmp*"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricWriter, "write", and_copy)
        straight.mkdir()
        (straight / "profile").touch()
        run = make_run(corpus, straight, profile=range(7, 9))
        run.announce()
        refine(run)
    return SimpleNamespace(run=run, straight=straight, killed=killed)


def test_the_first_record_says_what_the_figures_are_measured_against(watched):
    records = [record for record in read_metrics(watched.straight / "metrics.jsonl") if "train/loss" in record]
    first = records[0]
    assert first["run/devices"].startswith(f"{watched.run.mesh.size} x cpu in 1 process")
    assert first["run/peak_flops_per_sec"] == watched.run.mesh.size * PEAK_TFLOPS * 1e12
    assert "observe.peak_tflops" in first["run/peak"]
    assert "2 * 104 * D" in first["run/mfu"]
    clips, frames = map(int, re.search(r"(\d+) x (\d+)", first["run/batches"]).groups())
    flops = sum(step_flops(watched.run.config.model, num_clips=clips, num_frames=frames, num_clusters=[5]).values())
    for record in records:
        mfu = flops / (record["time/step_sec"] * first["run/peak_flops_per_sec"])
        assert record["throughput/mfu"] == pytest.approx(mfu)
        assert record["memory/host_peak_bytes"] > 1e8
        assert {"train/masked_loss", "train/unmasked_loss", "train/feature_penalty", "train/grad_norm",
                "train/param_norm", "train/learning_rate", "train/masked_accuracy"} <= record.keys()  # fmt: skip
    assert [record for record in records[1:] if any(name.startswith("run/") for name in record)] == []


@pytest.mark.parametrize(
    ("kind", "observe", "peak", "words"),
    [
        ("NVIDIA H100 80GB HBM3", {}, 8 * 989e12, "8 x 989 TFLOP/s (NVIDIA H100 80GB HBM3; h100 in bfloat16: "),
        ("TPU v5 lite", {}, 8 * 197e12, "8 x 197 TFLOP/s (TPU v5 lite; v5e in bfloat16: "),
        ("TPU v5 lite", {"peak_tflops": 200.0}, 8 * 200e12, "8 x 200 TFLOP/s (TPU v5 lite; observe.peak_tflops)"),
        ("cpu", {}, None, "no peak: none is known for 'cpu', so throughput/mfu is left out; observe.peak_tflops=X"),
    ],
)
def test_the_peak_is_that_of_the_devices_at_hand(kind, observe, peak, words):
    mesh = SimpleNamespace(size=8, devices=np.array([SimpleNamespace(device_kind=kind)]))
    found, source = peak_flops(mesh, tiny_model("audio", dtype="bfloat16"), ObserveConfig(**observe))
    assert found == peak
    assert source.startswith(words)


def test_memory_is_that_of_the_fullest_device_where_it_is_told(monkeypatch):
    devices = [SimpleNamespace(memory_stats=lambda peak=peak: {"peak_bytes_in_use": peak}) for peak in (5, 9, 7)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert peak_memory() == {"memory/device_peak_bytes": 9}


def test_steps_are_traced_by_touch_and_by_flag(watched):
    traces = watched.straight / "traces"
    assert {folder.name for folder in traces.iterdir()} == {"round1-pretrain-step1-5", "round1-pretrain-step7-8"}
    for folder in traces.iterdir():
        assert list(folder.rglob("*.xplane.pb"))
        assert list(folder.rglob("*.trace.json.gz"))
    assert not (watched.straight / "profile").exists(), "so that the next touch is another one"


def test_a_killed_run_goes_on_without_a_record_twice_and_knows_what_it_lost(corpus, watched, tmp_path):
    killed = shutil.copytree(watched.killed, tmp_path / "killed")
    refine(make_run(corpus, killed))
    both = [read_metrics(folder / "metrics.jsonl") for folder in (killed, watched.straight)]
    again, straight = ([without_timings(record) for record in records] for records in both)
    assert again == straight
    assert shown(killed / "tensorboard" / STAGE) == logged(killed / "metrics.jsonl")
    wall = json.loads((killed / STAGE / "wall_time.json").read_text())
    assert (wall["attempts"], wall["doing"]) == (2, "")
    assert wall["seconds"]["redone_steps"] > 0
    assert wall["seconds"]["down"] > 0
    goodput = report(make_run(corpus, killed))["goodput"][STAGE]
    assert list(goodput) == list(PARTS)
    assert sum(goodput.values()) == pytest.approx(1)
    assert goodput["redone_steps"] > 0
    page = (killed / "report.html").read_text()
    assert "Where the time went" in page


def test_status_of_a_run_at_any_time(watched, tmp_path):
    folder = shutil.copytree(watched.killed, tmp_path / "run")
    file = folder / STAGE / "wall_time.json"
    wall = json.loads(file.read_text())

    def at(ago, doing="input_wait"):
        now = time.time()
        file.write_text(json.dumps(wall | {"updated": now - ago, "doing": doing}))
        return " ".join(status(folder).split())

    text = at(1)
    assert "round1/targets done" in text
    assert f"round1/pretrain running, step {CHECKPOINT} saved" in text
    assert "export to do" in text
    assert "running: input wait; last sign 1.0 s ago; attempt 1" in text
    assert re.search(r"step 6 of 8 \(75\.0%\): [\d.e+]+ steps/s, [\d,]+ frames/s, .* MFU [\d.]+%", text)
    assert "to go at this rate: " in text
    assert re.search(r"last checkpoint: step 4, [^;]+ ago; last record: step 6", text)
    assert re.search(
        r"loss [\d.]+, [+-][\d.e-]+ since step 4; masked accuracy [\d.]+%; validation loss .* at step 4", text
    )
    assert "every logged figure is a number" in text
    assert re.search(r"round 1: targets use \d of 5 clusters", text)
    text = at(7200)
    assert "NO SIGN OF LIFE for 2 h 00 min: killed, or the machine" in text
    assert f"round1/pretrain partly done, step {CHECKPOINT} saved" in text
    assert "STOPPED 30.0 s ago, in order; the same command continues" in at(30, doing="")

    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    old = [json.dumps(line | {"time/unix_sec": line["time/unix_sec"] - 7200}) + "\n" for line in lines]
    (folder / "metrics.jsonl").write_text("".join(old))
    assert "STALLED? there has been no record for 5 times as long as between any two before" in at(1)

    with open(folder / "metrics.jsonl", "a") as records:
        records.write(json.dumps({"stage": STAGE, "step": 8, "time/unix_sec": time.time(), "train/loss": None}) + "\n")
    assert f"NOT FINITE: 1 records, the first at step 8 of {STAGE}" in at(1)

    done = " ".join(status(watched.straight).split())
    assert "round1/pretrain done" in done
    assert re.search(r"\d / 5", done)
    assert "to go" not in done
    config = json.loads((folder / "config.json").read_text())
    config["health"]["min_accuracy_gain"] = 0.99
    shutil.copytree(watched.straight, tmp_path / "done")
    write_sealed(tmp_path / "done" / "config.json", config)
    assert "COLLAPSED: round 1 has collapsed" in status(tmp_path / "done")


@pytest.mark.parametrize(("hours", "words"), [(24, "ahead of"), (-24, "behind")])
def test_status_of_a_run_on_a_machine_whose_clock_differs(watched, tmp_path, monkeypatch, hours, words):
    folder = shutil.copytree(watched.killed, tmp_path / "run")
    file, lines = folder / STAGE / "wall_time.json", (folder / "metrics.jsonl").read_text().splitlines()
    shift = time.time() + 3600 * hours - json.loads(lines[-1])["time/unix_sec"]
    records = [json.loads(line) for line in lines]
    shifted = [json.dumps(r | {"time/unix_sec": r["time/unix_sec"] + shift}) + "\n" for r in records]
    (folder / "metrics.jsonl").write_text("".join(shifted))
    content = {"updated": time.time() + 3600 * hours, "doing": "input_wait"}
    file.write_text(json.dumps(json.loads(file.read_text()) | content))

    def text() -> str:
        found = " ".join(status(folder).split())
        assert not re.search(r"-\d[\d.]* (s|min|h)\b", found)
        return found

    if hours > 0:  # without a lease nobody can tell
        assert (
            "NO SIGN OF LIFE since a moment 24 h 00 min ahead of this machine's clock (their clocks differ)" in text()
        )
        assert "last record: step 6, 24 h 00 min ahead of this machine's clock (their clocks differ)" in text()
        file.write_text(json.dumps(json.loads(file.read_text()) | content | {"doing": ""}))
        assert "STOPPED 24 h 00 min ahead of this machine's clock (their clocks differ), in order" in text()
        file.write_text(json.dumps(json.loads(file.read_text()) | content))
    with lease.Lease(folder, "--config.workdir", on_lost=print, say=print):
        for machine in (lease._machine(), "another"):  # where it can be seen that the process lives, and where not
            monkeypatch.setattr(lease, "_machine", lambda machine=machine: machine)
            found = text()
            assert "round1/pretrain running" in found
            assert "running: input wait; last sign just now; attempt 1" in found
            assert f"the clock of its machine is 24 h 00 min {words} this one's" in found
            assert re.search(r"last record: step 6, \d\.\d s ago", found)
            assert "STALLED" not in found
    assert "running" not in text()


def test_status_of_what_is_no_run_says_so(watched, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        status(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"is no run: it has no config\.json"):
        status(tmp_path)
    shutil.copy(watched.straight / "config.json", tmp_path)  # announced, and killed before anything else
    assert status(tmp_path).count("to do") == 3
