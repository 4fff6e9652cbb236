"""What something was trained on, and how much of some clips that is: clips by their content, speakers by their corpus.

A clip is known again under any id and in any corpus that it was prepared for to the same arrays; where it was prepared
otherwise, its speaker is known again by corpus and name.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.clips import ClipTable
from mmpretrain.files import DamagedError, read_json, write_arrays
from mmpretrain.records import CORPUS_FILE

_NONE = np.zeros(0, np.uint64)
UNSTATED = "not stated: those of whoever recorded the clips"
_LABELLED = "labelled_"  # before the name of the label column, in the file


def people_of(table: ClipTable) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Who is in a table, by corpus and name ("" for nobody named), and int64 [N], who of them is in each clip."""
    names = [corpus["name"] for corpus in _corpora_of(table)]
    corpora, words = sorted(set(names)), table.speakers.words
    corpus_N = np.array([corpora.index(name) for name in names], np.int64)[table.source_N]
    number_N = corpus_N * len(words) + table.speakers.codes
    there = np.bincount(number_N, minlength=len(corpora) * len(words)) > 0
    people = [(corpora[i // len(words)], words[i % len(words)]) for i in np.flatnonzero(there).tolist()]
    return people, (np.cumsum(there) - 1)[number_N]


def _corpora_of(table: ClipTable) -> list[dict[str, Any]]:
    """Of each source of a table what its corpus says of itself."""
    return [read_json(Path(source.corpus_dir) / CORPUS_FILE) for source in table.sources]


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What an encoder has seen, its ancestors included: whatever decided its weights.

    clips: uint64 [N], the contents of clips, ascending, each once. labelled: by label column, those whose label was
    learned from or chosen by. speakers: by corpus. terms: by corpus, under which its clips may be used, as it says;
    none where it does not. unknown: encoders among the ancestors of which nothing is known.
    """

    clips: np.ndarray = dataclasses.field(default_factory=_NONE.copy)
    labelled: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    speakers: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    terms: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(cls, table: ClipTable, labelled: Mapping[str, np.ndarray] | None = None) -> TrainingData:
        """That of what sees these clips. labelled: by label column, bool [N], whose label it sees as well."""
        hashes, speakers, terms = table.content_hashes, {}, {}
        for corpus, name in people_of(table)[0]:
            speakers.setdefault(corpus, set()).add(name)
        for corpus in _corpora_of(table):
            if corpus["name"] in speakers:
                terms.setdefault(corpus["name"], set()).add(corpus.get("terms", ""))
        return cls(
            clips=_once(hashes),
            labelled={column: _once(hashes[known]) for column, known in (labelled or {}).items() if known.any()},
            speakers={corpus: frozenset(of_it - {""}) for corpus, of_it in speakers.items() if of_it - {""}},
            terms={corpus: frozenset(of_it - {""}) for corpus, of_it in terms.items()},
        )

    def __or__(self, other: TrainingData) -> TrainingData:
        """That of what has both among its ancestors."""

        def joined(ours: Mapping, theirs: Mapping, none: Any, join: Any) -> dict:
            return {name: join(ours.get(name, none), theirs.get(name, none)) for name in sorted({*ours, *theirs})}

        return TrainingData(
            clips=_both(self.clips, other.clips),
            labelled=joined(self.labelled, other.labelled, _NONE, _both),
            speakers=joined(self.speakers, other.speakers, frozenset(), frozenset.union),
            terms=joined(self.terms, other.terms, frozenset(), frozenset.union),
            unknown=tuple(sorted({*self.unknown, *other.unknown})),
        )

    def shares_with(self, table: ClipTable) -> np.ndarray:
        """bool [N]: which clips of a table are among its clips or of its speakers."""
        people, person_N = people_of(table)
        known = np.array([self._knows(*person) for person in people], bool)
        return among(table.content_hashes, self.clips) | known[person_N]

    def exposure(self, table: ClipTable, rows: np.ndarray, column: str) -> Exposure:
        """How much of these rows of a table, labelled in that column, is in it.

        A speaker is seen who is among those of a corpus of that name, or of whom any clip of the table is seen.
        """
        hashes, (people, person_N) = table.content_hashes, people_of(table)
        seen_N = among(hashes, self.clips)
        seen_here, wanted = set(person_N[seen_N].tolist()), set(person_N[rows].tolist())
        wanted = {who for who in wanted if people[who][1]}
        seen = {who for who in wanted if who in seen_here or self._knows(*people[who])}
        names = {name for of_it in self.speakers.values() for name in of_it}
        return Exposure(
            clips=len(rows), clips_seen=int(seen_N[rows].sum()),
            clips_seen_labelled=int(among(hashes[rows], self.labelled.get(column, _NONE)).sum()),
            speakers=len(wanted), speakers_seen=len(seen),
            namesakes=sum(people[who][1] in names for who in wanted - seen),
            clips_of_nobody=sum(not people[who][1] for who in person_N[rows].tolist()), unknown=self.unknown,
        )  # fmt: skip

    def _knows(self, corpus: str, name: str) -> bool:
        return name in self.speakers.get(corpus, ())

    def summary(self) -> dict[str, Any]:
        """Its counts, ready for JSON."""
        return {
            "clips": len(self.clips),
            "speakers": {corpus: len(of_it) for corpus, of_it in self.speakers.items()},
            "labelled_clips": {column: len(of_it) for column, of_it in self.labelled.items()},
            "unknown": list(self.unknown),
        }

    def describe(self) -> str:
        """In words, for a card."""
        speakers = ", ".join(f"{len(of_it)} of {corpus}" for corpus, of_it in self.speakers.items()) or "none named"
        labels = ", ".join(f"{column} of {len(of_it)}" for column, of_it in self.labelled.items()) or "none"
        known = f"{len(self.clips)} clips; speakers: {speakers}; labels: {labels}"
        if not self.unknown:
            return known
        return f"unknown ({', '.join(self.unknown)})" + (f", and {known}" if len(self.clips) else "")

    def describe_terms(self) -> str:
        """In words, for a card: of each corpus under which terms its clips may be used; "" where no corpus is known."""
        corpora = {**dict.fromkeys(self.speakers, ()), **self.terms}
        return "; ".join(f"{name}: {' or '.join(sorted(corpora[name])) or UNSTATED}" for name in sorted(corpora))

    def write(self, file: Path) -> None:
        """Whole or not at all: 8 bytes a clip, and as many again for each of its labels."""
        by_corpus = {"speakers": self.speakers, "terms": self.terms}
        names = {name: {corpus: sorted(of_it) for corpus, of_it in of.items()} for name, of in by_corpus.items()}
        text = np.frombuffer(json.dumps(names | {"unknown": self.unknown}).encode(), np.uint8)
        labelled = {_LABELLED + column: of_it for column, of_it in self.labelled.items()}
        write_arrays(file, clips=self.clips, names=text, **labelled)

    @classmethod
    def read(cls, file: Path) -> TrainingData:
        """The inverse of `write`. Raises DamagedError."""
        try:
            with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                names = json.loads(arrays["names"].tobytes())
                labelled = {name.removeprefix(_LABELLED): arrays[name] for name in arrays if name.startswith(_LABELLED)}
                speakers, terms = (
                    {corpus: frozenset(of_it) for corpus, of_it in of.items()}
                    for of in (names["speakers"], names.get("terms", {}))
                )
                return cls(arrays["clips"], labelled, speakers, terms, tuple(names["unknown"]))
        except OSError:
            raise
        except Exception as error:  # a damaged file may fail in zipfile, NumPy or JSON
            raise DamagedError(f"{file} is damaged ({type(error).__name__}: {error})") from error


@dataclasses.dataclass(frozen=True)
class Exposure:
    """How many of some clips and of their speakers were seen in training.

    clips_seen_labelled: those of `clips_seen` whose label was seen. namesakes: speakers who are not known to have been
    seen, but whose name somebody of another corpus had. clips_of_nobody: without a speaker's name. unknown: as in
    `TrainingData`.
    """

    clips: int
    clips_seen: int
    clips_seen_labelled: int
    speakers: int
    speakers_seen: int
    namesakes: int
    clips_of_nobody: int
    unknown: tuple[str, ...]

    @classmethod
    def summed(cls, exposures: Sequence[Exposure]) -> Exposure:
        """Over several folds, at least one."""
        unknown = tuple(sorted({name for exposure in exposures for name in exposure.unknown}))
        names = [field.name for field in dataclasses.fields(cls) if field.name != "unknown"]
        return cls(**{name: sum(getattr(each, name) for each in exposures) for name in names}, unknown=unknown)

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"unknown": list(self.unknown)}

    def __str__(self) -> str:
        """`no`, or `N of M clips, N of M speakers`, or `unknown`, and what else a reader must know."""
        seen = f"{self.clips_seen} of {self.clips} clips, {self.speakers_seen} of {self.speakers} speakers"
        text = seen if self.clips_seen or self.speakers_seen else "no"
        if self.unknown:
            of_these = f" ({', '.join(self.unknown)})"
            text = "unknown" + (f", at least {seen}" if text == seen else "") + of_these
        notes = [f"{self.clips_seen_labelled} clips with their label"] * (self.clips_seen_labelled > 0)
        notes += [f"{self.namesakes} speakers have namesakes in other corpora"] * (self.namesakes > 0)
        notes += [f"{self.clips_of_nobody} clips name no speaker"] * (self.clips_of_nobody > 0)
        return "; ".join([text, *notes])


def _once(hashes: np.ndarray) -> np.ndarray:
    """Ascending, each once; `np.unique` takes ten times as long for millions of hashes."""
    ordered = np.sort(hashes)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]]


def _both(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return _once(np.concatenate([ours, theirs])) if len(ours) and len(theirs) else ours if len(ours) else theirs


def among(hashes: np.ndarray, sorted_hashes: np.ndarray) -> np.ndarray:
    """bool [N]: which of `hashes` are in the other, ascending array, uint64 both."""
    if not len(sorted_hashes):
        return np.zeros(len(hashes), bool)
    found = np.minimum(np.searchsorted(sorted_hashes, hashes), len(sorted_hashes) - 1)
    return sorted_hashes[found] == hashes
