"""How protocols deal clips out: functions (clips, fold) -> the part of each clip.

A part is a position in `SPLITS`, -1 stands for a clip that is dropped; int [N]. Folds are counted from 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from mmpretrain.columns import Words
from mmpretrain.index import Index
from mmpretrain.randomness import mixed, unit_hash, unit_of
from mmpretrain.records import SPLITS

Deal = Callable[[Index, int], np.ndarray]
TRAIN, VALIDATION, TEST = map(SPLITS.index, ("train", "validation", "test"))


def by_split(clips: Index, fold: int) -> np.ndarray:
    """The splits of the corpus itself."""
    return clips.splits.map({split: number for number, split in enumerate(SPLITS)}, -1, int)


def by_subject(corpus: str, folds: Sequence[Iterable[int | str]], dropped: Sequence[str] = ()) -> Deal:
    """Folds of speakers: those of fold k are tested, and those of fold k + 1 validated on, or of the first.

    folds: numbers, or the names of speakers without `{corpus}-`; a number may stand for a session of two, such as
    iemocap-1F and iemocap-1M. Drops clip ids that end in `dropped`. Raises ValueError for a speaker that is in no fold.
    """
    group_of = {subject: group for group, subjects in enumerate(folds) for subject in subjects}

    def assign(clips: Index, fold: int) -> np.ndarray:
        groups = {}
        for speaker in clips.speakers.kinds():
            match = re.fullmatch(rf"{corpus}-((\d+)[FM]?)", speaker)
            subject = next((s for s in (match[1], int(match[2])) if s in group_of), None) if match else None
            if subject is None:
                known = f"{corpus}-{_written(min(group_of))} to {corpus}-{_written(max(group_of))}"
                raise ValueError(
                    f"clip {first_of(clips, speaker)}: its speaker `{speaker}` is none of this protocol's ({known}); "
                    f"give the protocol that corpus alone, or use `speakers-5`"
                )
            groups[speaker] = group_of[subject]
        parts = _parts(clips.speakers, groups, fold, len(folds))
        if dropped:
            parts[[clip_id.endswith(tuple(dropped)) for clip_id in clips.clip_ids]] = -1
        return parts

    return assign


def _written(subject: int | str) -> str:
    return f"{subject:02d}" if isinstance(subject, int) else subject


def by_dialogue(tested: str, share: float) -> Deal:
    """Speakers that match the pattern `tested` are tested; of the other dialogues about `share` are validated on.

    Which ones is a matter of the label `dialogue`, of which a clip without it is one of its own; speakers are in both.
    """

    def assign(clips: Index, fold: int) -> np.ndarray:
        test = clips.speakers.map({s: bool(re.fullmatch(tested, s)) for s in clips.speakers.kinds()}, False, bool)
        said = clips.labels.get("dialogue")
        dialogues = list(said) if isinstance(said, Words) else [""] * len(clips)
        names = {name: unit_hash("dialogue", name) < share for name in set(dialogues) if name}
        validated = np.array([names.get(name, False) for name in dialogues], bool)
        return np.where(test, TEST, np.where(validated, VALIDATION, TRAIN))

    return assign


def development_tested(share: float) -> Deal:
    """The corpus's validation part is tested, as where labels of its test part are withheld, which is dropped.

    Of the people of its training part about `share`, one at least, are validated on.
    """

    def assign(clips: Index, fold: int) -> np.ndarray:
        parts = np.array([-1, TEST, TRAIN])[clips.splits.map({"validation": 1, "train": 2}, 0, int)]
        people = sorted(
            set(clips.speakers.take(np.flatnonzero(parts == TRAIN)).kinds()), key=lambda name: unit_hash("person", name)
        )
        some = people[: max(1, round(share * len(people)))]
        chosen = clips.speakers.map(dict.fromkeys(some, True), False, bool)
        return np.where((parts == TRAIN) & chosen, VALIDATION, parts)

    return assign


def another_corpus(name: str, share: float) -> Deal:
    """Speakers called `{name}-...` are tested; of all others about `share`, one at least, are validated on.

    Clips of nobody named are tested too where they are of a corpus of such speakers, by the beginning of their ids.
    """

    def assign(clips: Index, fold: int) -> np.ndarray:
        known = [speaker for speaker in clips.speakers.kinds() if speaker]
        theirs = [speaker for speaker in known if speaker.startswith(f"{name}-")]
        ours = sorted(set(known) - set(theirs), key=lambda speaker: unit_hash("person", speaker))
        parts = dict.fromkeys(theirs, TEST) | dict.fromkeys(ours[: max(1, round(share * len(ours)))], VALIDATION)
        dealt = clips.speakers.map(parts, TRAIN, int)
        if len(nobody := np.flatnonzero(clips.speakers.map({"": True}, False, bool))):
            tested = {_corpus_of(clips, row) for row in np.flatnonzero(dealt == TEST)}
            dealt[[row for row in nobody if _corpus_of(clips, row) in tested]] = TEST
        return dealt

    return assign


def _corpus_of(clips: Index, row: int) -> str:
    """Of a clip of several corpora, which are called `corpus/clip`."""
    return clips.clip_ids[int(row)].partition("/")[0]


def balanced(num_folds: int) -> Deal:
    """Speaker-disjoint folds of any corpus: the speaker with most clips first, each into the smallest fold so far."""

    def assign(clips: Index, fold: int) -> np.ndarray:
        of_speakers = zip(clips.speakers.words, clips.speakers.counts.tolist(), strict=True)
        counts = {speaker: count for speaker, count in of_speakers if count}
        if "" in counts:
            raise ValueError(
                f"protocol `speakers-{num_folds}`: clip {first_of(clips, '')} has no speaker; name the speakers of "
                f"labelled clips when preparing the corpus, or use the protocol `official`"
            )
        if len(counts) < num_folds:
            remedy = f"speakers-{len(counts)}"
            if len(counts) < 3:
                remedy = f"official (the corpus's own splits), or clips-{num_folds} (folds of clips, whoever speaks)"
            raise ValueError(
                f"protocol `speakers-{num_folds}`: the labelled clips have only {len(counts)} "
                f"speaker{'s' * (len(counts) > 1)}; use {remedy}"
            )
        sizes, group_of = [0] * num_folds, {}
        for speaker, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            group_of[speaker] = sizes.index(min(sizes))
            sizes[group_of[speaker]] += count
        return _parts(clips.speakers, group_of, fold, num_folds)

    return assign


def by_hash(num_folds: int) -> Deal:
    """Folds of clips by a hash of their ids, whoever speaks, so that more clips move none of those that there were."""

    def assign(clips: Index, fold: int) -> np.ndarray:
        folds = (unit_of(mixed(clips.id_hashes, "folds of clips")) * num_folds).astype(int)
        return np.array([_part(group, fold, num_folds) for group in range(num_folds)])[folds]

    return assign


def first_of(clips: Index, speaker: str) -> str:
    """The id of the first clip of a speaker."""
    return clips.clip_ids[int(clips.speakers.map({speaker: True}, False, bool).argmax())]


def _parts(groups: Words[str], group_of: dict[str, int], fold: int, num_folds: int) -> np.ndarray:
    """The part of each clip by the fold that tests its group, counted from 0."""
    return groups.map({name: _part(group, fold, num_folds) for name, group in group_of.items()}, -1, int)


def _part(group: int, fold: int, num_folds: int) -> int:
    return {fold - 1: TEST, fold % num_folds: VALIDATION}.get(group, TRAIN)
