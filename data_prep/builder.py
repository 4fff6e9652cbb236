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

    def __init__(self, clips_by_split: ClipsBySplit, schema: records.Schema, data_dir: Path):
        self._clips_by_split = clips_by_split
        self._schema = schema
        super().__init__(data_dir=str(data_dir), file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Clips of talking people: sound, mouth and face on a 25 Hz grid (see mmpretrain.records).",
            features=records.dataset_features(self._schema),
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        return {records.stored_split(split): self._generate_examples(split) for split in self._clips_by_split}

    def _generate_examples(self, split: str):
        clip = None
        for clip in self._clips_by_split[split]():
            yield clip.clip_id, records.encode_clip(clip, self._schema)
        if clip is None:
            raise ValueError(f"none of the clips of split {split} could be written; see report.csv for the reasons")


def write_dataset(
    output: Path, clips_by_split: ClipsBySplit, schema: records.Schema
) -> dict[str, list[records.IndexRow]]:
    """Writes all splits and their index files; a dataset that is there, whole or not, is replaced.

    Returns the index rows of each split, in record order. Raises ValueError for a clip that the schema does not fit.
    """
    shutil.rmtree(output / records.DATASET_NAME, ignore_errors=True)
    builder = Clips(clips_by_split, schema, data_dir=output)
    tfds.disable_progress_bar()
    # TFDS would speak of downloads and keep a folder for them.
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as downloads:
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(download_dir=downloads, download_config=config)
    index: dict[str, list[records.IndexRow]] = {}
    for split in clips_by_split:
        # TFDS shuffles by key, so only what it wrote knows the order.
        stored = builder.as_data_source(records.stored_split(split))
        written = (records.decode_clip(example, schema) for example in stored)
        index[split] = [records.IndexRow.of(clip, schema) for clip in written]
        records.write_index(output, split, index[split])
    return index
