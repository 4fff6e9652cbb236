"""An encoder goes on with the clips of a task, and none of a fold's encoders has seen whom it tests or is chosen by."""

import csv
import json
import re

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import (
    CorpusConfig,
    FinetuneConfig,
    OptimizerConfig,
    RetrievalConfig,
    TaskConfig,
    emotion,
    hidden,
    mfcc,
)
from mmpretrain.data.exposure import TrainingData
from mmpretrain.downstream.exposure import check_exposure
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.encoders.folder import read_training_data, save_encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.run.run import Run
from mmpretrain.stages.adapt import (
    AFFECT_AWARE,
    BY_CHANCE,
    CLUSTERS,
    CLUSTERS_OF_ALL,
    INDUCTIVE,
    TRANSDUCTIVE,
    adapt,
    adapted_configs,
    plain_configs,
)
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


@pytest.fixture
def of_clusters(config):
    config.rounds[0].targets = hidden(layer=2, num_clusters=4, fit_share=1.0, fit_passes=2, fit_restarts=1)
    config.rounds[0].encoder = config.rounds[0].init
    config.finetune.classifier, config.finetune.num_steps, config.finetune.eval_every = "trained", 2, 2
    config.finetune.optimizer.warmup_steps, config.finetune.folds = 0, (1,)
    return config


@pytest.mark.slow
def test_emotion_clusters_are_of_the_encoder_that_was_tuned_for_the_fold(of_clusters, tmp_path):
    result = adapt(Run(of_clusters), CLUSTERS)
    tuned = tmp_path / "run" / "plain" / "finetune" / "pretrained" / "fold1" / "encoder"
    round1 = tmp_path / "run" / CLUSTERS / "fold1" / "round1"
    lineage = json.loads((round1 / "targets" / "codebook1" / "store" / "lineage.json").read_text())
    assert lineage["source"] == load_encoder(tuned).lineage["fingerprint"]
    assert load_encoder(round1 / "pretrain" / "encoder").lineage["started from"] == "the encoder abc"
    assert result[CLUSTERS]["unlabelled_test_seen"] == ["no"]
    of_all = adapt(Run(of_clusters), CLUSTERS_OF_ALL)
    (seen,) = of_all[CLUSTERS_OF_ALL]["unlabelled_test_seen"]
    assert " of 9 clips, 1 of 1 speakers" in seen
    assert of_all["plain"] == result["plain"]


def test_emotion_clusters_have_a_run_and_an_encoder_for_each_fold(of_clusters):
    ours, of_all = (adapted_configs(of_clusters, (1, 4), method) for method in (CLUSTERS, CLUSTERS_OF_ALL))
    for configs in (ours, of_all):
        assert [c.finetune.folds for c in configs] == [(1,), (4,)]
        assert [c.rounds[0].encoder.split("/")[-2] for c in configs] == ["fold1", "fold4"]
        assert {c.rounds[0].init for c in configs} == {of_clusters.rounds[0].init}
    assert [c.data.exclude_folds for c in ours] == [(1, 2), (4, 5)]
    assert [c.data.exclude_folds for c in of_all] == [(), ()]


def test_clusters_of_an_encoder_that_was_tuned_for_another_fold_are_refused(of_clusters, tmp_path):
    """What it has seen goes with its clusters into the encoder that is trained on them."""
    (fold,) = adapted_configs(of_clusters, (1,), CLUSTERS)
    table = Finetuning(Run(of_clusters)).table
    encoder = nnx.merge(*initial(lambda rngs: AVEncoder(tiny_model(), rngs=rngs)))
    data = TrainingData.of(table, {"emotion": np.ones(len(table), bool)})
    save_encoder(tmp_path / "of_fold_4", encoder, lineage={"fingerprint": "f4"}, training_data=data)
    fold.rounds[0].encoder = str(tmp_path / "of_fold_4")
    round_ = Run(fold).round(1)
    save_encoder(round_.encoder.path, encoder, lineage={"fingerprint": "of it"}, training_data=round_.training_data())
    with pytest.raises(ValueError, match=r"9 of the 9 test clips of .*fold 1, were seen with their label"):
        check_exposure(Finetuning(Run(fold)))


def test_what_emotion_clusters_cannot_be_made_of_is_one_line(of_clusters):
    of_clusters.finetune.classifier = "frozen_linear"
    with pytest.raises(ValueError, match=r"finetune\.classifier='frozen_linear': it leaves the encoder as it is"):
        adapt(Run(of_clusters), CLUSTERS)
    of_clusters.rounds[0].targets, of_clusters.rounds[0].encoder = mfcc(4), "previous_round"
    with pytest.raises(ValueError, match=r"rounds\[0\]\.targets are of mfcc, .*emotion-clusters-inductive clusters a"):
        adapt(Run(of_clusters), CLUSTERS)


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


@pytest.fixture
def affect_aware(config):
    words = tuple(PITCH_HZ)
    config.rounds[0].objective = "multitask_prediction"
    config.rounds[0].tasks = (emotion(*words, weight=0.5), TaskConfig("domain", "speaker", reversal=0.3))
    config.retrieval = RetrievalConfig(
        TaskConfig("likeness", "emotion", kind="embedding", classes=words, embedding_dim=4), hours=12 * 9 / 25 / 3600,
        class_share=0.5, speaker_share=0.5, num_steps=2, optimizer=OptimizerConfig(warmup_steps=0),
    )  # fmt: skip
    config.health.max_loss_rise = 1_000.0
    config.finetune.folds, config.data.validation_share = (1,), 0.4  # of one clip all may be one cluster
    return config


@pytest.mark.slow
def test_affect_aware_rounds_are_of_retrieved_clips_and_stop_anywhere(affect_aware, tmp_path, monkeypatch, capsys):
    """It is killed between each two stages: the same command goes on, and comes to its end."""

    def killed(*_):
        raise KeyboardInterrupt

    for name in ("adapt.evaluate", "retrieve.finetune", "retrieve.choose", "refine.make_targets", "refine.pretrain"):
        with monkeypatch.context() as patch:
            patch.setattr(f"mmpretrain.stages.{name}", killed)
            with pytest.raises(KeyboardInterrupt):
                adapt(Run(affect_aware), BY_CHANCE)
    result = adapt(Run(affect_aware), BY_CHANCE)
    assert [(c["first"], c["second"]) for c in result["comparisons"]] == [
        (BY_CHANCE, "plain"),
        (BY_CHANCE, AFFECT_AWARE),
    ]
    retrieval = tmp_path / "run" / AFFECT_AWARE / "fold1" / "retrieval"
    for method, order in ((AFFECT_AWARE, "score"), (BY_CHANCE, "random")):
        assert result[method]["unlabelled_test_seen"] == ["no"]
        fold = tmp_path / "run" / method / "fold1"
        rows = list(csv.DictReader((retrieval / order / "fold1" / "manifest.csv").read_text().splitlines()))
        data = read_training_data(fold / "round1" / "pretrain" / "encoder")
        assert {row["speaker"] for row in rows} <= {f"s{i}" for i in range(2, 6)}
        assert set().union(*data.speakers.values()) == {f"s{i}" for i in range(2, 6)}, (
            "nobody who is tested or chosen by"
        )
        lineage = json.loads((fold / "round1" / "pretrain" / "result.json").read_text())
        assert {"emotion/loss", "domain/loss", "masked_loss"} <= lineage.keys()
    assert re.search(r"task emotion: .*, of which [1-9]\d* by ear", capsys.readouterr().err)


def test_affect_aware_rounds_are_of_the_pool_and_of_the_labelled_clips(affect_aware, tmp_path):
    affect_aware.rounds[0].init = str(tmp_path / "fold{fold}")
    labelled = CorpusConfig("labelled", weight=2.0)
    affect_aware.finetune.corpora = (labelled,)
    ours, by_chance = (adapted_configs(affect_aware, (1, 4), method) for method in (AFFECT_AWARE, BY_CHANCE))
    for order, configs in (("score", ours), ("random", by_chance)):
        for fold, config in zip((1, 4), configs, strict=True):
            pool, others = config.data.corpora[0], config.data.corpora[1:]
            assert pool.retrieved == str(tmp_path / f"run/affect-aware/fold{fold}/retrieval/{order}/fold{fold}")
            assert (others, config.data.exclude_folds) == ((labelled,), (fold, fold + 1))
            assert config.rounds[0].init == str(tmp_path / f"fold{fold}")
    assert [c.finetune.encoder for c in plain_configs(affect_aware, (1, 4))] == [
        str(tmp_path / f"fold{i}") for i in (1, 4)
    ]
    affect_aware.retrieval = None
    with pytest.raises(ValueError, match=r"this recipe has no retrieval part, which affect-aware finds expressive"):
        adapt(Run(affect_aware), AFFECT_AWARE)
