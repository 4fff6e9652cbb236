"""Steps whose batch lacks a modality, or all contrast, or all that could be learned, train on what there is."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import FinetuneConfig, InputConfig, MaskingConfig, OptimizerConfig, ParallelConfig, emotion
from mmpretrain.objectives.masked_prediction import MaskedPrediction
from mmpretrain.objectives.supervised import Supervised
from mmpretrain.parallel.mesh import make_mesh, shard_batch
from mmpretrain.train.guard import GOOD
from mmpretrain.train.optimizer import make_optimizer
from mmpretrain.train.step import Trainer, mean_gradient, train_step
from tests.slow import others_slow
from tests.tiny import IMAGE_SIZE, random_batch, rows, tiny_model, tiny_round, with_inputs, with_present

# With a mean of 0 a black picture is 0 everywhere: no channel of any layer has a deviation.
INPUTS = InputConfig(image_size=IMAGE_SIZE, pixel_mean=0.0, pixel_std=0.165)
MODEL = tiny_model("audio", "video", inputs=INPUTS, num_layers=1)
LENGTHS = (6, 5, 4, 6)


class Steps:
    """What a step makes of batches of one shape: gradient, kept after it, verdict and parameters."""

    def __init__(self, objective, *, micro_batches: int = 1):
        tx = make_optimizer(OptimizerConfig(peak_lr=1e-2, warmup_steps=0, clip_norm=1.0), 100)
        mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
        self.trainer = Trainer(objective, tx, mesh, micro_batches=micro_batches)
        self.state = self.trainer.init(0)
        self.compiled = {}

    def __call__(self, batch):
        batch = shard_batch(batch, self.trainer.mesh)

        def both(state, batch):
            grads, _, kept = mean_gradient(self.trainer, state, batch, phase=0)
            return grads, kept, *train_step(self.trainer, state, batch)

        shape = batch.valid_BT.shape
        if shape not in self.compiled:
            self.compiled[shape] = jax.jit(both).lower(self.state, batch).compile()
        return jax.device_get(self.compiled[shape](self.state, batch))


@functools.cache
def pretraining(dtype: str = "float32", kind: str = "input", micro_batches: int = 1) -> Steps:
    round_ = tiny_round(masking=MaskingConfig(kind, audio_prob=0.5, audio_span_frames=2), modality_dropout=0.0)
    changed = MODEL if dtype == "float32" else tiny_model("audio", "video", inputs=INPUTS, num_layers=1, dtype=dtype)
    return Steps(MaskedPrediction(changed, round_), micro_batches=micro_batches)


def by_name(tree) -> dict[str, np.ndarray]:
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(tree)}


def largest(grads: dict[str, np.ndarray], part: str) -> float:
    return max(float(np.abs(value).max()) for name, value in grads.items() if part in name)


def assert_trains(steps: Steps, batch, *, absent: str = "", present: tuple[str, ...] = ()):
    """The step is good, the gradient of what is absent is exactly 0, that of what is there is not."""
    grads, kept, state, metrics = steps(batch)
    grads = by_name(grads)
    assert metrics["verdict"] == GOOD
    assert all(np.isfinite(value).all() for value in [*grads.values(), *by_name(state.params).values()])
    assert all(np.isfinite(value).all() for value in by_name(kept).values())
    assert all(np.isfinite(value).all() for value in jax.tree.leaves(state.opt_state))
    if absent:
        assert largest(grads, f"frontends.{absent}.") == 0
    for name in present:
        assert largest(grads, name) > 0
    return by_name(kept)


def stats(steps: Steps) -> dict[str, np.ndarray]:
    return by_name(jax.device_get(steps.state.kept))


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


@pytest.mark.parametrize("dtype", others_slow(["float32", "bfloat16"], "float32"))
def test_whatever_a_batch_lacks_it_trains_on_what_there_is(dtype):
    steps, batch = pretraining(dtype), random_batch(LENGTHS, model=MODEL)
    assert_trains(steps, batch, present=("frontends.audio", "stem", "head"))

    # No picture, though there is rubbish where they would be; then no sound.
    kept = assert_trains(steps, with_present(batch, video=[False] * 4), absent="video", present=("frontends.audio",))
    assert_same(kept, stats(steps))
    kept = assert_trains(steps, with_present(batch, audio=[False] * 4), absent="audio", present=("stem",))
    assert (kept["encoder.frontends.video.resnet.stem.bn.mean"] != 0).any()
    assert_trains(steps, with_present(batch, audio=[True, False] * 2, video=[False, True] * 2), present=("stem",))

    # Pictures without any contrast, alone and beside others; a single picture frame; a clip without a frame.
    black = np.zeros_like(batch.inputs["video"])
    assert_trains(steps, with_inputs(batch, video=black), present=("frontends.audio", "head"))
    grey = batch.inputs["video"].copy()
    grey[:2] = 0
    assert_trains(steps, with_inputs(batch, video=grey), present=("stem",))
    assert_trains(steps, with_inputs(with_present(batch, video=[True, False, False, False]), video=black))
    one_frame = random_batch((1, 5, 4, 6), 6, model=MODEL)
    assert_trains(steps, with_present(one_frame, video=[True, False, False, False]), present=("frontends.audio",))
    assert_trains(steps, random_batch((0, 5, 4, 6), 6, model=MODEL), present=("stem",))
    nothing = random_batch((0, 0, 0, 0), 6, model=MODEL)
    kept = assert_trains(steps, nothing, absent="video")
    assert_same(kept, stats(steps))

    # Nothing to predict.
    assert_trains(steps, batch._replace(targets_BTS=np.full_like(batch.targets_BTS, -1)))


@pytest.mark.slow
def test_a_part_without_pictures_has_no_say_in_the_statistics():
    # Part i has the clips i, i + 2: the second has no pictures. Masks come after the pictures.
    parts, whole = pretraining(kind="feature", micro_batches=2), pretraining(kind="feature")
    batch = with_present(random_batch(LENGTHS, model=MODEL), video=[True, False, True, False])
    kept = assert_trains(parts, batch, present=("frontends.audio", "stem"))
    alone = by_name(whole(rows(batch, slice(0, None, 2)))[1])
    for name, value in kept.items():
        np.testing.assert_allclose(value, alone[name], rtol=1e-5, atol=1e-6, err_msg=name)
    without = with_present(batch, video=[False] * 4)
    assert_same(assert_trains(parts, without, absent="video"), stats(parts))


@pytest.mark.slow
def test_an_encoder_of_both_is_fine_tuned_on_sound_alone_and_on_hidden_pictures():
    masking = MaskingConfig(kind="input", audio_prob=0.3, audio_span_frames=2, video_prob=1.0, video_span_frames=6)
    finetune = FinetuneConfig(tasks=(emotion("neutral", "happy", "sad"),), masking=masking, dropout=0.0)
    steps, batch = Steps(Supervised(MODEL, finetune)), random_batch(LENGTHS, model=MODEL)
    sound = with_present(batch, video=[False] * 4)
    assert_same(assert_trains(steps, sound, absent="video", present=("frontends.audio", "heads")), stats(steps))
    assert_trains(steps, batch, present=("frontends.audio",))  # pictures are mostly hidden: 0 all over
    unlabelled = batch._replace(labels={"emotion": np.full(4, -1, np.int32)})
    assert_trains(steps, unlabelled)
