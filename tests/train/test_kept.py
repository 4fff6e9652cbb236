"""What an objective keeps beside parameters: saved, cut over the mesh, and left alone by a bad step."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import HealthConfig, OptimizerConfig, ParallelConfig
from mmpretrain.parallel.mesh import make_mesh, shard_batch
from mmpretrain.train.checkpoint import Checkpointer
from mmpretrain.train.optimizer import make_optimizer
from mmpretrain.train.step import Trainer
from mmpretrain.train.validation import validate
from tests.keeping import DECAY, Distillation
from tests.tiny import random_batch, tiny_model, with_inputs

ROOT = Path(__file__).parents[2]
OPTIMIZER = OptimizerConfig(peak_lr=1e-2, warmup_steps=0)


def make_trainer(**changes) -> Trainer:
    return Trainer(Distillation(), make_optimizer(OPTIMIZER, 100), make_mesh(ParallelConfig()), **changes)


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return make_trainer(health=HealthConfig(skip_bad_steps=1))


def batch_of(trainer: Trainer, seed: int, change=lambda batch: batch):
    return shard_batch(change(random_batch((12, 9, 5, 7), model=tiny_model("audio"), seed=seed)), trainer.mesh)


def run(trainer: Trainer, state, steps: range):
    seen = []
    for step in steps:
        state, metrics = trainer.step(state, batch_of(trainer, step))
        seen.append(jax.device_get(metrics))
    return state, seen


def arrays(state) -> list[np.ndarray]:
    return [np.array(x) for x in jax.tree.leaves(state)]


def test_the_teacher_follows_and_the_codebook_moves(trainer):
    state = trainer.init(0)
    start = {name: np.array(state.kept[name][...]) for name in ("teacher", "codes", "hits")}
    state, seen = run(trainer, state, range(1))
    student = np.array(state.params["student"][...])
    np.testing.assert_allclose(
        state.kept["teacher"][...], DECAY * start["teacher"] + (1 - DECAY) * student, rtol=1e-5, atol=1e-7
    )
    hits = np.array(state.kept["hits"][...]) - start["hits"]
    assert hits.sum() == 12 + 9 + 5 + 7
    moved = (np.array(state.kept["codes"][...]) != start["codes"]).any(1)
    np.testing.assert_array_equal(moved, hits > 0)
    assert seen[0]["spread"] > 0, "a metric that is no ratio"


def test_it_resumes_bit_for_bit(trainer, tmp_path):
    straight, seen = run(trainer, trainer.init(0), range(6))
    state, first = run(trainer, trainer.init(0), range(3))
    saved = Checkpointer(tmp_path / "checkpoints", keep=1)
    saved.save(3, state, {})
    saved.wait()
    state, _ = saved.restore(trainer.init(1))
    saved.close()
    resumed, last = run(trainer, state, range(3, 6))
    assert first + last == seen
    for ours, theirs in zip(arrays(resumed), arrays(straight), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_bad_step_leaves_it_alone(trainer):
    state, _ = run(trainer, trainer.init(0), range(2))
    before = arrays((state.params, state.kept, state.opt_state))
    broken = batch_of(trainer, 2, lambda batch: with_inputs(batch, audio=np.full_like(batch.inputs["audio"], np.nan)))
    state, metrics = trainer.step(state, broken)
    assert metrics["passed_over"] == 1
    for ours, theirs in zip(arrays((state.params, state.kept, state.opt_state)), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_parts_of_a_batch_make_the_same_codebook(trainer):
    whole, _ = run(trainer, trainer.init(0), range(2))
    parts, _ = run(made := make_trainer(micro_batches=2), made.init(0), range(2))
    for ours, theirs in zip(arrays(parts.kept), arrays(whole.kept), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_validation_adds_up_what_is_no_ratio(trainer):
    batches = [random_batch((12, 9), model=tiny_model("audio"), seed=seed) for seed in range(2)]
    together = validate(trainer, trainer.init(0), batches)
    spreads = [validate(trainer, trainer.init(0), [batch])["validation/spread"] for batch in batches]
    assert together["validation/spread"] > 0
    assert abs(together["validation/spread"] - np.mean(spreads)) > 1e-6, "not the mean of the parts' spreads"


def test_it_is_cut_over_a_mesh_and_goes_on_there(tmp_path):
    code = "from tests.train.test_kept import on_another_mesh; import sys; on_another_mesh(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shards = json.loads(done.stdout.splitlines()[-1])
    assert shards == {"teacher": [104, 4], "codes": [2, 4], "hits": [2]}


def on_another_mesh(folder: str) -> None:
    """In a process of its own, with eight devices: three steps on one, saved, then three on all."""
    jax.config.update("jax_num_cpu_devices", 8)
    tx = make_optimizer(OPTIMIZER, 100)
    one, all_ = (
        Trainer(Distillation(), tx, make_mesh(ParallelConfig(*shape), jax.devices()[: int(np.prod(shape))]))
        for shape in ((1, 1, 1), (2, 2, 2))
    )
    straight, seen = run(one, one.init(0), range(6))
    state, _ = run(one, one.init(0), range(3))
    saved = Checkpointer(Path(folder) / "checkpoints", keep=1)
    saved.save(3, state, {})
    saved.wait()
    state, _ = saved.restore(all_.init(1))
    saved.close()
    state, last = run(all_, state, range(3, 6))
    for ours, theirs in zip(arrays((state.params, state.kept)), arrays((straight.params, straight.kept)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose([m["loss"] for m in last], [m["loss"] for m in seen[3:]], rtol=1e-5)
    names = {".".join(path): leaf for path, leaf in nnx.to_flat_state(state.kept)}
    print(json.dumps({name: leaf[...].addressable_shards[0].data.shape for name, leaf in names.items()}))
