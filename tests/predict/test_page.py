"""The page in a browser: a real clip is answered, and one from the camera, a text file and one that is too large are
refused, the page stays up, nothing is left."""

import fractions
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest

from mmpretrain.predict.page import given_one
from tests.predict.conftest import LANDMARKER

ROOT = Path(__file__).parents[2]


@pytest.fixture
def address(encoder_folder, tmp_path):
    """Of a server, whose files are in tmp_path / "files"."""
    pytest.importorskip("gradio", reason="extra `serve` is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "files").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "files"), "MMPRETRAIN_LANDMARKER": str(LANDMARKER)}
    command = [
        sys.executable,
        "-m",
        "mmpretrain",
        "serve",
        str(encoder_folder),
        f"--port={port}",
        "--max_sec=20",
        "--max_mb=5",
    ]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT)
    try:
        deadline = time.monotonic() + 120
        while "the page is at" not in (tmp_path / "log").read_text():
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
        assert "Traceback" not in (tmp_path / "log").read_text()
        assert not list((tmp_path / "files").glob("mmpretrain-page-*"))
    finally:
        server.kill()


def camera_of(clip: Path, target: Path) -> Path:
    """What Chromium shows as a camera: the pictures of the clip."""
    with av.open(str(clip)) as source, av.open(str(target), "w", format="mjpeg") as written:
        shown = source.streams.video[0]
        stream = written.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = shown.width, shown.height, "yuvj420p"
        for number, frame in enumerate(source.decode(shown)):
            again = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), "rgb24")
            again.pts, again.time_base = number, fractions.Fraction(1, 25)
            written.mux(stream.encode(again))
        written.mux(stream.encode(None))
    return target


def test_two_recordings_at_once_are_refused_and_none_is_asked_for():
    assert given_one("a.mp4", None, "") == Path("a.mp4")
    assert given_one(None, "a.wav", "") == Path("a.wav")
    with pytest.raises(ValueError, match="a video and a sound were given: take one of them away"):
        given_one("a.mp4", "a.wav", "")
    with pytest.raises(ValueError, match=r"give a video or a sound[.] At most 20 s"):
        given_one(None, None, "At most 20 s")


@pytest.mark.slow
def test_a_clip_is_dropped_and_answered_and_what_is_none_is_refused(address, real, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
    if (browser := shutil.which("chromium")) is None:
        pytest.skip("no chromium")
    (tmp_path / "text.mp4").write_text("this is no video\n" * 99)
    (tmp_path / "large.mp4").write_bytes(bytes(6_000_000))
    camera = camera_of(real / "grid" / "other" / "brbk7n.mpg", tmp_path / "camera.mjpeg")
    flags = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
             f"--use-file-for-fake-video-capture={camera}"]  # fmt: skip
    elsewhere = []
    with playwright.sync_playwright() as started:
        context = started.chromium.launch(executable_path=browser, args=flags).new_context()
        context.grant_permissions(["camera", "microphone"])
        page = context.new_page()
        ours = (address, "data:", "blob:")
        page.on("request", lambda asked: None if asked.url.startswith(ours) else elsewhere.append(asked.url))
        page.goto(address)

        def drop(file: Path) -> None:
            page.wait_for_selector("#video input[type=file]", state="attached", timeout=60_000)
            page.locator("#video input[type=file]").first.set_input_files(file)
            page.wait_for_selector("#video video", state="attached", timeout=60_000)
            page.click("#go")

        page.wait_for_selector("#video input[type=file]", state="attached", timeout=60_000)
        page.locator("#video input[type=file]").first.set_input_files(tmp_path / "large.mp4")
        page.click("#go")
        page.wait_for_selector("text=No answer: nothing was taken yet: give a video or a sound. At most 20 s and 5 MB")
        drop(tmp_path / "text.mp4")
        page.wait_for_selector("text=No answer: cannot be opened", timeout=60_000)
        page.reload()
        drop(real / "edge" / "two_people_12fps_24khz.mp4")
        page.wait_for_selector("#marked video", timeout=120_000)
        said = page.inner_text("#said")
        assert "person 1: " in said
        assert "person 2: " in said
        assert page.locator("#crops img").count() >= 2
        assert page.locator("#plot img").count() == 1
        page.reload()
        page.click("#video button[aria-label='Capture from camera']")
        page.click("text=Click to Access Webcam")
        page.click("#video button[aria-label='start recording']")
        page.wait_for_timeout(3000)
        page.click("#video button[aria-label='stop recording'], #video button[aria-label='start recording']")
        page.wait_for_selector("#video video[src]", timeout=60_000)
        page.click("#go")
        page.wait_for_selector("#marked video", timeout=120_000)
        assert "person 1: " in page.inner_text("#said")
    assert not elsewhere
