"""Reference state dicts in and out of our modules: nothing lost, and every mismatch named."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import ModelConfig, ReferenceModelConfig
from mmpretrain.export.avhubert.names import load_state_dict, reference_tensors, to_state_dict
from mmpretrain.models.heads import MaskedClusterModel

# No two sizes are alike, so that a transposed dim would show.
SMALL = ModelConfig(
    width=12, num_layers=3, num_heads=2, mlp_dim=20, resnet_width=2, pos_conv_kernel=8, pos_conv_groups=4, proj_dim=5
)


def make_model() -> MaskedClusterModel:
    return MaskedClusterModel(SMALL, [7], "input", rngs=nnx.Rngs(0))


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        tensor.name: random.standard_normal(tensor.shape).astype(np.float32)
        for tensor in reference_tensors(nnx.eval_shape(make_model))
    }


def test_a_state_dict_returns_as_it_went_in(tensors):
    model = make_model()
    load_state_dict(model, tensors | {"encoder.bn.num_batches_tracked": np.array(3)})
    returned = to_state_dict(model)
    assert list(returned) == list(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(returned[name], array, name)


def test_layouts_are_those_of_pytorch(tensors):
    model = make_model()
    load_state_dict(model, tensors)
    x = np.random.default_rng(1).standard_normal((1, 1, 12)).astype(np.float32)
    layer = "encoder.layers.1.self_attn.k_proj"
    key = x @ tensors[f"{layer}.weight"].T + tensors[f"{layer}.bias"]
    qkv = model.encoder.transformer.layers.attention.qkv
    ours = np.einsum("btd,dphk->btphk", x, qkv.kernel[1]) + qkv.bias[1]
    np.testing.assert_allclose(ours[:, :, 1].reshape(1, 1, 12), key, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("tied", "post_norm"), [(False, True), (True, False)])
def test_several_label_sets_lie_one_after_the_other(tied, post_norm):
    config = dataclasses.replace(SMALL, reference=ReferenceModelConfig(post_norm, tied_projection=tied))
    model = MaskedClusterModel(config, [7, 3], "feature", rngs=nnx.Rngs(0))
    tensors = to_state_dict(model)
    assert tensors["label_embs_concat"].shape == (10, 5)
    assert tensors["final_proj.weight"].shape == (5 if tied else 10, 12)
    x = np.random.default_rng(1).standard_normal((1, 2, 12)).astype(np.float32)
    projected = x @ tensors["final_proj.weight"].T + tensors["final_proj.bias"]
    p, e = projected[..., :5] if tied else projected[..., 5:], tensors["label_embs_concat"][7:]
    norms = np.linalg.norm(p, axis=-1)[..., None] * np.linalg.norm(e, axis=-1)
    np.testing.assert_allclose(model.head(x)[1], p @ e.T / norms / SMALL.temperature, rtol=1e-4, atol=1e-4)
    other = MaskedClusterModel(config, [7, 3], "feature", rngs=nnx.Rngs(1))
    load_state_dict(other, tensors)
    np.testing.assert_array_equal(other.head(x)[0], model.head(x)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"final_proj.bias": None}, "lacks 'final_proj.bias'"),
        ({"mask_emb": np.zeros(12)}, r"'mask_emb' has shape \(12,\).* calls for \(104,\)"),
        ({"encoder.layers.3.fc1.bias": np.zeros(20)}, "has 'encoder.layers.3.fc1.bias'.* no place"),
    ],
)
def test_a_mismatch_is_named_and_leaves_the_model_alone(tensors, change, message):
    model = make_model()
    before = to_state_dict(model)
    changed = {name: array for name, array in (tensors | change).items() if array is not None}
    with pytest.raises(ValueError, match=message):
        load_state_dict(model, changed)
    for name, array in to_state_dict(model).items():
        np.testing.assert_array_equal(array, before[name], name)
