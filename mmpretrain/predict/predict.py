"""`mmpretrain predict CLIP... --encoder=DIR`: what everybody in recordings shows over time."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.encoders.folder import read_crop_size
from mmpretrain.files import DamagedError, read_json, write_json, write_text
from mmpretrain.listing import AUDIO_SUFFIXES, VIDEO_SUFFIXES, find_files, readable, suffix_of
from mmpretrain.observe.progress import Progress, log
from mmpretrain.predict.judge import Judge
from mmpretrain.predict.reading import Reading
from mmpretrain.predict.results import Prediction, as_csv, as_json
from mmpretrain.report.tables import NOTHING, duration, percent, text_table
from mmpretrain.run.base import cache_compilations
from mmpretrain.run.command import Argument, Command, Given, Option
from mmpretrain.run.paths import make_folder

if TYPE_CHECKING:
    from data_prep.people import Facts, Part
    from mmpretrain.predict.over_time import Windows

MAX_FACES = 10
MAX_NAME_BYTES = 200  # of what is written of a file; systems take 255, with all endings
UNSEEN_PX = 16  # of the crops that the encoder does not see
ANSWERS = (".json", ".csv")  # what is written of each file, by the end of its name
NUM_SECONDS = {"window": "what is judged at once", "hop": "from one judgement to the next",
               "smoothing": "over which what is said is averaged, 0: not"}  # fmt: skip


def predict(
    paths: Sequence[Path],
    judge: Judge,
    windows: Windows,
    *,
    crop_size: int,
    landmarker: Path | None = None,
    max_faces: int = MAX_FACES,
    num_workers: int = 1,
) -> Iterator[Prediction]:
    """What was predicted of each file, in their order; of one that gave nothing the reason.

    Files are decoded in `num_workers` processes, so that one that brings a decoder down costs its own answer alone. A
    file goes through in parts, so that memory does not grow with its length. landmarker: the model with which faces are
    found; None: the sound alone is judged.
    """
    from data_prep.people import Contents, look_into, read_part
    from data_prep.workers import Failed, ordered_map
    from mmpretrain.predict.over_time import OverTime

    with Progress("looking into files", len(paths), "file") as progress:
        facts_of = []
        for _, facts in ordered_map(look_into, paths, num_workers, lambda path: 600.0):
            facts_of.append(facts)
            progress.update()
    parts_of = [
        [] if isinstance(facts, Failed) or facts.error else
        parts(path, facts, judge, windows, crop_size, landmarker, max_faces)
        for path, facts in zip(paths, facts_of, strict=True)
    ]  # fmt: skip
    every = list(itertools.chain.from_iterable(parts_of))
    with Progress("predicting", len(every), "part") as progress:
        read = ordered_map(read_part, every, num_workers, lambda part: 1800.0)
        for path, facts, own in zip(paths, facts_of, parts_of, strict=True):
            if not own:
                yield Prediction(readable(path), error=facts.reason if isinstance(facts, Failed) else facts.error)
                continue
            over_time = OverTime(judge, windows, readable(path), facts)
            for number, part in enumerate(own, start=1):
                _, contents = next(read)
                contents = Contents(error=contents.reason) if isinstance(contents, Failed) else contents
                over_time.add(part, contents, is_last=number == len(own))
                progress.update()
            yield over_time.result()


def parts(
    path: Path, facts: Facts, judge: Judge, windows: Windows, crop_size: int, landmarker: Path | None,
    max_faces: int,
) -> list[Part]:  # fmt: skip
    """The parts of a file, to be read one after the other."""
    from data_prep.options import Options
    from data_prep.people import Part
    from mmpretrain.predict.over_time import spans

    unseen = dict.fromkeys(("mouth_size", "face_size"), UNSEEN_PX)
    options = Options(**unseen | {f"{judge.view}_size": crop_size})
    model = landmarker if facts.has_picture and "video" in judge.modalities else None
    return [Part(path, start, end, options, model, max_faces) for start, end in spans(facts, windows)]


def media_in(paths: Sequence[Path]) -> list[Path]:
    """The files, and those with sound or picture below the folders. Raises FileNotFoundError for what is not there."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = find_files(path, AUDIO_SUFFIXES | VIDEO_SUFFIXES).files
            if not inside:
                raise FileNotFoundError(f"{path} holds no sound or video file")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path} does not exist")
    return list(dict.fromkeys(found))


def output_names(paths: Sequence[Path]) -> list[str]:
    """A name of its own for each file, by its stem, cut where it is long: those that share one are numbered."""
    taken: set[str] = set()
    names = []
    for path in paths:
        stem = readable(path.stem).encode()[:MAX_NAME_BYTES].decode(errors="ignore") or "clip"
        name = next(n for n in itertools.chain([stem], (f"{stem}-{k}" for k in itertools.count(2))) if n not in taken)
        taken.add(name)
        names.append(name)
    return names


def check_videos(paths: Sequence[Path], output: Path) -> None:
    """Raises ValueError where a video that is to be made would take the place of a recording."""
    given = {os.path.realpath(path) for path in paths}
    for name in output_names(paths):
        if os.path.realpath(video := output / f"{name}.mp4") in given:
            raise ValueError(
                f"--render would write its video over the recording {readable(video)}; give another --output"
            )


def check_answers(paths: Sequence[Path], output: Path) -> None:
    """Raises ValueError where an answer would take the place of somebody's own file."""
    for name in output_names(paths):
        if answered(output, name) is not None:
            continue
        if own := [file for suffix in ANSWERS if (file := output / f"{name}{suffix}").exists()]:
            raise ValueError(f"--output={output} has {own[0].name}, which is no answer of predict; give another folder")


def answered(output: Path, name: str) -> str | None:
    """The file that an earlier command answered under this name; None where there is no such answer."""
    try:
        said = read_json(output / f"{name}.json", if_missing={})
    except (DamagedError, OSError):
        return None
    return said["file"] if {"file", "encoder", "people"} <= said.keys() else None


def remove_answer(output: Path, name: str, file: str) -> None:
    """Removes what an earlier command said of a file of which nothing is said now; files of others stay."""
    if answered(output, name) == file:
        for suffix in ANSWERS:
            (output / f"{name}{suffix}").unlink(missing_ok=True)
        log(f"{file}: what was said of it before is removed from {output}")


def table(found: Sequence[Prediction], reading: Reading) -> str:
    """A row for each person: what is said on the whole, and how probable each class is."""
    columns = [reading.task] if reading.is_number else ["mostly", *reading.names]
    rows = []
    for of_file in found:
        name = Path(of_file.file).name
        for person in of_file.people:
            overall = person.moments.overall
            seen = duration(float(person.moments.end_sec[-1] - person.moments.start_sec[0]))
            said = [f"{overall[0]:.2f}"] if reading.is_number else [
                reading.label(overall), *(percent(float(p)) for p in overall)
            ]  # fmt: skip
            rows.append([name, person.name, seen, *said])
        if not of_file.people:
            rows.append([name, NOTHING, NOTHING, *[NOTHING] * len(columns)])
    return text_table((["file", "who", "over", *columns], rows))


def _seconds(given: Given) -> Windows:
    from mmpretrain.predict.over_time import Windows

    values = {}
    for name in NUM_SECONDS:
        if (text := given[name]) is not None:
            try:
                values[f"{name}_sec"] = float(text)
            except ValueError:
                raise ValueError(f"--{name}={text}; it must be a number of seconds, such as 2.5") from None
    return Windows(**values, contributions=bool(given["contributions"]))


def _command(given: Given) -> None:
    from data_prep import memory
    from data_prep.landmarker import landmarker_model

    windows = _seconds(given)
    paths, output = media_in(given.paths), Path(given["output"]) if given["output"] else None
    if given["render"] and output is None:
        raise ValueError("--render needs --output=DIR, where the videos go")
    if given["render"]:
        check_videos(paths, output)
    folder = Path(given["encoder"])
    judge = Judge(load_encoder(folder), given["task"] or "")
    if output is not None:
        make_folder(output, "--output")  # before hours of recordings are looked at
        check_answers(paths, output)
    cache_compilations()
    pictures = "video" in judge.modalities and any(suffix_of(path) not in AUDIO_SUFFIXES for path in paths)
    model = landmarker_model(given["landmarker"]) if pictures else None
    workers = memory.that_fit(given["workers"] or os.cpu_count() or 1)
    settings: dict[str, Any] = {
        "encoder": judge.encoder.lineage.get("fingerprint", ""), "window_sec": windows.window_sec,
        "hop_sec": windows.hop_sec, "smoothing_sec": windows.smoothing_of(judge),
    }  # fmt: skip
    found = []
    predictions = predict(
        paths, judge, windows, crop_size=read_crop_size(folder), landmarker=model,
        max_faces=given["faces"] or MAX_FACES, num_workers=workers,
    )  # fmt: skip
    for name, of_file in zip(output_names(paths), predictions, strict=True):
        found.append(of_file)
        if of_file.error:
            log(f"{of_file.file}: nothing predicted: {of_file.error}")
            if output is not None:
                remove_answer(output, name, of_file.file)
        elif output is not None:
            write_json(output / f"{name}.json", as_json(of_file, judge.reading, settings))
            write_text(output / f"{name}.csv", as_csv(of_file, judge.reading))
        for note in of_file.notes:
            log(f"{of_file.file}: {note}")
    if given["render"]:
        _render(paths, found, judge, output, workers)
    answered = [of_file for of_file in found if of_file.people]
    if not answered:
        raise ValueError(
            f"{readable(paths[0])}: {found[0].error}" if len(paths) == 1 else
            f"nothing could be predicted of any of the {len(paths)} files; the reasons stand above"
        )  # fmt: skip
    print(table(found, judge.reading))
    where = f"; {output} has a JSON and a CSV file of each" if output else "; --output=DIR keeps all of it"
    log(f"{len(answered)} of {len(paths)} files, {sum(len(of.people) for of in answered)} people{where}")


def _render(paths: Sequence[Path], found: Sequence[Prediction], judge: Judge, output: Path, workers: int) -> None:
    from data_prep.workers import Failed, ordered_map
    from mmpretrain.predict.render import Job, render

    jobs = [
        Job(path, output / f"{name}.mp4", of_file, judge.reading)
        for path, name, of_file in zip(paths, output_names(paths), found, strict=True)
        if of_file.people and of_file.width
    ]
    with Progress("rendering", len(jobs), "video") as progress:
        for job, error in ordered_map(render, jobs, workers, lambda job: 600 + 20 * job.found.seconds):
            progress.update()
            if said := error.reason if isinstance(error, Failed) else error:
                log(f"{readable(job.path)}: not rendered: {said}")


COMMAND = Command(
    "predict",
    "what everybody in recordings shows over time",
    _command,
    takes=Argument("CLIP...", "video and sound files in any container, or folders of them", count=None),
    options=(
        Option("encoder", str, "the folder of a fine-tuned encoder, with its head", "DIR", required=True),
        Option("output", str, "where a JSON and a CSV file of each clip are written", "DIR"),
        Option("render", bool, "write a video too: faces framed and labelled, what is said over time below"),
        *(Option(name, str, f"seconds: {text}; default: {default}", "SEC")
          for (name, text), default in zip(NUM_SECONDS.items(), (3, 0.5, "1.5, of heads of frames 0"), strict=True)),
        Option("contributions", bool, "say too what sound alone and picture alone would give"),
        Option("task", str, "of an encoder with several heads, the one that is asked; default: the first", "NAME"),
        Option("faces", int, f"at most so many at once; default: {MAX_FACES}", "N", lower=1),
        Option("workers", int, "processes that decode; default: one a core", "N", lower=1),
        Option("landmarker", str, "MediaPipe's face_landmarker.task; default: as data_prep finds it", "PATH"),
    ),
    examples=(
        "mmpretrain predict interview.mp4 --encoder=runs/demo/finetune/pretrained/fold1/encoder",
        "mmpretrain predict my_videos --encoder=emotions --output=predicted --render --window=2 --hop=0.25",
    ),
    details=(
        "Everybody whose face is seen for half a second is followed and judged by face and sound together; where "
        "nobody is seen, the voice alone is (`uses` says which). A person is the track of a face, without a name: who "
        "leaves and comes back may count as another. Where several are seen at once, all are judged with the same "
        "sound.",
        "What comes out is what the head was trained to tell: probabilities of classes or of levels, several marks at "
        "once, or a number on the scale of its labels; of every frame where its labels were. It holds for clips like "
        "those that it was trained on, and is no measurement of what somebody feels. Not for decisions about people.",
    ),
)  # fmt: skip
