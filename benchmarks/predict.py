"""How many times faster than real time `mmpretrain predict` is, by stage: what limits it.

The stages of one file one after the other in one process, then all of it as the command does it, with worker processes
that decode while this one computes. Encoders have random weights: what they say takes as long. Programs are compiled
before the clocks run.

python benchmarks/predict.py CLIP                              encoders of the sizes small and base
python benchmarks/predict.py CLIP --sizes base --workers 8 --hop 1
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from data_prep import media
from data_prep.crowd import find_everybody
from data_prep.landmarker import landmarker_model
from data_prep.options import Options
from data_prep.people import Contents, Facts, Part, look_into, read_part
from mmpretrain.config import emotion, encoder_size
from mmpretrain.encoders.encoder import Encoder
from mmpretrain.encoders.preprocessing import default_crop_size
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.models.heads import ClipHead
from mmpretrain.output import at_least_1
from mmpretrain.predict.judge import Judge
from mmpretrain.predict.over_time import OverTime, Windows, spans
from mmpretrain.predict.predict import MAX_FACES, parts, predict
from mmpretrain.randomness import seed_key
from mmpretrain.records import EMOTIONS


class Spent(NamedTuple):
    """Seconds of the clock, and of all cores together, those of workers that ended too: other jobs add to the first."""

    wall: float
    cpu: float


def timed(work: Callable[[], Any]) -> tuple[Spent, Any]:
    start, before = time.perf_counter(), os.times()
    made = work()
    return Spent(time.perf_counter() - start, sum(os.times()[:4]) - sum(before[:4])), made


def judge_of(size: str) -> Judge:
    config, task = encoder_size(size), emotion(*EMOTIONS[:8])
    encoder = AVEncoder(config, rngs=nnx.Rngs(seed_key(0)))
    heads = nnx.Dict({task.name: ClipHead(config, len(task.classes), rngs=nnx.Rngs(seed_key(1)))})
    return Judge(Encoder(encoder, {}, [task], heads))


def line(stage: str, spent: Spent, of_clip: float, remark: str = "") -> None:
    speed = f"{of_clip / spent.wall:7.1f} x real time"
    print(f"  {stage:34}  {spent.wall:7.2f} s  {spent.cpu:7.2f} s of CPU  {speed}  {remark}".rstrip())


def stages(path: Path, clip_sec: float, model: Path) -> None:
    """What reading a part is made of; `read_part` does all of it, and decodes the picture twice."""
    opened = media.open_media(path)
    spent, pictures = timed(lambda: sum(1 for _ in media.video_frames(opened)))
    line("decode the picture", spent, clip_sec, f"{pictures} pictures of {opened.width} x {opened.height}")
    spent, _ = timed(lambda: list(find_everybody(media.video_frames(opened), model, MAX_FACES + 1)))
    line("decode it and look for faces", spent, clip_sec)
    spent, _ = timed(lambda: media.audio_samples(opened))
    line("decode the sound", spent, clip_sec)
    spent, contents = timed(lambda: read_part(Part(path, 0.0, None, Options(), model, MAX_FACES)))
    line("all of this, and crop everybody", spent, clip_sec, f"{len(contents.people)} people")


def judge_part(head: Judge, windows: Windows, facts: Facts, part: Part, contents: Contents, is_last: bool) -> OverTime:
    over_time = OverTime(head, windows, "", facts)
    over_time.add(part, contents, is_last=is_last)
    return over_time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path, metavar="CLIP", help="a video with a face, of half a minute to an hour")
    parser.add_argument("--sizes", nargs="+", default=["small", "base"], metavar="SIZE", help="of encoders")
    parser.add_argument("--window", type=float, default=3.0, metavar="SEC")
    parser.add_argument("--hop", type=float, default=0.5, metavar="SEC")
    parser.add_argument("--workers", type=at_least_1, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--landmarker", metavar="PATH")
    args = parser.parse_args()
    model, windows = landmarker_model(args.landmarker), Windows(args.window, args.hop)
    facts = look_into(args.clip)
    if facts.error:
        raise SystemExit(f"{args.clip}: {facts.error}")
    print(f"{args.clip.name}: {facts.seconds:.1f} s; {os.cpu_count()} cores; {jax.devices()[0].device_kind}")
    print("one process, a stage after the other")
    stages(args.clip, facts.seconds, model)
    for size in args.sizes:
        head = judge_of(size)
        crop_size = default_crop_size(head.encoder.config)
        own = parts(args.clip, facts, head, windows, crop_size, model, MAX_FACES)
        contents = read_part(own[0])
        first_sec = min(facts.seconds, spans(facts, windows)[0][1])

        judge = functools.partial(judge_part, head, windows, facts, own[0], contents, len(own) == 1)
        judge()
        spent, over_time = timed(judge)
        judged = sum(len(person.moments.uses) for person in over_time.result().people)
        print(f"{size}: {sum(x.size for x in jax.tree.leaves(nnx.state(head.encoder.module))) / 1e6:.0f} M numbers")
        line("filterbank, encoder and head", spent, first_sec, f"{judged / spent.wall:.1f} windows/s")
        settings = dict(crop_size=crop_size, landmarker=model, num_workers=args.workers)
        spent, _ = timed(lambda c=head, s=settings: list(predict([args.clip], c, windows, **s)))
        line(f"predict, {args.workers} workers", spent, facts.seconds, "with starting them")


if __name__ == "__main__":
    main()
