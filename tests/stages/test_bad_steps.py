"""Runs with bad steps, of which the best state is kept, and that are replayed."""

import copy
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import CorpusConfig, RunConfig, as_dict, mfcc
from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.encoders.folder import read_config
from mmpretrain.files import write_json
from mmpretrain.observe.metric_log import read_metrics
from mmpretrain.run.batches import TrainingBatches
from mmpretrain.run.layout import recipe_of_run, saved_steps
from mmpretrain.run.run import Run
from mmpretrain.stages.pretrain import BEST_ENCODER, pretrain
from mmpretrain.stages.targets import make_targets
from mmpretrain.tools.replay import replay
from mmpretrain.train.checkpoint import read
from tests.corpus_fixture import make_clip, write_corpus
from tests.metric_records import without_timings
from tests.slow import others_slow
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_round, tiny_run

NUM_STEPS = 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    random, clips = np.random.default_rng(0), []
    for i in range(20):
        clip = make_clip(
            f"clip{i}", 14 + i % 5, size=IMAGE_SIZE, video=False, split="validation" if i % 5 == 0 else "train"
        )
        noise = (random.normal(size=len(clip.audio)) * 3000).astype(np.int16)
        clips.append(dataclasses.replace(clip, audio=noise))
    return write_corpus(tmp_path_factory.mktemp("corpora") / "noise", clips, IMAGE_SIZE, IMAGE_SIZE + 16)


@pytest.fixture
def config(corpus, tmp_path) -> RunConfig:
    targets = mfcc(5, fit_share=1.0, fit_passes=2, fit_restarts=1)
    config = tiny_run(
        workdir=str(tmp_path / "run"), model=tiny_model("audio", dropout=0.1), finetune=None, log_every=1,
        rounds=(tiny_round(targets=targets, num_steps=NUM_STEPS),), validation_every=2,
    )  # fmt: skip
    config.data.corpora = (CorpusConfig(str(corpus)),)
    config.data.batch_multiple = jax.device_count()
    config.data.num_workers = 0
    config.data.batch_frames = 80
    config.checkpoint.every_steps, config.checkpoint.keep = 3, 10
    return config


def train(config: RunConfig) -> list[dict]:
    """Targets and pretraining; the records without timings."""
    run = Run(config)
    run.announce()
    make_targets(run.round(1))
    pretrain(run.round(1))
    return records(config)


def records(config: RunConfig) -> list[dict]:
    file = f"{config.workdir}/metrics.jsonl"
    return [without_timings(record) for record in read_metrics(file)]


def breaking(step: int):
    """A patched `TrainingBatches.__call__`: one clip of that step's batch has no numbers."""

    def batches(original):
        def call(self, first_step):
            for number, batch in enumerate(original(self, first_step), start=first_step + 1):
                if number == step:
                    batch.inputs["audio"][1, 2, 3] = np.nan
                yield batch

        return call

    return batches


@pytest.fixture
def break_step(monkeypatch):
    original = TrainingBatches.__call__
    return lambda step: monkeypatch.setattr(TrainingBatches, "__call__", breaking(step)(original))


@pytest.mark.slow
def test_a_run_stops_before_the_bad_step_and_goes_on_past_it_when_told_to(config, break_step):
    break_step(5)
    straight = copy.deepcopy(config)
    straight.workdir += "-straight"
    straight.health.skip_bad_steps = 1
    expected = train(straight)
    steps = {r["step"]: r for r in expected if "train/loss" in r}
    assert steps[5]["train/loss"] is None
    assert [steps[step]["train/passed_over"] for step in range(1, NUM_STEPS + 1)] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert steps[6]["train/learning_rate"] == pytest.approx(1e-2 * (NUM_STEPS - 4) / NUM_STEPS), "the fifth update"

    config.log_every = 100  # notices at the next validation, a step later
    with pytest.raises(FloatingPointError, match=r"stopped before step 5 \(loss nan") as stopped:
        train(config)
    folder = Run(config).workdir / "round1" / "pretrain"
    assert saved_steps(folder / "checkpoints") == [3, 4]
    clips = Run(config).round(1).training().batches.clip_ids(5)
    assert f"clips {', '.join(clips[:6])}" in str(stopped.value)
    assert f"mmpretrain replay {config.workdir} --stage=round1/pretrain --step=5" in str(stopped.value)

    with pytest.raises(FloatingPointError, match=r"stopped before step 5 \(loss nan"):
        train(config)  # the same command stops there again
    config.log_every, config.health.skip_bad_steps = 1, 1
    ours = [record for record in train(config) if record["step"] > 4]
    assert ours == [record for record in expected if record["step"] > 4]


@pytest.mark.slow
def test_replay_names_where_the_first_number_is_missing_and_leaves_the_run_alone(config, break_step, capsys):
    break_step(5)
    with pytest.raises(FloatingPointError):
        train(config)
    before = {file: file.read_bytes() for file in Run(config).workdir.rglob("*") if file.is_file()}
    run = Run(recipe_of_run(Path(config.workdir)))
    report = replay(run, 5, None)
    assert report["bad"]
    assert report["first_not_finite"] == f"input: audio of clip {run.round(1).training().batches.clip_ids(5)[1]}"
    layers = {entry["layer"]: entry for entry in report["layers"]}
    assert next(iter(layers)) == "encoder.frontends.audio.proj"
    assert layers["encoder.frontends.audio.proj"]["parameters"]["not_finite"] == 0
    assert layers["encoder.frontends.audio.proj"]["activations"]["not_finite"] == config.model.width
    assert layers["encoder.frontends.audio.proj"]["gradients"]["not_finite"] > 0
    shown = capsys.readouterr().out
    assert "Step 5 of round1/pretrain: BAD" in shown
    assert f"the first that is not finite: {report['first_not_finite']}" in shown
    left = {file: file.read_bytes() for file in run.workdir.rglob("*") if file.is_file()}
    new = set(left) - set(before)
    assert {str(file.relative_to(run.workdir)) for file in new} == {"replays/round1-pretrain-step5.json"}
    assert all(left[file] == content for file, content in before.items())
    written = json.loads(new.pop().read_text())
    assert written["metrics"]["loss"] == "nan"
    with pytest.raises(ValueError, match=r"--step=7: step 5 is bad and stops the run before that; replay --step=5"):
        replay(run, 7, "round1/pretrain")


def test_replay_has_the_numbers_that_the_run_had_bit_for_bit(config):
    logged = {r["step"]: r for r in train(config) if "train/loss" in r}
    run = Run(recipe_of_run(Path(config.workdir)))
    for step in (1, 6, NUM_STEPS):  # from the start, from checkpoint 3 over two more, from a checkpoint just before
        report = replay(run, step, "round1/pretrain")
        record = {name.removeprefix("train/"): value for name, value in logged[step].items() if name[:6] == "train/"}
        assert report["metrics"] == {name: record[name] for name in report["metrics"]}
        assert report["logged"] == {name: record[name] for name in ("loss", "grad_norm")}
        # All layers together have the norm of the whole, to rounding: another program computes them.
        norms = [entry["gradients"]["norm"] for entry in report["layers"]]
        assert np.sqrt(np.square(norms).sum()) == pytest.approx(record["grad_norm"], rel=1e-4)
        assert not report["bad"]
        assert report["first_not_finite"] == ""


@pytest.mark.parametrize(
    ("step", "stage", "words"),
    [
        (NUM_STEPS + 1, "round1/pretrain", rf"--step=9: round1/pretrain has the steps 1 to {NUM_STEPS}"),
        (1, "round2/pretrain", "--stage=round2/pretrain: this run trains in round1/pretrain"),
        (1, None, "no stage has a checkpoint; name one, e.g. --stage=round1/pretrain"),
    ],
)
def test_what_cannot_be_replayed_is_said(config, step, stage, words):
    run = Run(config)
    make_targets(run.round(1))
    with pytest.raises(ValueError, match=words):
        replay(run, step, stage)


def test_a_stage_of_another_recipe_than_the_last_command_had_is_not_replayed(config):
    """That command may have been refused for it: the steps would be of other batches, say, and look as if they fit."""
    config.rounds[0].num_steps = 1
    train(config)
    config.data.flip, config.log_every = False, 5
    Run(config).announce()
    with pytest.raises(ValueError, match=r"round1/pretrain was made with another recipe \(data.flip was True and is F"):
        replay(Run(recipe_of_run(Path(config.workdir))), 1, None)


def test_a_folder_that_is_no_run_is_refused(tmp_path, config):
    with pytest.raises(ValueError, match=r"is no run: it has no config\.json"):
        recipe_of_run(tmp_path)
    write_json(tmp_path / "config.json", as_dict(config))
    assert recipe_of_run(tmp_path) == dataclasses.replace(config, workdir=str(tmp_path))


@pytest.mark.parametrize("metric", others_slow(["masked_accuracy", "loss"], "masked_accuracy"))
def test_the_best_encoder_is_that_of_the_best_validation(config, metric):
    config.checkpoint.best_by, config.checkpoint.every_steps = metric, 1
    # The rate rises to the end, and so high that the last state is not the best.
    config.rounds[0].optimizer.peak_lr, config.rounds[0].optimizer.warmup_steps = 1.0, NUM_STEPS
    config.health.max_loss_rise = 0.0
    train(config)
    values = {r["step"]: r[f"validation/{metric}"] for r in records(config) if f"validation/{metric}" in r}
    assert sorted(values) == [2, 4, 6, 8]
    best = (max if metric == "masked_accuracy" else min)(values, key=values.get)
    assert best != NUM_STEPS, "or this shows nothing"
    run = Run(config)
    result = pretrain(run.round(1))["best"]
    assert (result["by"], result["step"], result[metric]) == (metric, best, values[best])

    folder = run.workdir / "round1" / "pretrain"
    trainer = run.round(1).trainer
    for step, name in ((best, BEST_ENCODER), (NUM_STEPS, "encoder")):
        state = read(folder / "checkpoints", step, trainer.init(0))
        trained = nnx.state(trainer.model(state).encoder, nnx.Param)
        exported = nnx.state(load_encoder(folder / name).module, nnx.Param)
        for a, b in zip(*map(jax.tree.leaves, (trained, exported)), strict=True):
            np.testing.assert_array_equal(a, b)
    lineages = [read_config(folder / name)[1] for name in (BEST_ENCODER, "encoder")]
    assert lineages[0]["fingerprint"] != lineages[1]["fingerprint"]
    assert lineages[0]["steps"] == best


def test_the_best_needs_validation_clips(config):
    config.checkpoint.best_by = "masked_accuracy"
    config.data.exclude_speakers = ()
    run = Run(config)
    train_clips, valid_clips = run.clips
    run.clips = (train_clips, valid_clips.select(np.zeros(0, int)))
    make_targets(run.round(1))
    with pytest.raises(ValueError, match=r"checkpoint\.best_by='masked_accuracy', but round 1 has no validation clips"):
        pretrain(run.round(1))
