"""Options of the compiler: used where it knows them, left out where it does not."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain import compiler
from mmpretrain.config import encoder_size
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.models.resnet import narrowest


def test_networks_without_gradient_are_not_given_to_the_library_that_is_slow_with_them():
    def network(x, kernel):
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return y.reshape(len(y), -1) @ y.reshape(len(y), -1).T

    shapes = jnp.zeros((4, 12, 12, 64)), jnp.zeros((3, 3, 64, 64))
    program = jax.jit(network, compiler_options=compiler.for_forward("cpu")).lower(*shapes).compile()
    assert "ynn" not in program.as_text()
    assert compiler.for_forward("gpu") == compiler.for_forward("tpu") == {}


def test_wide_convolutions_of_a_step_alone_are_not_given_to_that_library():
    def gradient(x, kernel):
        def loss(x):
            y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            return (y.reshape(len(y), -1) @ y.reshape(len(y), -1).T).sum()

        return jax.grad(loss)(x)

    shapes = jnp.zeros((4, 12, 12, 64)), jnp.zeros((3, 3, 64, 64))
    program = jax.jit(gradient, compiler_options=compiler.for_step("cpu", 64)).lower(*shapes).compile().as_text()
    entry = program[program.index("ENTRY") :]  # what is given to YNNPACK is in computations before it
    assert " convolution(" in entry
    assert "ynn" in entry
    assert compiler.for_step("cpu", channels=4) == compiler.for_step("cpu", channels=0) == {}
    assert compiler.for_step("gpu", channels=64) == compiler.for_step("tpu", channels=64) == {}


def test_a_network_says_how_narrow_its_convolutions_of_pictures_are():
    model = encoder_size("tiny", resnet_width=4)
    assert narrowest(nnx.eval_shape(lambda: AVEncoder(model, rngs=nnx.Rngs(0)))) == 4
    of_sound = dataclasses.replace(model, modalities=("audio",))
    assert narrowest(nnx.eval_shape(lambda: AVEncoder(of_sound, rngs=nnx.Rngs(0)))) == 0


def test_an_option_that_this_compiler_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(compiler, "BY_EIGEN", {"xla_cpu_no_such_option": ""})
    monkeypatch.setattr(compiler, "CONVOLUTIONS_BY_EIGEN", {"xla_cpu_no_such_option": ""})
    assert compiler.for_forward("cpu") == compiler.for_step("cpu", channels=64) == {}
