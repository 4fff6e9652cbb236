"""What a voice becomes on its way in: of which track and channels, in which range and length; what is said of it."""

import csv
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from data_prep import media
from data_prep.accounting import row_of
from data_prep.inspection import FaceFacts, Inspection, PictureFacts, SoundFacts
from data_prep.landmark_cache import inspect_clip
from data_prep.options import Options
from data_prep.sources import SourceClip
from tests.data_prep.authored import RATE, tone, write_mkv, write_wav
from tests.data_prep.test_preparation import clips_of, prepare_folder, report_of
from tests.data_prep.test_real_clips import MODEL, SHARED

CASES = SHARED / "data" / "cases"
FULL = 32_768


def voice(seconds: float = 2.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Float [N] in full scale 1: syllables of a hum with overtones, with pauses of faint noise."""
    rng = np.random.default_rng(seed)
    at = np.arange(int(seconds * rate)) / rate
    hum = sum(np.sin(2 * np.pi * 140 * k * at + rng.uniform(0, 6)) / k for k in range(1, 12))
    return 0.2 * hum * np.clip(np.sin(2 * np.pi * 1.5 * at), 0, 1) + rng.normal(0, 1e-3, len(at))


def write(path: Path, *tracks: np.ndarray, codec="pcm_f32le", rate=RATE, layout="", default=(), stamps=None) -> Path:
    """Tracks of float [N] or [N, channels] beside each other; default: numbers of those that are flagged.

    stamps: of each 20 ms of the first track, in milliseconds.
    """
    with av.open(str(path), "w") as container:
        for number, samples in enumerate(tracks):
            samples = samples.reshape(len(samples), -1).astype(np.float32)
            channels = layout or f"{samples.shape[1]} channels"
            stream = container.add_stream(codec, rate=rate, layout=channels)
            stream.disposition = Disposition.default.value if number in default else 0
        packets = []
        for stream, samples in zip(container.streams.audio, tracks, strict=True):
            samples = samples.reshape(len(samples), -1).astype(np.float32)
            convert = av.AudioResampler(
                stream.codec_context.format.name, layout or f"{samples.shape[1]} channels", rate
            )
            for k, start in enumerate(range(0, len(samples), rate // 50)):
                piece = np.ascontiguousarray(samples[start : start + rate // 50]).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(piece, "flt", layout or f"{samples.shape[1]} channels")
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = stamps[k] * rate // 1000 if stamps else start
                for converted in convert.resample(frame):
                    packets += stream.encode(converted)
            packets += stream.encode()
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def heard(path: Path, *part: float) -> tuple[np.ndarray, str]:
    """The sound, float [N] in full scale 1, and what is said about it."""
    opened = media.open_media(path, *part)
    return media.audio_samples(opened) / FULL, "; ".join(opened.sound_notes)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    length = min(len(a), len(b))
    assert abs(len(a) - len(b)) < 0.1 * RATE
    return float(np.corrcoef(a[:length], b[:length])[0, 1])


@pytest.mark.parametrize(
    ("default", "silent", "taken", "why"),
    [
        ((1,), (), 1, "track 2 of 3 is taken, the default one"),
        ((0,), (0,), 2, "track 3 of 3 is taken, the loudest, since the default one is silent"),
        ((), (), 2, "track 3 of 3 is taken, the loudest"),
        ((0, 1), (), 1, "track 2 of 3 is taken, the loudest"),
        ((1,), (1, 2), 0, "track 1 of 3 is taken, the loudest, since the default one is silent"),
    ],
)
def test_the_default_track_is_taken_or_else_the_loudest(tmp_path, default, silent, taken, why):
    voices = [gain * voice(seed=k) for k, gain in enumerate((0.2, 0.5, 1.0))]
    tracks = [0 * track if k in silent else track for k, track in enumerate(voices)]
    audio, notes = heard(write(tmp_path / "tracks.mkv", *tracks, default=default))
    assert likeness(audio, voices[taken]) > 0.99
    assert why in notes


@pytest.mark.parametrize(
    "codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_s64le"]
)
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16_000, 1), (44_100, 2), (48_000, 1)])
def test_any_kind_of_number_and_rate_is_read_at_its_level(tmp_path, codec, rate, channels):
    samples = np.repeat(voice(rate=rate)[:, None], channels, axis=1)
    audio, notes = heard(write(tmp_path / "a.wav", samples, codec=codec, rate=rate))
    assert likeness(audio, voice()) > 0.98
    assert audio.std() == pytest.approx(voice().std(), rel=0.05)
    assert notes == ""


SPOILT = {"nan": np.nan, "inf": -np.inf, "huge": 3e38, "rubbish": 1e6, "integers": 20_000.0}


@pytest.mark.parametrize("kind", SPOILT)
@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_f64le"])
def test_what_is_no_sample_is_silence_and_the_rest_is_as_it_was(tmp_path, kind, codec):
    samples = voice()
    noise = np.random.default_rng(0).choice([-1, 1], 4000)
    samples[8000:12_000] = noise * SPOILT[kind]
    audio, notes = heard(write(tmp_path / "a.wav", samples, codec=codec))
    assert "4000 of 32000 samples are no numbers or far out of range" in notes
    assert not audio[8000:12_000].any()
    samples[8000:12_000] = 0
    np.testing.assert_allclose(audio, samples, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("bits", [16, 24, 32])
def test_floats_that_are_integers_are_scaled(tmp_path, bits, channels):
    samples = np.repeat(voice()[:, None], channels, axis=1)
    samples[100:105] = np.nan
    audio, notes = heard(write(tmp_path / "a.wav", np.round(samples * 2.0 ** (bits - 1))))
    assert f"in the range of {bits}-bit integers" in notes
    np.testing.assert_allclose(audio[200:], samples[200:, 0], atol=1e-4)


@pytest.mark.parametrize(
    ("gain", "scaled", "said"),
    [(1, 1, ""), (3, 1, "% of the samples are over full scale and clipped"), (6, 4, "4 times"), (40, 32, "32 times")],
)
def test_loud_masters_are_clipped_and_louder_ones_scaled(tmp_path, gain, scaled, said):
    samples = gain * voice()
    audio, notes = heard(write(tmp_path / "a.wav", samples))
    np.testing.assert_allclose(audio, np.clip(samples / scaled, -1, 1), atol=1e-4)
    assert said in notes
    assert bool(notes) == bool(said)


def test_a_wild_sample_does_not_decide_how_loud_a_voice_is(tmp_path):
    samples = voice()
    samples[5000] = 3e4
    audio, notes = heard(write(tmp_path / "a.wav", samples))
    samples[5000] = 0
    np.testing.assert_allclose(audio, samples, atol=1e-4)
    assert "1 of 32000 samples" in notes


def test_channels_that_cancel_leave_the_louder_one(tmp_path):
    left = voice()
    inverse = np.stack([0.5 * left, -0.6 * left], axis=1)
    audio, notes = heard(write(tmp_path / "inverse.wav", inverse, codec="pcm_s16le"))
    assert "the channels cancel each other: channel 2 of 2 is taken" in notes
    np.testing.assert_allclose(audio, -0.6 * left, atol=1e-4)
    # Also where it is so for a while only, and where something that both have does not cancel.
    for_a_while = np.stack([left, left], axis=1)
    for_a_while[16_000:, 1] *= -1
    audio, notes = heard(write(tmp_path / "while.wav", for_a_while + 0.3, codec="pcm_s16le"))
    assert "cancel" in notes
    assert likeness(audio, left) > 0.99


def test_channels_that_do_not_cancel_are_mixed(tmp_path):
    stereo = np.stack([voice(seed=0), voice(seed=1)], axis=1)
    audio, notes = heard(write(tmp_path / "a.wav", stereo, codec="pcm_s16le", layout="stereo"))
    np.testing.assert_allclose(audio, stereo.mean(axis=1), atol=1e-4)
    assert notes == ""


@pytest.mark.parametrize(
    ("name", "codec", "layout", "channels"),
    [
        ("plain.wav", "pcm_s16le", "", 6), ("said.wav", "pcm_s16le", "5.1", 6), ("a.flac", "flac", "5.1", 6),
        ("three.wav", "pcm_s16le", "", 3), ("ten.wav", "pcm_s16le", "", 10), ("eight.flac", "flac", "7.1", 8),
    ],
)  # fmt: skip
def test_no_microphone_is_lost(tmp_path, name, codec, layout, channels):
    for channel in range(channels):
        array = np.zeros((2 * RATE, channels))
        array[:, channel] = voice()
        audio, _ = heard(write(tmp_path / name, array, codec=codec, layout=layout))
        assert likeness(audio, voice()) > 0.9
        assert audio.std() > 0.09 * voice().std()


def test_eight_channels_in_planes_are_read(tmp_path):
    eight = np.repeat(voice()[:, None], 8, axis=1)  # of which the coder makes the fourth a subwoofer's
    audio, _ = heard(write(tmp_path / "a.mka", eight, codec="aac", layout="7.1"))
    assert audio.std() == pytest.approx(voice().std(), rel=0.1)


def test_what_a_subwoofer_plays_is_left_out_and_what_a_microphone_hears_is_said(tmp_path):
    surround = np.zeros((2 * RATE, 6))
    surround[:, 2] = voice()
    surround[:, 3] = 0.5 * np.sin(2 * np.pi * 60 * np.arange(2 * RATE) / RATE)
    audio, notes = heard(write(tmp_path / "film.flac", surround, codec="flac", layout="5.1"))
    assert likeness(audio, voice()) > 0.999
    assert notes == ""
    surround[:, 3] = voice(seed=1)
    audio, notes = heard(write(tmp_path / "array.flac", surround, codec="flac", layout="5.1"))
    np.testing.assert_allclose(audio, surround.mean(axis=1), atol=1e-4)
    assert "channel 4 (LFE) holds more than bass: all channels count alike" in notes


@pytest.mark.parametrize("step_ms", [20, -10])
def test_small_holes_do_not_add_up(tmp_path, step_ms):
    pieces, samples = 100, np.zeros(100 * 320)
    samples[160::320] = 0.5  # an impulse in the middle of each piece
    stamps = [20 * k + step_ms * (k // 2) for k in range(pieces)]
    audio, notes = heard(write(tmp_path / "holes.mka", samples, codec="pcm_s16le", stamps=stamps))
    at_ms = np.flatnonzero(audio > 0.2) / 16
    expected = np.array(stamps) + 10
    assert all(np.abs(expected - at).min() <= 40 for at in at_ms)
    assert at_ms[-1] == pytest.approx(expected[-1], abs=40)
    assert len(audio) / 16 == pytest.approx(stamps[-1] + 20, abs=40)
    assert ("1.0 s are missing within the sound" if step_ms > 0 else "0.5 s of the sound overlap") in notes


def test_titles_in_any_encoding_are_let_pass(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(1.0))
    title = "M\xfcller".encode("latin-1") + b"\0\0"
    info = b"INFOINAM" + struct.pack("<I", len(title)) + title
    content = path.read_bytes() + b"LIST" + struct.pack("<I", len(info)) + info
    path.write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])
    np.testing.assert_array_equal(media.audio_samples(media.open_media(path)), tone(1.0))


def notes_of(num_frames: int, sound_sec: float, sound_from_sec: float = 0.0, **clip: float) -> str:
    sound = SoundFacts(num_samples=int(sound_sec * RATE), sound_from_sec=sound_from_sec, sample_rate=RATE)
    found = Inspection(PictureFacts(num_frames, fps=25.0), FaceFacts(faces=1, face_rate=1.0), sound)
    row = row_of(SourceClip("a", Path("a.mp4"), **clip), found, Options())
    assert row.status == "kept"
    return row.notes


def test_what_of_sound_and_picture_has_no_counterpart_is_said():
    assert notes_of(25, 3.0) == "the last 2.0 s of the sound, after the picture, are cut"
    assert notes_of(75, 1.0) == "the sound ends 2.0 s before the picture"
    assert notes_of(75, 3.0, 0.5) == "the sound begins after 0.5 s"
    assert notes_of(75, 3.0, -0.5) == "the first 0.5 s of the sound, before the picture, are cut"
    assert notes_of(75, 3.0, -0.9, start_sec=1.0, end_sec=4.0) == ""  # what comes before a part is not of it
    assert notes_of(75, 3.05, -0.02) == ""  # coders have frames of their own length
    assert (
        notes_of(75, 3.0, start_sec=1.0, end_sec=99.0) == "the part is 3.0 instead of 98.0 s long: the file ends there"
    )


def test_sound_before_the_picture_is_measured(tmp_path):
    opened = media.open_media(write_mkv(tmp_path / "a.mkv", [1000 + 40 * k for k in range(25)], tone(2.0)))
    assert len(media.audio_samples(opened)) == RATE
    assert opened.sound_from_sec == -1


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (5.0, 6.0, "begins at 5 s, and the file ends after 1.0 s"), (1.0, 2.0, "nothing is left of the part"),
        (16e3, 32e3, "no time of this file, beyond its end at 1.0 s"), (1.6e18, 1.7e18, "times are in seconds"),
        (1e300, None, "times are in seconds"), (0.5, 1e300, ""), (0.0, 1.6e18, ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".wav", ".mkv"])
def test_a_part_that_is_not_in_the_file_is_refused_and_no_other_clip_with_it(tmp_path, start, end, reason, suffix):
    path = write(tmp_path / f"a{suffix}", voice(1.0), codec="pcm_s16le")
    found = inspect_clip(
        SourceClip("a", path, start_sec=start, end_sec=end), cache_dir=tmp_path, model=None, model_hash=""
    )
    assert (reason in found.error) if reason else (found.error == "" and found.sound.num_samples == (1 - start) * RATE)


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict:
    """What the inputs that once went wrong become: their rows, and their clips by id."""
    if not CASES.is_dir() or not MODEL.is_file():
        pytest.skip(f"no cases or no landmarker under {SHARED}; set MMPRETRAIN_SHARED_DIR")
    folder = tmp_path_factory.mktemp("cases")
    names = ("adpcm.wav", "float_in_int_range.wav", "nan_stretch.wav", "phase.wav", "short_picture.mp4")
    rows = [[f"media/{name}", name.split(".")[0], 0, ""] for name in names] + [
        ["joined/two_tracks.mkv", "tracks", 0, ""]
    ]
    with open(CASES / "bigtime" / "ns.csv", newline="") as file:
        rows += [
            [f"bigtime/{row['path']}", f"big{k}", row["start_sec"], row["end_sec"]]
            for k, row in enumerate(csv.DictReader(file))
        ]
    with open(folder / "m.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["path", "clip_id", "start_sec", "end_sec"], *rows, ["bigtime/m.wav", "same", 0, ""]]
        )
    arguments = ["--manifest", folder / "m.csv", "--landmarker", MODEL, "--validation-share", 0]
    assert prepare_folder(CASES, folder / "out", *arguments) == 0
    return {"rows": report_of(folder / "out"), "clips": {clip.clip_id: clip for clip in clips_of(folder / "out")}}


def test_cases_of_sound_come_out_right(cases):
    rows, clips = cases["rows"], cases["clips"]
    refused = {name for name, row in rows.items() if row["status"] != "kept"}
    assert refused == {"big0", "big1", "big2"}
    assert all("no time" in rows[name]["reason"] for name in refused)
    said = {
        "adpcm": "", "same": "", "phase": "channel 1 of 2 is taken", "float_in_int_range": "16-bit integers",
        "nan_stretch": "4000 of 32000 samples", "tracks": "audio track 2 of 2 is taken, the default one",
        "short_picture": "the last 2.0 s of the sound, after the picture, are cut",
    }  # fmt: skip
    assert {name: text in rows[name]["notes"] for name, text in said.items()} == dict.fromkeys(said, True)
    same = clips["same"].audio
    for name in ("phase", "float_in_int_range"):
        np.testing.assert_array_equal(clips[name].audio, same)
    spoilt = clips["nan_stretch"].audio != same
    assert 0 < spoilt.sum() <= 4000
    assert not clips["nan_stretch"].audio[spoilt].any()
    assert likeness(clips["adpcm"].audio, same) > 0.99
    assert clips["short_picture"].num_frames == 25
    assert np.abs(clips["tracks"].audio.astype(int)).max() > 10_000


@pytest.mark.parametrize(("default", "level"), [((1,), 200), ((0,), 100), ((), 100)])
def test_the_default_picture_is_taken_or_else_the_first(tmp_path, default, level):
    path = tmp_path / "angles.mkv"
    with av.open(str(path), "w") as container:
        for number in range(2):
            stream = container.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
            stream.disposition = Disposition.default.value if number in default else 0
        for k in range(10):
            for number, stream in enumerate(container.streams.video):
                picture = np.full((48, 64), 100 * (number + 1), np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, "gray")
                frame.pts = k
                container.mux(stream.encode(frame))
        for stream in container.streams.video:
            container.mux(stream.encode())
    opened = media.open_media(path)
    assert {round(float(frame.mean())) for frame in media.shown_frames(opened)} == {level}
    assert opened.notes == (f"picture track {level // 100} of 2 is taken",)


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_f32le", "pcm_alaw"])
def test_a_wav_that_was_cut_off_is_said(tmp_path, codec):
    whole = write(tmp_path / "whole.wav", voice(3.3), codec=codec).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 4])
    assert prepare_folder(tmp_path, tmp_path / "out", "--validation-share", 0) == 0
    rows = report_of(tmp_path / "out")
    assert rows["cut"]["notes"] == "ends after 0.8 of 3.3 s"
    assert rows["whole"]["notes"] == ""


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000, 0x80000000, 32_000])
def test_a_wav_from_a_pipe_or_with_more_behind_its_sound_is_not_taken_for_cut_off(tmp_path, size):
    path = write_wav(tmp_path / "a.wav", tone(1.0))
    content = bytearray(path.read_bytes())
    content[40:44] = size.to_bytes(4, "little")
    path.write_bytes(content + bytes(40_000))
    assert media.open_media(path).declared_sec < 3
    assert media.riff.cut_off_sec(path) == 0
