"""Writes clips as the TFDS dataset `clips` in ArrayRecord files, without TensorFlow, and the index beside them."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import tensorflow_datasets as tfds

from mmpretrain import records

ClipsBySplit = Mapping[str, Callable[[], Iterator[records.Clip]]]


class Clips(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The dataset of one prepared corpus; `clips_by_split` gives the clips of each of its splits when called."""

    VERSION = tfds.core.Version(records.DATASET_VERSION)
    code_path = None  # looking it up needs `importlib_resources`, which TFDS does not bring

    def __init__(self, clips_by_split: ClipsBySplit, *, mouth_size: int, face_size: int, data_dir: Path):
        self._clips_by_split = clips_by_split
        self._sizes = mouth_size, face_size
        super().__init__(data_dir=str(data_dir), file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Clips of talking people: sound, mouth and face on a 25 Hz grid (see mmpretrain.records).",
            features=records.dataset_features(*self._sizes),
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in self._clips_by_split}

    def _generate_examples(self, split: str):
        clip = None
        for clip in self._clips_by_split[split]():
            yield clip.clip_id, records.encode_clip(clip)
        if clip is None:
            raise ValueError(f"none of the clips of split {split} could be written; see report.csv for the reasons")


def write_dataset(
    output: Path, clips_by_split: ClipsBySplit, *, mouth_size: int, face_size: int
) -> tuple[dict[str, list[records.IndexRow]], int]:
    """Writes all splits and their index files; a dataset that is there, whole or not, is replaced.

    Returns the index rows of each split, in record order, and the number of unit kinds (0 where no clip has units).
    """
    shutil.rmtree(output / records.DATASET_NAME, ignore_errors=True)
    builder = Clips(clips_by_split, mouth_size=mouth_size, face_size=face_size, data_dir=output)
    tfds.disable_progress_bar()
    # TFDS would speak of downloads and keep a folder for them.
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as downloads:
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(download_dir=downloads, download_config=config)
    index: dict[str, list[records.IndexRow]] = {}
    num_units = 0
    for split in clips_by_split:
        index[split] = []
        # TFDS shuffles by key, so only what it wrote knows the order.
        for example in builder.as_data_source(split):
            clip = records.decode_clip(example)
            index[split].append(records.IndexRow.of(clip))
            num_units = max(num_units, int(clip.units.max()) + 1 if len(clip.units) else 0)
        records.write_index(output, split, index[split])
    return index, num_units
