"""Named, versioned evaluation protocols: which clips train, validate and test in each fold.

The test subjects follow the literature. The literature mostly leaves validation open (or chooses on the test fold,
which we never do), so here the validation subjects of fold k are the test subjects of fold k + 1, and those of the
last fold are the ones of fold 1; all others train. A changed rule is a new version.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from mmpretrain.columns import Words
from mmpretrain.evaluation.metrics import METRICS, ClassificationResult, pooled
from mmpretrain.index import Index
from mmpretrain.randomness import mixed, unit_of
from mmpretrain.records import SPLITS


@dataclasses.dataclass(frozen=True)
class Fold:
    """Positions in the index that the protocol was given, int64, ascending."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclasses.dataclass(frozen=True)
class Protocol:
    """selection: the part on which the model is chosen; "validation" is the only rule there is so far.

    assign(clips, fold): the part of each clip, int [N], as a position in `SPLITS`, or -1 for one that the protocol
    drops. speakers_cross: people may be in several parts, so that figures are of other clips of the same people.
    """

    name: str
    version: int
    description: str
    num_folds: int
    assign: Callable[[Index, int], np.ndarray] = dataclasses.field(repr=False)
    selection: str = "validation"
    speakers_cross: bool = False

    def fold(self, clips: Index, fold: int, classes: Iterable[str] | None = None, *, column: str) -> Fold:
        """The three parts of fold `fold`, counted from 1.

        Clips without a label `column`, or with one that is not in `classes` (where given), appear nowhere. Raises
        ValueError where the clips are not what the protocol is about, a part is empty, or a speaker is in two parts.
        """
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
        assigned = self.assign(chosen, fold)
        parts = {part: labelled[assigned == number] for number, part in enumerate(SPLITS)}
        for part, positions in parts.items():
            if not len(positions):
                speakers = ", ".join(sorted(chosen.speakers.kinds())[:8])
                raise ValueError(
                    f"protocol `{self.name}`, fold {fold}: no labelled clip in its {part} part ({self.description}); "
                    f"the labelled clips are of {speakers}: prepare the missing ones or choose another protocol"
                )
        if not self.speakers_cross:
            self._check_subjects(clips, parts)
        return Fold(**parts)

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


def _by_split(clips: Index, fold: int) -> np.ndarray:
    return clips.splits.map({split: number for number, split in enumerate(SPLITS)}, -1, int)


def _parts(groups: Words[str], group_of: dict[str, int], fold: int, num_folds: int) -> np.ndarray:
    """The part of each clip by the fold that tests its group, counted from 0."""
    tests, validates = fold - 1, fold % num_folds
    names = {tests: "test", validates: "validation"}
    of_group = {name: SPLITS.index(names.get(group, "train")) for name, group in group_of.items()}
    return groups.map(of_group, -1, int)


def _by_subject(corpus: str, folds: Sequence[Iterable[int]], dropped: Sequence[str] = ()) -> Callable:
    """Folds as subject numbers; speakers must be called `{corpus}-{number}`, with F or M behind it where the number is
    that of a session of two. Drops clip ids that end in `dropped`."""
    group_of = {subject: group for group, subjects in enumerate(folds) for subject in subjects}

    def assign(clips: Index, fold: int) -> np.ndarray:
        groups = {}
        for speaker in clips.speakers.kinds():
            match = re.fullmatch(rf"{corpus}-(\d+)[FM]?", speaker)
            if not match or int(match[1]) not in group_of:
                known = f"{corpus}-{min(group_of):02d} to {corpus}-{max(group_of):02d}"
                raise ValueError(
                    f"clip {_first_of(clips, speaker)}: its speaker `{speaker}` is none of this protocol's ({known}); "
                    f"give the protocol that corpus alone, or use `speakers-5`"
                )
            groups[speaker] = group_of[int(match[1])]
        parts = _parts(clips.speakers, groups, fold, len(folds))
        if dropped:
            parts[[clip_id.endswith(tuple(dropped)) for clip_id in clips.clip_ids]] = -1
        return parts

    return assign


def _first_of(clips: Index, speaker: str) -> str:
    return clips.clip_ids[int(clips.speakers.map({speaker: True}, False, bool).argmax())]


def _balanced(num_folds: int) -> Callable:
    """Speaker-disjoint folds of any corpus: the speaker with most clips first, each into the smallest fold so far."""

    def assign(clips: Index, fold: int) -> np.ndarray:
        of_speakers = zip(clips.speakers.words, clips.speakers.counts.tolist(), strict=True)
        counts = {speaker: count for speaker, count in of_speakers if count}
        if "" in counts:
            raise ValueError(
                f"protocol `speakers-{num_folds}`: clip {_first_of(clips, '')} has no speaker; name the speakers of "
                f"labelled clips when preparing the corpus, or use the protocol `official`"
            )
        if len(counts) < num_folds:
            remedy = f"speakers-{len(counts)}" if len(counts) >= 3 else "official (the corpus's own splits)"
            raise ValueError(
                f"protocol `speakers-{num_folds}`: the labelled clips have only {len(counts)} speakers; use {remedy}"
            )
        sizes, group_of = [0] * num_folds, {}
        for speaker, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            group_of[speaker] = sizes.index(min(sizes))
            sizes[group_of[speaker]] += count
        return _parts(clips.speakers, group_of, fold, num_folds)

    return assign


def _by_hash(num_folds: int) -> Callable:
    """Folds of clips by a hash of their ids, whoever speaks, so that more clips move none of those that there were."""

    def assign(clips: Index, fold: int) -> np.ndarray:
        folds = (unit_of(mixed(clips.id_hashes, "folds of clips")) * num_folds).astype(int)
        names = {fold - 1: SPLITS.index("test"), fold % num_folds: SPLITS.index("validation")}
        return np.array([names.get(group, SPLITS.index("train")) for group in folds.tolist()])

    return assign


def _subject_protocol(
    name: str, description: str, folds: Sequence[Iterable[int]], dropped: Sequence[str] = ()
) -> Protocol:
    assign = _by_subject(name.split("-")[0], folds, dropped)
    return Protocol(name, 1, f"{description}; validation subjects are the next fold's", len(folds), assign)


_PROTOCOLS = (
    Protocol("official", 1, "the train, validation and test splits of the corpus itself", 1, _by_split),
    _subject_protocol(
        "ravdess-6x4",
        "RAVDESS, test actors 1-4, 5-8, 9-12, 13-16, 17-20, 21-24",
        [range(first, first + 4) for first in range(1, 25, 4)],
    ),
    _subject_protocol(
        "ravdess-5",
        "RAVDESS, the subject-wise folds of Luna-Jimenez et al.",
        [(2, 5, 14, 15, 16), (3, 6, 7, 13, 18), (10, 11, 12, 19, 20), (8, 17, 21, 23, 24), (1, 4, 9, 22)],
    ),
    _subject_protocol(
        "ravdess-emobox6",
        "RAVDESS, the six folds of EmoBox",
        [(1, 11, 20, 21), (4, 10, 12, 14), (8, 9, 19, 23), (3, 5, 7, 24), (2, 15, 16, 18), (6, 13, 17, 22)],
    ),
    _subject_protocol(
        "crema-5",
        "CREMA-D, test actors 1001-1018, 1019-1036, 1037-1054, 1055-1072, 1073-1091, without the four unreadable clips",
        [range(1001, 1019), range(1019, 1037), range(1037, 1055), range(1055, 1073), range(1073, 1092)],
        dropped=("1064_IEO_DIS_MD", "1064_TIE_SAD_XX", "1076_MTI_NEU_XX", "1076_MTI_SAD_XX"),
    ),
    _subject_protocol(
        "iemocap-5",
        "IEMOCAP, each session tests once (column `emotion4` for the usual four classes)",
        [(k,) for k in range(1, 6)],
    ),
    _subject_protocol("improv-6", "MSP-IMPROV, each session tests once", [(k,) for k in range(1, 7)]),
    Protocol(
        "official-clips",
        1,
        "the splits of the corpus itself, whoever speaks in them",
        1,
        _by_split,
        speakers_cross=True,
    ),
    Protocol("meld", 1, "MELD's own splits, in which six people are in every part", 1, _by_split, speakers_cross=True),
)


def get_protocol(name: str) -> Protocol:
    """The protocol of that name. Raises ValueError.

    `speakers-K` makes K speaker-disjoint folds of any corpus; `clips-K` K folds of clips, as where one person says all.
    """
    known = {protocol.name: protocol for protocol in _PROTOCOLS}
    if name in known:
        return known[name]
    match = re.fullmatch(r"(speakers|clips)-(\d+)", name)
    if not match:
        raise ValueError(f"unknown protocol `{name}`; known are {', '.join(known)}, speakers-K and clips-K (K folds)")
    kind, num_folds = match[1], int(match[2])
    if num_folds < 3:
        raise ValueError(f"protocol `{name}` needs at least 3 folds, to test, validate and train: use `{kind}-3`")
    if kind == "clips":
        description = f"{num_folds} folds of clips by id, whoever speaks; validation clips are the next fold's"
        return Protocol(name, 1, description, num_folds, _by_hash(num_folds), speakers_cross=True)
    description = f"{num_folds} speaker-disjoint folds of about equal size; validation speakers are the next fold's"
    return Protocol(name, 1, description, num_folds, _balanced(num_folds))


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
