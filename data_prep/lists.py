"""Lists of clips that go round beside corpora: what is held out for validation, what is in one language."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from data_prep.sources import MEDIA_SUFFIXES, hashed_split
from data_prep.tables import read_text


def read_ids(path: Path, depth: int) -> dict[str, str]:
    """By id what stands behind it on its line, in small letters, of a list with an id on each line.

    An id is the last `depth` parts of a path, without the suffix of a media file. What stands behind it is parted from
    it by a comma, a tab or blanks. Raises FileNotFoundError, or ValueError for a list without an id.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the list {path} does not exist; give a text file with the id of a clip on each line")
    ids: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        first, _, rest = line.replace(",", " ", 1).strip().partition("\t" if "\t" in line else " ")
        if not first.strip():
            continue
        clip, said = last_parts(first.strip(), depth), rest.strip().lower()
        if (before := ids.setdefault(clip, said)) != said:
            raise ValueError(
                f"the list {path}, line {number}: behind {clip} stands {said!r} here and {before!r} before; remove one "
                "of the two lines"
            )
    if not ids:
        raise ValueError(f"the list {path} names no clip; write the id of a clip on each line")
    return ids


def without_file(ids: Iterable[str], clip_ids: Collection[str], path: Path) -> None:
    """Says how many clips of a list are not among those that are here. Raises ValueError where none is here."""
    ids = list(ids)
    if lost := [clip for clip in ids if clip not in clip_ids]:
        if len(lost) == len(ids):
            raise ValueError(
                f"the list {path}: none of the {len(ids)} clips that it names is here, such as {lost[0]!r}; give the "
                "list of this corpus, an id on each line"
            )
        print(f"note: {len(lost)} of the {len(ids)} clips that {path} names are not here, such as {lost[0]}")


def last_parts(name: str, depth: int) -> str:
    """The last parts of a path or id, without the suffix of a media file."""
    path = PurePosixPath(name.replace("\\", "/"))
    path = path.with_suffix("") if path.suffix.lower() in MEDIA_SUFFIXES else path
    return "/".join(path.parts[-depth:])


def held_out_split(clip_id: str, held_out: Collection[str] | None, validation_share: float) -> str:
    """`validation` or `train`: as a list says where there is one, which may name a clip without the set it is in."""
    if held_out is None:
        return hashed_split(clip_id, validation_share)
    return "validation" if clip_id in held_out or clip_id.partition("/")[2] in held_out else "train"
