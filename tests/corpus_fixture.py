"""Writes tiny prepared corpora for tests, in the layout of `mmpretrain.records`."""

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_prep.builder import write_dataset
from mmpretrain import records
from mmpretrain.prepared import finish_corpus

LABELS = {"emotion": "class", "text": "text"}


def write_corpus(
    path, clips: list[records.Clip], mouth_size: int, face_size: int, labels: Mapping[str, str] = LABELS
) -> Path:
    """Writes `clips` as the whole prepared corpus `path` (its name is the folder's). Returns the path.

    `labels` are its columns, by name their kind; its tracks are those of the clips.
    Example: `write_corpus(tmp_path / "tiny", [make_clip("a", 30)], 96, 112)`.
    """
    tracks = {
        name: records.TrackSpec(track.shape[1:], track.dtype.name)
        for clip in clips
        for name, track in clip.tracks.items()
    }
    schema = records.Schema(mouth_size, face_size, tracks, labels)

    path = Path(path)
    shards = {
        split: [functools.partial(iter, of_split)]
        for split in records.SPLITS
        if (of_split := [clip for clip in clips if clip.split == split])
    }
    finish_corpus(path, path.name, schema, write_dataset(path, shards, schema), wall_time_sec=0.0)
    return path


def make_clip(clip_id: str, num_frames: int, *, audio: bool = True, video: bool = True, size: int = 96, **fields):
    """A clip that tells its time: every pixel of frame t is t % 256, and every sample of frame t is 10 * t + 1.

    Its units are t % 4; `tracks` among the fields come on top.
    """
    times = np.arange(num_frames)
    samples = np.repeat(10 * times + 1, records.SAMPLES_PER_FRAME).astype(np.int16)

    def picture(side):
        return np.broadcast_to(times.astype(np.uint8)[:, None, None], (num_frames, side, side)).copy()

    return records.Clip(
        clip_id=clip_id,
        audio=samples if audio else samples[:0],
        mouth=picture(size) if video else picture(size)[:0],
        face=picture(size + 16) if video else picture(size + 16)[:0],
        tracks={"units": (times % 4).astype(np.int32)} | fields.pop("tracks", {}),
        **fields,
    )


def damage_record(corpus: Path, view: str = "audio", split: str = "train", at: float = 0.5) -> None:
    """Spoils some bytes in the first shard of a view, at this share of it: one clip cannot be read then."""
    (shard, *_) = sorted(records.dataset_dir(corpus).glob(f"{view}-{split}.array_record-*"))
    content = bytearray(shard.read_bytes())
    first = int(at * len(content))
    content[first : first + 100] = bytes(byte ^ 255 for byte in content[first : first + 100])
    shard.write_bytes(content)
