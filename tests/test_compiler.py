"""Options of the compiler: used where it knows them, left out where it does not."""

import jax
import jax.numpy as jnp

from mmpretrain import compiler


def test_networks_without_gradient_are_not_given_to_the_library_that_is_slow_with_them():
    def network(x, kernel):
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return y.reshape(len(y), -1) @ y.reshape(len(y), -1).T

    shapes = jnp.zeros((4, 12, 12, 64)), jnp.zeros((3, 3, 64, 64))
    program = jax.jit(network, compiler_options=compiler.for_forward("cpu")).lower(*shapes).compile()
    assert "ynn" not in program.as_text()
    assert compiler.for_forward("gpu") == compiler.for_forward("tpu") == {}


def test_an_option_that_this_compiler_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(compiler, "BY_EIGEN", {"xla_cpu_no_such_option": ""})
    assert compiler.for_forward("cpu") == {}
