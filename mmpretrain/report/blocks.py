"""The blocks that the page of a run is put together from, as HTML texts."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmpretrain.files import write_text
from mmpretrain.report import charts
from mmpretrain.report.comparisons import Table
from mmpretrain.report.style import PAGE_STYLE

# Charts of curves: a title, and per line its name and what is drawn in its colour, see `charts.draw_curves`.
Panels = Sequence[tuple[str, Mapping[str, Sequence[tuple[charts.Series, str]]]]]


def section(title: str, explanation: str, *blocks: str) -> str:
    """A section of the page, or nothing where there are no blocks."""
    content = "".join(blocks)
    if not content:
        return ""
    paragraph = f"<p>{html.escape(explanation)}</p>" if explanation else ""
    return f"<section><h2>{html.escape(title)}</h2>{paragraph}{content}</section>"


def write_page(path: Path, title: str, line: str, *sections: str) -> None:
    """A page that needs nothing beside it, whole or not at all. line: under the title. sections: "" for none."""
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{PAGE_STYLE}</style>\n</head>\n<body>\n<main>\n"
    )
    header = f"<header><h1>{html.escape(title)}</h1><p>{html.escape(line)}</p></header>"
    write_text(path, head + "\n".join(filter(None, (header, *sections))) + "\n</main>\n</body>\n</html>\n")


def html_table(table: Table, bold_last: bool = False) -> str:
    """`bold_last`: the last row is ours."""
    columns, rows = table
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in columns)
    body = ""
    for number, row in enumerate(rows, start=1):
        mark = ' class="ours"' if bold_last and number == len(rows) else ""
        body += f"<tr{mark}>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>"
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str) -> str:
    return html.escape(text).replace("+-", "&plusmn;")


def figure(svg: str, description: str) -> str:
    """A drawing of `charts`."""
    # As an image, so that the names inside one figure cannot clash with those of another.
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/svg+xml;base64,{data}">'


def curves(panels: Panels, description: str) -> str:
    """Several charts side by side."""
    figures = (figure(charts.draw_curves(title, lines), f"{title} {description}") for title, lines in panels)
    return f'<div class="pair">{"".join(figures)}</div>'


def strip(frames: np.ndarray) -> str:
    """Grey pictures uint8 [n, S, S] side by side with a thin white gap, as a PNG in a data URI."""
    frames = np.pad(frames, ((0, 0), (0, 0), (0, 2)), constant_values=255)
    return data_address(np.concatenate(list(frames), axis=1)[:, :-2])


def data_address(picture: np.ndarray) -> str:
    """A picture uint8 [H, W], grey, or [H, W, 3], RGB, as a PNG in a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
