"""Targets of a round from an encoder that the run did not train."""

import dataclasses

import jax
import pytest
from flax import nnx

from mmpretrain.config import CorpusConfig, hidden
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.run.run import Run
from mmpretrain.stages.targets import make_targets
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_round, tiny_run


@pytest.fixture
def config(tmp_path):
    clips = [make_clip(f"c{i}", 12 + i, size=IMAGE_SIZE, speaker="a") for i in range(8)]
    corpus = write_corpus(tmp_path / "corpus", clips, IMAGE_SIZE, IMAGE_SIZE + 16)
    model = tiny_model("audio")
    encoder = AVEncoder(dataclasses.replace(model, num_layers=3), rngs=nnx.Rngs(0))
    save_encoder(tmp_path / "encoder", encoder, lineage={"fingerprint": "of another run"})
    round_ = tiny_round(
        targets=hidden(layer=3, num_clusters=4, fit_restarts=1, fit_passes=3), encoder=str(tmp_path / "encoder")
    )
    config = tiny_run(workdir=str(tmp_path / "run"), model=model, rounds=(round_,), finetune=None)
    config.data.corpora = (CorpusConfig(str(corpus)),)
    config.data.batch_multiple = jax.device_count()
    return config


def test_targets_of_a_named_encoder(config, tmp_path):
    make_targets(Run(config).round(1))
    (store,) = Run(config).round(1).stores
    assert store.lineage["source"] == "of another run"
    assert store.lineage["layer"] == 3
    (tmp_path / "encoder").rename(tmp_path / "moved")
    config.rounds[0].encoder = str(tmp_path / "moved")
    make_targets(Run(config).round(1))  # it may lie elsewhere, but not be another one
    save_encoder(tmp_path / "other", AVEncoder(config.model, rngs=nnx.Rngs(1)), lineage={"fingerprint": "of a third"})
    config.rounds[0].encoder = str(tmp_path / "other")
    with pytest.raises(ValueError, match=r"rounds\[0\]\.encoder"):
        make_targets(Run(config).round(1))


def test_what_is_wrong_with_a_named_encoder_is_said(config, tmp_path):
    config.rounds[0].targets = hidden(layer=4, num_clusters=4)
    with pytest.raises(ValueError, match=r"rounds\[0\]\.targets\[0\]\.layer=4; it must be 1 to 3"):
        make_targets(Run(config).round(1))
    config.rounds[0].encoder = str(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere is no exported encoder"):
        make_targets(Run(config).round(1))
