"""How fast videos are prepared, beside a plain loop of the same detector, and how long whole corpora would take.

python -m benchmarks.prepare --source my_videos --landmarker face_landmarker.task
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.landmarker import MAX_FACES, landmarker_model
from data_prep.options import Options
from data_prep.single import clips_of_file
from data_prep.sources import may_have_picture, media_files
from data_prep.workers import Failed, ordered_map
from mmpretrain.output import at_least_1

HOURS = {"LRS3": 438.0, "VoxCeleb2": 2442.0}  # as their makers give them; 25 frames/s
PATIENCE_SEC = 600.0


class Done(NamedTuple):
    """frames: pictures of one file. sec: how long it took; detector_sec: of it the detector. ended: time.time()."""

    frames: int
    sec: float
    detector_sec: float
    ended: float


def plain(path: Path, model: Path) -> Done:
    """What a script of ten lines does: every picture decoded to RGB and looked at; no track, crop or sound."""
    import av
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    started, detector_sec, frames = time.perf_counter(), 0.0, 0
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_buffer=model.read_bytes()),
        running_mode=vision.RunningMode.VIDEO,
        num_faces=MAX_FACES,
        output_face_blendshapes=True,
    )
    with av.open(str(path)) as container, vision.FaceLandmarker.create_from_options(options) as landmarker:
        for frame in readable(container):
            image = mediapipe.Image(mediapipe.ImageFormat.SRGB, frame.to_ndarray(format="rgb24"))
            before = time.perf_counter()
            landmarker.detect_for_video(image, frames * 40)
            detector_sec += time.perf_counter() - before
            frames += 1
    return Done(frames, time.perf_counter() - started, detector_sec, time.time())


def readable(container: Any) -> Iterator[Any]:
    """The pictures of an open video up to where it is broken, if it is."""
    import av

    try:
        yield from container.decode(video=0)
    except av.error.FFmpegError:
        return


def ours(path: Path, model: Path, options: Options) -> Done:
    """All of preparation but writing the shards: sound, faces, the one who speaks, crops, measures."""
    started, frames = time.perf_counter(), 0
    for single in clips_of_file(path, options, model):
        frames += single.clip.num_frames if single.clip else 0
    return Done(frames, time.perf_counter() - started, 0.0, time.time())


def measure(work: Callable[[Path], Done], files: Sequence[Path], num_workers: int) -> tuple[float, float]:
    """Frames a second of so many processes, and the milliseconds of the detector for a frame.

    The first files of each process are not counted: they pay for its start.
    """
    begun = len(files) > 2 * num_workers
    done = []
    for path, result in ordered_map(work, files, num_workers, lambda _: PATIENCE_SEC):
        if isinstance(result, Failed):
            raise ValueError(f"{path}: {result.reason}; leave it out of --source")
        done.append(result)
    first, rest = (done[:num_workers], done[num_workers:]) if begun else (done[:1], done[1:])
    frames = sum(each.frames for each in rest)
    wall = max(each.ended for each in rest) - max(each.ended for each in first)
    return frames / wall, 1000 * sum(each.detector_sec for each in rest) / max(frames, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, metavar="DIR", help="folder with some videos")
    parser.add_argument("--landmarker", metavar="PATH", help="as of data_prep")
    parser.add_argument("--files", type=at_least_1, default=24, help="so many of them (default 24)")
    parser.add_argument("--turns", type=at_least_1, default=3, help="of which the median counts (default 3)")
    parser.add_argument("--workers", type=at_least_1, default=os.cpu_count() or 1, help="default: one a core")
    parser.add_argument("--detect-every", type=at_least_1, default=1, metavar="N", help="as of data_prep")
    parser.add_argument(
        "--cores", type=at_least_1, nargs="+", default=[16, 64], help="for the estimate (default 16 64)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    args = parser.parse_args()
    model = landmarker_model(args.landmarker)
    files = [path for path in media_files(args.source) if may_have_picture(path)][: args.files]
    if len(files) < 2:
        parser.error(f"--source {args.source} has fewer than two videos")
    prepare = functools.partial(ours, model=model, options=Options(detect_every=args.detect_every))
    contestants = {
        "plain loop": (functools.partial(plain, model=model), 1),
        "ours, 1 process": (prepare, 1),
        f"ours, {args.workers} processes": (prepare, args.workers),
    }
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(args.turns):
        for name, (work, num_workers) in contestants.items():
            turns[name].append(measure(work, files, num_workers))
    rates = {name: statistics.median(rate for rate, _ in each) for name, each in turns.items()}
    detector_ms = statistics.median(ms for _, ms in turns["plain loop"])
    if not all(rates.values()):
        raise SystemExit(f"{args.source}: no picture could be read; give more files, or whole ones")
    alone, together = rates["ours, 1 process"], rates[f"ours, {args.workers} processes"]
    for name, rate in rates.items():
        print(f"{name:22} {rate:7.1f} frames/s, {1000 / rate:5.1f} ms a frame")
    print(f"ours / plain loop      {alone / rates['plain loop']:7.2f}")
    share = detector_ms / args.detect_every * alone / 10
    print(f"the detector           {detector_ms:7.1f} ms a picture, {share:.0f} % of ours")
    print(f"{args.workers} processes / 1        {together / alone:7.2f}")
    # Estimated from all processes together: cores that share caches and memory are slower than one alone.
    for corpus, hours in HOURS.items():
        days = {cores: hours * 3600 * 25 / (together / args.workers * cores) / 86400 for cores in args.cores}
        print(
            f"{corpus}, {hours:g} h: " + ", ".join(f"{each:.1f} days on {cores} cores" for cores, each in days.items())
        )
    if args.json:
        args.json.write_text(json.dumps({"frames_per_sec": rates, "detector_ms": detector_ms}))


if __name__ == "__main__":
    main()
