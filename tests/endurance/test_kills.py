"""A hundred random kills over all that a user runs, from preparation to export: bit for bit the undisturbed result."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpretrain.config import CorpusConfig
from mmpretrain.data.clips import open_clips
from tests.end_to_end.conftest import CHECKOUT, arguments, results

KILLS = 100


def commands(folder: Path) -> list[list[str]]:
    """What a user gives one after the other."""
    sizes = ["--mouth-size", "18", "--face-size", "20", "--clips", "40"]
    prepare = [sys.executable, "-m", "data_prep", "synthetic", "--output", str(folder / "corpus"), *sizes]
    run = [sys.executable, "-m", "mmpretrain", "run", *arguments(folder / "corpus", folder / "run")]
    return [prepare, run]


def held(value: Any) -> Any:
    """A value to be compared: of an array the digest of its bits."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    return {name: held(each) for name, each in value.items()} if isinstance(value, dict) else value


def outcome(folder: Path) -> tuple[dict[str, Any], tuple]:
    """What all records hold (their files write a record's fields in any order), and what the run reached and logged."""
    table = open_clips([CorpusConfig(str(folder / "corpus"))])
    records = {table.clip_ids[row]: held(vars(table.load(row))) for row in range(len(table))}
    assert records
    return records, results(folder / "run")


def where(folder: Path) -> str:
    """The stage that a kill now would come into."""
    if not (folder / "corpus" / "corpus.json").exists():
        return "preparation"
    begun = sorted((folder / "run").rglob("recipe.json"), key=lambda path: path.stat().st_mtime)
    return begun[-1].parent.relative_to(folder / "run").as_posix() if begun else "start"


@pytest.mark.endurance
@pytest.mark.multiprocess
@pytest.mark.timeout(20_000)
def test_a_hundred_random_kills_change_nothing(tmp_path):
    def start(command: list[str]) -> tuple[subprocess.Popen, Path]:
        log = tmp_path / "log"
        with open(log, "w") as output:
            # A session of its own, so that the workers of a preparation are not left behind by the kill.
            return subprocess.Popen(
                command, cwd=CHECKOUT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            ), log

    usual_sec = []
    for command in commands(tmp_path / "straight"):
        begun = time.monotonic()
        process, log = start(command)
        assert process.wait(900) == 0, log.read_text()
        usual_sec.append(time.monotonic() - begun)
    expected = outcome(tmp_path / "straight")

    rng, killed, lives = random.Random(11), Counter(), 0
    while killed.total() < KILLS:
        folder = tmp_path / f"life{lives}"
        for command, usual in zip(commands(folder), usual_sec, strict=True):
            while True:
                process, log = start(command)
                try:
                    # Late enough, often enough, to get on from kill to kill; what is short begins anew each time.
                    process.wait(rng.uniform(0, min(1.3 * usual, 30)) if killed.total() < KILLS else 900)
                    break
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    killed[where(folder)] += 1
            assert process.returncode == 0, log.read_text()
        assert outcome(folder) == expected
        lives += 1
    print(f"{killed.total()} kills in {lives} lives: {dict(killed)}")
    assert killed["preparation"] >= 2
    assert len(killed) >= 6, killed
