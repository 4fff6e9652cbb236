"""What the page shows of a recording: the video with its marks, probabilities over time, crops, and what each modality
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
from mmpretrain.predict.colours import colours
from mmpretrain.predict.over_time import Windows
from mmpretrain.predict.posteriors import Classifier
from mmpretrain.predict.predict import predict
from mmpretrain.predict.render import Job, render
from mmpretrain.predict.results import Person, Prediction, as_csv, as_json

if TYPE_CHECKING:
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

    def __init__(self, classifier: Classifier, crop_size: int, model: Path | None, limits: Limits):
        self._classifier, self._crop_size, self._model, self.limits = classifier, crop_size, model, limits
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
        windows = Windows(contributions=len(self._classifier.modalities) > 1)
        (found,) = predict([path], self._classifier, windows, crop_size=self._crop_size, landmarker=self._model)
        if found.error:
            raise ValueError(found.error)
        classes = self._classifier.classes
        video = None
        if found.width:
            video = folder / "marked.mp4"
            _, error = next(ordered_map(render, [Job(path, video, found, classes)], 1, lambda _: 1800.0))
            video = None if error else video
        settings = {"task": self._classifier.task.name, **dataclasses.asdict(windows)}
        found = dataclasses.replace(found, file=path.name)
        write_json(folder / "probabilities.json", as_json(found, classes, settings))
        write_text(folder / "probabilities.csv", as_csv(found, classes))
        files = [folder / "probabilities.json", folder / "probabilities.csv"]
        return Answer(video, summary(found, classes), figure(found, classes), crops_of(found), files)


def summary(found: Prediction, classes: tuple[str, ...]) -> str:
    """Markdown: of each person what is most probable on the whole, and what the modalities say alone."""
    lines = []
    for person in found.people:
        said = [f"**{person.name}**: {_most(person.moments.overall, classes)}"]
        said += [f"{BOTH[name]}: {_most(mean, classes)}" for name, mean in _alone(person).items()]
        lines.append("- " + "; ".join(said))
    lines += [f"- note: {note}" for note in found.notes]
    return "\n".join(lines)


def _most(probabilities: np.ndarray, classes: tuple[str, ...]) -> str:
    return f"{classes[int(probabilities.argmax())]} {100 * probabilities.max():.0f} %"


def _alone(person: Person) -> dict[str, np.ndarray]:
    """[C], by modality, the mean over the moments that have it."""
    alone = {name: x[~np.isnan(x).any(1)] for name, x in person.moments.alone.items()}
    return {name: x.mean(0) for name, x in alone.items() if len(x)}


def figure(found: Prediction, classes: tuple[str, ...]) -> Figure:
    """Of each person the probabilities over time, and on the whole of all and of each modality alone."""
    from matplotlib.figure import Figure

    people, shades = found.people, [tuple(c / 255 for c in colour) for colour in colours(len(classes))]
    made = Figure(figsize=(9, 0.6 + 2.1 * len(people)), layout="constrained")
    axes = made.subplots(len(people), 2, squeeze=False, width_ratios=(2, 1))
    for person, (over_time, on_the_whole) in zip(people, axes, strict=True):
        of = person.moments
        middle = (of.start_sec + of.end_sec) / 2
        edges = [of.start_sec[0], *middle, of.end_sec[-1]]
        values = np.concatenate([of.probabilities[:1], of.probabilities, of.probabilities[-1:]])
        over_time.stackplot(edges, values.T, colors=shades, labels=classes)
        over_time.set(xlim=(0, max(found.seconds, 0.04)), ylim=(0, 1), ylabel=person.name, xlabel="seconds")
        bars = {"all": of.overall} | {BOTH[name]: mean for name, mean in _alone(person).items()}
        left = np.zeros(len(bars))
        for k, shade in enumerate(shades):
            widths = [mean[k] for mean in bars.values()]
            on_the_whole.barh(list(bars), widths, left=left, color=shade)
            left += widths
        on_the_whole.invert_yaxis()
        on_the_whole.set(xlim=(0, 1), xlabel="on the whole")
    handles, labels = axes[0][0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside upper center", ncols=min(len(classes), 8), frameon=False)
    return made


def crops_of(found: Prediction) -> list[tuple[np.ndarray, str]]:
    """Of each person one picture of a few crops, side by side, RGB uint8 [S, n S, 3], and the name."""
    made = []
    for person in found.people:
        if person.crops:
            row = [cv2.resize(crop, (CROP_PX, CROP_PX), interpolation=cv2.INTER_CUBIC) for crop in person.crops]
            made.append((cv2.cvtColor(np.concatenate(row, axis=1), cv2.COLOR_GRAY2RGB), person.name))
    return made
