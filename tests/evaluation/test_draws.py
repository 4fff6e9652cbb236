"""Figures over draws: between a draw alone and what draws and speakers do together, the interval keeps its promise."""

import numpy as np
import pytest

from mmpretrain.evaluation.comparison import Answers, intervals
from mmpretrain.evaluation.draws import differences_over_draws, figures_over_draws

SPEAKERS, CLIPS, CLASSES = 12, 24, ("a", "b", "c")


def said(random, of_speaker, of_draw) -> Answers:
    """Right with a probability that is the speaker's, moved by the draw."""
    speaker_N = np.repeat(np.arange(SPEAKERS), CLIPS)
    labels_N = np.tile(np.arange(3), SPEAKERS * CLIPS // 3)
    right_N = random.random(len(labels_N)) < np.clip(of_speaker[speaker_N] + of_draw, 0, 1)
    predictions_N = np.where(right_N, labels_N, (labels_N + random.integers(1, 3, len(labels_N))) % 3)
    ids = tuple(f"c{i}" for i in range(len(labels_N)))
    return Answers(CLASSES, ids, tuple(f"s{s}" for s in speaker_N), labels_N, predictions_N)


def drawn(random, *, speakers: float, draws: float, count: int = 3, mean: float = 0.6) -> list[Answers]:
    of_speaker = mean + speakers * random.standard_normal(SPEAKERS)
    return [said(random, of_speaker, draws * random.standard_normal()) for _ in range(count)]


def test_one_draw_has_the_interval_of_the_speakers():
    (only,) = drawn(np.random.default_rng(0), speakers=0.1, draws=0.0, count=1)
    found, known = figures_over_draws([only]), intervals(only)
    for metric in ("ua", "wa", "wf1", "macro_f1"):
        assert found[metric]["mean"] == pytest.approx(getattr(only.result, metric))
        assert found[metric]["low"] == pytest.approx(known[metric]["low"])
        assert found[metric]["high"] == pytest.approx(known[metric]["high"])
    again = figures_over_draws([only] * 3)
    assert again["ua"] == pytest.approx(found["ua"]), "draws that do not differ add nothing"


@pytest.mark.parametrize(("speakers", "draws"), [(0.12, 0.0), (0.12, 0.1), (0.0, 0.15)])
def test_intervals_hold_the_truth_whatever_varies(speakers, draws):
    """95 % are promised; of 120 simulated corpora of 0.95 at most 12 miss in all but 0.4 % of cases."""
    random, held = np.random.default_rng(1), 0
    for _ in range(120):
        figures = figures_over_draws(drawn(random, speakers=speakers, draws=draws))["ua"]
        held += figures["low"] <= 0.6 <= figures["high"]
    assert held >= 120 - 12


def test_differences_are_of_the_same_draws_and_speakers():
    random = np.random.default_rng(2)
    first = drawn(random, speakers=0.15, draws=0.1, mean=0.7)
    assert differences_over_draws(first, first)["ua"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    worse = []
    for answers in first:  # a tenth of the clips of everybody is spoiled
        spoiled_N = np.arange(len(answers.labels_N)) % 10 == 0
        predictions_N = np.where(spoiled_N, (answers.labels_N + 1) % 3, answers.predictions_N)
        worse.append(Answers(*(answers.classes, answers.clip_ids, answers.speakers, answers.labels_N), predictions_N))
    found = differences_over_draws(first, worse)["ua"]
    assert found["mean"] == pytest.approx(
        np.mean([a.result.ua - b.result.ua for a, b in zip(first, worse, strict=True)])
    )
    assert found["low"] > 0, "paired, it is surer than the two figures are"
    own = figures_over_draws(first)["ua"]
    assert found["high"] - found["low"] < own["high"] - own["low"]
    one = differences_over_draws(first[:1], worse)["ua"]
    assert one["mean"] == pytest.approx(first[0].result.ua - np.mean([b.result.ua for b in worse]))
    with pytest.raises(ValueError, match="2 draws do not pair with 3"):
        differences_over_draws(first[:2], worse)
