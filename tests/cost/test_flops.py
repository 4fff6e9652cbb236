"""The formula of a step's FLOPs beside XLA's own count of the very step."""

import dataclasses
import math

import jax
import pytest
from flax import nnx

from mmpretrain.config import InputConfig, ParallelConfig, ReferenceModelConfig, encoder_size
from mmpretrain.cost.flops import forward_flops_per_frame, mfu, step_flops
from mmpretrain.models import convolution
from mmpretrain.models.resnet import Conv2D, ResNet
from mmpretrain.objectives.masked_prediction import MaskedPrediction
from mmpretrain.parallel.mesh import make_mesh
from mmpretrain.train.optimizer import make_optimizer
from mmpretrain.train.step import Trainer
from tests.tiny import QUIET, random_batch, tiny_round


@pytest.fixture
def unrolled(monkeypatch):
    """XLA counts the body of a loop once: groups and pictures are all at once here, and models have one layer."""
    monkeypatch.setattr(jax.lax, "map", lambda function, xs: jax.vmap(function)(xs))
    monkeypatch.setattr(convolution, "LAID_OUT_BYTES", 2**60)


def xla_flops(model, batch, *, num_clusters: int) -> float:
    """Of the step before it is compiled."""
    round_ = tiny_round()
    round_.targets[0].num_clusters = num_clusters
    mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
    trainer = Trainer(MaskedPrediction(model, round_), make_optimizer(round_.optimizer, 100), mesh)
    return trainer.step.lower(trainer.shapes, batch).cost_analysis()["flops"]


@pytest.mark.parametrize(("modalities", "shape"), [(("audio",), (4, 500)), (("audio", "video"), (1, 60))])
def test_the_formula_is_near_what_xla_counts(modalities, shape, unrolled):
    # XLA leaves out products with padding, hence long clips and large pictures, and counts what is no product.
    inputs = InputConfig(image_size=352)
    model = encoder_size("base", modalities=modalities, num_layers=1, inputs=inputs, **QUIET)
    batch = random_batch((shape[1],) * shape[0], model=model)
    ours = sum(step_flops(model, num_clips=shape[0], num_frames=shape[1], num_clusters=[2000]).values())
    assert ours == pytest.approx(xla_flops(model, batch, num_clusters=2000), rel=0.05)


def test_parts_grow_as_they_should():
    base = encoder_size("base")

    def parts(model=base, num_frames=100, num_clusters=(500,)):
        return forward_flops_per_frame(model, num_frames=num_frames, num_clusters=num_clusters)

    small = parts()
    assert parts(num_frames=200)["layers"] - small["layers"] == 12 * 4 * 100 * 768
    assert parts(num_clusters=(500, 500))["head"] == 2 * small["head"]
    tied = dataclasses.replace(base, reference=ReferenceModelConfig(tied_projection=True))
    assert parts(tied, num_clusters=(500, 500))["head"] == 2 * small["head"] - 2 * 768 * 256
    assert parts(dataclasses.replace(base, num_layers=24))["layers"] == 2 * small["layers"]
    assert "stem" not in parts(dataclasses.replace(base, modalities=("audio",)))
    assert "fusion" not in parts(dataclasses.replace(base, fusion="add"))
    step = step_flops(base, num_clips=4, num_frames=100, num_clusters=(500,))
    assert step["layers"] == 3 * 400 * small["layers"]
    assert step["stem"] == 2 * 400 * small["stem"]


@pytest.mark.parametrize("blocks", [(2, 2, 2, 2), (1, 1, 1, 1), (1, 3, 2, 1)])
def test_every_convolution_of_a_resnet_is_counted(blocks):
    inputs = InputConfig(image_size=96)
    model = encoder_size("tiny", modalities=("video",), inputs=inputs, resnet_blocks=blocks)
    resnet = nnx.eval_shape(lambda: ResNet(model, rngs=nnx.Rngs(0)))
    assert len(resnet.blocks) == sum(blocks)
    side, counted = 24, 2 * 64 * 96  # behind the stem; the layer behind the ResNet
    for block in resnet.blocks:
        side //= block.conv1.stride
        convolutions = [module for _, module in nnx.iter_modules(block) if isinstance(module, Conv2D)]
        counted += sum(2 * side**2 * math.prod(convolution.kernel.shape) for convolution in convolutions)
    assert side == 3
    assert forward_flops_per_frame(model, num_frames=1, num_clusters=())["resnet"] == counted


def test_mfu_is_the_share_of_the_peak():
    assert mfu(2e12, 0.5, 8e12) == 0.5
