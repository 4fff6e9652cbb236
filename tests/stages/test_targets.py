"""Targets of a round from an encoder that the run did not train."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import CorpusConfig, hidden
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.run import forward
from mmpretrain.run.forward import Forward
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


def test_clips_that_a_named_encoder_hears_nothing_of_have_no_targets_of_it(config, tmp_path, capsys):
    """They would be clusters of where in a clip a frame is: all that it makes of no sound."""
    clips = [
        make_clip(f"c{i}", 12 + i, audio=i < 5, size=IMAGE_SIZE, split="validation" if i > 6 else "train")
        for i in range(8)
    ]
    corpora = [
        write_corpus(tmp_path / name, of, IMAGE_SIZE, IMAGE_SIZE + 16) for name, of in (("a", clips), ("b", clips[5:]))
    ]
    config.model = tiny_model("video")
    config.data.corpora = (CorpusConfig(str(corpora[0])),)
    (codebook,) = Run(config).round(1).codebooks
    assert [len(table) for table in codebook.clips] == [5, 0]
    said = capsys.readouterr().err
    assert "2 of 7 training clips have no sound, hence no layer 3 targets" in said
    assert "none of the 1 validation clips" in said
    make_targets(Run(config).round(1))
    assert Run(config).round(1).stores[0].lineage["num_clips"] == 5
    config.data.corpora = (CorpusConfig(str(corpora[1])),)
    with pytest.raises(ValueError, match=r"rounds\[0\]\.encoder='.*encoder' needs sound, but none of the 2 training"):
        make_targets(Run(config).round(1))


def test_labels_of_a_layer_are_its_nearest_centroids_whatever_else_is_wanted(config):
    config.data.bucket_frames, config.data.batch_frames = (14, 18), 18 * jax.device_count()
    codebook = Run(config).round(1).codebooks[0]
    table, _ = codebook.clips
    centroids_KD = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)

    def labels(wanted):
        found = list(codebook.labels(table, wanted, centroids_KD))
        ids = [np.split(x.ids, np.cumsum(x.lengths)[:-1]) for x in found]
        units = [np.split(x.units, np.cumsum(x.lengths)[:-1]) for x in found]
        return {
            int(row): clip
            for x, of_ids, of_units in zip(found, ids, units, strict=True)
            for row, *clip in zip(x.rows, of_ids, of_units, strict=True)
        }

    everything = labels(np.ones(len(table), bool))
    assert sorted(everything) == list(range(len(table)))
    for row, features_TD in codebook.features(table):
        ids_T, units_T = everything[row]
        distances = np.square(features_TD[:, None] - centroids_KD).sum(-1)
        np.testing.assert_array_equal(ids_T, distances.argmin(1))
        np.testing.assert_array_equal(units_T, table.load(row).tracks["units"])
    one = labels(np.arange(len(table)) == 3)
    assert 3 in one
    assert len(one) < len(table), "batches without it are left out"
    for row, clip in one.items():
        np.testing.assert_array_equal(clip, everything[row])


def test_no_features_come_back_from_the_devices_and_one_batch_is_in_flight(config, monkeypatch):
    config.data.bucket_frames, config.data.batch_frames = (14, 18), 18 * jax.device_count()
    codebook = Run(config).round(1).codebooks[0]
    table, _ = codebook.clips
    done, compiled, rows = [], Forward._compiled.func, forward.own_rows

    def begin(self):
        program = compiled(self)

        def run(*args):
            done.append("begin")
            return program(*args)

        return run

    def own_rows(array):
        assert array.dtype == np.int32
        done.append("look")
        return rows(array)

    monkeypatch.setattr(Forward, "_compiled", property(begin))
    monkeypatch.setattr(forward, "own_rows", own_rows)
    assert len(list(codebook.labels(table, np.ones(len(table), bool), np.eye(4, 16, dtype=np.float32)))) > 2
    assert done[:3] == ["begin", "begin", "look"], "the second batch is begun before the first is looked at"


def test_features_that_are_not_finite_are_refused(config, monkeypatch):
    codebook = Run(config).round(1).codebooks[0]
    encoder = codebook._encoder()
    nnx.update(encoder, jax.tree.map(lambda x: x * np.nan, nnx.state(encoder, nnx.Param)))
    monkeypatch.setattr(codebook, "_encoder", lambda: encoder)
    table, _ = codebook.clips
    with pytest.raises(ValueError, match="not finite; look at the encoder"):
        list(codebook.labels(table, np.ones(len(table), bool), np.eye(4, 16, dtype=np.float32)))
