"""The pass over a table: every clip once, real frames told from padding, one program for any number of states."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import CorpusConfig
from mmpretrain.data.clips import open_clips
from mmpretrain.downstream.frame_features import layers_of_frames
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.parallel import stopping
from mmpretrain.run.forward import Forward, encode, layer_statistics
from mmpretrain.run.run import Run
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    clips = [make_clip(f"c{i:02}", 6 + i, size=IMAGE_SIZE, video=False) for i in range(11)]
    corpus = write_corpus(tmp_path_factory.mktemp("corpora") / "counts", clips, IMAGE_SIZE, IMAGE_SIZE + 16)
    config = tiny_run(workdir=str(tmp_path_factory.mktemp("runs")), model=tiny_model("audio"))
    config.data.corpora, config.data.bucket_frames = (CorpusConfig(str(corpus)),), (10, 20)
    config.data.batch_multiple, config.data.validation_share = jax.device_count(), 0.0
    return Run(config)


@pytest.mark.parametrize("everywhere", [False, True])
def test_every_clip_comes_once_with_its_part_of_whatever_is_computed(run, everywhere):
    table, traced = run.clips[0], []

    def apply(factor, batch):
        traced.append(batch.valid_BT.shape)
        times_BT = jnp.where(batch.valid_BT, factor * jnp.arange(batch.valid_BT.shape[1]), -1)
        return {"times": times_BT, "of clips": (batch.clip_B * factor, batch.valid_BT.sum(1))}

    forward = Forward(run, run.config.model, apply, batch_frames=60, everywhere=everywhere)
    for factor in (2, 3):
        outputs = list(forward(jnp.int32(factor), table))
        assert sorted(output.row for output in outputs) == list(range(len(table)))
        for row, num_frames, values in outputs:
            assert num_frames == table.lengths[row]
            np.testing.assert_array_equal(values["times"][:num_frames], factor * np.arange(num_frames))
            assert (values["times"][num_frames:] == -1).all()
            assert (int(values["of clips"][0]), int(values["of clips"][1])) == (factor * row, num_frames)
    assert len(traced) == len(set(traced)) > 1, "each shape of batches is traced once, whatever the state"


def test_what_is_left_is_asked_for_by_its_rows(run):
    table = run.clips[0]
    forward = Forward(run, run.config.model, lambda state, batch: batch.clip_B, batch_frames=60)
    clips = forward(None, table)
    done = {table.clip_ids[next(clips).row] for _ in range(4)}
    clips.close()
    left = table.select(np.array([clip_id not in done for clip_id in table.clip_ids], bool))
    assert {left.clip_ids[output.row] for output in forward(None, left)} == set(table.clip_ids) - done


def test_it_stops_between_two_batches_and_says_how_far_it_is(run, monkeypatch, capsys):
    table = run.clips[0]
    forward = Forward(run, run.config.model, lambda state, batch: batch.clip_B, batch_frames=60)
    assert len(list(forward(None, table, "looking"))) == 11
    assert "looking: 11/11 clips" in capsys.readouterr().err
    clips = forward(None, table)
    seen = [next(clips)]
    monkeypatch.setattr(stopping, "_asked", True)
    with pytest.raises(stopping.Stopped):
        seen.extend(clips)
    assert 0 < len(seen) < 11


class Times:
    """Every frame of a clip has its own number."""

    def of(self, row, clip):
        return np.arange(clip.num_frames, dtype=np.int32)


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_long_clip_comes_in_windows_and_is_put_together(run, tmp_path, everywhere):
    lengths = [20, 1501, 1490, 4000, 12, 2900]
    clips = [make_clip(f"c{i}", n, size=IMAGE_SIZE, video=False) for i, n in enumerate(lengths)]
    path = write_corpus(tmp_path / "long", clips, IMAGE_SIZE, IMAGE_SIZE + 16)
    table, traced = open_clips([CorpusConfig(str(path))]), []

    def times(state, batch):
        traced.append(batch.valid_BT.shape)
        return batch.targets_BTS[..., 0]

    forward = Forward(run, run.config.model, times, batch_frames=60, everywhere=everywhere, targets=(Times(),))
    outputs = {output.row: output for output in forward(None, table)}
    assert sorted(outputs) == list(range(len(lengths)))
    for row, num_frames, values in outputs.values():
        assert num_frames == lengths[row]
        np.testing.assert_array_equal(values[:num_frames], np.arange(num_frames))
    assert max(shape[1] for shape in traced) == 1500

    wanted = np.arange(len(lengths)) == 3
    some = {int(row[0]): values[0] for row, _, values in forward.batches(None, table, wanted) if len(row) == 1}
    np.testing.assert_array_equal(some[3], np.arange(4000))

    def lengths_of(state, batch):
        return {"frames": batch.valid_BT.sum(1) * 1.0}

    of_clips = Forward(run, run.config.model, lengths_of, batch_frames=60, everywhere=everywhere, of_clips=True)
    for row, _, values in of_clips(None, table):
        assert values["frames"] == pytest.approx(min(lengths[row], 1500))


def test_a_long_clip_has_its_label_once(run, tmp_path):
    """Else a validation of labelled tasks would count it once for every window."""
    clips = [make_clip(f"c{i}", n, size=IMAGE_SIZE, video=False) for i, n in enumerate((20, 1501, 4000))]
    path = write_corpus(tmp_path / "long", clips, IMAGE_SIZE, IMAGE_SIZE + 16)
    table, labels = open_clips([CorpusConfig(str(path))]), {"emotion": np.array([3, 4, 5], np.int32)}
    batches = run.evaluation_batches(table, run.config.model, batch_frames=60, labels=labels)
    said = np.concatenate([batch.labels["emotion"] for _, batch in batches])
    assert sorted(said[said >= 0].tolist()) == [3, 4, 5]


def test_statistics_of_layers_are_those_of_their_frames(run, tmp_path):
    lengths = [20, 7, 1600, 12]
    clips = [make_clip(f"c{i}", n, size=IMAGE_SIZE, video=False) for i, n in enumerate(lengths)]
    path = write_corpus(tmp_path / "some", clips, IMAGE_SIZE, IMAGE_SIZE + 16)
    table = open_clips([CorpusConfig(str(path))])
    encoder = AVEncoder(run.config.model, rngs=nnx.Rngs(3))

    def layers(encoder, batch):
        return jnp.moveaxis(encoder.all_layers(encoder.embed_batch(batch), batch.valid_BT), 0, 2)

    found = layer_statistics(run, encoder, table)
    assert found.shape == (4, 3, 32)
    for row, num_frames, values_TLD in encode(run, encoder, table, layers):
        x_TLD = np.asarray(values_TLD[:num_frames], np.float64)
        expected_LF = np.concatenate([x_TLD.mean(0), x_TLD.std(0)], -1)
        # A long clip has the mean of its windows', which overlap.
        np.testing.assert_allclose(found[row], expected_LF, atol=1e-5 if num_frames < 1500 else 0.1)


def test_what_an_encoder_cannot_say_in_numbers_names_the_clip_and_the_layer(run):
    table, config = run.clips[0], run.config.model

    def planted(value, dtype):
        """With this in all biases of layer 2, which is the last."""
        encoder = AVEncoder(dataclasses.replace(config, dtype=dtype), rngs=nnx.Rngs(3))
        bias_LD = encoder.transformer.layers.mlp_out.bias
        bias_LD.set_value(bias_LD.get_value().at[1].set(value))
        return encoder

    of_layer_2 = r"clip 'c\d\d': layer 2 of the encoder says "
    for value, dtype in ((np.nan, "float32"), (3e38, "bfloat16")):
        with pytest.raises(ValueError, match=of_layer_2 + "NaN or infinity of it; take the encoder of an earlier step"):
            layer_statistics(run, planted(value, dtype), table)
    assert np.isfinite(layer_statistics(run, planted(1e5, "bfloat16"), table)).all()
    with pytest.raises(ValueError, match=of_layer_2 + "numbers beyond 65504, as which they are kept, of it; take"):
        layers_of_frames(run, planted(1e5, "bfloat16"), table, ("audio",))
