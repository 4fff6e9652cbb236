"""Fine-tuning whose heads start as the classifier `frozen_linear`: step 0 says what that says, and may be chosen."""

import functools
import json

import numpy as np
import pytest

from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.frozen import Frozen, fit_heads
from mmpretrain.downstream.starting import training_of
from mmpretrain.encoders.weights import load_weights
from mmpretrain.stages.finetune import finetune
from mmpretrain.tools.replay import replay


@pytest.fixture
def run_of(tone_run):
    fields = dict(folds=(2,), num_steps=4, head="frozen_linear", select_by="emotion/loss", label_share=0.5)
    return functools.partial(tone_run, **fields)


@pytest.mark.parametrize("variant", ["pretrained", "scratch"])
def test_before_the_first_step_it_says_what_the_frozen_classifier_says(run_of, tmp_path, variant):
    finetuning = Finetuning(run_of(tmp_path))
    training, fold = training_of(finetuning, variant, 2), finetuning.fold(2)
    state = training.initialize(training.trainer.init(training.seed))
    said = finetuning.predictor(variant)(state, fold.test)["emotion"]
    if variant == "pretrained":
        rows = np.concatenate([fold.train, fold.validation, fold.test])
        features = Frozen(finetuning).features(variant, rows)
        heads, _ = fit_heads(finetuning, 2, features[: -len(fold.test)])
        np.testing.assert_allclose(said, heads["emotion"].logits(features[-len(fold.test) :]), rtol=2e-4, atol=2e-4)
    assert (said.argmax(-1) == finetuning.labels["emotion"][fold.test]).mean() > 0.8, "the planted label is found"


def test_what_gets_worse_by_training_ends_where_it_began(run_of, tmp_path):
    run = run_of(tmp_path, compare_from_scratch=False)
    run.config.finetune.optimizer.peak_lr, run.config.health.max_loss_rise = 10.0, 0.0  # nothing good can come of it
    finetune(run)
    folder = run.workdir / "finetune" / "pretrained" / "fold2"
    result = json.loads((folder / "result.json").read_text())
    assert result["step"] == 0
    records = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
    losses = {r["step"]: r["validation/emotion/loss"] for r in records if "validation/emotion/loss" in r}
    assert list(losses) == [0, 2, 4]
    assert min(losses.values()) == losses[0] == pytest.approx(result["validation/emotion/loss"])


@pytest.mark.slow
def test_it_is_learned_on_from_there_and_a_step_can_be_replayed(run_of, tmp_path):
    run = run_of(tmp_path, compare_from_scratch=False, encoder_rate=0.1, selection="last")
    finetune(run)
    assert json.loads((run.workdir / "finetune" / "pretrained" / "fold2" / "result.json").read_text())["step"] == 4
    records = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
    (logged,) = (r["train/loss"] for r in records if r["step"] == 1 and "train/loss" in r)
    assert replay(run, 1, "finetune/pretrained/fold2")["metrics"]["loss"] == logged
    finetuning = Finetuning(run)
    training = training_of(finetuning, "pretrained", 2)
    fresh = training.initialize(training.trainer.init(training.seed))
    before = training.trainer.model(fresh).heads["emotion"]
    load_weights(
        run.workdir / "finetune" / "pretrained" / "fold2" / "classifier", model := training.trainer.model(fresh)
    )
    after = model.heads["emotion"]
    np.testing.assert_array_equal(before.mean[...], after.mean[...])
    np.testing.assert_array_equal(before.scale[...], after.scale[...])
