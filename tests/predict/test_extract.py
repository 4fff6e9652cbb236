"""`mmpretrain extract`: the features of every clip, in every format, after a stop as without one."""

import csv
import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import nnx
from safetensors.numpy import load_file

import mmpretrain
from mmpretrain.__main__ import main
from mmpretrain.config import CorpusConfig, InputConfig
from mmpretrain.data.clips import open_clips
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.predict import extract
from tests.corpus_fixture import make_clip, write_corpus
from tests.export.encoder_folders import LINEAGE
from tests.tiny import tiny_model

LENGTHS = {"a": 30, "b": 12, "c/d": 30, "mute": 12}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    random = np.random.default_rng(0)
    clips = [make_clip(name, length, size=32, audio=name != "mute") for name, length in LENGTHS.items()]
    clips = [dataclasses.replace(c, audio=random.normal(0, 900, len(c.audio)).astype(np.int16)) for c in clips]
    return write_corpus(tmp_path_factory.mktemp("corpus") / "four", clips, 32, 48)


def rows_of(folder) -> dict[str, dict[str, str]]:
    with open(folder / "index.csv", newline="") as file:
        return {row["clip_id"]: row for row in csv.DictReader(file)}


def test_features_of_frames_and_of_clips_are_those_of_the_encoder(
    encoder_folder, corpus, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(extract, "FILE_BYTES", 4000)
    given = ["extract", str(encoder_folder), str(corpus)]
    main([*given, f"--output={tmp_path}/frames"])
    encoder, table = mmpretrain.load_encoder(encoder_folder), open_clips([CorpusConfig(str(corpus))])
    rows = rows_of(tmp_path / "frames")
    assert len({row["file"] for row in rows.values()}) == 2
    for i, (name, length) in enumerate(LENGTHS.items()):
        found = load_file(tmp_path / "frames" / rows[name]["file"])[name]
        assert found.shape == (length, 16)
        np.testing.assert_allclose(found, encoder.features_of(table.load(i)), atol=3e-5)  # batched and padded

    # One file is lost: it alone is made again, and as it was.
    lost = tmp_path / "frames" / rows["a"]["file"]
    before = lost.read_bytes()
    lost.unlink()
    main([*given, f"--output={tmp_path}/frames"])
    assert lost.read_bytes() == before
    assert "features of 2 of 4 clips are there already" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*given, f"--output={tmp_path}/frames", "--layer=1"])
    assert "holds features of another command (layer was None, now 1)" in capsys.readouterr().err

    main([*given, f"--output={tmp_path}/clips", "--layer=all", "--pooling=statistics", "--format=npy"])
    row = rows_of(tmp_path / "clips")["c/d"]
    found = np.load(tmp_path / "clips" / row["file"])[int(row["first_row"])]
    layers = encoder.outputs(audio=table.load(2).audio, video=table.load(2).mouth).layers
    np.testing.assert_allclose(found, np.concatenate([layers.mean(1), layers.std(1)], axis=1), atol=3e-5)


def test_raw_clips_are_prepared_on_the_way_and_those_that_are_none_are_accounted_for(encoder_folder, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    sound = np.random.default_rng(1).normal(0, 0.1, 16_000)
    soundfile.write(tmp_path / "in" / "one.wav", sound, 16_000)
    (tmp_path / "in" / "two.wav").write_text("no sound")
    main(["extract", str(encoder_folder), f"{tmp_path}/in", f"--output={tmp_path}/out", "--pooling=mean"])
    (row,) = rows_of(tmp_path / "out").values()
    (found,) = load_file(tmp_path / "out" / row["file"])[row["clip_id"]]
    expected = mmpretrain.load_encoder(encoder_folder).from_file(tmp_path / "in" / "one.wav").mean(0)
    np.testing.assert_allclose(found, expected, atol=3e-5)
    assert "two," in (tmp_path / "out" / "prepared" / "report.csv").read_text()


def test_pictures_at_another_scale_are_refused(encoder_folder, tmp_path, capsys):
    corpora = [
        write_corpus(tmp_path / f"{size}", [make_clip("a", 12, size=size)], size, size + 16) for size in (40, 32)
    ]
    other, same = (["extract", str(encoder_folder), str(corpus), f"--output={tmp_path}/out"] for corpus in corpora)
    with pytest.raises(SystemExit):
        main(other)
    said = capsys.readouterr().err
    assert "has mouth crops of 40 pixels, but the encoder" in said
    assert said.endswith("prepare the clips with --mouth-size 32\n")
    main(same)
    assert rows_of(tmp_path / "out")["a"]["frames"] == "12"


def test_an_encoder_that_was_trained_anew_is_another(corpus, tmp_path, capsys):
    for seed in (0, 1):
        encoder = AVEncoder(tiny_model("audio"), rngs=nnx.Rngs(seed))
        save_encoder(tmp_path / "encoder", encoder, lineage=LINEAGE)
        given = ["extract", str(tmp_path / "encoder"), str(corpus), f"--output={tmp_path}/out", "--pooling=mean"]
        if not seed:
            main(given)
    with pytest.raises(SystemExit):
        main(given)
    assert "holds features of another command (weights was " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "layer"), [((), "the output"), (("--layer=all", "--pooling=statistics"), "layer 1")]
)
def test_features_that_overflow_name_the_clip_and_the_layer(corpus, options, layer, tmp_path, capsys):
    config = tiny_model("audio", "video", inputs=InputConfig(image_size=28), dtype="bfloat16")
    module = AVEncoder(config, rngs=nnx.Rngs(0))
    bias = module.transformer.layers.mlp_out.bias
    bias.set_value(jnp.full_like(bias.get_value(), 3e38))  # finite, as all weights of an encoder's folder
    save_encoder(tmp_path / "encoder", module, lineage=LINEAGE, crop_size=32)
    with pytest.raises(SystemExit) as left:
        main(["extract", str(tmp_path / "encoder"), str(corpus), f"--output={tmp_path}/out", *options])
    assert left.value.code == 2
    assert f": {layer} of the encoder says NaN or infinity of it; take the encoder of an" in capsys.readouterr().err
    assert not (tmp_path / "out" / "index.csv").exists()
    if not options:
        with pytest.raises(ValueError, match="the clip: the output of the encoder says NaN or infinity"):
            mmpretrain.load_encoder(tmp_path / "encoder").features(np.ones(6400, np.int16))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no_such_encoder", "."], "no_such_encoder is no exported encoder"),
        (["ENCODER", "no_such_corpus"], "no_such_corpus is no folder; give that of a prepared corpus"),
        (["ENCODER", ".", "--layer=9"], "--layer=9; this encoder has layers 1 to 2, 0, its input, and all"),
        (["ENCODER", ".", "--pooling=max"], "--pooling=max; it must be one of none, mean, statistics"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(encoder_folder, arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["extract", *[str(encoder_folder) if a == "ENCODER" else a for a in arguments], "--output=out"])
    assert left.value.code == 2
    assert words in capsys.readouterr().err
