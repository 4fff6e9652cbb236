"""Encoders of other projects: small random ones, saved as transformers saves them, and loaded by the product's code."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="extra `torch` is not installed")
transformers = pytest.importorskip("transformers", reason="extra `torch` is not installed")

from mmpretrain.encoders.foreign import ForeignEncoder  # noqa: E402
from mmpretrain.files import write_json  # noqa: E402
from tests.corpus_fixture import make_clip  # noqa: E402


def test_a_model_of_sound_says_every_layer_and_is_normalised_as_it_wants(tmp_path):
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8, 8),
        conv_stride=(5, 4), conv_kernel=(10, 8), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, mask_time_prob=0.0,
    )  # fmt: skip
    transformers.Wav2Vec2Model(config).save_pretrained(tmp_path)
    clip = make_clip("c", 10, video=False)
    plain = ForeignEncoder(tmp_path)
    assert plain.modality == "audio"
    layers = plain.layers(clip)
    assert layers.shape[0] == 3
    assert layers.shape[2] == 16
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(tmp_path)
    given = extractor(clip.audio.astype(np.float32) / 32768, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        model = transformers.AutoModel.from_pretrained(tmp_path).eval()
        expected = model(**given, output_hidden_states=True).hidden_states
    found = ForeignEncoder(tmp_path).layers(clip)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other[0].numpy(), atol=1e-4)
    settings = tmp_path / "preprocessor_config.json"
    extractor.save_pretrained(tmp_path)
    nested = {"feature_extractor": json.loads(settings.read_text())}
    settings.unlink()
    fingerprint = ForeignEncoder(tmp_path).fingerprint
    write_json(tmp_path / "processor_config.json", nested)  # as transformers 5 saves a Wav2Vec2Processor
    np.testing.assert_array_equal(ForeignEncoder(tmp_path).layers(clip), found)
    assert ForeignEncoder(tmp_path).fingerprint != fingerprint
    nested["feature_extractor"]["sampling_rate"] = 8000
    write_json(tmp_path / "processor_config.json", nested)
    with pytest.raises(ValueError, match="sampling_rate=8000, but clips have sound of 16000 Hz"):
        ForeignEncoder(tmp_path)
    (tmp_path / "processor_config.json").unlink()
    settings.write_text("{")
    with pytest.raises(ValueError, match=r"preprocessor_config\.json is damaged .* save the model's processor"):
        ForeignEncoder(tmp_path)
    settings.unlink()
    short = make_clip("d", 1, video=False)
    assert np.isfinite(ForeignEncoder(tmp_path).layers(short)).all()
    with torch.no_grad():
        model.encoder.layers[1].final_layer_norm.bias[0] = torch.inf
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"layer 2 says NaN or infinity of clip 'c'; its weights are damaged"):
        ForeignEncoder(tmp_path).layers(clip)


def test_a_model_of_pictures_says_every_layer_of_every_frame(tmp_path):
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=16
    )
    transformers.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has no preprocessor_config\.json"):
        ForeignEncoder(tmp_path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    encoder, clip = ForeignEncoder(tmp_path), make_clip("c", 5)
    assert encoder.modality == "video"
    assert encoder.layers(clip).shape == (3, 5, 16)


def test_what_is_none_of_them_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        ForeignEncoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(ValueError, match="is no model that transformers reads"):
        ForeignEncoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "hubert"}')
    with pytest.raises(ValueError, match="is no model that transformers reads"):
        ForeignEncoder(tmp_path).layers(make_clip("c", 5, video=False))
    bert = transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    transformers.BertModel(bert).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a bert takes input_ids; sound"):
        ForeignEncoder(tmp_path)


def test_what_takes_something_else_is_said(tmp_path):
    config = transformers.ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_length=32, num_mel_bins=16
    )
    transformers.ASTModel(config).save_pretrained(tmp_path / "ast")
    with pytest.raises(ValueError, match=r"spectrogram-transformer does not say what its layers make of samples"):
        ForeignEncoder(tmp_path / "ast").layers(make_clip("c", 5, video=False))
    (tmp_path / "pe").mkdir()
    (tmp_path / "pe" / "config.json").write_text('{"model_type": "pe_audio_encoder"}')
    with pytest.raises(ValueError, match=r"a pe_audio_encoder, of PE-AV, takes sound of 48 kHz"):
        ForeignEncoder(tmp_path / "pe")


def test_a_frame_is_the_mean_of_the_states_that_lie_in_it(tmp_path, monkeypatch):
    """Of HuBERT's own convolutions: a state hears 400 samples, 320 after the one before."""
    config = transformers.HubertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, mask_time_prob=0.0,
    )  # fmt: skip
    transformers.HubertModel(config).save_pretrained(tmp_path)
    encoder, clip = ForeignEncoder(tmp_path), make_clip("c", 9, video=False)
    sound = np.pad(clip.audio.astype(np.float32) / 32768, 40)
    with torch.inference_mode():
        states = encoder._model(torch.from_numpy(sound)[None], output_hidden_states=True).hidden_states[2][0].numpy()
    assert len(states) == 2 * 9
    frames = encoder.frames(clip)[2]
    np.testing.assert_allclose(frames, (states[0::2] + states[1::2]) / 2, atol=1e-6)
    assert frames.dtype == np.float32

    monkeypatch.setattr("mmpretrain.data.windows.WINDOW_FRAMES", 50)
    monkeypatch.setattr("mmpretrain.data.windows.OVERLAP_FRAMES", 20)
    assert encoder.frames(make_clip("long", 120, video=False)).shape == (3, 120, 16)
    encoder.config.conv_stride = [10, 10, 10]
    with pytest.raises(ValueError, match="a state is of 1000 samples, more than the 640 of a frame"):
        ForeignEncoder._hop.func(encoder)
