"""Columns of a table with a row for each clip, as bytes and numbers in place of one object of Python a clip.

Texts are bytes with offsets, decoded where somebody asks. Words that many clips share, such as speakers and emotions,
are codes and a vocabulary. Dims: N rows.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np

Value = TypeVar("Value", bound=Hashable)


class Column(Sequence[Value], Generic[Value]):
    """A column whose values are made when they are asked for; equal to any sequence with the same values."""

    @abc.abstractmethod
    def take(self, rows: np.ndarray) -> Column[Value]:
        """The values of these rows: positions, or bool [N]."""

    @abc.abstractmethod
    def _value(self, row: int) -> Value:
        """That of one row, from 0 to N - 1."""

    @overload
    def __getitem__(self, row: int) -> Value: ...
    @overload
    def __getitem__(self, row: slice) -> Column[Value]: ...
    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self._value(int(row) % len(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self[:3])}{', ...' if len(self) > 3 else ''})"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Strings(Column[str]):
    """N strings, mostly different ones: UTF-8 in buffers, each with a prefix of its own.

    buffers: uint8 each. prefixes: one a buffer. buffer_N: uint16, in which buffer a string is. starts, ends: where.
    """

    buffers: tuple[np.ndarray, ...]
    prefixes: tuple[str, ...]
    buffer_N: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @classmethod
    def unpack(cls, buffer: np.ndarray, offsets: np.ndarray) -> Strings:
        """String i is buffer[offsets[i]:offsets[i + 1]]."""
        return cls((buffer,), ("",), np.zeros(len(offsets) - 1, np.uint16), offsets[:-1], offsets[1:])

    def pack(self) -> tuple[np.ndarray, np.ndarray]:
        """What `unpack` takes: uint8 [M] and unsigned [N + 1]."""
        offsets = np.append(self.starts, self.ends[-1:])
        if self.prefixes == ("",) and np.array_equal(offsets[1:], self.ends) and not offsets[:1].any():
            return self.buffers[0][: offsets[-1] if len(offsets) else 0], offsets  # as it was unpacked
        texts = [text.encode() for text in self]
        offsets = np.cumsum([0, *map(len, texts)])
        return np.frombuffer(b"".join(texts), np.uint8), offsets.astype(np.min_scalar_type(offsets[-1]))

    def __len__(self) -> int:
        return len(self.starts)

    def _value(self, row: int) -> str:
        number = self.buffer_N[row]
        return self.prefixes[number] + bytes(self.buffers[number][self.starts[row] : self.ends[row]]).decode()

    def take(self, rows: np.ndarray) -> Strings:
        return dataclasses.replace(
            self, buffer_N=self.buffer_N[rows], starts=self.starts[rows], ends=self.ends[rows]
        )  # fmt: skip

    def prefixed(self, prefix: str) -> Strings:
        return dataclasses.replace(self, prefixes=tuple(prefix + old for old in self.prefixes))

    @classmethod
    def join(cls, parts: Sequence[Strings]) -> Strings:
        shifts = np.cumsum([0, *(len(part.buffers) for part in parts[:-1])])
        return cls(
            tuple(buffer for part in parts for buffer in part.buffers),
            tuple(prefix for part in parts for prefix in part.prefixes),
            np.concatenate([part.buffer_N + np.uint16(shift) for part, shift in zip(parts, shifts, strict=True)]),
            np.concatenate([part.starts for part in parts]),
            np.concatenate([part.ends for part in parts]),
        )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Words(Column[Value]):
    """N values, few different ones. codes: unsigned [N], positions in `words`, not all of which need occur."""

    codes: np.ndarray
    words: tuple[Value, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def _value(self, row: int) -> Value:
        return self.words[self.codes[row]]

    def take(self, rows: np.ndarray) -> Words[Value]:
        return Words(self.codes[rows], self.words)

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """int64: how often each of `words` occurs."""
        return np.bincount(self.codes, minlength=len(self.words))

    def kinds(self) -> list[Value]:
        """The different values that occur, in the order of `words`."""
        return [word for word, count in zip(self.words, self.counts, strict=True) if count]

    def map(self, values: Mapping[Value, Any], default: Any, dtype: Any) -> np.ndarray:
        """[N] of `dtype`: what `values` has for each, else `default`."""
        return np.array([values.get(word, default) for word in self.words], dtype)[self.codes]

    @classmethod
    def join(cls, parts: Sequence[Words[Value]]) -> Words[Value]:
        codes = {word: code for code, word in enumerate(dict.fromkeys(word for part in parts for word in part.words))}
        dtype = np.min_scalar_type(max(len(codes) - 1, 0))
        return cls(np.concatenate([part.map(codes, 0, dtype) for part in parts]), tuple(codes))

    @classmethod
    def same(cls, word: Value, count: int) -> Words[Value]:
        """`count` times the same."""
        return cls(np.zeros(count, np.uint8), (word,))
