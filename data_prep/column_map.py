"""Which column of somebody's CSV is which of ours: what `--column THEIRS=OURS` says."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from data_prep import labels
from data_prep.manifest import COLUMNS
from data_prep.sources import standard_emotion
from data_prep.tables import NO_VALUE
from mmpretrain.records import LABEL_KINDS, VOCABULARIES

KINDS = ("class", "classes", "value", "text")
_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_MAPPED = re.compile(rf"(?P<theirs>[^=]+)=(?:(?P<kind>{'|'.join(KINDS)}):)?(?P<ours>[a-z][a-z0-9_]*)"
                     rf"(?::(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER}))?")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class MappedColumn:
    """theirs: as the CSV calls it. ours: one of `manifest.COLUMNS`, then kind is "", or a label of that kind. scale:
    the least and the most of a value, which become -1 and 1."""

    theirs: str
    ours: str
    kind: str = ""
    scale: tuple[float, float] | None = None

    def label(self, cell: str, emotions: Mapping[str, str]) -> Any:
        """The label that a cell holds. emotions: what words in small letters are of ours. Raises ValueError,
        in a few words, for a cell that holds none of the kind."""
        if self.kind == "text":
            return cell
        if self.kind == "value":
            return self._number(cell)
        words = [word for word in self._words(cell, emotions) if word.casefold() not in NO_VALUE]
        if self.ours in VOCABULARIES:
            words = [standard_emotion(word) for word in words]
            if None in words:
                raise ValueError(f"{self.theirs} {cell!r} is no emotion of ours; say with --emotion-word which it is")
        return tuple(words) if self.kind == "classes" else "".join(words)

    def note(self, cell: str, emotions: Mapping[str, str]) -> str:
        """What a report should say of a cell: that it holds `nan` or the like, which programs write for none."""
        if self.kind in ("", "text") or not any(word.casefold() in NO_VALUE for word in self._words(cell, emotions)):
            return ""
        return f"{self.theirs} {cell}: na, n/a and nan are taken for none"

    def _words(self, cell: str, emotions: Mapping[str, str]) -> list[str]:
        """Those of a cell that are not blank, those that are said to be an emotion as ours."""
        words = re.split("[;|,]", cell) if self.kind == "classes" else [cell]
        words = [word.strip() for word in words if word.strip()]
        return [emotions.get(word.casefold(), word) for word in words] if self.ours in VOCABULARIES else words

    def _number(self, cell: str) -> float:
        if cell.casefold() in NO_VALUE:
            return math.nan
        try:
            value = float(cell.replace(",", ".") if re.fullmatch(r"[+-]?\d+,\d+", cell) else cell)
        except ValueError:
            value = math.inf
        if not math.isfinite(value):
            raise ValueError(f"{self.theirs} {cell!r} is no number")
        if self.scale is None:
            return value
        low, high = self.scale
        if not low <= value <= high:
            raise ValueError(f"{self.theirs} {cell} is not on the scale from {low:g} to {high:g}")
        return labels.between(value, low, high)


def mapped_column(words: str) -> MappedColumn:
    """THEIRS=OURS, THEIRS=OURS:LOW..HIGH or THEIRS=KIND:NAME. Raises `argparse.ArgumentTypeError`."""
    match = _MAPPED.fullmatch(words.strip())
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{words!r} is not THEIRS=OURS, THEIRS=OURS:LOW..HIGH or THEIRS=KIND:NAME, KIND one of {', '.join(KINDS)}"
        )
    theirs, ours, kind = match["theirs"].strip(), match["ours"], match["kind"] or ""
    scale = (float(match["low"]), float(match["high"])) if match["low"] else None
    if not kind and ours not in COLUMNS:
        if ours not in labels.COLUMNS:
            known = ", ".join([*COLUMNS, *(name for name in labels.COLUMNS if name not in COLUMNS)])
            raise argparse.ArgumentTypeError(
                f"{ours!r} is no column of ours ({known}); say of what kind it is: {theirs}=class:{ours}"
            )
        kind = labels.COLUMNS[ours]
    if kind and ours in COLUMNS:
        raise argparse.ArgumentTypeError(f"{ours!r} is a column of ours; write {theirs}={ours}, or choose another name")
    if ours in labels.COLUMNS and kind not in ("", labels.COLUMNS[ours]):
        raise argparse.ArgumentTypeError(f"{ours!r} is of kind {labels.COLUMNS[ours]}; choose another name")
    if scale and (kind != "value" or not scale[0] < scale[1]):
        raise argparse.ArgumentTypeError(f"{words!r}: only a value has a scale, from the least to the most")
    assert not kind or kind in LABEL_KINDS
    return MappedColumn(theirs, ours, kind, scale)


def emotion_word(words: str) -> tuple[str, str]:
    """THEIRS=OURS of a word for an emotion. Raises `argparse.ArgumentTypeError`."""
    theirs, equals, ours = (part.strip() for part in words.partition("="))
    if not (theirs and equals and standard_emotion(ours)):
        raise argparse.ArgumentTypeError(f"{words!r} is not a word and one of our emotions, such as ilo=happy")
    return theirs.casefold(), standard_emotion(ours)


def labels_of(mapped: Iterable[MappedColumn], row: Mapping[str, str], emotions: Mapping[str, str]) -> dict[str, Any]:
    """The labels of a row by our names. emotions: what words are of ours. Raises what `MappedColumn.label` raises."""
    return {column.ours: column.label(row.get(column.ours, ""), emotions) for column in mapped if column.kind}
