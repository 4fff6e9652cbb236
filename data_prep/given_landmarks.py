"""Landmarks that somebody has found already, of 68 or of MediaPipe's 478 points, instead of looking for faces."""

from __future__ import annotations

import dataclasses
import math
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from data_prep.landmarker import MESH_LIPS, MESH_POINTS, Faces, Pictures
from data_prep.sources import Landmarks, SourceClip
from mmpretrain.listing import find_files, readable
from mmpretrain.records import FRAME_RATE_HZ

# By the number of points in a face: which are the nine of `crops.py`, and which the edges of the lips that meet.
LAYOUTS = {
    68: ((36, 39, 42, 45, 33, 48, 54, 51, 57), (62, 66)),  # of iBUG 300-W, counted from 0
    478: (MESH_POINTS, MESH_LIPS),
}
SHARES = 2.0  # where no coordinate is larger they are shares of the picture, not pixels
UNEQUAL_FRAMES = 2  # by so many rows a file may differ from its clip


def with_landmarks(clips: Iterable[SourceClip], folder: Path) -> list[SourceClip]:
    """The clips, those with their landmarks of which `folder` has a file `CLIP_ID.npz`. Prints which others there are.

    Raises FileNotFoundError where there is no folder, ValueError where it has none of any clip.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"--landmarks {folder} is not a folder; give the folder with a CLIP_ID.npz for each clip"
        )
    files, given = find_files(folder, {".npz"}).files, []
    for clip in clips:
        path = folder / f"{clip.clip_id}.npz"
        if clip.path and not clip.refused and path.is_file():
            clip = dataclasses.replace(clip, landmarks=Landmarks(path, clip.start_sec))
        given.append(clip)
    without = [clip.clip_id for clip in given if clip.needs_landmarker]
    if without and not any(clip.landmarks for clip in given):
        raise ValueError(
            f"--landmarks {folder} has no file of any clip with a picture, such as {without[0]}.npz; call the files "
            "so, or leave the option out, then faces are looked for"
        )
    if without:
        print(f"note: of {len(without):,} clips {folder} has no landmarks, such as {without[0]}: faces are looked for")
    ids = {clip.clip_id for clip in given}
    if strange := [name for file in files if (name := file.relative_to(folder).with_suffix("").as_posix()) not in ids]:
        print(f"note: {len(strange):,} files of landmarks are of no clip, such as {readable(strange[0])}.npz")
    return given


def faces_of_file(clip: SourceClip, frames: Iterable[tuple[np.ndarray, int]]) -> Iterator[tuple[Faces, int]]:
    """The face of each distinct frame, and for how many frames of the clip it is shown, as `find_faces` gives them.

    The file of `clip.landmarks` is an npz with `points`, float [R, 68 or 478, 2 or more], x and y in pixels of the
    upright picture or as shares of it, NaN where no face is; and, unless its rows are the clip's frames at 25 a second,
    their rate `fps`. Raises ValueError where it is anything else, or has more or fewer rows than the clip has frames.
    """
    points, fps = _read(clip.landmarks.path)
    nine, lips = (list(chosen) for chosen in LAYOUTS[points.shape[1]])
    in_shares = bool(np.nanmax(points, initial=0.0) <= SHARES)
    pictures, tick = Pictures(), 0
    from_sec = clip.start_sec - clip.landmarks.from_sec
    for rgb, count in frames:
        row = math.floor((from_sec + tick / FRAME_RATE_HZ) * fps + 1e-6)
        tick += count
        face = points[min(row, len(points) - 1)]
        if in_shares:
            face = face * rgb.shape[1::-1] - 0.5
        shown = [face] if np.isfinite(face[nine + lips]).all() else []
        blendshapes = np.zeros((len(shown), 0), np.float32)
        yield pictures.faces(rgb, [face[nine] for face in shown], [face[lips] for face in shown], blendshapes), count
    needed = (from_sec + tick / FRAME_RATE_HZ) * fps
    is_whole = clip.start_sec == clip.landmarks.from_sec and clip.end_sec is None
    if len(points) < needed - UNEQUAL_FRAMES or (is_whole and len(points) > needed + UNEQUAL_FRAMES):
        raise ValueError(
            f"its landmarks {clip.landmarks.path.name} have {len(points)} rows at {fps:g} a second, but there are "
            f"{needed:.0f} frames; give `fps` in the file, or find them again"
        )


def _read(path: Path) -> tuple[np.ndarray, float]:
    try:
        with np.load(path, allow_pickle=False) as file:
            points = np.asarray(file["points"], np.float64)
            fps = float(file["fps"]) if "fps" in file else float(FRAME_RATE_HZ)
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"its landmarks {path.name} are no npz with an array `points` ({error})") from error
    if points.ndim != 3 or points.shape[1] not in LAYOUTS or points.shape[2] < 2 or not len(points):
        raise ValueError(
            f"its landmarks {path.name} have the shape {list(points.shape)}; give [frames, 68 or 478, 2 or 3]"
        )
    if not 0 < fps < 1000:
        raise ValueError(f"its landmarks {path.name} say {fps:g} frames a second")
    points = np.where(np.isfinite(points), points, np.nan)
    return points[..., :2], fps
