"""What the page shows of a recording: the video with its marks, what is said over time, crops, and what each modality
says alone. Does without the page, so that it can be tested without it."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from data_prep.people import look_into
from data_prep.workers import Failed, ordered_map
from mmpretrain.files import write_json, write_text
from mmpretrain.predict.judge import Judge
from mmpretrain.predict.over_time import Windows
from mmpretrain.predict.predict import predict
from mmpretrain.predict.reading import Reading
from mmpretrain.predict.render import Job, render
from mmpretrain.predict.results import Moments, Person, Prediction, as_csv, as_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CROP_PX = 96  # as they are shown
BOTH = {"audio": "sound alone", "video": "picture alone"}


@dataclasses.dataclass(frozen=True)
class Limits:
    """max_sec: of a recording. max_mb: of its file."""

    max_sec: float = 300.0
    max_mb: int = 200


@dataclasses.dataclass(frozen=True)
class Answer:
    """video: the file with marks, None where there is no picture. crops: see `crops_of`. files: JSON and CSV."""

    video: Path | None
    summary: str
    figure: Figure
    crops: list[tuple[np.ndarray, str]]
    files: list[Path]


class Answers:
    """One encoder and its head, asked one recording at a time. model: the landmarker's file."""

    def __init__(self, judge: Judge, crop_size: int, model: Path | None, limits: Limits):
        self._judge, self._crop_size, self._model, self.limits = judge, crop_size, model, limits
        self._one = threading.Lock()

    def of(self, path: Path, folder: Path) -> Answer:
        """Writes into `folder`. Raises ValueError with the reason where there is no answer."""
        with self._one:
            return self._of(path, folder)

    def _of(self, path: Path, folder: Path) -> Answer:
        if (size := path.stat().st_size) > self.limits.max_mb * 1e6:
            raise ValueError(f"the file has {size / 1e6:.0f} MB; at most {self.limits.max_mb} can be taken")
        _, facts = next(ordered_map(look_into, [path], 1, lambda _: 120.0))
        if error := facts.reason if isinstance(facts, Failed) else facts.error:
            raise ValueError(error)
        if facts.seconds > self.limits.max_sec:
            raise ValueError(
                f"it is {facts.seconds:.0f} s long; at most {self.limits.max_sec:.0f} s can be taken: cut it, or use "
                "`mmpretrain predict`"
            )
        windows = Windows(contributions=len(self._judge.modalities) > 1)
        (found,) = predict([path], self._judge, windows, crop_size=self._crop_size, landmarker=self._model)
        if found.error:
            raise ValueError(found.error)
        reading = self._judge.reading
        video = None
        if found.width:
            video = folder / "marked.mp4"
            _, error = next(ordered_map(render, [Job(path, video, found, reading)], 1, lambda _: 1800.0))
            video = None if error else video
        settings = dataclasses.asdict(windows) | {"smoothing_sec": windows.smoothing_of(self._judge)}
        found = dataclasses.replace(found, file=path.name)
        write_json(folder / "over_time.json", as_json(found, reading, settings))
        write_text(folder / "over_time.csv", as_csv(found, reading))
        files = [folder / "over_time.json", folder / "over_time.csv"]
        return Answer(video, summary(found, reading), figure(found, reading), crops_of(found), files)


def summary(found: Prediction, reading: Reading) -> str:
    """Markdown: of each person what is said on the whole, and what the modalities say alone."""
    lines = []
    for person in found.people:
        said = [f"**{person.name}**: {reading.text(person.moments.overall)}"]
        said += [f"{BOTH[name]}: {reading.text(mean)}" for name, mean in _alone(person).items()]
        lines.append("- " + "; ".join(said))
    lines += [f"- note: {note}" for note in found.notes]
    return "\n".join(lines)


def _alone(person: Person) -> dict[str, np.ndarray]:
    """[C], by modality, the mean over the moments that have it."""
    alone = {name: x[~np.isnan(x).any(1)] for name, x in person.moments.alone.items()}
    return {name: x.mean(0) for name, x in alone.items() if len(x)}


def figure(found: Prediction, reading: Reading) -> Figure:
    """Of each person what is said over time, and on the whole of all and of each modality alone."""
    from matplotlib.figure import Figure

    people, shades = found.people, [tuple(c / 255 for c in colour) for colour in reading.colours]
    made = Figure(figsize=(9, 0.6 + 2.1 * len(people)), layout="constrained")
    axes = made.subplots(len(people), 2, squeeze=False, width_ratios=(2, 1))
    for person, (over_time, on_the_whole) in zip(people, axes, strict=True):
        of = person.moments
        times_N, values_NC = _drawn(of)
        if reading.adds_up:
            over_time.stackplot(times_N, values_NC.T, colors=shades, labels=reading.names)
        else:
            for name, column, shade in zip(reading.names, values_NC.T, shades, strict=True):
                shown = np.clip(column, reading.low, reading.high)  # a number may come out beyond its scale
                over_time.plot(times_N, shown, color=shade, label=name)
        limits = (reading.low, reading.high)
        over_time.set(xlim=(0, max(found.seconds, 0.04)), ylim=limits, ylabel=person.name, xlabel="seconds")
        bars = {"all": of.overall} | {BOTH[name]: mean for name, mean in _alone(person).items()}
        _draw_bars(on_the_whole, bars, reading, shades)
        on_the_whole.set(xlim=limits, xlabel="on the whole")
    handles, labels = axes[0][0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 8), frameon=False)
    return made


def _drawn(of: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Seconds [N] and values [N, C] of a line through the middles of the moments, each stretch of which goes on to its
    ends; NaN between two, where nothing is known."""
    order = np.argsort(of.start_sec + of.end_sec, kind="stable")
    start_K, end_K, values_KC = of.start_sec[order], of.end_sec[order], of.values[order]
    after_hole = np.flatnonzero(start_K[1:] - np.maximum.accumulate(end_K)[:-1] > 1e-3) + 1
    times, values = [], []
    for k in np.split(np.arange(len(order)), after_hole):
        times += [start_K[k[:1]], (start_K[k] + end_K[k]) / 2, end_K[k[-1:]], end_K[k[-1:]]]
        values += [values_KC[k[:1]], values_KC[k], values_KC[k[-1:]], np.full_like(values_KC[:1], np.nan)]
    return np.concatenate(times), np.concatenate(values)


def _draw_bars(axes: Axes, bars: dict[str, np.ndarray], reading: Reading, shades: list[tuple[float, ...]]) -> None:
    """A bar each, of values that add up behind one another, else beside one another."""
    names, values_BC = list(bars), np.stack(list(bars.values()))
    place, left = np.arange(len(names)), np.zeros(len(names))
    for k, shade in enumerate(shades):
        if reading.adds_up:
            axes.barh(place, values_BC[:, k], left=left, color=shade)
            left += values_BC[:, k]
        else:
            size = 0.8 / len(shades)
            axes.barh(
                place - 0.4 + (k + 0.5) * size, values_BC[:, k] - reading.low, size, left=reading.low, color=shade
            )
    axes.set_yticks(place, names)
    axes.invert_yaxis()


def crops_of(found: Prediction) -> list[tuple[np.ndarray, str]]:
    """Of each person one picture of a few crops, side by side, RGB uint8 [S, n S, 3], and the name."""
    made = []
    for person in found.people:
        if person.crops:
            row = [cv2.resize(crop, (CROP_PX, CROP_PX), interpolation=cv2.INTER_CUBIC) for crop in person.crops]
            made.append((cv2.cvtColor(np.concatenate(row, axis=1), cv2.COLOR_GRAY2RGB), person.name))
    return made
