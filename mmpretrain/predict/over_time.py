"""A file in parts, each person in windows, and what the head says of each: memory does not grow with the file's length.

Parts of `PART_SEC` overlap by a window, so that every window is whole in the part in which it begins, and so that a
person of one part is found again in the next.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from data_prep.people import Contents, Facts, Part
from data_prep.people import Person as Seen
from mmpretrain.predict.judge import Judge
from mmpretrain.predict.results import PERSON, VOICE, Moments, Person, Prediction
from mmpretrain.records import FRAME_RATE_HZ, SAMPLES_PER_FRAME, Clip

PART_SEC = 60
SMOOTHING_SEC = 1.5
MIN_FRAMES = 5  # as of preparation: less is no clip
KEPT_CROPS = 8  # of a person
SAME_PERSON = 0.3  # of the faces of two parts, by how much they cover each other where both are seen


@dataclasses.dataclass(frozen=True)
class Windows:
    """window_sec: of what is judged at once. hop_sec: from one to the next. smoothing_sec: over which what is said is
    averaged, 0: not; None: 1.5, and not at all where every frame is spoken of. contributions: what each modality says
    alone, too. Raises ValueError."""

    window_sec: float = 3.0
    hop_sec: float = 0.5
    smoothing_sec: float | None = None
    contributions: bool = False

    def __post_init__(self) -> None:
        for name, least, most in (("window_sec", 0.2, 30), ("hop_sec", 0.04, 30), ("smoothing_sec", 0, 60)):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                flag = name.removesuffix("_sec")
                raise ValueError(f"--{flag}={value:g}; it must be {least:g} to {most:g} seconds")
        if self.hop_sec > self.window_sec:
            raise ValueError(
                f"--hop={self.hop_sec:g} is above --window={self.window_sec:g}, so that what lies between two windows "
                f"would not be judged; give --hop={self.window_sec:g} or less"
            )

    def smoothing_of(self, judge: Judge) -> float:
        """Seconds."""
        usual = 0.0 if judge.of_frames else SMOOTHING_SEC
        return usual if self.smoothing_sec is None else self.smoothing_sec

    @property
    def frames(self) -> int:
        return round(self.window_sec * FRAME_RATE_HZ)

    def starts(self, first: int, num_frames: int, is_last: bool) -> list[int]:
        """Where windows begin in a part of `num_frames` frames that begins with frame `first` of the file: every hop of
        the file, and at its end one more that ends with it."""
        if num_frames <= self.frames:
            return [0] if num_frames else []
        last = num_frames - self.frames if is_last else min(PART_SEC * FRAME_RATE_HZ - 1, num_frames - self.frames)
        hop = self.hop_sec * FRAME_RATE_HZ
        numbers = range(math.ceil((first - 0.5) / hop), math.floor((first + last + 0.5) / hop) + 1)
        starts = sorted({start for k in numbers if 0 <= (start := round(k * hop) - first) <= last})
        return starts + [last] * bool(is_last and last not in starts)


def spans(facts: Facts, windows: Windows) -> list[tuple[float, float]]:
    """The parts of a file, in seconds; the last one may go on beyond its end."""
    count = max(1, math.ceil((facts.seconds - windows.window_sec) / PART_SEC))
    return [(float(k * PART_SEC), k * PART_SEC + PART_SEC + windows.window_sec) for k in range(count)]


class OverTime:
    """Takes the parts of a file in their order, then says what was predicted of it."""

    def __init__(self, judge: Judge, windows: Windows, file: str, facts: Facts):
        self._head, self._windows, self._file, self._facts = judge, windows, file, facts
        self._people: list[_Someone] = []
        self._notes: list[str] = []
        self._end = 0  # frames that were read

    def add(self, part: Part, contents: Contents, *, is_last: bool) -> None:
        """The next part; one that cannot be read counts as empty, and is noted."""
        if contents.error:
            self._notes.append(f"from {part.start_sec:g} s on: {contents.error}" if self._end else contents.error)
        first, num_frames = round(part.start_sec * FRAME_RATE_HZ), contents.num_frames
        self._end = max(self._end, first + num_frames)
        self._notes += [note for note in contents.notes if note not in self._notes]
        is_last |= num_frames < PART_SEC * FRAME_RATE_HZ + self._windows.frames
        starts = self._windows.starts(first, num_frames, is_last)
        before, left = list(self._people), set(starts)
        for seen in contents.people if "video" in self._head.modalities else ():
            someone = self._find(before, first, seen)
            someone.show(first + seen.first, seen.boxes)
            someone.keep(getattr(seen, self._head.view))
            left -= set(self._judge(someone, first, contents, seen, starts, is_last))
        if left and len(contents.audio) and "audio" in self._head.modalities:
            self._judge(self._voice(), first, contents, None, sorted(left), is_last)

    def result(self) -> Prediction:
        """With the reason where nothing could be predicted."""
        people = [someone for someone in self._people if someone.moments]
        seconds = self._end / FRAME_RATE_HZ
        if not people:
            unread = not self._end and self._notes  # which say why
            why = "; ".join(self._notes) if unread else self._why_nothing()
            return Prediction(self._file, seconds, error=why)
        made = tuple(someone.person(self._windows.smoothing_of(self._head)) for someone in people)
        facts = self._facts
        return Prediction(self._file, seconds, facts.width, facts.height, made, tuple(self._notes))

    def _why_nothing(self) -> str:
        if self._end < MIN_FRAMES:
            return (
                f"it is {self._end / FRAME_RATE_HZ:.2f} s long; at least {MIN_FRAMES / FRAME_RATE_HZ:.1f} s are needed"
            )
        wants = " and ".join(self._head.modalities)
        found = "its sound is silence" if self._facts.has_sound else "it has no sound"
        if "audio" not in self._head.modalities:
            found = "the encoder takes no sound"
        seen = "no face is seen for half a second" if self._facts.has_picture else "it has no picture"
        if "video" not in self._head.modalities:
            seen = "the encoder takes no picture"
        notes = f" ({'; '.join(self._notes)})" if self._notes else ""
        return f"there is nothing for an encoder of {wants}: {seen}, and {found}{notes}"

    def _voice(self) -> _Someone:
        voice = next((someone for someone in self._people if someone.name == VOICE), None)
        if voice is None:
            voice = _Someone(VOICE)
            self._people.append(voice)
        return voice

    def _find(self, before: Sequence[_Someone], first: int, seen: Seen) -> _Someone:
        """The person of the parts before who is where this one is, in the frames that both have; else somebody new."""
        scores = [someone.overlap(first + seen.first, seen.boxes) for someone in before]
        if scores and max(scores) > SAME_PERSON:
            return before[int(np.argmax(scores))]
        number = 1 + sum(someone.name != VOICE for someone in self._people)
        self._people.append(_Someone(f"{PERSON}{number}"))
        return self._people[-1]

    def _judge(
        self,
        someone: _Someone,
        first: int,
        contents: Contents,
        seen: Seen | None,
        starts: Sequence[int],
        is_last: bool,
    ) -> list[int]:
        """What the head says of one person in a part, and of which of the windows it could say something."""
        width, clips, judged, own = self._windows.frames, [], [], []
        for start in starts:
            stop = min(start + width, contents.num_frames)
            a, b = (start, stop) if seen is None else (max(start, seen.first), min(stop, seen.first + len(seen.boxes)))
            if b - a >= max(MIN_FRAMES, (stop - start) / 2) and (clip := _clip(contents.audio, seen, a, b)) is not None:
                clips.append(clip)
                judged.append((start, stop))
                own.append((a, b))
        if not clips and seen is not None and not someone.moments:
            a, after = seen.first, seen.first + len(seen.boxes)
            b = min(after, a + width)
            goes_on = after == contents.num_frames and not is_last  # where the next part shows more
            if not goes_on and (clip := _clip(contents.audio, seen, a, b)) is not None:
                clips.append(clip)  # of whom less than half of any window is seen
                judged.append((a, b))
                own.append((a, b))
        said = self._head.says(clips, width)
        kept = np.flatnonzero(~np.isnan(said).any(tuple(range(1, said.ndim))))
        if not len(kept):
            return []
        modalities, alone = self._head.modalities, {}
        for name in modalities if self._windows.contributions else ():
            others = [other for other in modalities if other != name]
            alone[name] = self._head.says(clips, width, without=others)[kept]
        judged_K2, own_K2 = np.array(judged)[kept], np.array(own)[kept]
        uses = np.array(["+".join(_has(clips[k], modalities)) for k in kept])
        if self._head.of_frames:
            shared = width - round(self._windows.hop_sec * FRAME_RATE_HZ)  # by a window and the next, half to each
            cut = shared > 0 and not is_last
            end = PART_SEC * FRAME_RATE_HZ + shared // 2 if cut else contents.num_frames
            k_N, t_N = _frames(own_K2, someone.until - first, end)
            inside = (k_N, t_N - own_K2[k_N, 0])
            spans_N2, middle_N, uses = np.stack([t_N, t_N + 1], 1), t_N, uses[k_N]
            said, alone = said[kept][inside], {name: x[inside] for name, x in alone.items()}
        else:
            spans_N2, middle_N, said = judged_K2, own_K2.sum(1) // 2, said[kept]
        boxes_N4 = seen.boxes[middle_N - seen.first] if seen else np.full((len(middle_N), 4), np.nan)
        times = ((first + spans_N2) / FRAME_RATE_HZ).T
        if len(said):
            someone.add(Moments(*times, said, tuple(uses.tolist()), boxes_N4, alone))
        return judged_K2[:, 0].tolist()


def _frames(own_K2: np.ndarray, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Every frame from `begin` to before `end` that a window has, and of those windows the one whose middle is nearest.

    own_K2: the first frame of each window and the one after its last. Returns windows and frames, int [N] each.
    """
    frames_N = np.arange(max(begin, own_K2.min()), min(end, own_K2.max()))
    has_KN = (own_K2[:, :1] <= frames_N) & (frames_N < own_K2[:, 1:])
    off_KN = np.where(has_KN, np.abs(own_K2.mean(1, keepdims=True) - frames_N - 0.5), np.inf)
    some_N = has_KN.any(0)
    return off_KN.argmin(0)[some_N], frames_N[some_N]


def _clip(audio: np.ndarray, seen: Seen | None, first: int, after: int) -> Clip | None:
    """What is heard in these frames of a part, and what is seen of a person."""
    sound = audio[first * SAMPLES_PER_FRAME : after * SAMPLES_PER_FRAME]
    none = np.zeros((0, 1, 1), np.uint8)
    if seen is None:
        return Clip("", sound, none, none) if len(sound) else None
    own = slice(first - seen.first, after - seen.first)
    if seen.detected[own].mean() < 0.5:
        return Clip("", sound, none, none) if len(sound) else None
    return Clip("", sound, seen.mouth[own], seen.face[own])


def _has(clip: Clip, modalities: Sequence[str]) -> list[str]:
    lengths = {"audio": len(clip.audio), "video": len(clip.mouth)}
    return [name for name in modalities if lengths.get(name)]


class _Someone:
    """A person over several parts."""

    def __init__(self, name: str):
        self.name = name
        self.moments: list[Moments] = []
        self.until = 0  # the frame of the file up to which something is said
        self._first = 0
        self._boxes = np.zeros((0, 4), np.float32)
        self._crops: list[np.ndarray] = []

    def add(self, moments: Moments) -> None:
        """Of the part that comes next."""
        self.moments.append(moments)
        self.until = max(self.until, round(float(moments.end_sec[-1]) * FRAME_RATE_HZ))

    def keep(self, crops_TSS: np.ndarray) -> None:
        """A few of the crops, for people to look at; copies, since a view would keep all of them in memory."""
        self._crops += [crops_TSS[t].copy() for t in np.linspace(0, len(crops_TSS) - 1, KEPT_CROPS).astype(int)]

    def show(self, first: int, boxes: np.ndarray) -> None:
        """first: of the file's frames. What is known of frames already is replaced; NaN stands where nobody is seen."""
        if not len(self._boxes):
            self._first, self._boxes = first, boxes
            return
        end = max(self._first + len(self._boxes), first + len(boxes))
        begin = min(self._first, first)
        joined = np.full((end - begin, 4), np.nan, np.float32)
        joined[self._first - begin : self._first - begin + len(self._boxes)] = self._boxes
        joined[first - begin : first - begin + len(boxes)] = boxes
        self._first, self._boxes = begin, joined

    def overlap(self, first: int, boxes: np.ndarray) -> float:
        """The mean of intersection over union in the frames in which both are seen; 0 without any."""
        begin, end = max(first, self._first), min(first + len(boxes), self._first + len(self._boxes))
        if begin >= end:
            return 0.0
        ours, theirs = self._boxes[begin - self._first : end - self._first], boxes[begin - first : end - first]
        low, high = np.maximum(ours[:, :2], theirs[:, :2]), np.minimum(ours[:, 2:], theirs[:, 2:])
        both = np.prod(np.maximum(high - low, 0), axis=1)
        areas = [np.prod(x[:, 2:] - x[:, :2], axis=1) for x in (ours, theirs)]
        shares = both / np.maximum(sum(areas) - both, 1e-9)
        return float(np.nanmean(shares)) if np.isfinite(shares).any() else 0.0

    def person(self, smoothing_sec: float) -> Person:
        moments = Moments.join(self.moments)
        if smoothing_sec > 0:
            moments = moments.smoothed(smoothing_sec)
        kept = np.linspace(0, len(self._crops) - 1, KEPT_CROPS).astype(int) if self._crops else []
        return Person(self.name, moments, self._first, self._boxes, tuple(self._crops[k] for k in kept))
