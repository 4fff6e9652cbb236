"""`mmpretrain serve DIR`: a page on this machine for trying a fine-tuned encoder on one's own recordings."""

from __future__ import annotations

import importlib.util

from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.predict.judge import Judge
from mmpretrain.run.base import cache_compilations
from mmpretrain.run.command import Argument, Command, Given, Option

HOST, PORT, MAX_SEC, MAX_MB = "127.0.0.1", 7860, 300, 200


def _command(given: Given) -> None:
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("serve needs gradio, which is not installed; `pip install 'mmpretrain-jax[serve]'`")
    from data_prep.landmarker import landmarker_model
    from mmpretrain.predict.answer import Answers, Limits
    from mmpretrain.predict.page import serve_page

    encoder = load_encoder(given.path)
    judge = Judge(encoder, given["task"] or "")
    cache_compilations()
    model = landmarker_model(given["landmarker"]) if "video" in judge.modalities else None
    reading = judge.reading
    limits = Limits(given["max_sec"] or MAX_SEC, given["max_mb"] or MAX_MB)
    about = {
        "task": judge.task.name,
        "tells": f"{reading.low:g} to {reading.high:g}" if reading.is_number else ", ".join(reading.names),
        "encoder": f"an encoder of {' and '.join(judge.modalities)}, "
        f"{encoder.lineage.get('fingerprint', 'of unknown lineage')}",
    }  # fmt: skip
    answers = Answers(judge, encoder.crop_size, model, limits)
    serve_page(answers, about, given["host"] or HOST, given["port"] or PORT)


COMMAND = Command(
    "serve",
    "a page for trying a fine-tuned encoder on recordings or the camera",
    _command,
    takes=Argument("DIR", "the folder of a fine-tuned encoder, with its head"),
    options=(
        Option("host", str, f"where it listens; default: {HOST}, this machine alone", "ADDRESS"),
        Option("port", int, f"default: {PORT}", "N", lower=1),
        Option("max_sec", int, f"the longest recording that is taken; default: {MAX_SEC}", "SEC", lower=1),
        Option("max_mb", int, f"the largest file that is taken; default: {MAX_MB}", "MB", lower=1),
        Option("task", str, "of an encoder with several heads, the one that is asked; default: the first", "NAME"),
        Option("landmarker", str, "MediaPipe's face_landmarker.task; default: as data_prep finds it", "PATH"),
    ),
    examples=("mmpretrain serve runs/demo/finetune/pretrained/fold1/encoder",),
    details=(
        "It needs no network. Recordings are taken one at a time, up to 16 wait; they are deleted within a quarter of "
        "an hour, and when the server ends. With --host=0.0.0.0 whoever reaches this machine can use it: there are no "
        "passwords.",
    ),
)
