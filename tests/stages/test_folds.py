"""Every fold with rounds of its own, which have not seen its speakers, and the figures of all together."""

import csv
import dataclasses
import json

import jax
import pytest

from mmpretrain.config import CorpusConfig, FinetuneConfig, LabelEfficiencyConfig, emotion, mfcc
from mmpretrain.encoders.folder import read_training_data
from mmpretrain.evaluation.protocols import get_protocol
from mmpretrain.run.run import Run
from mmpretrain.stages.crossval import crossval
from mmpretrain.stages.folds import run_folds
from tests.stages.tones import PITCH_HZ
from tests.tiny import tiny_model, tiny_round, tiny_run


@pytest.mark.slow
def test_every_fold_is_pretrained_without_its_speakers_and_all_are_pooled(tones, tmp_path, capsys, monkeypatch):
    counted = dataclasses.replace(get_protocol("speakers-6"), test_clips={3: (9, 9, 9, 10, 9, 9)})
    monkeypatch.setattr("mmpretrain.downstream.labelled.get_protocol", lambda name: counted)
    part = FinetuneConfig(tasks=(emotion(*PITCH_HZ),), protocol="speakers-6", folds=(1, 4), classifier="frozen_linear")
    few = dict(fit_share=1.0, fit_passes=2, fit_restarts=1)
    config = tiny_run(
        workdir=str(tmp_path / "run"), model=tiny_model("audio"), finetune=part,
        rounds=(tiny_round(targets=mfcc(4, **few), num_steps=2),),
        label_efficiency=LabelEfficiencyConfig((0.5, 1.0), 1, ("frozen", "sound_statistics")),
    )  # fmt: skip
    config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(tones)),), jax.device_count()
    config.health.min_clusters_used, config.health.min_accuracy_gain = 0.0, -1.0
    summary = run_folds(Run(config))
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary

    tested = {}
    for number, without in ((1, {"s0", "s1"}), (4, {"s3", "s4"})):
        folder = tmp_path / "run" / f"fold{number}"
        seen = set().union(*read_training_data(folder / "round1" / "pretrain" / "encoder").speakers.values())
        assert seen == {f"s{i}" for i in range(6)} - without, "neither who is tested nor who is chosen by"
        with open(folder / "evaluation" / f"pretrained-fold{number}.csv", newline="") as file:
            tested |= {row["clip_id"]: row["true"] == row["predicted"] for row in csv.DictReader(file)}
        assert (folder / "report.html").exists()
    evaluation = summary["evaluation"]
    assert len(tested) == 18
    assert evaluation["wa"] == pytest.approx(sum(tested.values()) / 18)
    assert [fold["fold"] for fold in evaluation["folds"]] == [1, 4]
    for fold in evaluation["folds"]:
        assert fold["unlabelled_test_seen"] == fold["unlabelled_validation_seen"] == "no"
    assert evaluation["protocol_lacks"] == "its test parts have 9, 9 clips in place of 9, 10", (
        "of all, not of the first"
    )
    assert evaluation["intervals"]["resampled"] == "2 speakers"
    assert [entry["label_share"] for entry in summary["emotion"]] == [0.5, 1.0]
    assert summary["emotion"][1]["frozen_ua"]["mean"] == pytest.approx(evaluation["ua"])
    assert summary["label_efficiency"]["folds"] == [1, 4]
    assert summary["label_efficiency"]["protocol_lacks"]
    assert "not all of it: its test parts have" in capsys.readouterr().err

    config.label_efficiency.classifiers = ("frozen",)
    results = crossval(Run(config), 1, by_fold=True)
    assert results["folds"] == [1, 4]
    assert results["classifiers"]["frozen"]["ua"] == summary["emotion"][1]["frozen_ua"], "the same encoders"
    config.label_efficiency.classifiers = ("frozen", "sound_statistics")

    capsys.readouterr()
    assert run_folds(Run(config)) == summary
    assert "started in" not in capsys.readouterr().err
