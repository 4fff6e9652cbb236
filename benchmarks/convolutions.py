"""The convolutions of the visual trunk one by one: ours, XLA's own and PyTorch's, forward and both gradients.

For each, milliseconds of the forward pass, of the gradient of its input and of that of its kernel: through the layer
that our ResNet has, through plain `jax.lax.conv_general_dilated`, and through PyTorch with channels last; all in one
process, taking turns, medians. A ratio above 1 means that ours is faster than PyTorch's. The last rows say what the
trunk's convolutions alone allow a step: FLOPs of all of them, each as often as the ResNet has it, over the sum of the
fastest times. The stem has no input gradient, since pixels need none. XLA knows traps here: gradients with dilated
inputs (stride 2), large kernels, and on a CPU pictures smaller than a kernel (the last stage, up to 64 pixels).

python -m benchmarks.convolutions                                  400 pictures of 88 pixels on the CPU; minutes
python -m benchmarks.convolutions --image-size 40                  of smaller pictures
python -m benchmarks.convolutions --pictures 16 --width 8          a look, in seconds
python -m benchmarks.convolutions --device cuda --pictures 2000    bfloat16, on a GPU
"""

from __future__ import annotations

import argparse
import functools
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.measuring import Turn, alternate, dtype_of, machine, make_parser, or_dash, write_json
from mmpretrain import compiler
from mmpretrain.models.resnet import STEM_FRAMES, Conv2D
from mmpretrain.output import at_least_1
from mmpretrain.randomness import generator

PARTS = ("forward", "d input", "d kernel")


class Convolution(NamedTuple):
    """A convolution of the ResNet. times: how often it has it. side: of the picture that comes in."""

    name: str
    times: int
    side: int
    c_in: int
    c_out: int
    size: int
    stride: int

    @property
    def flops_per_picture(self) -> float:
        side = -(-self.side // self.stride)
        return 2 * self.size**2 * self.c_in * self.c_out * side**2


def halved(side: int) -> int:
    return (side + 1) // 2


def convolutions(width: int, image_size: int) -> Iterator[Convolution]:
    """All kinds of a ResNet-18's, from the stem on."""
    yield Convolution("stem 7x7, stride 2", 1, image_size, STEM_FRAMES, width, 7, 2)
    side = halved(halved(image_size))
    yield Convolution("stage 1, 3x3", 4, side, width, width, 3, 1)
    for stage in (2, 3, 4):
        c_in, c_out = width * 2 ** (stage - 2), width * 2 ** (stage - 1)
        yield Convolution(f"stage {stage}, 3x3, stride 2", 1, side, c_in, c_out, 3, 2)
        yield Convolution(f"stage {stage}, shortcut 1x1", 1, side, c_in, c_out, 1, 2)
        side = halved(side)
        yield Convolution(f"stage {stage}, 3x3", 3, side, c_out, c_out, 3, 1)


Function = Callable[[jax.Array, jax.Array], jax.Array]  # of pictures [N, H, W, C] and a kernel [size, size, in, out]


def of_our_layer(conv: Convolution) -> Function:
    layer = nnx.eval_shape(lambda: Conv2D(conv.c_in, conv.c_out, conv.size, conv.stride, rngs=nnx.Rngs(0)))
    graphdef, weights = nnx.split(layer)
    return lambda x, kernel: nnx.merge(graphdef, jax.tree.map(lambda _: kernel, weights))(x)


def plain(conv: Convolution) -> Function:
    padding, strides = ((conv.size // 2,) * 2,) * 2, (conv.stride,) * 2
    dims = ("NHWC", "HWIO", "NHWC")
    return lambda x, kernel: jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=dims)


Works = dict[str, Callable[[], Callable[[], Any]]]


def of_jax(call: Function, arrays: tuple[Any, Any, Any], dtype: str, options: dict[str, str]) -> Works:
    """What `measuring.alternate` takes, by part. options: the compiler's."""
    x, kernel, dy = (jnp.asarray(array, dtype) for array in arrays)
    jit = functools.partial(jax.jit, compiler_options=options)

    compiled = {
        "forward": jit(lambda x, kernel, dy: call(x, kernel)),
        "d input": jit(lambda x, kernel, dy: jax.vjp(lambda x: call(x, kernel), x)[1](dy)),
        "d kernel": jit(lambda x, kernel, dy: jax.vjp(lambda kernel: call(x, kernel), kernel)[1](dy)),
    }

    def once(part: str) -> Callable[[], Any]:
        made = compiled[part](x, kernel, dy)
        return lambda: jax.block_until_ready(made)

    return {part: lambda part=part: once(part) for part in PARTS}


def of_torch(conv: Convolution, arrays: tuple[Any, Any, Any], dtype: str, device: str) -> Works:
    """The same; nothing where PyTorch is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    torch.backends.cudnn.benchmark = True  # it tries its algorithms, as XLA does
    to = dict(device=device, dtype=getattr(torch, dtype))
    x, dy = (torch.tensor(array).permute(0, 3, 1, 2).to(**to) for array in (arrays[0], arrays[2]))  # channels last
    kernel = torch.tensor(arrays[1].transpose(3, 2, 0, 1)).to(**to, memory_format=torch.channels_last)
    pad = conv.size // 2

    def forward() -> None:
        torch.nn.functional.conv2d(x, kernel, stride=conv.stride, padding=pad)

    def backward(of_input: bool) -> None:
        torch.ops.aten.convolution_backward(
            dy, x, kernel, None, [conv.stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1, [of_input, not of_input, False]
        )

    work = {"forward": forward, "d input": lambda: backward(True), "d kernel": lambda: backward(False)}

    def once(part: str) -> Callable[[], Any]:
        work[part]()
        return torch.cuda.synchronize if device == "cuda" else lambda: None

    return {part: lambda part=part: once(part) for part in PARTS}


def measure(conv: Convolution, args: argparse.Namespace, dtype: str) -> list[dict[str, Any]]:
    """A row for each part of one convolution."""
    rng, side = generator(0, conv.name), -(-conv.side // conv.stride)
    arrays = tuple(
        rng.standard_normal(shape, "float32")
        for shape in ((args.pictures, conv.side, conv.side, conv.c_in), (conv.size, conv.size, conv.c_in, conv.c_out),
                      (args.pictures, side, side, conv.c_out))
    )  # fmt: skip
    options = compiler.for_step(jax.default_backend(), args.width)  # as of a step that has the convolution
    works = {
        "ours": of_jax(of_our_layer(conv), arrays, dtype, options), "XLA": of_jax(plain(conv), arrays, dtype, options),
        "PyTorch": of_torch(conv, arrays, dtype, args.device),
    }  # fmt: skip
    rows = []
    for part in PARTS:
        if part == "d input" and conv.name.startswith("stem"):
            continue
        turns = alternate({name: each[part] for name, each in works.items() if each}, args.turns, args.turn_sec)
        rows.append({"convolution": conv.name, "part": part, "times": conv.times,
                     "flops": conv.flops_per_picture * args.pictures,
                     "ms": {name: 1e3 * turn.wall_sec for name, turn in turns.items()},
                     "cpu_ms": {name: 1e3 * turn.cpu_sec for name, turn in turns.items()}})  # fmt: skip
        show(rows[-1], turns)
    return rows


def show(row: dict[str, Any], turns: dict[str, Turn]) -> None:
    ms, (wall, cpu) = row["ms"], (None, None)
    if "PyTorch" in turns:
        wall, cpu = (theirs / ours for ours, theirs in zip(turns["ours"], turns["PyTorch"], strict=True))
    theirs = f"{or_dash(ms.get('PyTorch'), '9.2f'):>9} {or_dash(wall, '6.2f'):>6} {or_dash(cpu, '6.2f'):>6}"
    print(f"{row['convolution']:26} {row['part']:8} {ms['ours']:9.2f} {ms['XLA']:9.2f} {theirs} "
          f"{row['flops'] / min(ms.values()) / 1e9:9.3f}", flush=True)  # fmt: skip


def ceiling(rows: list[dict[str, Any]]) -> None:
    total = sum(row["times"] * row["flops"] for row in rows)
    print("\nThe trunk's convolutions of a step, each as often as it is there:")
    for name in rows[0]["ms"]:
        ms = sum(row["times"] * row["ms"][name] for row in rows)
        print(f"{name:26} {ms:9.1f} ms {total / ms / 1e9:9.3f} TFLOP/s")
    ms = sum(row["times"] * min(row["ms"].values()) for row in rows)
    print(f"{'the fastest of each':26} {ms:9.1f} ms {total / ms / 1e9:9.3f} TFLOP/s")


def main() -> None:
    parser = make_parser("convolutions", __doc__, turns=3, turn_sec=0.2)
    parser.add_argument("--pictures", type=at_least_1, default=400)
    parser.add_argument(
        "--width", type=at_least_1, default=64, help="channels of the stem (default 64, as Base and Large)"
    )
    parser.add_argument("--image-size", type=at_least_1, default=88)
    args = parser.parse_args()
    jax.config.update("jax_platforms", args.device)
    dtype = dtype_of(args)
    print(f"{args.pictures} pictures of {args.image_size} pixels, {dtype}, {jax.devices()[0].device_kind}; {machine()}")
    print(f"{'milliseconds':26} {'':8} {'ours':>9} {'XLA':>9} {'PyTorch':>9} {'ratio':>6} {'cpu':>6} {'TFLOP/s':>9}")
    rows = [row for conv in convolutions(args.width, args.image_size) for row in measure(conv, args, dtype)]
    ceiling(rows)
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
