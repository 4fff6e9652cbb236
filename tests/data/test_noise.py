"""The folder of noise is looked into before the first step, and whatever is in it is used or named."""

import os
import wave
from pathlib import Path

import numpy as np
import pytest

from mmpretrain.config import NoiseConfig
from mmpretrain.data.noise import check_noise, noise_files
from mmpretrain.run.run import Run
from mmpretrain.stages.finetune import finetune
from mmpretrain.stages.refine import refine
from tests.tiny import tiny_run

CASES = Path(os.environ.get("MMPRETRAIN_SHARED_DIR", Path(__file__).parents[2].parent / "shared")) / "data" / "cases"


def write(path: Path, num_samples: int = 8000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.arange(num_samples).astype("<i2").tobytes())
    return path


def test_noise_is_found_by_any_name_and_hidden_files_are_left_out(tmp_path, monkeypatch):
    write(tmp_path / "n" / "12:30.wav")
    write(tmp_path / "n" / os.fsdecode(b"caf\xe9.WAV"))
    write(tmp_path / "elsewhere" / "more.wav")
    (tmp_path / "n" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "n" / "._babble.wav").write_bytes(b"\0\5\x16\7")
    monkeypatch.chdir(tmp_path / "n")
    assert [Path(file).name for file in noise_files(".")] == ["12:30.wav", os.fsdecode(b"caf\xe9.WAV"), "more.wav"]
    assert check_noise(".") == pytest.approx(1.5)


def test_the_resource_forks_of_a_mac_are_passed_over():
    if not CASES.is_dir():
        pytest.skip(f"no cases under {CASES}; set MMPRETRAIN_SHARED_DIR")
    assert (CASES / "noise_mac" / "._babble.wav").is_file()
    assert check_noise(str(CASES / "noise_mac")) == pytest.approx(2, abs=0.1)


def test_every_noise_file_that_cannot_be_used_is_named(tmp_path):
    good = write(tmp_path / "good.wav")
    whole = good.read_bytes()
    (tmp_path / "text.wav").write_bytes(b"<html>404</html>")
    (tmp_path / "empty.mp3").write_bytes(b"")
    write(tmp_path / "silent_for_ever.wav", 0)
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    # float samples, of which one is no number
    floats = np.zeros(100, "<f4")
    floats[7] = np.nan
    header = bytearray(whole[:44])
    header[20:22], header[28:32], header[32:36] = b"\3\0", (64_000).to_bytes(4, "little"), b"\4\0\x20\0"
    header[40:44] = (400).to_bytes(4, "little")
    (tmp_path / "nan.wav").write_bytes(bytes(header) + floats.tobytes())
    with pytest.raises(ValueError, match=r"data\.noise\.path=.*5 of its 6 sound files cannot be used") as refusal:
        check_noise(str(tmp_path))
    said = str(refusal.value)
    assert "text.wav cannot be decoded: Invalid data" in said
    assert "empty.mp3 cannot be decoded" in said
    assert "silent_for_ever.wav has no sound" in said
    assert "gone.wav cannot be decoded: No such file" in said
    assert "nan.wav has samples that are no numbers" in said
    assert "good.wav" not in said


@pytest.mark.parametrize("stage", [refine, finetune])
def test_noise_is_read_before_anything_is_made(tmp_path, stage, monkeypatch):
    from tests.downstream.test_what_can_be_learned import corpus_of, run_of

    write(tmp_path / "noise" / "good.wav")
    (tmp_path / "noise" / "bad.wav").write_bytes(b"no sound")
    if stage is refine:
        run = Run(tiny_run(workdir=str(tmp_path / "run")))
    else:
        run = run_of(tmp_path, corpus_of(tmp_path), "happy", "sad", accept_seen_labels=True)
    run.config.data.noise = NoiseConfig(prob=0.01, path=str(tmp_path / "noise"))
    with pytest.raises(ValueError, match=r"1 of its 2 sound files cannot be used: .*bad\.wav cannot be decoded"):
        stage(run)
    assert not list((tmp_path / "run").rglob("metrics.jsonl"))
    assert not list((tmp_path / "run").rglob("targets"))
