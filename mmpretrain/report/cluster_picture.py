"""The picture of `mmpretrain targets inspect`: a few clips, how they look and sound, and their clusters."""

from __future__ import annotations

import colorsys
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmpretrain.files import whole_file
from mmpretrain.records import FRAME_RATE_HZ
from mmpretrain.report.charts import FAINT, INK, MUTED, STYLE

MAX_FRAMES = 100  # of a longer clip, its beginning is shown
PICTURES = 20  # side by side over a clip
FBANK_RATE_HZ = 100

Rows = list[tuple[str, list[tuple[float, float, str]]]]  # name of the row; start, end in seconds and text of each box


@dataclasses.dataclass(frozen=True)
class ClipPicture:
    """What is drawn of one clip; any part may be empty.

    video_THW: uint8 at 25 Hz. fbank_NF: log energies at 100 Hz. ids_T: clusters, `targets_per_frame` in each.
    said: rows of boxes under the clusters, e.g. the phones and the words.
    """

    title: str
    video_THW: np.ndarray
    fbank_NF: np.ndarray
    ids_T: np.ndarray
    targets_per_frame: int
    said: Rows


def draw_clips(path: Path, clips: Sequence[ClipPicture]) -> None:
    """Writes a PNG, whole or not at all: clip under clip, all rows of one on the same axis of time."""
    heights = [[0.75, 1.1, 0.3, *(0.22 for _ in clip.said)] for clip in clips]
    with matplotlib.rc_context(STYLE | {"figure.facecolor": "white"}):
        figure = Figure(figsize=(15, 0.55 * len(clips) + 1.05 * sum(map(sum, heights))), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.015, hspace=0, w_pad=0.05)
        parts = np.atleast_1d(figure.subfigures(len(clips), 1, height_ratios=[sum(rows) + 0.5 for rows in heights]))
        for part, clip, rows in zip(parts, clips, heights, strict=True):
            seconds = min(len(clip.ids_T) / (FRAME_RATE_HZ * clip.targets_per_frame), MAX_FRAMES / FRAME_RATE_HZ)
            all_axes = part.subplots(len(rows), 1, sharex=True, height_ratios=rows)
            draw_frames(all_axes[0], clip.video_THW, seconds)
            _draw_fbank(all_axes[1], clip.fbank_NF)
            _draw_boxes(all_axes[2], "clusters", _runs(clip.ids_T, clip.targets_per_frame), seconds, coloured=True)
            for axes, (name, boxes) in zip(all_axes[3:], clip.said, strict=True):
                _draw_boxes(axes, name, boxes, seconds)
            for axes in all_axes:
                axes.set_xlim(0, seconds)
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
                axes.tick_params(bottom=False)
            all_axes[0].set_title(clip.title, color=INK)
            all_axes[-1].tick_params(bottom=True)
            all_axes[-1].set_xlabel("seconds")
        with whole_file(path) as draft:
            figure.savefig(draft, format="png", dpi=110)


def draw_frames(axes: Axes, video_THW: np.ndarray, seconds: float) -> None:
    """Frames of a clip in the middle of equal parts of its time, each at its own. video_THW: uint8."""
    _name(axes, "mouth")
    if not len(video_THW):
        axes.text(0, 0.5, "no picture", color=MUTED, va="center", transform=axes.transAxes)
        return
    width = seconds / PICTURES
    for left in np.arange(PICTURES) * width:
        frame = min(int((left + width / 2) * FRAME_RATE_HZ), len(video_THW) - 1)
        place = (left + 0.03 * width, left + 0.97 * width, 0, 1)
        axes.imshow(video_THW[frame], cmap="gray", vmin=0, vmax=255, extent=place, aspect="auto")
    axes.set_ylim(0, 1)


def _draw_fbank(axes: Axes, fbank_NF: np.ndarray) -> None:
    _name(axes, "filterbank")
    if not len(fbank_NF):
        axes.text(0, 0.5, "no sound", color=MUTED, va="center", transform=axes.transAxes)
        return
    fbank_NF = np.maximum(fbank_NF, 0)  # digital silence is at -36 and would take all of the shades
    low, high = np.quantile(fbank_NF, (0.05, 0.995))
    place = (0, len(fbank_NF) / FBANK_RATE_HZ, 0, fbank_NF.shape[1])
    axes.imshow(fbank_NF.T, origin="lower", cmap="magma", vmin=low, vmax=high, extent=place, aspect="auto")


def _draw_boxes(
    axes: Axes, name: str, boxes: Sequence[tuple[float, float, str]], seconds: float, coloured: bool = False
) -> None:
    """Boxes with their texts, which are left out where a box is too narrow for it."""
    _name(axes, name)
    axes.set_ylim(0, 1)
    for start, end, text in boxes:
        if start >= seconds:
            continue
        end = min(end, seconds)
        colour = _colour(int(text)) if coloured else FAINT
        axes.axvspan(start, end, 0, 1, facecolor=colour, edgecolor="white", linewidth=0.8)
        if (end - start) / seconds * 240 > len(text) + 0.2:  # about 240 letters of this size fit in a row
            axes.text((start + end) / 2, 0.47, text, ha="center", va="center", fontsize=6.5, clip_on=True)


def _runs(ids_T: np.ndarray, targets_per_frame: int) -> list[tuple[float, float, str]]:
    edges, rate_hz = np.flatnonzero(np.diff(ids_T, prepend=-1, append=-1)), FRAME_RATE_HZ * targets_per_frame
    return [(first / rate_hz, end / rate_hz, str(ids_T[first])) for first, end in itertools.pairwise(edges)]


def _colour(cluster: int) -> tuple[float, float, float]:
    """Steps of the golden ratio around the circle of hues: neighbours in number are far apart in colour."""
    return colorsys.hls_to_rgb(cluster * 0.618034 % 1, (0.72, 0.82, 0.62)[cluster % 3], 0.6)


def _name(axes: Axes, name: str) -> None:
    axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8.5)
