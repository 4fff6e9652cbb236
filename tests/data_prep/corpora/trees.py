"""What the tests of corpus readers share: fake trees of a corpus's exact layout, and looking at what a reader makes."""

import importlib
import os
from pathlib import Path

from data_prep.__main__ import main
from data_prep.corpus import Corpus
from data_prep.sources import SourceClip
from data_prep.timed import are_of
from mmpretrain import records

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234567\n"


def corpus_of(name: str) -> Corpus:
    return importlib.import_module(f"data_prep.corpora.{name}").CORPUS


def touch(*paths: Path) -> None:
    """Files that are different from each other."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not really a recording: " + os.fsencode(path))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def clips_of(name: str, source: Path, **arguments) -> dict[str, SourceClip]:
    """What the reader makes, by clip id, once it is sure that the schema of the corpus takes all of their labels."""
    corpus = corpus_of(name)
    clips = corpus.sources(source=source, **arguments)
    schema = records.Schema(96, 112, corpus.tracks, corpus.labels)
    for clip in clips:
        schema.check_labels(clip.clip_id, clip.labels)
        assert set(clip.curves) <= set(corpus.tracks)
        assert not clip.words or "words" in corpus.tracks
        assert not clip.words or are_of(clip.words, clip.labels["text"])
        assert clip.split in records.SPLITS
    assert len({clip.clip_id for clip in clips}) == len(clips)
    return {clip.clip_id: clip for clip in clips}


def check(capsys, name: str, source: Path, parts: str = "all", *more: str) -> tuple[int, str]:
    """Exit code and output of `--check`."""
    capsys.readouterr()
    code = main([name, "--source", str(source), *more, "--check", parts])
    return code, capsys.readouterr().out
