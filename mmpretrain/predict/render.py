"""The video of a prediction: faces framed and labelled, below them what is said of each person over time."""

from __future__ import annotations

import contextlib
import dataclasses
import fractions
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from data_prep import media
from data_prep.faults import ClipError, of_the_clip
from mmpretrain.files import whole_file
from mmpretrain.predict.colours import on
from mmpretrain.predict.reading import Reading
from mmpretrain.predict.results import PERSON, Person, Prediction
from mmpretrain.records import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

MAX_WIDTH, MIN_WIDTH = 960, 320
MAX_PEOPLE = 10  # with a strip of their own
LEGEND_PX, NAME_PX = 26, 84
STRIP_PX, NARROW_PX, FEW_PEOPLE = 44, 26, 4  # of more people than these few the strips are narrow
LABEL_PX = 20
PART_SEC = 60.0
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclasses.dataclass(frozen=True)
class Job:
    """The video `target` of what was found in the file `path`."""

    path: Path
    target: Path
    found: Prediction
    reading: Reading


def render(job: Job) -> str:
    """Writes the video, whole or not at all; returns why it could not be, or "". Memory is that of a minute."""
    try:
        with of_the_clip(), whole_file(job.target) as draft:
            _write(job, draft)
    except ClipError as error:
        return str(error)
    return ""


def _write(job: Job, draft: Path) -> None:
    scale = min(1.0, MAX_WIDTH / job.found.width)
    width = _even(max(job.found.width * scale, MIN_WIDTH))
    height = _even(job.found.height * scale)
    board, strips_at = _board(job.found.people, job.reading, width, job.found.seconds)
    with contextlib.closing(av.open(str(draft), "w", format="mp4")) as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        picture = container.add_stream(codec, rate=FRAME_RATE_HZ)
        picture.width, picture.height, picture.pix_fmt = width, height + len(board), "yuv420p"
        sound = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        number, samples = 0, 0
        for opened in _parts(job):
            first = number
            for rgb in media.shown_frames(opened):
                shown = _drawn(rgb, number, job, width, height, board, strips_at)
                frame = av.VideoFrame.from_ndarray(shown, "rgb24")
                frame.pts, frame.time_base = number, fractions.Fraction(1, FRAME_RATE_HZ)
                container.mux(picture.encode(frame))
                number += 1
            audio = media.audio_samples(opened, number - first)
            if not len(audio):
                audio = np.zeros((number - first) * SAMPLES_PER_FRAME, np.int16)
            samples = _add_sound(container, sound, audio, samples)
        container.mux(picture.encode(None))
        container.mux(sound.encode(None))
    if not number:
        raise ValueError("nothing of its picture can be decoded")


def _parts(job: Job) -> Iterator[media.Media]:
    start = 0.0
    while start < max(job.found.seconds, 0.04):
        yield media.open_media(job.path, start, start + PART_SEC)
        start += PART_SEC


def _add_sound(container, stream, audio: np.ndarray, samples: int) -> int:
    for first in range(0, len(audio), 1024):
        frame = av.AudioFrame.from_ndarray(audio[None, first : first + 1024], "s16", "mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, samples
        frame.time_base = fractions.Fraction(1, SAMPLE_RATE_HZ)
        samples += frame.samples
        container.mux(stream.encode(frame))
    return samples


def _drawn(
    rgb: np.ndarray, number: int, job: Job, width: int, height: int, board: np.ndarray, strips_at: int
) -> np.ndarray:
    shown = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    labels = []
    for person in job.found.people:
        row = number - person.first_frame
        if 0 <= row < len(person.boxes) and not np.isnan(person.boxes[row]).any():
            labels.append(_frame_face(shown, person, number, person.boxes[row], job.reading))
    for label, top in zip(labels, _tops(labels, height), strict=True):
        right, bottom = label.left + label.width, top + LABEL_PX
        cv2.rectangle(shown, (label.left, top), (right, bottom), label.colour, -1)
        cv2.putText(shown, label.text, (label.left + 3, bottom - 5), _FONT, 0.5, on(label.colour), 1, cv2.LINE_AA)
    below = board.copy()
    x = NAME_PX + round((width - NAME_PX - 1) * min(1.0, (number / FRAME_RATE_HZ) / max(job.found.seconds, 0.04)))
    cv2.line(below, (x, strips_at), (x, len(below)), (255, 255, 255), 1)
    return np.concatenate([shown, below])


class _Label(NamedTuple):
    """top: where it should be, on the frame of the face; in pixels."""

    text: str
    colour: tuple[int, int, int]
    left: int
    top: int
    width: int


def _frame_face(shown: np.ndarray, person: Person, number: int, box: np.ndarray, reading: Reading) -> _Label:
    """Draws the frame; the labels come when all frames are there."""
    height, width = shown.shape[:2]
    left, top, right, bottom = (round(float(x)) for x in box * (width, height, width, height))
    values = at_time(person, number / FRAME_RATE_HZ)
    colour = reading.colour(values)
    cv2.rectangle(shown, (left, top), (right, bottom), colour, 2)
    text = f"{person.name.removeprefix(PERSON)}: {ascii_of(reading.text(values))}"
    across = cv2.getTextSize(text, _FONT, 0.5, 1)[0][0] + 6
    return _Label(text, colour, min(max(left - 1, 0), max(width - across, 0)), top - LABEL_PX, across)


def _tops(labels: Sequence[_Label], height: int) -> list[int]:
    """Where each label goes, so that none covers another: where it should be, else the next place below or above."""
    tops: list[int] = []
    for label in labels:
        beside = [
            top for other, top in zip(labels, tops, strict=False)
            if label.left < other.left + other.width and other.left < label.left + label.width
        ]  # fmt: skip
        wanted = min(max(label.top, 0), max(height - LABEL_PX, 0))
        places = [wanted, *(top + step for top in beside for step in (LABEL_PX, -LABEL_PX))]
        free = [
            place for place in places
            if 0 <= place <= height - LABEL_PX and all(abs(place - top) >= LABEL_PX for top in beside)
        ]  # fmt: skip
        tops.append(min(free, key=lambda place: abs(place - wanted), default=wanted))
    return tops


def at_time(person: Person, sec: float) -> np.ndarray:
    """[C], of the moment whose middle is nearest."""
    of = person.moments
    return of.values[int(np.abs((of.start_sec + of.end_sec) / 2 - sec).argmin())]


def _board(people: Sequence[Person], reading: Reading, width: int, seconds: float) -> tuple[np.ndarray, int]:
    """What stands below the picture: names and colours of the values, a strip for each person, of very many for those
    who are seen for longest; and where strips begin."""
    longest = sorted(range(len(people)), key=lambda number: -len(people[number].moments.uses))[:MAX_PEOPLE]
    shown = [people[number] for number in sorted(longest)]
    strip_px = STRIP_PX if len(shown) <= FEW_PEOPLE else NARROW_PX
    places, x, y = [], 6, 8
    for name in map(ascii_of, reading.names):
        (across, _), _ = cv2.getTextSize(name, _FONT, 0.42, 1)
        if x > 6 and x + across + 14 > width:
            x, y = 6, y + LEGEND_PX - 8
        places.append((name, x, y))
        x += across + 26
    strips_at = y + LEGEND_PX - 8
    more = len(people) - len(shown)
    board = np.full((_even(strips_at + strip_px * len(shown) + LABEL_PX * bool(more)), width, 3), 24, np.uint8)
    for (name, x, y), colour in zip(places, reading.colours, strict=True):
        cv2.rectangle(board, (x, y), (x + 10, y + 10), colour, -1)
        _write_grey(board, name, x + 14, y + 10)
    for number, person in enumerate(shown):
        top = strips_at + strip_px * number
        _write_grey(board, person.name, 6, top + strip_px // 2 + 3)
        strip(board[top : top + strip_px - 4, NAME_PX:], person, reading, seconds)
    if more:
        _write_grey(
            board, f"and {more} more, seen for less long: in the JSON file", 6, strips_at + strip_px * len(shown) + 14
        )
    return board, strips_at


def _write_grey(board: np.ndarray, text: str, x: int, y: int) -> None:
    cv2.putText(board, text, (x, y), _FONT, 0.42, (230, 230, 230), 1, cv2.LINE_AA)


def strip(area: np.ndarray, person: Person, reading: Reading, seconds: float) -> None:
    """Paints what is said over time into `area` uint8 [h, w, 3]; dark where nothing is known.

    Chances that add up stand one above the other; of other values each is a line, the lowest value at the bottom.
    """
    height, width = area.shape[:2]
    area[:] = 40
    times = (np.arange(width) + 0.5) / width * max(seconds, 0.04)
    of = person.moments
    middle = (of.start_sec + of.end_sec) / 2
    order = np.argsort(middle, kind="stable")
    between = (middle[order][1:] + middle[order][:-1]) / 2
    nearest = order[np.searchsorted(between, times)]
    known = (times >= of.start_sec[nearest]) & (times <= of.end_sec[nearest])
    shares = reading.shares(of.values[nearest])
    before = None
    for x in range(width):
        if not known[x]:
            before = None
        elif reading.adds_up:
            edges = np.round(height * np.concatenate([[0], np.cumsum(shares[x])])).astype(int)
            for low, high, colour in zip(edges, edges[1:], reading.colours, strict=False):
                area[height - high : height - low, x] = colour
        else:
            rows = np.round((height - 2) * (1 - shares[x])).astype(int)
            for row, other, colour in zip(rows, rows if before is None else before, reading.colours, strict=True):
                area[min(row, other) : max(row, other) + 2, x] = colour
            before = rows


def ascii_of(text: str) -> str:
    """What OpenCV's font can write: letters without their accents, and ? for others."""
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "".join(letters).encode("ascii", "replace").decode()


def _even(size: float) -> int:
    return max(2, round(size / 2) * 2)
