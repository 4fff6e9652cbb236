"""What is asked of XLA for CPUs beyond its defaults, for `jax.jit(compiler_options=)`; of other platforms nothing."""

from __future__ import annotations

import functools

import jax

RUN_ONCE = {"xla_backend_optimization_level": 1}
# Which of XLA's operations go to YNNPACK, to which jaxlib 0.10.2 gives all that it can take; the others go to Eigen.
# Times of both: docs/performance.md, "Which library".
BY_EIGEN = {"xla_cpu_experimental_ynn_fusion_type": ""}
CONVOLUTIONS_BY_EIGEN = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
}
WIDE = 16  # channels from which on convolutions, and their gradients, are faster by Eigen


def for_one_run(platform: str) -> dict[str, int]:
    """Of a program that runs once: full optimization would take longer than all that it could save."""
    return RUN_ONCE if platform == "cpu" else {}


def for_forward(platform: str) -> dict[str, str]:
    """Of a network without its gradient."""
    return _if_known(BY_EIGEN) if platform == "cpu" else {}


def for_step(platform: str, channels: int) -> dict[str, str]:
    """Of a training step. channels: of its narrowest convolution of pictures; 0: it has none."""
    return _if_known(CONVOLUTIONS_BY_EIGEN) if platform == "cpu" and channels >= WIDE else {}


def _if_known(options: dict[str, str]) -> dict[str, str]:
    return options if _known(tuple(options.items())) else {}


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
