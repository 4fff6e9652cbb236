"""Follows the faces of a clip over time and takes the one that speaks: one track of nine points and of the scores of
its movements (blendshapes), without holes, smoothed.

The nine points are those `crops.py` names. A track is one person: it never goes from one face to another.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from data_prep.crops import NUM_POINTS
from data_prep.landmarker import Faces, eye_distance
from data_prep.speaking import NOT_KNOWN, Agreement, agreement, voice_level
from mmpretrain.records import NUM_BLENDSHAPES

# A face goes on as the same one if it has moved less than this many eye distances since it was last seen, and is at
# most so many times as large.
_MAX_MOVE, _MAX_GROWTH = 1.0, 1.6
# A new shot differs from the picture before it by so many grey levels, and by so many times what others nearby do.
_CUT_LEVELS, _CUT_TIMES, _CUT_REACH = 12.0, 4.0, 6
_LONG_HOLE = 5  # pictures: who comes back after more, or after a cut, must look as before
_SAME_LOOK, _SAME_LOOK_AFTER_CUT = 0.5, 0.85  # measured: strangers reach 0.9, a face that turned comes down to 0.5

# The face that speaks must say so by this much evidence (see `speaking.py`), and by so much more than any other. Of 38
# real clips of 1 to 6 s, each with the sound of every other person's, that is so for 62 %, and right for 96 % of these.
_SPEAKS, _CLEARLY = 1.5, 0.7
_SMOOTHING = np.array([1, 4, 6, 4, 1]) / 16  # binomial, 200 ms wide: takes the jitter, leaves the head's motion
NO_SOUND = np.zeros(0, np.int16)


@dataclasses.dataclass(frozen=True)
class FaceTrack:
    """The face of a clip that is taken.

    points: float32 [T, 9, 2], x and y in pixels of the first picture, filled and smoothed; [0, 9, 2] without a face.
    blendshapes: float16 [T, 52], MediaPipe's scores from 0 to 1, filled and smoothed; [0, 52] if they are not known.
    detected: bool [T], False where both were filled in. num_faces: the most faces seen at once. speaks: how its mouth
    goes with the sound. by_sound: that is why it was taken, not for its size. rival: the evidence for another face.
    """

    points: np.ndarray
    blendshapes: np.ndarray
    detected: np.ndarray
    num_faces: int
    speaks: Agreement = NOT_KNOWN
    by_sound: bool = False
    rival: float = 0.0


NO_FACE = FaceTrack(
    np.zeros((0, NUM_POINTS, 2), np.float32), np.zeros((0, NUM_BLENDSHAPES), np.float16), np.zeros(0, bool), 0
)

Track = dict[int, int]  # of one person: picture -> which of its faces


def track_face(found: Iterable[tuple[Faces | None, int]], audio: np.ndarray = NO_SOUND) -> FaceTrack:
    """Follows faces through the pictures of a clip, and takes one.

    found: the faces of each picture and for how many frames it is shown, as `landmarker.find_faces` gives them; where
    it is None nobody looked, and faces are taken to move evenly. audio: the clip's sound, int16 [N] at 16 kHz. With
    several people it is the face whose mouth moves with the sound; where none clearly does, the one that is large for
    long: the track with the greatest sum of eye distances.
    """
    pictures, counts = [], []
    for faces, count in found:
        pictures.append(faces)
        counts.append(count)
    num_faces = max((len(faces.points) for faces in pictures if faces), default=0)
    pictures, tracks = _follow_all(pictures)
    if not tracks:
        return dataclasses.replace(NO_FACE, detected=np.zeros(sum(counts), bool), num_faces=num_faces)
    taken, speaks, by_sound, rival = _choose(pictures, counts, tracks, audio)
    main = np.full(len(pictures), -1)
    main[list(taken)] = list(taken.values())
    detected = np.repeat(main >= 0, counts)

    # In a picture of another shape the face stands elsewhere.
    jumps = np.flatnonzero(np.diff(np.repeat([faces.shape for faces in pictures], counts))) + 1

    def whole(name: str, dtype: type) -> np.ndarray:
        shown = [getattr(pictures[picture], name)[face] for picture, face in sorted(taken.items())]
        known = np.zeros((len(main), *shown[0].shape))
        known[main >= 0] = shown
        filled = fill_gaps(np.repeat(known, counts, axis=0), detected)
        return np.concatenate([smooth(part) for part in np.split(filled, jumps)]).astype(dtype)

    knows = pictures[min(taken)].blendshapes.shape[1] > 0
    blendshapes = whole("blendshapes", np.float16) if knows else NO_FACE.blendshapes
    return FaceTrack(whole("points", np.float32), blendshapes, detected, num_faces, speaks, by_sound, rival)


def _follow_all(pictures: Sequence[Faces | None]) -> tuple[list[Faces], list[Track]]:
    """The pictures with those that nobody looked at filled in, and the tracks: each goes on in between as a line."""
    looked = [number for number, faces in enumerate(pictures) if faces is not None]
    tracks = [{looked[k]: face for k, face in track.items()} for track in follow([pictures[k] for k in looked])]
    filled = list(pictures)
    for before, after in itertools.zip_longest(looked, looked[1:]):
        for number in range(before + 1, len(pictures) if after is None else after):
            share = 0.0 if after is None else (number - before) / (after - before)
            a, b = pictures[before], pictures[before if after is None else after]
            share = share if a.shape == b.shape else 0.0  # in a picture of another shape a face stands elsewhere
            going_on = [track for track in tracks if before in track and (after is None or after in track)]
            ends = [(track[before], track[before if after is None else after]) for track in going_on]
            filled[number] = _between(a, b, share, ends)
            for face, track in enumerate(going_on):
                track[number] = face
    return filled, tracks


def _between(a: Faces, b: Faces, share: float, ends: Sequence[tuple[int, int]]) -> Faces:
    """The faces at a share of the way from those of one picture to those of another; ends: which become which."""
    first, last = ([pair[k] for pair in ends] for k in (0, 1))
    values = (
        (1 - share) * getattr(a, n)[first] + share * getattr(b, n)[last] for n in ("points", "blendshapes", "opening")
    )
    return Faces(*values, a.looks[first], a.shape)


def follow(pictures: Sequence[Faces]) -> list[Track]:
    """Joins faces over time, nearest first, into tracks of one person each."""
    tracks: list[Track] = []
    shots = _shots([faces.change for faces in pictures])
    for number, faces in enumerate(pictures):
        pairs = sorted(
            (move, face, t)
            for t, track in enumerate(tracks)
            for face in range(len(faces.points))
            if (move := _move(pictures, shots, track, number, face)) is not None
        )
        new, free = set(range(len(faces.points))), set(range(len(tracks)))
        for _, face, t in pairs:
            if face in new and t in free:
                tracks[t][number] = face
                new.remove(face)
                free.remove(t)
        tracks.extend({number: face} for face in sorted(new))
    return tracks


def _move(pictures: Sequence[Faces], shots: np.ndarray, track: Track, number: int, face: int) -> float | None:
    """How far a face is from where a track was last seen, in eye distances; None if it cannot be the same person."""
    last, faces = next(reversed(track)), pictures[number]  # a track is in order of time
    before = pictures[last]
    point, seen = faces.points[face], before.points[track[last]]
    move = float(np.linalg.norm(point.mean(0) - seen.mean(0)) / max(eye_distance(seen), 1.0))
    if before.shape != faces.shape:
        return move
    growth = max(eye_distance(point), 1.0) / max(eye_distance(seen), 1.0)
    if move > _MAX_MOVE or not 1 / _MAX_GROWTH <= growth <= _MAX_GROWTH:
        return None
    is_cut = shots[number] != shots[last]
    if is_cut or number - last > _LONG_HOLE:
        alike = float(faces.looks[face] @ before.looks[track[last]])
        if alike < (_SAME_LOOK_AFTER_CUT if is_cut else _SAME_LOOK):
            return None
    return move


def _shots(changes: Sequence[float]) -> np.ndarray:
    """Which shot each picture belongs to: a new one begins where a picture differs far more from the one before than
    those nearby do."""
    numbers, shot = np.zeros(len(changes), int), 0
    for k, change in enumerate(changes):
        if change > _CUT_LEVELS:
            near = [*changes[max(k - _CUT_REACH, 1) : k], *changes[k + 1 : k + 1 + _CUT_REACH]]
            shot += not near or change > _CUT_TIMES * float(np.median(near))
        numbers[k] = shot
    return numbers


def _choose(
    pictures: Sequence[Faces], counts: Sequence[int], tracks: Sequence[Track], audio: np.ndarray
) -> tuple[Track, Agreement, bool, float]:
    """The track that speaks, or else is large for long; how it goes with the sound; which of both it is; and the
    evidence for the next one."""
    level = voice_level(audio, sum(counts)) if len(audio) else np.zeros(sum(counts))

    def speaks(track: Track) -> Agreement:
        opening = np.full(len(pictures), np.nan)
        opening[list(track)] = [pictures[picture].opening[face] for picture, face in track.items()]
        return agreement(np.repeat(opening, counts), level)

    def size(track: Track) -> float:
        return sum(float(eye_distance(pictures[k].points[face])) * counts[k] for k, face in track.items())

    sizes, said = [size(track) for track in tracks], [speaks(track) for track in tracks]
    largest = int(np.argmax(sizes))
    best, *others = sorted(range(len(tracks)), key=lambda t: said[t].evidence, reverse=True)
    rival = said[others[0]].evidence if others else 0.0
    by_sound = said[best].evidence > max(_SPEAKS, rival + _CLEARLY)
    taken = best if by_sound else largest
    rivals = [said[t].evidence for t in range(len(tracks)) if t != taken]
    return tracks[taken], said[taken], by_sound, max(rivals, default=0.0)


def fill_gaps(values: np.ndarray, detected: np.ndarray) -> np.ndarray:
    """Values [T, ...] with the frames that are not `detected` [T] interpolated linearly, the ends copied outward."""
    frames, known = np.arange(len(values)), np.flatnonzero(detected)
    flat = values.reshape(len(values), -1)
    columns = [np.interp(frames, known, flat[known, column]) for column in range(flat.shape[1])]
    return np.stack(columns, axis=1).reshape(values.shape)


def smooth(values: np.ndarray) -> np.ndarray:
    """Values [T, ...] under a short binomial filter in time; the ends are repeated."""
    reach = len(_SMOOTHING) // 2
    padded = np.pad(values, ((reach, reach), *[(0, 0)] * (values.ndim - 1)), mode="edge")
    return sum(weight * padded[k : k + len(values)] for k, weight in enumerate(_SMOOTHING))
