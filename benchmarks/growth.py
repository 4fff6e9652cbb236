"""How the time and memory of a training step grow with the work: with frames, clips, pixels, clusters and layers.

One of them grows at a time, the others stay. Time is the median of our `Trainer.step`; memory is what the compiler lays
out for the step's temporaries. The exponent is the slope of the logarithms, fitted to all points: 1 doubles with the
work. Beside it stands that of the FLOPs by formula (`mmpretrain/cost/flops.py`), which time should follow, and the law
in words. A slope well above the expected one is something that grows faster than it need.

python -m benchmarks.growth                          Base on the CPU; an hour on few cores
python -m benchmarks.growth --quick                  a narrow network and small sizes; some minutes
python -m benchmarks.growth --quick --only clips     one of them
python -m benchmarks.growth --device cuda --clips 8  on a GPU, in bfloat16
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import numpy as np

from benchmarks.contestants import Work, make_trainer, random_batch
from benchmarks.measuring import dtype_of, machine, make_parser, repetitions_in, timed, write_json
from benchmarks.train_step import recipe, step_flops
from mmpretrain.config import InputConfig, RunConfig, mfcc
from mmpretrain.heap import keep_freed
from mmpretrain.output import at_least_1
from mmpretrain.parallel.mesh import shard_batch


@dataclasses.dataclass(frozen=True)
class Axis:
    """What grows. law: what is expected of time and of memory, in words."""

    sizes: tuple[int, ...]
    quick: tuple[int, ...]
    law: str


AXES = {
    "frames": Axis((100, 200, 400, 700, 1000), (50, 100, 200, 400), "linear; attention alone is quadratic in T"),
    "clips": Axis((1, 2, 4, 8), (2, 4, 8, 16), "linear, over what an update of the weights costs"),
    "image_size": Axis((64, 88, 112, 160, 224), (32, 64, 96, 128), "quadratic for the trunk, nothing for the rest"),
    "clusters": Axis((100, 500, 1000, 2000), (100, 500, 1000, 2000), "linear for the head, nothing for the rest"),
    "layers": Axis((3, 6, 12, 24), (2, 4, 8, 16), "linear for the layers, nothing for the rest"),
}
QUICK = dict(
    width=64, num_heads=2, mlp_dim=256, resnet_width=4, resnet_blocks=(1, 1, 1, 1), proj_dim=32, pos_conv_kernel=32,
    pos_conv_groups=4,
)  # fmt: skip


def sized(config: RunConfig, axis: str, size: int, work: Work) -> Work:
    """The work with one size changed."""
    model, round_ = config.model, config.rounds[0]
    if axis in ("frames", "clips"):
        return dataclasses.replace(work, **{axis: size})
    if axis == "image_size":
        model = dataclasses.replace(model, inputs=InputConfig(image_size=size))
    elif axis == "layers":
        model = dataclasses.replace(model, num_layers=size)
    else:
        round_ = dataclasses.replace(round_, targets=mfcc(size))
    return dataclasses.replace(work, config=dataclasses.replace(config, model=model, rounds=(round_,)))


def measure(work: Work, turns: int, turn_sec: float) -> dict[str, float]:
    """Seconds of a step (wall, processor), bytes of its temporaries, and its FLOPs by formula."""
    trainer = make_trainer(work.config, 1)
    batch = shard_batch(random_batch(work.config.model, work), trainer.mesh)
    # Weights that take no time to draw: what they are changes nothing about how long a step takes.
    small = jax.tree.map(
        lambda x: np.full(x.shape, 0.01 * np.issubdtype(x.dtype, np.floating), x.dtype), trainer.shapes
    )
    state = jax.device_put(small, trainer.placed)
    compiled = trainer.step.lower(state, batch).compile()

    def once() -> Any:
        nonlocal state
        state, metrics = compiled(state, batch)
        return lambda: jax.block_until_ready(metrics)

    count = repetitions_in(turn_sec, timed(once).wall_sec)
    measured = [timed(once, count) for _ in range(turns)]
    return {
        "sec": statistics.median(turn.wall_sec for turn in measured),
        "cpu_sec": statistics.median(turn.cpu_sec for turn in measured),
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "flops": step_flops(work),
    }


def exponent(sizes: tuple[int, ...], values: list[float]) -> float:
    """The slope of log(value) over log(size), by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def grow(axis: str, sizes: tuple[int, ...], work: Work, args: argparse.Namespace) -> list[dict[str, float]]:
    print(f"\n{axis}: {AXES[axis].law}")
    rows = []
    for size in sizes:
        row = measure(sized(work.config, axis, size, work), args.turns, args.turn_sec)
        rows.append({"size": size} | row)
        print(f"  {size:6} {row['sec']:9.3f} s {row['cpu_sec']:9.3f} s of processor time "
              f"{row['temporary_bytes'] / 2**20:9.0f} MiB {row['flops']:.3e} FLOPs", flush=True)  # fmt: skip
    slopes = {
        key: exponent(sizes, [row[key] for row in rows]) for key in ("flops", "sec", "cpu_sec", "temporary_bytes")
    }
    print("  exponent: FLOPs {flops:.2f}; measured: time {sec:.2f}, processor time {cpu_sec:.2f}, memory "
          "{temporary_bytes:.2f}".format(**slopes), flush=True)  # fmt: skip
    return rows


def main() -> None:
    parser = make_parser("growth", __doc__, turns=3, turn_sec=1.0)
    parser.add_argument("--quick", action="store_true", help="a narrow network and small sizes")
    parser.add_argument("--only", choices=AXES, action="append", help="this alone; may be given several times")
    parser.add_argument("--clips", type=at_least_1, default=2, help="where they do not grow (default 2)")
    parser.add_argument("--frames", type=at_least_1, default=100, help="where they do not grow (default 100)")
    args = parser.parse_args()
    keep_freed()  # as the command does
    jax.config.update("jax_platforms", args.device)
    config = recipe("base", dtype_of(args))
    if args.quick:
        config.model = dataclasses.replace(config.model, **QUICK, num_layers=4, inputs=InputConfig(image_size=48))
    work = Work(config, 1, args.clips, args.frames, False, args.device, None)
    print(f"{config.model.width} wide, {config.model.dtype}, {args.clips} x {args.frames} frames of "
          f"{config.model.inputs.image_size} pixels; {jax.devices()[0].device_kind}; {machine()}")  # fmt: skip
    axes = args.only or AXES
    rows = {axis: grow(axis, AXES[axis].quick if args.quick else AXES[axis].sizes, work, args) for axis in axes}
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
