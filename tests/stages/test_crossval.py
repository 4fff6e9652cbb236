"""Cross-validation: what is in its results and on its page, and that nothing is done twice."""

import json
import re

import numpy as np
import pytest

from mmpretrain.__main__ import main
from mmpretrain.config import LabelEfficiencyConfig, TaskConfig
from mmpretrain.downstream.baselines import statistics_of_clips
from mmpretrain.downstream.curve import Curve, Point
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.predictions import read_answers, read_probabilities, read_told
from mmpretrain.evaluation.tasks import agreement
from mmpretrain.stages.crossval import crossval
from tests.slow import others_slow
from tests.stages.tones import PITCH_HZ

CLASSES = tuple(PITCH_HZ)
ASKED = LabelEfficiencyConfig(classifiers=("frozen", "untrained_frozen", "sound_statistics"))


@pytest.fixture(scope="module")
def done(tone_run, tmp_path_factory):
    run = tone_run(tmp_path_factory.mktemp("runs") / "tones", ASKED)
    return run, crossval(run, 2)


def test_figures_are_of_all_folds_and_seeds(done):
    run, results = done
    assert json.loads((run.workdir / "results.json").read_text()) == results
    assert (results["folds"], results["test_clips"], results["selection"]) == ([1, 2, 3], 54, "val")
    assert {name: figures["seeds"] for name, figures in results["classifiers"].items()} == {
        "frozen": 1, "untrained_frozen": 2, "sound_statistics": 1,
    }, "nothing is drawn for those of one"  # fmt: skip
    figures = results["classifiers"]["untrained_frozen"]
    said, cells = [], []
    for seed in (0, 1):
        folder = run.workdir / "label_efficiency" / f"share1-draw{seed}" / "untrained_frozen"
        tables = [folder / f"untrained_frozen-fold{fold}.csv" for fold in (1, 2, 3)]
        said.append([read_answers(table, CLASSES) for table in tables])
        cells += [answers.result.ua for answers in said[-1]]
        for answers, probabilities in zip(
            said[-1], [read_probabilities(table, CLASSES) for table in tables], strict=True
        ):
            np.testing.assert_allclose(probabilities.sum(1), 1, atol=2e-4)
            assert (probabilities.argmax(1) == answers.predictions_N).mean() > 0.9, "but for ties of four digits"
    over = figures["over_folds_and_seeds"]["ua"]
    assert over["mean"] == pytest.approx(np.mean(cells))
    assert over["std"] == pytest.approx(np.std(cells, ddof=1))
    confusions = [sum(answers.result.confusion for answers in of_seed) for of_seed in said]
    assert figures["confusion"] == sum(confusions).tolist()
    for c, word in enumerate(CLASSES):
        recall = figures["recalls"][word]
        assert recall["mean"] == pytest.approx(np.mean([of[c, c] / of[c].sum() for of in confusions]))
        assert recall["low"] <= recall["mean"] <= recall["high"]
    assert sum(one["clips"] for one in figures["reliability"]["bins"]) == 108
    assert "reliability" not in results["classifiers"]["sound_statistics"], "which says no more than a class"
    assert {(d["first"], d["second"]) for d in results["differences"]} == {
        ("frozen", "untrained_frozen"), ("frozen", "sound_statistics"), ("untrained_frozen", "sound_statistics"),
    }  # fmt: skip


def test_the_page_has_every_picture(done):
    run, _ = done
    page = (run.workdir / "crossval.html").read_text()
    pictures = re.findall(r'<img alt="([^"]+)" src="data:image/svg', page)
    assert {"recalls by class", "reliability diagram", "clips by emotion", "clips by speaker"} <= set(pictures)
    assert "chance, majority class" in page
    assert "speakers-3 v1" in page


def test_it_goes_on_with_more_seeds_and_does_nothing_twice(done, tone_run, capsys):
    run, results = done
    again = tone_run(run.workdir, ASKED)
    capsys.readouterr()
    more = crossval(again, 3)
    assert capsys.readouterr().err.count("started in") == 1, "the third seed of what has one"
    assert more["classifiers"]["frozen"] == results["classifiers"]["frozen"]
    assert more["classifiers"]["untrained_frozen"]["seeds"] == 3
    few = tone_run(run.workdir, ASKED, labels_per_class=2)
    figures = crossval(few, 2)["classifiers"]
    assert {name: of["seeds"] for name, of in figures.items()} == dict.fromkeys(figures, 2), "clips are drawn"
    assert "perclass2-draw1" in figures["sound_statistics"]["tables"][1]["3"]


def test_folds_with_encoders_of_their_own_share_clips_programs_and_statistics(tone_run, tmp_path):
    whole = Finetuning(tone_run(tmp_path / "run"))
    parts = [Finetuning.of(run) for run in whole.runs_of_folds().values()]
    assert [part.folds for part in parts] == [(1,), (2,), (3,)]
    assert all(part.table is whole.table for part in parts)
    measured = statistics_of_clips(parts[0])
    assert statistics_of_clips(parts[1])["baseline"] is measured["baseline"]
    assert parts[2].trainer("scratch") is parts[0].trainer("scratch")


def test_regressions_choose_their_penalty_where_networks_take_the_last_step(tone_run, tmp_path):
    asked = LabelEfficiencyConfig((1.0,), 1, ("pretrained", "frozen"))
    curve = Curve(tone_run(tmp_path / "run", selection="last"), asked)
    selections = {name: curve.finetuning(Point(1.0, 0, name)).config.selection for name in ("pretrained", "frozen")}
    assert selections == {"pretrained": "last", "frozen": "val"}


HEIGHT = TaskConfig("height", kind="value", range=(0.0, 1.0))
OTHERS = {
    "value": (HEIGHT, ("frozen", "sound_statistics"), "ccc"),
    "values": (TaskConfig("curve", kind="values", range=(0.0, 2.0)), ("scratch",), "pearson"),
    "binary": (TaskConfig("high", kind="binary", classes=("no", "yes")), ("frozen", "sound_statistics"), "auc"),
    "ordinal": (TaskConfig("emotion", kind="ordinal", classes=CLASSES), ("frozen", "sound_statistics"), "qwk"),
}


@pytest.mark.parametrize("kind", others_slow(OTHERS, "value", "binary", "ordinal"))
def test_labels_of_other_kinds_have_their_own_figures(tone_run, tmp_path, capsys, kind):
    task, classifiers, metric = OTHERS[kind]
    asked = LabelEfficiencyConfig(classifiers=tuple({*classifiers, "frozen"}))
    run = tone_run(
        tmp_path / "run", asked, tasks=(task,), select_by=f"{task.name}/{metric}", folds=(1, 2), num_steps=1,
        eval_every=1,
    )  # fmt: skip
    results = crossval(run, 2 if kind == "values" else 1)
    assert set(results["classifiers"]) == {*classifiers}, "what cannot learn a curve is left out"
    for name, figures in results["classifiers"].items():
        seeds = 2 if kind == "values" else 1
        assert figures["seeds"] == seeds
        told = [
            read_told(run.workdir / path.replace(".csv", "-outputs.csv"), task, "crossval")
            for path in figures["tables"][0].values()
        ]
        assert [len(of_fold.clip_ids) for of_fold in told] == [18, 18]
        found = figures["metrics"][metric]
        assert found["by_fold"][0] == pytest.approx([of_fold.metrics[metric] for of_fold in told], abs=1e-5)
        assert found["over_folds_and_seeds"]["mean"] == pytest.approx(np.mean(found["by_fold"]))
        assert found["mean"] == pytest.approx(np.mean(found["by_seed"]))
        assert found["low"] <= found["mean"] <= found["high"]
        if kind == "value":
            said = [np.concatenate([getattr(of_fold, x) for of_fold in told]).ravel() for x in ("labels", "outputs")]
            assert found["mean"] == pytest.approx(agreement(said[0], (said[1] + 1) / 2)["ccc"], abs=1e-5)
        if name == "sound_statistics":
            assert found["mean"] > 0.8, "the planted label is heard"
            assert results["constant"][metric] == pytest.approx(0.5 if kind == "binary" else 0, abs=0.02)
        assert ("ua" in figures) == (kind in ("binary", "ordinal"))
    page = (run.workdir / "crossval.html").read_text()
    assert ("said over true" in page) == (kind in ("value", "values"))
    capsys.readouterr()
    main(["compare", str(run.workdir), str(run.workdir), "--crossval"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{metric} +0.000 +0.000 to +0.000 not told apart" in shown


def test_what_has_no_figures_to_resample_is_refused(tone_run, tmp_path):
    task = TaskConfig("emotion", kind="embedding", classes=CLASSES)
    with pytest.raises(ValueError, match=r"kind='embedding': crossval is of labels whose figures have intervals"):
        crossval(tone_run(tmp_path / "run", ASKED, tasks=(task,), select_by="emotion/map"))
    curve = OTHERS["values"][0]
    with pytest.raises(
        ValueError, match=r"none of them can be had \(frozen: a regression does not learn labels of kind"
    ):
        crossval(tone_run(tmp_path / "run", ASKED, tasks=(curve,), select_by="curve/ccc"))
