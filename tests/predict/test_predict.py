"""`mmpretrain predict`: of every file an answer or a reason, and never a crash."""

import csv
import json
import os
import shutil
import zipfile

import av
import numpy as np
import pytest
import soundfile
from flax import nnx

from mmpretrain.__main__ import main
from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.models.encoder import AVEncoder
from tests.corpus_fixture import make_clip, write_corpus
from tests.export.encoder_folders import LINEAGE
from tests.predict.conftest import LANDMARKER
from tests.slow import others_slow
from tests.tiny import tiny_model


@pytest.fixture
def command(encoder_folder, tmp_path, monkeypatch, capsys):
    """command(*arguments): exit code, standard output and error of `mmpretrain predict` with the tiny encoder."""
    monkeypatch.chdir(tmp_path)
    model = LANDMARKER
    if not model.is_file():  # which no test without real clips comes to use
        model = tmp_path / "stand_in.task"
        zipfile.ZipFile(model, "w").close()

    def run(*arguments):
        code = 0
        try:
            main(["predict", *map(str, arguments), f"--encoder={encoder_folder}", f"--landmarker={model}"])
        except SystemExit as left:
            code = left.code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return run


def test_people_voices_and_all_that_is_neither(command, real, tmp_path):
    random = np.random.default_rng(0)
    source = tmp_path / "in"
    source.mkdir()
    (source / "two.mp4").symlink_to(real / "edge" / "two_people_12fps_24khz.mp4")
    (source / "nobody.mp4").symlink_to(real / "edge" / "no_face_no_audio.mp4")
    (source / "mute.mp4").symlink_to(real / "mead" / "silent" / "M030_front_sad_level3_001.mp4")
    whole = (real / "grid" / "other" / "brbk7n.mpg").read_bytes()
    (source / "truncated.mpg").write_bytes(whole[: len(whole) // 2])
    (source / "text.mp4").write_text("this is no video\n" * 200)
    (source / "empty.mp4").write_bytes(b"")
    soundfile.write(source / "voice.wav", random.normal(0, 0.1, (70_000, 2)), 11_025)
    soundfile.write(source / "silence.flac", np.zeros(64_000), 16_000)
    soundfile.write(source / "nothing.wav", np.zeros(0), 16_000)
    code, _, err = command(source, "--output=out", "--render", "--window=2", "--workers=2")
    assert code == 0, err
    assert "4 of 9 files, 5 people" in err
    for name, words in {
        "nobody.mp4": "no face is seen for half a second, and it has no sound",
        "text.mp4": "cannot be opened",
        "empty.mp4": "the file is empty",
        "nothing.wav": "it is 0.00 s long; at least 0.2 s are needed",
        "silence.flac": "it has no picture, and its sound is silence",
    }.items():
        assert any(name in line and words in line for line in err.splitlines()), name

    two = json.loads((tmp_path / "out" / "two.json").read_text())
    assert [person["person"] for person in two["people"]] == ["person 1", "person 2"]
    moment = two["people"][0]["moments"][0]
    assert moment["uses"] == "audio+video"
    assert sum(moment["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    left, top, right, bottom = moment["box"]
    assert 0.4 < left < right < 0.9
    assert 0 < top < bottom < 0.6
    with open(tmp_path / "out" / "mute.csv", newline="") as file:
        assert {row["uses"] for row in csv.DictReader(file)} == {"video"}
    with open(tmp_path / "out" / "voice.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["person"], row["uses"], row["left"]) for row in rows} == {("voice", "audio", "")}
    assert float(rows[-1]["end_sec"]) == pytest.approx(70_000 / 11_025, abs=0.04)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mp4")) == ["mute.mp4", "truncated.mp4", "two.mp4"]
    with av.open(str(tmp_path / "out" / "two.mp4")) as video:
        assert (video.streams.video[0].width, len(list(video.decode(video=0)))) == (320, 219)


def test_sounds_need_no_face_landmarker_and_no_name_that_is_short_or_text(
    encoder_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("MMPRETRAIN_LANDMARKER", str(tmp_path / "gone.task"))
    path = tmp_path / os.fsdecode(b"\xff" + b"v" * 240 + b".wav")
    soundfile.write(tmp_path / "voice.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    (tmp_path / "voice.wav").rename(path)
    main(["predict", str(path), f"--encoder={encoder_folder}", "--workers=1", f"--output={tmp_path}/out"])
    assert "vvv.wav  voice" in capsys.readouterr().out
    (rows,) = (tmp_path / "out").glob("%FFvvv*.csv")
    assert f"{tmp_path}/%FFvvv" in rows.read_text()


def test_no_answer_of_before_stands_for_a_file_that_has_none_now(command, tmp_path):
    soundfile.write(tmp_path / "voice.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    assert command("voice.wav", "--output=out", "--workers=1")[0] == 0
    (tmp_path / "voice.wav").write_text("no sound")
    code, _, said = command("voice.wav", "--output=out", "--workers=1")
    assert code == 2
    assert "voice.wav: what was said of it before is removed from out" in said
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("own", ["voice.json", "voice.csv"])
def test_no_answer_takes_the_place_of_somebody_s_own_file(command, tmp_path, own):
    soundfile.write(tmp_path / "voice.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    (tmp_path / own).write_text('{"file": "voice.wav"}')
    code, _, said = command("voice.wav", "--output=.", "--workers=1")
    assert code == 2
    assert f"--output=. has {own}, which is no answer of predict; give another folder" in said
    assert (tmp_path / own).read_text() == '{"file": "voice.wav"}'


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.mp4"], "gone.mp4 does not exist"),
        (["text.mp4"], "text.mp4: cannot be opened"),
        (["text.mp4", "--window=long"], "--window=long; it must be a number of seconds, such as 2.5"),
        (["text.mp4", "--hop=0"], "--hop=0; it must be 0.04 to 30 seconds"),
        (["text.mp4", "--hop=5"], "--hop=5 is above --window=3, so that what lies between two windows would not be"),
        (["text.mp4", "--render"], "--render needs --output=DIR"),
        (["text.mp4", "--render", "--output=."], "--render would write its video over the recording text.mp4"),
        (["text.mp4", "--output=text.mp4"], "--output='text.mp4' cannot be made (it is a file); give another folder"),
        (["text.mp4", "--task=valence"], "--task=valence: the encoder has no head of that name, but of emotion"),
        (["."], ". holds no sound or video file"),
        ([], "the command is `mmpretrain predict CLIP... --encoder=DIR"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_user_gets_wrong_is_one_line(command, arguments, words, tmp_path):
    if "text.mp4" in arguments:
        (tmp_path / "text.mp4").write_text("this is no video\n" * 200)
    code, out, err = command(*arguments)
    assert code == 2
    assert words in err.splitlines()[-1]
    assert not out


@pytest.mark.parametrize("name", ["predict", "serve", "extract"])
def test_an_encoder_that_is_none_or_damaged_or_has_no_head_is_refused(name, encoder_folder, tmp_path, capsys):
    if name == "serve":
        pytest.importorskip("gradio", reason="extra `serve` is not installed")
    soundfile.write(tmp_path / "voice.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    damaged = shutil.copytree(encoder_folder, tmp_path / "damaged")
    weights = bytearray((damaged / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (damaged / "model.safetensors").write_bytes(weights)
    bare = tmp_path / "bare"
    save_encoder(bare, AVEncoder(tiny_model("audio"), rngs=nnx.Rngs(0)), lineage=LINEAGE)
    refused = {
        tmp_path: "is no exported encoder: it has no config.json",
        damaged: "model.safetensors is damaged: it is not what was written",
    } | ({} if name == "extract" else {bare: "the encoder has no head, hence nothing to predict; give one that"})
    for folder, words in refused.items():
        given = {"serve": [folder], "predict": [tmp_path / "voice.wav", f"--encoder={folder}"],
                 "extract": [folder, write_corpus(tmp_path / "corpus", [make_clip("a", 9, size=32)], 32, 48),
                             f"--output={tmp_path}/out"]}[name]  # fmt: skip
        with pytest.raises(SystemExit) as left:
            main([name, *map(str, given)])
        assert left.value.code == 2
        assert words in capsys.readouterr().err.splitlines()[-1]


KINDS = ["sound", "valence", "level", "votes", "tags", "humour", "arousal"]


@pytest.mark.parametrize("task", others_slow(KINDS, "valence", "tags"))
def test_a_head_of_every_kind_is_answered_in_its_own_terms(task, every_head, real, tmp_path, capsys):
    clip, encoder = real / "grid" / "other" / "brbk7n.mpg", load_encoder(every_head)
    options = [f"--encoder={every_head}", f"--landmarker={LANDMARKER}", f"--output={tmp_path}", "--workers=1"]
    main(["predict", str(clip), *options, f"--task={task}", "--render", "--contributions"])
    said = capsys.readouterr().out.splitlines()
    written = json.loads((tmp_path / "brbk7n.json").read_text())
    with open(tmp_path / "brbk7n.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    (config,) = (each for each in encoder.tasks if each.name == task)
    (person,), moments = written["people"], written["people"][0]["moments"]
    assert (written["task"], written["kind"]) == (task, config.kind)
    assert len(rows) == len(moments)
    if config.kind in ("value", "values"):
        assert said[0].split() == ["file", "who", "over", task]
        assert written["range"] == list(config.range)
        assert float(rows[0]["value"]) == moments[0]["value"]
        assert moments[0]["alone"].keys() == {"audio", "video"}
    else:
        assert written["classes"] == list(config.classes)
        found = {moment.get("label") or tuple(moment["labels"]) for moment in moments}
        assert all(set(each if isinstance(each, tuple) else (each,)) <= set(config.classes) for each in found)
        total = sum(moments[0]["probabilities"].values())
        assert (total == pytest.approx(1, abs=1e-3)) is (config.kind != "classes")
    if config.kind in ("frames", "values"):  # each frame once, and none left out
        assert [moment["start_sec"] for moment in moments] == [round(0.04 * t, 2) for t in range(len(moments))]
        assert len(moments) == round(25 * person["to_sec"])
        assert written["smoothing_sec"] == 0
    assert (tmp_path / "brbk7n.mp4").stat().st_size > 10_000


def test_a_head_that_says_nothing_that_can_be_read_is_refused_by_name(every_head, tmp_path, capsys):
    soundfile.write(tmp_path / "voice.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    with pytest.raises(SystemExit):
        main(["predict", str(tmp_path / "voice.wav"), f"--encoder={every_head}", "--task=place"])
    assert "--task=place: its head says where a clip lies among others" in capsys.readouterr().err.splitlines()[-1]
    main(["predict", str(tmp_path / "voice.wav"), f"--encoder={every_head}", "--workers=1"])
    assert "vowel" in capsys.readouterr().out, "the first that says something"
