"""Named, versioned evaluation protocols: which clips train, validate and test in each fold.

The test subjects follow the literature. The literature mostly leaves validation open (or chooses on the test fold,
which we never do), so here the validation subjects of fold k are the test subjects of fold k + 1, and those of the
last fold are the ones of fold 1; all others train. A changed rule is a new version.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmpretrain.columns import Words
from mmpretrain.evaluation.dealing import (
    Deal,
    another_corpus,
    balanced,
    by_dialogue,
    by_hash,
    by_split,
    by_subject,
    development_tested,
    first_of,
)
from mmpretrain.evaluation.metrics import METRICS, ClassificationResult, pooled
from mmpretrain.index import Index
from mmpretrain.records import SPLITS


@dataclasses.dataclass(frozen=True)
class Fold:
    """Positions in the index that the protocol was given, int64, ascending."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclasses.dataclass(frozen=True)
class Protocol:
    """assign: see `dealing`. corpus: whose speakers are called `{corpus}-...`; "": of any, or `assign` knows them.

    shared: the parts whose people may be in others as well, so that figures are of other clips of the same people.
    columns: the labels that it is about, and classes: those that are told apart, by sets of which a task must have one;
    () is any. speakers: how many there are in all. test_clips: by the number of classes (0: of labels without), how
    many clips each fold tests, or all together where there is one number alone.
    """

    name: str
    version: int
    description: str
    num_folds: int
    assign: Deal = dataclasses.field(repr=False)
    shared: tuple[str, ...] = ()
    corpus: str = ""
    columns: tuple[str, ...] = ()
    classes: tuple[tuple[str, ...], ...] = ()
    speakers: int = 0
    test_clips: Mapping[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def check_task(self, column: str, classes: Iterable[str] | None) -> None:
        """Raises ValueError where a task is not what the protocol is about: its figures would be of another one."""
        if self.columns and column not in self.columns:
            raise ValueError(
                f"protocol `{self.name}` is about {' or '.join(self.columns)}, and the task is of the label "
                f"{column!r}: set the task's column, or use `speakers-5`"
            )
        if self.classes and classes is not None and set(classes) not in map(set, self.classes):
            raise ValueError(
                f"protocol `{self.name}` tells apart {'; or '.join(', '.join(of) for of in self.classes)}, and the "
                f"task {', '.join(classes)}: set the task's classes, or use `speakers-5`"
            )

    def fold(self, clips: Index, fold: int, classes: Iterable[str] | None = None, *, column: str) -> Fold:
        """The three parts of fold `fold`, counted from 1.

        Clips without a label `column`, or with one that is not in `classes` (where given), appear nowhere. Raises
        ValueError where the clips are not what the protocol is about, a part is empty, or a speaker is in two parts.
        """
        self.check_task(column, classes)
        wanted = None if classes is None else set(classes)
        labelled = np.flatnonzero(_is_labelled(clips, column, wanted))
        if not len(labelled):
            raise ValueError(
                f"protocol `{self.name}`: none of the {len(clips)} clips has a label {column!r}"
                f"{'' if wanted is None else ' among ' + ', '.join(sorted(wanted))}; fine-tune on a labelled corpus"
            )
        return self.deal(clips, fold, labelled)

    def deal(self, clips: Index, fold: int, labelled: np.ndarray) -> Fold:
        """The same of clips whose labels are known to the caller. labelled: int64, ascending, their positions."""
        if not 1 <= fold <= self.num_folds:
            raise ValueError(f"fold {fold}: protocol `{self.name}` has folds 1 to {self.num_folds}")
        chosen = clips.take(labelled)
        strange = [s for s in chosen.speakers.kinds() if self.corpus and not s.startswith(f"{self.corpus}-")]
        if strange:
            raise ValueError(
                f"clip {first_of(chosen, strange[0])}: its speaker `{strange[0]}` is not of {self.corpus}, whose are "
                f"called `{self.corpus}-...`, and protocol `{self.name}` is of that corpus alone; use `speakers-5`"
            )
        assigned = self.assign(chosen, fold)
        parts = {part: labelled[assigned == number] for number, part in enumerate(SPLITS)}
        for part, positions in parts.items():
            if not len(positions):
                speakers = ", ".join(sorted(chosen.speakers.kinds())[:8])
                raise ValueError(
                    f"protocol `{self.name}`, fold {fold}: no labelled clip in its {part} part ({self.description}); "
                    f"the labelled clips are of {speakers}: prepare the missing ones or choose another protocol"
                )
        self._check_subjects(clips, {part: rows for part, rows in parts.items() if part not in self.shared})
        return Fold(**parts)

    def lacks(self, clips: Index, folds: Mapping[int, Fold], num_classes: int) -> str:
        """What of the corpus is not there that these folds should test, in words; "" where all is, or nobody knows.

        Figures of other clips than the protocol's do not compare with published ones.
        """
        parts, known = [], self.test_clips.get(num_classes, ())
        found = [len(fold.test) for fold in folds.values()]
        if len(known) == self.num_folds:
            wanted = [known[number - 1] for number in folds]
        else:  # of all folds together
            found, wanted = [sum(found)], [*known] if len(folds) == self.num_folds else []
        if wanted and found != wanted:
            parts.append(f"its test parts have {_list(found)} clips in place of {_list(wanted)}")
        used = np.concatenate([part for fold in folds.values() for part in (fold.train, fold.validation, fold.test)])
        people = len(set(clips.speakers.take(np.unique(used)).kinds()))
        if self.speakers and people != self.speakers:
            parts.append(f"{people} of its {self.speakers} speakers are there")
        return ", ".join(parts)

    def _check_subjects(self, clips: Index, parts: dict[str, np.ndarray]) -> None:
        part_of: dict[str, str] = {}
        for part, positions in parts.items():
            for speaker in clips.speakers.take(positions).kinds():
                # "" is somebody unknown, of whom nothing can be checked
                if speaker and part_of.setdefault(speaker, part) != part:
                    raise ValueError(
                        f"protocol `{self.name}`: speaker {speaker} is both in {part_of[speaker]} and in {part}; "
                        f"split the corpus by speaker, or use the protocol `speakers-5`"
                    )


def _is_labelled(clips: Index, column: str, wanted: set[str] | None) -> np.ndarray:
    """bool [N]: which clips have a label of that name, and one that is wanted."""
    labels = clips.labels.get(column)
    if labels is None:
        return np.zeros(len(clips), bool)
    if not isinstance(labels, Words):
        return labels > 0 if labels.dtype == np.int32 else ~np.isnan(labels)
    return labels.map({word: wanted is None or word in wanted for word in labels.words if word}, False, bool)


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(f"{number:,}" for number in numbers)


def _of_subjects(
    name: str, description: str, folds: Sequence[Iterable[int | str]], dropped: Sequence[str] = (), **more: Any
) -> Protocol:
    """Folds of speakers, each of whom is tested once."""
    corpus = name.split("-")[0]
    counted = dict(speakers=sum(len(list(subjects)) for subjects in folds)) | more
    description = f"{description}; validation subjects are the next fold's"
    return Protocol(name, 1, description, len(folds), by_subject(corpus, folds, dropped), **counted)


def _of_muse(year: int, *columns: str) -> Protocol:
    description = (
        f"MuSe {year}: the organisers' development part is tested, for labels of their test part are withheld; a fifth "
        "of the people of their training part validates"
    )
    return Protocol(
        f"muse-{year}", 1, description, 1, development_tested(0.2), ("train", "validation"), "muse", columns
    )


_FOUR = ("neutral", "happy", "sad", "angry")
_SIX = ("neutral", "happy", "sad", "angry", "excited", "frustrated")
_MELD = (
    ("neutral", "happy", "sad", "angry", "fearful", "disgust", "surprised"),
    ("neutral", "positive", "negative"),
)
_CREMA = dict(
    folds=[range(1001, 1019), range(1019, 1037), range(1037, 1055), range(1055, 1073), range(1073, 1092)],
    dropped=("1064_IEO_DIS_MD", "1064_TIE_SAD_XX", "1076_MTI_NEU_XX", "1076_MTI_SAD_XX"),
)
_CREMA_TEXT = "test actors 1001-1018, 1019-1036, 1037-1054, 1055-1072, 1073-1091, without the four unreadable clips"
_EVERYWHERE = tuple(SPLITS)

_PROTOCOLS = (
    Protocol("official", 1, "the train, validation and test splits of the corpus itself", 1, by_split),
    Protocol(
        "official-clips", 1, "the splits of the corpus itself, whoever speaks in them", 1, by_split, _EVERYWHERE
    ),
    _of_subjects(
        "ravdess-6x4",
        "RAVDESS, test actors 1-4, 5-8, 9-12, 13-16, 17-20, 21-24",
        [range(first, first + 4) for first in range(1, 25, 4)],
        test_clips={8: (240,) * 6, 7: (208,) * 6},
    ),
    _of_subjects(
        "ravdess-5",
        "RAVDESS, the subject-wise folds of Luna-Jimenez et al.",
        [(2, 5, 14, 15, 16), (3, 6, 7, 13, 18), (10, 11, 12, 19, 20), (8, 17, 21, 23, 24), (1, 4, 9, 22)],
        test_clips={8: (300, 300, 300, 300, 240), 7: (260, 260, 260, 260, 208)},
    ),
    _of_subjects(
        "ravdess-emobox6",
        "RAVDESS, the six folds of EmoBox",
        [(1, 11, 20, 21), (4, 10, 12, 14), (8, 9, 19, 23), (3, 5, 7, 24), (2, 15, 16, 18), (6, 13, 17, 22)],
        test_clips={8: (240,) * 6, 7: (208,) * 6},
    ),
    _of_subjects("crema-5", f"CREMA-D, {_CREMA_TEXT}", **_CREMA, test_clips={6: (7_438,)}),
    _of_subjects(
        "crema-5-4class",
        f"CREMA-D, neutral, happy, sad and angry alone, {_CREMA_TEXT}",
        **_CREMA,
        classes=(_FOUR,),
        test_clips={4: (4_897,)},
    ),
    _of_subjects(
        "iemocap-5",
        "IEMOCAP, each session tests once (column `emotion4` for the usual four classes)",
        [(k,) for k in range(1, 6)],
        speakers=10,
        test_clips={4: (1_085, 1_023, 1_151, 1_031, 1_241)},
    ),
    _of_subjects(
        "iemocap-10",
        "IEMOCAP, each speaker tests once (column `emotion4` for the usual four classes)",
        [(f"{session}{sex}",) for sex in "FM" for session in range(1, 6)],
        test_clips={4: (5_531,)},
    ),
    Protocol(
        "iemocap-6class-dialogue",
        1,
        "IEMOCAP in dialogues, six classes, WF1: session 5 tests, a tenth of the other dialogues validates",
        1,
        by_dialogue(r"iemocap-5[FM]", 0.1),
        ("train", "validation"),
        "iemocap",
        ("emotion",),
        (_SIX,),
        speakers=10,
        test_clips={6: (1_623,)},
    ),
    _of_subjects(
        "improv-6",
        "MSP-IMPROV, each session tests once",
        [(k,) for k in range(1, 7)],
        speakers=12,
        test_clips={4: (916, 1_328, 1_622, 1_044, 1_407, 1_470)},
    ),
    Protocol(
        "meld-official",
        1,
        "MELD's own splits, in which six people are in every part",
        1,
        by_split,
        _EVERYWHERE,
        "meld",
        ("emotion", "sentiment"),
        _MELD,
        test_clips={7: (2_610,), 3: (2_610,)},
    ),
    _of_muse(2021, "valence", "arousal", "physio_arousal", "valence_class", "arousal_class"),
    _of_muse(
        2022, "humor", "valence", "physio_arousal", "adoration", "amusement", "anxiety", "disgust", "empathic_pain",
        "fear", "surprise",
    ),
    _of_muse(2023, "humor", "valence", "physio_arousal", "approval", "disappointment", "uncertainty"),
    _of_subjects(
        "emodb-loso",
        "EMO-DB, each speaker tests once",
        [(3,), *[(k,) for k in range(8, 17)]],
        test_clips={7: (535,)},
    ),
)  # fmt: skip


def get_protocol(name: str) -> Protocol:
    """The protocol of that name. Raises ValueError.

    `speakers-K` makes K speaker-disjoint folds of any corpus; `clips-K` K folds of clips, as where one person says all;
    `onto-NAME` tests the clips of a corpus whose speakers are called NAME-..., and learns from all others.
    """
    known = {protocol.name: protocol for protocol in _PROTOCOLS}
    if name in known:
        return known[name]
    if match := re.fullmatch(r"onto-([a-z0-9_]+)", name):
        description = f"all clips of {match[1]} are tested; a fifth of the people of the other corpora validates"
        return Protocol(name, 2, description, 1, another_corpus(match[1], 0.2))
    match = re.fullmatch(r"(speakers|clips)-(\d+)", name)
    if not match:
        raise ValueError(
            f"unknown protocol `{name}`; known are {', '.join(known)}, speakers-K and clips-K (K folds), onto-NAME (a "
            "corpus)"
        )
    kind, num_folds = match[1], int(match[2])
    if num_folds < 3:
        raise ValueError(f"protocol `{name}` needs at least 3 folds, to test, validate and train: use `{kind}-3`")
    if kind == "clips":
        description = f"{num_folds} folds of clips by id, whoever speaks; validation clips are the next fold's"
        return Protocol(name, 1, description, num_folds, by_hash(num_folds), _EVERYWHERE)
    description = f"{num_folds} speaker-disjoint folds of about equal size; validation speakers are the next fold's"
    return Protocol(name, 1, description, num_folds, balanced(num_folds))


def summarize_folds(results: Sequence[ClassificationResult]) -> dict[str, Any]:
    """Both ways of reporting folds that the literature uses, ready for JSON.

    {"num_folds", metric: {"mean", "std", "pooled"}}: mean and sample standard deviation (0 for one fold) over the
    folds, and the value of the summed confusion matrix.
    """
    whole = pooled(results)
    summary: dict[str, Any] = {"num_folds": len(results)}
    for metric in METRICS:
        values = np.array([getattr(result, metric) for result in results])
        std = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        summary[metric] = {"mean": float(values.mean()), "std": std, "pooled": getattr(whole, metric)}
    return summary
