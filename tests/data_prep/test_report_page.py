"""The report of a prepared corpus: what is measured of a clip, and the page with its pictures."""

import base64
import re

import cv2
import numpy as np
import pytest

from data_prep.accounting import ReportRow
from data_prep.measures import clipped, jitter_pct, loudness_dbfs, measures_of_crops
from data_prep.report_page import _refused, _worst
from tests.data_prep.authored import tone, write_mp4, write_wav
from tests.data_prep.test_faces import face_at
from tests.data_prep.test_given_landmarks import mesh
from tests.data_prep.test_preparation import prepare_folder, report_of


def test_measures_say_what_they_should():
    still = np.stack([face_at(100, 100, 1.0)] * 20)
    moving = still + np.arange(20)[:, None, None]
    assert jitter_pct(still) == jitter_pct(moving) == 0
    # Back and forth by 1 % of the eye distance of 110: the second difference is four times as large.
    shaking = still + np.where(np.arange(20) % 2, 0.55, -0.55)[:, None, None] * (1.0, 0.0)
    assert jitter_pct(shaking) == pytest.approx(2.0, rel=0.01)
    assert loudness_dbfs(np.full(100, 3277, np.int16)) == pytest.approx(-20.0, abs=0.1)
    assert loudness_dbfs(np.zeros(0, np.int16)) == loudness_dbfs(np.zeros(9, np.int16)) == -120
    assert clipped(np.array([32767, -32768, -32767, 32766, 0], np.int16)) == 3
    sharp = np.random.default_rng(0).integers(1, 255, (30, 48, 48)).astype(np.uint8)
    blurred = np.stack([cv2.GaussianBlur(picture, (0, 0), 2) for picture in sharp])
    half_black = blurred.copy()
    half_black[:, :24] = 0
    assert measures_of_crops(sharp, sharp)["sharpness"] > 10 * measures_of_crops(blurred, blurred)["sharpness"] > 0
    assert measures_of_crops(sharp, half_black)["black_share"] == 0.5
    assert measures_of_crops(sharp[:0], sharp[:0]) == {}


def test_the_worst_are_named_once_and_every_reason_is_shown_first():
    fine = {"has_video": 1, "has_audio": 1, "face_rate": 1.0, "eye_distance_px": 80.0, "sharpness": 9.0, "width": 64}
    kept = [ReportRow(f"good{k}", "", **fine) for k in range(5)]
    kept += [ReportRow("bad", "", **{**fine, "face_rate": 0.6, "clipped": 12, "lag_ms": -200, "confidence": 0.5})]
    worst = {row.clip_id: why for row, why in _worst(kept)}
    for said in ("face: 0.6", "full scale: 12", "mouth, ms: -200"):
        assert said in worst["bad"]
    assert not any("samples at" in why or "jitter" in why for name, why in worst.items() if name != "bad")
    lost = [ReportRow(f"r{k}", "", status="refused", reason="silent" if k < 20 else "broken") for k in range(21)]
    assert {why for _, why in _refused([*kept, *lost])} == {"silent", "broken"}


def test_the_page_shows_faces_with_their_landmarks(tmp_path):
    source, known, output = tmp_path / "in", tmp_path / "known", tmp_path / "out"
    write_mp4(source / "seen.mp4", 20)
    write_mp4(source / "nobody.mp4", 20)
    write_wav(source / "<heard>.wav", tone(1.0))
    known.mkdir()
    np.savez(known / "seen.npz", points=np.stack([mesh(68, 26, 17, 0.15)] * 20))
    np.savez(known / "nobody.npz", points=np.full((20, 68, 2), np.nan))
    assert prepare_folder(source, output, "--landmarks", known, "--validation-share", 0) == 0
    row = report_of(output)["seen"]
    assert (row["frames_with_face"], row["jitter_pct"], row["eye_distance_px"]) == ("20", "0.0", "16.5")
    assert float(row["sharpness"]) > 1
    page = (output / "report.html").read_text()
    shown = re.findall(r'base64,([^"]+)"><figcaption><b>(.*?)</b>(.*?)</figcaption>', page)
    assert {name for _, name, _ in shown} == {"seen", "nobody"}
    assert "no face found" in next(said for _, name, said in shown if name == "nobody")
    assert "&lt;heard&gt;" in page
    assert "<heard>" not in page
    jpeg = next(base64.b64decode(data) for data, name, _ in shown if name == "seen")
    picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB).astype(int)
    red = (picture[..., 0] > 180) & (picture[..., 1] < 120) & (picture[..., 2] < 120)
    assert red.sum() > 100
