"""What was found by looking at clips, kept under the content of their files: no run and no other setting ever looks at
the same clip twice."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_prep import faces
from data_prep.crops import Crops
from data_prep.faults import ClipError, is_shortage, of_the_clip, reason
from data_prep.inspection import Inspection, look
from data_prep.sources import SourceClip
from mmpretrain.files import DamagedError, read_arrays, write_arrays

VERSION = 11  # of what `look` finds: raised when a change there would find something else


def inspect_clip(
    clip: SourceClip,
    *,
    cache_dir: Path,
    model: Path | None,
    model_hash: str,
    every: int = 1,
    sizes: Mapping[str, int] | None = None,
) -> Inspection:
    """What the clip holds, from the cache if it is there. Files that are broken are remembered too.

    model may be None only where no file has a picture; the landmarks are then left out. every: of so many pictures
    one is looked at for faces. sizes: of the crops, as `crop_clip` takes them, if they are to be made at once, while
    the decoded pictures are at hand, and kept for `take_crops`; what takes too much memory for that is decoded again
    later. Raises SetupError, OSError where the cache cannot be read or written, and what `is_shortage` knows.
    """
    try:
        key = _key(clip, model_hash, every)
    except OSError as error:
        if is_shortage(error):
            raise
        return Inspection(error=reason(error), again=True)
    cache_file = cache_dir / key[:2] / f"{key}.npz"
    remade = False
    try:
        return load_inspection(cache_file)
    except FileNotFoundError:
        pass
    except DamagedError:
        remade = True
    try:
        with of_the_clip():
            found, track, crops = look(clip, model, every, sizes)
    except ClipError as error:
        found, track, crops = Inspection(error=str(error)), faces.NO_FACE, None
        if not error.lasting:
            return found
    if crops is not None:  # first: once the landmarks are there nobody makes them
        write_arrays(_crops_file(cache_file), mouth=crops.mouth, face=crops.face, empty=crops.empty)
    facts = found.facts() | {"error": found.error}
    write_arrays(
        cache_file, facts=json.dumps(facts), points=track.points, blendshapes=track.blendshapes,
        detected=track.detected,
    )  # fmt: skip
    return dataclasses.replace(found, cache_file=str(cache_file), remade=remade)


def patience_sec(clip: SourceClip, max_clip_sec: float) -> float:
    """How long looking at a clip, or making it, may take: many times what the slowest should."""
    with contextlib.suppress(OSError, AttributeError):
        return 600 + 10 * max_clip_sec + clip.path.stat().st_size / 1e6
    return 600 + 10 * max_clip_sec


def load_inspection(cache_file: Path) -> Inspection:
    """What was found earlier. Raises FileNotFoundError, or DamagedError."""
    facts = str(read_arrays(cache_file, "facts", "points", "blendshapes", "detected")["facts"])
    try:
        return Inspection.of(json.loads(facts), cache_file=str(cache_file), cached=True)
    except (ValueError, TypeError) as error:
        raise DamagedError(f"{cache_file} is damaged ({error})") from error


def load_face(cache_file: str) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks, float32 [T, 9, 2], and blendshapes, float16 [T, 52], of the main face."""
    arrays = read_arrays(cache_file, "points", "blendshapes")
    return arrays["points"], arrays["blendshapes"]


def take_crops(cache_file: str, sizes: Mapping[str, int]) -> Crops | None:
    """The crops of these sizes that were made when the clip was looked at, once: they are removed. None without."""
    path = _crops_file(Path(cache_file))
    try:
        crops = Crops(**read_arrays(path, "mouth", "face", "empty"))
    except (FileNotFoundError, DamagedError):
        return None
    path.unlink()
    return crops if [crops.mouth.shape[1], crops.face.shape[1]] == list(sizes.values()) else None


def _crops_file(cache_file: Path) -> Path:
    return cache_file.with_suffix(".crops")


def _key(clip: SourceClip, model_hash: str, every: int) -> str:
    parts = [VERSION, _content_hash(clip.path), clip.start_sec, clip.end_sec, model_hash]
    parts += [_content_hash(clip.sound.path), clip.sound.start_sec] if clip.sound else []
    parts += [clip.regions] if clip.regions else []
    parts += [every] if every > 1 else []
    parts += [_content_hash(clip.landmarks.path), clip.landmarks.from_sec] if clip.landmarks else []
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@functools.lru_cache(maxsize=16)  # the parts of one file come one after the other
def _content_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
