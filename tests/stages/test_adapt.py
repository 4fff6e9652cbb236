"""An encoder goes on with the clips of a task, and none of a fold's encoders has seen whom it tests or is chosen by."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import CorpusConfig, FinetuneConfig, emotion, mfcc
from mmpretrain.data.exposure import TrainingData
from mmpretrain.encoders.folder import load_encoder, read_training_data, save_encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.run.run import Run
from mmpretrain.stages.adapt import INDUCTIVE, TRANSDUCTIVE, adapt, adapted_configs
from tests.stages.tones import PITCH_HZ
from tests.tiny import initial, tiny_model, tiny_round, tiny_run


@pytest.fixture
def config(tones, tmp_path):
    encoder = nnx.merge(*initial(lambda rngs: AVEncoder(tiny_model(), rngs=rngs)))
    save_encoder(tmp_path / "start", encoder, lineage={"fingerprint": "abc"}, training_data=TrainingData())
    part = FinetuneConfig(
        tasks=(emotion(*PITCH_HZ),), protocol="speakers-6", folds=(1, 4), classifier="frozen_linear",
        compare_from_scratch=False,
    )  # fmt: skip
    round_ = tiny_round(
        targets=mfcc(4, fit_share=1.0, fit_passes=2, fit_restarts=1), num_steps=2, init=str(tmp_path / "start")
    )
    config = tiny_run(workdir=str(tmp_path / "run"), model=tiny_model(), finetune=part, rounds=(round_,))
    config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(tones)),), jax.device_count()
    config.health.min_clusters_used, config.health.min_accuracy_gain = 0.0, -1.0
    return config


@pytest.mark.slow
def test_every_fold_goes_on_from_the_encoder_without_its_speakers(config, tmp_path, capsys):
    result = adapt(Run(config), INDUCTIVE)
    assert json.loads((tmp_path / "run" / "tapt-inductive.json").read_text()) == result
    start = load_encoder(tmp_path / "start").module.transformer.layers.mlp_in.kernel[...]
    for number, without in ((1, {"s0", "s1"}), (4, {"s3", "s4"})):
        folder = tmp_path / "run" / INDUCTIVE / f"fold{number}" / "round1" / "pretrain" / "encoder"
        seen = set().union(*read_training_data(folder).speakers.values())
        assert seen == {f"s{i}" for i in range(6)} - without
        moved = np.abs(load_encoder(folder).module.transformer.layers.mlp_in.kernel[...] - start)
        assert 0 < moved.max() < 0.03, "two steps of 0.01 from where it started"
        assert load_encoder(folder).lineage["started from"] == "the encoder abc"
    (comparison,) = result["comparisons"]
    assert (comparison["first"], comparison["second"], comparison["clips"]) == (INDUCTIVE, "plain", 18)
    assert result[INDUCTIVE]["unlabelled_test_seen"] == ["no", "no"]
    assert sum(result["plain"]["support"]) == sum(result[INDUCTIVE]["support"]) == 18
    assert "unlabelled_test_seen" in capsys.readouterr().out

    capsys.readouterr()
    assert adapt(Run(config), INDUCTIVE) == result
    assert "started in" not in capsys.readouterr().err


def test_of_all_clips_there_is_one_run(config):
    (one,) = adapted_configs(config, (1, 4), TRANSDUCTIVE)
    assert one.data.exclude_folds == ()
    assert one.finetune.folds == (1, 4)
    assert [c.data.exclude_folds for c in adapted_configs(config, (1, 4), INDUCTIVE)] == [(1, 2), (4, 5)]


def test_what_cannot_be_adapted_is_one_line(config):
    config.rounds[0].init = "random"
    with pytest.raises(ValueError, match=r"rounds\[0\]\.init='random': what is adapted is an encoder that there is"):
        adapt(Run(config), INDUCTIVE)
    config.rounds[0].init = "nowhere"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        adapt(Run(config), INDUCTIVE)


def test_an_encoder_of_another_shape_is_one_line(config):
    config.model.width = 32
    round_ = Run(config).round(1)
    state = round_.trainer.init(0)
    with pytest.raises(ValueError, match=r"the encoder .*start has .* \[.*\], for which the recipe's model has \["):
        round_.start.put_into(state, round_.trainer)
