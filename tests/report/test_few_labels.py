"""A classifier that was not trained to its end is told beside its figures, which flatter what it is compared with."""

import pytest

from mmpretrain.report.few_labels import label_efficiency_lines
from mmpretrain.report.units import too_short_lines


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (
            [0, 0, 60],
            "25% of the labels, from scratch: step 0 of 120 was chosen in 2 of 3 trainings: the classifier that",
        ),
        ([120, 120, 120], "from scratch: step 120 of 120 was chosen in 3 of 3 trainings: not yet all that it could"),
        ([60, 120, 0], ""),
    ],
)
def test_of_curves(steps, words):
    about = {"protocol": "official v1", "folds": [1], "test_clips": 9, "resampled": "3 speakers", "figure": "ua"}
    scratch = {"ua": {"mean": 0.5, "low": 0.4, "high": 0.6}, "chosen_steps": steps, "num_steps": 120}
    shares = [{"label_share": 0.25, "classifiers": {"scratch": scratch, "frozen": {}}, "differences": []}]
    _, *lines = label_efficiency_lines(about | {"shares": shares})
    assert len(lines) == bool(words)
    assert words in "".join(lines)


@pytest.mark.parametrize(("chosen", "told"), [([100, 100, 75], True), ([100, 75, 75], False)])
def test_of_units(chosen, told):
    entry = {"inputs": "audio", "labelled_clips": 80, "draws": 3, "num_steps": 100}
    lines = too_short_lines([entry | {"chosen": {"scratch": [f"step {step}" for step in chosen]}}])
    assert (
        "audio, 80 labelled clips, from scratch: the last of 100 steps was chosen in 2 of 3 draws" in "".join(lines)
    ) == told
    assert len(lines) == told
