"""The folder for `transformers`: loaded as its users do, it says what our encoder says, and learns."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import InputConfig, ReferenceModelConfig
from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.export.parity import made_up_clips
from mmpretrain.export.transformers import write
from mmpretrain.features.filterbank import audio_features
from tests.export.encoder_folders import TASK, TASKS, save
from tests.tiny import IMAGE_SIZE, tiny_model

torch = pytest.importorskip("torch", reason="extra `torch` is not installed")
transformers = pytest.importorskip("transformers", reason="extra `torch` is not installed")
import mmpretrain.torch  # noqa: E402
from mmpretrain.export.transformers.processing_mmpretrain import MMPretrainFeatureExtractor  # noqa: E402

TRUSTED = dict(trust_remote_code=True, local_files_only=True)


def write_from(tmp_path, config, **kwargs):
    save(tmp_path / "encoder", config, **kwargs)
    return write.write_folder(tmp_path / "encoder", tmp_path / "hf", made_up_clips(config, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of sound and picture, with a head."""
    path = tmp_path_factory.mktemp("export")
    said = write_from(path, tiny_model("audio", "video"), tasks=[TASK])
    assert "compared on 12 inputs, 6 outputs" in said[0]  # 2 clips x 3 ways, alone and in a batch
    assert "pipeline_tag: audio-classification" in (path / "hf" / "README.md").read_text()
    return path / "hf"


@pytest.fixture
def loaded(folder):
    model = transformers.AutoModelForAudioClassification.from_pretrained(folder, **TRUSTED)
    return model, transformers.AutoProcessor.from_pretrained(folder, **TRUSTED)


def sound_of(num_frames, seed):
    return np.random.default_rng(seed).integers(-9000, 9000, 640 * num_frames).astype(np.int16)


def batch_of(processor, lengths=(7, 12), seed=0):
    random = np.random.default_rng(seed)
    audio = [random.integers(-9000, 9000, 640 * T).astype(np.int16) for T in lengths]
    videos = [random.integers(0, 256, (T, IMAGE_SIZE, IMAGE_SIZE), np.uint8) for T in lengths]
    return processor(audio=audio, videos=videos, sampling_rate=16_000, return_tensors="pt")


@pytest.mark.parametrize("config", [
    tiny_model("audio"),
    tiny_model("video", resnet_blocks=(1, 2, 1, 1), pos_conv_kernel=5),
    tiny_model("audio", "video", fusion="add", reference=ReferenceModelConfig(post_norm=True), dtype="bfloat16",
               inputs=InputConfig(image_size=IMAGE_SIZE, pixel_mean=0.3, pixel_std=0.5, audio_normalization="level")),
], ids=["sound alone", "picture alone", "everything else"])  # fmt: skip
def test_every_layer_is_ours(tmp_path, config):
    said = write_from(tmp_path, config)
    both = 3 if len(config.modalities) == 2 else 1
    assert said[0].startswith(f"loaded back and compared on {2 * 2 * both} inputs, 5 outputs of each")


@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_every_pooling_is_ours(tmp_path, pooling):
    said = write_from(tmp_path, tiny_model("audio"), tasks=[dataclasses.replace(TASK, pooling=pooling)])
    assert said[0].startswith("loaded back and compared on 4 inputs, 6 outputs of each")


def test_a_head_that_began_as_a_regression_is_ours(tmp_path):
    said = write_from(tmp_path, tiny_model("audio"), tasks=[TASK], form="frozen_linear")
    assert said[0].startswith("loaded back and compared on 4 inputs, 6 outputs of each")


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory):
    path = tmp_path_factory.mktemp("heads")
    said = write_from(path, tiny_model("audio"), tasks=TASKS)
    assert said[0].startswith("loaded back and compared on 4 inputs, 14 outputs of each")
    assert said[1] == "`logits` are of level; `heads` have place, sound, valence, emotion, votes, tags, humour, arousal"
    return path


def test_heads_of_every_kind_are_ours_and_numbers_are_on_the_scale_of_their_labels(every_kind):
    model, processor = mmpretrain.torch.load(every_kind / "hf")
    (clip,) = made_up_clips(tiny_model("audio"), 1)
    answers = load_encoder(every_kind / "encoder").outputs(audio=clip.audio).answers
    with torch.no_grad():
        made = model(**processor(audio=clip.audio, sampling_rate=16_000, return_tensors="pt"))
    said = {name: x[0] for name, x in made.heads.items()} | {"level": made.logits[0]}
    for name in ("level", "emotion", "votes", "humour", "sound"):
        said[name] = said[name].softmax(-1)
    said["tags"] = said["tags"].sigmoid()
    for name, answer in answers.items():
        np.testing.assert_allclose(said[name], answer, atol=1e-5, err_msg=name)
    assert model.config.id2label == dict(enumerate(("0", "1", "2", "3")))
    assert model.config.heads["sound"]["classes"] == ["vowel", "other", "none"]


@pytest.mark.parametrize(("task", "labels", "problem"), [
    (TASKS[3], torch.tensor([0, 3]), "single_label_classification"),
    (TASKS[6], torch.tensor([[0.0, 1, 1], [1, 0, 0]]), "multi_label_classification"),
    (TASKS[8], torch.tensor([1.5, 4.5]), "regression"),
], ids=lambda value: getattr(value, "kind", ""))  # fmt: skip
def test_a_head_of_another_kind_goes_on_learning(tmp_path, task, labels, problem):
    write_from(tmp_path, tiny_model("audio"), tasks=[task])
    model = transformers.AutoModelForAudioClassification.from_pretrained(tmp_path / "hf", **TRUSTED)
    assert model.config.problem_type == problem
    inputs = transformers.AutoProcessor.from_pretrained(tmp_path / "hf", **TRUSTED)(
        audio=[sound_of(7, seed) for seed in (0, 1)], sampling_rate=16_000, return_tensors="pt"
    )
    optimizer, losses = torch.optim.Adam(model.parameters(), 3e-3), []
    for _ in range(60):
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < losses[0] / 2


def test_heads_that_transformers_has_no_name_for_are_by_name_alone(tmp_path):
    write_from(tmp_path, tiny_model("audio"), tasks=TASKS[:3])
    model, processor = mmpretrain.torch.load(tmp_path / "hf")
    inputs = processor(audio=sound_of(7, 0), sampling_rate=16_000, return_tensors="pt")
    made = model(**inputs)
    assert made.logits is None
    assert {name: tuple(x.shape) for name, x in made.heads.items()} == {
        "place": (1, 4), "sound": (1, 7, 3), "valence": (1, 7, 1),
    }  # fmt: skip
    with pytest.raises(ValueError, match="which this model does not have"):
        model(**inputs, labels=torch.tensor([0]))


def test_a_weight_that_differs_is_found_and_nothing_is_left(tmp_path, monkeypatch):
    honest = write.tensors_of

    def changed(encoder):
        tensors = honest(encoder)
        return tensors | {"encoder.layers.1.fc2.bias": tensors["encoder.layers.1.fc2.bias"] + 1e-3}

    monkeypatch.setattr(write, "tensors_of", changed)
    with pytest.raises(ValueError, match=r"something else than the encoder: .*layer 2.* more than 0.0001"):
        write_from(tmp_path, tiny_model("audio"))
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("normalization", ["frame", "level", "clip"])
@pytest.mark.parametrize("num_samples", [1, 639, 641, 5000])
def test_rows_of_sound_are_those_of_training_bit_for_bit(normalization, num_samples):
    sound = np.random.default_rng(0).integers(-9000, 9000, num_samples).astype(np.int16)
    sound[: num_samples // 3] = 0  # digital silence
    extractor, T = MMPretrainFeatureExtractor(normalization=normalization), -(-num_samples // 640)
    for given in (sound, sound / np.float32(32768)):
        made = extractor(given, sampling_rate=16_000)
        np.testing.assert_array_equal(made["input_values"][0], audio_features(sound, T, normalization))
        np.testing.assert_array_equal(made["attention_mask"], np.ones((1, T)))
    longer = extractor([sound], num_frames=[T + 2])["input_values"][0]
    np.testing.assert_array_equal(longer, audio_features(sound, T + 2, normalization))


@pytest.mark.parametrize(("sound", "rate", "reason"), [
    (np.zeros((2, 800), np.float32), 16_000, "mono"),
    (np.full(800, np.nan, np.float32), 16_000, "finite"),
    (np.zeros(800, np.int64), 16_000, "int16 or float"),
    (np.zeros(800, np.float32), 44_100, "16000 Hz"),
])  # fmt: skip
def test_other_sound_is_refused(sound, rate, reason):
    with pytest.raises(ValueError, match=reason):
        MMPretrainFeatureExtractor()([sound], sampling_rate=rate)


def test_padding_and_what_is_masked_change_nothing(loaded):
    model, processor = loaded
    model.eval()
    inputs = batch_of(processor)
    changed = {name: x.clone() for name, x in inputs.items()}
    for values, mask in (("input_values", "attention_mask"), ("pixel_values_videos", "padding_mask_videos")):
        changed[values][changed[mask] == 0] = 7.0
    with torch.no_grad():
        one, other = (model(**given).logits for given in (inputs, changed))
        alone = model(**{name: x[:1, :7] for name, x in inputs.items()}).logits
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(one[:1], alone, atol=1e-5)


def test_attentions_are_ours_and_change_nothing_else(tmp_path):
    config = tiny_model("audio", "video", fusion="add", reference=ReferenceModelConfig(post_norm=True))
    write_from(tmp_path, config)
    encoder = transformers.AutoModel.from_pretrained(tmp_path / "hf", **TRUSTED).eval()
    inputs = batch_of(transformers.AutoProcessor.from_pretrained(tmp_path / "hf", **TRUSTED))
    with torch.no_grad():
        plain, made = encoder(**inputs), encoder(**inputs, output_attentions=True, output_hidden_states=True)
    assert plain.attentions is None
    assert [tuple(x.shape) for x in made.attentions] == [(2, config.num_heads, 12, 12)] * config.num_layers
    np.testing.assert_allclose(plain.last_hidden_state, made.last_hidden_state, atol=1e-5)
    assert made.to_tuple()[3] is made.attentions

    transformer, valid_BT = load_encoder(tmp_path / "encoder").module.transformer, jnp.asarray(made.frame_mask)
    graphdef, params = nnx.split(transformer.layers)
    for k, (x_BTD, weights_BHTS) in enumerate(zip(made.hidden_states, made.attentions, strict=False)):
        layer = nnx.merge(graphdef, jax.tree.map(lambda p, k=k: p[k], params))
        ours_BHTS = layer.attention.weights(jnp.asarray(x_BTD), valid_BT)
        np.testing.assert_allclose(ours_BHTS, weights_BHTS, atol=1e-5)
        assert (weights_BHTS[0, :, :, 7:] == 0).all(), "no padding goes into a frame"


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
def test_attentions_as_transformers_asks_for_them(folder, loaded):
    inputs = batch_of(loaded[1])
    asked = transformers.AutoModelForAudioClassification.from_pretrained(
        folder, attn_implementation="eager", output_attentions=True, **TRUSTED
    )
    eager = transformers.AutoModelForAudioClassification.from_pretrained(folder, attn_implementation="eager", **TRUSTED)
    with torch.no_grad():
        made, plain, other = asked(**inputs), loaded[0](**inputs), eager(**inputs)
        assert len(made.attentions) == asked.config.num_hidden_layers
        assert plain.attentions is None
        assert other.attentions is None
        for model in (asked, eager):
            np.testing.assert_allclose(model(**inputs).logits, plain.logits, atol=1e-5)
        made, *others = (model(**inputs, output_attentions=True) for model in (asked, eager, loaded[0]))
        for other in others:
            for one, same in zip(made.attentions, other.attentions, strict=True):
                np.testing.assert_allclose(one, same, atol=1e-6)
    loaded[0].set_attn_implementation("eager")
    loaded[0].config.output_attentions = True
    with torch.no_grad():
        assert len(loaded[0](**inputs).attentions) == len(made.attentions)
    eager.train().gradient_checkpointing_enable()
    eager(**inputs, labels=torch.tensor([0, 2]), output_attentions=True).loss.backward()
    assert eager.av_encoder.encoder.layers[0].self_attn.q_proj.weight.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")  # its newer name is of few versions
def test_it_learns_and_checkpointing_changes_no_gradient(loaded):
    model, processor = loaded
    inputs, labels = batch_of(processor), torch.tensor([0, 2])

    def gradients():
        model.zero_grad()
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    model.train()
    loss, plain = gradients()
    assert set(plain) == {name for name, _ in model.named_parameters() if "av_encoder.encoder.layer_norm" not in name}
    model.gradient_checkpointing_enable()
    again, checkpointed = gradients()
    assert again == pytest.approx(loss, abs=1e-5)
    for name, gradient in plain.items():
        np.testing.assert_allclose(gradient, checkpointed[name], atol=1e-4, err_msg=name)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(8):
        last, _ = gradients()
        optimizer.step()
    assert last < loss / 2


def test_batch_statistics_are_of_real_pictures_alone(loaded):
    model, processor = loaded
    resnet = model.av_encoder.feature_extractor_video.resnet
    inputs = {name: x for name, x in batch_of(processor).items() if name != "input_values" and "video" in name}
    fresh = {name: x.clone() for name, x in model.state_dict().items()}
    moved = []
    for more in (0, 5):
        model.load_state_dict(fresh)
        padded = {name: torch.cat([x, x.new_zeros(2, more, *x.shape[2:])], 1) for name, x in inputs.items()}
        model.train()(**padded)
        moved.append(resnet.trunk.layer4[0].bn2.running_var.clone())
    np.testing.assert_allclose(*moved, rtol=1e-5)
    assert not np.allclose(moved[0], fresh["av_encoder.feature_extractor_video.resnet.trunk.layer4.0.bn2.running_var"])


def test_a_pipeline_classifies_sound_alone_and_in_batches(folder, every_kind):
    sound = np.random.default_rng(0).normal(size=16_000).astype(np.float32) * 0.1
    for path, classes in ((folder, TASK.classes), (every_kind / "hf", TASKS[3].classes)):
        classify = transformers.pipeline("audio-classification", model=str(path), trust_remote_code=True, device="cpu")
        for answers in (classify(sound), *classify([sound, sound[:8000]], batch_size=2)):
            assert {answer["label"] for answer in answers} <= set(classes)
            assert sum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-5)


def test_the_encoder_alone_and_without_trust_is_the_same(folder, loaded):
    inputs = batch_of(loaded[1])
    encoder = transformers.AutoModel.from_pretrained(folder, **TRUSTED).eval()
    ours, processor = mmpretrain.torch.load(folder)
    assert type(ours).__module__ == "mmpretrain.export.transformers.modeling_mmpretrain"
    again = batch_of(processor)
    with torch.no_grad():
        one = encoder(**inputs, output_hidden_states=True)
        other = ours.av_encoder(**again, output_hidden_states=True)
        logits = loaded[0].eval()(**inputs).logits
        np.testing.assert_array_equal(logits, ours(**again).logits)
    for a, b in zip(one.hidden_states, other.hidden_states, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_changed_byte_is_refused_without_trust(tmp_path):
    write_from(tmp_path, tiny_model("audio"))
    weights = tmp_path / "hf" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        mmpretrain.torch.load(tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="no encoder of ours"):
        mmpretrain.torch.load(tmp_path / "hf")


def test_saved_again_every_head_is_where_it_was(every_kind, tmp_path):
    kind = transformers.AutoModelForAudioClassification
    model = kind.from_pretrained(every_kind / "hf", **TRUSTED).eval()
    model.save_pretrained(tmp_path / "again")  # which sorts what lies in config.json
    again = kind.from_pretrained(tmp_path / "again", **TRUSTED).eval()
    inputs = transformers.AutoProcessor.from_pretrained(every_kind / "hf", **TRUSTED)(
        audio=torch.tensor(sound_of(7, 0)), sampling_rate=16_000, return_tensors="pt"
    )
    with torch.no_grad():
        ours, theirs, exact = model(**inputs), again(**inputs), model.double()(**inputs)
    assert len(ours.heads) == 8
    for name, x in ours.heads.items():
        np.testing.assert_array_equal(x, theirs.heads[name], err_msg=name)
        np.testing.assert_allclose(x, exact.heads[name], atol=1e-5, err_msg=name)


def test_saved_again_after_training_it_loads_with_its_code(loaded, tmp_path):
    model, processor = loaded
    with torch.no_grad():
        model.classifier.out.bias += 1
    model.save_pretrained(tmp_path / "again")
    processor.save_pretrained(tmp_path / "again")
    again = transformers.AutoModelForAudioClassification.from_pretrained(tmp_path / "again", **TRUSTED)
    np.testing.assert_array_equal(again.classifier.out.bias.detach(), model.classifier.out.bias.detach())
    assert again.config.id2label == dict(enumerate(TASK.classes))
    kept = transformers.AutoProcessor.from_pretrained(tmp_path / "again", **TRUSTED)
    assert (kept.image_size, kept.feature_extractor.normalization) == (IMAGE_SIZE, "frame")


@pytest.mark.parametrize(("given", "reason"), [
    (dict(), "is given None"),
    (dict(pixel_values_videos=torch.zeros(1, 3, 1, 16, 16)), "is of audio, but is given"),
])  # fmt: skip
def test_inputs_that_do_not_fit_are_refused(tmp_path, given, reason):
    from mmpretrain.export.transformers.modeling_mmpretrain import MMPretrainConfig, MMPretrainModel

    config = tiny_model("audio")
    fields = dict(hidden_size=config.width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = MMPretrainModel(MMPretrainConfig(modalities=("audio",), num_conv_pos_embedding_groups=2, **fields))
    with pytest.raises(ValueError, match=reason):
        model(**given)


def test_another_modality_is_refused():
    config = dataclasses.replace(tiny_model("audio"), modalities=("audio", "gaze"))
    with pytest.raises(ValueError, match="not gaze"):
        write.cases_of([], config)
