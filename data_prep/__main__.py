"""`python -m data_prep CORPUS --source DIR --output DIR`: prepares a corpus for training."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from pathlib import Path

DESCRIPTION = """\
Turns a corpus of talking people into a prepared corpus: sound at 16 kHz, mouth and face crops at 25 frames/s, labels.

  python -m data_prep folder --source my_videos --output prepared/mine
  python -m data_prep folder --source my_videos --manifest labels.csv --output prepared/mine
  python -m data_prep synthetic --output prepared/synthetic

Every clip gets a row in OUTPUT/report.csv: kept or refused, and why. A run that was stopped goes on where it was when
it is started again with the same arguments. `python -m data_prep CORPUS --help` shows what a corpus must look like."""

LAYOUTS = {
    "folder": """\
Every sound and video file below --source becomes a clip, or, with --manifest, every row of a CSV file:

  path,speaker,text,emotion,split,start_sec,end_sec
  anna/01.mp4,anna,hello there,happy,train,,
  talk.mp4,ben,,,,12.4,17.0

Only `path` is needed: relative to --source, to the CSV's own folder or to the folder above it. `clip_id` may name the
clip. start_sec and end_sec cut a part out of a file. Any other column is kept with the clip. Rows without a split are
train or validation by --validation-share.""",
    "ravdess": """\
RAVDESS speech or song: Actor_01/03-01-05-01-01-01-01.wav (or mp4, flac), folders at any depth. Labels come from the
names. Where a take is there with sound and picture (01-...), its 02-... and 03-... files are left out.""",
    "lrs3": """\
LRS3-TED as released: pretrain/, trainval/ and test/ (any of them), each <video id>/<number>.mp4 with .txt beside it.
Long pretrain clips are cut at pauses; test is the test split.""",
    "synthetic": """\
Talking faces drawn and voiced by this program, with true units for every frame: for the demo and for tests. Needs no
files and no face landmarker.""",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 2 for anything the user can mend, 130 after Ctrl-C."""
    args = _parser().parse_args(arguments)
    try:
        _run(args)
    except (ValueError, OSError) as error:
        print(f"data_prep {args.corpus}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    corpora = parser.add_subparsers(dest="corpus", required=True, metavar="CORPUS", help=", ".join(LAYOUTS))
    for name, layout in LAYOUTS.items():
        corpus = corpora.add_parser(name, description=layout, formatter_class=argparse.RawDescriptionHelpFormatter)
        corpus.set_defaults(validation_share=0.0, min_face_rate=0.5, workers=1)  # for corpora without the argument
        corpus.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the prepared corpus")
        if name == "synthetic":
            corpus.add_argument("--clips", type=int, default=240, help="how many clips (default: %(default)s)")
            corpus.add_argument(
                "--seed", type=int, default=1, help="another seed, another corpus (default: %(default)s)"
            )
        else:
            _add_source_arguments(corpus, name)
        for view, size in (("mouth", 96), ("face", 112)):
            text = f"side of the {view} crop (default: %(default)s)"
            corpus.add_argument(f"--{view}-size", type=int, default=size, metavar="PX", help=text)
        corpus.add_argument(
            "--overwrite", action="store_true", help="replace what other arguments made; landmarks are used again"
        )
    return parser


def _add_source_arguments(corpus: argparse.ArgumentParser, name: str) -> None:
    corpus.add_argument("--source", required=True, type=Path, metavar="DIR", help="folder of the raw corpus")
    if name == "folder":
        corpus.add_argument("--manifest", type=Path, metavar="CSV", help="which files, with which labels (see above)")
        corpus.add_argument(
            "--split-by", choices=("clip", "speaker"), default="clip", help="what is held out whole (default: clip)"
        )
    if name in ("folder", "lrs3"):
        corpus.add_argument(
            "--validation-share",
            type=float,
            default=0.05,
            help="held out as validation where no split is given (default: 0.05)",
        )
    corpus.add_argument(
        "--landmarker", metavar="PATH", help="MediaPipe's face_landmarker.task (default: $MMPRETRAIN_LANDMARKER, else "
        "~/.cache/mmpretrain, fetched there once)"
    )  # fmt: skip
    corpus.add_argument(
        "--min-face-rate", type=float, default=0.5, metavar="SHARE",
        help="a picture with a face in fewer of its frames is dropped (default: 0.5)",
    )  # fmt: skip
    corpus.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one a core)"
    )


def _run(args: argparse.Namespace) -> None:
    # Imported here so that --help answers at once and worker processes load no more than they use.
    from data_prep import faces, preparation
    from data_prep.sources import VIDEO_SUFFIXES
    from mmpretrain import records

    options = preparation.Options(args.mouth_size, args.face_size, args.min_face_rate)
    if args.workers < 1:
        raise ValueError(f"--workers {args.workers} does no work; use 1 or more")
    if not 0 <= args.validation_share < 1:
        raise ValueError(
            f"--validation-share {args.validation_share} is not a share below 1; 0.05 holds out one in twenty"
        )
    clips, name = _read(args)
    has_videos = any(clip.path and clip.path.suffix.lower() in VIDEO_SUFFIXES for clip in clips if not clip.refused)
    model = faces.landmarker_model(args.landmarker) if has_videos else None
    preparation.prepare(
        clips, args.output, options, name=name, tracks=records.FACE_TRACKS | records.TRUE_UNITS,
        labels={"emotion": "class", "text": "text"}, model=model, num_workers=args.workers, overwrite=args.overwrite,
    )  # fmt: skip


def _read(args: argparse.Namespace) -> tuple[list, str]:
    """The clips of the corpus and its name."""
    if args.corpus == "folder":
        from data_prep.corpora import folder

        clips = folder.read(args.source, args.manifest, validation_share=args.validation_share, split_by=args.split_by)
        return clips, args.source.resolve().name
    if args.corpus == "ravdess":
        from data_prep.corpora import ravdess

        return ravdess.read(args.source), "ravdess"
    if args.corpus == "lrs3":
        from data_prep.corpora import lrs3

        return lrs3.read(args.source, validation_share=args.validation_share), "lrs3"
    return _synthetic(args.clips, args.seed), f"synthetic-{args.seed}"


def _synthetic(num_clips: int, seed: int) -> list:
    from data_prep.corpora import synthetic
    from data_prep.sources import SourceClip

    def source_clip(spec):
        return SourceClip(
            clip_id=spec.clip_id, path=None, split=spec.split, speaker=spec.speaker,
            labels={"emotion": spec.emotion, "text": " ".join(spec.words)},
            render=functools.partial(synthetic.render, spec, seed),
        )  # fmt: skip

    return [source_clip(spec) for spec in synthetic.clip_specs(num_clips, seed)]


if __name__ == "__main__":
    sys.exit(main())
