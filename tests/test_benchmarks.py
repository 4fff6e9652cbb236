"""The benchmarks run as their help says, shrunk; their numbers are not judged here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def output(script: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


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


def test_help_teaches():
    for script in ("kmeans.py", "label_memory.py", "label_store.py", "planning.py"):
        assert f"python benchmarks/{script}" in output(script, "--help")
