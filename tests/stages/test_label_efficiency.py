"""The label-efficiency curve: what each point is, that it is taken up where it stopped, and where it is shown."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from mmpretrain.config import CLASSIFIERS, LabelEfficiencyConfig, TaskConfig, emotion
from mmpretrain.downstream import frozen
from mmpretrain.downstream.baselines import SOUND
from mmpretrain.downstream.curve import Curve
from mmpretrain.downstream.predictions import read_answers
from mmpretrain.files import DamagedError
from mmpretrain.randomness import part_seed
from mmpretrain.report.few_labels import render_label_efficiency
from mmpretrain.run.forward import LayerStatistics
from mmpretrain.run.layout import stages_by_command
from mmpretrain.run.run import Run
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.finetune import finetune
from mmpretrain.stages.label_efficiency import label_efficiency
from mmpretrain.stages.report import report
from tests.stages.tones import PITCH_HZ

CLASSES = tuple(PITCH_HZ)
CURVE = LabelEfficiencyConfig(shares=(1.0, 0.35), draws=2)
HEARD = tuple(name for name in CLASSIFIERS if name != "picture_statistics")


@pytest.fixture(scope="module")
def run_of(tone_run):
    def make(path, efficiency=CURVE, **changes):
        return tone_run(path, efficiency, **{"folds": (1, 2)} | changes)

    return make


@pytest.fixture(scope="module")
def done(run_of, tmp_path_factory):
    run = run_of(tmp_path_factory.mktemp("runs") / "curve")
    return run, label_efficiency(run)


def answers(run: Run, share: str, draw: int, name: str, fold: int):
    return read_answers(
        run.workdir / "label_efficiency" / f"share{share}-draw{draw}" / name / f"{name}-fold{fold}.csv", CLASSES
    )


def test_every_classifier_has_its_figures_at_every_share(done):
    run, curve = done
    assert json.loads((run.workdir / "label_efficiency.json").read_text()) == curve
    assert [entry["label_share"] for entry in curve["shares"]] == [0.35, 1.0]
    assert [entry["training_clips"] for entry in curve["shares"]] == [[6, 6], [18, 18]]
    for entry in curve["shares"]:
        assert tuple(entry["classifiers"]) == HEARD, "no clip has pictures"
        for figures in entry["classifiers"].values():
            assert figures["ua"]["low"] <= figures["ua"]["mean"] <= figures["ua"]["high"]
            assert figures["ua"]["mean"] == pytest.approx(np.mean(figures["ua_by_draw"]))
    few, whole = (entry["classifiers"] for entry in curve["shares"])
    assert {name: figures["draws"] for name, figures in few.items()} == dict.fromkeys(HEARD, 2)
    assert {name for name, figures in whole.items() if figures["draws"] == 1} == {"frozen", "sound_statistics"}
    assert whole["frozen"]["ua"]["mean"] > 0.9, "the planted label is found"
    said = [[answers(run, "0.35", draw, "frozen", fold).result.confusion for fold in (1, 2)] for draw in (0, 1)]
    assert few["frozen"]["ua_by_draw"] == pytest.approx([(np.diag(sum(of)) / sum(of).sum(1)).mean() for of in said])


@pytest.mark.slow
def test_points_are_what_the_commands_make_of_the_same_fields(done, run_of, tmp_path):
    """Draws have seeds of their own."""
    share, draw, (_, curve) = 0.35, 1, done
    for kind in ("frozen_linear", "trained"):
        fields = dict(label_share=share, label_draw=draw, classifier=kind)
        other = run_of(tmp_path / kind, **fields)
        other.config.seed = part_seed(other.config.seed, "draw", draw) % 2**32
        finetune(other)
        evaluation = evaluate(other)
        names = {"pretrained": "frozen", "scratch": "untrained_frozen"} if kind == "frozen_linear" else {}
        found = next(entry for entry in curve["shares"] if entry["label_share"] == share)["classifiers"]
        for name in ("pretrained", "scratch"):
            assert found[names.get(name, name)]["ua_by_draw"][draw] == pytest.approx(evaluation[name]["ua"]), name
        assert found["sound_statistics"]["ua_by_draw"][draw] == pytest.approx(evaluation["baseline"]["ua"])


def test_what_finetune_trained_is_a_point_and_nothing_is_done_twice(done, run_of, tmp_path, capsys):
    run, curve = done
    assert (run.workdir / "finetune" / "pretrained" / "fold2" / "result.json").exists(), "draw 0 of all labels"
    again = run_of(tmp_path / "again")
    shutil.copytree(run.workdir, again.workdir)
    lost = again.workdir / "label_efficiency" / "share0.35-draw1"
    shutil.rmtree(lost / "frozen")
    (lost / "scratch" / "result.json").unlink()
    capsys.readouterr()
    assert label_efficiency(again)["shares"] == curve["shares"]
    said = capsys.readouterr().err
    assert said.count("started in") == 1
    assert said.count("taken up again") == 1

    wider = run_of(again.workdir, LabelEfficiencyConfig((0.35, 0.7, 1.0), 2, ("frozen",)))
    assert [entry["label_share"] for entry in label_efficiency(wider)["shares"]] == [0.35, 0.7, 1.0]
    other = run_of(again.workdir, select_by="emotion/loss")
    with pytest.raises(
        ValueError, match=r"another recipe \(finetune\.select_by was 'emotion/ua' and is 'emotion/loss'"
    ):
        label_efficiency(other)
    table = lost / "frozen" / "frozen-fold1.csv"
    table.write_text(table.read_text().replace("happy", "sad"))
    with pytest.raises(DamagedError, match=r"frozen-fold1\.csv is damaged.*run `mmpretrain label-efficiency` again"):
        label_efficiency(again)


def test_it_stands_in_the_summary_and_on_the_page(done, capsys):
    run, curve = done
    summary = report(run)
    printed = capsys.readouterr().out
    assert "Emotion from few labels" in printed
    assert "untrained, frozen" in printed
    assert [entry["label_share"] for entry in summary["emotion"]] == [0.35, 1.0]
    for entry, of_share in zip(summary["emotion"], curve["shares"], strict=True):
        assert set(entry) == {"label_share", *(f"{name}_ua" for name in HEARD)}
        assert all(set(entry[f"{name}_ua"]) == {"mean", "low", "high"} for name in HEARD)
        assert entry["frozen_ua"] == of_share["classifiers"]["frozen"]["ua"]
    assert summary["wall_time_sec"]["label_efficiency"] == curve["wall_time_sec"] > 0
    page = (run.workdir / "report.html").read_text()
    assert "Emotion from few labels" in page
    assert 'alt="UA over the share of the labels"' in page


def test_all_points_run_one_program_and_an_encoder_looks_at_every_clip_once(run_of, tmp_path, monkeypatch):
    looked = []

    class Counted(LayerStatistics):
        def __call__(self, table, title=""):
            looked.extend(table.clip_ids)
            return super().__call__(table, title)

    monkeypatch.setattr(frozen, "LayerStatistics", Counted)
    run = run_of(tmp_path, LabelEfficiencyConfig((0.35, 0.7, 1.0), 3, ("pretrained", "frozen")))
    curve = Curve(run)
    points = curve.points
    assert [point.classifier for point in points] == ["frozen"] * 7 + ["pretrained"] * 9, "cheap ones first"
    for point in points[:7]:
        for fold in (1, 2):
            curve.said(point, fold)
    assert len(looked) == len(set(looked)) == 54
    trainers = {id(curve.finetuning(point).trainer("pretrained")) for point in points[7:]}
    assert len(trainers) == 1
    seeds = {point.draw: curve.finetuning(point).run.config.seed for point in points}
    assert seeds[0] == run.config.seed
    assert len(set(seeds.values())) == 3


def test_numbers_and_levels_have_a_curve_too(run_of, tmp_path):
    cheap = dataclasses.replace(CURVE, classifiers=("frozen", "sound_statistics"))
    numbers = TaskConfig("height", kind="value", range=(0.0, 1.0))
    levels = TaskConfig("level", "emotion", kind="ordinal", classes=("neutral", "happy", "sad"))
    for task, metric, figure in ((numbers, "ccc", "ccc"), (levels, "qwk", "ua")):
        run = run_of(tmp_path / task.name, cheap, tasks=(task,), select_by=f"{task.name}/{metric}")
        curve = label_efficiency(run)
        few, whole = (entry["classifiers"] for entry in curve["shares"])
        assert whole["frozen"][figure]["mean"] > 0.8, "it is planted"
        assert len(few["frozen"][f"{figure}_by_draw"]) == 2
        assert few["frozen"][figure]["mean"] == pytest.approx(np.mean(few["frozen"][f"{figure}_by_draw"]))
        shown = render_label_efficiency(curve)
        assert {"ccc": "CCC on test clips", "ua": "UA on test clips"}[figure] in " ".join(shown.split())
        assert f"{whole['frozen']['ccc']['mean']:.3f} (" in shown if figure == "ccc" else "chance 33.3" in shown


def test_what_heads_with_steps_are_asked_is_not_asked_of_a_regression(run_of, tmp_path):
    task = emotion(*CLASSES, class_weights="inverse", loss="focal", pooling="mean")
    curve = Curve(run_of(tmp_path, tasks=(task,), tracks=("curve",), fusion="gated"))
    assert curve.classifiers == ("pretrained", "scratch", "sound_statistics"), "an encoder hears no track"
    for point in curve.points:
        assert curve.finetuning(point).config.tracks == (() if point.classifier == "sound_statistics" else ("curve",))


@pytest.mark.parametrize("asked", ["pooling", "frozen_linear"])
def test_heads_with_steps_are_as_asked_whatever_a_regression_looked_at_before(run_of, tmp_path, asked):
    """A regression's network has the usual heads; where it came first, training from scratch once got them too."""
    head = {"head": "frozen_linear"} if asked == "frozen_linear" else {}
    task = emotion(*CLASSES, loss="focal") if head else emotion(*CLASSES, loss="focal", pooling="mean")
    said = []
    for classifiers in (("scratch",), ("untrained_frozen", "scratch")):
        efficiency = LabelEfficiencyConfig((0.35,), 1, classifiers)
        run = run_of(tmp_path / str(len(classifiers)), efficiency, tasks=(task,), **head)
        label_efficiency(run)
        folder = run.workdir / "label_efficiency" / "share0.35-draw0" / "scratch"
        said.append({path.name: path.read_text() for path in folder.glob("*.csv")})
    assert len(said[0]) == 2
    assert said[0] == said[1]


def test_statistics_that_a_fold_cannot_learn_from_are_one_line(run_of, tmp_path):
    curve = Curve(run_of(tmp_path, dataclasses.replace(CURVE, classifiers=("sound_statistics",))))
    happy = curve.whole.classes_N == CLASSES.index("happy")
    of_clips = np.where(happy[:, None], 1.0, np.nan)  # as where the others have no sound
    curve._statistics = {SOUND: of_clips}
    with pytest.raises(
        ValueError, match=r"classifiers: sound_statistics cannot be trained in fold 2 of .* audio that .*`happy`.*leave"
    ):
        curve.said(curve.points[-1], 2)


def test_it_must_be_asked_for(run_of, tmp_path):
    run = run_of(tmp_path, LabelEfficiencyConfig())
    with pytest.raises(ValueError, match=r"label_efficiency\.shares=\(\); say of which shares"):
        label_efficiency(run)
    whole = dataclasses.replace(run.config, label_efficiency=LabelEfficiencyConfig((0.35,)))
    assert "label-efficiency" in stages_by_command(whole)
    assert not stages_by_command(Run(dataclasses.replace(whole, finetune=None)).config), "it is of the fine-tuning"
