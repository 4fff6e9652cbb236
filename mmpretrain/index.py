"""The index of a split: what planning needs to know of each of its clips, column by column, in memory and on disk.

Nothing here is an object or a step of Python for every clip, other than where a preparation makes an index: 5 million
clips open in seconds and megabytes. Dims: N clips.
"""

from __future__ import annotations

import array
import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.columns import Column, Strings, Words
from mmpretrain.files import DamagedError, write_arrays
from mmpretrain.randomness import hash64, mixed
from mmpretrain.records import LABEL_KINDS, IndexRow, dataset_dir

PLAIN_KINDS = ("value", "text", "tokens")  # whose columns are arrays of numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """N clips. Row i of a split's index is record i of that split.

    clip_ids: all different. num_frames: int32. splits, speakers: "" is somebody unknown. has: by name ("audio",
    "video", tracks), bool. labels: by name, `Words` of words or tuples of words, float64 (NaN: none), or int32 lengths
    of texts and tokens. content_hashes, label_hashes: uint64, see `IndexRow`. id_hashes: uint64, of `clip_ids`: what is
    drawn by clip id comes of them.
    """

    clip_ids: Strings
    num_frames: np.ndarray
    splits: Words[str]
    speakers: Words[str]
    has: Mapping[str, np.ndarray]
    labels: Mapping[str, Words | np.ndarray]
    content_hashes: np.ndarray
    label_hashes: np.ndarray
    id_hashes: np.ndarray

    def __len__(self) -> int:
        return len(self.num_frames)

    @classmethod
    def of(cls, rows: Iterable[IndexRow], label_kinds: Mapping[str, str]) -> Index:
        builder = IndexBuilder(label_kinds)
        for row in rows:
            builder.append(row)
        return builder.index()

    def row(self, i: int) -> IndexRow:
        """All that is known of one clip, for messages and the like."""
        said = {name: column[i] for name, column in self.labels.items()}
        return IndexRow(
            self.clip_ids[i], int(self.num_frames[i]), tuple(name for name, has in self.has.items() if has[i]),
            self.splits[i], self.speakers[i],
            {name: value if isinstance(value, str | tuple) else value.item()
             for name, value in said.items() if value == value and (isinstance(value, np.floating) or value)},
            int(self.content_hashes[i]), int(self.label_hashes[i]),
        )  # fmt: skip

    def take(self, rows: np.ndarray) -> Index:
        """These rows: positions, or bool [N]."""
        return Index(*(_take(getattr(self, field.name), rows) for field in dataclasses.fields(self)))

    def deal(self, *keeps: np.ndarray) -> list[Index]:
        """`take` of each, bool [N], column by column, each of which is let go: this index is of no use afterwards.

        Hence a large index and its parts are never in memory together.
        """
        dealt: list[list[Any]] = [[] for _ in keeps]
        for field in dataclasses.fields(self):
            column = getattr(self, field.name)
            object.__setattr__(self, field.name, None)
            for part, keep in zip(dealt, keeps, strict=True):
                part.append(_take(column, keep))
            del column
        return [Index(*part) for part in dealt]

    @classmethod
    def join(cls, parts: Sequence[Index], label_kinds: Mapping[str, str]) -> Index:
        """One after the other. label_kinds: of all columns that one of them has."""
        if len(parts) == 1:
            return parts[0]
        plain = {name: np.concatenate([getattr(part, name) for part in parts])
                 for name in ("num_frames", "content_hashes", "label_hashes", "id_hashes")}  # fmt: skip
        has = dict.fromkeys(name for part in parts for name in part.has)
        return cls(
            clip_ids=Strings.join([part.clip_ids for part in parts]),
            splits=Words.join([part.splits for part in parts]),
            speakers=Words.join([part.speakers for part in parts]),
            has={
                name: np.concatenate([part.has.get(name, np.zeros(len(part), bool)) for part in parts]) for name in has
            },
            labels={name: _join_labels(parts, name, kind) for name, kind in label_kinds.items()},
            **plain,
        )

    def named(self, corpus: str) -> Index:
        """The same clips called `corpus/clip`."""
        return dataclasses.replace(
            self, clip_ids=self.clip_ids.prefixed(corpus + "/"), id_hashes=mixed(self.id_hashes, "corpus", corpus)
        )

    def fingerprint(self, *columns: str) -> str:
        """16 hex digits that change with the order of the clips and with what these columns hold, by default all.

        columns: names of fields, and `labels/NAME` for one of the labels. Clip ids count by their hashes.
        """
        everything = ("id_hashes", "num_frames", "splits", "speakers", "has", "content_hashes", "label_hashes")
        digest = hashlib.blake2b(digest_size=8)
        for name in columns or everything:
            field, _, label = name.partition("/")
            column = getattr(self, field)[label] if label else getattr(self, field)
            parts = sorted(column.items()) if isinstance(column, Mapping) else [("", column)]
            for key, values in parts:
                if isinstance(values, np.ndarray) and values.dtype == bool and not values.any():
                    continue  # a track that no clip has is no track
                values = _hashes_of(values) if isinstance(values, Words) else np.ascontiguousarray(values)
                digest.update(f"{name}:{key}:{values.dtype}:{len(values)};".encode())
                digest.update(values.data)
        return digest.hexdigest()


class IndexBuilder:
    """Makes an index row by row and keeps no row. label_kinds: as in `records.Schema`."""

    def __init__(self, label_kinds: Mapping[str, str]):
        self._ids, self._ends = bytearray(), array.array("Q")
        self._num_frames, self._hashes = array.array("i"), array.array("Q")
        self._splits, self._speakers, self._has = _Words(), _Words(), _Words()
        self._none = {name: LABEL_KINDS[kind].indexed(LABEL_KINDS[kind].empty) for name, kind in label_kinds.items()}
        self._said = {
            name: array.array({float: "d", int: "i"}[type(none)]) if label_kinds[name] in PLAIN_KINDS else _Words()
            for name, none in self._none.items()
        }

    def append(self, row: IndexRow) -> None:
        self._ids += row.clip_id.encode()
        self._ends.append(len(self._ids))
        self._num_frames.append(row.num_frames)
        self._hashes.extend((row.content_hash, row.label_hash, id_hash(row.clip_id)))
        self._splits.append(row.split)
        self._speakers.append(row.speaker)
        self._has.append(row.has)
        for name, column in self._said.items():
            column.append(row.labels.get(name, self._none[name]))

    def index(self) -> Index:
        """Of the rows so far."""
        offsets = np.array([0, *self._ends], np.min_scalar_type(len(self._ids)))
        content_hashes, label_hashes, id_hashes = np.array(self._hashes, np.uint64).reshape(-1, 3).T.copy()
        has = self._has.column()
        names = sorted({name for names in has.words for name in names}, key=_sound_and_picture_first)
        return Index(
            Strings.unpack(np.frombuffer(bytes(self._ids), np.uint8), offsets), np.array(self._num_frames, np.int32),
            self._splits.column(), self._speakers.column(),
            {name: has.map({names: name in names for names in has.words}, False, bool) for name in names},
            {name: np.array(column) if isinstance(column, array.array) else column.column()
             for name, column in self._said.items()},
            content_hashes, label_hashes, id_hashes,
        )  # fmt: skip


def id_hash(clip_id: str) -> int:
    """64 bits of a clip id; of their draw is whether the clip is held out, as it was in every version."""
    return hash64("valid", clip_id)


def index_path(corpus_dir: str | Path, split: str) -> Path:
    return dataset_dir(corpus_dir) / f"index-{split}.npz"


def write_index(corpus_dir: str | Path, split: str, index: Index) -> None:
    """The index of one split, whole or not at all."""
    ids, offsets = index.clip_ids.pack()
    arrays = {"clip_ids/bytes": ids, "clip_ids/offsets": offsets, "num_frames": index.num_frames,
              "content_hashes": index.content_hashes, "label_hashes": index.label_hashes,
              "id_hashes": index.id_hashes, **_stored("speakers", index.speakers)}  # fmt: skip
    for group, columns in (("has", index.has), ("labels", index.labels)):
        for name, column in columns.items():
            arrays |= _stored(f"{group}/{name}", column)
    write_arrays(index_path(corpus_dir, split), **arrays)


def read_index(corpus_dir: str | Path, split: str) -> Index:
    """Raises DamagedError naming the file where it is not what `write_index` writes."""
    path = index_path(corpus_dir, split)
    try:
        with np.load(path, allow_pickle=False) as file:
            stored = {name: file[name] for name in file.files}
        groups = {
            group: {name: _loaded(stored, f"{group}/{name}") for name in dict.fromkeys(
                name.split("/")[1] for name in stored if name.startswith(f"{group}/"))}
            for group in ("has", "labels")
        }  # fmt: skip
        return Index(
            Strings.unpack(stored["clip_ids/bytes"], stored["clip_ids/offsets"]), stored["num_frames"],
            Words.same(split, len(stored["num_frames"])), _loaded(stored, "speakers"), groups["has"], groups["labels"],
            stored["content_hashes"], stored["label_hashes"], stored["id_hashes"],
        )  # fmt: skip
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        why = f"{type(error).__name__}: {error}"
        raise DamagedError(f"{path} cannot be read ({why}); prepare the corpus again") from error


def _stored(name: str, column: Words | np.ndarray) -> dict[str, np.ndarray]:
    if isinstance(column, np.ndarray):
        return {name: column}
    words = json.dumps(column.words).encode()
    return {f"{name}/codes": column.codes, f"{name}/words": np.frombuffer(words, np.uint8)}


def _loaded(stored: Mapping[str, np.ndarray], name: str) -> Words | np.ndarray:
    if f"{name}/codes" not in stored:
        return stored[name]
    words = json.loads(stored[f"{name}/words"].tobytes())
    return Words(stored[f"{name}/codes"], tuple(tuple(word) if isinstance(word, list) else word for word in words))


def _hashes_of(column: Words) -> np.ndarray:
    """uint64 [N]: of every value, whatever the order of the vocabulary."""
    of_words = [hash64(json.dumps(word)) for word in column.words]
    return np.array(of_words, np.uint64)[column.codes]


def _sound_and_picture_first(name: str) -> tuple[bool, str]:
    return name not in ("audio", "video"), name


def _take(column: Any, rows: np.ndarray) -> Any:
    if isinstance(column, Mapping):
        return {name: _take(values, rows) for name, values in column.items()}
    return column.take(rows) if isinstance(column, Column) else column[rows]


def _join_labels(parts: Sequence[Index], name: str, kind: str) -> Words | np.ndarray:
    none = LABEL_KINDS[kind].indexed(LABEL_KINDS[kind].empty)
    if kind in PLAIN_KINDS:
        dtype = {float: np.float64, int: np.int32}[type(none)]
        return np.concatenate([part.labels.get(name, np.full(len(part), none, dtype)) for part in parts])
    return Words.join([part.labels.get(name, Words.same(none, len(part))) for part in parts])


class _Words:
    """Makes `Words` one by one."""

    def __init__(self):
        self._codes, self._code_of = array.array("I"), {}

    def append(self, word: Any) -> None:
        self._codes.append(self._code_of.setdefault(word, len(self._code_of)))

    def column(self) -> Words:
        dtype = np.min_scalar_type(max(len(self._code_of) - 1, 0))
        return Words(np.array(self._codes, dtype), tuple(self._code_of))
