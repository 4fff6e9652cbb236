"""LRS3-TED in its release layout: `pretrain`, `trainval` and `test`, each `<video id>/<number>.mp4` with a text file.

Long pretrain clips are cut at pauses by their word times, as the AV-HuBERT recipe does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from data_prep.corpus import SOURCE, VALIDATION_LIST, VALIDATION_SHARE, Corpus
from data_prep.labels import columns
from data_prep.lists import held_out_split, read_ids, without_file
from data_prep.sources import Official, SourceClip
from data_prep.timed import WORDS_TRACK
from data_prep.transcripts import is_number, pieces_of, recordings, transcript_of
from mmpretrain.listing import readable
from mmpretrain.records import FACE_TRACKS

SETS = ("pretrain", "trainval", "test")


def read(source: Path, *, validation_share: float, validation_list: Path | None = None) -> list[SourceClip]:
    """The clips of a release, or of those of its three sets that are there.

    `validation` is what the list names; without one, about `validation_share` of pretrain and trainval, by hash of the
    uncut clip. The speaker is the talk. Raises FileNotFoundError if none of the sets is there.
    """
    if not any((source / name).is_dir() for name in SETS):
        raise FileNotFoundError(
            f"--source {source} has none of the folders {', '.join(SETS)}; give the release's own folder"
        )
    held_out = read_ids(validation_list, depth=3) if validation_list else None
    files = [path for name in SETS if (source / name).is_dir() for path in recordings(source / name)]
    if held_out is not None:
        named = {f"{path.parent.parent.name}/{path.parent.name}/{path.stem}" for path in files}
        without_file(held_out, named | {name.partition("/")[2] for name in named}, validation_list)
    return [clip for path in files for clip in _clips(path, validation_share, held_out)]


def _clips(path: Path, validation_share: float, held_out: Collection[str] | None) -> Iterator[SourceClip]:
    name, talk = path.parent.parent.name, readable(path.parent.name)
    clip_id = f"{name}/{talk}/{readable(path.stem)}"
    if not is_number(path.stem):
        yield SourceClip(clip_id, path, refused="not a place of LRS3 (trainval/<video id>/50001.mp4)")
        return
    transcript = transcript_of(path)
    pieces = pieces_of(transcript, cut=name == "pretrain")
    for k, (text, piece) in enumerate(pieces):
        yield SourceClip(
            clip_id=clip_id if len(pieces) == 1 else f"{clip_id}_{k}",
            path=path,
            split="test" if name == "test" else held_out_split(clip_id, held_out, validation_share),
            speaker=f"lrs3-{talk}",
            labels={"text": text, "language": "en"},
            info={"set": name},
            start_sec=piece.start_sec,
            end_sec=piece.end_sec,
            note=transcript.note,
            words=piece.words,
            official=Official(name, clip_id),
        )


LAYOUT = """\
LRS3-TED as released: pretrain/, trainval/ and test/ (any of them), each <video id>/<number>.mp4 with .txt beside it.
Long pretrain clips are cut at pauses; test is the test split. The usual validation set is a list of 1,200 clips of
trainval (--validation-list; an id such as trainval/<video id>/50001 on a line)."""

CORPUS = Corpus(
    name="lrs3",
    layout=LAYOUT,
    terms="CC BY-NC-ND 4.0",
    arguments=(SOURCE, VALIDATION_SHARE, VALIDATION_LIST),
    read=read,
    labels=columns("text", "language"),
    tracks={**FACE_TRACKS, **WORDS_TRACK},
    official={"pretrain": 118_516, "trainval": 31_982, "test": 1_321},
)
