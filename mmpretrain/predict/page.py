"""The page of `mmpretrain serve`, made with Gradio: a recording goes in, marks and what a head says come out.

It loads nothing from elsewhere and tells nobody anything. Recordings are taken one at a time, others wait; what was
uploaded and made is deleted after a while, and all of it when the server ends.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpretrain.observe.progress import log
from mmpretrain.predict.answer import Answers
from mmpretrain.report.blocks import data_address

if TYPE_CHECKING:
    import gradio

KEPT_SEC, CLEAN_EVERY_SEC = 900, 60
MAX_WAITING = 16
TEXT = """# What people in a recording show over time

Drop a video or a sound, or use the camera. {limits} The task: **{task}** ({tells}), by {encoder}.

What a model says that learned from acted or labelled clips. It does not measure what anybody feels; not for
decisions about people. Nothing leaves this machine; recordings are deleted within {minutes:.0f} minutes.
"""


def make_page(answers: Answers, about: dict[str, str]) -> gradio.Blocks:
    """about: `task`, `tells` and `encoder`, in words. Needs the extra `serve`."""
    import gradio as gr

    limits = f"At most {answers.limits.max_sec:.0f} s and {answers.limits.max_mb} MB; no pictures or documents."
    with gr.Blocks(
        title="mmpretrain", analytics_enabled=False, delete_cache=(CLEAN_EVERY_SEC, KEPT_SEC), fill_width=True
    ) as page:
        gr.Markdown(TEXT.format(limits=limits, minutes=KEPT_SEC / 60, **about))
        with gr.Row():
            with gr.Column(scale=2):
                video = gr.Video(sources=["upload", "webcam"], label="video", elem_id="video", height=300)
                sound = gr.Audio(sources=["upload", "microphone"], type="filepath", label="or sound", elem_id="sound")
                go = gr.Button("Look and listen", variant="primary", elem_id="go")
            with gr.Column(scale=3):
                marked = gr.Video(
                    label="faces, and what is said over time", interactive=False, elem_id="marked", height=520
                )
                said = gr.Markdown(elem_id="said")
        plot = gr.Plot(show_label=False, elem_id="plot")
        crops = gr.HTML(elem_id="crops")
        files = gr.File(label="JSON and CSV", file_count="multiple", elem_id="files")

        def answer(video_path: str | None, sound_path: str | None) -> tuple[Any, ...]:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    found = answers.of(given_one(video_path, sound_path, limits), Path(folder))
                except (ValueError, OSError) as error:
                    return None, f"No answer: {error}", None, "", None
                files_made = [_kept(file) for file in found.files]
                video_made = _kept(found.video) if found.video else None
            return video_made, found.summary, found.figure, crops_shown(found.crops), files_made

        go.click(
            answer, [video, sound], [marked, said, plot, crops, files], api_visibility="private", concurrency_limit=1
        )
    page.queue(max_size=MAX_WAITING, api_open=False)
    return page


def given_one(video: str | None, sound: str | None, limits: str) -> Path:
    """The recording of a question. Raises ValueError where none is given, or both are: one of them would go unheard."""
    if video and sound:
        raise ValueError("a video and a sound were given: take one of them away, and ask again")
    if not (path := video or sound):
        raise ValueError(f"nothing was taken yet: give a video or a sound. {limits}")
    return Path(path)


def crops_shown(crops: Sequence[tuple[np.ndarray, str]]) -> str:
    """HTML: of each person, as `Answer` has them, a row of pictures and the name."""
    rows = "".join(
        f'<figure style="margin: 0 0 12px"><img alt="{name}" src="{data_address(row)}" style="max-width: 100%">'
        f"<figcaption>{name}</figcaption></figure>"
        for row, name in crops
    )
    return f"<p>What the encoder sees:</p>{rows}" if rows else ""


def _kept(file: Path) -> str:
    """A copy among Gradio's own files, which it serves and deletes."""
    folder = tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"])
    target = Path(folder) / file.name
    file.replace(target)
    return str(target)


def serve_page(answers: Answers, about: dict[str, str], host: str, port: int) -> None:
    """Until Ctrl-C or SIGTERM. Raises OSError where the port is taken."""
    with tempfile.TemporaryDirectory(prefix="mmpretrain-page-") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}  # read when it is imported
        page = make_page(answers, about)
        _, address, _ = page.launch(
            server_name=host, server_port=port, max_file_size=f"{answers.limits.max_mb}mb", share=False, quiet=True,
            ssr_mode=False, footer_links=[], enable_monitoring=False, prevent_thread_lock=True, inbrowser=False,
        )  # fmt: skip
        log(f"the page is at {address}; Ctrl-C ends it, and deletes what was uploaded")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # which lets what is below delete the files
        try:
            page.block_thread()
        finally:
            page.close()
