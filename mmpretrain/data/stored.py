"""Clips of prepared corpora, of which each part is read when somebody first asks for it."""

from __future__ import annotations

import functools
from typing import Any, NoReturn

import numpy as np

from mmpretrain import records
from mmpretrain.data.unreadable import UnreadableClipError
from mmpretrain.index import index_path
from mmpretrain.records import Clip, Schema
from mmpretrain.storage import VIEWS, Records, decode_view, shard_lengths


class RecordSource:
    """What is stored of one split of one corpus. Opened at first use; threads may share it; it pickles.

    prefix: of the names that a table of several corpora has for its clips.
    """

    def __init__(self, corpus_dir: str, split: str, prefix: str = ""):
        self.corpus_dir, self.split, self.prefix = corpus_dir, split, prefix

    def __reduce__(self):
        return RecordSource, (self.corpus_dir, self.split, self.prefix)

    def described(self, record: int) -> Clip:
        """The clip as it is called in its corpus, without sound and pictures."""
        return records.decode_clip(self._features.deserialize_example_np(self.records("clips")[record]), self.schema)

    def view(self, record: int, view: str, clip_id: str, num_frames: int) -> np.ndarray:
        shape = (-1,) if view == "audio" else (num_frames, *self.frame_shape(view))
        return decode_view(self.records(view)[record], view, clip_id.removeprefix(self.prefix), shape)

    def frame_shape(self, view: str) -> tuple[int, ...]:
        return () if view == "audio" else (getattr(self.schema, f"{view}_size"),) * 2

    def records(self, part: str) -> Records:
        if part not in self._records:
            self._records[part] = Records(self._folder, part, self.split, self.shard_lengths)
        return self._records[part]

    @functools.cached_property
    def _records(self) -> dict[str, Records]:
        return {}

    @functools.cached_property
    def _folder(self):
        return records.dataset_dir(self.corpus_dir)

    @functools.cached_property
    def shard_lengths(self) -> list[int]:
        return shard_lengths(self._folder, self.split)

    @functools.cached_property
    def schema(self) -> Schema:
        return records.read_schema(self.corpus_dir)

    @functools.cached_property
    def _features(self):
        import tensorflow_datasets as tfds

        return tfds.builder_from_directory(self._folder).info.features


class StoredClip(Clip):
    """A clip whose parts are read when they are first asked for, which raises UnreadableClipError if they cannot be.

    num_frames, has: as the index knows them; what it does not have is not read. Raises ValueError where the record is
    of another clip than the index says.
    """

    def __init__(self, clip_id: str, num_frames: int, has: tuple[str, ...], source: RecordSource, record: int):
        self.__dict__.update(clip_id=clip_id, _num_frames=num_frames, _has=has, _source=source, _record=record)

    @property
    def num_frames(self) -> int:
        return self._num_frames

    @functools.cached_property
    def audio(self) -> np.ndarray:
        return self._view("audio", "audio")

    @functools.cached_property
    def mouth(self) -> np.ndarray:
        return self._view("mouth", "video")

    @functools.cached_property
    def face(self) -> np.ndarray:
        return self._view("face", "video")

    @functools.cached_property
    def tracks(self) -> dict[str, np.ndarray]:
        return self._described.tracks if set(self._has) - {"audio", "video"} else {}

    @property
    def labels(self) -> dict[str, Any]:
        return self._described.labels

    @property
    def split(self) -> str:
        return self._source.split

    @property
    def speaker(self) -> str:
        return self._described.speaker

    @property
    def info(self) -> dict[str, Any]:
        return self._described.info

    def whole(self) -> Clip:
        """All of it, read now."""
        names = ("clip_id", "audio", "mouth", "face", "tracks", "labels", "split", "speaker", "info")
        return Clip(**{name: getattr(self, name) for name in names})

    def _view(self, view: str, needs: str) -> np.ndarray:
        if needs not in self._has:
            return np.zeros((0, *self._source.frame_shape(view)), VIEWS[view])
        try:
            array = self._source.view(self._record, view, self.clip_id, self._num_frames)
        except LookupError:
            self._of_another()
        except Exception as error:
            self._unreadable(error)
        alone = view == "audio" and "video" not in self._has
        if alone and -(-len(array) // records.SAMPLES_PER_FRAME) != self._num_frames:
            self._of_another()
        return array

    @functools.cached_property
    def _described(self) -> Clip:
        try:
            described = self._source.described(self._record)
        except Exception as error:  # a damaged file may fail in any layer: ArrayRecord, protobuf, TFDS, JSON
            self._unreadable(error)
        if described.clip_id != self.clip_id.removeprefix(self._source.prefix):
            self._of_another()
        return described

    def _unreadable(self, error: Exception) -> NoReturn:
        place = self._source.corpus_dir, self._source.split, self._record
        raise UnreadableClipError(self.clip_id, place, f"{type(error).__name__}: {error}") from error

    def _of_another(self) -> NoReturn:
        raise ValueError(
            f"{index_path(self._source.corpus_dir, self._source.split)} says that record {self._record} is "
            f"{self.clip_id!r} of {self._num_frames} frames, but it is another; prepare the corpus again"
        ) from None
