"""The penalty on the features, of all together or by stream, and how much of them each stream is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmpretrain.config.checks import check
from mmpretrain.objectives.masked_prediction import Counts, MaskedPrediction, Prediction
from tests.tiny import tiny_model, tiny_round, tiny_run

LENGTHS, D = (12, 9), 16
BOTH = tiny_model("audio", "video")


def prediction(scale=(1.0, 1.0), video=(True, False)) -> Prediction:
    """Of two clips. scale: of the streams. video: which clips have one."""
    random, has = np.random.default_rng(0), np.array(video)
    fused = random.normal(size=(2, 12, 2, D)) * np.array(scale)[:, None]
    fused[..., 1, :] *= has[:, None, None]
    valid = np.arange(12) < np.array(LENGTHS)[:, None]
    classes = np.where(valid, 1, -1)[..., None]
    return Prediction(
        (jnp.zeros((2, 12, 7)),), jnp.asarray(fused.reshape(2, 12, 2 * D), jnp.float32), jnp.asarray(classes),
        jnp.asarray(valid), jnp.asarray(valid), {"audio": jnp.ones(2, bool), "video": jnp.asarray(has)},
    )  # fmt: skip


def of_streams(**changes) -> MaskedPrediction:
    return MaskedPrediction(BOTH, tiny_round(**dict(feature_penalty=2.0, feature_penalty_of="stream") | changes))


def penalty(predicted: Prediction) -> jax.Array:
    return of_streams().score(predicted).metrics["feature_penalty"][0]


def test_it_is_of_each_clip_s_own_square_of_each_stream_that_it_has():
    predicted, expected, squares = prediction(scale=(2.0, 0.5)), 0.0, np.zeros(2)
    streams = np.square(predicted.fused_BTC).reshape(2, 12, 2, D)
    for row, length in enumerate(LENGTHS):
        means = [streams[row, :length, stream].mean() for stream in range(2 - row)]
        expected += length * np.mean([q - np.log(q) - 1 for q in means])
        squares += streams[row, :length].sum((0, 2))
    sums, plain = (of_streams(feature_penalty=weight).score(predicted) for weight in (2.0, 0.0))
    np.testing.assert_allclose(sums.metrics["feature_penalty"][0], expected, rtol=1e-3)
    np.testing.assert_allclose(sums.loss - plain.loss, 2.0 * expected / sum(LENGTHS) * sums.weight, rtol=1e-3)
    np.testing.assert_allclose(np.divide(*sums.metrics["video_share"]), squares[1] / squares.sum(), rtol=1e-5)


def test_no_stream_may_vanish_and_nothing_is_infinite_where_one_has():
    at = {scale: float(penalty(prediction(scale=(1.0, scale)))) for scale in (0.1, 0.5, 1.0, 2.0)}
    assert at[0.1] > at[0.5] > at[1.0] < at[2.0]
    assert at[1.0] < 0.2

    def scaled(scale):
        predicted = prediction(video=(True, True))
        return penalty(predicted._replace(fused_BTC=predicted.fused_BTC.at[..., D:].mul(scale)))

    assert jax.grad(scaled)(0.1) < jax.grad(scaled)(0.5) < 0, "the smaller, the harder it is pulled back"
    assert np.isfinite([scaled(0.0), jax.grad(scaled)(0.0)]).all()
    empty = prediction()._replace(valid_BT=jnp.zeros((2, 12), bool))
    assert float(penalty(empty)) == 0


def test_parts_of_a_batch_add_up_to_it():
    objective, whole = of_streams(), prediction()
    sums = objective.score(whole)
    counts = Counts(sums.weight, jnp.float32(sum(LENGTHS)))
    parts = [jax.tree.map(lambda x, row=row: x[row : row + 1], whole) for row in (0, 1)]
    losses = [objective.score(part, counts).loss for part in parts]
    np.testing.assert_allclose(sum(losses), sums.loss, rtol=1e-5)


def test_added_streams_are_not_told_apart():
    config = tiny_run()
    config.rounds[0].feature_penalty_of = "stream"
    check(config)
    config.model.fusion = "add"
    with pytest.raises(
        ValueError, match=r"rounds\[0\]\.feature_penalty_of='stream'; it must be 'fused' with model\.fus"
    ):
        check(config)
    added = MaskedPrediction(tiny_model("audio", "video", fusion="add"), tiny_round())
    assert "video_share" not in added.score(prediction()).metrics
