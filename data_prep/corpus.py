"""What a corpus declares beside its reader, so that the command and everything behind it know no corpus by name.

Adding one: a module of `corpora/` with its `CORPUS`, and the module's name in the `CORPORA` of that package.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from data_prep.check import ALL
from data_prep.sources import Official, SourceClip, without_copies, without_missing
from mmpretrain.features.mean_face import CROP_SIZES
from mmpretrain.records import FACE_TRACKS, TrackSpec
from mmpretrain.storage import COMPRESSIONS


@dataclasses.dataclass(frozen=True)
class Argument:
    """--NAME of a corpus, with - for _. settings: what `argparse.add_argument` takes.

    accepts: whether a value that was given will do; refusal: what to say of one that will not, after `--name value`.
    """

    name: str
    settings: Mapping[str, Any]
    accepts: Callable[[Any], bool] = lambda value: True
    refusal: str = ""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    def check(self, value: Any) -> None:
        """Raises ValueError for a value that will not do."""
        if not self.accepts(value):
            raise ValueError(f"{self.flag} {value} {self.refusal}")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus that can be prepared.

    name: as the command calls it. layout: what it must look like, for `--help`. terms: under which its makers hand it
    out, for whoever gets an encoder that learned from it; "": not stated. official: how many recordings its makers
    count in each part, where they say (see `SourceClip.official`). listed: which, where a rule names them.
    arguments: its own. read: the clips, given the values of `arguments` by name; raises ValueError or OSError.
    labels, tracks: what its clips may have (see `records.Schema`); more_labels: and what else, given what `read` is
    given. prepared_name: what the prepared corpus is called,
    given what `read` is given; by default the corpus's name. drawn: it comes from no files, hence needs no face
    landmarker and no worker processes.
    """

    name: str
    layout: str
    arguments: tuple[Argument, ...]
    read: Callable[..., list[SourceClip]]
    labels: Mapping[str, str]
    terms: str = ""
    tracks: Mapping[str, TrackSpec] = dataclasses.field(default_factory=lambda: FACE_TRACKS)
    official: Mapping[str, int] = dataclasses.field(default_factory=dict)
    listed: Callable[[], Iterable[Official]] | None = None
    more_labels: Callable[..., Mapping[str, str]] = lambda **_: {}
    prepared_name: Callable[..., str] | None = None
    drawn: bool = False

    @property
    def all_arguments(self) -> tuple[Argument, ...]:
        return (*self.arguments, *(() if self.drawn else _OF_FILES), _TERMS, _WORKERS, _BEAM)

    def parser(self) -> argparse.ArgumentParser:
        """Reads what follows the corpus's name on the command line."""
        official = ", ".join(f"{part} {count:,}" for part, count in self.official.items())
        parser = argparse.ArgumentParser(
            prog=f"python -m data_prep {self.name}", formatter_class=argparse.RawDescriptionHelpFormatter,
            description=self.layout + (f"\n\nClips as released: {official}." if official else "")
            + (f"\n\nTerms: {self.terms}." if self.terms else ""),
        )  # fmt: skip
        parser.set_defaults(
            landmarker=None,
            landmarks=None,
            hand_landmarker=None,
            detect_every=1,
            colour=False,
            decode_once=False,
            text_alone=False,
            min_face_rate=0.5,
            max_clip_sec=60.0,
            max_gap_sec=1.0,
        )  # for what is drawn
        parser.add_argument("--output", type=Path, metavar="DIR", help="folder of the prepared corpus")
        parser.set_defaults(check=None)
        if not self.drawn:
            parts = f": {', '.join(self.official)}" if self.official else ""
            parser.add_argument(
                "--check", nargs="?", const=ALL, metavar="PARTS",
                help="prepare nothing: say what of the corpus (or of these parts of it, joined by commas"
                f"{parts}) is there, missing, there twice, and what will be left out; ends with 1 if anything official "
                "is missing",
            )  # fmt: skip
        for argument in self.all_arguments:
            parser.add_argument(argument.flag, **argument.settings)
        for view, size in CROP_SIZES.items():
            text = f"side of the {view} crop (default: %(default)s)"
            parser.add_argument(f"--{view}-size", type=int, default=size, metavar="PX", help=text)
        parser.add_argument(
            "--compression", choices=tuple(COMPRESSIONS), default="none",
            help="of sound and pictures: zstd takes a third less space and loads slower (default: %(default)s)",
        )  # fmt: skip
        parser.add_argument(
            "--overwrite", action="store_true", help="replace what other arguments made; landmarks are used again"
        )
        return parser

    def arguments_of(self, words: list[str]) -> argparse.Namespace:
        """What stands on the command line behind the corpus's name; otherwise the program ends with a message."""
        parser = self.parser()
        args = parser.parse_args(words)
        if args.output is None and args.check is None:
            parser.error("the following arguments are required: --output" + ("" if self.drawn else " (or --check)"))
        return args

    def clips(self, args: argparse.Namespace) -> tuple[list[SourceClip], str, dict[str, str]]:
        """The clips of the corpus, what it will be called, and its label columns. Raises what `read` raises."""
        for argument in self.all_arguments:
            argument.check(getattr(args, argument.name))
        own = {argument.name: getattr(args, argument.name) for argument in self.arguments}
        name = self.prepared_name(**own) if self.prepared_name else self.name
        return self.sources(**own), name, {**self.labels, **self.more_labels(**own)}

    def sources(self, **own: Any) -> list[SourceClip]:
        """What `read` gives, each id once, those refused whose files are not there."""
        return without_missing(without_copies(self.read(**own)))


# What several corpora take.
SOURCE = Argument("source", dict(required=True, type=Path, metavar="DIR", help="folder of the raw corpus"))
VALIDATION_SHARE = Argument(
    "validation_share",
    dict(type=float, default=0.05, help="held out as validation where no split is given (default: 0.05)"),
    lambda share: 0 <= share < 1,
    "is not a share below 1; 0.05 holds out one in twenty",
)

VALIDATION_LIST = Argument(
    "validation_list",
    dict(type=Path, metavar="FILE", help="the clips held out as validation, an id on each line, instead of that share"),
)

# What every corpus takes.
_TERMS = Argument(
    "terms",
    dict(
        default="", metavar="TEXT",
        help="under which the clips may be used: it stands on the cards of encoders that learn from them (default: as "
        "the corpus's makers hand it out, where that is known)",
    ),
)  # fmt: skip
_WORKERS = Argument(
    "workers",
    dict(type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one a core)"),
    lambda count: count >= 1,
    "does no work; use 1 or more",
)
_BEAM = Argument(
    "beam",
    dict(
        nargs="?", const="", metavar="OPTIONS",
        help="prepare by a pipeline of Apache Beam with these options of it, as --beam='--runner=FlinkRunner "
        "--flink_master=HOST:8081'; without a runner its own, with WORKERS processes here",
    ),
)  # fmt: skip

# What every corpus of files takes.
_OF_FILES = (
    Argument(
        "landmarker",
        dict(
            metavar="PATH",
            help="MediaPipe's face_landmarker.task (default: $MMPRETRAIN_LANDMARKER, else ~/.cache/mmpretrain, fetched "
            "there once)",
        ),
    ),
    Argument(
        "landmarks",
        dict(
            type=Path, metavar="DIR",
            help="landmarks that are known already: CLIP_ID.npz with `points` [frames, 68 or 478, 2] and, if it is not "
            "25, `fps`; faces are looked for only in clips without",
        ),
    ),
    Argument(
        "hand_landmarker",
        dict(
            metavar="PATH",
            help="MediaPipe's hand_landmarker.task: the hands of the person whose face is followed are looked for too",
        ),
    ),
    Argument(
        "detect_every",
        dict(
            type=int, default=1, metavar="N",
            help="look for faces in one of N pictures; between them they move evenly (default: 1)",
        ),
    ),
    Argument(
        "colour",
        dict(
            action="store_true",
            help="keep the crops in colour too, as tracks `mouth_colour` and `face_colour`; models read the grey ones",
        ),
    ),
    Argument(
        "decode_once",
        dict(
            action="store_true",
            help="make crops while looking for faces instead of decoding each video again; until they are written they "
            "take as much room in OUTPUT as the corpus",
        ),
    ),
    Argument(
        "text_alone",
        dict(
            action="store_true",
            help="keep a clip whose file is not there for what is spoken in it, where the corpus's tables say so",
        ),
    ),
    Argument(
        "min_face_rate",
        dict(
            type=float, default=0.5, metavar="SHARE",
            help="a picture with a face in fewer of its frames is dropped (default: 0.5)",
        ),
    ),
    Argument(
        "max_clip_sec",
        dict(
            type=float, default=60.0, metavar="SEC",
            help="longer files are cut at pauses into parts, each a clip of its own (default: 60)",
        ),
    ),
    Argument(
        "max_gap_sec",
        dict(
            type=float, default=1.0, metavar="SEC",
            help="where the face is away for longer the clip is cut, and its longest part kept (default: 1)",
        ),
    ),
)  # fmt: skip
