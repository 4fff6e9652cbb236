"""The pretraining loss: nothing leaks, padding and neighbours do not matter, and the sums equal a NumPy writing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import MaskingConfig, ReferenceModelConfig, ReferenceRoundConfig, mfcc
from mmpretrain.objectives.masked_prediction import MaskedPrediction, Masks
from mmpretrain.objectives.masking import same_clip_sources
from tests.tiny import clip_keys, initial, padded, random_batch, rows, tiny_model, tiny_round, with_inputs, with_present

BOTH = tiny_model("audio", "video")
LENGTHS = (12, 9)
T = 12


def make_objective(model=BOTH, kind="input", **changes) -> MaskedPrediction:
    changes = {"feature_penalty": 0.0, "masking": MaskingConfig(kind=kind)} | changes
    return MaskedPrediction(model, tiny_round(**changes))


class Evaluation:
    """`objective` with random weights: its sums and the first codebook's logits [B, T, K], compiled a batch shape."""

    def __init__(self, objective: MaskedPrediction):
        graphdef, self.params, stats = initial(objective.make_model)

        def program(params, batch, draws):
            model = nnx.merge(graphdef, params, stats)
            return objective.loss(model, batch, draws, None, train=False), objective.predict(
                model, batch, draws, None
            ).logits[0]

        self.program, self._run = program, jax.jit(program)

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
        np.asarray(same_clip_sources(clip_keys(batch, 1), stretch(*video), batch.valid_BT)),
        batch.present,
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
    other = with_inputs(
        batch, audio=changed(batch.inputs["audio"], draws.audio_BT), video=changed(batch.inputs["video"], video)
    )
    assert not np.array_equal(other.inputs["video"], batch.inputs["video"])
    np.testing.assert_array_equal(run(other, draws)[1], logits)
    assert run(other, draws)[0].loss == sums.loss


@pytest.mark.parametrize("name", ["audio", "video"])
def test_seen_sound_and_seen_pictures_change_it(batch, name):
    run, draws = evaluation(), one_run_masks(batch)
    seen = ~(draws.audio_BT if name == "audio" else draws.video_BT) & batch.valid_BT
    other = with_inputs(batch, **{name: changed(batch.inputs[name], seen)})
    assert np.abs(run(other, draws)[1] - run(batch, draws)[1])[batch.valid_BT].max() > 1e-4


def test_feature_masking_hides_the_fused_frame():
    model = tiny_model("audio")
    batch = random_batch(LENGTHS, model=model)
    run, draws = evaluation_of_sound("feature"), one_run_masks(batch)
    draws = draws._replace(video_BT=draws.audio_BT)
    other = with_inputs(batch, audio=changed(batch.inputs["audio"], draws.audio_BT))
    np.testing.assert_array_equal(run(other, draws)[1], run(batch, draws)[1])
    seen = with_inputs(batch, audio=changed(batch.inputs["audio"], ~draws.audio_BT))
    assert np.abs(run(seen, draws)[1] - run(batch, draws)[1])[batch.valid_BT].max() > 1e-4


@pytest.mark.parametrize("unmasked_weight", [0.0, 0.5])
def test_sums_equal_a_slow_writing(unmasked_weight):
    batch = random_batch(LENGTHS, model=tiny_model("audio"))
    targets_BT = batch.targets_BTS[..., 0].copy()
    targets_BT[0, 4] = targets_BT[1, 0] = -1  # one masked, one unmasked frame without a target
    batch = batch._replace(targets_BTS=targets_BT[..., None])
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
    projection = without.params["encoder"]["frontends"]["audio"]["proj"]
    fused = batch.inputs["audio"] @ np.asarray(projection["kernel"][...]) + np.asarray(projection["bias"][...])
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
        targets_BTS=np.where([[[True]], [[False]]], batch.targets_BTS, -1),
        present={name: np.array([True, False]) for name in ("audio", "video")},
    )
    draws = draws._replace(use=filler.present)
    with_filler, logits = run(filler, draws)
    alone, _ = run(rows(batch, [0]), rows(draws, [0]))
    np.testing.assert_allclose(with_filler.loss, alone.loss, rtol=1e-5)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("name", ["audio", "video"])
def test_dropping_a_modality_equals_not_having_it(batch, name):
    run = evaluation("feature")
    draws = one_run_masks(batch)
    absent = draws._replace(use=draws.use | {name: np.zeros(2, bool)})
    dropped, _ = run(batch, absent)
    gone = with_inputs(with_present(batch, **{name: [False] * 2}), **{name: np.zeros_like(batch.inputs[name])})
    lacking, _ = run(gone, absent)
    assert dropped.loss == lacking.loss
    assert dropped.loss != run(batch, draws)[0].loss


def test_what_a_clip_lacks_asks_for_no_prediction():
    batch = random_batch((T,) * 6, model=BOTH, present={"audio": [1, 1, 0, 0, 1, 0], "video": [1, 0, 1, 0, 1, 1]})
    draws = make_objective(modality_dropout=0.5).draw(clip_keys(batch), batch, step=0, train=True)
    np.testing.assert_array_equal(np.asarray(draws.audio_BT).any(1), batch.present["audio"])
    np.testing.assert_array_equal(np.asarray(draws.video_BT).any(1), batch.present["video"])
    assert (draws.use["audio"] <= batch.present["audio"]).all()
    assert (draws.use["video"] <= batch.present["video"]).all()


@pytest.mark.parametrize("present", ["audio", "video"])
def test_a_model_of_one_modality_masks_that_alone(present):
    model = tiny_model(present)
    batch = random_batch(LENGTHS, model=model)
    draws = make_objective(model).draw(clip_keys(batch), batch, step=0, train=True)
    masked = {"audio": np.asarray(draws.audio_BT).any(), "video": np.asarray(draws.video_BT).any()}
    assert masked == {"audio": present == "audio", "video": present == "video"}


def test_feature_masks_are_one_mask():
    batch = random_batch(LENGTHS, model=BOTH)
    draws = make_objective(kind="feature").draw(clip_keys(batch), batch, step=0, train=True)
    np.testing.assert_array_equal(draws.audio_BT, draws.video_BT)
    np.testing.assert_array_equal(draws.source_BT, np.broadcast_to(np.arange(T), (2, T)))


@pytest.mark.slow
def test_gradient_of_a_batch_with_every_kind_of_clip_is_finite():
    objective = make_objective(feature_penalty=10.0, modality_dropout=0.5)
    batch = random_batch((12, 1, 3, 0), model=BOTH, present={"audio": [1, 1, 0, 0], "video": [1, 0, 1, 0]})
    model = dataclasses.replace(BOTH, dropout=0.1, layerdrop=0.1, input_dropout=0.1, attention_dropout=0.1)
    objective = dataclasses.replace(objective, model=model)
    graphdef, params, stats = initial(objective.make_model)

    @jax.jit
    @jax.grad
    def gradient(params):
        key = jax.random.key(0)
        model = nnx.merge(graphdef, params, stats, copy=True)
        draws = objective.draw(clip_keys(batch), batch, step=0, train=True)
        return objective.loss(model, batch, draws, key, train=True).loss

    grads = jax.tree.leaves(gradient(params))
    assert all(jnp.isfinite(g).all() for g in grads)
    assert sum(bool(jnp.any(g != 0)) for g in grads) == len(grads)


@pytest.mark.parametrize("tied", [False, True])
def test_several_codebooks_each_have_their_own_head_and_their_losses_add_up(tied):
    model = tiny_model("audio", reference=ReferenceModelConfig(tied_projection=tied))
    reference = ReferenceRoundConfig(dead_classes=2)
    objective = make_objective(model, "feature", targets=mfcc(5) + mfcc(7), reference=reference, unmasked_weight=0.5)
    batch = random_batch(LENGTHS, model=model)
    second = np.where(batch.valid_BT, np.random.default_rng(3).integers(0, 5, batch.valid_BT.shape), -1)
    batch = batch._replace(targets_BTS=np.stack([second, batch.targets_BTS[..., 0]], -1).astype(np.int32))
    draws = one_run_masks(batch)._replace(video_BT=one_run_masks(batch).audio_BT)
    graphdef, params, stats = initial(objective.make_model)
    network = nnx.merge(graphdef, params, stats)
    assert network.head.proj.kernel.shape == (model.width, model.proj_dim * (1 if tied else 2))
    sums, prediction = (
        objective.loss(network, batch, draws, None, train=False),
        objective.predict(network, batch, draws, None),
    )
    assert [logits.shape[-1] for logits in prediction.logits] == [5 + 2, 7 + 2]
    assert not np.allclose(prediction.logits[0], prediction.logits[1][..., :7])

    expected, count = 0.0, (draws.audio_BT & batch.valid_BT).sum()
    for s, logits in enumerate(prediction.logits):
        log_probs = np.asarray(jax.nn.log_softmax(logits))
        nll = -np.take_along_axis(log_probs, np.maximum(batch.targets_BTS[..., s, None] + 2, 0), -1)[..., 0]
        masked, unmasked = (nll[where & batch.valid_BT].sum() for where in (draws.audio_BT, ~draws.audio_BT))
        expected += masked + 0.5 * unmasked
        np.testing.assert_allclose(sums.metrics[f"masked_loss_{s + 1}"], (masked, count), rtol=1e-5)
    np.testing.assert_allclose(sums.loss, expected, rtol=1e-5)
    assert sums.weight == batch.valid_BT.sum(), "a frame counts once, whatever the number of codebooks"
    assert sums.metrics["masked_accuracy"][1] == 2 * count


def test_a_frame_is_predicted_by_the_heads_that_it_has_targets_of_each_with_its_weight():
    model = tiny_model("audio")
    targets = mfcc(7) + mfcc(7, weight=3.0)
    objective = make_objective(model, "feature", targets=targets, unmasked_weight=0.5)
    batch = random_batch(LENGTHS, model=model)
    ids = np.repeat(batch.targets_BTS, 2, axis=-1)
    ids[1, :, 1] = -1  # the second clip has no targets of the second codebook,
    ids[0, 4, 0] = -1  # one masked frame none of the first,
    ids[0, 5] = -1  # and one none at all
    batch, draws = batch._replace(targets_BTS=ids), one_run_masks(batch)
    draws = draws._replace(video_BT=draws.audio_BT)
    graphdef, params, stats = initial(objective.make_model)
    network = nnx.merge(graphdef, params, stats)
    sums = objective.loss(network, batch, draws, None, train=False)
    prediction = objective.predict(network, batch, draws, None)
    expected, masked = 0.0, draws.audio_BT
    for s, weight in enumerate((1.0, 3.0)):
        known = ids[..., s] >= 0
        nll = -np.take_along_axis(
            np.asarray(jax.nn.log_softmax(prediction.logits[s])), np.maximum(ids[..., s, None], 0), -1
        )[..., 0]
        expected += weight * (nll[masked & known].sum() + 0.5 * nll[~masked & known].sum())
        name = f"masked_accuracy_{s + 1}"
        assert sums.metrics[name][1] == (masked & known).sum(), "counts are of the codebook's own frames"
    np.testing.assert_allclose(sums.loss, expected, rtol=1e-5)
    assert sums.weight == (ids >= 0).any(-1).sum(), "a frame counts once if it has a target at all"
    assert sums.weight == objective.counts(batch, draws).weight


def test_frames_beyond_the_last_target_of_a_batch_are_cut():
    model = tiny_model("audio")
    objective = make_objective(model, "feature")
    batch = random_batch(LENGTHS, model=model)
    targets = np.arange(2 * 11).reshape(2, 11, 1) % 7
    graphdef, params, stats = initial(objective.make_model)
    network, draws = nnx.merge(graphdef, params, stats), one_run_masks(batch)
    prediction = objective.predict(network, batch._replace(targets_BTS=targets), draws, None)
    np.testing.assert_array_equal(prediction.classes_BTS, targets)
    assert prediction.logits[0].shape[1] == prediction.fused_BTC.shape[1] == prediction.masked_BT.shape[1] == 11


def test_a_lone_clip_reads_zeros_where_it_is_masked_if_so_asked(batch):
    lone = rows(batch, [0])
    draws = rows(one_run_masks(batch), [0])
    plain = evaluation()
    quirky = Evaluation(make_objective(reference=ReferenceRoundConfig(zero_lone_clip=True)))
    assert not np.allclose(quirky(lone, draws)[1], plain(lone, draws)[1], atol=1e-3)
    both = jax.jit(lambda draws: [each.program(plain.params, batch, draws)[1] for each in (quirky, plain)])
    np.testing.assert_array_equal(*both(one_run_masks(batch)))
    vector = quirky.params["mask_embedding"]
    before = vector[...]
    try:
        vector[...] = before + 1.0
        moved = quirky(lone, draws)[1]
    finally:
        vector[...] = before
    np.testing.assert_array_equal(moved, quirky(lone, draws)[1])


def test_pictures_of_another_clip_stand_in_place_of_hidden_ones(batch):
    objective = make_objective(masking=MaskingConfig(kind="input", video_source="other_clip"))
    draws = objective.draw(clip_keys(batch), batch, step=0, train=True)
    video = np.asarray(draws.video_BT)
    np.testing.assert_array_equal(draws.source_clip_BT, np.where(video, [[1], [0]], [[0], [1]]))
    run = evaluation()
    where = video & batch.valid_BT & batch.valid_BT[::-1]
    draws = draws._replace(video_BT=where, source_clip_BT=np.where(where, [[1], [0]], [[0], [1]]))
    swapped = np.where(where[..., None, None], batch.inputs["video"][::-1], batch.inputs["video"])
    own = draws._replace(source_clip_BT=np.broadcast_to([[0], [1]], where.shape))
    np.testing.assert_array_equal(run(batch, draws)[1], run(with_inputs(batch, video=swapped), own)[1])


def test_padding_counts_in_the_penalty_if_so_asked(batch):
    draws = one_run_masks(batch)
    more = padded(batch, 6)
    more_draws = draws._replace(
        **{name: np.pad(getattr(draws, name), ((0, 0), (0, 6))) for name in ("audio_BT", "video_BT", "source_BT")}
    )
    run = Evaluation(make_objective(reference=ReferenceRoundConfig(count_padding=True), feature_penalty=1.0))
    short, long = (
        np.divide(*run(*args)[0].metrics["feature_penalty"]) for args in ((batch, draws), (more, more_draws))
    )
    assert abs(short - long) > 1e-3


def test_pictures_of_visible_frames_alone_predict_the_same():
    masking = MaskingConfig("feature", prob=0.8, span_frames=3, visible_only=True)
    batch = random_batch(LENGTHS, model=BOTH)
    objective = make_objective(masking=masking)
    masks = objective.draw(clip_keys(batch), batch, step=0, train=False)
    assert masks.visible_BK.shape[1] < T
    visible = batch.valid_BT & ~np.asarray(masks.video_BT)
    for at_K, visible_T in zip(masks.visible_BK, visible, strict=True):
        assert sorted({*at_K.tolist()} - {T}) == np.flatnonzero(visible_T).tolist()

    sums, logits = Evaluation(objective)(batch, masks)
    plain, expected = evaluation("feature")(batch, masks._replace(visible_BK=None))
    np.testing.assert_allclose(logits[batch.valid_BT], expected[batch.valid_BT], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sums.loss, plain.loss, rtol=1e-4)
    assert sums.metrics["feature_penalty"][1] == visible.sum() < plain.metrics["feature_penalty"][1]
