"""Reads the tables in which corpora keep their labels: CSV files and lists, as their makers wrote them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path


def find_table(source: Path, *places: str) -> Path | None:
    """The first of some places below the source where there is a file."""
    return next((source / place for place in places if (source / place).is_file()), None)


def read_table(path: Path, columns: Iterable[str], delimiter: str = ",") -> list[dict[str, str]]:
    """The rows of a CSV file by the names in its first line, without blanks around names and cells.

    Raises ValueError if one of `columns` is not there, or a row has more or fewer cells than the first line.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, skipinitialspace=True)
    names = [name.strip() for name in next(reader, [])]
    if lacking := [column for column in columns if column not in names]:
        raise ValueError(
            f"{path} has no column {lacking[0]!r} (its first line names {', '.join(names) or 'none'}); "
            "get the file of the corpus's own release"
        )
    rows = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(names):
            raise ValueError(
                f"{path}, line {reader.line_num}: {len(cells)} cells, but the first line names {len(names)}; get the "
                "file of the corpus's own release"
            )
        rows.append({name: cell.strip() for name, cell in zip(names, cells, strict=True)})
    return rows


def read_text(path: Path) -> str:
    """A text in UTF-8, with or without its mark, what is none of it as Latin-1."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")
