"""The clips of one or more prepared corpora as one table: what planning needs to know of each, and how to load it."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain import records
from mmpretrain.columns import Strings, Words
from mmpretrain.config import CorpusConfig, DataConfig
from mmpretrain.data.inputs import INPUTS
from mmpretrain.data.manifest import chosen_contents
from mmpretrain.data.stored import RecordSource, StoredClip
from mmpretrain.data.unreadable import Unreadable, UnreadableClipError
from mmpretrain.files import DamagedError, read_json
from mmpretrain.index import Index, index_path, read_index
from mmpretrain.prepared import check_corpus
from mmpretrain.randomness import mixed, unit_of
from mmpretrain.records import Clip, Schema
from mmpretrain.storage import shard_of


@dataclasses.dataclass(frozen=True, eq=False)
class ClipTable:
    """N clips, in an order that depends on the corpora alone: corpus by corpus, split by split, as recorded.

    index: what is known of each clip; its id is `corpus/clip` where there are several corpora.
    sources, weight_of_source: the splits of corpora that they are of, and how often a clip of each is in an epoch.
    source_N, record_N: for each clip a position in `sources`, uint16, and a record there, int32.
    label_kinds: by name, the kind of every label column that one of the corpora has.
    unreadable: takes what whoever loads clips passes over; one for all tables of a run.
    """

    index: Index
    sources: tuple[RecordSource, ...]
    weight_of_source: tuple[float, ...]
    source_N: np.ndarray
    record_N: np.ndarray
    label_kinds: Mapping[str, str]
    unreadable: Unreadable

    def __len__(self) -> int:
        return len(self.index)

    @property
    def clip_ids(self) -> Strings:
        """Decoded one by one, as they are asked for."""
        return self.index.clip_ids

    @property
    def corpus(self) -> str | None:
        """The name of the corpus that all clips are of; None: of several, and clips are named `corpus/clip`."""
        if not self.sources or self.sources[0].prefix:
            return None
        return read_json(Path(self.sources[0].corpus_dir) / records.CORPUS_FILE)["name"]

    @property
    def lengths(self) -> np.ndarray:
        """int32 [N], in frames."""
        return self.index.num_frames

    @property
    def speakers(self) -> Words[str]:
        """ "" where nobody knows who speaks."""
        return self.index.speakers

    @property
    def content_hashes(self) -> np.ndarray:
        """uint64 [N], of the pictures, sounds and tracks of each clip, whatever it is called."""
        return self.index.content_hashes

    @property
    def weights(self) -> np.ndarray:
        """float64 [N], how often a clip appears in an epoch."""
        return np.array(self.weight_of_source, np.float64)[self.source_N]

    def has(self, name: str) -> np.ndarray:
        """bool [N]: which clips have "audio", "video" or the track of that name."""
        return self.index.has[name] if name in self.index.has else np.zeros(len(self), bool)

    def draws(self, name: str) -> np.ndarray:
        """float64 [N] in [0, 1), one for each clip id and name, as if drawn uniformly."""
        return unit_of(mixed(self.index.id_hashes, name))

    def label(self, name: str) -> Words[str] | Words[tuple[str, ...]] | np.ndarray:
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
        return self.index.labels[name]

    def words(self, i: int) -> list[str]:
        """What its labels of kind "class" say of the clip of row i."""
        said = (self.label(name)[i] for name, kind in self.label_kinds.items() if kind == "class")
        return [word for word in said if word]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the clips in their order, their names and what is in them, not of what anybody said of them."""
        return self.index.fingerprint("id_hashes", "num_frames", "content_hashes")

    def open(self, i: int) -> StoredClip:
        """The clip of row i, named as in the table, each part of which is read when it is first asked for."""
        has = tuple(name for name, column in self.index.has.items() if column[i])
        source = self.sources[self.source_N[i]]
        return StoredClip(self.clip_ids[i], int(self.lengths[i]), has, source, int(self.record_N[i]))

    def load(self, i: int) -> Clip:
        """All of the clip of row i. Raises UnreadableClipError if a part of it cannot be read."""
        return self.open(i).whole()

    def select(self, keep: np.ndarray) -> ClipTable:
        """The rows that `keep` names: bool [N], or positions."""
        rows = np.flatnonzero(keep) if keep.dtype == bool else keep
        return dataclasses.replace(
            self, index=self.index.take(rows), source_N=self.source_N[rows], record_N=self.record_N[rows]
        )  # fmt: skip

    def has_any(self, modalities: Sequence[str]) -> np.ndarray:
        """bool [N]: which clips have at least one of the model's modalities."""
        return np.any([self.has(INPUTS[modality].needs) for modality in modalities], axis=0)

    def deal(self, *keeps: np.ndarray) -> list[ClipTable]:
        """`select` of each, bool [N]; this table is of no use afterwards (see `Index.deal`)."""
        return [
            dataclasses.replace(self, index=index, source_N=self.source_N[keep], record_N=self.record_N[keep])
            for index, keep in zip(self.index.deal(*keeps), keeps, strict=True)
        ]

    def require(self, modalities: Sequence[str], part: str = "") -> ClipTable:
        """The clips that have at least one of the model's modalities. Raises ValueError if there is none.

        part: what the clips are for, such as "validation", for messages.
        """
        has = self.has_any(modalities)
        if not has.any():
            remedy = "change model.modalities or prepare a corpus that has it"
            if part == "validation":
                remedy = (
                    "prepare validation clips that have it, or the corpus without its validation split (then "
                    "data.validation_share of its training clips are held out), or change model.modalities"
                )
            raise ValueError(
                f"model.modalities={tuple(modalities)}, but none of the {len(self)} {part + ' ' if part else ''}clips "
                f"of {self.folders()} has {' or '.join(modalities)}; {remedy}"
            )
        return self if has.all() else self.select(has)

    def text(self, i: int) -> str:
        """What is spoken in a clip; nothing where it cannot be read, which is counted."""
        try:
            return self.open(i).labels.get("text", "")
        except UnreadableClipError as error:
            self.unreadable.add(error)
            return ""

    def crop_size(self, view: str) -> int:
        """The side in pixels of the crops of that view, "mouth" or "face", that most of the clips have."""
        sides = np.array([getattr(records.read_schema(source.corpus_dir), f"{view}_size") for source in self.sources])
        of_clips = sides[self.source_N[self.has("video")]]
        return int(np.bincount(of_clips).argmax()) if len(of_clips) else int(sides[0])

    def folders(self) -> str:
        """The corpora, for messages."""
        return ", ".join(dict.fromkeys(str(source.corpus_dir) for source in self.sources))


def open_clips(
    corpora: Sequence[CorpusConfig], splits: Sequence[str] = records.SPLITS, unreadable: Unreadable | None = None
) -> ClipTable:
    """The clips of `splits` of all corpora; a corpus need not have every split.

    unreadable: of the table; None: no clip may be passed over.
    Raises FileNotFoundError for a folder that is missing or not whole, ValueError if there is no clip or two corpora
    share a name.
    """
    table = _join(corpora, _open_each(corpora, splits, unreadable or Unreadable()))
    if not len(table):
        raise ValueError(f"data.corpora: {_paths(corpora)} has no clip in {' or '.join(splits)}; prepare more clips")
    return table


def training_and_validation(
    data: DataConfig,
    excluded: Callable[[ClipTable], np.ndarray] | None = None,
    unreadable: Unreadable | None = None,
) -> tuple[ClipTable, ClipTable]:
    """The clips to train on and those to validate on, after `exclude_speakers`, `min_frames`, `long_clips` and what a
    corpus is to give of itself.

    excluded: of a table, bool [N], the clips that `exclude_folds` leaves out. unreadable: as in `open_clips`.
    Validation is the split of that name where a corpus has one, else a share `validation_share` of its training clips,
    chosen by a hash of the clip's id (0: none); a corpus may say otherwise, see `CorpusConfig`. Of a corpus at most
    `max_validation_clips` are validated on: others of a share are trained on, others of a split are left out. Raises
    what `open_clips` raises, and ValueError if nothing is left to train on or an excluded speaker does not occur.
    """
    tables = _open_each(data.corpora, ("train", "validation"), unreadable or Unreadable())
    _check_speakers(data, tables)
    dropped = Counter()
    for i, table in enumerate(tables):
        drop = np.zeros(len(table), bool)
        of_folds = [(f"of data.exclude_folds={data.exclude_folds}", excluded(table))] if excluded else []
        for reason, for_it in [*of_folds, *_reasons_to_drop(table, data), *_not_of_part(table, data.corpora[i])]:
            dropped[reason] += int((for_it & ~drop).sum())
            drop |= for_it
        if drop.any():
            (tables[i],) = table.deal(~drop)
    parts = [_held_out(table, corpus, data) for table, corpus in zip(tables, data.corpora, strict=True)]
    train, validation = (np.concatenate(masks) for masks in zip(*parts, strict=True))
    table = _join(data.corpora, tables)
    if not train.any():
        causes = [f"{n} {reason}" for reason, n in dropped.items() if n] + [f"{len(table)} for validation"]
        raise ValueError(
            f"data.corpora: {_paths(data.corpora)} leaves no clip to train on ({', '.join(causes)}); "
            f"change these fields or prepare more clips"
        )
    of_training, of_validation = table.deal(train, validation)
    return of_training, of_validation


def _reasons_to_drop(table: ClipTable, data: DataConfig) -> Iterator[tuple[str, np.ndarray]]:
    """(reason, bool [N]: which clips it holds for)."""
    yield "of data.exclude_speakers", table.speakers.map(dict.fromkeys(data.exclude_speakers, True), False, bool)
    yield f"shorter than data.min_frames={data.min_frames}", table.lengths < data.min_frames
    if data.long_clips == "drop":
        yield f"longer than all of data.bucket_frames={data.bucket_frames}", table.lengths > max(data.bucket_frames)


def _not_of_part(table: ClipTable, corpus: CorpusConfig) -> Iterator[tuple[str, np.ndarray]]:
    """(reason, bool [N]) of what the recipe does not take of a corpus. Raises ValueError for words that no clip has."""
    for field, wanted, column in (
        ("speakers", corpus.speakers, lambda: table.speakers),
        ("languages", corpus.languages, lambda: table.label("language")),
    ):
        if not wanted:
            continue
        there = set(column().kinds()) - {""}
        if unknown := sorted(set(wanted) - there):
            raise ValueError(
                f"data.corpora: {field}={wanted} of {corpus.path}: no clip is of {unknown[0]!r}; there are "
                f"{sorted(there)[:30]}"
            )
        yield f"of no one of {field} of {corpus.path}", ~column().map(dict.fromkeys(wanted, True), False, bool)
    if corpus.retrieved:
        kept = np.isin(table.content_hashes, chosen_contents(corpus.retrieved))
        if not kept.any():
            raise ValueError(
                f"data.corpora: none of the {len(table)} clips of {corpus.path} is in the manifest of "
                f"retrieved={corpus.retrieved!r}; name the corpus that it was made of"
            )
        yield f"not in the manifest of {corpus.retrieved}", ~kept


def _within_hours(table: ClipTable, train: np.ndarray, hours: float) -> np.ndarray:
    """bool [N]: of the clips to train on those that are drawn, of so many hours, but at least one."""
    rows = np.flatnonzero(train)
    if not hours or not len(rows):
        return train
    drawn = rows[np.argsort(table.draws("hours")[rows], kind="stable")]
    frames = np.cumsum(table.lengths[drawn], dtype=np.int64)
    kept = np.zeros(len(table), bool)
    kept[drawn[: max(1, int(np.searchsorted(frames, hours * 3600 * records.FRAME_RATE_HZ, side="right")))]] = True
    return kept


def _check_speakers(data: DataConfig, tables: Sequence[ClipTable]) -> None:
    if not data.exclude_speakers:
        return
    known = {speaker for table in tables for speaker in table.speakers.kinds()}
    if unknown := sorted(set(data.exclude_speakers) - known):
        raise ValueError(
            f"data.exclude_speakers={unknown}: no clip of {_paths(data.corpora)} is theirs; "
            f"the speakers there are {sorted(known)[:30]}"
        )


def _held_out(table: ClipTable, corpus: CorpusConfig, data: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    """bool [N] each: the clips of one corpus to train on, and those to validate on."""
    draws, most = unit_of(table.index.id_hashes), data.max_validation_clips or len(table)
    by_split = corpus.validation_share < 0 and any(source.split == "validation" for source in table.sources)
    if by_split:
        held_out = table.index.splits.map({"validation": True}, False, bool)
    else:
        share = data.validation_share if corpus.validation_share < 0 else corpus.validation_share
        held_out = draws < share
        if share > 0 and len(table) > 1 and not held_out.any():
            held_out[draws.argmin()] = True
    validation = held_out
    if held_out.sum() > most:
        rows = np.flatnonzero(held_out)
        validation = np.zeros(len(table), bool)
        validation[rows[np.argsort(draws[rows], kind="stable")[:most]]] = True
    train = ~held_out if by_split else ~validation
    return _within_hours(table, train, corpus.hours), validation


def _open_each(corpora: Sequence[CorpusConfig], splits: Sequence[str], unreadable: Unreadable) -> list[ClipTable]:
    if not corpora:
        raise ValueError("data.corpora is empty; name a prepared corpus (`python -m data_prep --help` says how)")
    return [_open_corpus(corpus, splits, unreadable) for corpus in corpora]


def _open_corpus(corpus: CorpusConfig, splits: Sequence[str], unreadable: Unreadable) -> ClipTable:
    damaged: dict[str, str] = {}
    whole = _read_corpus(corpus.path, damaged)
    present = [split for split in splits if split in whole["splits"]]
    indices = [read_index(corpus.path, split) for split in present]
    for split, index in zip(present, indices, strict=True):
        if len(index) != whole["splits"][split]["clips"]:
            raise DamagedError(
                f"{index_path(corpus.path, split)} has {len(index)} clips, but {records.CORPUS_FILE} says "
                f"{whole['splits'][split]['clips']}; prepare the corpus again"
            )
        unreadable.open(corpus.path, split, len(index))
    _count_lost(corpus.path, present, damaged, unreadable)
    kinds, counts = Schema.from_json(whole["schema"]).labels, [len(index) for index in indices]
    return ClipTable(
        index=Index.join(indices, kinds) if indices else Index.of([], kinds),
        sources=tuple(RecordSource(corpus.path, split) for split in present),
        weight_of_source=(corpus.weight,) * len(present),
        source_N=np.repeat(np.arange(len(present), dtype=np.uint16), counts),
        record_N=np.concatenate([np.zeros(0, np.int32), *(np.arange(count, dtype=np.int32) for count in counts)]),
        label_kinds=kinds,
        unreadable=unreadable,
    )


def _count_lost(path: str, splits: Sequence[str], damaged: Mapping[str, str], unreadable: Unreadable) -> None:
    """Raises DamagedError where too many clips are in damaged shards; a clip in two of them counts once."""
    shards = {place: why for name, why in damaged.items() if (place := shard_of(name)) and place[0] in splits}
    if shards:
        lengths = {split: RecordSource(path, split).shard_lengths for split in splits}
        lost = sum(lengths[split][number] for split, number in shards)
        unreadable.lose(lost, "data.corpora: " + " and ".join(shards.values()))


def _read_corpus(path: str, damaged: dict[str, str]) -> dict[str, Any]:
    """The content of corpus.json, of a whole corpus whose files are what was written, but for the shards in `damaged`,
    which takes them."""
    try:
        return check_corpus(path, damaged=damaged)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"data.corpora: {error}") from error


def _join(corpora: Sequence[CorpusConfig], tables: Sequence[ClipTable]) -> ClipTable:
    """One table of several corpora; with more than one, clips are named `corpus/clip`."""
    if len(tables) == 1:
        return tables[0]
    names = [read_json(Path(corpus.path) / records.CORPUS_FILE)["name"] for corpus in corpora]
    if len(set(names)) < len(names):
        raise ValueError(f"data.corpora: {_paths(corpora)} are called {names} in {records.CORPUS_FILE}; rename one")
    kinds = _join_kinds(names, tables)
    shifts = np.cumsum([0, *(len(table.sources) for table in tables[:-1])]).astype(np.uint16)
    return ClipTable(
        index=Index.join([table.index.named(name) for name, table in zip(names, tables, strict=True)], kinds),
        sources=tuple(
            RecordSource(source.corpus_dir, source.split, f"{name}/")
            for name, table in zip(names, tables, strict=True)
            for source in table.sources
        ),
        weight_of_source=tuple(weight for table in tables for weight in table.weight_of_source),
        source_N=np.concatenate([table.source_N + shift for shift, table in zip(shifts, tables, strict=True)]),
        record_N=np.concatenate([table.record_N for table in tables]),
        label_kinds=kinds,
        unreadable=tables[0].unreadable,
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
