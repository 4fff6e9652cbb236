"""Makes one training step on eight virtual CPU devices, on the named meshes, and prints JSON of what came out.

Run by test_meshes.py in its own process, since the number of devices is fixed when JAX starts:
python -m tests.sharding.one_step OUTPUT.npz one mixed, or with `sound` for steps of sound in parts
"""

import functools
import json
import sys

import jax

jax.config.update("jax_num_cpu_devices", 8)

import numpy as np  # noqa: E402
from flax import nnx  # noqa: E402

from mmpretrain.config import MaskingConfig, OptimizerConfig, ParallelConfig  # noqa: E402
from mmpretrain.cost.hlo import KINDS  # noqa: E402
from mmpretrain.objectives.masked_prediction import MaskedPrediction  # noqa: E402
from mmpretrain.parallel.mesh import FrameShares, make_mesh, shard_batch  # noqa: E402
from mmpretrain.train.guard import GOOD  # noqa: E402
from mmpretrain.train.optimizer import make_optimizer  # noqa: E402
from mmpretrain.train.step import Trainer, draw  # noqa: E402
from tests.tiny import random_batch, tiny_model, tiny_round, with_present  # noqa: E402

MESHES = {"one": (1, 1, 1), "data": (8, 1, 1), "mixed": (2, 2, 2), "fsdp": (1, 8, 1), "accelerator": (2, 2, 2)}


def sound_in_parts(arrays: dict[str, np.ndarray]) -> None:
    """Steps of a batch of sound: whole on one device, and in two parts on all; and what moves between devices then."""
    model = tiny_model("audio")
    objective = MaskedPrediction(model, tiny_round(masking=MaskingConfig("feature", span_frames=3)))
    batch = random_batch((8, 3, 8, 5, 8, 8, 2, 7), model=model)
    for name, shape, parts in (
        ("one sound", (1, 1, 1), 1),
        ("parts sound", (2, 2, 2), 2),
        ("whole sound", (2, 2, 2), 1),
    ):
        mesh = make_mesh(ParallelConfig(*shape), jax.devices()[: int(np.prod(shape))])
        tx = make_optimizer(OptimizerConfig(peak_lr=0.3, eps=1.0, warmup_steps=0), 100)
        trainer = Trainer(objective, tx, mesh, micro_batches=parts)
        state, placed = trainer.init(0), shard_batch(batch, mesh)
        step = trainer.step.lower(state, placed).compile()
        text = step.as_text()
        arrays[f"{name} exchanges"] = np.array([text.count(f" {kind}(") for kind in KINDS if kind != "all-reduce"])
        for _ in range(2):
            state, metrics = step(state, placed)
        tree = {"params": state.params, "metrics": {k: v for k, v in metrics.items() if k != "verdict"}}
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            arrays[f"{name} {jax.tree_util.keystr(path)}"] = np.asarray(leaf)


def steps(names: list[str], arrays: dict[str, np.ndarray], report: dict) -> None:
    model = tiny_model("audio", "video", num_layers=1, resnet_width=4, dropout=0.1)
    round_ = tiny_round(masking=MaskingConfig("input"), modality_dropout=0.5)
    round_.targets[0].num_clusters = 8
    # A large epsilon makes Adam linear in the gradient: its usual step has the size of the rate however small the
    # gradient is, rounding noise included.
    tx = make_optimizer(OptimizerConfig(peak_lr=1.0, eps=1.0, warmup_steps=0), 100)
    # Clips of different lengths, some without a modality: devices have different numbers of masked frames, and the last
    # of eight has no picture.
    batch = random_batch(
        (9, 3, 9, 5, 9, 9, 2, 7),  # nine frames, which two devices of a clip cannot share evenly
        model=model,
        present={"audio": [True] * 6 + [False, True], "video": [True] * 7 + [False]},
    )
    for name in names:
        shape = MESHES[name]
        if name == "accelerator":  # the forms of operations that are for a GPU, on these devices
            FrameShares.platform = "gpu"
        mesh = make_mesh(ParallelConfig(*shape), jax.devices()[: int(np.prod(shape))])
        trainer = Trainer(MaskedPrediction(model, round_), tx, mesh)
        state = trainer.init(0)
        placed = {path: leaf for path, leaf in nnx.to_flat_state(state.params)}
        report[name] = {
            ".".join(map(str, path)): [leaf.shape, leaf[...].addressable_shards[0].data.shape]
            for path, leaf in placed.items()
        }
        moments = jax.tree.map(lambda p, m: p.sharding == m.sharding, state.params, state.opt_state[1].mu)
        report[name + " moments"] = all(jax.tree.leaves(moments))
        start = jax.tree.map(np.array, state.params)
        masks, _ = jax.jit(functools.partial(draw, trainer, train=False))(state, shard_batch(batch, mesh))
        for path, leaf in jax.tree_util.tree_leaves_with_path(masks):
            arrays[f"{name} validation {jax.tree_util.keystr(path)}"] = np.asarray(leaf)
        placed_batch = shard_batch(batch, mesh)
        step = trainer.step.lower(state, placed_batch).compile()
        report[name + " sums"] = step.as_text().count(" all-reduce(")
        report[name + " flops"] = step.cost_analysis()["flops"]
        if name in ("one", "mixed"):
            sums = trainer.evaluate(state, placed_batch)
            for path, leaf in jax.tree_util.tree_leaves_with_path(sums):
                arrays[f"{name} evaluation {jax.tree_util.keystr(path)}"] = np.asarray(leaf)
        state, metrics = step(state, placed_batch)
        changed = {"params": state.params, "stats": state.kept}
        for path, leaf in jax.tree_util.tree_leaves_with_path(changed) + jax.tree_util.tree_leaves_with_path(metrics):
            arrays[f"{name} {jax.tree_util.keystr(path)}"] = np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(start):
            arrays[f"{name} start {jax.tree_util.keystr(path)}"] = leaf
        # The same step without any picture.
        fresh = trainer.init(0)
        kept = [np.array(leaf) for leaf in jax.tree.leaves(fresh.kept)]
        blind, metrics = step(fresh, shard_batch(with_present(batch, video=[False] * 8), mesh))
        report[name + " blind"] = {
            "good": int(metrics["verdict"]) == GOOD,
            "finite": all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves((blind.params, blind.opt_state))),
            "statistics": all(np.array_equal(*pair) for pair in zip(jax.tree.leaves(blind.kept), kept, strict=True)),
        }


def main(output: str, *names: str) -> None:
    arrays, report = {}, {}
    if names == ("sound",):
        sound_in_parts(arrays)
    else:
        steps(list(names), arrays, report)
    np.savez(output, **arrays)
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
