"""Other formats are loaded back and compared when they are written; what differs is refused, and nothing is left."""

import json

import jax
import numpy as np
import pytest

import mmpretrain
from mmpretrain.encoders import encoder as arrays
from mmpretrain.evaluation.tasks import _level_chances
from mmpretrain.export import check_installed, parity, stablehlo
from mmpretrain.export.parity import made_up_clips
from tests.export.encoder_folders import TASK, TASKS, save
from tests.tiny import tiny_model

CONFIG = tiny_model("audio", "video")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "encoder"
    save(folder, CONFIG, tasks=TASKS)
    return folder


def test_stablehlo_says_the_same_for_any_batch_and_length(source, tmp_path):
    (said,) = stablehlo.write_folder(source, tmp_path / "hlo", made_up_clips(CONFIG, 2))
    assert said.startswith("for cpu, cuda, tpu; compared on cpu: loaded back and compared on 7 inputs, 14 outputs")
    exported = jax.export.deserialize(bytearray((tmp_path / "hlo" / "encoder.stablehlo").read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    inputs, present, valid = exported.in_avals[-5:-3], exported.in_avals[-3:-1], exported.in_avals[-1]
    assert [str(each.shape) for each in (*inputs, *present, valid)] == [
        "(b, t, 104)", "(b, t, 16, 16)", "(b,)", "(b,)", "(b, t)",
    ]  # fmt: skip
    card = (tmp_path / "hlo" / "README.md").read_text()
    assert "library_name: jax" in card
    assert "**Not for** identifying" in card


def test_stablehlo_has_heads_of_the_statistics_of_layers(tmp_path):
    config = tiny_model("audio")
    save(tmp_path / "encoder", config, tasks=[TASK], form="frozen_linear")
    (said,) = stablehlo.write_folder(tmp_path / "encoder", tmp_path / "hlo", made_up_clips(config, 1))
    assert "loaded back and compared on 2 inputs" in said


def test_onnx_says_the_same_and_tells_what_int8_costs(source, tmp_path):
    for package in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="extra `onnx` is not installed")
    import onnx

    from mmpretrain.export.onnx.write import write_folder

    said = write_folder(source, tmp_path / "onnx", made_up_clips(CONFIG, 2))
    assert said[0].startswith("opset 18; loaded back and compared on 12 inputs, 14 outputs")
    assert "INT8: " in said[1]
    graph = onnx.load(tmp_path / "onnx" / "encoder.onnx")
    assert [entry.version for entry in graph.opset_import if entry.domain == ""] == [18]
    shapes = {
        each.name: [d.dim_param or d.dim_value for d in each.type.tensor_type.shape.dim] for each in graph.graph.input
    }
    assert shapes["input_values"][2] == 104
    assert all(isinstance(size, str) for shape in shapes.values() for size in shape[:2])  # any batch, any length
    names = [each.name for each in graph.graph.output]
    heads = [f"heads.{task.name}" for task in TASKS]
    heads[3] = "logits"  # of the first that transformers has a name for
    assert names == ["last_hidden_state", "extract_features", *[f"hidden_states.{k}" for k in range(3)], *heads]
    config = json.loads((tmp_path / "onnx" / "config.json").read_text())
    assert 0 < config["int8"]["relative_rms"] < 0.5
    assert config["id2label"] == {str(i): name for i, name in enumerate(TASKS[3].classes)}
    assert config["heads"]["valence"]["range"] == [0, 7]
    assert config["int8"].keys() == {"relative_rms", "same_class", "bytes", "place_off", "valence_off", "tags_off",
                                     "arousal_off"}  # fmt: skip


def test_an_encoder_says_all_in_one_pass(source):
    encoder = mmpretrain.load_encoder(source)
    (clip,) = made_up_clips(CONFIG, 1)
    made = encoder.outputs(audio=clip.audio, video=clip.mouth)
    assert made.layers.shape == (3, clip.num_frames, 16)
    T, answers = clip.num_frames, made.answers
    assert {name: answer.shape for name, answer in answers.items()} == {
        "place": (4,), "sound": (T, 3), "valence": (T, 1), "level": (4,), "emotion": (3,), "votes": (2,), "tags": (3,),
        "humour": (2,), "arousal": (1,),
    }  # fmt: skip
    for name in ("sound", "level", "emotion", "votes", "humour"):
        np.testing.assert_allclose(answers[name].sum(-1), 1, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(np.log(answers["level"]), _level_chances(made.logits["level"][None])[0], atol=1e-4)
    np.testing.assert_allclose(answers["arousal"], 3 + 2 * made.logits["arousal"], atol=1e-6)
    np.testing.assert_allclose(answers["tags"], 1 / (1 + np.exp(-made.logits["tags"])), atol=1e-6)
    assert np.linalg.norm(answers["place"]) == pytest.approx(1)
    for layer, wanted in ((None, made.output), (0, made.fused), (2, made.layers[2])):
        found = encoder.features(audio=clip.audio, video=clip.mouth, layer=layer)
        np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_heads_of_clips_and_frames_go_through_windows(source, monkeypatch):
    """Of a clip in several windows a frame has the answer of the window that owns it, and a clip their mean."""
    encoder = mmpretrain.load_encoder(source)
    (clip,) = made_up_clips(CONFIG, 1)
    whole = encoder.outputs(audio=clip.audio)
    T, twice = clip.num_frames, (slice(0, 20), slice(20, clip.num_frames))
    spans = [(range(0, T), own) for own in twice]
    monkeypatch.setattr(
        arrays, "windows", lambda num_frames: [(frames, range(own.start, own.stop)) for frames, own in spans]
    )
    again = mmpretrain.load_encoder(source).outputs(audio=clip.audio)
    for name, answer in whole.answers.items():
        np.testing.assert_allclose(again.answers[name], answer, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("found", [np.full((4, 2), np.nan), np.zeros((3, 2)), np.full((4, 2), 2e-4)])
def test_nan_too_few_frames_and_large_differences_are_refused(found):
    differences = parity.Differences()
    differences.add("clip", {"output": np.zeros((4, 2))}, {"output": np.zeros((5, 2))})
    assert differences.lines()
    differences.add("other clip", {"output": np.zeros((4, 2))}, {"output": found})
    with pytest.raises(ValueError, match="output, other clip"):
        differences.lines()


def test_a_package_that_is_missing_is_named_with_its_extra():
    with pytest.raises(ValueError, match=r"needs no_such_package.*mmpretrain-jax\[onnx\]"):
        check_installed("onnx", "json", "no_such_package")
