"""Whose fault it was, seen from the command: a row of the report, one line, or the same command once more."""

import errno
import json
import os
import resource
import signal
import struct
from pathlib import Path

import numpy as np
import pytest

from data_prep import landmark_cache, media, memory, preparation
from mmpretrain import records
from tests.data_prep.authored import RATE, tone, write_mkv, write_mp4, write_wav
from tests.data_prep.test_preparation import prepare_folder, report_of
from tests.data_prep.test_real_clips import MODEL, SHARED
from tests.slow import others_slow

CASES = SHARED / "data" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir() or not MODEL.is_file(), reason=f"no cases or model under {SHARED}")


@needs_cases
def test_no_file_ends_the_preparation(tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    for case in (CASES / "fuzz").iterdir():
        (source / case.name).symlink_to(case)
    write_wav(source / "good.wav", tone(1.0))
    assert prepare_folder(source, tmp_path / "out", "--landmarker", MODEL) == 0
    rows = report_of(tmp_path / "out")
    assert len(rows) == 4
    assert rows["good"]["status"] == "kept"
    assert rows["pasp_2e9"]["status"] == "refused"
    assert "pixels are 2.15e+09 times as wide" in rows["pasp_2e9"]["reason"]
    assert (rows["media-1429"]["status"], rows["media-1429"]["notes"]) == (
        "kept",
        "no face found; 0.1 s are missing within the sound and are silence; 8 damaged packets passed over; "
        "kept as sound only",
    )  # fmt: skip
    assert rows["all_video_packets_broken"]["status"] == "kept"
    assert "no picture could be decoded" in rows["all_video_packets_broken"]["notes"]
    assert "kept as sound only" in rows["all_video_packets_broken"]["notes"]


def test_a_full_disk_is_one_line_and_the_command_goes_on_when_there_is_room(tmp_path, capsys):
    draw = np.random.default_rng(0)
    for k in range(3):
        write_wav(tmp_path / "in" / f"{k}.wav", draw.integers(-3000, 3000, 10 * RATE).astype(np.int16))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))  # a disk on which no file is larger
    try:
        assert prepare_folder(tmp_path / "in", tmp_path / "out") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "File too large; writing" in error
    assert prepare_folder(tmp_path / "in", tmp_path / "out") == 0


class Scarce:
    """`inspect_clip` on a machine that fails for the clip `bad` as long as the file `scarce` is there."""

    def __init__(self, scarce: Path, how: str):
        self.scarce, self.how = scarce, how

    def __call__(self, clip, **settings):
        if clip.clip_id == "bad" and self.scarce.exists():
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            media.open_media = self.open_media
        return landmark_cache.inspect_clip(clip, **settings)

    def open_media(self, *_):
        if self.how == "files":
            raise OSError(errno.EMFILE, "too many open files")
        assert [np.ones(2**23) for _ in range(2**20)]  # 64 MiB each


@pytest.mark.multiprocess
@pytest.mark.parametrize("how", others_slow(["kill", "memory", "files"], "kill"))
def test_what_failed_for_want_of_the_machine_is_tried_again_by_the_same_command(tmp_path, capsys, monkeypatch, how):
    source, output, scarce = tmp_path / "in", tmp_path / "out", tmp_path / "scarce"
    for name in ("bad", "good", "well"):
        write_wav(source / f"{name}.wav", tone(1.0, hz=300 + len(name)))
    monkeypatch.setattr(preparation, "inspect_clip", Scarce(scarce, how))
    monkeypatch.setattr(memory, "share_bytes", lambda _: 2**29)
    scarce.touch()
    command = source, output, "--validation-share", 0
    assert prepare_folder(*command) == 0
    rows = report_of(output)
    assert [rows[name]["status"] for name in ("bad", "good", "well")] == ["refused", "kept", "kept"]
    assert {"kill": "was killed", "memory": "not enough memory", "files": "open files"}[how] in rows["bad"]["reason"]
    assert rows["bad"]["again"] == "1"
    told = capsys.readouterr().out
    assert "1 clips failed for want of memory or the like, not for what they are: bad" in told
    assert "the same command tries them again" in told
    written = (output / records.CORPUS_FILE).stat().st_mtime_ns

    assert prepare_folder(*command) == 0  # it is as scarce as before
    assert "none of them goes better now" in capsys.readouterr().out
    assert (output / records.CORPUS_FILE).stat().st_mtime_ns == written

    scarce.unlink()
    assert prepare_folder(*command) == 0
    assert "looked at 3 clips, 2 of them known" in capsys.readouterr().out
    assert [row["status"] for row in report_of(output).values()] == ["kept"] * 3
    assert json.loads((output / records.CORPUS_FILE).read_text())["splits"]["train"]["clips"] == 3
    assert prepare_folder(*command) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_picture_is_not_taken_for_lost_when_there_was_no_memory_to_decode_it(tmp_path, monkeypatch):
    """The codec says ENOMEM of a packet; a broken packet is passed over, this one is not."""
    opened = media.open_media(write_mp4(tmp_path / "a.mp4"))

    def no_memory(*_):
        raise media.container.av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory")

    class Stream:
        index, codec_context, decode = 0, type("Context", (), {})(), staticmethod(no_memory)

    monkeypatch.setattr(media.container, "packets_of", lambda *_: iter([None]))
    with pytest.raises(MemoryError):
        list(media.container.decode(None, Stream(), opened))
    assert opened.damaged == 0


def test_a_source_that_cannot_be_read_now_is_not_remembered_as_broken(tmp_path):
    write_wav(tmp_path / "a.wav", tone(1.0))
    clip = preparation.SourceClip("a", tmp_path / "gone.wav")
    found = landmark_cache.inspect_clip(clip, cache_dir=tmp_path / "cache", model=None, model_hash="")
    assert (found.again, found.error) == (True, "No such file or directory")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("rate", [2_000_000_000, 3])
def test_sound_beyond_all_bounds_is_refused_before_it_is_decoded(tmp_path, rate):
    path = write_wav(tmp_path / "a.wav", tone(1.0))
    content = bytearray(path.read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"its sound has {rate} samples a second"):
        media.open_media(path)


def test_a_picture_beyond_all_bounds_is_refused_before_it_is_decoded(tmp_path):
    path = write_mkv(tmp_path / "a.avi", [40 * k for k in range(5)])
    size, huge = (struct.pack("<iiH", *sides, 1) for sides in ((64, 48), (16000, 16000)))
    assert size in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(size, huge))
    with pytest.raises(ValueError, match="picture is too large: 16000 x 16000"):
        media.open_media(path)


def test_sound_that_begins_hours_late_takes_no_memory_for_the_hours(tmp_path):
    path = write_mkv(tmp_path / "late.mkv", [40 * k for k in range(25)], tone(1.0), audio_from_ms=36_000_000)
    opened = media.open_media(path)
    with pytest.raises(ValueError, match=r"goes on 10\.0 h after its beginning"):
        media.audio_samples(opened)


def test_a_clip_too_large_for_a_record_is_a_row(tmp_path, monkeypatch, capsys):
    write_wav(tmp_path / "in" / "long.wav", tone(9.0))
    write_wav(tmp_path / "in" / "short.wav", tone(1.0))
    monkeypatch.setattr("data_prep.shards.make_clip", small_records)
    assert prepare_folder(tmp_path / "in", tmp_path / "out") == 0
    rows = report_of(tmp_path / "out")
    assert rows["short"]["status"] == "kept"
    assert rows["long"]["status"] == "refused"
    assert "too large for a record" in rows["long"]["reason"]


def small_records(task):
    from data_prep import processing

    processing.MAX_RECORD_BYTES = 100_000
    return processing.make_clip(task)


@needs_cases
@pytest.mark.slow
def test_a_lecture_is_cut_and_the_short_clip_beside_it_prepared(tmp_path):
    assert prepare_folder(CASES / "long", tmp_path / "out", "--landmarker", MODEL) == 0
    rows = report_of(tmp_path / "out")
    assert rows["short"]["status"] == "kept"
    assert rows["lecture66min"]["status"] == "cut"
    assert all(row["reason"] for row in rows.values() if row["status"] == "refused")
