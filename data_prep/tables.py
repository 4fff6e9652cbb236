"""Reads the tables in which corpora keep their labels: CSV files and lists, as their makers wrote them.

What is not as they wrote it is refused with file, line, column and remedy: a cell that is guessed at would be a wrong
label.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn, TypeVar

from mmpretrain.decoding import read_text

Value = TypeVar("Value")

_REMEDY = "correct it, or get the file of the corpus's own release"
NO_VALUE = ("", "na", "n/a", "nan")


class Row(dict[str, str]):
    """The cells of a line of a table by the names of its columns. place: the file and the line, for messages."""

    def __init__(self, cells: Mapping[str, str], place: str):
        super().__init__(cells)
        self.place = place

    def number(self, column: str, low: float = -math.inf, high: float = math.inf) -> float:
        """What the cell says, NaN for a blank one. Raises ValueError for no number, or one that is not within."""
        cell = self[column]
        if cell.casefold() in NO_VALUE:
            return math.nan
        try:
            value = float(cell)
        except ValueError:
            self.refuse(column, "a number")
        if not low <= value <= high or math.isinf(value):
            until = f" to {high:g}" if math.isfinite(high) else " on"
            self.refuse(column, f"a number from {low:g}{until}" if math.isfinite(low) else "a finite number")
        return value

    def whole(self, column: str) -> int:
        """Raises ValueError where the cell is no whole number from 0 on."""
        value = self.number(column, 0)
        if not value.is_integer():
            self.refuse(column, "a whole number")
        return int(value)

    def one_of(self, column: str, meanings: Mapping[str, Value]) -> Value:
        """What the word of the cell means, in small letters or not. Raises ValueError for a word that nobody knows."""
        word = self[column].casefold()
        if word not in meanings:
            self.refuse(column, f"one of {', '.join(filter(None, meanings))}")
        return meanings[word]

    def refuse(self, column: str, wanted: str) -> NoReturn:
        raise ValueError(f"{self.place}: {column} is {self[column]!r}, which is not {wanted}; {_REMEDY}")


def find_table(source: Path, *places: str) -> Path | None:
    """The first of some places below the source where there is a file."""
    return next((source / place for place in places if (source / place).is_file()), None)


def read_table(path: Path, columns: Iterable[str], delimiter: str = ",") -> list[Row]:
    """The rows of a CSV file by the names in its first line, without blanks around names and cells.

    Raises ValueError if one of `columns` is not there, a row has more or fewer cells than the first line, or a
    quotation mark is not closed.
    """
    text = io.StringIO(read_text(path), newline="")
    reader = csv.reader(text, delimiter=delimiter, skipinitialspace=True, strict=True)
    rows: list[Row] = []
    first = 1
    try:
        names = [name.strip() for name in next(reader, [])]
        if lacking := [column for column in columns if column not in names]:
            raise ValueError(
                f"{path} has no column {lacking[0]!r} (its first line names {', '.join(names) or 'none'}); "
                "get the file of the corpus's own release"
            )
        if doubles := [name for name in names if name and names.count(name) > 1]:
            raise ValueError(f"{path} has two columns {doubles[0]!r}; {_REMEDY}")
        first = reader.line_num + 1
        for cells in reader:
            if reader.line_num > first:
                raise csv.Error("a cell goes on in the next line")
            first += 1
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(names):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, but the first line names {len(names)}; "
                    "get the file of the corpus's own release"
                )
            stripped = {name: cell.strip() for name, cell in zip(names, cells, strict=True)}
            rows.append(Row(stripped, f"{path}, line {reader.line_num}"))
    except csv.Error as error:
        raise ValueError(f"{path}, line {first}: {error}; is a quotation mark not closed? {_REMEDY}") from None
    return rows


def by_key(rows: Iterable[Row], column: str) -> dict[str, Row]:
    """The rows by what they say in that column. Raises ValueError where two rows of one key differ."""
    found: dict[str, Row] = {}
    for row in rows:
        if (other := found.setdefault(row[column], row)) != row:
            raise ValueError(
                f"{row.place}: {column} {row[column]!r} is that of {other.place} too, and they differ; {_REMEDY}"
            )
    return found
