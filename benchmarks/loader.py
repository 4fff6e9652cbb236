"""How many frames a second a core loads, from a prepared corpus to batches, against cv2 and numpy the usual way.

The usual way reads a video (H.264) picture by picture with cv2, a WAV file and one of noise, and makes filterbank,
mixture, crops and pictures in float32 in numpy, one clip after another; ours leaves the last to the device. Both load
the same drawn clips of mouths with sound, noise under a quarter of them, one thread each, in turns. Then: where our
time goes, how several processes add up, how many cores feed an accelerator, and how much of a batch is padding where
clips are as long as those of LRS3.

python -m benchmarks.loader
python -m benchmarks.loader --clips 200 --compression zstd
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import statistics
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measuring import machine, make_parser, write_json
from data_prep.builder import write_dataset
from mmpretrain.config import CorpusConfig, DataConfig, ModelConfig, NoiseConfig
from mmpretrain.data.batch import empty_batch, make_batch
from mmpretrain.data.batch_plan import BatchPlan
from mmpretrain.data.clips import ClipTable, open_clips
from mmpretrain.data.inputs import INPUTS, Augmentation
from mmpretrain.data.noise import check_noise, mix_noise, noise_segment
from mmpretrain.data.workers import AHEAD, Workers
from mmpretrain.features.filterbank import audio_features, band_centres_hz, log_filterbank
from mmpretrain.output import at_least_1
from mmpretrain.prepared import finish_corpus
from mmpretrain.randomness import clip_generator
from mmpretrain.records import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, Clip, Schema
from mmpretrain.storage import COMPRESSIONS

SIDE, CROP = 96, 88
NEEDS = {"one H200": 148_000, "a node of eight GPUs": 173_000}  # frames/s of Base in bfloat16
NOISE_PROB = 0.25
COMPUTE_ROUNDS = 100_000  # of a hash, some tens of milliseconds
MODEL = ModelConfig()
LRS3_BUCKETS = (60, 80, 110, 150, 200, 260, 330, 420, 500)  # of configs/pretrain/avhubert_base_lrs3.py
# Clips of each kind, their mean length and its spread, and the longest: numbers and hours of LRS3 as released.
LRS3 = ((31_982, 84, 0.45, 155), (118_516, 309, 0.6, 1500))


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser("loader", __doc__, turns=5, turn_sec=1.0)
    parser.add_argument("--clips", type=at_least_1, default=96, help="drawn clips (default: 96)")
    parser.add_argument("--batches", type=at_least_1, default=6, help="in a turn (default: 6)")
    parser.add_argument("--compression", choices=tuple(COMPRESSIONS), default="none")
    args = parser.parse_args(arguments)
    print(machine())
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        cv2.setNumThreads(1)
        bench = Bench(Path(folder), args.clips, args.compression)
        rows = {"against": bench.against(args.turns, args.batches), "stages": bench.stages(args.turns)}
        rows["workers"] = bench.workers(args.turns, 4 * args.batches)
        rows["padding"] = padding()
    write_json(args.json, rows)


def drawn_clip(number: int, num_frames: int) -> Clip:
    """Something like a mouth: shades and texture that move, with the noise of a camera; and something like a voice."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    opening_T11 = 0.15 + 0.1 * np.sin(np.arange(num_frames) / 3)[:, None, None]
    lips = np.exp(-((x / 0.3) ** 2 + (y / opening_T11) ** 2))
    shift_2T11 = rng.normal(0, 0.01, (2, num_frames, 1, 1)).cumsum(1)
    skin = sum(
        12 / k * np.sin(9 * k * (x + shift_2T11[0]) + k) * np.cos(7 * k * (y + shift_2T11[1])) for k in range(1, 6)
    )
    picture = 140 + 40 * x - 80 * lips + skin + rng.normal(0, 2, lips.shape)
    times = np.arange(num_frames * SAMPLES_PER_FRAME) / SAMPLE_RATE_HZ
    voice = 4000 * np.sin(2 * np.pi * 150 * times) * (1 + np.sin(2 * np.pi * 4 * times)) + rng.normal(
        0, 200, len(times)
    )
    mouth = picture.clip(0, 255).astype(np.uint8)
    return Clip(f"clip{number:05d}", voice.astype(np.int16), mouth, mouth[:, 8:-8, 8:-8])


def write_wav(path: Path, audio_N: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(audio_N.tobytes())


def write_video(path: Path, pictures_THW: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "20", "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for picture in pictures_THW:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "gray")))
        container.mux(stream.encode(None))


class Bench:
    """The same clips as a prepared corpus and as files, and what is measured of them."""

    def __init__(self, folder: Path, num_clips: int, compression: str):
        lengths = np.random.default_rng(0).integers(60, 156, num_clips)
        clips = [drawn_clip(number, int(length)) for number, length in enumerate(lengths)]
        schema = Schema(SIDE, SIDE - 16)
        indices = write_dataset(folder / "corpus", {"train": [functools.partial(iter, clips)]}, schema, compression)
        finish_corpus(folder / "corpus", "corpus", schema, indices, 0)
        self.files, noise = folder / "files", folder / "noise"
        self.files.mkdir()
        noise.mkdir()
        for clip in clips:
            write_video(self.files / f"{clip.clip_id}.mp4", clip.mouth)
            write_wav(self.files / f"{clip.clip_id}.wav", clip.audio)
        for number in range(8):
            write_wav(
                noise / f"{number}.wav",
                np.random.default_rng(number).normal(0, 2000, 20 * SAMPLE_RATE_HZ).astype(np.int16),
            )
        self.noise = sorted(noise.iterdir())
        self.data = DataConfig(
            corpora=(CorpusConfig(str(folder / "corpus")),), batch_frames=4000, bucket_frames=(100, 200),
            batch_multiple=1, noise=NoiseConfig(NOISE_PROB, 0.0, str(noise)),
        )  # fmt: skip
        check_noise(str(noise))
        self.table: ClipTable = open_clips(self.data.corpora)
        self.how = {"table": self.table, "model": MODEL, "data": self.data, "train": True, "seed": 0}
        self.plan = BatchPlan(self.table.lengths, batch_frames=4000, bucket_frames=(100, 200), multiple=1, seed=0)
        stored = sum(path.stat().st_size for path in (folder / "corpus").rglob("mouth-*"))
        raw, as_video = SIDE**2 * int(lengths.sum()), sum(path.stat().st_size for path in self.files.glob("*.mp4"))
        print(f"{num_clips} clips, {lengths.sum():,} frames of {SIDE} pixels; stored with compression {compression}: "
              f"{stored / raw:.2f} of their bytes; as the videos of the usual way {as_video / raw:.2f}")  # fmt: skip

    def load(self, planned) -> int:
        """Real frames of the batch."""
        batch = make_batch(planned, **self.how)
        return int(batch.valid_BT.sum())

    def ours(self, steps: Iterator[int]) -> int:
        return self.load(self.plan[next(steps)])

    def usual(self, steps: Iterator[int]) -> int:
        planned, frames = self.plan[next(steps)], 0
        rng = np.random.default_rng(planned.step)
        pictures = np.zeros((len(planned.clips), planned.num_frames, CROP, CROP), np.float32)
        sounds = np.zeros((len(planned.clips), planned.num_frames, 104), np.float32)
        for b, row in enumerate(planned.clips):
            mouth, fbank = usual_clip(self.files, self.table.clip_ids[row], self.noise, rng)
            length = min(len(mouth), planned.num_frames)
            start = rng.integers(len(mouth) - length + 1)
            pictures[b, :length], sounds[b, :length] = mouth[start:][:length], fbank[start:][:length]
            frames += length
        return frames

    def against(self, turns: int, batches: int) -> dict[str, float]:
        steps = {"usual": itertools.count(), "ours": itertools.count()}
        ways = {name: functools.partial(getattr(self, name), steps[name]) for name in steps}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(turns + 1):
            for name, way in ways.items():
                rates[name] += [rate_of(way, batches)] * (turn > 0)
        found = {name: statistics.median(each) for name, each in rates.items()}
        print("\nframes a second of a core, mouths with sound and noise, median of turns")
        for name, rate in found.items():
            print(f"{name:8}{rate:>10,.0f}{rate / found['usual']:>8.2f}")
        return found

    def stages(self, turns: int) -> dict[str, float]:
        """Microseconds of a core a frame, each by itself over all clips."""
        clips = [self.table.load(row) for row in range(len(self.table))]
        frames, inputs, data = sum(clip.num_frames for clip in clips), MODEL.inputs, self.data
        streams = [functools.partial(clip_generator, 0, epoch=0, clip_id=clip.clip_id, occurrence=0) for clip in clips]
        rows, video, names = range(len(clips)), INPUTS["video"], ("time", "noise", "crop", "flip")

        def crop(i: int) -> np.ndarray:
            return video.make(clips[i], range(clips[i].num_frames), inputs, Augmentation(data, streams[i]))

        batch = empty_batch(1, max(clip.num_frames for clip in clips), MODEL)

        def read(view: str) -> None:
            for source, record in zip(self.table.source_N, self.table.record_N, strict=True):
                self.table.sources[source].records(view)[int(record)]

        def put(make: Callable[[int], np.ndarray], name: str) -> None:
            for i in rows:
                batch.inputs[name][0, : clips[i].num_frames] = make(i)

        works = {
            "read mouth": lambda: read("mouth"),
            "read sound": lambda: read("audio"),
            "open, check, view": lambda: [(c := self.table.open(i)).mouth.shape and c.audio.shape for i in rows],
            "streams of draws": lambda: [stream(name) for stream in streams for name in names],
            "noise": lambda: [
                mix_noise(c.audio, noise_segment(data.noise.path, len(c.audio), stream("noise")), 0.0)
                for c, stream in zip(clips[::4], streams[::4], strict=True)
            ],
            "filterbank": lambda: [log_filterbank(c.audio) for c in clips],
            "filterbank, stacked, normalised": lambda: put(
                lambda i: audio_features(clips[i].audio, clips[i].num_frames), "audio"
            ),
            "crops": lambda: put(crop, "video"),
        }  # fmt: skip
        found = {
            name: statistics.median(cpu_of(work) for _ in range(turns)) / frames * 1e6 for name, work in works.items()
        }
        print("\nmicroseconds of a core a frame (noise: under a quarter of the clips; open ... contains both readings)")
        for name, cost in found.items():
            print(f"{name:34}{cost:>7.2f}")
        return found

    def workers(self, turns: int, batches: int) -> dict[int, dict[str, float]]:
        """By the clock on the wall, of so many processes: frames a second, and how they add up.

        Beside them, in turns, as many that only compute: what the machine has to give at the time.
        """
        cores, load = os.cpu_count() or 1, functools.partial(make_batch, **self.how)
        compute = functools.partial(hashlib.pbkdf2_hmac, "sha256", b"", b"")
        counts, found = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= cores], {}
        for _ in range(turns):
            for count in counts:
                ours = found.setdefault(count, {"loading": [], "computing": []})
                ours["loading"].append(
                    rate_of_workers(load, self.plan, count, batches, lambda batch: int(batch.valid_BT.sum()))
                )
                rounds = [COMPUTE_ROUNDS] * (AHEAD + 1 + batches) * count
                ours["computing"].append(rate_of_workers(compute, rounds, count, batches, lambda _: COMPUTE_ROUNDS))
        found = {n: {kind: statistics.median(rates) for kind, rates in ours.items()} for n, ours in found.items()}
        print("\nprocesses, frames a second by the clock, share of as many times one's; of those that only compute")
        for count, rates in found.items():
            shares = {kind: rate / found[1][kind] / count for kind, rate in rates.items()}
            print(f"{count:>3}{rates['loading']:>12,.0f}{shares['loading']:>7.2f}{shares['computing']:>7.2f}")
        most = max(rates["loading"] / count for count, rates in found.items())
        for name, need in NEEDS.items():
            print(f"{name} needs {need:,} frames/s: {need / most:.1f} cores at {most:,.0f} each")
        return found


def usual_clip(folder: Path, name: str, noise: list[Path], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """float32 [T, 88, 88], normalised; float32 [T, 104]."""
    file, pictures = str(folder / f"{name}.mp4"), []
    video = cv2.VideoCapture(file, cv2.CAP_FFMPEG, (cv2.CAP_PROP_N_THREADS, 1))
    while (read := video.read())[0]:
        pictures.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY))
    mouth = np.stack(pictures)
    top, left = rng.integers(0, SIDE - CROP + 1, 2)
    mouth = mouth[:, top : top + CROP, left : left + CROP]
    mouth = mouth[:, :, ::-1] if rng.random() < 0.5 else mouth
    mouth = (mouth.astype(np.float32) / 255 - MODEL.inputs.pixel_mean) / MODEL.inputs.pixel_std
    audio = read_wav(folder / f"{name}.wav").astype(np.float32)
    if rng.random() < NOISE_PROB:
        other = np.resize(read_wav(noise[rng.integers(len(noise))]), len(audio)).astype(np.float32)
        audio = audio + other * np.sqrt(np.mean(audio**2) / np.mean(other**2))
    return mouth, usual_filterbank(audio, len(mouth))


def read_wav(path: Path) -> np.ndarray:
    with wave.open(str(path), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def usual_filterbank(audio_N: np.ndarray, num_frames: int) -> np.ndarray:
    """As common packages do: all windows at once, in double precision."""
    signal = np.append(audio_N[0], audio_N[1:] - 0.97 * audio_N[:-1])
    count = 1 + max(0, -(-(len(signal) - 400) // 160))
    signal = np.append(signal, np.zeros((count - 1) * 160 + 400 - len(signal)))
    frames = signal[np.arange(400)[None] + 160 * np.arange(count)[:, None]]
    power = np.square(np.absolute(np.fft.rfft(frames, 512))) / 512
    energies = np.log(np.maximum(power @ _usual_weights(), 1e-10))
    rows = np.pad(energies, ((0, -len(energies) % 4), (0, 0))).reshape(-1, 104)[:num_frames]
    rows = np.pad(rows, ((0, num_frames - len(rows)), (0, 0)))
    return ((rows - rows.mean(1, keepdims=True)) / (rows.std(1, keepdims=True) + 1e-5)).astype(np.float32)


@functools.cache
def _usual_weights() -> np.ndarray:
    hz = np.linspace(0, SAMPLE_RATE_HZ / 2, 257)[:, None]
    centres = band_centres_hz()
    return np.maximum(0, 1 - np.abs(hz - centres) / np.gradient(centres))


def rate_of(load: Callable[[], int], batches: int) -> float:
    """Frames a second of processor time."""
    start = time.process_time()
    frames = sum(load() for _ in range(batches))
    return frames / (time.process_time() - start)


def rate_of_workers(load, plan: Sequence, count: int, each: int, size: Callable[[Any], int]) -> float:
    """Units a second of so many processes, each of which loads so many when all have begun."""
    with Workers(load, count) as workers:
        loaded = workers.map(plan, 0, (AHEAD + 1 + each) * count)
        for _ in range((AHEAD + 1) * count):  # until they have started, and what they did before others had is gone
            next(loaded)
        start = time.perf_counter()
        return sum(size(next(loaded)[1]) for _ in range(each * count)) / (time.perf_counter() - start)


def cpu_of(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def lrs3_lengths() -> np.ndarray:
    """int [N] in frames, drawn: as many clips as LRS3 has, of its hours."""
    rng, drawn = np.random.default_rng(0), []
    for count, mean, spread, longest in LRS3:
        lengths = rng.lognormal(0, spread, count)
        drawn.append((lengths / lengths.mean() * mean).clip(15, longest))
    return np.concatenate(drawn).astype(int)


def padding() -> dict[str, float]:
    """The share of padding for the recipes' buckets and for others, over lengths as those of LRS3."""
    lengths = lrs3_lengths()
    print(f"\nlengths as those of LRS3: {len(lengths):,} clips, {lengths.sum() / 90_000:.0f} h")
    edges = [0, 50, 100, 150, 200, 300, 400, 500, 750, 1000, 1501]
    counts = np.histogram(lengths, edges)[0]
    for first, last, count in zip(edges, edges[1:], counts, strict=False):
        print(f"{first:>5} to {last - 1:>5} frames{count:>9,} {'#' * round(60 * count / counts.max())}")
    found = {}
    for buckets in ((500,), DataConfig().bucket_frames, LRS3_BUCKETS):
        plan = BatchPlan(lengths, batch_frames=32_000, bucket_frames=buckets, multiple=8, seed=0)
        found[str(buckets)] = plan.padding_share
        print(f"{100 * plan.padding_share:5.1f} % padding with buckets of {', '.join(map(str, buckets))}")
    return found


if __name__ == "__main__":
    main()
