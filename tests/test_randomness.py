"""Named random streams: the same name gives the same numbers, other names others; and nothing draws otherwise."""

import ast
import itertools
from pathlib import Path

import jax
import numpy as np
import pytest

from mmpretrain.randomness import (
    clip_generator,
    clip_number,
    generator,
    keys_of,
    named,
    numbered,
    part_seed,
    seed_key,
    unit_hash,
)  # fmt: skip
from mmpretrain.run.layout import fold_name, pretrain_name, targets_name

ROOT = Path(__file__).parents[1]
THE_ONE_PLACE = "mmpretrain/randomness.py"
# Generators by name as well, which make the embedded corpus: others would make another corpus.
OF_THE_EMBEDDED_CORPUS = "data_prep/synthesis/draws.py"
FILES = [
    file
    for room in ("mmpretrain", "data_prep", "configs", "launch", "benchmarks")
    for file in sorted((ROOT / room).rglob("*.py"))
    if str(file.relative_to(ROOT)) != THE_ONE_PLACE
]


def test_a_stream_is_its_name():
    def first(*name):
        return clip_generator(*name).random()

    assert first(1, "crop", 2, "a", 0) == first(1, "crop", 2, "a", 0)
    names = [
        (1, "crop", 2, "a", 0), (2, "crop", 2, "a", 0), (1, "flip", 2, "a", 0), (1, "crop", 3, "a", 0),
        (1, "crop", 2, "b", 0), (1, "crop", 2, "a", 1),
    ]  # fmt: skip
    assert len({first(*name) for name in names}) == len(names)
    assert generator(1, "ab", "c").random() != generator(1, "a", "bc").random()
    assert len({clip_number(clip, times) for clip in "abc" for times in range(3)}) == 9


def test_streams_never_change():
    assert clip_generator(1337, "crop", 0, "clip", 0).integers(0, 1000, 3).tolist() == [957, 873, 920]
    assert part_seed(1337, "round1/pretrain") == 6167337171562102369
    assert jax.random.key_data(named(seed_key(1337), "init")).tolist() == [3866038129, 979208350]


def test_unit_hash_is_uniform():
    hashes = np.array([unit_hash("valid", str(i)) for i in range(2000)])
    assert abs(hashes.mean() - 0.5) < 0.02
    assert abs(np.mean(hashes < 0.1) - 0.1) < 0.02
    assert unit_hash("valid", "x") == unit_hash("valid", "x") != unit_hash("fit", "x")


def test_no_stage_shares_a_seed_with_another_or_with_one_of_a_neighbouring_seed():
    names = [name(number) for number in range(1, 7) for name in (pretrain_name, targets_name)]
    names += [fold_name(variant, fold) for variant in ("pretrained", "scratch") for fold in range(1, 7)]
    pairs = list(itertools.product((*range(40), 10**20, 10**20 + 1), names))
    seeds = {part_seed(*pair) for pair in pairs}
    assert len(seeds) == len(pairs)
    # Not even in the 32 bits that keys are folded from, and with any number of digits.
    keys = [
        tuple(jax.random.key_data(seed_key(seed)).tolist())
        for seed in (0, 1, 2**32, 2**32 + 1, -1, *range(10**20, 10**20 + 5))
    ]
    assert len(set(keys)) == len(keys)


def test_keys_of_many_are_those_of_each():
    key = seed_key(3)
    numbers = np.array([5, 7, 5], np.uint32)
    keys_B = named(keys_of(key, numbers), "mask")
    for i, number in enumerate(numbers):
        assert keys_B[i] == named(numbered(key, number), "mask")
    assert named(None, "mask") is None


def wrong_draws(source: str, *, strict: bool) -> list[tuple[int, str]]:
    """(line, what is wrong) of every place that draws, or makes keys, otherwise than by name.

    strict: generators and keys are made in the one place alone.
    """
    found, shapes_only = [], set()
    for node in ast.walk(ast.parse(source)):
        text = ast.unparse(node) if isinstance(node, ast.expr) else ""
        if isinstance(node, ast.BinOp):
            if any(ast.unparse(side).split(".")[-1].endswith("seed") for side in (node.left, node.right)):
                found.append((node.lineno, f"{text}: seeds of neighbours meet; use part_seed"))
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = (*node.args, *(keyword.value for keyword in node.keywords))
            constant = any(isinstance(value, ast.Constant) and isinstance(value.value, int) for value in given)
            if called.endswith("eval_shape"):
                shapes_only |= {id(below) for below in ast.walk(node)}  # ast.walk comes to these later
            elif called.endswith(("fold_in", "random.split", "random.PRNGKey")) or (
                strict and called == "jax.random.key"
            ):
                found.append((node.lineno, f"{text}: use named or numbered"))
            elif called.split(".")[-1] in ("numbered", "keys_of") and constant:
                found.append((node.lineno, f"{text}: a constant tells nobody what is drawn; use named"))
            elif called.endswith("Rngs") and constant and id(node) not in shapes_only:
                found.append((node.lineno, f"{text}: use a key of the seed"))
        elif isinstance(node, ast.Attribute) and text.startswith(("np.random.", "numpy.random.")):
            if text.count(".") == 2 and node.attr != "Generator" and (strict or node.attr != "default_rng"):
                found.append((node.lineno, f"{text}: use randomness.generator"))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [name.name for name in node.names] if isinstance(node, ast.Import) else [node.module]
            if "random" in modules or "numpy.random" in modules:
                found.append((node.lineno, "a global generator: use randomness.generator"))
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_draws_but_by_name(file):
    name = str(file.relative_to(ROOT))
    if name == OF_THE_EMBEDDED_CORPUS:
        return
    wrong = wrong_draws(file.read_text(), strict=not name.startswith("benchmarks"))
    assert not wrong, "\n".join(f"{name}:{line}: {what}" for line, what in wrong)


@pytest.mark.parametrize(
    "line",
    [
        "seed + number", "2 * config.seed", "self.run.config.seed - 1", "jax.random.fold_in(key, 3)",
        "jax.random.fold_in(key, index)", "jax.random.split(key)", "jax.random.key(seed)", "jax.random.PRNGKey(0)",
        "numbered(key, 10_000)", "nnx.Rngs(0)", "nnx.Rngs(params=key, dropout=1)",
        "np.random.rand(3)", "np.random.seed(1)", "np.random.default_rng()", "import random",
        "from random import random",
    ],
)  # fmt: skip
def test_what_draws_otherwise_is_found(line):
    assert wrong_draws(line, strict=True)


def test_shapes_need_no_stream():
    assert not wrong_draws("nnx.eval_shape(lambda: make(nnx.Rngs(0)))", strict=True)
