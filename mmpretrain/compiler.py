"""What is asked of XLA for CPUs beyond its defaults, for `jax.jit(compiler_options=)`; of other platforms nothing."""

from __future__ import annotations

import functools

import jax

RUN_ONCE = {"xla_backend_optimization_level": 1}
# Convolutions and products by Eigen: the features of Base took 1.5 times as long by YNNPACK, which jaxlib 0.10.2
# prefers, on 2 cores (docs/performance.md). Steps are not faster by it, small ones slower.
BY_EIGEN = {"xla_cpu_experimental_ynn_fusion_type": ""}


def for_one_run(platform: str) -> dict[str, int]:
    """Of a program that runs once: full optimization would take longer than all that it could save."""
    return RUN_ONCE if platform == "cpu" else {}


def for_forward(platform: str) -> dict[str, str]:
    """Of a network without its gradient."""
    return BY_EIGEN if platform == "cpu" and _known(tuple(BY_EIGEN.items())) else {}


@functools.cache
def _known(options: tuple[tuple[str, str], ...]) -> bool:
    """Whether this jaxlib has the options: they are experimental, and one that it does not know ends a compilation."""
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return False
    return True
