"""The whole network, its loss, gradients and batch statistics against the reference's numbers (spec sections 7 to 9).

Every file of the two patterns is compared, through our public objective, with the options that its `meta_json` names.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import AUDIO_DIM, encoder_size
from mmpretrain.export.avhubert.names import UNUSED, reference_tensors, to_state_dict
from mmpretrain.models.heads import MaskedClusterModel
from mmpretrain.objectives.base import Sums
from mmpretrain.objectives.masked_prediction import Prediction
from tests.parity.fixture_files import check, check_error, file_names, folder
from tests.parity.model_files import stored_run
from tests.slow import others_slow

# Both places of the norm and both kinds of mask, and batch statistics.
QUICK = "pretrain_postln_concat_featuremask.npz", "train_bn_preln_concat.npz"
EVAL_FILES = others_slow(file_names("pretrain_*.npz"), *QUICK)
LOSS_FILES = others_slow(file_names("pretrain_*.npz", "train_*.npz"), *QUICK)
LOSS_LIMIT = 1e-4
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

    @nnx.jit
    def streams(model, batch):
        frontends = model.encoder.frontends
        pixels_BTHW = frontends["video"].prepare(batch.inputs["video"], batch.valid_BT)
        out = {"pixels": pixels_BTHW, "feat_audio": frontends["audio"].proj(batch.inputs["audio"])}
        out["resnet"] = frontends["video"].resnet(pixels_BTHW, batch.valid_BT, train=False)
        out["feat_video"] = frontends["video"].proj(out["resnet"])
        prepared = {"audio": batch.inputs["audio"], "video": pixels_BTHW}
        for tag in ("av", "a", "v"):
            use = {kind: jnp.full(len(batch.valid_BT), kind[0] in tag) for kind in ("audio", "video")}
            out[f"embedded_{tag}"], _ = model.encoder.embed(prepared, batch.valid_BT, use)
        return out

    out = streams(run.model(), run.batch)
    return jax.tree.map(np.asarray, out)


@pytest.mark.parametrize("name", EVAL_FILES)
def test_streams_and_fusion(name):
    run = stored_run(name)
    ours, reference = front_end(name), run.arrays
    pixels = ours["pixels"].astype(np.float64)
    check("pixel sums", pixels.sum((2, 3)), reference["in/video_sum_per_frame"])
    check("absolute pixel sums", np.abs(pixels).sum((2, 3)), reference["in/video_abssum_per_frame"])
    for key in ("resnet", "feat_audio", "feat_video"):
        check(key, ours[key].swapaxes(1, 2), reference[f"out/{key}"])
    # The reference zeroes the padding of this tensor on the way.
    fused = np.where(run.batch.valid_BT[..., None], ours["embedded_av"], 0)
    check("ret_conv (fused)", fused, reference["out/ret_conv"])


@pytest.mark.parametrize("name", EVAL_FILES)
def test_layers_and_missing_modalities(name):
    run = stored_run(name)
    ours, reference, encoder = front_end(name), run.arrays, run.model().encoder
    valid_BT = run.batch.valid_BT
    layers = encoder.all_layers(ours["embedded_av"], valid_BT)
    assert len(layers) == 1 + sum(key.startswith("out/layer_") for key in reference)
    for k in range(1, len(layers)):
        check(f"layer_{k}", layers[k], reference[f"out/layer_{k}"])
        alone = encoder.contextualize(ours["embedded_av"], valid_BT, layer=k)
        check(f"layer_{k} asked for alone", alone, reference[f"out/layer_{k}"])
    check("final", encoder.contextualize(ours["embedded_av"], valid_BT), reference["out/final"])
    for tag in ("av", "a", "v"):
        final = encoder.contextualize(ours[f"embedded_{tag}"], valid_BT)
        check(f"finetune_{tag}", final, reference[f"out/finetune_{tag}"])
    alone = encoder.contextualize(ours["embedded_av"][:1], jnp.ones_like(valid_BT[:1]))
    check("final_nopadmask_b0", alone, reference["out/final_nopadmask_b0"])


@functools.cache
def loss_run(name: str) -> tuple[Prediction, Sums, dict[str, np.ndarray]]:
    """What our objective predicts, its sums, and a state dict of gradients and of the statistics after the step."""
    run = stored_run(name)
    objective, draws = run.objective, run.masks()
    graphdef, params, stats = nnx.split(run.model(), nnx.Param, nnx.BatchStat)

    @jax.jit  # with all that differs as arguments: files of one model and mode share a program
    def gradient(params, stats, batch, draws):
        def loss_of(params):
            model = nnx.merge(graphdef, params, stats, copy=True)
            key = jax.random.key(0) if run.train else None
            prediction = objective.predict(model, batch, draws, key, train=run.train)
            sums = objective.score(prediction)
            return sums.loss, (prediction, sums, nnx.state(model, nnx.BatchStat))

        return jax.grad(loss_of, has_aux=True)(params)

    grads, (prediction, sums, stats_after) = gradient(params, stats, run.batch, draws)
    prediction, sums = jax.device_get((prediction, sums))
    return prediction, sums, to_state_dict(nnx.merge(graphdef, grads, stats_after))


@pytest.mark.parametrize("name", LOSS_FILES)
def test_logits_and_loss(name):
    run = stored_run(name)
    prediction, sums, _ = loss_run(name)
    reference, num_sets = run.arrays, len(run.meta["vocab"])
    valid, mask = prediction.valid_BT, prediction.masked_BT
    np.testing.assert_array_equal(valid, ~reference["out/padding_mask_trimmed"])
    for i in range(num_sets):
        each = f"_{i + 1}" if num_sets > 1 else ""
        for kind, word, where in (("m", "masked", mask & valid), ("u", "unmasked", ~mask & valid)):
            classes = prediction.classes_BTS[where][:, i]
            check_error(f"targets, {word}", (classes != reference[f"out/target_{kind}_{i}"]).sum(), 0)
            check(f"logits, {word}", prediction.logits[i][where], reference[f"out/logit_{kind}_{i}"])
            loss, count = sums.metrics[f"{word}_loss{each}"]
            correct, _ = sums.metrics[f"{word}_accuracy{each}"]
            check_error(f"frames, {word}", abs(count - reference[f"out/log/count_{kind}_{i}"]), 0)
            check_error(f"correct frames, {word}", abs(correct - reference[f"out/log/correct_{kind}_{i}"]), 0)
            check_relative(f"loss, {word}", loss, reference[f"out/log/loss_{kind}_{i}"])
    check_error("sample size", abs(sums.weight - reference["out/sample_size"]), 0)
    penalty = np.divide(*sums.metrics["feature_penalty"])
    check_relative("feature penalty", penalty, reference["out/features_pen"])
    if run.objective.round.feature_penalty:
        scaled = run.objective.round.feature_penalty * penalty * sums.weight
        check_relative("loss, feature penalty", scaled, reference["out/log/loss_features_pen"])
    check_relative("loss", sums.loss, reference["out/loss"])


@pytest.mark.parametrize("name", LOSS_FILES)
def test_gradients(name):
    ours, reference = loss_run(name)[2], stored_run(name).arrays
    names = [str(key) for key in reference["grad/names"]]
    assert set(names) == {key for key in ours if not key.endswith(("running_mean", "running_var"))}
    rows = zip(reference["grad/l2"], reference["grad/maxabs"], reference["grad/probe"], strict=True)
    for key, (l2, maxabs, probe) in zip(names, rows, strict=True):
        g = ours[key].astype(np.float64).ravel()
        norm = np.linalg.norm(g)
        if l2 <= 0:
            assert norm == 0, f"{key}: the reference has no gradient, ours has norm {norm:.3e}"
            continue
        if key.endswith("k_proj.bias"):  # the softmax does not feel it
            scale = np.linalg.norm(ours[key.replace("bias", "weight")])
            check_error("gradient that is 0, of the weight's", norm / scale, ZERO_LIMIT)
            continue
        errors = {
            "norm": abs(norm - l2) / l2,
            "maximum": abs(np.abs(g).max() - maxabs) / maxabs,
            # A sum of both signs may come to almost nothing, so its error is measured by the size of its terms.
            "probe": abs(g @ np.sin(np.arange(1, len(g) + 1)) - probe) / l2,
        }
        if f"grad/full/{key}" in reference:
            full = reference[f"grad/full/{key}"].astype(np.float64).ravel()
            errors["every entry"] = np.linalg.norm(g - full) / np.linalg.norm(full)
        part = "front-end" if ".resnet." in key else "rest"
        for what, error in errors.items():
            check_error(f"gradient of the {part}, {what}", error, GRADIENT_LIMIT)


@pytest.mark.parametrize(
    "name", others_slow(file_names("train_*.npz"), "train_bn_preln_concat.npz", "train_drop_video.npz")
)
def test_batch_statistics_after_a_step(name):
    ours, reference = loss_run(name)[2], stored_run(name).arrays
    for key, statistic in reference.items():
        if key.startswith("bn_after/") and not key.endswith(UNUSED):
            check(f"batch statistics, {key.split('.')[-1]}", ours[key.removeprefix("bn_after/")], statistic)


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
    model = nnx.eval_shape(lambda: MaskedClusterModel(config, [num_clusters], kind, rngs=nnx.Rngs(0)))
    shapes = {tensor.name: tensor.shape for tensor in reference_tensors(model)}
    assert shapes == {key: shape for key, shape in listing.items() if not key.endswith(UNUSED)}


def check_relative(quantity: str, ours, reference) -> None:
    ours, reference = float(ours), float(reference)
    check_error(quantity, abs(ours - reference) / (abs(reference) or 1.0), LOSS_LIMIT)
