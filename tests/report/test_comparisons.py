"""What is said of two classifiers on the same clips."""

import re

import pytest

from mmpretrain.report.comparisons import READING
from mmpretrain.report.page import write_report
from mmpretrain.report.tables import render_summary


def compared(second, difference, reach, p=0.25, other_answers=9):
    figures = {"difference": difference, "low": difference - reach, "high": difference + reach}
    return {
        "first": "pretrained", "second": second, "ua": figures, "resampled": "6 speakers", "clips": 96,
        "other_answers": other_answers, "only_first": 3, "only_second": 5, "mcnemar_p": p,
    }  # fmt: skip


@pytest.fixture
def summary(example):
    """A run with all that an evaluation leaves."""
    summary = example.summary()
    result = summary["evaluation"]
    result["intervals"] = {name: {"low": 0.801, "high": 1.0} for name in ("ua", "wa")}
    result["picture_baseline"] = result["baseline"] | {"support": [24] * 4, "clips_without_input": 5}
    result["comparisons"] = [
        compared("scratch", -0.021, 0.05), compared("baseline", 0.3, 0.1, 0.0001),
        compared("picture_baseline", -0.2, 0.1, 0.01),
    ]  # fmt: skip
    for fold in result["folds"]:
        fold |= {
            "comparisons": [compared("baseline", 0.0, 0.0, 1.0, 0)],
            "baseline_ua": 0.5,
            "picture_baseline_ua": 0.4,
        }
    return summary


def test_no_line_says_more_than_the_clips_do(summary, tmp_path):
    text = render_summary(summary)
    assert max(map(len, text.splitlines())) <= 100
    write_report(tmp_path / "report.html", summary, ())
    page = (tmp_path / "report.html").read_text().replace("&#x27;", "'").replace("&lt;", "<")
    for shown in (" ".join(text.split()), page):
        for line in (
            "ours, pretrained, against ours, from scratch: UA -2.1 points, interval -7.1 to +2.9 (96 clips, resampled: "
            "6 speakers); McNemar's p 0.250 (right alone: 3 and 5 clips). The interval contains 0: these clips do not "
            "tell them apart.",
            "McNemar's p < 0.001 (right alone: 3 and 5 clips). The interval leaves 0 out: ours, pretrained, is better "
            "on clips like these, as trained here.",
            "The interval leaves 0 out: picture statistics, logistic regression, is better",
            "picture statistics, logistic regression: 5 of its 96 test clips have none",
            READING,
        ):
            assert line in shown
    assert re.search(r"^  ours, pretrained +87\.5% +87\.5% +86\.5% +86\.5% +80\.1-100\.0 +80\.1-100\.0$", text, re.M)
    assert re.search(r"^  picture statistics, logistic regression +50\.0% .* - +-$", text, re.M)
    assert re.search(r"^  fold 2 +pretrained +MFCC +\+0\.0 +\+0\.0 to \+0\.0 +1\.000 +same answers$", text, re.M)
    assert re.search(r"^  mean \+- std +50\.0% \+- 0\.0 +40\.0% \+- 0\.0 +81\.2% \+- 8\.8$", text, re.M)


def test_a_run_that_was_evaluated_before_there_were_intervals_is_shown_as_it_was(example):
    assert "UA, 95%" not in (text := render_summary(example.summary()))
    assert "ours, pretrained, against" not in text
