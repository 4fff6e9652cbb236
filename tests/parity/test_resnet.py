"""The visual front-end stage by stage at several picture sizes against the reference's numbers (spec section 7.2)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import ModelConfig, encoder_size
from mmpretrain.export.avhubert.names import load_state_dict, reference_tensors
from mmpretrain.models import layers, resnet
from mmpretrain.models.frontends.video import normalize_pixels
from mmpretrain.models.heads import MaskedClusterModel
from tests.parity.fixture_files import check, groups, load_arrays

PREFIX = "feature_extractor_video.resnet."


def load_frontend() -> tuple[resnet.ResNet, ModelConfig]:
    """The front-end with the stored weights; the rest of the model is as small as can be and does not matter."""
    tensors, _ = load_arrays("resnet_weights.npz")
    channels = len(tensors[PREFIX + "frontend3D.2.weight"])
    config = encoder_size("tiny", resnet_width=channels, num_layers=1)
    model = MaskedClusterModel(config, [2], "input", rngs=nnx.Rngs(0))
    rest = {each.name: np.zeros(each.shape) for each in reference_tensors(model) if not each.name.startswith(PREFIX)}
    load_state_dict(model, rest | tensors)
    return model.encoder.frontends["video"].resnet, config


@pytest.fixture
def recorded(monkeypatch):
    """Class -> (first argument, result) of every call of its instances, in order."""
    calls = {cls: [] for cls in (layers.BatchNorm, resnet.Stem, resnet.BasicBlock)}

    def recording(call, made):
        def wrapper(self, x, *args, **options):
            made.append((x, call(self, x, *args, **options)))
            return made[-1][1]

        return wrapper

    for cls, made in calls.items():
        monkeypatch.setattr(cls, "__call__", recording(cls.__call__, made))
    return calls


def test_every_stage(recorded):
    arrays, meta = load_arrays("resnet_stages.npz")
    assert meta["relu"] == "prelu", f"relu={meta['relu']!r}: our front-end has PReLU only"
    frontend, config = load_frontend()
    for size, case in groups(arrays, "s").items():
        for calls in recorded.values():
            calls.clear()
        video_BTHW = jnp.asarray(case["video_u8"])
        B, T = video_BTHW.shape[:2]
        valid_BT = jnp.ones((B, T), bool)
        with jax.default_matmul_precision("highest"):
            out_BTC = frontend(normalize_pixels(video_BTHW, valid_BT, config.inputs), valid_BT, train=False)

        (stem_conv, _), (_, stem_pool) = recorded[layers.BatchNorm][0], recorded[resnet.Stem][0]
        stem, counted = frontend.stem, jnp.ones(len(stem_conv))
        stem_bn = stem.bn(stem_conv, counted, train=False)
        stem_act = stem.bn(stem_conv, counted, train=False, act=stem.act)
        stages = {"stem_conv": stem_conv, "stem_bn": stem_bn, "stem_act": stem_act, "stem_pool": stem_pool}
        blocks = [result for _, result in recorded[resnet.BasicBlock]]
        stages |= {f"layer{i + 1}": result for i, result in enumerate(blocks[1::2])}
        for name, x_NHWC in stages.items():
            x = np.asarray(x_NHWC, np.float64).transpose(0, 3, 1, 2)
            if len(case[f"shape/{name}"]) == 5:  # the reference's stem is 3-D: [B, C, T, H, W]
                x = x.reshape(B, T, *x.shape[1:]).swapaxes(1, 2)
            assert x.shape == tuple(case[f"shape/{name}"])
            check(f"{size} {name} sample", x[:, ::16, ..., ::5, ::5], case[f"sample/{name}"])
            check(f"{size} {name} sums", [x.sum(), np.abs(x).sum()], case[f"sum/{name}"])
        check(f"{size} out", out_BTC.swapaxes(1, 2), case["out"])
