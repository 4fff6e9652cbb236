"""What the page shows of a recording, without the page."""

import json

import numpy as np
import pytest
import soundfile

import mmpretrain
from mmpretrain.predict.answer import Answers, Limits, figure
from mmpretrain.predict.judge import Judge
from mmpretrain.predict.reading import Reading
from mmpretrain.predict.results import Moments, Person, Prediction
from tests.predict.conftest import CROP_SIZE, LANDMARKER


@pytest.fixture(scope="module")
def answers(encoder_folder):
    judge = Judge(mmpretrain.load_encoder(encoder_folder))
    model = LANDMARKER if LANDMARKER.is_file() else None
    return Answers(judge, CROP_SIZE, model, Limits(max_sec=10, max_mb=1))


def test_a_recording_is_answered_with_all_that_the_page_shows(answers, real, tmp_path):
    found = answers.of(real / "grid" / "other" / "brbk7n.mpg", tmp_path)
    assert found.video.stat().st_size > 10_000
    assert found.summary.startswith("- **person 1**: ")
    assert "sound alone: " in found.summary
    assert "picture alone: " in found.summary
    ((crops, name),) = found.crops
    assert (crops.shape, name) == ((96, 8 * 96, 3), "person 1")
    over_time, bars = found.figure.axes
    assert over_time.get_ylabel() == "person 1"
    assert [label.get_text() for label in bars.get_yticklabels()] == ["all", "sound alone", "picture alone"]
    written = json.loads((tmp_path / "over_time.json").read_text())
    assert written["file"] == "brbk7n.mpg"  # not where it lay


def test_nothing_is_drawn_where_nothing_is_known():
    start = np.array([10.0, 10.5, 0.0, 0.5])  # as of somebody who comes back, whose tracks need not be in order
    values = np.array([[0.2, 0.8], [0.2, 0.8], [0.9, 0.1], [0.9, 0.1]], np.float32)
    moments = Moments(start, start + 1, values, ("audio",) * 4, np.full((4, 4), np.nan))
    drawn = figure(Prediction("a.wav", 12.0, people=(Person("voice", moments),)), Reading("t", "class", ("a", "b")))
    first, _ = drawn.axes[0].collections
    stretches = [path.vertices for path in first.get_paths()]
    assert [(v[:, 0].min(), v[:, 0].max()) for v in stretches] == [(0, 1.5), (10, 11.5)]
    np.testing.assert_allclose([v[:, 1].max() for v in stretches], [0.9, 0.2])


def test_a_sound_is_answered_and_what_is_too_much_or_nothing_is_refused(answers, tmp_path):
    for name, seconds in (("voice", 2), ("long", 11), ("large", 40)):
        sound = np.random.default_rng(0).normal(0, 0.1, 16_000 * seconds)
        soundfile.write(tmp_path / f"{name}.wav", sound, 16_000)
    found = answers.of(tmp_path / "voice.wav", tmp_path)
    assert (found.video, found.crops) == (None, [])
    assert "**voice**: " in found.summary
    with pytest.raises(ValueError, match=r"it is 11 s long; at most 10 s can be taken: cut it, or use `mmpretrain"):
        answers.of(tmp_path / "long.wav", tmp_path)
    with pytest.raises(ValueError, match="the file has 1 MB; at most 1 can be taken"):
        answers.of(tmp_path / "large.wav", tmp_path)
    (tmp_path / "text.mp4").write_text("this is no video\n" * 99)
    with pytest.raises(ValueError, match="cannot be opened"):
        answers.of(tmp_path / "text.mp4", tmp_path)
