"""What layers of encoders know, as a table and as a page with one plot of each thing that is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmpretrain.records import FRAME_RATE_HZ, SAMPLE_RATE_HZ, Clip
from mmpretrain.report.blocks import figure, html_table, section, write_page
from mmpretrain.report.charts import FAINT, INK, MUTED, PALETTE, STYLE, svg
from mmpretrain.report.cluster_picture import draw_frames
from mmpretrain.report.comparisons import Table
from mmpretrain.report.tables import percent, text_table

ASKED = ("task", "speaker", "units")


def titles(results: Mapping[str, Any]) -> dict[str, str]:
    return {
        "task": f"{results['task']}, UA", "speaker": "speaker, UA", "units": f"{results['units_of']}, frames",
    }  # fmt: skip


def layers_table(results: Mapping[str, Any]) -> Table:
    """A row for each model and layer, and one of chance."""

    def row(*cells: str, of: Mapping[str, Any], layer: int | None = None) -> list[str]:
        values = [of[asked] if layer is None or of[asked] is None else of[asked][layer] for asked in ASKED]
        return [*cells, *("-" if value is None else percent(value) for value in values)]

    rows = [row("chance", "", of=next(iter(results["models"].values()))["chance"])]
    for name, found in results["models"].items():
        rows += [row(name, str(layer), of=found, layer=layer) for layer in found["layers"]]
    return ["model", "layer", *titles(results).values()], rows


def render_layers(results: Mapping[str, Any]) -> str:
    """For the terminal; several lines without a trailing line end."""
    seen = [f"  validation clips that {name} has seen: {found['unlabelled_validation_seen']}"
            for name, found in results["models"].items()]  # fmt: skip
    return "\n".join([text_table(layers_table(results)), f"  {_about(results)}", *seen])


def draw_layers(results: Mapping[str, Any]) -> str:
    """A panel of each thing that is asked, a line a model, over layers; dotted: chance."""
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(9.2, 3.2), layout="constrained")
        panels = drawn.subplots(1, len(ASKED))
        for axes, (asked, title) in zip(panels, titles(results).items(), strict=True):
            for i, (name, found) in enumerate(results["models"].items()):
                if found[asked] is not None:
                    values = [100 * value for value in found[asked]]
                    axes.plot(found["layers"], values, color=PALETTE[i % len(PALETTE)], marker="o", markersize=3.5,
                              linewidth=1.2, label=name)  # fmt: skip
                    axes.axhline(100 * found["chance"][asked], color=MUTED, linewidth=0.7, linestyle=":")
            axes.set_title(title)
            axes.set_xlabel("layer")
            axes.set_ylim(0, 100)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(axis="y", color=FAINT, linewidth=0.6)
        panels[0].set_ylabel("%")
        lines = panels[0].get_legend_handles_labels()
        drawn.legend(*lines, loc="outside lower center", ncols=max(1, len(lines[0])), frameon=False)
        return svg(drawn)


def draw_attention(weights: Mapping[str, Sequence[float]], audio_N: np.ndarray, video_THW: np.ndarray) -> str:
    """Of one clip its frames and its waveform, either of which may be empty, and under them the weights of its frames.

    weights: by model [T]; even: 1 / T each, the dotted line. audio_N: int16 at 16 kHz. video_THW: uint8 at 25 Hz.
    """
    T = len(next(iter(weights.values())))
    heights = [*[0.4] * (len(video_THW) > 0), *[0.8] * (len(audio_N) > 0), *[0.8] * len(weights)]
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(9.2, 0.5 + 1.1 * sum(heights)), layout="constrained")
        panels = list(drawn.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False).ravel())
        rows = iter(panels)
        if len(video_THW):
            draw_frames(next(rows), video_THW, T / FRAME_RATE_HZ)
        if len(audio_N):
            axes = next(rows)
            axes.plot(np.arange(len(audio_N)) / SAMPLE_RATE_HZ, audio_N, color=MUTED, linewidth=0.4)
            axes.set_ylabel("sound", rotation=0, ha="right", va="center")
        for i, (name, of_frames) in enumerate(weights.items()):
            axes, colour = next(rows), PALETTE[i % len(PALETTE)]
            share = T * np.array(of_frames)
            axes.stairs(share, np.arange(T + 1) / FRAME_RATE_HZ, fill=True, color=colour, alpha=0.8)
            axes.axhline(1, color=INK, linewidth=0.7, linestyle=":")
            axes.set_ylim(0, max(2.0, 1.05 * float(share.max())))
            axes.set_ylabel(name, rotation=0, ha="right", va="center")
        for axes in panels:
            axes.set_xlim(0, T / FRAME_RATE_HZ)
        for axes in panels[: len(heights) - len(weights)]:
            axes.set_yticks([])
        panels[-1].set_xlabel("seconds")
        return svg(drawn)


def write_layers_page(path: Path, title: str, results: Mapping[str, Any], clip: Clip | None) -> None:
    """Writes the page, whole or not at all. clip: the one whose attention is drawn."""
    weights = {name: found["attention"] for name, found in results["models"].items() if found["attention"]}
    attention = ""
    if clip is not None and weights:
        attention = figure(draw_attention(weights, clip.audio, clip.mouth), f"attention over {clip.clip_id}")
    write_page(
        path, title, _about(results),
        section("What each layer knows", "Linear probes of frozen encoders. Layer 0 is what the first layer takes; "
                "dotted: chance.", figure(draw_layers(results), "what each layer knows")),
        section("Attention", f"Over clip {results['clip']}: how much of each frame goes into the frames of the output, "
                "their mean, times the number of frames (dotted: all alike). Rollout over all layers, mean of heads; "
                "half of the stream passes each layer by.", attention),
        section("Figures", "", html_table(layers_table(results))),
    )  # fmt: skip


def _about(results: Mapping[str, Any]) -> str:
    return (
        f"{results['protocol']}, fold {results['fold']}: {results['task']} and units asked of validation clips, "
        "speakers of a fifth of the training clips; no test clip is read"
    )
