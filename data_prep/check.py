"""`--check`, the data doctor: what of a corpus is there, what is missing, and what will be left out and why.

It walks through the files and decodes none.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from data_prep.sources import MEDIA_SUFFIXES, Official, SourceClip
from mmpretrain.listing import find_files, readable

EXAMPLES = 5
BEGINNING_BYTES = 65_536  # files of one size are told apart by it first
ALL = "all"


def check(
    clips: Sequence[SourceClip],
    official: Mapping[str, int],
    listed: Iterable[Official],
    source: Path,
    parts: Iterable[str],
) -> bool:
    """Prints the state of a corpus below `source`. Returns whether all that is official is there.

    official: how many recordings its makers count in each part, of a corpus that has none what it lists itself;
    listed: those that a rule names. parts: those that are looked at; clips of others are left out of the account.
    """
    named = Counter(official.part for official in {clip.official for clip in clips if clip.official})
    official, parts, listed = official or named, list(parts) or list(named), list(listed)
    clips = [clip for clip in clips if clip.official is None or clip.official.part in parts]
    for lines in (_doubles(clips), _odd_files(clips, source), _left_out(clips), _unknown_words(clips), _kept(clips)):
        for line in lines:
            print(line)
    missing = {part: _missing(clips, part, official[part], listed) for part in parts}
    for part, (count, line) in missing.items():
        print(f"{'MISSING' if count else 'whole'}: {part}: {line}")
    return not any(count for count, _ in missing.values())


def chosen_parts(official: Mapping[str, int], words: str) -> list[str]:
    """The parts that `--check` was given, joined by commas. Raises ValueError for one that there is not."""
    parts = list(official) if words == ALL else [word.strip() for word in words.split(",") if word.strip()]
    for part in parts:
        if part not in official:
            raise ValueError(f"--check {part} is no part of this corpus; its parts are {', '.join(official) or 'none'}")
    return parts


def _missing(clips: Iterable[SourceClip], part: str, official: int, listed: Iterable[Official]) -> tuple[int, str]:
    """How many official recordings of a part are not here, and a line on it."""
    of_part = [clip for clip in clips if clip.official and clip.official.part == part]
    there = {clip.official.name for clip in of_part if not clip.missing}
    named = {clip.official.name for clip in of_part} | {one.name for one in listed if one.part == part}
    absent = sorted(named - there)
    count = max(official - len(there), len(absent))
    line = f"{len(there):,} of {official:,} recordings"
    if absent:
        line += f"; {len(absent):,} are listed and not here: {_some(absent)}"
    if count > len(absent):
        line += f"; {count - len(absent):,} more are not here and in no list"
    if len(there) > official:
        line += f"; {len(there) - official:,} more than there should be"
    return count, line


def _kept(clips: Sequence[SourceClip]) -> Iterator[str]:
    kept = [clip for clip in clips if not clip.refused]
    speakers = len({clip.speaker for clip in kept if clip.speaker})
    yield f"{len(kept):,} of {len(clips):,} clips can be prepared, of {speakers:,} speakers"
    for title, of in (("", kept), ("of all that are listed, ", clips)):
        if not title or len(of) > len(kept):
            for column, words in _counts(of).items():
                yield f"  {title}{column}: " + ", ".join(f"{word} {count:,}" for word, count in sorted(words.items()))


def _counts(clips: Iterable[SourceClip]) -> dict[str, Counter[str]]:
    """How many clips have each split and each word of the labels that are not many words."""
    counts = defaultdict(Counter)
    for clip in clips:
        counts["split"][clip.split] += 1
        for column in ("emotion", "perceived", "sentiment", "language"):
            if column in clip.labels:
                counts[column][clip.labels[column] or "none"] += 1
    return counts


def _unknown_words(clips: Iterable[SourceClip]) -> Iterator[str]:
    without = [clip for clip in clips if clip.labels.get("emotion") == ""]
    words = Counter(word for clip in without if (word := clip.info.get("emotion", "")))
    if words:
        said = ", ".join(f"{word} {count:,}" for word, count in words.most_common(12))
        yield f"no emotion label for {words.total():,} clips, whose word for it is none of ours: {said}"


def _left_out(clips: Iterable[SourceClip]) -> Iterator[str]:
    of_reason = defaultdict(list)
    for clip in clips:
        if clip.refused:
            of_reason[clip.refused].append(clip.clip_id)
    for reason, clip_ids in sorted(of_reason.items(), key=lambda item: -len(item[1])):
        yield f"left out {len(clip_ids):,}: {reason} ({_some(clip_ids)})"
    of_note = defaultdict(list)
    for clip in clips:
        if clip.note and not clip.refused:
            of_note[clip.note].append(clip.clip_id)
    for note, clip_ids in sorted(of_note.items(), key=lambda item: -len(item[1]))[:EXAMPLES]:
        yield f"note on {len(clip_ids):,}: {note} ({_some(clip_ids)})"


def _odd_files(clips: Iterable[SourceClip], source: Path) -> Iterator[str]:
    """Files whose name is no text, folders that cannot be looked into, and files that are no clip's."""
    found = find_files(source, MEDIA_SUFFIXES)
    for unread in found.unread:
        yield f"unreadable: the folder {unread}"
    if odd := [readable(path) for path in found.files if readable(path) != os.fspath(path)]:
        yield f"unreadable: {len(odd):,} names are no text ({_some(odd)})"
    yield from of_no_clip(clips, source, found.files)


def of_no_clip(clips: Iterable[SourceClip], source: Path, files: Sequence[Path] | None = None) -> Iterator[str]:
    """A line on the files of sound and picture below the source that are no clip's. files: all of them, if known."""
    files = find_files(source, MEDIA_SUFFIXES).files if files is None else files
    named = set(_paths(clips))
    if others := [path for path in files if path not in named]:
        named = {os.path.realpath(path) for path in named}
    others = [readable(path.relative_to(source)) for path in others if os.path.realpath(path) not in named]
    if others:
        yield f"no clip is made of {len(others):,} files of sound or picture ({_some(others)})"


def without_clip(clips: Iterable[SourceClip], official: Mapping[str, int]) -> Iterator[str]:
    """A line on the official parts of which there is nothing at all."""
    there = {clip.official.part for clip in clips if clip.official}
    if lacking := [part for part in official if part not in there]:
        yield f"there is nothing of {', '.join(lacking)}"


def _doubles(clips: Iterable[SourceClip]) -> Iterator[str]:
    """Groups of files of the same bytes: first by size, then by how they begin, then by all."""
    of_size = defaultdict(list)
    for path in dict.fromkeys(_paths(clip for clip in clips if not clip.missing)):
        try:
            of_size[path.stat().st_size].append(path)
        except OSError:
            continue
    groups = (again for of_one in of_size.values() for again in _alike(of_one, BEGINNING_BYTES))
    for group in (same for again in groups for same in _alike(again, -1)):
        yield f"same bytes: {' = '.join(readable(path.name) for path in group)}"


def _alike(paths: Sequence[Path], num_bytes: int) -> Iterator[list[Path]]:
    if len(paths) < 2:
        return
    of_digest = defaultdict(list)
    for path in paths:
        try:
            with open(path, "rb") as file:
                if num_bytes < 0:
                    digest = hashlib.file_digest(file, "blake2b").digest()
                else:
                    digest = hashlib.blake2b(file.read(num_bytes)).digest()
        except OSError:
            continue
        of_digest[digest].append(path)
    yield from (alike for alike in of_digest.values() if len(alike) > 1)


def _paths(clips: Iterable[SourceClip]) -> Iterator[Path]:
    for clip in clips:
        if clip.path is not None:
            yield clip.path
            if clip.sound:
                yield clip.sound.path


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - EXAMPLES:,} more" if len(words) > EXAMPLES else ""
    return ", ".join(map(str, words[:EXAMPLES])) + more
