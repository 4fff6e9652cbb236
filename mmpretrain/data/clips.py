"""The clips of one or more prepared corpora as one table: what planning needs to know of each, and how to load it."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmpretrain import records
from mmpretrain.config import CorpusConfig, DataConfig
from mmpretrain.data.inputs import INPUTS
from mmpretrain.files import read_json
from mmpretrain.randomness import unit_hash
from mmpretrain.records import LABEL_KINDS, Clip, IndexRow, Schema


class RecordSource:
    """The records of one split of one corpus by position. Opened at first use; threads may share it; it pickles."""

    def __init__(self, corpus_dir: str, split: str):
        self.corpus_dir = corpus_dir
        self.split = split

    def __reduce__(self):
        return RecordSource, (self.corpus_dir, self.split)

    def __getitem__(self, record: int) -> Clip:
        return records.decode_clip(self._data_source[record], self._schema)

    @functools.cached_property
    def _schema(self) -> Schema:
        return records.read_schema(self.corpus_dir)

    @functools.cached_property
    def _data_source(self):
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(records.dataset_dir(self.corpus_dir))
        return builder.as_data_source(self.split)


@dataclasses.dataclass(frozen=True, eq=False)
class ClipTable:
    """N clips, in an order that depends on the corpora alone: corpus by corpus, split by split, as recorded.

    rows: what is known of each clip; its `clip_id` is `corpus/clip` where there are several corpora.
    weights: float64 [N], how often a clip appears in an epoch.
    places: int64 [N, 2], for each clip a position in `sources` and a record there.
    label_kinds: by name, the kind of every label column that one of the corpora has.
    """

    rows: list[IndexRow]
    weights: np.ndarray
    sources: tuple[RecordSource, ...]
    places: np.ndarray
    label_kinds: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def clip_ids(self) -> list[str]:
        return [row.clip_id for row in self.rows]

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """int32 [N], in frames."""
        return np.array([row.num_frames for row in self.rows], np.int32)

    def has(self, name: str) -> np.ndarray:
        """bool [N]: which clips have "audio", "video" or the track of that name."""
        if name not in self._has:
            self._has[name] = np.array([name in row.has for row in self.rows], bool)
        return self._has[name]

    @functools.cached_property
    def _has(self) -> dict[str, np.ndarray]:
        return {}

    def label(self, name: str) -> list[str] | list[tuple[str, ...]] | np.ndarray:
        """The label column of that name over the table, as the index keeps it, empty where a clip has none.

        Words or tuples of words; of numbers float64 [N], NaN for none; of texts and tokens their lengths, int32 [N].
        Raises ValueError if none of the corpora has the column.
        """
        if name not in self.label_kinds:
            columns = ", ".join(sorted(self.label_kinds)) or "none"
            raise ValueError(
                f"the corpora {self.folders()} have no label column {name!r} (columns: {columns}); "
                "use a corpus that was prepared with this label"
            )
        kind = LABEL_KINDS[self.label_kinds[name]]
        none = kind.indexed(kind.empty)
        column = [row.labels.get(name, none) for row in self.rows]
        dtype = {int: np.int32, float: np.float64}.get(type(none))
        return column if dtype is None else np.array(column, dtype)

    def words(self, i: int) -> list[str]:
        """What its labels of kind "class" say of the clip of row i."""
        said = self.rows[i].labels
        return [said[name] for name, kind in self.label_kinds.items() if kind == "class" and name in said]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes with the selection and with the content of any clip in it. A whole corpus has its corpus.json's."""
        return records.corpus_fingerprint(self.rows)

    def load(self, i: int) -> Clip:
        """The clip of row i, named as in the table. Raises ValueError naming the clip if its record cannot be read."""
        row, (source_index, record) = self.rows[i], self.places[i]
        source = self.sources[source_index]
        try:
            clip = source[record]
        except Exception as error:  # a damaged file may fail in any layer: ArrayRecord, protobuf, TFDS, JSON
            raise ValueError(
                f"clip {row.clip_id!r} (record {record} of {source.split!r} in {source.corpus_dir}) cannot be read: "
                f"{type(error).__name__}: {error}; prepare the corpus again"
            ) from error
        if clip.num_frames != row.num_frames or not row.clip_id.endswith(clip.clip_id):
            raise ValueError(
                f"{records.index_path(source.corpus_dir, source.split)} says that record {record} is {row.clip_id!r} "
                f"of {row.num_frames} frames, but it is {clip.clip_id!r} of {clip.num_frames}; prepare the corpus again"
            )
        return dataclasses.replace(clip, clip_id=row.clip_id)

    def select(self, keep: np.ndarray) -> ClipTable:
        """The rows that `keep` names: bool [N], or positions."""
        kept = np.arange(len(self))[keep]
        rows = [self.rows[i] for i in kept]
        return dataclasses.replace(self, rows=rows, weights=self.weights[kept], places=self.places[kept])

    def require(self, modalities: Sequence[str]) -> ClipTable:
        """The clips that have at least one of the model's modalities. Raises ValueError if there is none."""
        has = np.zeros(len(self), bool)
        for modality in modalities:
            has |= self.has(INPUTS[modality].needs)
        if not has.any():
            raise ValueError(
                f"model.modalities={tuple(modalities)}, but none of the {len(self)} clips of {self.folders()} has "
                f"{' or '.join(modalities)}; change model.modalities or prepare a corpus that has it"
            )
        return self.select(has)

    def folders(self) -> str:
        """The corpora, for messages."""
        return ", ".join(dict.fromkeys(str(source.corpus_dir) for source in self.sources))


def open_clips(corpora: Sequence[CorpusConfig], splits: Sequence[str] = records.SPLITS) -> ClipTable:
    """The clips of `splits` of all corpora; a corpus need not have every split.

    Raises FileNotFoundError for a folder that is missing or not whole, ValueError if there is no clip or two corpora
    share a name.
    """
    table = _join(corpora, _open_each(corpora, splits))
    if not len(table):
        raise ValueError(f"data.corpora: {_paths(corpora)} has no clip in {' or '.join(splits)}; prepare more clips")
    return table


def training_and_validation(data: DataConfig) -> tuple[ClipTable, ClipTable]:
    """The clips to train on and those to validate on, after `exclude_speakers`, `min_frames` and `long_clips`.

    Validation is the split of that name where a corpus has one, else a share `validation_share` of its training clips,
    chosen by a hash of the clip's id (0: none). Raises what `open_clips` raises, and ValueError if nothing is left to
    train on or an excluded speaker does not occur.
    """
    tables = _open_each(data.corpora, ("train", "validation"))
    _check_speakers(data, tables)
    dropped = Counter()
    for i, table in enumerate(tables):
        reasons = [_reason_to_drop(row, data) for row in table.rows]
        dropped.update(filter(None, reasons))
        tables[i] = table.select(np.array([not reason for reason in reasons], bool))
    held_out = np.concatenate([_held_out(table, data.validation_share) for table in tables])
    table = _join(data.corpora, tables)
    if held_out.all():
        causes = [f"{count} {reason}" for reason, count in dropped.items()] + [f"{len(table)} for validation"]
        raise ValueError(
            f"data.corpora: {_paths(data.corpora)} leaves no clip to train on ({', '.join(causes)}); "
            f"change these fields or prepare more clips"
        )
    return table.select(~held_out), table.select(held_out)


def _reason_to_drop(row: IndexRow, data: DataConfig) -> str:
    if row.speaker in data.exclude_speakers:
        return "of data.exclude_speakers"
    if row.num_frames < data.min_frames:
        return f"shorter than data.min_frames={data.min_frames}"
    if data.long_clips == "drop" and row.num_frames > max(data.bucket_frames):
        return f"longer than all of data.bucket_frames={data.bucket_frames}"
    return ""


def _check_speakers(data: DataConfig, tables: Sequence[ClipTable]) -> None:
    known = {row.speaker for table in tables for row in table.rows}
    if unknown := sorted(set(data.exclude_speakers) - known):
        raise ValueError(
            f"data.exclude_speakers={unknown}: no clip of {_paths(data.corpora)} is theirs; "
            f"the speakers there are {sorted(known)[:30]}"
        )


def _held_out(table: ClipTable, share: float) -> np.ndarray:
    """bool [N]: the clips of one corpus that are for validation."""
    if any(source.split == "validation" for source in table.sources):
        return np.array([row.split == "validation" for row in table.rows], bool)
    hashes = np.array([unit_hash("valid", clip_id) for clip_id in table.clip_ids])
    held_out = hashes < share
    if share > 0 and len(table) > 1 and not held_out.any():
        held_out[hashes.argmin()] = True
    return held_out


def _open_each(corpora: Sequence[CorpusConfig], splits: Sequence[str]) -> list[ClipTable]:
    if not corpora:
        raise ValueError("data.corpora is empty; name a prepared corpus (`python -m data_prep --help` says how)")
    return [_open_corpus(corpus, splits) for corpus in corpora]


def _open_corpus(corpus: CorpusConfig, splits: Sequence[str]) -> ClipTable:
    whole = _read_corpus(corpus.path)
    present = [split for split in splits if split in whole["splits"]]
    indices = [records.read_index(corpus.path, split) for split in present]
    places = [(source, record) for source, index in enumerate(indices) for record in range(len(index))]
    return ClipTable(
        rows=[row for index in indices for row in index],
        weights=np.full(len(places), corpus.weight, np.float64),
        sources=tuple(RecordSource(corpus.path, split) for split in present),
        places=np.array(places, np.int64).reshape(-1, 2),
        label_kinds=Schema.from_json(whole["schema"]).labels,
    )


def _read_corpus(path: str) -> dict:
    """The content of corpus.json, which only a whole corpus has."""
    command = f"`python -m data_prep CORPUS --source DIR --output {path}`"
    if not Path(path).is_dir():
        raise FileNotFoundError(f"data.corpora: the folder {path!r} does not exist; make it with {command}")
    file = Path(path) / records.CORPUS_FILE
    if not file.exists():
        raise FileNotFoundError(
            f"data.corpora: {path!r} is not a whole corpus: it has no {records.CORPUS_FILE}, which is written last; "
            f"finish it with {command}"
        )
    if not records.dataset_dir(path).is_dir():
        found = ", ".join(sorted(child.name for child in records.dataset_dir(path).parent.glob("*.*.*"))) or "none"
        raise ValueError(
            f"data.corpora: {path!r} holds records of version {found}, but this program reads "
            f"{records.DATASET_VERSION}; prepare it again with {command} --overwrite"
        )
    return read_json(file)


def _join(corpora: Sequence[CorpusConfig], tables: Sequence[ClipTable]) -> ClipTable:
    """One table of several corpora; with more than one, clips are named `corpus/clip`."""
    if len(tables) == 1:
        return tables[0]
    names = [_read_corpus(corpus.path)["name"] for corpus in corpora]
    if len(set(names)) < len(names):
        raise ValueError(f"data.corpora: {_paths(corpora)} are called {names} in {records.CORPUS_FILE}; rename one")
    shifts = np.cumsum([0, *(len(table.sources) for table in tables[:-1])])
    return ClipTable(
        rows=[
            dataclasses.replace(row, clip_id=f"{name}/{row.clip_id}")
            for name, table in zip(names, tables, strict=True)
            for row in table.rows
        ],
        weights=np.concatenate([table.weights for table in tables]),
        sources=tuple(source for table in tables for source in table.sources),
        places=np.concatenate(
            [table.places + np.array([shift, 0]) for shift, table in zip(shifts, tables, strict=True)]
        ),
        label_kinds=_join_kinds(names, tables),
    )


def _join_kinds(names: Sequence[str], tables: Sequence[ClipTable]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for corpus, table in zip(names, tables, strict=True):
        for name, kind in table.label_kinds.items():
            if joined.setdefault(name, kind) != kind:
                raise ValueError(
                    f"data.corpora: the label {name!r} is of kind {kind!r} in {corpus!r}, but {joined[name]!r} in a "
                    "corpus before it; leave one of them out, or prepare it with the label under another name"
                )
    return joined


def _paths(corpora: Sequence[CorpusConfig]) -> str:
    return ", ".join(corpus.path for corpus in corpora)
