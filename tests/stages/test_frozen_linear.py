"""The classifier `frozen_linear`: a planted label is found, as scikit-learn finds it by hand."""

import csv
import functools
import json
import shutil

import numpy as np
import pytest
from flax import nnx
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mmpretrain
from mmpretrain.config import TaskConfig
from mmpretrain.data.batch import empty_batch, put_clip
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.frozen import INVERSE_PENALTIES
from mmpretrain.files import DamagedError
from mmpretrain.run.layout import training_stages
from mmpretrain.run.run import Run
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.finetune import finetune
from mmpretrain.stages.report import report
from tests.stages.tones import PITCH_HZ


@pytest.fixture(scope="module")
def run_of(tone_run):
    return functools.partial(tone_run, classifier="frozen_linear")


@pytest.fixture(scope="module")
def done(run_of, tmp_path_factory):
    """A run that is fitted and tested."""
    run = run_of(tmp_path_factory.mktemp("runs") / "frozen")
    finetune(run)
    return run, evaluate(run)


def result_of(run: Run, variant: str, fold: int) -> dict:
    return json.loads((run.workdir / "finetune" / variant / f"fold{fold}" / "result.json").read_text())


@pytest.fixture(scope="module")
def by_hand(done, tone_encoder) -> np.ndarray:
    """[N, D]: of each layer of the exported encoder the mean and the deviation over the frames of a clip."""
    table, loaded, features = Finetuning(done[0]).table, mmpretrain.load_encoder(tone_encoder), []
    layers_of = nnx.jit(lambda module, batch: module.all_layers(module.embed_batch(batch), batch.valid_BT))
    for row in range(len(table)):
        clip = table.load(row)
        batch = empty_batch(1, clip.num_frames, loaded.config)
        put_clip(batch, 0, clip, range(clip.num_frames), ["audio"], loaded.config)
        layers = [
            np.asarray(layers_of(loaded.module, batch)[0, 0]),
            *(loaded.features(clip.audio, layer=layer) for layer in (1, 2)),
        ]
        features.append(np.concatenate([part for x in layers for part in (x.mean(0), x.std(0))]))
    return np.stack(features)


@pytest.mark.parametrize("select_by", ["emotion/ua", "emotion/loss"])
def test_it_is_what_scikit_learn_finds_on_exported_features(done, run_of, by_hand, tmp_path, select_by):
    run, evaluation = done
    if select_by != "emotion/ua":
        run = run_of(tmp_path / "run", select_by=select_by, compare_from_scratch=False)
        finetune(run)
        evaluation = evaluate(run)
    finetuning = Finetuning(run)
    labels, features = finetuning.labels["emotion"], by_hand
    for number in finetuning.folds:
        fold, found = finetuning.fold(number), []
        for strength in INVERSE_PENALTIES:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
            model.fit(features[fold.train], labels[fold.train])
            x, y = features[fold.validation], labels[fold.validation]
            ua = recall_score(y, model.predict(x), average="macro")
            loss = log_loss(y, model.predict_proba(x))
            found.append((-ua if select_by == "emotion/ua" else loss, strength, ua, loss, model))
        _, strength, ua, loss, model = min(found, key=lambda entry: entry[0])
        result = result_of(run, "pretrained", number)
        assert result["inverse_penalty"] == strength
        assert result["validation/emotion/ua"] == pytest.approx(ua)
        assert result["validation/emotion/loss"] == pytest.approx(loss, rel=1e-3)
        with open(run.workdir / "evaluation" / f"pretrained-fold{number}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        words, shares = list(PITCH_HZ), model.predict_proba(features[fold.test])
        assert [row["predicted"] for row in rows] == [words[i] for i in model.predict(features[fold.test])]
        np.testing.assert_allclose([[float(row[w]) for w in words] for row in rows], shares, atol=2e-3)
        hits = recall_score(labels[fold.test], model.predict(features[fold.test]), average="macro")
        assert evaluation["folds"][number - 1]["ua"] == pytest.approx(hits)


def test_a_planted_label_is_found_and_the_untrained_encoder_stands_beside_it(done, capsys):
    run, evaluation = done
    assert evaluation["classifier"] == "frozen_linear"
    assert evaluation["pretrained"]["ua"] > 0.9
    assert sum(evaluation["pretrained"]["support"]) == sum(evaluation["scratch"]["support"]) == 54
    assert evaluation["scratch"]["over_folds"]["num_folds"] == 3
    assert result_of(run, "scratch", 1)["training_labels"] == {"emotion": dict.fromkeys(PITCH_HZ, 6)}
    capsys.readouterr()
    report(run)
    said = capsys.readouterr().out
    assert "untrained encoder, frozen, logistic regression" in said
    assert "pretrained encoder, frozen, logistic regression" in said
    assert training_stages(run.config) == [], "nothing to replay"


def test_it_leaves_with_the_encoder_and_says_elsewhere_what_it_said_here(done):
    run, _ = done
    finetuning, folder = Finetuning(run), run.workdir / "finetune"
    encoder = mmpretrain.load_encoder(folder / "pretrained" / "fold2" / "encoder")
    with open(run.workdir / "evaluation" / "pretrained-fold2.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, index in zip(rows[:4], finetuning.fold(2).test[:4], strict=True):
        said = encoder.outputs(finetuning.table.load(int(index)).audio).answers["emotion"]
        np.testing.assert_allclose(said, [float(row[word]) for word in PITCH_HZ], atol=2e-3)
    assert not (folder / "scratch" / "fold2" / "encoder").exists()
    card = (folder / "pretrained" / "fold2" / "encoder" / "README.md").read_text()
    assert "| chosen | the penalty of the regression that is best by emotion/ua on the validation clips |" in card
    assert "| tests | logistic regression on the frozen encoder; speakers-3" in card


def test_a_number_is_learned_too_and_stays_behind(run_of, tmp_path, capsys):
    task = TaskConfig("height", kind="value", range=(0.0, 1.0))
    run = run_of(tmp_path, tasks=(task,), select_by="height/ccc", folds=(1,), compare_from_scratch=False)
    finetune(run)
    assert "regressions of classes leave, and it is of kind 'value'" in capsys.readouterr().err
    assert evaluate(run)["tasks"]["pretrained"]["height/ccc"]["pooled"] > 0.8
    assert mmpretrain.load_encoder(run.workdir / "finetune" / "pretrained" / "fold1" / "encoder").tasks == ()


def test_it_is_taken_up_where_it_stopped_and_goes_on_to_the_same_heads(done, run_of, tmp_path, capsys):
    run, evaluation = done
    again = run_of(tmp_path / "again")
    shutil.copytree(run.workdir, again.workdir)
    heads = again.workdir / "finetune" / "pretrained" / "fold2" / "classifier" / "heads.npz"
    before = heads.read_bytes()
    shutil.rmtree(heads.parent)
    for left in (again.workdir / "finetune" / "pretrained" / "fold2", again.workdir / "evaluation"):
        (left / "result.json").unlink()
    capsys.readouterr()
    again.config.finetune.num_steps = 77  # which is not read
    finetune(again)
    assert heads.read_bytes() == before
    assert capsys.readouterr().err.count("done already") == 5
    timing = ("wall_time_sec", "goodput")
    assert {k: v for k, v in evaluate(again).items() if k not in timing} == {
        k: v for k, v in evaluation.items() if k not in timing
    }


def test_what_does_not_go_with_it_is_refused(done, run_of, tmp_path):
    run, _ = done
    other = run_of(run.workdir, label_share=0.5)
    for stage in (finetune, evaluate):
        with pytest.raises(ValueError, match=r"another recipe \(.*finetune\.label_share was 1\.0 and is 0\.5"):
            stage(other)
    again = run_of(tmp_path / "again")
    shutil.copytree(run.workdir / "finetune", again.workdir / "finetune")
    shutil.rmtree(again.workdir / "finetune" / "scratch" / "fold3" / "classifier")
    with pytest.raises(FileNotFoundError, match=r"classifier does not exist: run `mmpretrain finetune` with this"):
        evaluate(again)
    heads = again.workdir / "finetune" / "pretrained" / "fold1" / "classifier" / "heads.npz"
    changed = bytearray(heads.read_bytes())
    changed[len(changed) // 2] ^= 1
    heads.write_bytes(changed)
    with pytest.raises(DamagedError, match=r"heads\.npz is damaged.*remove its fold's folder and run"):
        evaluate(again)


def test_a_choice_on_the_test_clips_is_marked_wherever_its_figures_stand(run_of, tmp_path, capsys):
    run = run_of(tmp_path / "run", selection="test-best", folds=(2,), compare_from_scratch=False)
    finetune(run)
    evaluation = evaluate(run)
    result = result_of(run, "pretrained", 2)
    assert result["validation/emotion/ua"] == pytest.approx(evaluation["folds"][0]["ua"]), "chosen by what is tested"
    assert evaluation["selection"] == "test-best"
    assert "18 clips with their label" in evaluation["unlabelled_test_seen"]
    capsys.readouterr()
    report(run)
    for shown in (capsys.readouterr().out, (run.workdir / "report.html").read_text()):
        assert "speakers-3 v1, test-best, model chosen on: THE TEST CLIPS" in shown
        assert "classifier [test-best]" in shown
    with pytest.raises(ValueError, match=r"finetune\.selection='last'; it must be val or test-best with finetune"):
        run_of(tmp_path / "other", selection="last")
