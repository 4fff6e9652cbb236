"""The target store: cluster ids of every frame of many clips, the codebook that made them, and where both come from.

A folder: `ids.npy` (flat over all clips), `offsets.npy` (clip i is ids[offsets[i]:offsets[i+1]]), `clip_ids.json`,
`codebook.npy` (float32 [K, D]) and `lineage.json`, written last. One store, hence one codebook, labels training and
validation clips alike: those that have what the codebook is made of. A frame may have several ids in a row
(`targets_per_frame`), of which the first is the frame's target. A store does not open where anything disagrees with the
run that asks.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.files import read_json, whole_folder, write_arrays, write_json
from mmpretrain.targets.kmeans import Codebook
from mmpretrain.targets.quality import cluster_quality

FORMAT = "mmpretrain-targets-2"
LINEAGE_FILE = "lineage.json"
# What the maker of a store says about it; everything else in the lineage is counted from the arrays.
# features: one of config.FEATURES; layer, source: number of the layer and fingerprint of the encoder, 0 and "" where
# features are of the clips alone.
MAKER_FIELDS = ("features", "layer", "source", "corpus_fingerprint", "fit_splits", "fit_clips", "fit_frames", "quality")
# fmt: off
COUNTED_FIELDS = (
    "targets_per_frame", "num_clusters", "feature_dim", "codebook_hash", "inertia", "num_clips", "num_frames",
    "clusters_used", "entropy_bits", "counts",
)
# fmt: on

_COUNT_BLOCK = 1 << 22


@dataclasses.dataclass(frozen=True)
class TargetStore:
    """An open store; the ids stay on disk until a clip is asked for."""

    path: Path
    lineage: dict[str, Any]
    codebook: Codebook
    clip_ids: tuple[str, ...]
    ids: np.ndarray
    offsets: np.ndarray

    @property
    def targets_per_frame(self) -> int:
        return self.lineage["targets_per_frame"]

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._rows

    def frames(self, clip_id: str) -> np.ndarray:
        """int32 [T]: the target of every frame of a clip. Raises ValueError for a clip that is not in the store."""
        return self.clip(clip_id)[:: self.targets_per_frame]

    def clip(self, clip_id: str) -> np.ndarray:
        """int32 [T * targets_per_frame]: all ids of a clip. Raises ValueError for a clip that is not in the store."""
        row = self._row(clip_id)
        return self.ids[self.offsets[row] : self.offsets[row + 1]].astype(np.int32)

    def check_lengths(self, clip_ids: Iterable[str], lengths: Iterable[int]) -> None:
        """Raises ValueError naming the first clip that is missing or more than one frame longer or shorter here."""
        per_frame = self.targets_per_frame
        for clip_id, length in zip(clip_ids, lengths, strict=True):
            row = self._row(clip_id)
            stored = int(self.offsets[row + 1] - self.offsets[row])
            if abs(stored - length * per_frame) > per_frame:
                raise ValueError(
                    f"{self.path}: clip {clip_id!r} has {stored} targets but {length} frames; {_make_again(self.path)}"
                )

    def _row(self, clip_id: str) -> int:
        try:
            return self._rows[clip_id]
        except KeyError:
            raise ValueError(f"{self.path}: clip {clip_id!r} has no targets; {_make_again(self.path)}") from None

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {clip_id: row for row, clip_id in enumerate(self.clip_ids)}


def write_store(
    path: str | Path,
    *,
    clip_ids: Sequence[str],
    ids_per_clip: Iterable[np.ndarray],
    codebook: Codebook,
    lineage_fields: dict[str, Any],
    targets_per_frame: int = 1,
) -> TargetStore:
    """Writes a whole store or none.

    ids_per_clip: integers [T * targets_per_frame] of each clip, in the order of `clip_ids`. lineage_fields: exactly
    `MAKER_FIELDS`. Raises FileExistsError where there is something at `path`, ValueError for ids that cannot be.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} is there already; remove the folder to make these targets again")
    assert sorted(lineage_fields) == sorted(MAKER_FIELDS), f"{sorted(lineage_fields)} is not {sorted(MAKER_FIELDS)}"
    num_clusters, feature_dim = codebook.centroids.shape
    per_clip = [np.asarray(ids) for ids in ids_per_clip]
    if len(per_clip) != len(clip_ids) or len(set(clip_ids)) != len(clip_ids):
        raise ValueError(f"{len(per_clip)} clips are labelled for {len(set(clip_ids))} distinct of {len(clip_ids)} ids")
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in per_clip], dtype=np.int64)])
    flat = np.concatenate(per_clip) if per_clip else np.zeros(0, np.int64)
    # Refuses ids out of range too, and before the cast could hide them.
    unlabelled = cluster_quality(flat, None, num_clusters, offsets)
    ids_N = flat.astype(np.uint16 if num_clusters <= 65536 else np.uint32)
    lineage = dict(lineage_fields) | {
        "format": FORMAT,
        "targets_per_frame": targets_per_frame,
        "num_clusters": num_clusters,
        "feature_dim": feature_dim,
        "codebook_hash": codebook_hash(codebook.centroids),
        "inertia": codebook.inertia,
        "num_clips": len(clip_ids),
        "num_frames": len(ids_N),
        "clusters_used": int(unlabelled["clusters_used"]),
        "entropy_bits": unlabelled["entropy_bits"],
        "counts": np.bincount(ids_N, minlength=num_clusters).tolist(),
    }
    with whole_folder(path) as draft:
        np.save(draft / "ids.npy", ids_N)
        np.save(draft / "offsets.npy", offsets)
        np.save(draft / "codebook.npy", codebook.centroids.astype(np.float32))
        write_json(draft / "clip_ids.json", list(clip_ids))
        write_json(draft / LINEAGE_FILE, lineage)
    return open_store(path, expect_targets_per_frame=targets_per_frame)


def open_store(
    path: str | Path,
    *,
    expect_num_clusters: int | None = None,
    expect_feature_dim: int | None = None,
    expect_fingerprint: str | None = None,
    expect_targets_per_frame: int | None = 1,
) -> TargetStore:
    """Opens a store that is whole and is what the run expects (None: whatever it is).

    Raises FileNotFoundError where it or a file of it is missing, ValueError for all else, naming the field, both values
    and the remedy.
    """
    path = Path(path)
    if not (path / LINEAGE_FILE).exists():
        raise FileNotFoundError(
            f"{path / LINEAGE_FILE} is missing: no whole target store is there; {_make_again(path)}"
        )
    try:
        lineage = read_json(path / LINEAGE_FILE)
        clip_ids = tuple(read_json(path / "clip_ids.json", kind=list))
        ids_N, offsets, centroids_KD = (
            np.load(path / f"{name}.npy", mmap_mode="r" if name == "ids" else None, allow_pickle=False)
            for name in ("ids", "offsets", "codebook")
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error.filename} is missing; {_make_again(path)}") from None
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} holds a damaged file ({error}); {_make_again(path)}") from None

    if (found := lineage.get("format")) != FORMAT:
        raise ValueError(f"{path} is a target store of format {found!r}, but this version reads {FORMAT!r}; "
                         f"{_make_again(path)}")  # fmt: skip
    absent = sorted({*MAKER_FIELDS, *COUNTED_FIELDS} - lineage.keys())
    if absent:
        raise ValueError(f"{path / LINEAGE_FILE} lacks {', '.join(absent)}; {_make_again(path)}")

    def agree(name: str, found: Any, expected: Any, remedy: str = _make_again(path)) -> None:
        if found != expected:
            raise ValueError(f"{path}: {name} is {found!r} but {expected!r} was expected; {remedy}")

    if expect_num_clusters is not None:
        remedy = f"set targets.num_clusters={lineage['num_clusters']}, or {_make_again(path)}"
        agree("num_clusters", lineage["num_clusters"], expect_num_clusters, remedy)
    if expect_fingerprint is not None:
        remedy = f"point data.corpora at the corpus that was labelled, or {_make_again(path)}"
        agree("corpus_fingerprint", lineage["corpus_fingerprint"], expect_fingerprint, remedy)
    if expect_feature_dim is not None:
        remedy = f"it is of other features than the recipe's: set targets.features and layer so, or {_make_again(path)}"
        agree("feature_dim of the codebook", lineage["feature_dim"], expect_feature_dim, remedy)
    if expect_targets_per_frame is not None:
        remedy = f"set reference.targets_per_frame={lineage['targets_per_frame']} in the round, or {_make_again(path)}"
        agree("targets_per_frame", lineage["targets_per_frame"], expect_targets_per_frame, remedy)
    if lineage["targets_per_frame"] < 1:
        raise ValueError(f"{path}: targets_per_frame is {lineage['targets_per_frame']}, not 1 or more; "
                         f"{_make_again(path)}")  # fmt: skip
    if not centroids_KD.size:
        raise ValueError(f"{path}: codebook.npy is empty, shape {list(centroids_KD.shape)}; {_make_again(path)}")
    agree("shape of codebook.npy", centroids_KD.shape, (lineage["num_clusters"], lineage["feature_dim"]))
    agree("codebook_hash", codebook_hash(centroids_KD), lineage["codebook_hash"])
    agree("number of clip ids", len(clip_ids), lineage["num_clips"])
    agree("length of offsets.npy", len(offsets), lineage["num_clips"] + 1)
    agree("length of ids.npy", len(ids_N), lineage["num_frames"])
    agree("first and last offset", (int(offsets[0]), int(offsets[-1])), (0, len(ids_N)))
    highest = int(ids_N.max(initial=0))
    if highest >= lineage["num_clusters"]:
        raise ValueError(
            f"{path}: ids.npy has id {highest} but num_clusters is {lineage['num_clusters']}; {_make_again(path)}"
        )
    counts = sum(np.bincount(block, minlength=lineage["num_clusters"]) for block in _blocks(ids_N))
    agree("frames per cluster in ids.npy", counts.tolist(), lineage["counts"])
    return TargetStore(path, lineage, Codebook(centroids_KD, lineage["inertia"]), clip_ids, ids_N, offsets)


def store_fingerprint(path: str | Path) -> str:
    """16 hex digits that change with what a store was made of and with what came of it. Reads its lineage alone."""
    file = Path(path) / LINEAGE_FILE
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: no whole target store is there; make the targets first")
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


class LabelProgress:
    """What has been labelled so far, kept in `folder` so that labelling continues where it was stopped.

    `fingerprint` names all that the ids depend on (codebook, encoder, corpus). Raises ValueError where there is
    progress under another one: training and validation must not be labelled by different codebooks. Several processes
    may write, each with its own number as `writer`.
    """

    def __init__(self, folder: str | Path, fingerprint: str, *, writer: int = 0):
        self._writer = writer
        self.folder = Path(folder) / fingerprint
        others = {part.parent.name for part in Path(folder).glob("*/part-*.npz")} - {fingerprint}
        if others:
            raise ValueError(
                f"{folder} has clips that were labelled by another codebook or recipe ({min(others)}, not "
                f"{fingerprint}); remove {folder} to label all clips, training and validation, by this one"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ids = dict(self._read())

    def add(self, clip_ids: Sequence[str], ids_per_clip: Sequence[np.ndarray]) -> None:
        """Keeps the ids of some more clips, as one file that is there wholly or not at all."""
        new = {clip_id: np.asarray(ids, np.int32) for clip_id, ids in zip(clip_ids, ids_per_clip, strict=True)}
        lengths = np.array([len(ids) for ids in new.values()], np.int64)
        flat = np.concatenate([np.zeros(0, np.int32), *new.values()])
        number = len(list(self.folder.glob(f"part-{self._writer}-*.npz")))
        part = self.folder / f"part-{self._writer}-{number:05d}.npz"
        write_arrays(part, clip_ids=np.array(list(new), np.str_), lengths=lengths, ids=flat)
        self.ids |= new

    def merge(self, clip_ids: Sequence[str]) -> list[np.ndarray]:
        """The ids of these clips, in this order, for `write_store`. Raises KeyError for one not labelled yet."""
        return [self.ids[clip_id] for clip_id in clip_ids]

    def remove(self) -> None:
        """Forgets everything, once the store is written."""
        shutil.rmtree(self.folder.parent)

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.npz"))

    def _read(self) -> Iterator[tuple[str, np.ndarray]]:
        for part in self._parts():
            with np.load(part, allow_pickle=False) as arrays:
                clips = np.split(arrays["ids"], np.cumsum(arrays["lengths"])[:-1])
                yield from zip(arrays["clip_ids"].tolist(), clips, strict=True)


def codebook_hash(centroids_KD: np.ndarray) -> str:
    """16 hex digits of the centroids' shape and float32 values."""
    content = np.ascontiguousarray(centroids_KD, np.float32)
    return hashlib.sha256(str(content.shape).encode() + content.tobytes()).hexdigest()[:16]


def _blocks(ids_N: np.ndarray) -> Iterator[np.ndarray]:
    return (ids_N[start : start + _COUNT_BLOCK] for start in range(0, len(ids_N), _COUNT_BLOCK))


def _make_again(path: Path) -> str:
    return f"remove {path} and the result.json of its stage, then make the targets again"
