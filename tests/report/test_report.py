import base64
import html
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mmpretrain.report.modalities import render_modalities
from mmpretrain.report.page import write_report
from mmpretrain.report.tables import duration, render_health, render_summary
from tests.slow import others_slow


@pytest.fixture
def write(tmp_path):
    def write(summary, records=(), **extras):
        write_report(tmp_path / "report.html", summary, records, **extras)
        return (tmp_path / "report.html").read_text()

    return write


def headings(page):
    return re.findall(r"<h2>(.*?)</h2>", page)


def images(page):
    return dict(re.findall(r'<img alt="([^"]*)"[^>]*? src="([^"]*)"', page))


def test_page_has_every_part_and_needs_nothing_beside_it(write, example):
    page = write(example.summary(), example.records(), **example.extras())
    assert headings(page) == [
        "Pretraining rounds",
        "Clusters",
        "Emotion",
        "Fine-tuning",
        "What the network sees",
        "Wall time",
        "Speed of training",
        "Where it comes from and where it is",
    ]
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"<(script|link|iframe)|@import|url\(", page)
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert all(source.startswith("data:image/") for source in sources)
    for text in (
        "demo",
        "seed 1337",
        "3.00 GB",
        "70.0%",
        "87.5%",
        "0.630",
        "97 / 100",
        "metrics.jsonl",
        "clip 0107, speaker s11, sad",
    ):
        assert text in page


def test_figures_are_whole_and_refer_to_nothing_outside(write, example):
    pictures = images(write(example.summary(), example.records(), **example.extras()))
    assert {"loss of pretraining", "cluster usage", "confusion matrix", "UA on validation clips of fine-tuning"} < set(
        pictures
    )
    for source in pictures.values():
        kind, data = source.split(";base64,")
        content = base64.b64decode(data)
        if kind == "data:image/png":
            assert content.startswith(b"\x89PNG")
            continue
        for element in ElementTree.fromstring(content).iter():
            link = element.get("{http://www.w3.org/1999/xlink}href", "#")
            assert link.startswith(("#", "data:image/png"))


def test_the_same_run_gives_the_same_page(write, example):
    pages = [write(example.summary(), example.records(), **example.extras()) for _ in range(2)]
    assert pages[0] == pages[1]


def test_an_empty_run_still_gives_a_page(write):
    page = write({})
    assert headings(page) == []
    assert page.endswith("</html>\n")


PARTS = ("name", "seed", "rounds", "evaluation", "export_max_error", "wall_time_sec", "corpus", "goodput")


@pytest.mark.parametrize("missing", others_slow(PARTS, "rounds", "evaluation", "wall_time_sec"))
def test_page_and_text_do_without_any_part_of_the_summary(write, example, missing):
    summary = example.summary()
    del summary[missing]
    page = write(summary, example.records(), **example.extras())
    assert ("Emotion" in headings(page)) == (missing != "evaluation")
    assert ("Wall time" in headings(page)) == (missing != "wall_time_sec")
    assert render_summary(summary)


def test_real_corpora_have_no_units(write, example):
    summary, extras = example.summary(), example.extras()
    for entry in summary["rounds"]:
        entry.update(pnmi=None, purity=None)
    page = write(summary, example.records(), **extras | {"unit_tables": [None, None]})
    assert "true units in each cluster" not in images(page)
    assert "cluster usage" in images(page)
    assert "PNMI of the last targets" not in page


def test_pretraining_alone_and_modalities_that_are_absent(write, example):
    clips = example.extras()["pictures"]
    clips[0]["mouth"] = clips[0]["mouth"][:0]
    clips[1].update(mouth=None, face=None)
    records = [record for record in example.records() if record["stage"] == "round1/pretrain"]
    page = write({"name": "audio only"}, records, pictures=clips)
    assert headings(page) == ["Pretraining rounds", "What the network sees", "Speed of training"]
    assert [name for name in images(page) if "crops" in name] == ["face crops"]
    assert clips[1]["title"] not in page


def test_folds_that_are_not_finished_are_drawn_as_far_as_they_are(write, example):
    records = [r for r in example.records() if r["stage"] != "finetune/pretrained/fold2" or r["step"] == 0]
    records.append({"stage": "finetune/from_scratch/fold3", "step": 0, "train/loss": None})
    assert "Fine-tuning" in headings(write({}, records))


def test_words_of_the_user_are_no_markup(write):
    page = write({"name": "<b>mine</b> & yours"}, files={"<i>": "a & b"})
    assert "<b>mine" not in page
    assert "&lt;b&gt;mine&lt;/b&gt; &amp; yours" in page
    assert "<code>a &amp; b</code>" in page


def test_clusters_without_a_frame_do_no_harm(write):
    counts, table = np.array([5, 0, 3]), np.array([[5, 0, 0], [0, 0, 3]])
    page = write({}, cluster_counts=[counts, np.zeros(3, int)], unit_tables=[table, None])
    assert {"cluster usage", "true units in each cluster"} <= set(images(page))


def test_summary_in_the_terminal(example):
    text = render_summary(json.loads(json.dumps(example.summary())))
    assert text.isascii()
    lines = text.splitlines()
    assert lines[0] == "demo, seed 1337"
    assert re.search(
        r"^  2 +52\.0% +71\.0% +4\.0% +2\.020 +0\.630 +0\.580 +97 / 100 +6\.12 bits +62\.5% +43\.8%$",
        text,
        re.MULTILINE,
    )
    assert re.search(r"^  chance, majority class +25\.0% +25\.0% +- +-$", text, re.MULTILINE)
    assert re.search(r"^  ours, pretrained +87\.5% +87\.5% +86\.5% +86\.5%$", text, re.MULTILINE)
    assert re.search(r"^  mean \+- std +81\.2% \+- 8\.8", text, re.MULTILINE)
    assert re.search(r"^  total +7 min 21 s$", text, re.MULTILINE)
    assert "protocol official, model chosen on: validation, folds: 2, test clips: 96" in text
    assert max(map(len, lines)) <= 100


def test_health_compares_with_the_round_before(example):
    rounds = example.summary()["rounds"]
    text = render_health(rounds)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 100
    assert "against round 1: masked accuracy +21.0 points, PNMI +0.210\n" in text, "no probe in round 1"
    text = " ".join(text.split())
    assert "accuracies over different numbers of clusters do not compare" in text
    assert "by layer from 0 43.8%, 50.0%, 62.5% (chosen: layer 2); untrained 37.5%, 43.8%, 25.0% (chosen: layer" in text
    assert "the layer is chosen on training clips; chance 25.0%" in text
    assert "42.5% masked accuracy in round 1" in text
    assert "against" not in render_health(rounds[:1])


@pytest.mark.parametrize(
    ("gain", "says"),
    [
        ((0.1875, 0.05, 0.3), "round 2 tells more than the untrained encoder: probe UA 62.5% against"),
        ((0.02, -0.05, 0.09), "round 2 has no sure gain over the untrained encoder: probe UA"),
        ((-0.2, -0.3, -0.1), "round 2 tells less than the untrained encoder: probe UA"),
    ],
)
def test_a_round_says_whether_it_surely_gained(write, example, gain, says):
    summary = example.summary()
    summary["rounds"][1]["probe"]["over_untrained"] = dict(
        zip(("difference", "low", "high", "resampled"), (*gain, "6 speakers"), strict=True)
    )
    low, high = (f"{100 * value:+.1f}" for value in gain[1:])
    interval = f"points (95% interval {low} to {high}; the same 48 validation clips, resampled: 6 speakers)"
    shown = [render_summary(summary), render_health(summary["rounds"]), html.unescape(write(summary))]
    for text in shown:
        assert says in " ".join(text.split())
        assert interval in " ".join(text.split())
    assert not re.search(r"round 1 (has|tells)", "".join(shown)), "it has no probe"


def test_summary_shows_the_bare_figures_where_there_are_no_others():
    figures = {"task": "mood", "ua": 0.5, "chance_ua": 0.25, "baseline_ua": 0.3, "from_scratch_ua": None}
    text = render_summary({"evaluation": figures})
    assert "Mood on test clips" in text
    assert re.search(r"MFCC statistics, logistic regression +30\.0% +- ", text)
    assert "from scratch" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.97, "1 min 00 s"), (3599.7, "1 h 00 min"), (7620, "2 h 07 min")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_what_each_modality_brings_is_on_the_page_and_printed(write, example):
    uas = {"audio": 0.3, "text": 0.6, "audio+text": 0.7}
    cells = {
        shown: {
            "emotion/loss": {"pooled": 1.0},
            "emotion/ua": {"pooled": ua, "low": 0.1, "high": 0.9, "folds": [ua]},
        }
        for shown, ua in uas.items()
    }
    means = {"all": {"clips": 9, "audio": 0.25, "text": 0.75}, "sad": {"clips": 4, "audio": 0.4, "text": 0.6}}
    gates = {"emotion": means}
    found = {
        "table": {"scratch": cells}, "gates": {"scratch": gates},
        "weights": {"scratch": {1: {"emotion": {"audio": 0.125, "text": 0.875}}}},
    }  # fmt: skip
    page, said = write(example.summary() | {"modalities": found}, example.records()), render_modalities(found)
    assert "Modalities" in headings(page)
    for text in ("audio+text", "0.600 [0.100 to 0.900]", "0.750", "sad", "0.875", "fold 1", "Gates of emotion"):
        assert text in page
        assert text in said
    assert "emotion/loss" not in said
    assert not render_modalities({})
