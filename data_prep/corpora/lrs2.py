"""LRS2-BBC in its release layout: `mvlrs_v1/main` and `mvlrs_v1/pretrain`, each `<programme>/<number>.mp4` with a text
file, and the lists that say which clips of `main` train, validate and test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.corpus import SOURCE, Corpus
from data_prep.labels import columns
from data_prep.lists import read_ids
from data_prep.sources import Official, SourceClip
from data_prep.tables import find_table
from data_prep.timed import WORDS_TRACK
from data_prep.transcripts import is_number, pieces_of, recordings, transcript_of
from mmpretrain.listing import readable
from mmpretrain.records import FACE_TRACKS

_SPLITS = {"pretrain": "train", "train": "train", "val": "validation", "test": "test"}  # by the names of the lists


def read(source: Path) -> list[SourceClip]:
    """The clips that the lists name and those that are there.

    A clip of `main` that no list names, or only that of pretraining, is refused: it may be of the test. Raises
    FileNotFoundError where there are neither clips nor lists.
    """
    root = next(
        (at for at in (source, source / "mvlrs_v1") if (at / "main").is_dir() or (at / "pretrain").is_dir()), None
    )
    lists = {name: found for name in _SPLITS if (found := find_table(source, f"{name}.txt", f"mvlrs_v1/{name}.txt"))}
    if root is None and not lists:
        raise FileNotFoundError(
            f"--source {source} has neither mvlrs_v1/main nor a list such as train.txt; give the release's own folder"
        )
    root = root or source / "mvlrs_v1"
    named: dict[tuple[str, str], str] = {}
    for name, file in lists.items():
        for clip in read_ids(file, depth=2):
            other = named.setdefault(("pretrain" if name == "pretrain" else "main", clip), name)
            if other != name:
                raise ValueError(f"{file} names {clip}, as {lists[other]} does; remove it from one of them")
    files = {
        (folder, f"{path.parent.name}/{path.stem}"): path
        for folder in ("pretrain", "main")
        if (root / folder).is_dir()
        for path in recordings(root / folder)
    }
    clips = []
    for folder, name in sorted({*named, *files}):
        path = files.get((folder, name), root / folder / f"{name}.mp4")
        clips += _clips(folder, name, path, named.get((folder, name)))
    return clips


def _clips(folder: str, name: str, path: Path, listed: str | None) -> Iterator[SourceClip]:
    if not is_number(path.stem):
        refused = "not a place of LRS2 (main/<programme>/00001.mp4)"
        yield SourceClip(readable(f"{folder}/{name}"), path, refused=refused)
        return
    part = listed or ("pretrain" if folder == "pretrain" else "")
    clip_id, programme = readable(f"{folder}/{name}"), readable(path.parent.name)
    transcript = transcript_of(path)
    pieces = pieces_of(transcript, cut=folder == "pretrain")
    for k, (text, piece) in enumerate(pieces):
        yield SourceClip(
            clip_id=clip_id if len(pieces) == 1 else f"{clip_id}_{k}",
            path=path,
            split=_SPLITS.get(part, "train"),
            speaker=f"lrs2-{programme}",
            labels={"text": text, "language": "en"},
            info={"set": part},
            start_sec=piece.start_sec,
            end_sec=piece.end_sec,
            refused=""
            if part
            else "is in none of the lists train.txt, val.txt, test.txt, so that its split is not known",
            note=transcript.note,
            words=piece.words,
            official=Official(part, clip_id) if part else None,
        )


LAYOUT = """\
LRS2-BBC as released: mvlrs_v1/main and mvlrs_v1/pretrain, each <programme>/<number>.mp4 with .txt beside it, and
pretrain.txt, train.txt, val.txt, test.txt in --source (a clip on each line; what stands behind it is not read). Long
pretrain clips are cut at pauses."""

CORPUS = Corpus(
    name="lrs2",
    layout=LAYOUT,
    terms="research only, by signed agreement with the BBC",
    arguments=(SOURCE,),
    read=read,
    labels=columns("text", "language"),
    tracks={**FACE_TRACKS, **WORDS_TRACK},
    official={"pretrain": 96_318, "train": 45_839, "val": 1_082, "test": 1_243},
)
