"""Probes of frozen encoders by the names of benchmarks, ours beside plain statistics."""

import json

import pytest
from flax import nnx

from mmpretrain.downstream import probe_features
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.predictions import read_answers
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.stages.layers import layers
from mmpretrain.stages.probe import probe, render_probes
from tests.stages.tones import PITCH_HZ
from tests.tiny import tiny_model


def test_models_stand_side_by_side_under_each_probe_and_nothing_is_done_twice(tone_run, tmp_path, capsys):
    run = tone_run(tmp_path / "run", folds=(1, 3))
    models, probes = ("mfcc-svm", "pretrained", "untrained"), ("probe-superb", "probe-emobox")
    results = probe(run, probes, models, shorter=10)
    assert json.loads((run.workdir / "probes.json").read_text()) == results
    rows = [f"{model}, {name}" for model in models[1:] for name in probes]
    assert list(results["models"]) == ["mfcc-svm", *rows]
    for name, figures in results["models"].items():
        assert sum(figures["support"]) == 36
        seen = "unknown" if name.startswith("pretrained") else "no"
        assert figures["unlabelled_test_seen"].startswith(seen), name
    assert results["models"]["mfcc-svm"]["ua"] > 0.9, "the planted label is heard"
    table = run.workdir / "probes" / "probe-superb-1in10" / "pretrained" / "probe-fold3.csv"
    assert len(read_answers(table, tuple(PITCH_HZ)).clip_ids) == 18
    text = render_probes(results)
    assert "trained for 1 in 10 steps" in text
    assert "pretrained, probe-emobox" in text
    capsys.readouterr()
    assert probe(tone_run(run.workdir, folds=(1, 3)), probes, models, shorter=10) == results
    assert "started in" not in capsys.readouterr().err


def test_what_cannot_be_probed_is_said(tone_run, tmp_path):
    run = tone_run(tmp_path / "run", encoder="none")
    with pytest.raises(ValueError, match=r"model `pretrained`: finetune\.encoder='none'"):
        probe(run, ["probe-superb"], ["pretrained"])
    with pytest.raises(FileNotFoundError, match=r"wavlm has no config\.json; give the folder of a model"):
        probe(run, ["probe-superb"], [str(tmp_path / "wavlm")])
    with pytest.raises(ValueError, match=r"--model=tfidf: no clip of .* has a text; leave it out"):
        probe(run, ["probe-superb"], ["tfidf"])
    with pytest.raises(ValueError, match="unknown probe `superb`"):
        probe(run, ["superb"], ["untrained"])


def test_two_models_of_one_name_are_not_kept_in_one_place(tone_run, tmp_path, monkeypatch):
    monkeypatch.setattr(probe_features, "reads_text", lambda name: False)
    monkeypatch.setattr(probe_features, "ForeignEncoder", lambda folder: folder)
    finetuning = Finetuning(tone_run(tmp_path))
    said = r"--model=a/checkpoint-10 and --model=b/checkpoint-10 are both called 'checkpoint-10'"
    with pytest.raises(ValueError, match=said):
        probe_features.all_probed(finetuning, ["pretrained", "a/checkpoint-10", "b/checkpoint-10"])
    once = probe_features.all_probed(finetuning, ["pretrained", "untrained", "pretrained"])
    assert [probed.title for probed in once] == ["pretrained", "untrained"]


def test_frames_too_large_to_be_kept_name_the_clip_and_the_layer(tone_run, tmp_path):
    module = AVEncoder(tiny_model("audio"), rngs=nnx.Rngs(5))
    bias_LD = module.transformer.layers.mlp_out.bias
    bias_LD.set_value(bias_LD.get_value().at[1].set(1e5))
    save_encoder(tmp_path / "large", module, lineage={"fingerprint": "of large numbers"})
    run = tone_run(tmp_path / "run", folds=(3,), encoder=str(tmp_path / "large"))
    large = r"clip '.+': layer 2 of the encoder says numbers beyond 65504, as which they are kept, of it; "
    with pytest.raises(ValueError, match=large + "--model=pretrained: take one of an earlier step, or a protocol that"):
        probe(run, ["probe-emobox"], ["pretrained"])
    with pytest.raises(ValueError, match=large + "take the encoder of an earlier step"):
        layers(run)


def test_every_layer_is_asked_about_the_task_the_speaker_and_the_units(tone_run, tmp_path, capsys):
    run = tone_run(tmp_path / "run", folds=(3,))
    results = layers(run)
    assert json.loads((run.workdir / "layers.json").read_text()) == results
    assert results["units_of"] == "units"
    for name, found in results["models"].items():
        assert found["layers"] == [0, 1, 2], name
        assert max(found["task"]) > 0.8, "the planted label is heard"
        assert all(0 <= value <= 1 for asked in ("speaker", "units") for value in found[asked])
        assert found["chance"]["speaker"] == 1 / 2
        assert len(found["attention"]) in (8, 9)
        assert sum(found["attention"]) == pytest.approx(1, abs=1e-4)
    assert results["models"]["untrained"]["unlabelled_validation_seen"] == "no"
    assert f"attention over {results['clip']}" in (run.workdir / "layers.html").read_text()
    shown = capsys.readouterr().err
    assert "emotion, UA" in shown
    assert layers(tone_run(run.workdir, folds=(3,))) == results
    assert "started in" not in capsys.readouterr().err
