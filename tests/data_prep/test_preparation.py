"""The command: what it leaves behind, what it refuses, and that it can be killed at any point."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep import preparation
from data_prep.__main__ import main
from mmpretrain import records
from mmpretrain.config import CorpusConfig
from mmpretrain.data.clips import open_clips
from mmpretrain.index import read_index
from tests.data_prep.authored import RATE, tone, write_mp4, write_wav
from tests.slow import others_slow

ROOT = Path(__file__).parents[2]


def prepare_folder(source, output, *more) -> int:
    return main(["folder", "--source", str(source), "--output", str(output), "--workers", "1", *map(str, more)])


def report_of(output) -> dict[str, dict[str, str]]:
    with open(output / "report.csv", newline="") as file:
        return {row["clip_id"]: row for row in csv.DictReader(file)}


def clips_of(output, split="train") -> list[records.Clip]:
    table = open_clips([CorpusConfig(str(output))], [split])
    return [table.load(row) for row in range(len(table))]


@pytest.fixture
def sounds(tmp_path) -> Path:
    """A folder with three good sounds, a silent one, a short one and one that is no sound at all."""
    source = tmp_path / "sounds"
    for k in range(3):
        write_wav(source / f"good{k}.wav", tone(0.6 + 0.1 * k, hz=200 + 100 * k))
    write_wav(source / "silent.wav", np.zeros(RATE, np.int16))
    write_wav(source / "short.wav", tone(0.15))
    (source / "broken.wav").write_bytes(b"this is no sound")
    return source


def test_every_file_is_accounted_for_and_the_good_ones_are_written(sounds, tmp_path, capsys):
    output = tmp_path / "out"
    assert prepare_folder(sounds, output, "--validation-share", 0) == 0
    rows = report_of(output)
    assert {name: row["status"] for name, row in rows.items()} == {
        "good0": "kept", "good1": "kept", "good2": "kept",
        "silent": "refused", "short": "refused", "broken": "refused",
    }  # fmt: skip
    assert "silent" in rows["silent"]["reason"]
    assert "shorter than 5 frames" in rows["short"]["reason"]
    assert "cannot be opened" in rows["broken"]["reason"]
    clips = clips_of(output)
    index = read_index(output, "train")
    schema = records.read_schema(output)
    rows = [index.row(i) for i in range(len(index))]
    assert [records.IndexRow.of(clip, schema) for clip in clips] == rows
    corpus = json.loads((output / records.CORPUS_FILE).read_text())
    assert corpus["fingerprint"] == index.fingerprint()
    assert corpus["splits"] == {"train": {"clips": 3, "frames": 15 + 18 + 20, "hours": pytest.approx(0.0006, abs=1e-4)}}
    assert (schema.mouth_size, schema.face_size, schema.labels) == (96, 112, {"emotion": "class", "text": "text"})
    assert {row.has for row in rows} == {("audio",)}
    good = next(clip for clip in clips if clip.clip_id == "good1")
    np.testing.assert_array_equal(good.audio, tone(0.7, hz=300))
    assert good.mouth.shape == (0, 96, 96)
    out = capsys.readouterr().out
    assert "kept 3 of 6 clips" in out
    assert "the audio track is silent" in out


def test_a_second_run_has_nothing_to_do_and_other_arguments_are_refused(sounds, tmp_path, capsys):
    output = tmp_path / "out"
    assert prepare_folder(sounds, output) == 0
    written = (output / records.CORPUS_FILE).stat().st_mtime_ns
    assert prepare_folder(sounds, output) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert prepare_folder(sounds, output, "--mouth-size", 48) == 2
    message = capsys.readouterr().err
    assert "mouth_size was 96, now 48" in message
    assert "--overwrite" in message
    write_wav(sounds / "new.wav", tone(1.0))
    assert prepare_folder(sounds, output) == 2
    assert "num_clips was 6, now 7" in capsys.readouterr().err
    assert (output / records.CORPUS_FILE).stat().st_mtime_ns == written
    assert prepare_folder(sounds, output, "--mouth-size", 48, "--overwrite") == 0
    assert "looked at 7 clips, 6 of them known" in capsys.readouterr().out
    assert json.loads((output / records.CORPUS_FILE).read_text())["schema"]["mouth_size"] == 48


def test_labels_and_speakers_are_in_the_fingerprint_of_a_corpus(sounds, tmp_path):
    prints = []
    for number, (speaker, emotion) in enumerate([("A", "happy"), ("A", "happy"), ("B", "happy"), ("A", "sad")]):
        manifest = tmp_path / f"{number}.csv"
        rows = [f"good{k}.wav,{speaker}{k},{emotion},train" for k in range(3)]
        manifest.write_text("\n".join(["path,speaker,emotion,split", *rows]) + "\n")
        assert prepare_folder(sounds, tmp_path / f"out{number}", "--manifest", manifest) == 0
        prints.append(json.loads((tmp_path / f"out{number}" / records.CORPUS_FILE).read_text())["fingerprint"])
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_a_corpus_of_older_records_is_prepared_again_only_when_asked(sounds, tmp_path, capsys):
    output = tmp_path / "out"
    prepare_folder(sounds, output)
    request = json.loads((output / "preparation.json").read_text())
    del request["record_version"]  # as in the first version
    (output / "preparation.json").write_text(json.dumps(request))
    capsys.readouterr()
    assert prepare_folder(sounds, output) == 2
    assert f"record_version was None, now {records.DATASET_VERSION}" in capsys.readouterr().err
    assert prepare_folder(sounds, output, "--overwrite") == 0


def test_a_changed_file_is_looked_at_again(sounds, tmp_path, capsys):
    output = tmp_path / "out"
    prepare_folder(sounds, output)
    content = bytearray((sounds / "good1.wav").read_bytes())
    content[-2:] = b"\x00\x11"  # as long as before
    (sounds / "good1.wav").write_bytes(content)
    assert prepare_folder(sounds, output) == 2
    assert prepare_folder(sounds, output, "--overwrite") == 0
    assert "looked at 6 clips, 5 of them known" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mouth-size", "4"], "--mouth-size 4"),
        (["--validation-share", "1.5"], "--validation-share 1.5"),
        (["--min-face-rate", "2"], "--min-face-rate 2"),
        (["--workers", "0"], "--workers 0"),
        (["--manifest", "nowhere.csv"], "nowhere.csv"),
        (["--landmarker", "nowhere.task"], "nowhere.task"),
        (["--source", "nowhere"], "nowhere"),
        (["--manifest", "{tmp}/in"], "--manifest {tmp}/in is a folder; give a CSV with a column `path`"),
        (["--output", "{tmp}/x/../in/"], "--output {tmp}/x/../in is --source itself; give another folder"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(tmp_path, capsys, arguments, message):
    write_mp4(tmp_path / "in" / "a.mp4")
    arguments, message = (
        [word.replace("{tmp}", str(tmp_path)) for word in arguments],
        message.replace("{tmp}", str(tmp_path)),
    )
    code = main(["folder", "--source", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *arguments])
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out" / records.CORPUS_FILE).exists()


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("sounds/good1.wav", "it is no folder"),
        ("sounds/good1.wav/x", "Not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_an_output_that_cannot_be_made_is_one_line(sounds, tmp_path, capsys, output, reason):
    assert prepare_folder(sounds, tmp_path / output) == 2
    said = f"--output {tmp_path / output} cannot be made ({reason}); give another folder\n"
    assert capsys.readouterr().err.endswith(said)


def test_a_disk_that_is_full_at_the_beginning_is_one_line(sounds, tmp_path, capsys, monkeypatch):
    def full(lease):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "leases")

    monkeypatch.setattr(preparation.Lease, "__enter__", full)
    assert prepare_folder(sounds, tmp_path / "out") == 2
    said = f"--output {tmp_path / 'out'} cannot be made (No space left on device); give another folder\n"
    assert capsys.readouterr().err.endswith(said)


def test_a_folder_without_clips_and_one_without_good_clips_are_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert prepare_folder(tmp_path / "empty", tmp_path / "out1") == 2
    assert "no clips found" in capsys.readouterr().err
    write_wav(tmp_path / "bad" / "short.wav", tone(0.1))
    assert prepare_folder(tmp_path / "bad", tmp_path / "out2") == 2
    assert "none of the 1 clips can be kept" in capsys.readouterr().err
    assert report_of(tmp_path / "out2")["short"]["status"] == "refused"
    assert not (tmp_path / "out2" / records.CORPUS_FILE).exists()


def test_a_dataset_of_somebody_else_is_left_alone(sounds, tmp_path, capsys):
    other = tmp_path / "out" / records.DATASET_NAME / "precious"
    other.mkdir(parents=True)
    assert prepare_folder(sounds, tmp_path / "out", "--overwrite") == 2
    assert "another" in capsys.readouterr().err
    assert other.exists()


def test_synthetic_clips_are_the_same_every_time(tmp_path, capsys):
    fingerprints = []
    for name in ("a", "b"):
        arguments = ["--clips", "6", "--seed", "3", "--mouth-size", "48", "--face-size", "56"]
        assert main(["synthetic", "--output", str(tmp_path / name), *arguments]) == 0
        fingerprints.append(json.loads((tmp_path / name / records.CORPUS_FILE).read_text())["fingerprint"])
    assert fingerprints[0] == fingerprints[1]
    clip = clips_of(tmp_path / "a")[0]
    assert clip.mouth.shape == (clip.num_frames, 48, 48)
    assert clip.face.shape == (clip.num_frames, 56, 56)
    assert len(clip.tracks["units"]) == clip.num_frames
    assert len(clip.audio) == 640 * clip.num_frames
    assert clip.labels["emotion"]
    assert clip.info
    assert main(["synthetic", "--output", str(tmp_path / "c"), "--clips", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def start(source, output) -> subprocess.Popen:
    command = [sys.executable, "-m", "data_prep", "folder", "--source", source, "--output", output, "--workers", "1"]
    return subprocess.Popen([*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def many_sounds(tmp_path_factory) -> tuple[Path, str]:
    """A folder of sounds and the fingerprint of the corpus that an undisturbed run makes of it."""
    source, output = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("straight")
    for k in range(20):
        write_wav(source / f"{k:02d}.wav", tone(6.0, 48_000, hz=200 + k), 48_000)
    assert prepare_folder(source, output) == 0
    return source, json.loads((output / records.CORPUS_FILE).read_text())["fingerprint"]


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("files", "at_least"),
    others_slow(
        [("cache/landmarks/*/*.npz", 5), (f"{records.DATASET_NAME}/*incomplete*/*", 1)],
        (f"{records.DATASET_NAME}/*incomplete*/*", 1),
    ),
)
def test_a_killed_run_goes_on_where_it_was(many_sounds, tmp_path, files, at_least):
    source, fingerprint = many_sounds
    process = start(source, tmp_path)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob(files))) < at_least:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / records.CORPUS_FILE).exists()
    looked_at = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cache/landmarks/*/*.npz")}
    resumed = start(source, tmp_path)
    out, err = resumed.communicate(timeout=120)
    assert (resumed.returncode, err) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in looked_at} == looked_at
    assert int(out.partition("looked at 20 clips, ")[2].split()[0]) >= len(looked_at) >= 5
    assert not list((tmp_path / records.DATASET_NAME).glob("*incomplete*"))
    assert json.loads((tmp_path / records.CORPUS_FILE).read_text())["fingerprint"] == fingerprint


def test_a_corpus_of_many_shards_keeps_its_order_and_its_index(tmp_path, monkeypatch):
    """Beyond 1 GB TFDS' own order would need TensorFlow: a corpus is written shard by shard instead."""
    monkeypatch.setattr(preparation, "SHARD_BYTES", 3e6)
    output = tmp_path / "out"
    command = ["synthetic", "--output", str(output), "--clips", "40", "--mouth-size", "32", "--face-size", "32"]
    assert main(command) == 0
    shards = sorted(path.name for path in records.dataset_dir(output).glob("mouth-train*array_record*"))
    assert len(shards) > 3
    clips, index = clips_of(output), read_index(output, "train")
    schema = records.read_schema(output)
    assert [records.IndexRow.of(clip, schema) for clip in clips] == [index.row(i) for i in range(len(index))]


def test_the_same_sound_under_two_names_is_noted_and_warned_of(tmp_path, capsys):
    source = tmp_path / "source"
    for name in ("a", "again", "b", "c", "b2", "b3"):
        write_wav(source / f"{name}.wav", tone(0.4, hz=300 + 100 * ord(name[0])))
    (tmp_path / "m.csv").write_text(
        "path,speaker,emotion,split\na.wav,anna,happy,train\nagain.wav,anna,sad,test\nb.wav,ben,sad,train\n"
        "b2.wav,ben,sad,train\nb3.wav,ben,sad,train\nc.wav,ben,sad,test\n"
    )
    write_wav(source / "again.wav", tone(0.4, hz=300 + 100 * ord("a")))
    assert prepare_folder(source, tmp_path / "out", "--manifest", tmp_path / "m.csv") == 0
    notes = {clip_id: row["notes"] for clip_id, row in report_of(tmp_path / "out").items()}
    assert notes == {
        "a": "has the content of again", "again": "has the content of a", "c": "",
        "b": "has the content of b2 and of 1 more", "b2": "has the content of b and of 1 more",
        "b3": "has the content of b and of 1 more",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "warning: 5 clips have the content of another clip\n" in printed
    told = "a (train, anna, happy) = again (test, anna, sad)\n"
    assert (
        "warning: of one content, but in several splits (1), so that what is tested or validated on is trained on as "
        f"well: {told}" in printed
    )
    assert f"warning: of one content, but with several labels or speakers (1): {told}" in printed
