"""Where every parameter of every recipe lives, as golden text: a change of the table of rules shows here."""

import importlib

import jax
import pytest
from flax import nnx

from mmpretrain.objectives.masked_prediction import MaskedPrediction
from mmpretrain.parallel.mesh import spec_of
from tests.test_config import RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
def test_parameter_specs_are_the_golden_text(recipe, golden):
    config = importlib.import_module(recipe).get_config()
    mesh = jax.sharding.AbstractMesh((2, 4, 2), ("data", "fsdp", "tensor"))
    objective = MaskedPrediction(config.model, config.rounds[-1])
    params = nnx.state(nnx.eval_shape(lambda: objective.make_model(nnx.Rngs(0))), nnx.Param)
    lines = []
    for path, leaf in nnx.to_flat_state(params):
        spec = spec_of(leaf.get_metadata().get("axes", (None,) * leaf.ndim), leaf.shape, mesh)
        lines.append(f"{'.'.join(map(str, path)):60} {'x'.join(map(str, leaf.shape)):18} {tuple(spec)}\n")
    golden(f"specs/{recipe.removeprefix('configs.').replace('.', '-')}.txt", "".join(sorted(lines)))
