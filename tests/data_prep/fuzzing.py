"""Small media files of many kinds, broken in many ways, through the whole command: how each case came out."""

import contextlib
import csv
import io
import json
import os
import random
import re
import resource
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data_prep import inspection, landmark_cache, memory, parts, preparation
from data_prep.__main__ import main
from data_prep.crops import MEAN_FACE, NUM_POINTS, STABLE
from data_prep.landmarker import Pictures
from tests.end_to_end.conftest import CHECKOUT

# Suffix, encoder of the picture, of the sound, and its rate.
KINDS = (
    ("mp4", "libx264", "aac", 44_100), ("mp4", "mpeg4", "libmp3lame", 48_000), ("mov", "mjpeg", "pcm_s16le", 16_000),
    ("mkv", "ffv1", "flac", 16_000), ("mkv", "libx264", "ac3", 48_000), ("webm", "libvpx", "libopus", 48_000),
    ("webm", "libvpx-vp9", "libopus", 48_000), ("ts", "libx264", "aac", 48_000), ("ts", "mpeg2video", "mp2", 44_100),
    ("mpg", "mpeg1video", "mp2", 44_100), ("avi", "mpeg4", "libmp3lame", 44_100), ("avi", "mjpeg", "adpcm_ms", 22_050),
    ("flv", "flv", "libmp3lame", 44_100), ("wmv", "wmv2", "libmp3lame", 44_100), ("mp4", "libx265", "aac", 48_000),
    ("wav", "", "pcm_s16le", 16_000), ("wav", "", "pcm_f32le", 44_100), ("flac", "", "flac", 44_100),
    ("mp3", "", "libmp3lame", 44_100), ("ogg", "", "flac", 44_100), ("opus", "", "libopus", 48_000),
    ("m4a", "", "aac", 44_100), ("aiff", "", "pcm_s16be", 22_050),
)  # fmt: skip
SIDE, SECONDS = 64, 1.0
EXTREMES = (0, 1, 2, 255, 16_000, 0x7FFF, 0x8000, 0xFFFF, 10**6, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
# Names of what says how large, how long or how fast something is, in the containers that have names.
FIELDS = re.compile(
    rb"mvhd|mdhd|tkhd|elst|stts|ctts|stsc|stsz|stco|pasp|avc1|hvc1|mp4v|mp4a|esds|fiel|jpeg|"  # ISO
    rb"avih|strh|strf|hdrl|idx1|fmt |data|COMM|SSND|fLaC|OpusHead|vorbis|"
    rb"\x2a\xd7\xb1|\x44\x89|\x23\xe3\x83|\xb0|\xba|\xb5|\x9f|\xe7|"  # Matroska: scales, durations, sides, rates
    rb"\x00\x00\x01\xb3|\x00\x00\x01\xba|\x00\x00\x01\x67|\x00\x00\x00\x01\x67"  # MPEG: sequence, pack, parameters
)


def write_seed(path: Path, video: str, audio: str, rate: int) -> bytes:
    """One second of moving noise and a tone; the content of the file."""
    draw = np.random.default_rng(7)
    with av.open(str(path), "w") as container:
        streams = []
        if video:
            picture = container.add_stream(video, rate=25)
            picture.width = picture.height = SIDE
            picture.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
            picture.options = {"x265-params": "log-level=none"} if video == "libx265" else {}
            still = draw.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
            frames = [av.VideoFrame.from_ndarray(np.roll(still, k, 0), "rgb24") for k in range(int(25 * SECONDS))]
            streams.append((picture, frames))
        sound = container.add_stream(audio, rate=rate, layout="mono")
        tone = (8000 * np.sin(np.arange(int(rate * SECONDS)) / 20)).astype(np.int16)
        pieces = []
        for start in range(0, len(tone), 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], "s16", "mono")
            frame.rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            pieces.append(frame)
        streams.append((sound, pieces))
        packets = [packet for stream, frames in streams for frame in [*frames, None] for packet in stream.encode(frame)]
        for packet in sorted(packets, key=lambda p: (p.dts or 0) * p.time_base):
            container.mux(packet)
    return path.read_bytes()


def truncate(draw: random.Random, content: bytearray, _: bytes) -> bytearray:
    return content[: draw.randrange(len(content))]


def flip_bits(draw: random.Random, content: bytearray, _: bytes) -> bytearray:
    for _ in range(draw.choice((1, 4, 16, 64, 256))):
        bit = draw.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
    return content


def flip_bits_of_the_header(draw: random.Random, content: bytearray, _: bytes) -> bytearray:
    for _ in range(draw.choice((1, 2, 8))):
        bit = draw.randrange(8 * min(len(content), 600))
        content[bit // 8] ^= 1 << bit % 8
    return content


def splice(draw: random.Random, content: bytearray, other: bytes) -> bytearray:
    here, there = draw.randrange(len(content)), draw.randrange(len(other))
    return content[:here] + other[there:]


def join(draw: random.Random, content: bytearray, other: bytes) -> bytearray:
    return content + other


def move_a_block(draw: random.Random, content: bytearray, _: bytes) -> bytearray:
    start, to = draw.randrange(len(content)), draw.randrange(len(content))
    block = content[start : start + draw.choice((1, 188, 1000, 5000))]
    del content[start : start + len(block)]
    return content[:to] + draw.choice((block, block * 2, bytes(len(block)), b"")) + content[to:]


def lie(draw: random.Random, content: bytearray, _: bytes) -> bytearray:
    """An extreme value where something says how large, how long or how fast it is."""
    places = [found.end() for found in FIELDS.finditer(bytes(content))] or [0]
    for _ in range(draw.choice((1, 1, 3))):
        place = min(draw.choice(places) + draw.randrange(0, 80, draw.choice((1, 4))), max(len(content) - 8, 0))
        value, size = draw.choice(EXTREMES), draw.choice((1, 2, 4, 4, 8))
        content[place : place + size] = (value % 256**size).to_bytes(size, draw.choice(("big", "little")))
    return content


def lie_of_what_is_known(draw: random.Random, content: bytearray, _: bytes) -> bytearray:
    """Another side, rate or time scale everywhere that it is written."""
    value, size = draw.choice((SIDE, 25, 16_000, 22_050, 44_100, 48_000, 1000, 90_000, 12_800)), draw.choice((2, 4))
    if value >= 256**size:
        size = 4
    order = draw.choice(("big", "little"))
    told = (draw.choice(EXTREMES) % 256**size).to_bytes(size, order)
    return bytearray(bytes(content).replace(value.to_bytes(size, order), told, draw.choice((1, 2, 100))))


MUTATIONS: tuple[Callable[[random.Random, bytearray, bytes], bytearray], ...] = (
    truncate, flip_bits, flip_bits_of_the_header, splice, join, move_a_block, lie, lie, lie_of_what_is_known,
)  # fmt: skip


class Look:
    """`inspect_clip` with a face in the middle of every picture: MediaPipe would take most of the time."""

    def __call__(self, clip, **settings):
        inspection.find_faces = self.find_faces
        return landmark_cache.inspect_clip(clip, **settings)

    @staticmethod
    def find_faces(frames, *_):
        pictures = Pictures()
        for rgb, count in frames:
            nine = np.tile([rgb.shape[1] / 2, rgb.shape[0] / 2], (NUM_POINTS, 1))
            nine[STABLE] += (MEAN_FACE - MEAN_FACE.mean(0)) / 4
            yield pictures.faces(rgb, [nine], [nine[:2]], np.zeros((1, 52), np.float32)), count


def patience_sec(*_, **__) -> float:
    return 60.0


def try_cases(folder: Path, numbers: range, model: Path | None = None) -> Counter:
    """Prepares a folder of these cases; counts the outcomes. Without a model nobody looks for faces.

    In a process of its own, which no other test's children share: what its workers took at most can be told.
    """
    command = [sys.executable, "-m", "tests.data_prep.fuzzing", str(folder), str(numbers.start), str(numbers.stop)]
    done = subprocess.run([*command, *([str(model)] if model else [])], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    *told, counts = done.stdout.splitlines()
    print(*told, sep="\n")
    return Counter(json.loads(counts))


def prepare(folder: Path, numbers: range, model: Path | None) -> Counter:
    """What `try_cases` does in its own process.

    Every case must be a row that is kept, cut or refused with a reason, and the command must end well, or with the
    one line that nothing could be kept.
    """
    seeds = [
        (suffix, write_seed(folder / f"seed{number}.{suffix}", *encoders))
        for number, (suffix, *encoders) in enumerate(KINDS)
    ]
    source, output, made = folder / "in", folder / "out", {}
    source.mkdir()
    for number in numbers:
        draw = random.Random(number)
        (suffix, content), (_, other) = draw.choice(seeds), draw.choice(seeds)
        mutate = draw.choice(MUTATIONS)
        mutated = mutate(draw, bytearray(content), other)
        (source / f"case{number}.{suffix}").write_bytes(mutated)
        made[f"case{number}"] = mutate.__name__
    preparation.patience_sec = parts.patience_sec = patience_sec
    if model is None:
        model = folder / "model.task"
        zipfile.ZipFile(model, "w").close()
        preparation.inspect_clip = Look()
    started, workers = time.monotonic(), min(2, os.cpu_count())
    arguments = ["--source", source, "--output", output, "--landmarker", model, "--workers", workers]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(["folder", *map(str, arguments), "--mouth-size", "32", "--face-size", "32"])
    error = said.getvalue()
    with open(output / "report.csv", newline="") as file:
        rows = {row["clip_id"]: row for row in csv.DictReader(file)}
    assert code == 0 or (code == 2 and error.count("\n") == 1 and "can be kept" in error), error
    assert set(made) <= set(rows)
    for clip_id, row in rows.items():
        assert row["status"] in ("kept", "cut") or (row["status"] == "refused" and row["reason"]), (clip_id, row)
    peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak_bytes < memory.share_bytes(workers) + 2**30
    counts = Counter({f"{kind}: {kind_of(rows[case])}": 0 for case, kind in made.items()})
    counts.update(f"{kind}: {kind_of(rows[case])}" for case, kind in made.items())
    for case, row in rows.items():
        if re.search(r"^\w*(Error|Exception):|crashes|given up|killed|not enough|memory", row["reason"]):
            print(f"{case} {made.get(case)}: {row['reason']}")
    print(
        f"{len(made)} cases in {time.monotonic() - started:.0f} s, a worker took {peak_bytes / 2**20:.0f} MiB at most"
    )
    return counts


def kind_of(row: dict[str, str]) -> str:
    if row["status"] != "refused":
        return f"{row['status']} as {'picture ' * int(row['has_video'])}{'sound' * int(row['has_audio'])}".strip()
    for words, kind in {
        "crashes": "crashed its worker", "given up": "hung its worker", "killed": "killed its worker",
        "not enough": "needed too much memory", "Error: ": "refused, not foreseen",
        "half of the memory|too large|pixels are|samples a second|channels|its beginning": "beyond limits",
    }.items():  # fmt: skip
        if re.search(words, row["reason"]):
            return kind
    return "refused"


if __name__ == "__main__":
    _folder, _start, _stop, *_model = sys.argv[1:]
    print(json.dumps(prepare(Path(_folder), range(int(_start), int(_stop)), Path(_model[0]) if _model else None)))
