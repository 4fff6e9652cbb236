"""Intervals of the metrics of every kind of label, by resampling speakers."""

import numpy as np
import pytest

from mmpretrain.config import TaskConfig
from mmpretrain.evaluation.comparison import Answers, intervals
from mmpretrain.evaluation.task_intervals import task_intervals

CLIPS, PEOPLE = 240, 12
CLIP_IDS = [f"c{i}" for i in range(CLIPS)]
SPEAKERS = [f"s{i % PEOPLE}" for i in range(CLIPS)]


def test_those_of_classes_are_those_of_answers():
    random, classes = np.random.default_rng(0), ("a", "b", "c")
    labels = random.integers(0, 3, CLIPS)
    logits = random.normal(size=(CLIPS, 3)) + 1.5 * np.eye(3)[labels]
    found = task_intervals(labels, logits, TaskConfig("mood", classes=classes), CLIP_IDS, SPEAKERS)
    answers = Answers(classes, tuple(CLIP_IDS), tuple(SPEAKERS), labels, logits.argmax(-1))
    for metric in ("ua", "wf1"):
        expected = intervals(answers)[metric]
        assert found[metric] == pytest.approx(expected, abs=0.1 * (expected["high"] - expected["low"]))


def test_an_interval_of_numbers_knows_that_clips_of_a_speaker_are_alike():
    random = np.random.default_rng(1)
    labels = random.uniform(-1, 1, CLIPS)
    off = random.normal(size=PEOPLE)[np.arange(CLIPS) % PEOPLE]  # each person is misread in a way of their own
    task = TaskConfig("arousal", kind="value", range=(-1.0, 1.0))
    by_speaker = task_intervals(labels, (labels + off)[:, None], task, CLIP_IDS, SPEAKERS)
    by_clip = task_intervals(labels, (labels + off)[:, None], task, CLIP_IDS, [""] * CLIPS)
    for metric in ("ccc", "mae"):
        speaker, clip = (found[metric]["high"] - found[metric]["low"] for found in (by_speaker, by_clip))
        assert speaker > 2 * clip
    assert by_speaker["mae"]["high"] <= 2
    assert task_intervals(labels[:1], labels[:1, None], task, CLIP_IDS[:1], SPEAKERS[:1]) == {}
