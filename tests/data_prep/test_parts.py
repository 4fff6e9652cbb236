"""Files longer than a clip are cut at pauses, and nothing of them is lost."""

import csv

import numpy as np
import pytest

from data_prep.__main__ import main
from data_prep.media import audio_samples, open_media
from data_prep.parts import find_spans, pauses
from data_prep.sources import SourceClip
from mmpretrain.records import SAMPLES_PER_FRAME
from tests.data_prep.authored import tone, write_mkv, write_wav
from tests.data_prep.test_preparation import clips_of


def talk(pauses_at: list[float], seconds: float) -> np.ndarray:
    """A tone with silences of 0.4 s in the middle of which are the given times."""
    samples = tone(seconds)
    for at in pauses_at:
        samples[round((at - 0.2) * 16_000) : round((at + 0.2) * 16_000)] = 0
    return samples


def test_cuts_are_in_the_pauses_and_no_part_is_too_long_or_a_crumb():
    cuts = pauses(talk([4, 8, 13, 17], 21.2), 530, 6 * 25)
    np.testing.assert_allclose(np.array(cuts) / 25, [4, 8, 13, 17], atol=0.2)


@pytest.mark.parametrize("num_frames", [151, 160, 200, 299, 301, 10_000])
def test_without_a_pause_parts_are_as_long_as_may_be(num_frames):
    lengths = np.diff([0, *pauses(np.zeros(0, np.int16), num_frames, 150), num_frames])
    assert lengths.max() <= 150
    assert lengths.min() >= 150 // 4
    assert len(lengths) <= -(-num_frames // 75)


def test_parts_of_a_file_add_up_to_the_whole(tmp_path):
    audio = np.random.default_rng(0).integers(-9000, 9000, 16_000 * 16, np.int16)
    path = write_mkv(tmp_path / "talk.mkv", [1600 * i for i in range(10)], audio)
    seconds, spans = find_spans(SourceClip("talk", path), 6)
    assert seconds == 16
    whole = audio_samples(open_media(path))
    parts = [audio_samples(open_media(path, start, end)) for start, end in spans]
    assert max(map(len, parts)) <= 6 * 16_000
    assert all(len(part) % SAMPLES_PER_FRAME == 0 for part in parts[:-1])
    # Resampling begins anew in each part; at this rate it changes nothing.
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_long_file_becomes_clips_and_every_row_says_so(tmp_path, capsys):
    write_wav(tmp_path / "raw" / "long.wav", talk([4, 8.5], 14))
    write_wav(tmp_path / "raw" / "short.wav", tone(3))
    write_wav(tmp_path / "raw" / "part.wav", tone(30))
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "path,text,emotion,start_sec,end_sec\nlong.wav,many words,sad,,\nshort.wav,few words,,,\npart.wav,,,10,14\n"
    )
    command = ["folder", "--source", str(tmp_path / "raw"), "--manifest", str(manifest), "--output",
               str(tmp_path / "out"), "--max-clip-sec", "6", "--workers", "1", "--validation-share", "0"]  # fmt: skip
    assert main(command) == 0
    assert "1 long files are cut" in capsys.readouterr().out
    with open(tmp_path / "out" / "report.csv", newline="") as file:
        rows = {row["clip_id"]: row for row in csv.DictReader(file)}
    assert rows["long"]["status"] == "cut"
    assert "3 parts, long-part01 to long-part03" in rows["long"]["notes"]
    parts = [f"long-part{n:02d}" for n in (1, 2, 3)]
    assert sorted(rows) == sorted(["long", *parts, "short", "part"])
    assert sum(int(rows[part]["frames"]) for part in parts) == 14 * 25
    assert "part 2 of 3 of long (from 4.04 s), without its text" in rows[parts[1]]["notes"]
    clips = {clip.clip_id: clip for clip in clips_of(tmp_path / "out")}
    assert clips["short"].labels["text"] == "few words"
    assert {clips[part].labels.get("text", "") for part in parts} == {""}
    assert {clips[part].labels["emotion"] for part in parts} == {"sad"}
    assert clips["part"].num_frames == 100
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_length_that_no_record_can_hold_is_refused(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    write_wav(tmp_path / "raw" / "a.wav", tone(1))
    command = ["folder", "--source", str(tmp_path / "raw"), "--output", str(tmp_path / "out"), "--max-clip-sec"]
    for value in ("0", "nan", "1e9", "-3"):
        assert main([*command, value]) == 2
        assert "--max-clip-sec" in capsys.readouterr().err
