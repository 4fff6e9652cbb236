"""The target store: cluster ids of every frame of many clips, the codebook that made them, and where both come from.

A folder: `ids.npy` (flat over all clips), `offsets.npy` (clip i is ids[offsets[i]:offsets[i+1]]), `clip_ids.json`,
`codebook.npy` (float32 [K, D]), `unit_counts.npy` (int64 [U, K], where true units are known of some frames),
`lineage.json`, and `digests.json` of them all, written last. One store, hence one codebook, labels training and
validation clips alike: those that have what the codebook is made of. A frame may have several ids in a row
(`targets_per_frame`), of which the first is the frame's target. A store does not open where a bit of it is not as it
was written, or where it disagrees with the run that asks.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.files import SEAL, DamagedError, check_seal, read_json, seal, whole_folder, write_json, write_text
from mmpretrain.targets.kmeans import Codebook
from mmpretrain.targets.quality import agreement, cluster_counts, cluster_quality

FORMAT = "mmpretrain-targets-4"
LINEAGE_FILE, CLIP_IDS_FILE = "lineage.json", "clip_ids.json"
# What the maker of a store says about it; everything else in the lineage is counted from the arrays.
# clips: fingerprint of the clips in the order of their rows. features: one of config.FEATURES; layer, source: number of
# the layer and fingerprint of the encoder, 0 and "" where features are of the clips alone. relative_to, centres: what
# the features are relative to ("" where they cannot be), and the digest of the speakers' centres ("" if of none).
MAKER_FIELDS = (
    "features", "relative_to", "centres", "layer", "source", "clips", "fit_splits", "fit_clips", "fit_frames",
)  # fmt: skip
# fmt: off
COUNTED_FIELDS = (
    "targets_per_frame", "num_clusters", "feature_dim", "codebook_hash", "inertia", "num_clips",
    "num_frames", "clusters_used", "entropy_bits", "counts", "quality",
)
# fmt: on

_GATHER_FRAMES = 1 << 22


@dataclasses.dataclass(frozen=True)
class TargetStore:
    """An open store. Its clips are rows 0 to num_clips - 1; the ids stay on disk until a clip is asked for.

    unit_counts: int64 [U, K], frames of each true unit and cluster, or None where no unit is known.
    """

    path: Path
    lineage: dict[str, Any]
    codebook: Codebook
    ids: np.ndarray
    offsets: np.ndarray
    unit_counts: np.ndarray | None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def targets_per_frame(self) -> int:
        return self.lineage["targets_per_frame"]

    @functools.cached_property
    def clip_ids(self) -> tuple[str, ...]:
        return tuple(read_json(self.path / CLIP_IDS_FILE, kind=list))

    def row(self, row: int) -> np.ndarray:
        """int32 [T * targets_per_frame]: all ids of a clip."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]].astype(np.int32)

    def counts(self, rows: np.ndarray) -> np.ndarray:
        """int64 [K]: of how many frames of the clips of these rows each cluster is the target."""
        starts, sizes = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        sizes = -(-sizes // self.targets_per_frame)
        pieces = np.searchsorted(np.cumsum(sizes), np.arange(_GATHER_FRAMES, sizes.sum(), _GATHER_FRAMES))
        counts_K = np.zeros(self.lineage["num_clusters"], np.int64)
        for start, size in zip(np.split(starts, pieces), np.split(sizes, pieces), strict=True):
            within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
            counts_K += np.bincount(
                self.ids[np.repeat(start, size) + self.targets_per_frame * within], minlength=len(counts_K)
            )
        return counts_K

    def check_lengths(self, lengths: np.ndarray) -> None:
        """lengths: of all clips, in frames.

        Raises ValueError for another number of clips, and for the first that is more than one frame longer or shorter
        here, unless it has no targets, since it could not be read.
        """
        if len(lengths) != len(self):
            raise ValueError(f"{self.path} has {len(self)} clips, not {len(lengths)}; {_make_again(self.path)}")
        stored, per_frame = np.diff(self.offsets), self.targets_per_frame
        wrong = (np.abs(stored - np.asarray(lengths, np.int64) * per_frame) > per_frame) & (stored > 0)
        if wrong.any():
            i = int(wrong.argmax())
            raise ValueError(
                f"{self.path}: clip {self.clip_ids[i]!r} has {stored[i]} targets but {lengths[i]} frames; "
                f"{_make_again(self.path)}"
            )


def write_store(
    path: str | Path,
    *,
    clip_ids: Sequence[str],
    offsets: np.ndarray,
    ids_N: np.ndarray,
    codebook: Codebook,
    lineage_fields: dict[str, Any],
    unit_counts: np.ndarray | None = None,
    targets_per_frame: int = 1,
) -> None:
    """Writes a whole store or none.

    ids_N: integers, offsets[i] to offsets[i+1] the targets_per_frame ids of each frame of `clip_ids[i]`. unit_counts:
    int64 [U, K], frames of each true unit and cluster. lineage_fields: exactly `MAKER_FIELDS`. Raises FileExistsError
    where there is something at `path`, ValueError for ids that cannot be.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} is there already; remove the folder to make these targets again")
    assert sorted(lineage_fields) == sorted(MAKER_FIELDS), f"{sorted(lineage_fields)} is not {sorted(MAKER_FIELDS)}"
    num_clusters, feature_dim = codebook.centroids.shape
    if len(offsets) != len(clip_ids) + 1 or len(set(clip_ids)) != len(clip_ids):
        raise ValueError(f"{len(offsets) - 1} clips are labelled for {len(set(clip_ids))} distinct of {len(clip_ids)} "
                         "ids")  # fmt: skip
    # Refuses ids out of range too, and before the cast could hide them.
    quality = cluster_quality(ids_N, None, num_clusters, offsets)
    ids_N = ids_N.astype(id_dtype(num_clusters), copy=False)
    lineage = dict(lineage_fields) | {
        "format": FORMAT,
        "targets_per_frame": targets_per_frame,
        "num_clusters": num_clusters,
        "feature_dim": feature_dim,
        "codebook_hash": codebook_hash(codebook.centroids),
        "inertia": codebook.inertia,
        "num_clips": len(clip_ids),
        "num_frames": len(ids_N),
        "clusters_used": int(quality["clusters_used"]),
        "entropy_bits": quality["entropy_bits"],
        "counts": cluster_counts(ids_N, num_clusters).tolist(),
        "quality": quality if unit_counts is None else quality | agreement(unit_counts),
    }
    with whole_folder(path) as draft:
        np.save(draft / "ids.npy", ids_N)
        np.save(draft / "offsets.npy", np.asarray(offsets, np.int64))
        np.save(draft / "codebook.npy", codebook.centroids.astype(np.float32))
        if unit_counts is not None:
            np.save(draft / "unit_counts.npy", unit_counts)
        write_text(draft / CLIP_IDS_FILE, json.dumps(list(clip_ids)))
        write_json(draft / LINEAGE_FILE, lineage)
        seal(draft)


def open_store(
    path: str | Path,
    *,
    expect_num_clusters: int | None = None,
    expect_feature_dim: int | None = None,
    expect_clips: str | None = None,
    expect_targets_per_frame: int | None = 1,
) -> TargetStore:
    """Opens a store that is whole, is as it was written, and is what the run expects (None: whatever it is).

    Reads every byte once, for the digests. Raises FileNotFoundError where there is no store, DamagedError naming the
    file that is missing or not as it was written, ValueError for all else, naming the field, both values and the
    remedy.
    """
    path = Path(path)
    if not (path / LINEAGE_FILE).exists():
        raise FileNotFoundError(
            f"{path / LINEAGE_FILE} is missing: no whole target store is there; {_make_again(path)}"
        )
    lineage = _read_lineage(path)
    try:
        check_seal(path)
    except DamagedError as error:
        raise DamagedError(f"{error}; {_make_again(path)}") from error
    ids_N, offsets, centroids_KD, unit_counts = (
        np.load(file, mmap_mode="r" if file.stem == "ids" else None, allow_pickle=False) if file.exists() else None
        for file in (path / f"{name}.npy" for name in ("ids", "offsets", "codebook", "unit_counts"))
    )

    def agree(name: str, expected: Any, remedy: str, title: str = "") -> None:
        if expected is not None and lineage[name] != expected:
            raise ValueError(
                f"{path}: {title or name} is {lineage[name]!r} but {expected!r} was expected; {remedy}, or remove "
                f"all of its stage, the folder above {path.parent}, and make the targets again"
            )

    agree("num_clusters", expect_num_clusters, f"set targets.num_clusters={lineage['num_clusters']}")
    agree("clips", expect_clips, "point data.corpora at the corpus that was labelled")
    agree(
        "feature_dim", expect_feature_dim,
        "it is of other features than the recipe's: set targets.features and layer so", "feature_dim of the codebook",
    )  # fmt: skip
    agree(
        "targets_per_frame", expect_targets_per_frame,
        f"set reference.targets_per_frame={lineage['targets_per_frame']} in the round",
    )  # fmt: skip
    return TargetStore(path, lineage, Codebook(centroids_KD, lineage["inertia"]), ids_N, offsets, unit_counts)


def _read_lineage(path: Path) -> dict[str, Any]:
    """Of a store of this format; one of another could not be checked."""
    lineage = read_json(path / LINEAGE_FILE, remedy=_make_again(path))
    if (found := lineage.get("format")) != FORMAT:
        raise ValueError(f"{path} is a target store of format {found!r}, but this version reads {FORMAT!r}; "
                         f"{_make_again(path)}")  # fmt: skip
    if absent := sorted({*MAKER_FIELDS, *COUNTED_FIELDS} - lineage.keys()):
        raise ValueError(f"{path / LINEAGE_FILE} lacks {', '.join(absent)}; {_make_again(path)}")
    return lineage


def store_fingerprint(path: str | Path) -> str:
    """16 hex digits that change with what a store was made of and with any bit of what came of it.

    Reads the digests alone.
    """
    file = Path(path) / SEAL
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: no whole target store is there; make the targets first")
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def codebook_hash(centroids_KD: np.ndarray) -> str:
    """16 hex digits of the centroids' shape and float32 values."""
    content = np.ascontiguousarray(centroids_KD, np.float32)
    return hashlib.sha256(str(content.shape).encode() + content.tobytes()).hexdigest()[:16]


def id_dtype(num_clusters: int) -> type[np.unsignedinteger]:
    """The smallest that every id fits."""
    return np.uint16 if num_clusters <= 1 << 16 else np.uint32


def _make_again(path: Path) -> str:
    return f"remove {path} and the result.json of its stage, then make the targets again"
