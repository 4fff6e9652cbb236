"""A corpus whose labels are planted: every emotion is a pitch, of which numbers and levels are known too."""

import dataclasses
from pathlib import Path

import numpy as np

from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import IMAGE_SIZE

PITCH_HZ = {"neutral": 300, "happy": 900, "sad": 2500}


def write_tones(path: Path) -> Path:
    """Six people, who say each emotion three times at a pitch of its own, in noise."""
    random, clips = np.random.default_rng(0), []
    for i in range(54):
        word, num_frames = list(PITCH_HZ)[i % 3], 8 + i // 3 % 2
        labels = {"emotion": word, "height": PITCH_HZ[word] / 2500, "high": "yes" if i % 3 else "no"}
        curve = np.full(num_frames, labels["height"], np.float32) + np.linspace(-0.1, 0.1, num_frames, dtype=np.float32)
        clip = make_clip(
            f"c{i:02}", num_frames, video=False, size=IMAGE_SIZE, speaker=f"s{i // 9}", labels=labels,
            tracks={"curve": curve},
        )  # fmt: skip
        time = np.arange(len(clip.audio)) / 16_000
        tone = 2000 * np.sin(2 * np.pi * PITCH_HZ[word] * random.uniform(0.9, 1.1) * time)
        sound = (tone + 400 * random.normal(size=len(time))).astype(np.int16)
        clips.append(dataclasses.replace(clip, audio=sound))
    kinds = {"emotion": "class", "text": "text", "height": "value", "high": "class"}
    return write_corpus(path, clips, IMAGE_SIZE, IMAGE_SIZE + 16, kinds)
