"""Stage `evaluate`: every figure with its interval, ours against the others on the same clips, plain baselines."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import CorpusConfig, emotion
from mmpretrain.data.exposure import TrainingData
from mmpretrain.downstream.predictions import read_answers
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.evaluation.comparison import Answers
from mmpretrain.evaluation.metrics import METRICS
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.run.run import Run
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.finetune import finetune
from mmpretrain.stages.report import report
from mmpretrain.stages.robustness import robustness
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_run

CLASSES = ("happy", "sad")
BASELINES = ("baseline", "picture_baseline")


def clips():
    """Of six speakers six clips each; sad faces are dark, one clip of each speaker has no picture."""
    random = np.random.default_rng(0)
    for speaker in "abcdef":
        for i in range(6):
            clip = make_clip(
                f"{speaker}{i}", 8, size=IMAGE_SIZE, video=i != 3, speaker=speaker, labels={"emotion": CLASSES[i % 2]}
            )
            noise = random.integers(0, 60, clip.face.shape, np.uint8)
            sound = random.integers(-9000, 9000, len(clip.audio)).astype(np.int16)
            face = noise + np.uint8(120 * (i % 2 == 0))
            yield dataclasses.replace(clip, audio=sound, face=face, mouth=face[:, 8:-8, 8:-8])


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluated")
    corpus = write_corpus(root / "moods", list(clips()), IMAGE_SIZE, IMAGE_SIZE + 16)
    config = tiny_run(workdir=str(root / "run"), model=tiny_model("audio", "video"), rounds=())
    config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(corpus)),), jax.device_count()
    save_encoder(root / "encoder", AVEncoder(config.model, rngs=nnx.Rngs(0)), lineage={"fingerprint": "some"},
                 training_data=TrainingData())  # fmt: skip
    config.finetune.encoder, config.finetune.protocol = str(root / "encoder"), "speakers-3"
    config.finetune.tasks, config.finetune.folds = (emotion(*CLASSES),), (1, 2)
    config.finetune.classifier = "frozen_linear"  # what is tested has nothing to do with how it was trained
    run = Run(config)
    finetune(run)
    return run, evaluate(run)


def test_every_figure_has_an_interval_and_every_answer_is_kept(evaluated):
    run, result = evaluated
    for name in ("pretrained", "scratch", *BASELINES):
        kept = [read_answers(run.workdir / f"evaluation/{name}-fold{fold}.csv", CLASSES) for fold in (1, 2)]
        answers, figures = Answers.joined(kept), result[name]
        assert len(answers.clip_ids) == 24
        assert answers.result.confusion.tolist() == figures["confusion"]
        assert figures["intervals"]["resampled"] == "4 speakers"
        for metric in METRICS:
            assert figures["intervals"][metric]["low"] <= figures[metric] <= figures["intervals"][metric]["high"]
    for fold in result["folds"]:
        assert fold["intervals"]["units"] == 2
        assert {f"{name}_ua" for name in ("scratch", *BASELINES)} <= set(fold)


def test_ours_is_held_against_each_of_the_others(evaluated):
    _, result = evaluated
    for comparisons, count in ((result["comparisons"], 24), *[(fold["comparisons"], 12) for fold in result["folds"]]):
        assert [comparison["second"] for comparison in comparisons] == ["scratch", *BASELINES]
        assert {comparison["first"] for comparison in comparisons} == {"pretrained"}
        assert {comparison["clips"] for comparison in comparisons} == {count}
    for comparison in result["comparisons"]:
        difference = result["pretrained"]["ua"] - result[comparison["second"]]["ua"]
        assert comparison["ua"]["difference"] == pytest.approx(difference)


def test_the_baseline_of_pictures_sees_what_that_of_sound_cannot_hear_and_says_where_it_is_blind(evaluated, capsys):
    run, result = evaluated
    picture = result["picture_baseline"]
    assert picture["clips_without_input"] == 4
    assert picture["wa"] >= 20 / 24
    assert result["baseline"]["clips_without_input"] == 0
    assert result["baseline"]["ua"] < 0.8
    assert picture["unlabelled_test_seen"] == "no"
    report(run)
    text = " ".join(capsys.readouterr().out.split())
    page = (run.workdir / "report.html").read_text()
    for shown in (text, page):
        assert "picture statistics, logistic regression: 4 of its 24 test clips have none" in shown
        assert "ours, pretrained, against ours, from scratch: UA " in shown
        assert "24 clips, resampled: 4 speakers" in shown
        assert "another seed may give another figure" in shown
    assert "UA, 95%" in text
    summary = json.loads((run.workdir / "summary.json").read_text())
    assert summary["evaluation"]["intervals"] == result["pretrained"]["intervals"]


def test_robustness_is_of_the_same_classifiers_and_what_no_change_reaches_stays(evaluated, capsys):
    run, result = evaluated
    found = robustness(run, ["blur", "white", "modalities", "length"])
    assert json.loads((run.workdir / "robustness.json").read_text()) == found
    for name in ("pretrained", "scratch"):
        assert found["clean"][name]["confusion"] == result[name]["confusion"], "clips as they are"
        of_sets = {
            e["level"]: e["classifiers"][name] for e in next(c for c in found["changes"] if not c["unit"])["levels"]
        }
        assert set(of_sets) == {"", "audio", "video", "audio+video"}
        assert of_sets["audio+video"]["confusion"] == result[name]["confusion"]
        assert of_sets[""]["ua"] == pytest.approx(0.5), "of nothing one class is said"
        assert sum(found["shapley"][name].values()) == pytest.approx(result[name]["ua"] - 0.5)
        assert of_sets["video"]["ua"] > of_sets["audio"]["ua"], "the planted label is seen, not heard"
        lengths = next(c for c in found["changes"] if c["change"] == "length")["levels"]
        assert lengths[0]["classifiers"][name]["confusion"] == result[name]["confusion"], "clips are of 8 frames"
    page = (run.workdir / "robustness.html").read_text()
    assert 'alt="UA under changes"' in page
    assert "blur: 4 px of 96" in page
    capsys.readouterr()
    assert robustness(run, ["blur", "white", "modalities", "length"]) == found
    assert "started in" not in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"--change=fog; what the network's inputs can be changed in is white, babble"):
        robustness(run, ["fog"])
