"""Reads a manifest: a CSV file that names files and says things of them, row by row.

Whatever in it could be read in two ways is refused with file, line, reason and remedy: a row that is shifted by a
comma, or a column that is not seen, would put wrong labels or splits into a corpus.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data_prep.sources import MEDIA_SUFFIXES
from mmpretrain.decoding import BOMS
from mmpretrain.listing import suffix_of

# What each column may be called instead, which is asked about, besides what is nearly spelled like it.
COLUMNS = {
    "path": "file filename file_name filepath file_path audio audio_path video video_path wav media",
    "clip_id": "", "id": "",
    "speaker": "speaker_id speaker_name spk spk_id",
    "text": "transcript transcription",
    "emotion": "emotion_label emotion_name emo",
    "split": "set subset partition split_name",
    "start_sec": "start start_s start_time begin",
    "end_sec": "end end_s end_time",
}  # fmt: skip
_NEAR = 0.85  # of `difflib`: `emotions` is 0.93 like `emotion`
_DELIMITERS = ",;\t|"
_LINE_END = re.compile(r"\r\n|\r|\n")


class Row(NamedTuple):
    """line: of the file, from 1. values: by column, `COLUMNS` by their names there, others as the file calls them; all
    but `path` without blanks around. note: what was odd about the row, or ""."""

    line: int
    values: dict[str, str]
    note: str


def read_manifest(manifest: Path, encoding: str = "", renamed: Sequence[tuple[str, str]] = ()) -> list[Row]:
    """The rows that are not blank. encoding: of a file without a byte order mark; "" is UTF-8. renamed: columns as the
    first line calls them, and what they are called instead.

    Cells are parted by commas, or by `;`, tabs or `|` where the first line is. Raises FileNotFoundError or ValueError.
    """
    if not manifest.is_file():
        what = "is a folder" if manifest.is_dir() else "does not exist"
        raise FileNotFoundError(f"--manifest {manifest} {what}; give a CSV with a column `path`")
    text = _decode(manifest, encoding)
    if told := re.match(r'"?sep=(.)"?(?=[\r\n])', text):  # Excel's own way of saying it
        text = text[told.end() :]
    names = _names(renamed)
    delimiter = told[1] if told else _delimiter(text, {*names, *COLUMNS})
    lines = _lines(manifest, text, delimiter)
    columns = _columns(manifest, _renamed(manifest, next((cells for _, cells in lines), []), names))
    return [_row(manifest, columns, line, cells) for line, cells in lines]


def _decode(manifest: Path, encoding: str) -> str:
    content = manifest.read_bytes()
    if content.startswith(b"PK\3\4"):
        raise ValueError(f"--manifest {manifest} is a spreadsheet or an archive; save it as CSV in UTF-8")
    mark, marked = next(((mark, name) for mark, name in BOMS if content.startswith(mark)), (b"", ""))
    content, encoding = content[len(mark) :], marked or encoding or "utf-8"
    try:
        text = content.decode(encoding)
    except LookupError:
        raise ValueError(f"--encoding {encoding} is no encoding; give one such as utf-8, cp1252 or utf-16") from None
    except UnicodeDecodeError as error:
        line = len(_LINE_END.findall(content[: error.start].decode(encoding, "replace"))) + 1
        raise ValueError(
            f"{_at(manifest, line)}: the byte 0x{content[error.start]:02x} is not {encoding}; save the file as UTF-8"
            + (", or say what it is in, such as --encoding cp1252 (of Windows)" if not marked else "")
        ) from None
    if "\0" in text:
        line = len(_LINE_END.findall(text[: text.index("\0")])) + 1
        raise ValueError(
            f"{_at(manifest, line)}: a character is NUL; if the file is in UTF-16, save it as UTF-8 or give --encoding "
            "utf-16-le, else write the file anew"
        )
    return text


def _names(renamed: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The names that columns have instead, by their own in small letters."""
    names: dict[str, str] = {}
    for theirs, ours in renamed:
        if before := names.get(_fold(theirs)):
            raise ValueError(
                f"--column {theirs} is given twice, as {before} and as {ours}; leave one out, or copy the column in "
                "the CSV under another name"
            )
        names[_fold(theirs)] = ours
    return names


def _renamed(manifest: Path, header: list[str], names: Mapping[str, str]) -> list[str]:
    if lacking := sorted(set(names) - set(map(_fold, header))):
        written = ", ".join(name.strip() for name in header) or "nothing"
        raise ValueError(f"--manifest {manifest} has no column `{lacking[0]}`; its first line reads: {written}")
    return [names.get(_fold(name), name) for name in header]


def _delimiter(text: str, columns: Collection[str]) -> str:
    """That by which the first line has most columns that we know."""

    def known(delimiter: str) -> int:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        try:
            header = next((cells for cells in rows if any(cell.strip() for cell in cells)), [])
        except csv.Error:
            return 0
        return len({_fold(name) for name in header} & set(columns))

    return max(_DELIMITERS, key=known)


def _lines(manifest: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of every row that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if "field limit" in str(error):
                reason = f"a cell is longer than {csv.field_size_limit():,} characters; is a quotation mark not closed?"
            else:
                reason = (
                    f"a quotation mark is not closed, or followed by more ({error}); a cell with one in it is written "
                    '"like ""this"""'
                )
            raise ValueError(f"{_at(manifest, first, reader.line_num)}: {reason}") from None
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            if swallowed := _row_within(cells, delimiter):
                raise ValueError(
                    f"{_at(manifest, first, reader.line_num)}: one cell holds {swallowed!r}, which looks like a row; "
                    "is a quotation mark not closed?"
                )
            yield first, cells


def _row_within(cells: list[str], delimiter: str) -> str:
    """A later line of a cell that names a file, or ""."""
    for cell in cells:
        for line in _LINE_END.split(cell)[1:]:
            if any(suffix_of(Path(word.strip(' "'))) in MEDIA_SUFFIXES for word in line.split(delimiter)):
                return line
    return ""


def _columns(manifest: Path, header: list[str]) -> list[str]:
    """The name of each column, "" for one without."""
    folded = [_fold(name) for name in header]
    if doubles := sorted({name for name in folded if name and folded.count(name) > 1}):
        raise ValueError(f"--manifest {manifest} has two columns `{doubles[0]}`; rename or remove one")
    near = {name: _near(name, folded) for name in folded}
    if "path" not in folded:
        written = ", ".join(name.strip() for name in header) or "nothing"
        asked = next((f"; did you mean `{name}`?" for name, known in near.items() if known == "path"), "")
        raise ValueError(
            f"--manifest {manifest} has no column `path`{asked}; its first line must name the columns, it reads: "
            f"{written}"
        )
    for name, known in near.items():
        if known:
            raise ValueError(
                f"--manifest {manifest} has a column `{name}` and none `{known}`; did you mean that? Rename it to "
                f"`{known}`, or to something less like it"
            )
    return [name if name in COLUMNS else written.strip() for name, written in zip(folded, header, strict=True)]


def _near(name: str, there: list[str]) -> str:
    """The column of ours that this one may be meant for, "" if there is none or it is there."""
    if not name or name in COLUMNS:
        return ""
    lacking = [known for known in COLUMNS if known not in there and not {known, *there} >= {"clip_id", "id"}]
    called = next((known for known in lacking if name in COLUMNS[known].split()), "")
    return called or next(iter(difflib.get_close_matches(name, lacking, n=1, cutoff=_NEAR)), "")


def _row(manifest: Path, columns: list[str], line: int, cells: list[str]) -> Row:
    named = list(zip(columns, cells, strict=False))
    nameless = [*(cell for name, cell in named if not name), *cells[len(columns) :]]
    if any(cell.strip() for cell in nameless):
        raise ValueError(
            f"{_at(manifest, line)} has {len(cells)} cells, of which not all stand under a name (the first line names "
            f"{len(columns)} columns); a text with a comma in it must stand in quotation marks"
        )
    values = {name: cell if name == "path" else cell.strip() for name, cell in named if name}
    short = len(cells) < len(columns)
    return Row(line, values, f"line {line} has {len(cells)} of {len(columns)} cells" if short else "")


def _fold(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.replace("\ufeff", "").strip().casefold())


def _at(manifest: Path, first: int, last: int = 0) -> str:
    return f"--manifest {manifest}, line {first}" + (f" to {last}" if last > first else "")
