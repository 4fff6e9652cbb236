"""Expressive clips are retrieved within their quotas, the same each time, and of nobody whom the fold keeps apart."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest

from mmpretrain.config import OptimizerConfig, RetrievalConfig, TaskConfig
from mmpretrain.data.clips import training_and_validation
from mmpretrain.data.retrieved import Quotas, choose
from mmpretrain.downstream.retrieval import expressiveness, precision, prototypes
from mmpretrain.run.run import Run
from mmpretrain.stages.retrieve import retrieve
from tests.stages.tones import PITCH_HZ

LIKENESS = TaskConfig("likeness", "emotion", kind="embedding", classes=tuple(PITCH_HZ), embedding_dim=4)
RETRIEVAL = RetrievalConfig(
    LIKENESS, hours=20 * 9 / 25 / 3600, class_share=0.5, speaker_share=0.5, num_steps=2,
    optimizer=OptimizerConfig(warmup_steps=0),
)  # fmt: skip


def embedding_run(tone_run, path, **changes):
    config = tone_run(path, protocol="speakers-6", folds=(1,)).config
    config.data.exclude_folds, config.retrieval = (1, 2), dataclasses.replace(RETRIEVAL, **changes)
    config.health.max_loss_rise = 1_000.0  # of a few clips one may be alone in its class
    return Run(config)


def test_quotas_are_exact():
    random = np.random.default_rng(0)
    frames, classes = random.integers(5, 30, 300), random.integers(0, 3, 300)
    speakers = [("", "a", "b", "c")[i] for i in random.integers(0, 4, 300)]
    quotas = Quotas(900, 400, 250)
    order = random.permutation(300)
    rows = choose(order, classes, speakers, frames, quotas)
    left_out = np.setdiff1d(order, rows)

    def used(where):
        return int(frames[rows][where].sum())

    assert used(np.ones(len(rows), bool)) <= 900
    assert len(set(rows.tolist())) == len(rows)
    of_class = [used(classes[rows] == c) for c in range(3)]
    of_speaker = {who: used(np.array([speakers[r] == who for r in rows])) for who in "abc"}
    assert max(of_class) <= 400
    assert max(of_speaker.values()) <= 250
    for row in left_out:
        full = used(np.ones(len(rows), bool)) + frames[row] > 900
        full |= of_class[classes[row]] + frames[row] > 400
        full |= bool(speakers[row]) and of_speaker.get(speakers[row], 0) + frames[row] > 250
        assert full, "what was left out fits in no more"


def test_scores_and_precision_are_as_they_are_written():
    points = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    of_class = prototypes(points, np.array([0, 0, 1, 2]), 3)
    said = expressiveness(points, of_class, np.array([True, False, False]))
    assert said.scores.tolist() == [-1, -1, 1, 1]
    assert said.classes[2:].tolist() == [1, 2]
    assert said.nearest.tolist() == [0, 0, 1, 2]
    yes, taken = np.array([1, 0, 1, 1, 0, 0], bool), np.array([1, 0, 1, 1, 0, 1], bool)
    told = precision([*"abcdef"], ["x", "x", "y", "y", "z", "z"], yes, np.arange(6.0), taken)
    assert (told["precision"], told["chance"], told["units"]) == (0.75, 0.5, 3)
    assert told["over_chance"]["low"] < 0.25 < told["over_chance"]["high"]


@pytest.mark.slow
def test_a_manifest_is_the_same_each_time_and_a_part_of_the_corpus(tone_run, tmp_path):
    run, texts = embedding_run(tone_run, tmp_path), []
    folder = run.workdir / "retrieval" / "score" / "fold1"
    for _ in range(2):
        shutil.rmtree(folder, ignore_errors=True)
        (result,) = retrieve(run)
        texts.append((folder / "manifest.csv").read_bytes())
    assert texts[0] == texts[1]
    rows = list(csv.DictReader(texts[0].decode().splitlines()))
    assert 0 < len(rows) == result["clips"]
    assert not {row["speaker"] for row in rows} & {"s0", "s1"}, "whom the fold tests and chooses by"
    assert {row["class"] for row in rows} <= {"happy", "sad"}

    data = dataclasses.replace(run.config.data, validation_share=0.0, exclude_folds=())
    data.corpora = (dataclasses.replace(data.corpora[0], retrieved=str(folder)),)
    assert sorted(training_and_validation(data)[0].clip_ids) == sorted(row["clip_id"] for row in rows)
    config = run.config
    config.data.corpora = data.corpora
    config.data.exclude_folds, config.finetune.folds = (4, 5), (4,)
    with pytest.raises(ValueError, match=r"retrieved=.*: its embedding was trained on s3, s4, whom data\."):
        _ = Run(config).clips
    (folder / "manifest.csv").write_bytes(texts[0] + b"x")
    with pytest.raises(ValueError, match=r"manifest\.csv is damaged.*make it again with `mmpretrain retrieve`"):
        training_and_validation(data)


def test_what_cannot_be_retrieved_is_one_line(tone_run, tmp_path):
    run = embedding_run(tone_run, tmp_path)
    run.config.data.exclude_folds = ()
    with pytest.raises(ValueError, match=r"are of s0, s1, whom fold 1 of speakers-6 v1 tests or chooses by"):
        retrieve(Run(run.config))
    run.config.finetune.protocol = "clips-6"
    with pytest.raises(ValueError, match=r"protocol='clips-6' has the same people in several parts .*use a protoc"):
        retrieve(Run(run.config))
    few = embedding_run(tone_run, tmp_path, hours=0.0005, speaker_share=0.1)
    said = r"hours=0\.0005 are 1\.8 s, .* a speaker 0\.16 s \(speaker_share=0\.1\), but the shortest of the .* 0\.32 s"
    with pytest.raises(ValueError, match=said):
        retrieve(few)
    assert not (tmp_path / "retrieval" / "finetune").exists(), "before the embedding is trained"
    with pytest.raises(
        ValueError, match=r"retrieval\.neutral=\('calm',\); it must be some, not all, of the classes neut"
    ):
        embedding_run(tone_run, tmp_path, neutral=("calm",))
    with pytest.raises(ValueError, match=r"retrieval\.task\.kind='class'; it must be 'embedding'"):
        embedding_run(tone_run, tmp_path, task=dataclasses.replace(LIKENESS, kind="class"))
    run.config.retrieval = None
    with pytest.raises(ValueError, match=r"this recipe has no retrieval part; clips are retrieved by an embedding"):
        retrieve(Run(run.config))
