"""First targets from a layer of a model of another project: made, stored with its digest, and trained on."""

import shutil
import sys

import jax
import numpy as np
import pytest

transformers = pytest.importorskip("transformers", reason="extra `torch` is not installed")
pytest.importorskip("torch", reason="extra `torch` is not installed")

from mmpretrain.config import CorpusConfig, hidden  # noqa: E402
from mmpretrain.run.run import Run  # noqa: E402
from mmpretrain.stages.pretrain import pretrain  # noqa: E402
from mmpretrain.stages.targets import make_targets  # noqa: E402
from tests.corpus_fixture import make_clip, write_corpus  # noqa: E402
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_round, tiny_run  # noqa: E402


def save_hubert(folder):
    config = transformers.HubertConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    transformers.HubertModel(config).save_pretrained(folder)


@pytest.fixture
def config(tmp_path):
    clips = [make_clip(f"c{i}", 12 + i, size=IMAGE_SIZE, speaker="a", audio=i != 3) for i in range(8)]
    corpus = write_corpus(tmp_path / "corpus", clips, IMAGE_SIZE, IMAGE_SIZE + 16)
    save_hubert(tmp_path / "hubert")
    targets = hidden(layer=2, num_clusters=4, fit_share=1.0, fit_restarts=1, fit_passes=3)
    round_ = tiny_round(targets=targets, encoder=str(tmp_path / "hubert"), num_steps=1)
    config = tiny_run(
        workdir=str(tmp_path / "run"), model=tiny_model("audio", "video"), rounds=(round_,), finetune=None
    )
    config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(corpus)),), jax.device_count()
    return config


def test_a_round_takes_its_targets_from_the_layer(config, tmp_path):
    make_targets(Run(config).round(1))
    round_ = Run(config).round(1)
    (codebook,) = round_.codebooks
    assert codebook.store.lineage["source"].startswith("hubert-")
    assert codebook.store.lineage["layer"] == 2
    assert len(codebook.store) == sum(map(len, round_.clips)) == 7, "one clip has no sound"
    assert codebook.store.codebook.centroids.shape == (4, 24)
    for row, features_TD in codebook.features(codebook.clips[0]):
        distances = np.square(features_TD[:, None] - codebook.store.codebook.centroids).sum(-1)
        np.testing.assert_array_equal(codebook.store.row(row), distances.argmin(1))
    pretrain(round_)
    assert round_.encoder.lineage["targets"] == f"4 clusters of layer 2 of {codebook.store.lineage['source']}"
    assert round_.encoder.training_data.unknown == (codebook.store.lineage["source"],)


def test_it_may_lie_elsewhere_but_not_be_another_one(config, tmp_path):
    fingerprint = Run(config).round(1).source.fingerprint
    shutil.copytree(tmp_path / "hubert", tmp_path / "elsewhere" / "hubert")
    config.rounds[0].encoder = str(tmp_path / "elsewhere" / "hubert")
    assert Run(config).round(1).source.fingerprint == fingerprint
    save_hubert(tmp_path / "elsewhere" / "hubert")
    assert Run(config).round(1).source.fingerprint != fingerprint


def test_what_is_wrong_is_one_line(config, tmp_path, monkeypatch):
    config.rounds[0].targets = hidden(layer=3, num_clusters=4)
    with pytest.raises(ValueError, match=r"rounds\[0\]\.targets\[0\]\.layer=3; it must be 1 to 2, the layers of"):
        make_targets(Run(config).round(1))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"hubert: encoders of other projects need torch .* pip install"):
        make_targets(Run(config).round(1))
    config.rounds[0].encoder = str(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere is no exported encoder"):
        make_targets(Run(config).round(1))
