"""The pretraining loss: nothing leaks, padding and neighbours do not matter, and the sums equal a NumPy writing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import MaskingConfig
from mmpretrain.objectives.masked_prediction import MaskedPrediction, Masks
from mmpretrain.objectives.masking import same_clip_sources
from tests.tiny import initial, padded, random_batch, rows, tiny_model, tiny_round

BOTH = tiny_model("audio", "video")
LENGTHS = (12, 9)
T = 12


def make_objective(model=BOTH, kind="input", **changes) -> MaskedPrediction:
    changes = {"feature_penalty": 0.0, "masking": MaskingConfig(kind=kind)} | changes
    return MaskedPrediction(model, tiny_round(**changes))


class Evaluation:
    """`objective` with random weights: its sums and logits [B, T, K], compiled once a batch shape."""

    def __init__(self, objective: MaskedPrediction):
        graphdef, self.params, stats = initial(objective.make_model)

        @jax.jit
        def run(params, batch, draws):
            model, seen = nnx.merge(graphdef, params, stats), []
            head = model.head
            model.head = nnx.data(lambda x: seen.append(head(x)) or seen[0])
            return objective(model, batch, draws, None), seen[0]

        self._run = run

    def __call__(self, batch, draws):
        return jax.device_get(self._run(self.params, batch, draws))


@functools.cache
def evaluation(kind="input", **changes) -> Evaluation:
    return Evaluation(make_objective(kind=kind, **changes))


@functools.cache
def evaluation_of_sound(kind, **changes) -> Evaluation:
    return Evaluation(make_objective(tiny_model("audio"), kind, **changes))


def one_run_masks(batch, audio=(3, 6), video=(5, 8), **changes) -> Masks:
    """The same stretch of every clip hidden: one of the sound, one of the picture."""
    time_T, shape = np.arange(batch.valid_BT.shape[1]), batch.valid_BT.shape

    def stretch(start, end):
        return np.broadcast_to((time_T >= start) & (time_T < end), shape)

    masks = Masks(
        stretch(*audio), stretch(*video),
        np.asarray(same_clip_sources(jax.random.key(1), stretch(*video), batch.valid_BT)),
        batch.has_audio_B, batch.has_video_B,
    )  # fmt: skip
    return masks._replace(**changes)


def changed(array, where_BT):
    """Other numbers at these places."""
    random, array = np.random.default_rng(9), np.array(array)
    array[where_BT] = random.permutation(array[where_BT].ravel()).reshape(array[where_BT].shape)
    return array


@pytest.fixture
def batch():
    return random_batch(LENGTHS, model=BOTH)


def test_hidden_sound_and_hidden_pictures_change_nothing(batch):
    run, draws = evaluation(), one_run_masks(batch)
    sums, logits = run(batch, draws)
    video = draws.video_BT & batch.valid_BT
    assert not video[0][draws.source_BT[0]].any(), "no hidden picture stands anywhere else"
    other = batch._replace(
        audio_BTF=changed(batch.audio_BTF, draws.audio_BT), video_BTHW=changed(batch.video_BTHW, video)
    )
    assert not np.array_equal(other.video_BTHW, batch.video_BTHW)
    np.testing.assert_array_equal(run(other, draws)[1], logits)
    assert run(other, draws)[0].loss == sums.loss


@pytest.mark.parametrize("name", ["audio_BTF", "video_BTHW"])
def test_seen_sound_and_seen_pictures_change_it(batch, name):
    run, draws = evaluation(), one_run_masks(batch)
    seen = ~(draws.audio_BT if name == "audio_BTF" else draws.video_BT) & batch.valid_BT
    other = batch._replace(**{name: changed(getattr(batch, name), seen)})
    assert np.abs(run(other, draws)[1] - run(batch, draws)[1])[batch.valid_BT].max() > 1e-4


def test_feature_masking_hides_the_fused_frame():
    model = tiny_model("audio")
    batch = random_batch(LENGTHS, model=model)
    run, draws = evaluation_of_sound("feature"), one_run_masks(batch)
    draws = draws._replace(video_BT=draws.audio_BT)
    other = batch._replace(audio_BTF=changed(batch.audio_BTF, draws.audio_BT))
    np.testing.assert_array_equal(run(other, draws)[1], run(batch, draws)[1])
    seen = batch._replace(audio_BTF=changed(batch.audio_BTF, ~draws.audio_BT))
    assert np.abs(run(seen, draws)[1] - run(batch, draws)[1])[batch.valid_BT].max() > 1e-4


@pytest.mark.parametrize("unmasked_weight", [0.0, 0.5])
def test_sums_equal_a_slow_writing(unmasked_weight):
    batch = random_batch(LENGTHS, model=tiny_model("audio"))
    targets_BT = batch.targets_BT.copy()
    targets_BT[0, 4] = targets_BT[1, 0] = -1  # one masked, one unmasked frame without a target
    batch = batch._replace(targets_BT=targets_BT)
    draws = one_run_masks(batch, audio=(3, 11))
    draws = draws._replace(video_BT=draws.audio_BT)
    sums, logits_BTK = evaluation_of_sound("feature", unmasked_weight=unmasked_weight)(batch, draws)

    totals = {True: np.zeros(3), False: np.zeros(3)}  # loss, correct, count of masked and of unmasked frames
    for b, t in np.argwhere(batch.valid_BT & (targets_BT >= 0)):
        logits_K = logits_BTK[b, t].astype(np.float64)
        nll = np.log(np.exp(logits_K).sum()) - logits_K[targets_BT[b, t]]
        totals[bool(draws.audio_BT[b, t])] += [nll, logits_K.argmax() == targets_BT[b, t], 1]
    (loss_m, correct_m, count_m), (loss_u, correct_u, count_u) = totals[True], totals[False]
    assert (count_m, count_u) == (7 + 6, 4 + 2)

    np.testing.assert_allclose(sums.loss, loss_m + unmasked_weight * loss_u, rtol=1e-5)
    assert sums.weight == count_m + (count_u if unmasked_weight else 0)
    expected = {
        "masked_loss": (loss_m, count_m), "masked_accuracy": (correct_m, count_m),
        "unmasked_accuracy": (correct_u, count_u), "masked_share": (count_m, count_m + count_u),
    }  # fmt: skip
    for name, pair in expected.items():
        np.testing.assert_allclose(sums.metrics[name], pair, rtol=1e-5, err_msg=name)


def test_penalty_is_the_mean_square_of_real_fused_frames_times_the_weight():
    model = tiny_model("audio", feature_grad_scale=1.0)
    batch, weight = random_batch(LENGTHS, model=model), 10.0
    draws = one_run_masks(batch)
    without = evaluation_of_sound("feature")
    sums, _ = evaluation_of_sound("feature", feature_penalty=weight)(batch, draws)
    projection = without.params["encoder"]["audio_proj"]
    fused = batch.audio_BTF @ np.asarray(projection["kernel"][...]) + np.asarray(projection["bias"][...])
    penalty = np.square(fused[batch.valid_BT]).mean()
    np.testing.assert_allclose(sums.loss - without(batch, draws)[0].loss, weight * penalty * sums.weight, rtol=1e-4)
    np.testing.assert_allclose(np.divide(*sums.metrics["feature_penalty"]), penalty, rtol=1e-5)


def test_a_clip_counts_the_same_whatever_follows_or_stands_beside_it(batch):
    run, draws = evaluation(), one_run_masks(batch)
    sums, logits = run(batch, draws)
    more = padded(batch, 5)
    more_draws = draws._replace(
        **{name: np.pad(getattr(draws, name), ((0, 0), (0, 5))) for name in ("audio_BT", "video_BT", "source_BT")}
    )
    longer, _ = run(more, more_draws)
    np.testing.assert_allclose(longer.loss, sums.loss, rtol=1e-5)
    assert longer.weight == sums.weight

    alone = [run(rows(batch, [i]), rows(draws, [i])) for i in range(2)]
    for i, (_, own_logits) in enumerate(alone):
        valid_T = batch.valid_BT[i]
        np.testing.assert_allclose(own_logits[0][valid_T], logits[i][valid_T], atol=2e-5)
    np.testing.assert_allclose(alone[0][0].loss + alone[1][0].loss, sums.loss, rtol=1e-5)
    assert alone[0][0].weight + alone[1][0].weight == sums.weight


def test_a_row_that_only_fills_the_batch_counts_for_nothing(batch):
    run, draws = evaluation(), one_run_masks(batch)
    filler = batch._replace(
        valid_BT=batch.valid_BT & [[True], [False]],
        targets_BT=np.where([[True], [False]], batch.targets_BT, -1),
        has_audio_B=np.array([True, False]), has_video_B=np.array([True, False]),
    )  # fmt: skip
    draws = draws._replace(use_audio_B=filler.has_audio_B, use_video_B=filler.has_video_B)
    with_filler, logits = run(filler, draws)
    alone, _ = run(rows(batch, [0]), rows(draws, [0]))
    np.testing.assert_allclose(with_filler.loss, alone.loss, rtol=1e-5)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("name", ["audio", "video"])
def test_dropping_a_modality_equals_not_having_it(batch, name):
    run = evaluation("feature")
    draws = one_run_masks(batch)
    absent = {f"use_{name}_B": np.zeros(2, bool)}
    dropped, _ = run(batch, draws._replace(**absent))
    tensor = {"audio": "audio_BTF", "video": "video_BTHW"}[name]
    gone = batch._replace(**{f"has_{name}_B": np.zeros(2, bool), tensor: np.zeros_like(getattr(batch, tensor))})
    lacking, _ = run(gone, draws._replace(**absent))
    assert dropped.loss == lacking.loss
    assert dropped.loss != run(batch, draws)[0].loss


def test_what_a_clip_lacks_asks_for_no_prediction():
    batch = random_batch((T,) * 6, model=BOTH, has_audio_B=[1, 1, 0, 0, 1, 0], has_video_B=[1, 0, 1, 0, 1, 1])
    batch = batch._replace(has_audio_B=batch.has_audio_B > 0, has_video_B=batch.has_video_B > 0)
    draws = make_objective(modality_dropout=0.5).draw(jax.random.key(0), batch)
    np.testing.assert_array_equal(np.asarray(draws.audio_BT).any(1), batch.has_audio_B)
    np.testing.assert_array_equal(np.asarray(draws.video_BT).any(1), batch.has_video_B)
    assert (draws.use_audio_B <= batch.has_audio_B).all()
    assert (draws.use_video_B <= batch.has_video_B).all()


@pytest.mark.parametrize("present", ["audio", "video"])
def test_a_model_of_one_modality_masks_that_alone(present):
    model = tiny_model(present)
    batch = random_batch(LENGTHS, model=model, has_audio_B=[True] * 2, has_video_B=[True] * 2)
    draws = make_objective(model).draw(jax.random.key(0), batch)
    masked = {"audio": np.asarray(draws.audio_BT).any(), "video": np.asarray(draws.video_BT).any()}
    assert masked == {"audio": present == "audio", "video": present == "video"}


def test_feature_masks_are_one_mask():
    batch = random_batch(LENGTHS, model=BOTH)
    draws = make_objective(kind="feature").draw(jax.random.key(0), batch)
    np.testing.assert_array_equal(draws.audio_BT, draws.video_BT)
    np.testing.assert_array_equal(draws.source_BT, np.broadcast_to(np.arange(T), (2, T)))


def test_gradient_of_a_batch_with_every_kind_of_clip_is_finite():
    objective = make_objective(feature_penalty=10.0, modality_dropout=0.5)
    batch = random_batch((12, 1, 3, 0), model=BOTH, has_audio_B=[True, True, False, False],
                         has_video_B=[True, False, True, False])  # fmt: skip
    model = dataclasses.replace(BOTH, dropout=0.1, layerdrop=0.1, input_dropout=0.1, attention_dropout=0.1)
    objective = dataclasses.replace(objective, model=model)
    graphdef, params, stats = initial(objective.make_model)

    @jax.jit
    @jax.grad
    def gradient(params):
        key = jax.random.key(0)
        model = nnx.merge(graphdef, params, stats, copy=True)
        return objective(model, batch, objective.draw(key, batch), key).loss

    grads = jax.tree.leaves(gradient(params))
    assert all(jnp.isfinite(g).all() for g in grads)
    assert sum(bool(jnp.any(g != 0)) for g in grads) == len(grads)
