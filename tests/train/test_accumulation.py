"""A batch in parts, one after another, makes the step that it makes whole, in less memory."""

import jax
import numpy as np
import pytest

from mmpretrain.config import FinetuneConfig, MaskingConfig, OptimizerConfig, ParallelConfig, emotion
from mmpretrain.objectives.masked_prediction import MaskedPrediction
from mmpretrain.objectives.supervised import Supervised
from mmpretrain.parallel.mesh import make_mesh, shard_batch
from mmpretrain.train.optimizer import make_optimizer
from mmpretrain.train.step import Trainer
from tests.tiny import random_batch, rows, tiny_model, tiny_round

# A large epsilon makes Adam linear in the gradient, so that rounding noise stays what it is.
OPTIMIZER = OptimizerConfig(peak_lr=0.3, eps=1.0, warmup_steps=0)
LENGTHS = (12, 11, 3, 9, 12, 12, 10, 2)


def run(objective, batch, micro_batches: int, num_steps: int = 3):
    """(params, batch statistics, metrics of each step) as lists of arrays, and the bytes of temporaries."""
    mesh = make_mesh(ParallelConfig())
    trainer = Trainer(objective, make_optimizer(OPTIMIZER, 1_000), mesh, micro_batches=micro_batches)
    state, placed = trainer.init(0), shard_batch(batch, mesh)
    start = jax.tree.leaves(jax.tree.map(np.array, state.params))
    step = trainer.step.lower(state, placed).compile()
    seen = []
    for _ in range(num_steps):
        state, metrics = step(state, placed)
        seen.append(jax.device_get(metrics))
    params, stats = (jax.tree.leaves(jax.device_get(tree)) for tree in (state.params, state.kept))
    moved = sum(np.abs(a - b).max() > 1e-3 for a, b in zip(params, start, strict=True))
    assert moved > len(params) / 2, "most parameters moved by far more than the tolerance"
    return params, stats, seen, step.memory_analysis().temp_size_in_bytes


def assert_same(ours, theirs, *, stats_rtol: float = 0.0) -> None:
    for part, (rtol, atol) in enumerate([(2e-4, 2e-5), (stats_rtol, 0), (2e-4, 2e-5)]):
        for a, b in zip(*map(jax.tree.leaves, (ours[part], theirs[part])), strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def test_two_and_four_parts_equal_the_whole_and_take_less_memory():
    model = tiny_model("audio", width=32)
    # The penalty is a mean over the batch and the loss is of masked frames, of which parts have different numbers.
    round_ = tiny_round(masking=MaskingConfig("input", audio_span_frames=3), unmasked_weight=0.5)
    batch = random_batch(LENGTHS, model=model)
    results = {parts: run(MaskedPrediction(model, round_), batch, parts) for parts in (1, 2, 4)}
    for parts in (2, 4):
        assert_same(results[parts], results[1])
    assert results[4][3] < 0.75 * results[2][3] < 0.75 * 0.75 * results[1][3]


def test_classification_in_parts_equals_the_whole():
    model = tiny_model("audio")
    objective = Supervised(model, FinetuneConfig(tasks=(emotion("neutral", "happy", "sad"),), dropout=0.0))
    batch = random_batch(LENGTHS, model=model, emotions=[0, 1, -1, 2, 0, -1, -1, 1])
    assert_same(run(objective, batch, 4), run(objective, batch, 1))


@pytest.mark.slow
def test_pictures_in_parts_equal_the_whole_where_every_part_has_the_statistics_of_all():
    model = tiny_model("audio", "video")
    # Part i has the clips i, i + 2, ...: each clip of pairs once. Only the masks differ, which come after the pictures.
    batch = rows(random_batch((12, 9, 12, 5), model=model), np.repeat(np.arange(4), 2))
    objective = MaskedPrediction(model, tiny_round(masking=MaskingConfig("feature", span_frames=3)))
    whole, parts = run(objective, batch, 1, num_steps=2), run(objective, batch, 2, num_steps=2)
    # The running variances are of the unbiased ones, whose n is that of a part.
    assert_same(parts, whole, stats_rtol=1e-2)
