"""Our pretraining step against the same step in PyTorch, on the same weights, batch and masks, in one command.

Each contestant has a process of its own and they take turns, so that other work on the machine slows all alike; the
figures are medians over turns. `ours` is the trainer of `mmpretrain pretrain`; PyTorch's network is
benchmarks/torch_baseline.py. Frames/s are of the wall clock and of processor time; a ratio above 1 means that ours is
faster. Memory is the peak of the device, or on a CPU of the process (compiling included). Compiling is timed anew
and from the compiler's cache. MFU on a GPU is the model's operations by formula over the peak of the chip's data sheet.

python -m benchmarks.train_step --size base                        4 x 100 frames; many minutes on few cores
python -m benchmarks.train_step --size base --forward              features only, as labelling and extraction need them
python -m benchmarks.train_step --size tiny --frames 20 --turns 1  a look, in a minute
python -m benchmarks.train_step --size large --device cuda --clips 8 --frames 500         bfloat16, on a GPU
python -m benchmarks.train_step --size base --variant model.layerdrop=0 --variant "model.remat=layers seed=7"
                                                                   other settings of ours beside it, in the same run

Sizes: the recipes avhubert_base_lrs3 and avhubert_large_lrs3; tiny and small are Base's with a smaller encoder. PyTorch
is an extra: `pip install 'mmpretrain-jax[bench]'`, or torch by yourself for another build than the CPU's on Linux; its
rows are left out without it. torch.compile needs a C++ compiler, on a GPU a C one: a row says what it lacks.
"""

from __future__ import annotations

import argparse
import ast
import os

# Waiting threads sleep: spinning ones would slow the others down and count as processor time.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import importlib
import importlib.util
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contestants import Ours, PyTorch, Work
from benchmarks.measuring import (
    ContestantError,
    Remote,
    Turn,
    dtype_of,
    machine,
    make_parser,
    or_dash,
    take_turns,
    write_json,
)
from mmpretrain.config import RunConfig, as_dict, encoder_size, from_dict
from mmpretrain.cost import flops
from mmpretrain.cost.chips import chip_of
from mmpretrain.output import at_least_1

SIZES = {"tiny": "base", "small": "base", "base": "base", "large": "large"}  # size -> whose recipe


def recipe(size: str, dtype: str) -> RunConfig:
    config = importlib.import_module(f"configs.pretrain.avhubert_{SIZES[size]}_lrs3").get_config()
    config.model = encoder_size(size, dtype=dtype)
    return config


def overridden(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """The recipe with FIELD=VALUE for dotted fields, such as rounds[0].masking.kind=input.

    Raises ValueError for a field that there is not, and for a value outside its range.
    """
    tree = as_dict(config)
    for override in overrides:
        path, equals, text = override.partition("=")
        *above, last = re.findall(r"[^.\[\]]+", path)
        node: Any = tree
        try:
            for name in above:
                node = node[int(name) if isinstance(node, list) else name]
            node[int(last) if isinstance(node, list) else last]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ValueError(f"{override!r}: the recipe has no field {path!r}; see mmpretrain/config/tree.py") from None
        if not equals:
            raise ValueError(f"{override!r}: an override looks like model.layerdrop=0")
        node[int(last) if isinstance(node, list) else last] = _value(text, node[last])
    return from_dict(RunConfig, tree)


def _value(text: str, old: Any) -> Any:
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = {"true": True, "false": False}.get(text.lower(), text)
    return float(value) if isinstance(old, float) and isinstance(value, int) else value


def step_flops(work: Work) -> float:
    model, targets = work.config.model, work.config.rounds[work.round - 1].targets
    clusters = [of_codebook.num_clusters for of_codebook in targets]
    if work.forward:
        per_frame = flops.forward_flops_per_frame(model, num_frames=work.frames, num_clusters=clusters)
        return work.clips * work.frames * sum(value for part, value in per_frame.items() if part != "head")
    of_parts = flops.step_flops(model, num_clips=work.clips, num_frames=work.frames, num_clusters=clusters)
    return sum(of_parts.values())


def start(work: Work, variants: Mapping[str, Work], *, compiled: bool) -> tuple[dict[str, Remote], dict[str, str]]:
    """The contestants by name, and why those that are not there are not."""
    contestants, missing = {"ours": Remote.start(Ours, work, "ours")}, {}
    for name, variant in variants.items():
        contestants[name] = Remote.start(Ours, variant, name.replace("/", "_"))
    ways = {"PyTorch, compiled": True, "PyTorch, eager": False}
    for name, compiles in ways.items():
        if compiles and not compiled:
            continue
        if importlib.util.find_spec("torch") is None:
            missing[name] = "torch is not installed"
            continue
        try:
            contestants[name] = Remote.start(PyTorch, work, compiles)
        except ContestantError as error:
            missing[name] = error.reason
    return contestants, missing


def table(work: Work, contestants: Mapping[str, Remote], turns: Mapping[str, Turn]) -> list[dict[str, Any]]:
    """A row a contestant, printed and returned. Ends the contestants."""
    chip = chip_of(contestants["ours"].about["device"])
    peak = chip.flops_per_sec[work.config.model.dtype] if chip else None
    size, operations, ours = work.clips * work.frames, step_flops(work), turns["ours"]
    print(f"{'':28} {'frames/s':>9} {'ratio':>6} {'per cpu s':>9} {'ratio':>6} {'peak':>9} {'compile':>8} {'cached':>8}"
          f" {'MFU':>6} {'loss':>8}")  # fmt: skip
    rows = []
    for name, contestant in contestants.items():
        turn, about = turns[name], contestant.about
        row = {
            "name": name, "frames_per_sec": size / turn.wall_sec, "ratio": turn.wall_sec / ours.wall_sec,
            "frames_per_cpu_sec": size / turn.cpu_sec, "cpu_ratio": turn.cpu_sec / ours.cpu_sec,
            "peak_bytes": contestant.stop(), "compile_sec": about.get("compile_sec"),
            "cached_compile_sec": about.get("cached_compile_sec"), "first_loss": about["first_loss"],
            "mfu": flops.mfu(operations, turn.wall_sec, peak) if peak else None,
        }  # fmt: skip
        rows.append(row)
        seconds = [or_dash(row[key], "7.1f", " s") for key in ("compile_sec", "cached_compile_sec")]
        mfu, loss = or_dash(row["mfu"], "6.1%"), or_dash(row["first_loss"], "8.4f")
        print(f"{name:28} {row['frames_per_sec']:9.1f} {row['ratio']:6.2f} {row['frames_per_cpu_sec']:9.1f} "
              f"{row['cpu_ratio']:6.2f} {row['peak_bytes'] / 2**30:5.2f} GiB {seconds[0]:>8} {seconds[1]:>8} {mfu:>6} "
              f"{loss:>8}", flush=True)  # fmt: skip
    return rows


def parser() -> argparse.ArgumentParser:
    parser = make_parser("train_step", __doc__, turns=5, turn_sec=2.0)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--clips", type=at_least_1, default=4)
    parser.add_argument("--frames", type=at_least_1, default=100, help="of each clip (default 100); none is padding")
    parser.add_argument("--forward", action="store_true", help="features of whole clips, without masks and dropout")
    parser.add_argument("--round", type=at_least_1, default=1, help="of the recipe (default 1); Base's 5 masks inputs")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of the recipe, for all")
    parser.add_argument("--variant", action="append", default=[], metavar='"FIELD=VALUE ..."',
                        help="another row of ours, with these fields besides")  # fmt: skip
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled PyTorch out")
    return parser


def main() -> None:
    arguments = parser()
    args = arguments.parse_args()
    dtype = dtype_of(args)
    with tempfile.TemporaryDirectory() as folder:
        try:
            config = overridden(recipe(args.size, dtype), args.set)
            if not 1 <= args.round <= len(config.rounds):
                raise ValueError(
                    f"--round={args.round}: the recipe of {args.size} has rounds 1 to {len(config.rounds)}"
                )
            configs = {f"ours, {each}": overridden(config, each.split()) for each in args.variant}
        except ValueError as error:
            arguments.error(str(error))
        shape = (args.round, args.clips, args.frames, args.forward, args.device, Path(folder))
        work = Work(config, *shape)
        what = "features" if args.forward else f"step of round {args.round}"
        print(f"{args.size}, {what}, {args.clips} x {args.frames} frames of {config.model.inputs.image_size} pixels, "
              f"{config.model.dtype}; {machine()}", flush=True)  # fmt: skip
        try:
            contestants, missing = start(
                work, {name: Work(each, *shape) for name, each in configs.items()}, compiled=not args.no_compile
            )
            print(
                ", ".join(
                    [contestants["ours"].about["device"], *sorted({c.about["version"] for c in contestants.values()})]
                )
            )
            rows = table(work, contestants, take_turns(contestants, args.turns, args.turn_sec))
        except ContestantError as error:
            raise SystemExit(str(error)) from None
    for name, reason in missing.items():
        print(f"{name:28} not measured: {reason}")
    if any(row["mfu"] is not None for row in rows):
        peak = chip_of(contestants["ours"].about["device"]).flops_per_sec[dtype]
        print(f"MFU: {step_flops(work):.3e} FLOPs / (seconds * {peak:.3e} FLOP/s), FLOPs {flops.FORMULA}")
    write_json(args.json, {"work": vars(args), "device": contestants["ours"].about["device"], "rows": rows,
                           "missing": missing})  # fmt: skip


if __name__ == "__main__":
    main()
