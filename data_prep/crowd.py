"""Everybody in a picture, those too who are small in it: for recordings of meetings, panels, video calls.

MediaPipe finds a face that is at least about a tenth of the longer side of what it looks at. So every now and then
parts of the picture are looked at too, and a part in which somebody else is found is looked at from there on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from data_prep.landmarker import EYES, MESH_POINTS, Faces, Looking, Mesh, Pictures
from data_prep.sources import WHOLE, Region

SIDES = (1 / 2, 1 / 4)  # of the parts, square, of the longer side of the picture; each half a side from the next
MIN_SIDE_PX = 320  # whoever is too small for such a part is too small to be judged
EVERY_FRAMES = 50  # the parts are looked at
SAME_FACE = 0.5  # of the smaller of two boxes: faces that share more of it are one
MARGIN = 0.1  # eye distances; a face that is nearer to the edge of a part is cut off, and not where it seems


def find_everybody(
    frames: Iterable[tuple[np.ndarray | None, int]], model_path: Path, num_faces: int
) -> Iterator[tuple[Faces | None, int]]:
    """As `landmarker.find_faces`, with small faces too, of all the `num_faces` largest, the largest first.

    Raises SetupError for a model that cannot be used.
    """
    pictures, tick, next_look = Pictures(), 0, 0
    with contextlib.ExitStack() as stack:
        still = stack.enter_context(Looking(model_path, WHOLE, num_faces, follows=False))
        followed = [stack.enter_context(Looking(model_path, WHOLE, num_faces))]
        alone: set[Region] = set()  # regions in which somebody was found since the last look whom no other shows
        for rgb, count in frames:
            if rgb is None:
                yield None, count
                tick += count
                continue
            found: list[Mesh] = []
            for looking in followed:
                if new := _others(looking.meshes(rgb, tick), found, looking.region, rgb.shape):
                    found += new
                    alone.add(looking.region)
            if tick >= next_look:
                for looking in [each for each in followed[1:] if each.region not in alone]:
                    followed.remove(looking)
                    looking.close()
                for region in parts_of(*rgb.shape[:2]):
                    if region in {looking.region for looking in followed}:
                        continue
                    if new := _others(still.meshes(rgb, tick, region), found, region, rgb.shape):
                        found += new
                        followed.append(stack.enter_context(Looking(model_path, region, num_faces)))
                        alone.add(region)
                next_look, alone = tick + EVERY_FRAMES, set()
            found.sort(key=lambda mesh: -_size(mesh))
            yield pictures.of_meshes(rgb, found[:num_faces]), count
            tick += count


def parts_of(height: int, width: int) -> Iterator[Region]:
    """Square parts that cover a picture, overlapping by half, larger ones first."""
    for share in SIDES:
        side = share * max(height, width)
        if side < MIN_SIDE_PX:
            return
        for top in _starts(height, side):
            for left in _starts(width, side):
                yield left / width, top / height, min(1.0, (left + side) / width), min(1.0, (top + side) / height)


def _starts(size: int, side: float) -> list[float]:
    count = 1 + max(0, int(np.ceil((size - side) / (side / 2))))
    return np.linspace(0, max(size - side, 0), count).tolist()


def _others(meshes: Sequence[Mesh], found: Sequence[Mesh], region: Region, shape: tuple[int, ...]) -> list[Mesh]:
    """Those that are none of the faces that were found, and are not cut off by the edge of the region."""
    made: list[Mesh] = []
    for mesh in meshes:
        if _is_inside(mesh, region, shape) and not any(_is_same(mesh, other) for other in (*found, *made)):
            made.append(mesh)
    return made


def _is_same(one: Mesh, other: Mesh) -> bool:
    """By their boxes, which keep their size where a face turns, unlike the distance of its eyes, and where what was
    fitted from another part of the picture is smaller or lies beside."""
    lows, highs = (np.array([reach(mesh.points, axis=0) for mesh in (one, other)]) for reach in (np.min, np.max))
    shared = np.prod(np.maximum(highs.min(0) - lows.max(0), 0))
    return bool(shared > SAME_FACE * np.prod(highs - lows, axis=1).min())


def _is_inside(mesh: Mesh, region: Region, shape: tuple[int, ...]) -> bool:
    """Edges of the picture itself cut nothing off."""
    size, margin = np.array([shape[1], shape[0]]), MARGIN * _size(mesh)
    low, high = np.array(region[:2]), np.array(region[2:])
    inside_low = (low <= 0) | (mesh.points.min(0) >= low * size + margin)
    inside_high = (high >= 1) | (mesh.points.max(0) <= high * size - margin)
    return bool((inside_low & inside_high).all())


def _size(mesh: Mesh) -> float:
    """The distance of its eyes in pixels."""
    return float(np.linalg.norm(np.diff(mesh.points[[MESH_POINTS[k] for k in EYES]], axis=0)))
