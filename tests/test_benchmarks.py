"""The benchmarks run as their help says, shrunk; their numbers are not judged here."""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmpretrain.output import at_least_1

ROOT = Path(__file__).parents[1]


def output(script: str, *arguments: str) -> str:
    """script: a file, or without .py a module."""
    where = [str(ROOT / "benchmarks" / script)] if script.endswith(".py") else ["-m", f"benchmarks.{script}"]
    command = [sys.executable, *where, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_a_count_of_none_is_one_line():
    for text in ("0", "-1", "2.5", ""):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is no whole number from 1 on"):
            at_least_1(text)
    assert at_least_1("3") == 3
    texts = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "benchmarks").glob("*.py")}
    others = [(name, option) for name, text in texts.items() for option in re.findall(r'"--([\w-]+)", type=int', text)]
    assert {option for _, option in others} == {"seed"}, others
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "label_store.py", "--parts", "0"], cwd=ROOT,
                          capture_output=True, text=True, check=False, timeout=100)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.endswith("error: argument --parts: '0' is no whole number from 1 on\n")


@pytest.mark.slow
def test_kmeans_compares_with_scikit_learn_on_the_same_frames():
    size = ("--frames", "3000", "--dim", "5", "--clusters", "8")
    text = output("kmeans.py", *size, "--runs", "1", "--sklearn-restarts", "2")
    rows = dict(re.findall(r"^(scikit-learn|ours).*? +1 +([\d.]+) ", text, re.MULTILINE))
    assert float(rows["scikit-learn"]) == 1
    assert 0.5 < float(rows["ours"]) < 1.02
    assert re.search(r"labelling 5 dims with 8 clusters: [\d,]+ frames/s", text)


@pytest.mark.slow
def test_memory_of_fitting_and_labelling_stays_flat():
    text = output("label_memory.py", "--frames", "50000", "--dim", "128")
    peaks = [float(peak) for peak in re.findall(r"(\d+) MiB$", text, re.MULTILINE)]
    features = [float(size) for size in re.findall(r"(\d+) MiB +\d+ MiB$", text, re.MULTILINE)]
    assert features == [24, 244, 24, 244]
    assert peaks[1] - peaks[0] < 80  # indices of the frames, and chance
    assert peaks[3] - peaks[2] < 50


@pytest.mark.slow
def test_labels_are_kept_faster_than_before():
    text = output("label_store.py", "--parts", "2000")
    ratio = re.search(r"adding 16,384 frames, to 2,000: .* in \d+ parts, ratio (\d+)", text)
    assert int(ratio[1]) > 1
    assert re.search(r"taking up again: [\d.]+ s\nmerging into a store: [\d.]+ s\nopening it: [\d.]+ s", text)


@pytest.mark.slow
def test_planning_compares_columns_with_objects_and_masks_with_sets():
    text = output("planning.py", "--clips", "30000", "--runs", "1")
    ratios = dict(re.findall(r"^(clips opened|an epoch planned, \w+).*? s +[\d.]+ s +([\d.]+)", text, re.MULTILINE))
    assert ratios.keys() == {"clips opened", "an epoch planned, one", "an epoch planned, three"}


SMALL = ("--clips", "2", "--frames", "10", "--turns", "1", "--turn-sec", "0.01")


@pytest.mark.slow
def test_steps_are_compared_with_pytorch_and_with_other_settings(tmp_path):
    figures = tmp_path / "figures.json"
    text = output("train_step", "--size", "tiny", *SMALL, "--set", "model.inputs.image_size=24",
                  "--set", "model.resnet_blocks=[1,1,1,1]", "--no-compile",
                  "--variant", "model.layerdrop=1 model.num_layers=1", "--json", str(figures))  # fmt: skip
    rows = {row["name"]: row for row in json.loads(figures.read_text())["rows"]}
    assert rows["ours"]["ratio"] == 1
    assert rows["ours"]["cached_compile_sec"] < rows["ours"]["compile_sec"]
    assert "ours, model.layerdrop=1 model.num_layers=1" in rows
    if importlib.util.find_spec("torch"):  # the same network: the losses differ by their dropout alone
        assert rows["PyTorch, eager"]["first_loss"] == pytest.approx(rows["ours"]["first_loss"], rel=0.1)
    else:
        assert "not measured: torch is not installed" in text


@pytest.mark.slow
def test_convolutions_and_kernels_are_measured_one_by_one():
    text = output("convolutions", "--pictures", "2", "--width", "4", "--image-size", "24", *SMALL[4:])
    assert len(re.findall(r"^stage \d, .* (?:forward|d input|d kernel)", text, re.MULTILINE)) == 30
    text = output("kernels", "--width", "16", "--heads", "2", "--square", "16", *SMALL)
    assert "not measured: it needs a GPU and bfloat16" in text


@pytest.mark.slow
def test_growth_finds_the_exponent():
    text = output("growth", "--quick", "--only", "layers", *SMALL)
    assert re.search(r"exponent: FLOPs 0\.\d+; measured: time", text)


def test_any_field_of_the_recipe_can_be_set_for_a_comparison():
    from benchmarks.train_step import overridden, recipe

    given = recipe("tiny", "float32")
    changed = overridden(given, ["model.layerdrop=0", "rounds[0].masking.kind=input", 'model.modalities=["audio"]'])
    assert (changed.model.layerdrop, changed.model.modalities) == (0.0, ("audio",))
    assert (changed.rounds[0].masking.kind, changed.rounds[1].masking.kind) == ("input", "feature")
    assert given.model.layerdrop == 0.05
    for wrong in ("model.layer_drop=0", "rounds[9].num_steps=1", "model.layerdrop=2", "model.layerdrop"):
        with pytest.raises(ValueError, match=re.escape(wrong.split("=")[0])):
            overridden(given, [wrong])


def test_gpu_script_says_what_is_not_measured_without_a_gpu(tmp_path):
    script, path = ROOT / "benchmarks" / "gpu.sh", f"{tmp_path}:/usr/bin:/bin"
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    done = subprocess.run([script, tmp_path / "results"], capture_output=True, text=True, env={"PATH": path})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not yet measured: there is no GPU here") == 6


def test_steps_are_measured_without_what_a_bare_gpu_machine_lacks():
    lacking = ("orbax", "tensorflow_datasets", "mediapipe", "cv2", "av", "librosa", "sklearn", "matplotlib",
               "ml_collections", "tqdm", "safetensors", "tensorboardX")  # fmt: skip
    code = f"""
import sys
sys.modules.update(dict.fromkeys({lacking}))
import benchmarks.convolutions, benchmarks.growth, benchmarks.kernels, mmpretrain.observe.memory
from benchmarks.contestants import Work, drawn, make_trainer, random_batch
make_trainer(benchmarks.growth.recipe("tiny", "float32"), 1).shapes
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_prediction_is_timed_by_stage():
    shared = Path(os.environ.get("MMPRETRAIN_SHARED_DIR", ROOT.parent / "shared"))
    clip, model = shared / "data/av/grid/other/brbk7n.mpg", shared / "models/face_landmarker.task"
    if not clip.is_file() or not model.is_file():
        pytest.skip(f"no real clips or no landmarker under {shared}; set MMPRETRAIN_SHARED_DIR")
    text = output("predict.py", str(clip), "--sizes", "tiny", "--workers", "1", "--landmarker", str(model))
    stages = dict(re.findall(r"^  (\S.*?)  +[\d.]+ s +[\d.]+ s of CPU +([\d.]+) x real time", text, re.MULTILINE))
    assert list(stages) == [
        "decode the picture", "decode it and look for faces", "decode the sound", "all of this, and crop everybody",
        "filterbank, encoder and head", "predict, 1 workers",
    ]  # fmt: skip
    assert all(float(times) > 0 for times in stages.values())


@pytest.mark.slow
def test_help_teaches():
    for script in ("kmeans.py", "label_memory.py", "label_store.py", "planning.py", "predict.py"):
        assert f"python benchmarks/{script}" in output(script, "--help")
    for module in ("train_step", "convolutions", "kernels", "growth", "prepare"):
        assert f"python -m benchmarks.{module}" in output(module, "--help")


@pytest.mark.slow
def test_loader_compares_with_the_usual_way_and_says_what_an_accelerator_needs():
    text = output("loader", "--clips", "8", "--turns", "1", "--batches", "1")
    assert float(re.search(r"^ours +[\d,]+ +([\d.]+)$", text, re.MULTILINE)[1]) > 1
    assert re.search(r"^one H200 needs 148,000 frames/s: [\d.]+ cores", text, re.MULTILINE)
    assert re.search(r"[\d.]+ % padding with buckets of 100, 200, 300, 400, 500", text)
