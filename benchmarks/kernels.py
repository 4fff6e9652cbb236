"""The other parts of a step one by one, ours and PyTorch's, and what a device reaches on plain matrix products.

- matrix products: the measured ceiling, square, and of the shapes of a transformer layer
- position convolution: ours against PyTorch's grouped one, forward and backward
- attention, forward and backward: XLA's with a mask, cuDNN's with length vectors (bfloat16 on a GPU), PyTorch's
- dropout's random bits: JAX's default generator (threefry) against rbg, for one mask of a layer, and PyTorch's

One process, in turns, medians of milliseconds. A row that cannot be measured here says why.

python -m benchmarks.kernels                                     Base's sizes at 400 frames on the CPU; a minute or two
python -m benchmarks.kernels --width 64 --heads 2 --clips 2 --frames 50 --square 256        a look, in seconds
python -m benchmarks.kernels --device cuda --clips 8 --frames 500 --square 8192             bfloat16, on a GPU
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.measuring import alternate, dtype_of, machine, make_parser, write_json
from mmpretrain.models.transformer import PositionalConv
from mmpretrain.output import at_least_1
from mmpretrain.randomness import generator, seed_key

try:
    import torch
except ImportError:
    torch = None

Works = dict[str, Callable[[], Callable[[], Any]]]


class Bench:
    """The sizes, and how a function of JAX or PyTorch becomes work that can be timed."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.device = args, args.device
        self.dtype = dtype_of(args)
        self.shape = (args.clips, args.frames, args.width)

    def drawn(self, *shape: int) -> np.ndarray:
        return generator(0, "kernels", *shape).standard_normal(shape, "float32")

    def of_jax(self, function: Callable[..., Any], *arrays: np.ndarray) -> Callable[[], Any]:
        given = [jnp.asarray(array, self.dtype if array.dtype == np.float32 else None) for array in arrays]
        compiled = jax.jit(function)

        def once() -> Callable[[], Any]:
            made = compiled(*given)
            return lambda: jax.block_until_ready(made)

        return once

    def of_torch(self, function: Callable[..., Any], *arrays: np.ndarray, gradients: bool = False) -> Works:
        """Under the name PyTorch; nothing where it is not installed."""
        if torch is None:
            return {}
        given = [torch.tensor(array).to(self.device, getattr(torch, self.dtype)) for array in arrays]

        def once() -> Callable[[], Any]:
            function(*[x.requires_grad_(gradients) for x in given])
            return torch.cuda.synchronize if self.device == "cuda" else lambda: None

        return {"PyTorch": once}


def with_gradients(function: Callable[..., jax.Array]) -> Callable[..., Any]:
    """(output, gradients of all arguments for an output gradient of ones)."""

    def both(*arrays: jax.Array) -> Any:
        y, back = jax.vjp(function, *arrays)
        return y, back(jnp.ones_like(y))

    return both


def torch_backward(function: Callable[..., Any]) -> Callable[..., None]:
    def both(*given: Any) -> None:
        y = function(*given)
        torch.autograd.grad(y, given, torch.ones_like(y))

    return both


def products(bench: Bench) -> Iterator[tuple[str, Works, float]]:
    frames, D = bench.args.clips * bench.args.frames, bench.args.width
    for m, k, n in ((bench.args.square,) * 3, (frames, D, 4 * D), (frames, 4 * D, D), (4 * D, frames, D)):
        a, b = bench.drawn(m, k), bench.drawn(k, n)
        works = {"XLA": bench.of_jax(jnp.matmul, a, b)} | bench.of_torch(lambda a, b: a @ b, a, b)
        yield f"matmul {m} x {k} x {n}", works, 2.0 * m * k * n


def position(bench: Bench) -> Iterator[tuple[str, Works, float]]:
    D, size, groups = bench.args.width, bench.args.pos_conv_kernel, bench.args.pos_conv_groups
    graphdef, params = nnx.split(PositionalConv(D, size, groups, rngs=nnx.Rngs(seed_key(0))))
    x, kernel = bench.drawn(*bench.shape), np.asarray(params["v"][...])
    flat, tree = jax.tree.flatten(params)

    def ours(x: jax.Array, *weights: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, jax.tree.unflatten(tree, weights))(x)

    def theirs(x: Any, kernel: Any) -> Any:
        y = torch.nn.functional.conv1d(x.transpose(1, 2), kernel, padding=size // 2, groups=groups)
        return torch.nn.functional.gelu(y[..., : x.shape[1]])

    works = {"ours": bench.of_jax(with_gradients(ours), x, *map(np.asarray, flat))}
    works |= bench.of_torch(torch_backward(theirs), x, np.ascontiguousarray(kernel.T), gradients=True)
    flops = 3 * 2.0 * size * (D // groups) * D * bench.args.clips * bench.args.frames
    yield f"position, {size} taps, {groups} groups", works, flops


def attention(bench: Bench) -> Iterator[tuple[str, Works, float]]:
    B, T, D = bench.shape
    qkv = [bench.drawn(B, T, bench.args.heads, D // bench.args.heads) + i for i in range(3)]
    lengths = np.full(B, T, np.int32)

    def ours(lengths: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, *, cudnn: bool) -> Any:
        if cudnn:
            given: dict[str, Any] = {"query_seq_lengths": lengths, "key_value_seq_lengths": lengths}
        else:
            given = {"mask": (jnp.arange(T) < lengths[:, None])[:, None, None]}
        attend = functools.partial(jax.nn.dot_product_attention, implementation="cudnn" if cudnn else "xla", **given)
        return with_gradients(attend)(q, k, v)

    works = {"XLA": bench.of_jax(functools.partial(ours, cudnn=False), lengths, *qkv)}
    if bench.device == "cuda" and bench.dtype == "bfloat16":
        works["cuDNN"] = bench.of_jax(functools.partial(ours, cudnn=True), lengths, *qkv)
    transposed = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in qkv]
    sdpa = torch_backward(lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v))
    works |= bench.of_torch(sdpa, *transposed, gradients=True)
    yield f"attention, {bench.args.heads} heads", works, 3.5 * 4.0 * B * T * T * D


def dropout_bits(bench: Bench) -> Iterator[tuple[str, Works, float]]:
    def mask(data: jax.Array, *, kind: str) -> jax.Array:
        return jax.random.bernoulli(jax.random.wrap_key_data(data, impl=kind), 0.9, bench.shape)

    sizes = {"threefry": ("threefry2x32", 2), "rbg": ("rbg", 4)}
    works = {
        name: bench.of_jax(functools.partial(mask, kind=kind), np.arange(1, words + 1, dtype=np.uint32))
        for name, (kind, words) in sizes.items()
    }
    works |= bench.of_torch(lambda x: torch.empty_like(x).bernoulli_(0.9), bench.drawn(*bench.shape))
    yield "a dropout mask", works, 0.0


def main() -> None:
    parser = make_parser("kernels", __doc__, turns=3, turn_sec=0.2)
    parser.add_argument("--clips", type=at_least_1, default=4)
    parser.add_argument("--frames", type=at_least_1, default=100)
    parser.add_argument(
        "--width", type=at_least_1, default=768, help="of the transformer (default 768, Base; Large: 1024)"
    )
    parser.add_argument("--heads", type=at_least_1, default=12)
    parser.add_argument("--pos-conv-kernel", type=at_least_1, default=128)
    parser.add_argument("--pos-conv-groups", type=at_least_1, default=16)
    parser.add_argument(
        "--square", type=at_least_1, default=1024, help="side of the square matrix product (default 1024)"
    )
    args = parser.parse_args()
    jax.config.update("jax_platforms", args.device)
    bench, rows = Bench(args), []
    shape = " x ".join(map(str, bench.shape))
    print(f"{shape}, {bench.dtype}, {jax.devices()[0].device_kind}; {machine()}")
    for part in (products, position, attention, dropout_bits):
        for name, works, flops in part(bench):
            turns = alternate(works, args.turns, args.turn_sec)
            rows.append({"part": name, "flops": flops, "ms": {who: 1e3 * turn.wall_sec for who, turn in turns.items()}})
            for who, turn in turns.items():
                rate = f"{flops / turn.wall_sec / 1e12:9.3f} TFLOP/s" if flops else ""
                print(f"{name:34} {who:9} {1e3 * turn.wall_sec:9.3f} ms {rate}", flush=True)
            if part is attention and "cuDNN" not in works:
                print(f"{name:34} {'cuDNN':9} not measured: it needs a GPU and bfloat16")
    if torch is None:
        print("PyTorch: not measured, torch is not installed")
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
