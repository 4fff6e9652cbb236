"""The folder of a prepared corpus: what makes it whole, and whether it is still what was written.

`corpus.json` says what the corpus holds and, of every file of the dataset and its index, the size and the digest; its
own digest is in `digests.json`, which is written last.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpretrain.files import SEAL, DamagedError, check_seal, digests, read_json, write_json
from mmpretrain.index import Index
from mmpretrain.records import CORPUS_FILE, DATASET_VERSION, FRAME_RATE_HZ, SAMPLE_RATE_HZ, Schema, dataset_dir
from mmpretrain.storage import SHARD


def finish_corpus(
    folder: Path, name: str, schema: Schema, indices: Mapping[str, Index], wall_time_sec: float, terms: str = ""
) -> None:
    """Writes `corpus.json` and its digest, which make the folder whole.

    indices: by split, as they were written. terms: under which its clips may be used, "": not stated.
    """
    files = sorted(path.relative_to(folder).as_posix() for path in dataset_dir(folder).rglob("*") if path.is_file())
    corpus = {
        "name": name,
        "terms": terms,
        "fingerprint": Index.join(list(indices.values()), schema.labels).fingerprint(),
        "frame_rate_hz": FRAME_RATE_HZ,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "schema": schema.to_json(),
        "splits": {split: _size_of(index) for split, index in indices.items()},
        "files": digests(folder, files),
        "wall_time_sec": round(wall_time_sec, 1),
    }
    _write(folder, corpus)


def put_terms(folder: Path, terms: str) -> bool:
    """Has a whole corpus say that its clips may be used under these terms. Returns whether it said otherwise."""
    corpus = read_json(folder / CORPUS_FILE)
    if corpus.get("terms") == terms:
        return False
    _write(folder, corpus | {"terms": terms})
    return True


def _write(folder: Path, corpus: dict[str, Any]) -> None:
    write_json(folder / CORPUS_FILE, corpus)
    write_json(folder / SEAL, digests(folder, [CORPUS_FILE]))


def check_corpus(
    folder: str | Path, *, every_shard: bool = False, damaged: dict[str, str] | None = None
) -> dict[str, Any]:
    """The content of `corpus.json`, after a look at the files that it names.

    The size of every shard is compared, and the digest of every other file; of shards too where `every_shard`, which
    reads the whole corpus. damaged: takes by file what is wrong with a shard, in place of an error.

    Raises FileNotFoundError for a folder that is not there or not whole, DamagedError naming the file that is not what
    was written, ValueError for a corpus of another version; each with the remedy.
    """
    folder = Path(folder)
    command = f"`python -m data_prep CORPUS --source DIR --output {folder}`"
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {str(folder)!r} does not exist; make it with {command}")
    if not (folder / CORPUS_FILE).exists():
        raise FileNotFoundError(
            f"{str(folder)!r} is not a whole corpus: it has no {CORPUS_FILE}, which is written at the end; finish it "
            f"with {command}"
        )
    if not dataset_dir(folder).is_dir():
        there = sorted(child.name for child in dataset_dir(folder).parent.glob("*.*.*"))
        if there:
            raise ValueError(
                f"{str(folder)!r} holds records of version {', '.join(there)}, but this program reads "
                f"{DATASET_VERSION}; prepare it again with {command} --overwrite"
            )
    try:
        check_seal(folder, CORPUS_FILE)
        corpus = read_json(folder / CORPUS_FILE)
        for name, (size, digest) in corpus["files"].items():
            try:
                _check_file(folder, name, size, digest if every_shard or SHARD not in name else None)
            except DamagedError as error:
                if damaged is None or SHARD not in name:
                    raise
                damaged[name] = f"{error}; prepare the corpus again with {command}"
    except DamagedError as error:
        raise DamagedError(f"{error}; prepare the corpus again with {command}") from error
    return corpus


def _check_file(folder: Path, name: str, size: int, digest: str | None) -> None:
    try:
        found = (folder / name).stat().st_size
    except FileNotFoundError:
        raise DamagedError(f"{folder / name} is missing") from None
    if found != size:
        raise DamagedError(f"{folder / name} has {found} bytes, not the {size} that were written")
    if digest is not None and digests(folder, [name])[name][1] != digest:
        raise DamagedError(f"{folder / name} is damaged: it is not what was written (by {CORPUS_FILE})")


def _size_of(index: Index) -> dict[str, float]:
    frames = int(index.num_frames.sum(dtype=int))
    return {"clips": len(index), "frames": frames, "hours": round(frames / FRAME_RATE_HZ / 3600, 4)}
