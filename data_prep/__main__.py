"""`python -m data_prep CORPUS --source DIR --output DIR`: prepares a corpus for training."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` put the current folder first, where anybody's code may lie (a numpy.py). Ours is looked for last.
    sys.path[:] = [*sys.path[1:], os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    os.environ["PYTHONSAFEPATH"] = "1"  # nor do the worker processes take it from there

import argparse
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.corpora import CORPORA
from mmpretrain import output

if TYPE_CHECKING:
    from data_prep.corpus import Corpus
    from data_prep.options import Options

DESCRIPTION = """\
Turns a corpus of talking people into a prepared corpus: sound at 16 kHz, mouth and face crops at 25 frames/s, labels.

  python -m data_prep folder --source my_videos --output prepared/mine
  python -m data_prep folder --source my_videos --manifest labels.csv --output prepared/mine
  python -m data_prep synthetic --output prepared/synthetic
  python -m data_prep CORPUS --source DIR --check

Every clip gets a row in OUTPUT/report.csv: kept or refused, and why. A run that was stopped goes on where it was when
it is started again with the same arguments. `python -m data_prep CORPUS --help` shows what a corpus must look like."""


@output.until_unread()
def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 2 for anything the user can mend, 130 after Ctrl-C.

    1 is that of `--check` where something official is missing. Exits with 141 when nobody reads the output any more.
    """
    name, *rest = _with_corpus(sys.argv[1:] if arguments is None else arguments)
    # Only the module of this corpus is loaded, and what prepares clips only after `--help` has been answered.
    return run(importlib.import_module(f"data_prep.corpora.{name}").CORPUS, rest)


@output.until_unread()
def run(corpus: Corpus, words: list[str]) -> int:
    """The command for this corpus, one of one's own say. words: what is given behind its name."""
    args = corpus.arguments_of(words)
    from mmpretrain.files import check_local  # brings NumPy with it

    sys.stdout.reconfigure(errors="backslashreplace")  # a file name need not be text, nor of the terminal's letters
    try:
        for option, value in vars(args).items():
            check_local(f"--{option.replace('_', '-')}", value if isinstance(value, str | Path) else "")
        return _check(corpus, args) if args.check else _run(corpus, args)
    except (ValueError, OSError) as error:
        if output.is_unread(error):
            raise
        print(f"data_prep {corpus.name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _with_corpus(arguments: list[str]) -> list[str]:
    """The arguments, if the first is the name of a corpus; otherwise the program ends with a message or the help."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep", usage="%(prog)s CORPUS --output DIR ...", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("corpus", metavar="CORPUS", choices=CORPORA, help=", ".join(CORPORA))
    parser.parse_args(arguments[:1])
    return arguments


def _check(corpus: Corpus, args: argparse.Namespace) -> int:
    from data_prep.check import check, chosen_parts
    from data_prep.given_landmarks import with_landmarks
    from data_prep.landmarker import landmarker_model

    _options(args)
    parts = chosen_parts(corpus.official, args.check)
    clips, *_ = corpus.clips(args)
    clips = with_landmarks(clips, args.landmarks) if args.landmarks else clips
    if args.landmarker and any(clip.needs_landmarker for clip in clips):
        landmarker_model(args.landmarker)
    if not clips and not corpus.official:
        raise ValueError("no clips found in the source; see `--help` of this corpus for the layout that is expected")
    listed = corpus.listed() if corpus.listed else ()
    return 0 if check(clips, corpus.official, listed, args.source, parts) else 1


def _run(corpus: Corpus, args: argparse.Namespace) -> int:
    from data_prep import preparation
    from data_prep.check import of_no_clip, without_clip
    from data_prep.given_landmarks import with_landmarks
    from data_prep.landmarker import landmarker_model
    from data_prep.sources import with_text_alone

    options = _options(args)
    if not corpus.drawn and os.path.realpath(args.output) == os.path.realpath(args.source):
        raise ValueError(f"--output {args.output} is --source itself; give another folder")
    clips, name, labels = corpus.clips(args)
    if not corpus.drawn:
        for line in (*of_no_clip(clips, args.source), *without_clip(clips, corpus.official)):
            print(f"note: {line}")
    clips = [with_text_alone(clip) for clip in clips] if args.text_alone else clips
    clips = with_landmarks(clips, args.landmarks) if args.landmarks else clips
    model = landmarker_model(args.landmarker) if any(clip.needs_landmarker for clip in clips) else None
    tracks = {**corpus.tracks, **options.tracks}
    preparation.prepare(
        clips, args.output, options, name=name, tracks=tracks, labels=labels, model=model, num_workers=args.workers,
        beam=args.beam, overwrite=args.overwrite, terms=args.terms or corpus.terms,
    )  # fmt: skip
    return 0


def _options(args: argparse.Namespace) -> Options:
    """Raises ValueError."""
    from data_prep.hands import hand_model
    from data_prep.options import Options

    return Options(
        args.mouth_size,
        args.face_size,
        args.min_face_rate,
        args.max_clip_sec,
        args.max_gap_sec,
        args.compression,
        hand_model(args.hand_landmarker) if args.hand_landmarker else None,
        args.detect_every,
        args.colour,
        args.decode_once,
    )


if __name__ == "__main__":
    sys.exit(main())
