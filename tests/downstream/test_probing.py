"""The probes at the end of a round: what they pool, what they are held against, and that nothing is measured twice."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import CorpusConfig, HealthConfig, OptimizerConfig, mfcc
from mmpretrain.data.clips import open_clips
from mmpretrain.downstream import probing
from mmpretrain.encoders.encoder import Encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.run.layout import health_file, read_health, round_figures
from mmpretrain.run.run import Run
from mmpretrain.run.source import SourceEncoder
from mmpretrain.stages.refine import refine
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_round, tiny_run

SPEAKERS = {"a": "train", "b": "train", "c": "train", "d": "validation", "e": "test"}


def recipe(corpus, workdir):
    few = dict(fit_share=1.0, fit_passes=2, fit_restarts=1)
    still = OptimizerConfig(peak_lr=1e-12, warmup_steps=0)
    config = tiny_run(
        workdir=str(workdir), model=tiny_model(), health=HealthConfig(min_accuracy_gain=-1),
        rounds=tuple(tiny_round(targets=mfcc(n, **few), num_steps=1, optimizer=still) for n in (5, 4)),
    )  # fmt: skip
    config.data.corpora = (CorpusConfig(str(corpus)),)
    config.data.batch_multiple = jax.device_count()
    config.finetune.tasks[0].classes = ("angry", "sad")
    return config


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Five speakers who hum when sad and whistle when angry."""
    clips = []
    for i, (speaker, split) in enumerate((name, split) for name, split in SPEAKERS.items() for _ in range(4)):
        emotion, length = ("angry", "sad")[i % 2], 16 + i % 4
        clip = make_clip(
            f"{speaker}{i}", length, size=IMAGE_SIZE, video=False, speaker=speaker, labels={"emotion": emotion},
            split=split,
        )  # fmt: skip
        times, random = np.arange(len(clip.audio)), np.random.default_rng(i)
        sound = 300 * random.normal(size=len(times)) + 3000 * np.sin(times * (0.05 if emotion == "sad" else 0.8))
        clips.append(dataclasses.replace(clip, audio=sound.astype(np.int16)))
    return write_corpus(tmp_path_factory.mktemp("corpora") / "moods", clips, IMAGE_SIZE, IMAGE_SIZE + 16)


class Planted(AVEncoder):
    """Its layer 1 is what it hears; its input and its layer 2 are nothing."""

    def all_layers(self, x_BTD, valid_BT, key=None):
        return jnp.stack([0 * x_BTD, x_BTD, 0 * x_BTD])


def test_the_layer_that_knows_is_named_and_windows_are_put_together(corpus, tmp_path, monkeypatch):
    run = Run(recipe(corpus, tmp_path / "run"))
    encoder = Planted(run.config.model, rngs=nnx.Rngs(0))
    # A long clip that is quiet and then loud: each of its windows hears mostly one of the two.
    quiet = make_clip("long", 2600, size=IMAGE_SIZE, video=False)
    level = np.repeat((30, 9000), len(quiet.audio) // 2)
    loud = dataclasses.replace(quiet, audio=(level * np.random.default_rng(0).normal(size=len(level))).astype(np.int16))
    clips = [make_clip("short", 20, size=IMAGE_SIZE, video=False), loud]
    path = write_corpus(tmp_path / "long", clips, IMAGE_SIZE, IMAGE_SIZE + 16)
    table = open_clips([CorpusConfig(str(path))])
    features = probing.layer_statistics(run, encoder, table, "")
    assert (features[:, [0, 2]] == 0).all()
    for row, clip_id in enumerate(table.clip_ids):
        heard = Encoder(encoder, {}).features_of(next(clip for clip in clips if clip.clip_id == clip_id), layer=0)
        mean, deviation = np.split(features[row, 1], 2)
        close = 0.05 * np.abs(heard).max()
        np.testing.assert_allclose(mean, heard.mean(0), atol=close)
        np.testing.assert_allclose(deviation, heard.std(0), atol=close)

    monkeypatch.setattr(SourceEncoder, "load", lambda self: Encoder(encoder, {}))
    run.config.rounds = run.config.rounds[:1]
    refine(run)
    (health,) = round_figures(run.workdir, 1)
    assert health["probe"]["ua_by_layer"] == [0.5, 1.0, 0.5]
    assert (health["probe"]["layer"], health["probe"]["ua"]) == (1, 1.0)
    assert health["untrained_probe_ua"] == health["probe"]["untrained"]["ua"] == 1.0
    assert len(health["probe"]["untrained"]["ua_by_layer"]) == 3


def test_the_untrained_encoder_is_measured_once_and_a_round_without_sure_gain_says_so(
    corpus, tmp_path, monkeypatch, capsys
):
    measured, statistics = {}, probing.layer_statistics

    def remembered(run, encoder, table, title):
        return measured.setdefault(title.removesuffix(": features to probe"), statistics(run, encoder, table, title))

    def walk():
        measured.clear()
        run = Run(recipe(corpus, tmp_path / "run"))
        refine(run)
        return run, list(measured)

    monkeypatch.setattr(probing, "layer_statistics", remembered)
    run, titles = walk()
    assert titles == ["untrained encoder", "round 1", "round 2"]
    # One step moves next to nothing: what is called untrained is what round 1 began with.
    np.testing.assert_allclose(measured["untrained encoder"], measured["round 1"], atol=1e-4)
    assert np.abs(measured["untrained encoder"] - measured["round 2"]).max() > 0.1
    said = " ".join(capsys.readouterr().err.split())
    first, second = round_figures(run.workdir, 2)
    for number, entry in enumerate((first, second), start=1):
        assert entry["untrained_probe_ua"] == first["untrained_probe_ua"]
        gain = entry["probe"]["over_untrained"]
        assert gain["low"] <= 0 <= gain["high"]
        assert f"round {number} has no sure gain over the untrained encoder" in said
    assert first["probe"]["ua_by_layer"] == first["probe"]["untrained"]["ua_by_layer"]
    assert first["probe"]["over_untrained"]["difference"] == 0

    assert walk()[1] == []
    health_file(run.workdir, 1).unlink()
    assert walk()[1] == ["round 1"], "another round knows the untrained one"
    assert read_health(run.workdir, 1)["probe"]["untrained"] == read_health(run.workdir, 2)["probe"]["untrained"]
