"""Every file of examples/ does what its first lines say."""

import contextlib
import functools
import importlib.util
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from flax import nnx

from mmpretrain.__main__ import main
from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.objectives import OBJECTIVES
from tests.export.encoder_folders import LINEAGE
from tests.tiny import initial, tiny_model

EXAMPLES = Path(__file__).parents[1] / "examples"
WORDS = {"glad": "happy", "low": "sad", "plain": "neutral", "cross": "angry"}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """Twelve people, of whom each says four things that differ in pitch; an encoder of sound beside them."""
    folder, random = tmp_path_factory.mktemp("examples"), np.random.default_rng(0)
    rows = ["path,speaker,emotion"]
    for speaker in range(12):
        for number, (word, emotion) in enumerate(WORDS.items()):
            path = folder / "my_clips" / f"p{speaker:02}" / f"{word}_1.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            tone = np.sin(np.arange(9600) * (0.05 + 0.1 * number)) * 0.3 + random.normal(0, 0.05, 9600)
            soundfile.write(path, tone, 16_000)
            rows.append(f"p{speaker:02}/{path.name},p{speaker:02},{emotion}")
    (folder / "my_clips" / "labels.csv").write_text("\n".join(rows))
    encoder = nnx.merge(*initial(lambda rngs: AVEncoder(tiny_model("audio"), rngs=rngs)))
    save_encoder(folder / "encoder", encoder, lineage=LINEAGE)
    return folder


@pytest.fixture(scope="module")
def prepared(sounds) -> Path:
    """The sounds, prepared by the reader of one's own."""
    folder = sounds / "prepared" / "mine"
    reader = module("own_reader")
    words = ["--source", str(sounds / "my_clips"), "--output", str(folder), "--workers", "1"]
    assert reader.run(reader.CORPUS, words) == 0
    return folder


@pytest.fixture
def example(sounds, monkeypatch, capsys):
    """example(name, *arguments): what `python examples/NAME` prints, in the folder of the sounds."""
    monkeypatch.chdir(sounds)

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with contextlib.suppress(SystemExit):  # what comes of it is looked at
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_features_of_a_clip(example):
    assert "(15, 16)" in example("features_jax.py", "encoder", "my_clips/p00/glad_1.wav")


def test_a_reader_of_ones_own_and_a_linear_probe(example, prepared):
    assert "cross is no emotion of this corpus" in (prepared / "report.csv").read_text()
    assert "--source" in example("own_reader.py", "--help")
    main(["extract", "encoder", str(prepared), "--output=features", "--pooling=statistics"])
    said = example("linear_probe.py", "features")
    assert float(said.split("%")[0]) > 90  # their tones tell them apart


def test_fine_tuning_on_ones_own_csv_is_one_command(sounds, monkeypatch):
    monkeypatch.chdir(sounds)
    small = ["num_steps=2", "eval_every=1", "folds=(1,)", "optimizer.warmup_steps=1"]
    main(["finetune", f"--config={EXAMPLES}/own_csv.py", "--config.finetune.encoder=encoder",
          *[f"--config.finetune.{field}" for field in small]])  # fmt: skip
    (task,) = load_encoder("runs/own/finetune/pretrained/fold1/encoder").tasks
    assert task.classes == ("neutral", "happy", "sad", "angry")


def test_an_objective_of_ones_own_trains_and_leaves_an_encoder(sounds, prepared, monkeypatch):
    monkeypatch.chdir(sounds)
    monkeypatch.setattr("mmpretrain.config.encoder_size", lambda *_, **__: tiny_model("audio"))
    monkeypatch.setitem(OBJECTIVES, "reconstruction", None)  # so that it is there for this test alone
    fields = [f"data.corpora[0].path={prepared}", "rounds[0].num_steps=3", "log_every=1", "validation_every=3"]
    fields += ["rounds[0].optimizer.warmup_steps=1", "rounds[0].targets[0].num_clusters=3"]
    main(["refine", f"--config={EXAMPLES}/own_objective.py", *[f"--config.{field}" for field in fields]])
    assert load_encoder("runs/own_objective/round1/pretrain/encoder").config.modalities == ("audio",)


@functools.cache
def module(name: str):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def torch_folder(tmp_path_factory) -> Path:
    """Of an encoder of sound and picture, in the format of transformers."""
    os.environ.setdefault(
        "HF_HOME", str(tmp_path_factory.mktemp("hf"))
    )  # where code that lies in a folder is copied to
    pytest.importorskip("torch", reason="extra `torch` is not installed")
    pytest.importorskip("transformers", reason="extra `torch` is not installed")
    from mmpretrain.export.parity import made_up_clips
    from mmpretrain.export.transformers.write import write_folder
    from tests.export.encoder_folders import save

    folder, config = tmp_path_factory.mktemp("torch"), tiny_model("audio", "video")
    save(folder / "encoder", config)
    write_folder(folder / "encoder", folder / "hf", made_up_clips(config, 1))
    return folder


def test_features_in_pytorch(example, torch_folder):
    assert "(1, 15, 16)" in example("features_torch.py", str(torch_folder / "hf"), "my_clips/p00/glad_1.wav")


def test_s3prl_gets_every_layer_of_every_clip(torch_folder):
    import torch

    random = np.random.default_rng(0)
    sounds = [random.integers(-9000, 9000, n).astype(np.int16) for n in (16_000, 9_000)]
    upstream = module("s3prl_upstream").mmpretrain_local(str(torch_folder / "hf")).eval()
    with torch.no_grad():
        made = upstream([torch.tensor(sound / 32768, dtype=torch.float32) for sound in sounds])["hidden_states"]
    ours = load_encoder(torch_folder / "encoder")
    assert len(made) == ours.config.num_layers + 1
    for b, sound in enumerate(sounds):
        # The featurizer of s3prl takes round(samples / rate) frames, and allows five more or fewer.
        assert abs(made[0].shape[1] - round(16_000 / upstream.get_downsample_rates("hidden_states"))) <= 5
        layers = ours.outputs(audio=sound).layers
        for layer, x in zip(made, layers, strict=True):
            np.testing.assert_allclose(layer[b, : x.shape[0]], x, atol=1e-4)


def test_av_superb_gets_layers_of_sound_picture_and_both(torch_folder):
    import torch

    random = np.random.default_rng(0)
    upstream = module("av_superb_upstream").mmpretrain(
        ckpt=str(torch_folder / "hf"), model_config=None, refresh=False
    ).eval()  # fmt: skip
    seconds = (1.0, 0.6)
    source = []
    for sec in seconds:
        audio = torch.tensor(random.normal(0, 0.1, (2, int(44_100 * sec))), dtype=torch.float32)
        video = torch.tensor(random.integers(0, 256, (int(30 * sec), 3, 48, 64)), dtype=torch.uint8)
        source.append((upstream.preprocess_audio(audio, 44_100), upstream.preprocess_video(video, 30)))
    assert [(len(audio), tuple(video.shape)) for audio, video in source] == [
        (16_000, (25, 16, 16)), (9_600, (15, 16, 16)),
    ]  # fmt: skip
    with torch.no_grad():
        made = upstream([(audio.float(), video.float()) for audio, video in source])  # as its runner has them
        featurizer = upstream(source)  # which tries an upstream when it begins
    assert all(torch.equal(*both) for name in made for both in zip(made[name], featurizer[name], strict=True))
    assert {name: {tuple(x.shape) for x in layers} for name, layers in made.items()} == {
        name: {(2, 25, 16)} for name in ("audio_feats", "video_feats", "fusion_feats")
    }
    assert all(len(layers) == 3 for layers in made.values())
    tone = torch.sin(torch.arange(44_100) * 2 * torch.pi * 440 / 44_100)
    expected = torch.sin(torch.arange(16_000) * 2 * torch.pi * 440 / 16_000)
    assert (upstream.preprocess_audio(tone, 44_100) - expected).abs().max() < 1e-3
    ours = load_encoder(torch_folder / "encoder")
    audio = (source[0][0] * 32768).round().clamp(-32768, 32767).to(torch.int16).numpy()
    layers = ours.outputs(audio=audio, video=source[0][1].numpy()).layers
    for layer, x in zip(made["fusion_feats"], layers, strict=True):
        np.testing.assert_allclose(layer[0], x, atol=1e-4)
