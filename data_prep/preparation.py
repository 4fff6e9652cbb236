"""The order of a preparation: look at every clip (slow, cached), decide, write the dataset, then say that it is whole.

Can be stopped at any point and started again: looking goes on where it stopped, writing starts over, and the file that
makes a corpus whole, `corpus.json`, is written last.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from tqdm import tqdm

from data_prep import memory
from data_prep.accounting import ReportRow, note_doubles, row_of, row_of_cut, summarize, write_report
from data_prep.beam import BeamPipelines
from data_prep.inspection import Inspection
from data_prep.landmark_cache import inspect_clip, patience_sec
from data_prep.landmarker import MODEL_SHA256
from data_prep.options import Options
from data_prep.parts import cut_long_clips
from data_prep.processing import task_of
from data_prep.report_page import write_page
from data_prep.sources import SourceClip
from data_prep.workers import Failed, OrderedMap, ordered_map
from mmpretrain import records
from mmpretrain.files import DamagedError, read_json, write_json
from mmpretrain.index import Index
from mmpretrain.lease import Lease
from mmpretrain.listing import readable
from mmpretrain.prepared import check_corpus, finish_corpus, put_terms

REQUEST_FILE = "preparation.json"  # what was asked for, written first
AGAIN_FILE = "again.json"  # the clips that failed for want of memory or the like, for the next run
SHARD_BYTES = 512e6  # of arrays, before they are compressed
DRAWN_FRAMES = 150  # what a clip that is yet to be drawn is taken for
_FINE = Inspection()


def prepare(
    clips: list[SourceClip],
    output: Path,
    options: Options,
    *,
    name: str,
    tracks: Mapping[str, records.TrackSpec],
    labels: Mapping[str, str],
    model: Path | None = None,
    num_workers: int = 1,
    beam: str | None = None,
    overwrite: bool = False,
    terms: str = "",
) -> None:
    """Makes the prepared corpus `output` of the clips, or says that it is there already.

    name: of the prepared corpus. tracks, labels: what its clips may have (see `records.Schema`).
    model: the face landmarker, needed where a file may have a picture. beam: options of Apache Beam, which then deals
    out the work (see `BeamPipelines`); None for worker processes of this machine. overwrite: replace a corpus that was
    made (or begun) from other clips or options; landmarks that are still right are used again. terms: under which the
    clips may be used; a corpus that is there already gets them where it has others.
    Raises ValueError where nothing can be prepared or another corpus is in the way.
    """
    started = time.monotonic()
    if readable(os.path.abspath(output)) != os.path.abspath(output):
        raise ValueError(
            f"--output {readable(output)}: it or a folder above it has a name that is no text, under which no dataset "
            "can be written; give another folder"
        )
    schema = records.Schema(options.mouth_size, options.face_size, tracks, labels)
    if not clips:
        raise ValueError("no clips found in the source; see `--help` of this corpus for the layout that is expected")
    for clip in clips:
        schema.check_labels(clip.clip_id, clip.labels)
    with _held(output):
        model_hash = hashlib.sha256(model.read_bytes()).hexdigest() if model else ""
        done = _is_done(output, _request(clips, options, schema, name, model_hash), overwrite)
        again = read_json(output / AGAIN_FILE, kind=list, if_missing=[], remedy="remove it") if done else []
        if done and terms and put_terms(output, terms):
            print(f"{output / records.CORPUS_FILE} has its terms now: {terms}")
        if done and not again:
            print(f"{output} is already prepared from these clips: nothing to do")
            return
        if again:
            print(f"{output} is already prepared, but for clips that can be tried again: {_listed(again)}")
        if (fitting := memory.that_fit(num_workers)) < num_workers:
            print(f"--workers {num_workers} are more than the memory is enough for: {fitting} are used")
            num_workers = fitting
        pipelines = None if beam is None else BeamPipelines(beam, output, num_workers)
        run = pipelines.ordered_map if pipelines else functools.partial(ordered_map, num_workers=num_workers)
        clips, cuts, failed = cut_long_clips(clips, options.max_clip_sec, run)
        patience = functools.partial(patience_sec, max_clip_sec=options.max_clip_sec)
        found = _inspect_all(clips, failed, output, model, model_hash, options, run, patience)
        if again and all(found.get(clip_id, _FINE).again for clip_id in again):
            print(f"none of them goes better now; {output} stays as it was")
            return
        (output / records.CORPUS_FILE).unlink(missing_ok=True)
        rows = {clip.clip_id: row_of(clip, found.get(clip.clip_id), options) for clip in clips}
        try:
            indices = _write_dataset(clips, found, rows, output, schema, options, run, pipelines, patience)
            doubles = note_doubles(rows, Index.join(list(indices.values()), schema.labels))
        finally:
            rows = {clip_id: row_of_cut(cut) for clip_id, cut in cuts.items()} | rows
            write_report(output / "report.csv", rows.values())
        clips_by_id = {clip.clip_id: clip for clip in clips}
        page = output / "report.html"
        write_page(page, name, list(rows.values()), clips_by_id, found, options, num_workers, patience)
        again = [clip_id for clip_id, row in rows.items() if row.again]
        (output / AGAIN_FILE).unlink(missing_ok=True)
        if again:
            write_json(output / AGAIN_FILE, again)
        finish_corpus(output, name, schema, indices, time.monotonic() - started, terms)
    print(summarize(rows.values()))
    for line in doubles:
        print(f"warning: {line}")
    if again:
        print(f"{len(again)} clips failed for want of memory or the like, not for what they are: {_listed(again)}")
        print("the same command tries them again; fewer --workers leave each of them more memory")
    print(f"corpus {output}, report {output / 'report.csv'} and report.html, {time.monotonic() - started:.0f} s")


@contextlib.contextmanager
def _held(output: Path) -> Iterator[None]:
    """Makes the folder, which this process alone writes from now on. Raises ValueError where it cannot."""
    with contextlib.ExitStack() as held:
        try:
            output.mkdir(parents=True, exist_ok=True)
            held.enter_context(Lease(output, "--output", on_lost=_end, say=print))
        except OSError as error:
            reason = "it is no folder" if isinstance(error, FileExistsError) else error.strerror
            raise ValueError(f"--output {output} cannot be made ({reason}); give another folder") from error
        yield


def _request(
    clips: list[SourceClip], options: Options, schema: records.Schema, name: str, model_hash: str
) -> dict[str, Any]:
    # Label values may be arrays.
    sources = json.dumps([clip.fingerprint() for clip in clips], sort_keys=True, default=np.ndarray.tolist)
    digest = hashlib.sha256(sources.encode()).hexdigest()[:16]
    asked = {"corpus": name, **schema.to_json(), "landmarker": model_hash[:16]}
    asked |= {name: getattr(options, name) for name in ("min_face_rate", "max_clip_sec", "max_gap_sec", "compression")}
    if options.detect_every > 1:
        asked["detect_every"] = options.detect_every
    if options.hand_landmarker:
        asked["hand_landmarker"] = hashlib.sha256(options.hand_landmarker.read_bytes()).hexdigest()[:16]
    asked |= {"record_version": records.DATASET_VERSION}
    return asked | {"num_clips": len(clips), "sources": digest}


def _is_done(output: Path, request: dict[str, Any], overwrite: bool) -> bool:
    """True if the corpus of this request is whole. Otherwise the folder is made ready to hold it."""
    request_file, corpus_file = output / REQUEST_FILE, output / records.CORPUS_FILE
    if not request_file.exists():
        if corpus_file.exists() or (output / records.DATASET_NAME).exists():
            raise ValueError(f"--output {output} holds a dataset of another command; give another folder")
        write_json(request_file, request)
        return False
    try:
        before = read_json(request_file, fields=("corpus",))
    except DamagedError as error:
        if not overwrite:
            raise DamagedError(
                f"{error}, so that nobody knows what --output {output} was to become; give the same command with "
                "--overwrite (landmarks found before are used again)"
            ) from error
        before = {}
    if before != request and not overwrite:
        changed = [key for key in request if before.get(key) != request[key]]
        changes = [f"{key} was {before.get(key)}, now {request[key]}" for key in changed]
        raise ValueError(
            f"--output {output} belongs to another preparation ({'; '.join(changes)}); "
            "give another folder, or --overwrite (landmarks found before are used again)"
        )
    if before == request and corpus_file.exists() and not overwrite:
        try:
            check_corpus(output, every_shard=True)  # so that this command mends whatever training cannot read
            return True
        except (ValueError, FileNotFoundError) as error:
            print(f"{error}: now")
    corpus_file.unlink(missing_ok=True)
    write_json(request_file, request)
    return False


def _inspect_all(
    clips: list[SourceClip],
    failed: Mapping[str, Failed],
    output: Path,
    model: Path | None,
    model_hash: str,
    options: Options,
    run: OrderedMap,
    patience: Callable[[SourceClip], float],
) -> dict[str, Inspection]:
    """What every clip holds that is neither refused already nor drawn, by clip id.

    failed: those that failed before they could be looked at.
    """
    found = {clip_id: Inspection(error=failure.reason, again=failure.again) for clip_id, failure in failed.items()}
    todo = [clip for clip in clips if not clip.refused and clip.path is not None and clip.clip_id not in found]
    if not todo:
        return found
    if model is None and any(clip.needs_landmarker for clip in todo):
        raise ValueError("a face landmarker is needed for videos; give --landmarker PATH")
    if model and model_hash != MODEL_SHA256:
        print(f"note: {model} is not the face landmarker this was tested with")
    look = functools.partial(
        inspect_clip,
        cache_dir=output / "cache" / "landmarks",
        model=model,
        model_hash=model_hash,
        every=options.detect_every,
        sizes=options.sizes if options.made_at_once else None,
    )
    with tqdm(total=len(todo), desc="looking for faces and sound", unit="clip", disable=None) as bar:
        for clip, inspection in run(look, todo, patience_sec=patience):
            if isinstance(inspection, Failed):
                inspection = Inspection(error=inspection.reason, again=inspection.again)
            found[clip.clip_id] = inspection
            bar.update()
    if remade := [clip_id for clip_id, inspection in found.items() if inspection.remade]:
        print(
            f"landmarks of {len(remade)} clips were damaged in {output / 'cache'} and are made again: {remade[0]}, ..."
        )
    known = sum(inspection.cached for inspection in found.values())
    print(f"looked at {len(todo)} clips, {known} of them known already")
    return found


def _write_dataset(
    clips: list[SourceClip],
    found: dict[str, Inspection],
    rows: dict[str, ReportRow],
    output: Path,
    schema: records.Schema,
    options: Options,
    run: OrderedMap,
    pipelines: BeamPipelines | None,
    patience: Callable[[SourceClip], float],
) -> dict[str, Index]:
    """Writes the clips whose rows say so and brings the rows up to date. Returns what `builder.write_dataset` does.

    run: makes clips, where no pipelines write whole shards.
    """
    from data_prep import shards  # TFDS takes a second to import, and worker processes do not need it
    from data_prep.builder import write_dataset, write_in_turn

    tasks = []
    for clip in clips:
        row = rows[clip.clip_id]
        if row.status == "kept":
            tasks.append(task_of(clip, found.get(clip.clip_id, _FINE), row, options))
    if not tasks:
        raise ValueError(f"none of the {len(clips)} clips can be kept; {output / 'report.csv'} says why for each")
    by_split = {split: of for split in records.SPLITS if (of := [task for task in tasks if task.clip.split == split])}
    with tqdm(total=len(tasks), desc="writing crops and sound", unit="clip", disable=None) as bar:
        of_splits, write = {}, write_in_turn
        for split, of_split in by_split.items():
            lengths = [rows[task.clip.clip_id].frames or DRAWN_FRAMES for task in of_split]
            sizes = shards.shard_sizes(lengths, schema, SHARD_BYTES)
            if pipelines:
                of_splits[split] = shards.shards_apart(of_split, sizes, rows, patience)
            else:
                of_splits[split] = shards.shards_here(of_split, sizes, rows, run, patience, bar.update)
        if pipelines:
            write = functools.partial(shards.write_apart, pipelines=pipelines, rows=rows, tell=bar.update)
        return write_dataset(output, of_splits, schema, options.compression, write)


def _listed(clip_ids: list[str]) -> str:
    return ", ".join(clip_ids[:3]) + (f" and {len(clip_ids) - 3} more" if len(clip_ids) > 3 else "")


def _end(line: str) -> NoReturn:
    """Ends this process at once, and its workers with it: another one writes the folder now."""
    print(f"data_prep: {line}", file=sys.stderr, flush=True)
    os._exit(2)
