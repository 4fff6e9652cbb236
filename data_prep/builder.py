"""Writes clips as the TFDS dataset `clips` in ArrayRecord files, without TensorFlow, their sound and pictures in files
of their own beside it, and the index."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from mmpretrain import records
from mmpretrain.index import Index, IndexBuilder, write_index
from mmpretrain.storage import ViewWriter, shard_path

Shard = Callable[[], Iterator[records.Clip]]  # the clips of one file, when called


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """A file of clips that is to be written into `folder`, with those of their views: `number` of `num_shards`."""

    folder: Path
    split: str
    number: int
    num_shards: int
    shard: Shard
    schema: records.Schema
    compression: str


def write_shard(job: ShardJob) -> list[records.IndexRow]:
    """Returns what the index has to say of the clips, in record order. Raises what `write_dataset` raises.

    The same clips always make the same bytes.
    """
    place = job.split, job.number, job.num_shards
    features = records.dataset_features(job.schema)
    serializer = ExampleSerializer(features.get_serialized_info())
    rows = []
    with contextlib.ExitStack() as stack:
        writer = ArrayRecordWriter(str(shard_path(job.folder, records.DATASET_NAME, *place)), "group_size:1")
        stack.callback(writer.close)
        views = stack.enter_context(ViewWriter(job.folder, *place, job.compression))
        for clip in job.shard():
            example = serializer.get_tf_example(features.encode_example(records.encode_clip(clip, job.schema)))
            writer.write(example.SerializeToString(deterministic=True))  # else in an order that each process draws
            views.write(clip)
            rows.append(records.IndexRow.of(clip, job.schema))
    return rows


WriteShards = Callable[[Sequence[ShardJob]], Iterable[Sequence[records.IndexRow]]]


def write_in_turn(jobs: Sequence[ShardJob]) -> Iterator[list[records.IndexRow]]:
    """In this process, one after the other."""
    return map(write_shard, jobs)


class Clips(tfds.core.ShardBasedBuilder, skip_registration=True):
    """The dataset of one prepared corpus.

    Not TFDS's usual builder, which shuffles: beyond 1 GB it needs TensorFlow for it; nor the way that its builder of
    shards writes them, which leaves no place for the views. `making` has, by split, the index of what was written.
    compression: of sound and pictures, one of `storage.COMPRESSIONS`.
    """

    VERSION = tfds.core.Version(records.DATASET_VERSION)
    code_path = None  # looking it up needs `importlib_resources`, which TFDS does not bring

    def __init__(
        self,
        shards_by_split: Mapping[str, Sequence[Shard]],
        schema: records.Schema,
        data_dir: Path,
        compression: str,
        write: WriteShards,
    ):
        self._shards_by_split = shards_by_split
        self._schema, self._compression, self._write = schema, compression, write
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
        raise NotImplementedError  # `_download_and_prepare` needs none

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        del dl_manager, download_config  # nothing is downloaded
        folder = Path(self.data_path)  # while it is written, one that takes its name at the end
        jobs = [
            ShardJob(folder, split, number, len(shards), shard, self._schema, self._compression)
            for split, shards in self._shards_by_split.items()
            for number, shard in enumerate(shards)
        ]
        lengths, sizes = ({split: [] for split in self._shards_by_split} for _ in range(2))
        for job, rows in zip(jobs, self._write(jobs), strict=True):
            for row in rows:
                self.making[job.split].append(row)
            path = shard_path(folder, records.DATASET_NAME, job.split, job.number, job.num_shards)
            lengths[job.split].append(len(rows))
            sizes[job.split].append(path.stat().st_size)
        splits = [
            tfds.core.SplitInfo(
                name=split, shard_lengths=lengths[split], num_bytes=sum(sizes[split]),
                filename_template=self._get_filename_template(split_name=split),
            )
            for split in self._shards_by_split
        ]  # fmt: skip
        self.info.set_splits(tfds.core.SplitDict(splits))


def write_dataset(
    output: Path,
    shards_by_split: Mapping[str, Sequence[Shard]],
    schema: records.Schema,
    compression: str = "none",
    write: WriteShards = write_in_turn,
) -> dict[str, Index]:
    """Writes all splits, a file for each shard, and their index files; a dataset that is there is replaced.

    write: writes the shards, wherever that may be, and yields what `write_shard` says of each, in their order.
    Returns the index of each split, in record order, which is that of the shards. Raises ValueError for a clip
    that the schema does not fit, and for a split without a clip; OSError where the disk does not take it.
    """
    shutil.rmtree(output / records.DATASET_NAME, ignore_errors=True)
    builder = Clips(shards_by_split, schema, output, compression, write)
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
