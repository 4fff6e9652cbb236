"""The whole network, its loss, gradients and batch statistics against the reference's numbers (spec sections 7 to 9).

Every file of the two patterns is tried, as far as our model can express its options.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import AUDIO_DIM, encoder_size
from mmpretrain.export.avhubert import UNUSED, state_dict_shapes, to_state_dict
from mmpretrain.models.encoder import normalize_pixels
from mmpretrain.models.heads import MaskedClusterModel
from mmpretrain.objectives.masked_prediction import cross_entropy
from tests.parity.fixture_files import check, file_names, folder
from tests.parity.model_files import FRONT_END, TRANSFORMER, StoredRun, stored_run

EVAL_FILES = file_names("pretrain_*.npz")
LOSS_FILES = file_names("pretrain_*.npz", "train_*.npz")
GRADIENT_LIMIT = 1e-2
ZERO_LIMIT = 1e-4  # of the weight's gradient, for a bias whose gradient is 0 but for rounding


@pytest.fixture(autouse=True)
def full_precision():
    with jax.default_matmul_precision("highest"):
        yield


@functools.cache
def front_end(name: str) -> dict[str, np.ndarray]:
    """What the two streams and their fusion say, unmasked, in evaluation; `embedded_*` is the transformer's input."""
    run = stored_run(name)
    model, batch = run.model(), run.batch
    pixels_BTHW = normalize_pixels(batch.video_BTHW, batch.valid_BT, model.encoder.config)
    out = {"pixels": pixels_BTHW, "feat_audio": model.encoder.audio_proj(batch.audio_BTF)}
    out["resnet"] = model.encoder.video(pixels_BTHW, batch.valid_BT, train=False)
    out["feat_video"] = model.encoder.video_proj(out["resnet"])
    embed = nnx.jit(lambda model, *args: model.encoder.embed(*args))
    for tag in ("av", "a", "v"):
        use = [jnp.full(len(batch.valid_BT), kind in tag) for kind in "av"]
        out[f"embedded_{tag}"], _ = embed(model, batch.audio_BTF, pixels_BTHW, batch.valid_BT, *use)
    return jax.tree.map(np.asarray, out)


@pytest.mark.parametrize("name", EVAL_FILES)
def test_streams_and_fusion(name):
    run = stored_run(name)
    run.require(FRONT_END)
    ours, reference = front_end(name), run.arrays
    pixels = ours["pixels"].astype(np.float64)
    check("pixel sums", pixels.sum((2, 3)), reference["in/video_sum_per_frame"])
    check("absolute pixel sums", np.abs(pixels).sum((2, 3)), reference["in/video_abssum_per_frame"])
    for key in ("resnet", "feat_audio", "feat_video"):
        check(key, ours[key].swapaxes(1, 2), reference[f"out/{key}"])
    # The reference zeroes the padding of this tensor on the way.
    check("ret_conv", np.where(run.batch.valid_BT[..., None], ours["embedded_av"], 0), reference["out/ret_conv"])


@pytest.mark.parametrize("name", EVAL_FILES)
def test_layers_and_missing_modalities(name):
    run = stored_run(name)
    run.require(FRONT_END, TRANSFORMER)
    ours, reference, encoder = front_end(name), run.arrays, run.model().encoder
    valid_BT = jnp.asarray(run.batch.valid_BT)
    layers = encoder.all_layers(ours["embedded_av"], valid_BT)
    for k in range(1, encoder.config.num_layers + 1):
        check(f"layer_{k}", layers[k], reference[f"out/layer_{k}"])
        check(f"layer_{k} alone", encoder.contextualize(ours["embedded_av"], valid_BT, layer=k), layers[k])
    check("final", encoder.contextualize(ours["embedded_av"], valid_BT), reference["out/final"])
    for tag in ("av", "a", "v"):
        final = encoder.contextualize(ours[f"embedded_{tag}"], valid_BT)
        check(f"finetune_{tag}", final, reference[f"out/finetune_{tag}"])
    alone = encoder.contextualize(ours["embedded_av"][:1], jnp.ones_like(valid_BT[:1]))
    check("final_nopadmask_b0", alone, reference["out/final_nopadmask_b0"])


def masked_loss(model: MaskedClusterModel, run: StoredRun) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The reference's loss and its parts from our network: padding counts in batch statistics and in the penalty."""
    draws, batch, frames = run.masks(), run.batch, np.s_[:, : run.num_frames]
    B = len(batch.valid_BT)
    audio, pixels = batch.audio_BTF, normalize_pixels(batch.video_BTHW, batch.valid_BT, model.encoder.config)
    embedding = model.mask_embedding[...]
    if run.masking_kind == "input":
        audio = jnp.where(draws.audio_BT[..., None], embedding if B > 1 else 0, audio)
        source = run.arrays["mask/video_src_batch"], run.arrays["mask/video_src_time"]
        pixels = jnp.where((source[1] < 0)[..., None, None], 0, pixels[source])
    x, fused = model.encoder.embed(
        audio, pixels, batch.valid_BT, draws.use_audio_B, draws.use_video_B,
        train=run.train, counted_BT=jnp.ones(batch.valid_BT.shape, bool),
    )  # fmt: skip
    x, fused, valid, targets = x[frames], fused[frames], batch.valid_BT[frames], batch.targets_BT[frames]
    if run.masking_kind == "feature":
        x = jnp.where(draws.audio_BT[..., None], embedding, x)
    logits = model.head(model.encoder.contextualize(x, valid))

    mask = (draws.audio_BT | draws.video_BT)[frames]
    nll, correct = cross_entropy(logits, targets)
    parts = {"logits": logits, "features_pen": jnp.square(fused).mean()}
    for kind, where in (("m", mask & valid), ("u", ~mask & valid)):
        parts |= {f"loss_{kind}": jnp.where(where, nll, 0).sum(), f"correct_{kind}": (correct & where).sum()}
        parts[f"count_{kind}"] = where.sum()
    weights = {"m": run.meta["pred_masked_weight"], "u": run.unmasked_weight}
    parts["sample_size"] = sum(parts[f"count_{kind}"] for kind in weights if weights[kind] > 0)
    loss = sum(weights[kind] * parts[f"loss_{kind}"] for kind in weights)
    return loss + run.feature_penalty * parts["features_pen"] * parts["sample_size"], parts


@functools.cache
def loss_run(name: str) -> tuple[jax.Array, dict[str, jax.Array], dict[str, np.ndarray]]:
    """The loss, its parts, and a state dict with gradients for parameters and the statistics after the step.

    The gradients are those of our own objective where it says what the reference says.
    """
    run = stored_run(name)
    graphdef, params, stats = nnx.split(run.model(), nnx.Param, nnx.BatchStat)
    objective = run.objective()

    @jax.jit
    def parts_of(params):
        model = nnx.merge(graphdef, params, stats, copy=True)
        return masked_loss(model, run)

    @jax.jit
    def gradient(params):
        def loss_of(params):
            model = nnx.merge(graphdef, params, stats, copy=True)
            if objective is None:
                loss, parts = masked_loss(model, run)
            else:
                sums = objective(model, run.batch, run.masks(), jax.random.key(0) if run.train else None)
                loss, parts = sums.loss, {}
            return loss, (parts, nnx.state(model, nnx.BatchStat))

        return jax.value_and_grad(loss_of, has_aux=True)(params)

    (loss, (parts, stats_after)), grads = gradient(params)
    parts = parts or parts_of(params)[1]
    return loss, parts, to_state_dict(nnx.merge(graphdef, grads, stats_after))


@pytest.mark.parametrize("name", LOSS_FILES)
def test_logits_and_loss(name):
    run = stored_run(name)
    run.require_loss()
    loss, parts, _ = loss_run(name)
    reference = run.arrays
    draws, frames = run.masks(), np.s_[:, : run.num_frames]
    valid, targets = run.batch.valid_BT[frames], run.batch.targets_BT[frames]
    mask = (draws.audio_BT | draws.video_BT)[frames]
    logits = np.asarray(parts["logits"])
    for kind, where in (("m", mask & valid), ("u", ~mask & valid)):
        np.testing.assert_array_equal(targets[where], reference[f"out/target_{kind}_0"])
        check(f"logit_{kind}", logits[where], reference[f"out/logit_{kind}_0"])
        for what in ("correct", "count"):
            assert parts[f"{what}_{kind}"] == reference[f"out/log/{what}_{kind}_0"]
        check_relative(f"loss_{kind}", parts[f"loss_{kind}"], reference[f"out/log/loss_{kind}_0"])
    assert parts["sample_size"] == reference["out/sample_size"]
    check_relative("features_pen", parts["features_pen"], reference["out/features_pen"])
    check_relative(f"loss{'' if run.objective() is None else ' of our objective'}", loss, reference["out/loss"])


@pytest.mark.parametrize("name", LOSS_FILES)
def test_gradients(name):
    run = stored_run(name)
    run.require_loss()
    ours, reference = loss_run(name)[2], run.arrays
    names = [str(key) for key in reference["grad/names"]]
    assert set(names) == {key for key in ours if not key.endswith(("running_mean", "running_var"))}
    rows = zip(reference["grad/l2"], reference["grad/maxabs"], reference["grad/probe"], strict=True)
    worst = dict.fromkeys(("l2", "maxabs", "probe", "every entry"), (0.0, ""))
    for key, (l2, maxabs, probe) in zip(names, rows, strict=True):
        g = ours[key].astype(np.float64).ravel()
        if l2 <= 0:
            assert not g.any(), f"{key}: the reference has no gradient, ours has norm {np.linalg.norm(g):.3e}"
            continue
        if key.endswith("k_proj.bias"):  # the softmax does not feel it
            scale = np.linalg.norm(ours[key.replace("bias", "weight")])
            assert np.linalg.norm(g) <= ZERO_LIMIT * scale, f"{key}: norm {np.linalg.norm(g):.3e}, {scale=:.3e}"
            continue
        errors = {
            "l2": abs(np.linalg.norm(g) - l2) / l2,
            "maxabs": abs(np.abs(g).max() - maxabs) / maxabs,
            # A sum of both signs may come to almost nothing, so its error is measured by the size of its terms.
            "probe": abs(g @ np.sin(np.arange(1, len(g) + 1)) - probe) / l2,
        }
        if f"grad/full/{key}" in reference:
            full = reference[f"grad/full/{key}"].astype(np.float64).ravel()
            errors["every entry"] = np.linalg.norm(g - full) / np.linalg.norm(full)
        for what, error in errors.items():
            worst[what] = max(worst[what], (error, key))
    for what, (error, key) in worst.items():
        print(f"gradient {what}: {error:.2e} at {key} (limit {GRADIENT_LIMIT:.0e})")
    for what, (error, key) in worst.items():
        assert error <= GRADIENT_LIMIT, f"{key}: gradient {what} differs by {error:.3e}, relative"


@pytest.mark.parametrize("name", [name for name in LOSS_FILES if name.startswith("train_")])
def test_batch_statistics_after_a_step(name):
    run = stored_run(name)
    run.require_loss()
    ours = loss_run(name)[2]
    for key, statistic in run.arrays.items():
        if key.startswith("bn_after/") and not key.endswith(UNUSED):
            check(key.split("resnet.")[-1], ours[key.removeprefix("bn_after/")], statistic)


@pytest.mark.parametrize("name", file_names("state_dict_pretrain_*.json"))
def test_names_and_shapes_of_the_published_sizes(name):
    listing = {key: tuple(shape) for key, (shape, _) in json.loads((folder() / name).read_text())["entries"].items()}
    num_clusters, proj_dim = listing["label_embs_concat"]
    width, (mlp_dim, _) = listing["final_proj.weight"][1], listing["encoder.layers.0.fc1.weight"]
    config = encoder_size(
        "base", width=width, mlp_dim=mlp_dim, proj_dim=proj_dim,
        num_layers=sum(key.endswith(".fc1.bias") for key in listing),
        fusion="concat" if "post_extract_proj.bias" in listing else "add",
    )  # fmt: skip
    kind = "input" if listing["mask_emb"] == (AUDIO_DIM,) else "feature"
    model = nnx.eval_shape(lambda: MaskedClusterModel(config, num_clusters, kind, rngs=nnx.Rngs(0)))
    assert state_dict_shapes(model) == {key: shape for key, shape in listing.items() if not key.endswith(UNUSED)}


def check_relative(quantity: str, ours, reference) -> None:
    error = abs(float(ours) - float(reference)) / abs(float(reference))
    print(f"{quantity}: {error:.2e} of its value (limit 1e-04)")
    assert error <= 1e-4, f"{quantity}: {float(ours)}, but the reference has {float(reference)}"
