"""Every file that a finished run or preparation leaves, damaged: the same command makes it again or names it."""

import contextlib
import csv
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from data_prep.__main__ import main as prepare
from mmpretrain import records
from mmpretrain.config import CorpusConfig, HealthConfig, RunConfig, mfcc
from mmpretrain.observe.metric_log import read_metrics
from mmpretrain.run.run import Run
from mmpretrain.stages.run import run_all
from mmpretrain.targets.store import open_store
from mmpretrain.tools.status import status
from tests.corpus_fixture import damage_record, make_clip, write_corpus
from tests.data_prep.authored import tone, write_wav
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_round, tiny_run

DAMAGE = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "null": lambda content: b"null",
    "nothing in it": lambda content: b"{}",
    "zeros": lambda content: bytes(len(content)),
    "no text": lambda content: b"\xff\xfe\x00" + content[3:],
}
ALWAYS_WRITTEN = ("config.json", "summary.json", "report.html")  # at the top of a run, every time


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    clips = [
        make_clip(
            f"{speaker}{i}", 16 + i, size=IMAGE_SIZE, video=False, speaker=speaker, split=split,
            labels={"emotion": ("angry", "sad")[i % 2]},
        )
        for speaker, split in {"a": "train", "b": "train", "c": "train", "d": "validation", "e": "test"}.items()
        for i in range(4)
    ]  # fmt: skip
    return write_corpus(tmp_path_factory.mktemp("corpora") / "moods", clips, IMAGE_SIZE, IMAGE_SIZE + 16)


def make_config(corpus, workdir) -> RunConfig:
    few = dict(fit_share=1.0, fit_passes=2, fit_restarts=1)
    config = tiny_run(
        workdir=str(workdir), model=tiny_model("audio"), health=HealthConfig(min_accuracy_gain=-1),
        rounds=(tiny_round(targets=mfcc(5, **few), num_steps=2),),
    )  # fmt: skip
    config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(corpus)),), jax.device_count()
    config.finetune.tasks[0].classes, config.finetune.protocol = ("angry", "sad"), "official"
    config.finetune.num_steps, config.finetune.eval_every, config.finetune.compare_from_scratch = 2, 1, False
    config.finetune.batch_frames = 200
    config.finetune.accept_seen_labels = True  # its clips of one length are alike
    config.finetune.optimizer.warmup_steps = 0
    return config


def again(config: RunConfig) -> str:
    """Gives the command again; what it fails with, which may be nothing but what a user can mend."""
    try:
        run = Run(config)
        run.announce()
        run_all(run)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def figures(workdir) -> dict:
    summary = json.loads((workdir / "summary.json").read_text())
    return {name: summary[name] for name in ("rounds", "evaluation", "corpus")}


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    assert again(make_config(corpus, workdir)) == ""
    return workdir


def files_of(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def damaged_runs(whole: Path, folder: Path, cases, config, capsys) -> dict[str, int]:
    """Goes through (file, kind of damage), and counts what came of it."""
    counts = dict.fromkeys(("named", "made again", "not needed"), 0)
    expected = figures(whole)
    for name, kind in cases:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        file, content = folder / name, (whole / name).read_bytes()
        if (bad := DAMAGE[kind](content)) == content:
            continue
        file.write_bytes(bad)
        with contextlib.suppress(ValueError):  # looking never ends in a traceback
            status(folder)
        capsys.readouterr()
        problem = again(config)
        said = capsys.readouterr().err
        where = f"{name} {kind}: {problem or said[-300:]}"
        if problem:
            assert any(str(path) in problem for path in (file, *file.parents[: len(name.parts) - 1])), where
            counts["named"] += 1
            continue
        assert figures(folder) == expected, where
        if file.exists() and file.read_bytes() == bad:
            counts["not needed"] += 1
            continue
        assert str(name) in ALWAYS_WRITTEN or file.name in said or f"{name.parent}" in said, where
        counts["made again"] += 1
    return counts


# Of each kind of file one, those that everything stands on first.
CASES = {
    "round1/targets/result.json": "nothing in it", "round1/pretrain/result.json": "null",
    "evaluation/result.json": "half", "export/result.json": "no text", "round1/pretrain/recipe.json": "empty",
    "round1/pretrain/wall_time.json": "zeros", "round1/health.json": "null", "metrics.jsonl": "half",
    "config.json": "empty", "round1/targets/codebook1/store/ids.npy": "half",
}  # fmt: skip


@pytest.mark.slow
def test_a_finished_run_with_a_damaged_file_goes_on_or_names_it(corpus, whole, tmp_path, capsys):
    cases = [(Path(name), kind) for name, kind in CASES.items()]
    counts = damaged_runs(whole, tmp_path / "run", cases, make_config(corpus, tmp_path / "run"), capsys)
    assert counts["named"] >= 1
    assert counts["made again"] >= 6


def test_a_run_passes_over_a_clip_that_cannot_be_read_and_counts_it(corpus, whole, tmp_path, capsys):
    hurt = shutil.copytree(corpus, tmp_path / "moods")
    damage_record(hurt)
    config = make_config(hurt, tmp_path / "run")
    assert "max_unreadable_share=0.01 allows: '" in again(config)
    config.data.max_unreadable_share = 0.1
    assert again(config) == ""
    (clip_id,) = json.loads((tmp_path / "run" / "summary.json").read_text())["unreadable_clips"]
    assert f"clips so far: clip '{clip_id}'" in capsys.readouterr().err
    counts = [r["train/unreadable_clips"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if
              "train/unreadable_clips" in r]  # fmt: skip
    assert sum(counts) >= 1
    targets, expected = (
        open_store(workdir / "round1/targets/codebook1/store") for workdir in (tmp_path / "run", whole)
    )
    lengths = [np.diff(store.offsets) for store in (targets, expected)]
    assert [int((one != other).sum()) for one, other in [lengths]] == [1]
    assert min(lengths[0]) == 0
    assert json.loads((whole / "summary.json").read_text())["unreadable_clips"] == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_file_of_our_own_in_a_finished_run_damaged(corpus, whole, tmp_path, capsys):
    own = [name for name in files_of(whole) if not {"checkpoints", "best", "tensorboard"} & set(name.parts)]
    kinds = list(DAMAGE)
    state = ("result.json", "recipe.json", "wall_time.json", "health.json", "metrics.jsonl")
    cases = [(name, kinds[i % len(kinds)]) for i, name in enumerate(own)]
    cases += [(name, kind) for name in own if name.name in state and name.parts[0] != "finetune" for kind in kinds]
    counts = damaged_runs(whole, tmp_path / "run", dict.fromkeys(cases), make_config(corpus, tmp_path / "run"), capsys)
    with capsys.disabled():
        print(counts)
    assert counts["named"] >= 6
    assert counts["made again"] >= 20


@pytest.mark.endurance
@pytest.mark.timeout(15_000)
def test_every_file_of_a_finished_run_damaged_in_every_way(corpus, whole, tmp_path, capsys):
    cases = [(name, kind) for name in files_of(whole) for kind in DAMAGE]
    counts = damaged_runs(whole, tmp_path / "run", cases, make_config(corpus, tmp_path / "run"), capsys)
    with capsys.disabled():
        print(counts)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder of sounds, and the corpus that was prepared of it."""
    source, output = tmp_path_factory.mktemp("sounds"), tmp_path_factory.mktemp("corpora") / "whole"
    for k in range(3):
        write_wav(source / f"good{k}.wav", tone(0.6 + 0.1 * k, hz=200 + 100 * k))
    (source / "broken.wav").write_bytes(b"this is no sound")
    assert prepare(["folder", "--source", str(source), "--output", str(output), "--workers", "1"]) == 0
    return source, output


@pytest.mark.slow
def test_a_preparation_with_a_damaged_or_missing_file_is_made_again_or_names_it(prepared, tmp_path, capsys):
    source, whole = prepared
    output = tmp_path / "corpus"
    arguments = ["folder", "--source", str(source), "--output", str(output), "--workers", "1"]
    expected, counts = json.loads((whole / records.CORPUS_FILE).read_text())["fingerprint"], [0, 0, 0]
    kinds = [*DAMAGE, "removed"]
    names = [name for name in files_of(whole) if name.parts[0] != ".lease"]
    cases = [(name, kinds[i % len(kinds)]) for i, name in enumerate(names)]
    cases += [(name, kind) for name in names if name.name == "preparation.json" for kind in DAMAGE]
    cases += [(name, "removed") for name in names if name.parts[0] == records.DATASET_NAME]
    for name, kind in dict.fromkeys(cases):
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(whole, output)
        file = output / name
        if kind == "removed":
            file.unlink()
        else:
            file.write_bytes(DAMAGE[kind](file.read_bytes()))
        capsys.readouterr()
        code, printed = prepare(arguments), capsys.readouterr()
        if code:
            assert code == 2
            assert str(output) in printed.err, (name, kind, printed)
            assert "--overwrite" in printed.err or "give another folder" in printed.err
            assert "Traceback" not in printed.err
            counts[0] += 1
            continue
        assert json.loads((output / records.CORPUS_FILE).read_text())["fingerprint"] == expected, (name, kind)
        if "nothing to do" in printed.out:  # a report, or landmarks that nobody needs while the corpus is whole
            assert name.parts[0] in ("cache", "report.csv", "report.html"), (name, kind)
            counts[1] += 1
            continue
        assert file.name in printed.out, (name, kind, printed)
        counts[2] += 1
    assert counts[0] >= 5
    assert counts[2] >= 5


def test_damaged_landmarks_are_looked_for_again_with_a_line(prepared, tmp_path, capsys):
    source, whole = prepared
    shutil.copytree(whole, tmp_path / "corpus")
    (tmp_path / "corpus" / records.CORPUS_FILE).unlink()
    caches = sorted((tmp_path / "corpus" / "cache").rglob("*.npz"))
    assert len(caches) == 4
    for cache, kind in zip(caches, ("empty", "half", "zeros", "null"), strict=True):
        cache.write_bytes(DAMAGE[kind](cache.read_bytes()))
    arguments = ["--source", str(source), "--output", str(tmp_path / "corpus"), "--workers", "1"]
    assert prepare(["folder", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "landmarks of 4 clips were damaged in" in printed
    assert "0 of them known already" in printed
    with open(tmp_path / "corpus" / "report.csv", newline="") as file:
        assert sorted(row["status"] for row in csv.DictReader(file)) == ["kept", "kept", "kept", "refused"]
