"""The page in a browser: a real clip is answered, a text file is refused, the page stays up, nothing is left."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
    command = [sys.executable, "-m", "mmpretrain", "serve", str(encoder_folder), f"--port={port}", "--max_sec=20"]
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


@pytest.mark.slow
def test_a_clip_is_dropped_and_answered_and_what_is_none_is_refused(address, real, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
    if (browser := shutil.which("chromium")) is None:
        pytest.skip("no chromium")
    (tmp_path / "text.mp4").write_text("this is no video\n" * 99)
    elsewhere = []
    with playwright.sync_playwright() as started:
        page = started.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page()
        ours = (address, "data:", "blob:")
        page.on("request", lambda asked: None if asked.url.startswith(ours) else elsewhere.append(asked.url))
        page.goto(address)

        def drop(file: Path) -> None:
            page.wait_for_selector("#video input[type=file]", state="attached", timeout=60_000)
            page.locator("#video input[type=file]").first.set_input_files(file)
            page.wait_for_selector("#video video", state="attached", timeout=60_000)
            page.click("#go")

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
    assert not elsewhere
