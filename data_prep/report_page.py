"""The page of a prepared corpus, `report.html`: what was kept, how good it is, and pictures of random clips, of the
worst by each measure, and of what was refused. One file that needs nothing beside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_prep.accounting import ReportRow, span_of, summarize
from data_prep.contact_sheets import Sheet, draw_sheet
from data_prep.inspection import Inspection
from data_prep.options import Options
from data_prep.sources import SourceClip
from data_prep.synthesis.draws import stream
from data_prep.workers import Failed, ordered_map
from mmpretrain.files import write_text

NUM_RANDOM, NUM_WORST, NUM_REFUSED = 9, 2, 9
CLEAR_LAG = 0.2  # confidence from which a lag is worth looking at

# Measure: (what it says, what of a row makes it bad: the larger the worse, None if it says nothing of this row).
MEASURES: dict[str, tuple[str, Callable[[ReportRow], float | None]]] = {
    "face_rate": ("share of the frames with the face", lambda row: -row.face_rate if row.has_video else None),
    "eye_distance_px": ("eye distance, pixels", lambda row: -row.eye_distance_px if row.has_video else None),
    "jitter_pct": ("jitter, % of the eye distance", lambda row: row.jitter_pct if row.has_video else None),
    "sharpness": ("sharpness of the mouth, grey levels", lambda row: -row.sharpness if row.has_video else None),
    "black_share": ("black share of the face crop", lambda row: row.black_share if row.has_video else None),
    "hands_rate": ("share of the frames with a hand", lambda row: -row.hands_rate if row.hands_rate else None),
    "lag_ms": (
        "sound behind the mouth, ms",
        lambda row: abs(row.lag_ms) if row.has_video and row.confidence > CLEAR_LAG else None,
    ),
    "loudness_dbfs": ("loudness, dB of full scale", lambda row: -row.loudness_dbfs if row.has_audio else None),
    "clipped": ("samples at full scale", lambda row: row.clipped if row.has_audio else None),
}  # fmt: skip
NEVER_BAD = {
    "face_rate": -1.0,
    "jitter_pct": 0.0,
    "black_share": 0.0,
    "lag_ms": 80.0,
    "clipped": 0.0,
}  # up to this nothing is amiss

STYLE = """
body { margin: 0; background: #f4f6f8; color: #22303c; font: 15px/1.5 system-ui, Arial, "DejaVu Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 30px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 12px; } h2 { font-size: 18px; margin: 0 0 10px; }
section { margin-top: 18px; padding: 20px 24px; background: #fff; border: 1px solid #e3e8ec; border-radius: 8px; }
pre { margin: 0; font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre-wrap; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 18px 5px 0; text-align: right; border-bottom: 1px solid #e8edf0; }
th:first-child, td:first-child { text-align: left; } th { color: #5a6975; font-weight: 500; }
.wide { overflow-x: auto; }
@media (max-width: 600px) { main { padding: 16px 10px; } section { padding: 14px; } }
.clips { display: flex; flex-wrap: wrap; gap: 18px; } figure { margin: 0; max-width: 580px; }
figure img { display: block; max-width: 100%; } figcaption { font-size: 13px; color: #5a6975;  }
figcaption b { color: #22303c; overflow-wrap: anywhere; }
"""


def write_page(
    path: Path,
    name: str,
    rows: Sequence[ReportRow],
    clips: Mapping[str, SourceClip],
    found: Mapping[str, Inspection],
    options: Options,
    num_workers: int,
    patience: Callable[[SourceClip], float],
) -> None:
    """clips, found: by clip id, of those rows that were looked at; the others are in the tables only."""
    kept = [row for row in rows if row.status == "kept"]
    groups = {
        "Worst by each measure": _worst(kept),
        "Random clips": [(row, "") for row in _random([row for row in kept if row.has_video], NUM_RANDOM)],
        "Refused, and kept without their picture": _refused(rows),
    }
    shown = list(dict.fromkeys(row.clip_id for group in groups.values() for row, _ in group))
    sheets = _draw(shown, clips, found, options, num_workers, patience)
    parts = [
        f"<section><pre>{html.escape(summarize(rows))}</pre></section>",
        _section("Measures of what is kept", _table(kept)),
    ]
    for title, group in groups.items():
        figures = "".join(_figure(row, why, sheets.get(row.clip_id, "")) for row, why in group)
        parts.append(_section(title, f'<div class="clips">{figures}</div>' if figures else ""))
    heading = html.escape(f"Prepared corpus {name}")
    write_text(
        path,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{heading}</title><style>{STYLE}</style>"
        f"</head><body><main><h1>{heading}</h1>{''.join(parts)}</main></body></html>\n",
    )


def _draw(shown, clips, found, options: Options, num_workers: int, patience) -> dict[str, bytes | str]:
    todo = [
        Sheet(clips[clip_id], found[clip_id].cache_file, span_of(found[clip_id], options))
        for clip_id in shown
        if clip_id in clips and clip_id in found and found[clip_id].picture.num_frames
    ]
    if not todo:
        return {}
    drawn = ordered_map(draw_sheet, todo, num_workers, lambda sheet: patience(sheet.clip))
    return {sheet.clip.clip_id: made.reason if isinstance(made, Failed) else made for sheet, made in drawn}


def _worst(kept: Sequence[ReportRow]) -> list[tuple[ReportRow, str]]:
    said: dict[str, list[str]] = {}
    by_id = {row.clip_id: row for row in kept}
    for name, (title, badness) in MEASURES.items():
        bad = [(value, row.clip_id) for row in kept if (value := badness(row)) is not None]
        bad = [pair for pair in bad if pair[0] > NEVER_BAD.get(name, -np.inf)]
        for _, clip_id in sorted(bad, key=lambda pair: -pair[0])[:NUM_WORST]:
            said.setdefault(clip_id, []).append(f"{title}: {getattr(by_id[clip_id], name):g}")
    return [(by_id[clip_id], "; ".join(reasons)) for clip_id, reasons in said.items()]


def _refused(rows: Sequence[ReportRow]) -> list[tuple[ReportRow, str]]:
    """One for every reason first, then more of them."""
    lost = [
        row for row in rows if row.status == "refused" or (row.status == "kept" and row.width and not row.has_video)
    ]
    reasons: dict[str, list[ReportRow]] = {}
    for row in lost:
        reasons.setdefault(row.reason or row.notes, []).append(row)
    ordered = sorted(((k, row) for group in reasons.values() for k, row in enumerate(group)), key=lambda pair: pair[0])
    return [(row, row.reason or row.notes) for _, row in ordered[:NUM_REFUSED]]


def _random(rows: Sequence[ReportRow], count: int) -> list[ReportRow]:
    """Always the same ones of the same rows."""
    order = stream("contact sheet").permutation(len(rows))
    return [rows[k] for k in sorted(order[:count])]


def _table(kept: Sequence[ReportRow]) -> str:
    lines = []
    for name, (title, badness) in MEASURES.items():
        values = [getattr(row, name) for row in kept if badness(row) is not None]
        if values:
            cells = "".join(f"<td>{value:.4g}</td>" for value in np.percentile(values, (0, 5, 50, 95, 100)))
            lines.append(f"<tr><td>{title}</td><td>{len(values)}</td>{cells}</tr>")
    head = "".join(f"<th>{text}</th>" for text in ("", "clips", "least", "5 %", "median", "95 %", "most"))
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>' if lines else ""


def _figure(row: ReportRow, why: str, picture: bytes | str) -> str:
    image = ""
    if isinstance(picture, bytes):
        image = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">'
        picture = ""
    said = [why, row.notes if row.notes != why else ""]
    if row.confidence:
        said.append(f"sound {row.lag_ms:+d} ms (confidence {row.confidence:.2f})")
    text = html.escape("; ".join(filter(None, [*said, picture])))
    return f"<figure>{image}<figcaption><b>{html.escape(row.clip_id)}</b> {text}</figcaption></figure>"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{content}</section>" if content else ""
