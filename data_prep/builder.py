"""Writes clips as the TFDS dataset `clips` in ArrayRecord files, without TensorFlow, their sound and pictures in files
of their own beside it, and the index."""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from mmpretrain import records
from mmpretrain.index import Index, IndexBuilder, write_index
from mmpretrain.storage import ViewWriter

Shard = Callable[[], Iterator[records.Clip]]  # the clips of one file, when called


class Clips(tfds.core.ShardBasedBuilder, skip_registration=True):
    """The dataset of one prepared corpus; `shards_by_split` are called one after the other.

    Not TFDS's usual builder, which shuffles: beyond 1 GB it needs TensorFlow for it. `making` has, by split, the index
    of what was written. compression: of sound and pictures, one of `storage.COMPRESSIONS`.
    """

    VERSION = tfds.core.Version(records.DATASET_VERSION)
    code_path = None  # looking it up needs `importlib_resources`, which TFDS does not bring

    def __init__(
        self, shards_by_split: Mapping[str, Sequence[Shard]], schema: records.Schema, data_dir: Path, compression: str
    ):
        self._shards_by_split = shards_by_split
        self._schema, self._compression = schema, compression
        self.making = {split: IndexBuilder(schema.labels) for split in shards_by_split}
        super().__init__(data_dir=str(data_dir), file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Clips of talking people: sound, mouth and face on a 25 Hz grid (see mmpretrain.records).",
            features=records.dataset_features(self._schema),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager):
        del dl_manager  # nothing is downloaded
        return {
            split: [functools.partial(self._examples, split, number, shard) for number, shard in enumerate(shards)]
            for split, shards in self._shards_by_split.items()
        }

    def _examples(self, split: str, number: int, shard: Shard):
        # While it writes, `data_path` is a folder that takes its name at the end.
        place = Path(self.data_path), split, number, len(self._shards_by_split[split])
        with ViewWriter(*place, self._compression) as views:
            for clip in shard():
                encoded = records.encode_clip(clip, self._schema)
                self.making[split].append(records.IndexRow.of(clip, self._schema))
                views.write(clip)
                yield clip.clip_id, encoded


def write_dataset(
    output: Path,
    shards_by_split: Mapping[str, Sequence[Shard]],
    schema: records.Schema,
    compression: str = "none",
) -> dict[str, Index]:
    """Writes all splits, a file for each shard, and their index files; a dataset that is there is replaced.

    Returns the index of each split, in record order, which is that of the shards. Raises ValueError for a clip
    that the schema does not fit, and for a split without a clip; OSError where the disk does not take it.
    """
    shutil.rmtree(output / records.DATASET_NAME, ignore_errors=True)
    builder = Clips(shards_by_split, schema, output, compression)
    tfds.disable_progress_bar()
    # TFDS would speak of downloads and keep a folder for them.
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as downloads:
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        try:
            builder.download_and_prepare(download_dir=downloads, download_config=config)
        except RuntimeError as error:
            if f"writing {output}" in str(error):  # ArrayRecord's, of a full disk for example
                raise OSError(str(error)) from error
            raise
    indices = {split: making.index() for split, making in builder.making.items()}
    for split, index in indices.items():
        if not len(index):
            raise ValueError(f"none of the clips of split {split} could be written; see report.csv for the reasons")
        write_index(output, split, index)
    return indices
