"""Who is speaking as a point of reference: the mean of a speaker's features over all of their clips, no label needed.

One pass over the clips, in the memory of one sum a speaker. Sums are whole numbers, which come to the same in any
order: so do the centres, however many processes share the clips and wherever the pass was stopped. Dims: S speakers, C
values.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmpretrain.files import check_seal, read_arrays, read_json, seal, whole_folder, write_arrays, write_json
from mmpretrain.targets.parts import Parts

ONE = 1 << 20  # as a whole number: sums are rounded to a millionth once a clip
LEAST_FRAMES = 25  # a second, of a value that a speaker has a centre of; with less, that of all stands for it
CENTRES_FILE, LINEAGE_FILE = "centres.npz", "lineage.json"


class ClipSums(NamedTuple):
    """What a clip adds to its speaker's centre: float64 [C] each, whose ratios are the clip's own centre."""

    sums: np.ndarray
    weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class Centres:
    """Of each of S speakers, who are (corpus, name): float32 [S, C]. made_of: all that they depend on."""

    speakers: tuple[tuple[str, str], ...]
    centres_SC: np.ndarray
    made_of: str

    @property
    def digest(self) -> str:
        """16 hex digits of the values and of whose they are."""
        digest = hashlib.blake2b(repr(self.speakers).encode(), digest_size=8)
        digest.update(np.ascontiguousarray(self.centres_SC, np.float32).tobytes())
        return digest.hexdigest()


class CentreProgress(Parts):
    """What has been summed of `num_clips` clips. Of what a part holds, only the speakers of its clips take room."""

    def __init__(self, folder: str | Path, fingerprint: str, *, num_clips: int):
        super().__init__(folder, fingerprint, num_clips=num_clips, kind="centres")
        self._rows: list[int] = []
        self._of_speaker: dict[int, np.ndarray] = {}

    def add(self, row: int, speaker: int, of_clip: ClipSums) -> None:
        """Takes the sums of one more clip, and writes what has come if it is time. Raises ValueError if not finite."""
        values_2C = np.stack(of_clip)
        if not np.isfinite(values_2C).all():
            raise ValueError("the features of a clip are not finite, so its speaker has no mean of them")
        self._rows.append(row)
        self._of_speaker[speaker] = self._of_speaker.get(speaker, 0) + np.round(values_2C * ONE).astype(np.int64)
        if self.due():
            self.flush()

    def flush(self) -> None:
        """Writes what has come, as one part that is there wholly or not at all."""
        if self._rows:
            speakers, sums = zip(*sorted(self._of_speaker.items()), strict=True)
            self.write(rows=np.array(self._rows, np.int64), speakers=np.array(speakers), sums_P2C=np.stack(sums))
            self._rows, self._of_speaker = [], {}

    def total(self, parts: Iterable[str], num_speakers: int, dim: int) -> np.ndarray:
        """int64 [S, 2, C]: sums and weights of each speaker over all clips. Raises DamagedError for a part."""
        total_S2C = np.zeros((num_speakers, 2, dim), np.int64)
        for arrays in map(self.read, parts):
            total_S2C[arrays["speakers"]] += arrays["sums_P2C"]
        return total_S2C


def centres_of(total_S2C: np.ndarray, typical_C: np.ndarray) -> tuple[np.ndarray, int]:
    """The means, float32 [S, C], and how many speakers have under a second of a value: they get the mean of all.

    Of a value that nobody has any frame of (such as pitch where nothing is voiced), `typical_C`.
    """
    sums_SC, weights_SC = np.moveaxis(total_S2C.astype(np.float64), 1, 0)
    of_all_C = np.where(weights_SC.sum(0) > 0, sums_SC.sum(0) / np.maximum(weights_SC.sum(0), 1), typical_C)
    enough_SC = weights_SC >= LEAST_FRAMES * ONE
    centres_SC = np.where(enough_SC, sums_SC / np.maximum(weights_SC, 1), of_all_C)
    return centres_SC.astype(np.float32), int((~enough_SC).any(1).sum())


def save_centres(folder: Path, centres: Centres) -> None:
    """Whole or not at all, with its digests."""
    with whole_folder(folder) as draft:
        write_arrays(draft / CENTRES_FILE, centres_SC=centres.centres_SC)
        lineage = {"made_of": centres.made_of, "digest": centres.digest, "speakers": [*map(list, centres.speakers)]}
        write_json(draft / LINEAGE_FILE, lineage)
        seal(draft)


def load_centres(folder: Path) -> Centres:
    """What was saved. Raises DamagedError where it is not as it was saved."""
    check_seal(folder)
    arrays = read_arrays(folder / CENTRES_FILE, "centres_SC")
    lineage = read_json(folder / LINEAGE_FILE)
    return Centres(tuple(map(tuple, lineage["speakers"])), arrays["centres_SC"], lineage["made_of"])
