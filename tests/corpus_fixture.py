"""Writes tiny prepared corpora for tests, in the layout of `mmpretrain.records`, without `data_prep`."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmpretrain import records

LABELS = {"emotion": "class", "text": "text"}


def write_corpus(
    path, clips: list[records.Clip], mouth_size: int, face_size: int, labels: Mapping[str, str] = LABELS
) -> Path:
    """Writes `clips` as the whole prepared corpus `path` (its name is the folder's). Returns the path.

    `labels` are its columns, by name their kind; its tracks are those of the clips.
    Example: `write_corpus(tmp_path / "tiny", [make_clip("a", 30)], 96, 112)`.
    """
    import tensorflow_datasets as tfds

    tracks = {
        name: records.TrackSpec(track.shape[1:], track.dtype.name)
        for clip in clips
        for name, track in clip.tracks.items()
    }
    schema = records.Schema(mouth_size, face_size, tracks, labels)

    class Clips(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(records.DATASET_VERSION)
        code_path = None  # looking it up needs `importlib_resources`, which TFDS does not bring

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=records.dataset_features(schema))

        def _split_generators(self, dl_manager):
            splits = [split for split in records.SPLITS if any(clip.split == split for clip in clips)]
            return {records.stored_split(split): self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            for clip in clips:
                if clip.split == split:
                    yield clip.clip_id, records.encode_clip(clip, schema)

    path = Path(path)
    builder = Clips(data_dir=path, file_format="array_record")
    builder.download_and_prepare()
    rows, splits = [], {}
    for split in [split for split in records.SPLITS if records.stored_split(split) in builder.info.splits]:
        # The index follows the order on disk, which is not that of `clips`: TFDS shuffles by key.
        written = (
            records.decode_clip(example, schema) for example in builder.as_data_source(records.stored_split(split))
        )
        index = [records.IndexRow.of(clip, schema) for clip in written]
        records.write_index(path, split, index)
        rows += index
        frames = sum(row.num_frames for row in index)
        splits[split] = {
            "clips": len(index), "frames": frames, "hours": frames / records.FRAME_RATE_HZ / 3600,
        }  # fmt: skip
    corpus = {
        "name": path.name,
        "fingerprint": records.corpus_fingerprint(rows),
        "frame_rate_hz": records.FRAME_RATE_HZ,
        "sample_rate_hz": records.SAMPLE_RATE_HZ,
        "schema": schema.to_json(),
        "splits": splits,
        "wall_time_sec": 0.0,
    }
    (path / records.CORPUS_FILE).write_text(json.dumps(corpus, indent=1))
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
