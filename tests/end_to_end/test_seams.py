"""What later work plugs in: a third modality and a second task, registered here alone, go through every stage."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

import mmpretrain
from mmpretrain.config import CorpusConfig, TaskConfig, emotion, mfcc
from mmpretrain.data.inputs import INPUTS, Input
from mmpretrain.data.labels import ARRAYS
from mmpretrain.evaluation.tasks import TASK_METRICS, TaskMetrics
from mmpretrain.models.frontends import FRONTENDS
from mmpretrain.models.heads import ClipHead
from mmpretrain.models.layers import linear
from mmpretrain.objectives.task_losses import TASK_LOSSES, TaskLoss
from mmpretrain.observe.metric_log import read_metrics
from mmpretrain.records import Clip
from mmpretrain.run.run import Run
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.export import export
from mmpretrain.stages.finetune import finetune
from mmpretrain.stages.pretrain import pretrain
from mmpretrain.stages.targets import make_targets
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_round, tiny_run


class GazeFrontend(nnx.Module):
    """Where the eyes look: two angles a frame."""

    def __init__(self, config, *, rngs):
        self.proj = linear(2, config.width, (None, "embed"), dtype=config.dtype, rngs=rngs)

    def prepare(self, raw, valid_BT):
        return jax.numpy.where(valid_BT[..., None], raw, 0)

    def __call__(self, x, counted_BT, *, train):
        return self.proj(x)


def make_gaze(clip, frames, config, augmentation):
    return np.deg2rad(clip.tracks["eyes"][frames.start : frames.stop])


@pytest.fixture
def gaze(monkeypatch):
    monkeypatch.setitem(FRONTENDS, "gaze", GazeFrontend)
    described = "eyes float32 [T, 2], angles of the gaze in degrees"
    monkeypatch.setitem(INPUTS, "gaze", Input("eyes", lambda c: (2,), np.float32, lambda c: described, make_gaze))


def squared_error(output_B1, label_B, smoothing):
    error_B = (output_B1[:, 0] - jax.numpy.nan_to_num(label_B)) ** 2
    return error_B, ~jax.numpy.isnan(label_B), {"squared_error": error_B}


def correlation(labels_N, outputs_N1, task):
    return {"correlation": float(np.corrcoef(labels_N, outputs_N1[:, 0])[0, 1])}


@pytest.fixture
def values(monkeypatch):
    """Labels that are numbers."""
    monkeypatch.setitem(ARRAYS, "value", lambda column_N, task: column_N.astype(np.float32))
    head = TaskLoss(lambda model, task, rngs: ClipHead(model, 1, rngs=rngs), squared_error)
    monkeypatch.setitem(TASK_LOSSES, "value", head)
    monkeypatch.setitem(TASK_METRICS, "value", TaskMetrics({"correlation": "higher"}, correlation))


def clips():
    """Sound and gaze of six people; some clips have no sound, and some no arousal."""
    random = np.random.default_rng(0)
    splits = ("train", "train", "train", "train", "validation", "test")
    for i in range(24):
        labels = {"emotion": ("happy", "sad")[i // 6 % 2]} | ({"arousal": i / 24} if i % 4 else {})
        eyes = {"eyes": random.normal(size=(12 + i % 5, 2)).astype(np.float32)}
        clip = make_clip(
            f"c{i}", 12 + i % 5, size=IMAGE_SIZE, speaker=f"s{i % 6}", split=splits[i % 6], labels=labels, tracks=eyes
        )
        noise = (random.normal(size=len(clip.audio)) * 3000).astype(np.int16)
        yield dataclasses.replace(clip, audio=noise[:0] if i % 8 == 7 else noise)


@pytest.fixture
def config(tmp_path, gaze):
    labels = {"emotion": "class", "arousal": "value"}
    corpus = write_corpus(tmp_path / "corpus", list(clips()), IMAGE_SIZE, IMAGE_SIZE + 16, labels)
    round_ = tiny_round(targets=mfcc(5, fit_restarts=1, fit_passes=3), num_steps=4)
    config = tiny_run(workdir=str(tmp_path / "run"), model=tiny_model("audio", "gaze"), rounds=(round_,))
    config.data.corpora = (CorpusConfig(str(corpus)),)
    config.data.batch_multiple = jax.device_count()
    config.finetune.tasks = (emotion("happy", "sad"),)
    config.finetune.num_steps, config.finetune.eval_every, config.finetune.batch_frames = 4, 2, 200
    config.finetune.compare_from_scratch, config.finetune.optimizer.warmup_steps = False, 0
    config.log_every = 1
    return config


@pytest.mark.slow
def test_a_third_modality_trains_evaluates_and_is_exported(config):
    run = Run(config)
    make_targets(run.round(1))
    assert pretrain(run.round(1))["loss"] > 0
    finetune(run)
    assert evaluate(run)["pretrained"]["support"] == [2, 2]
    assert export(run)["max_error"] < 1e-4
    folder = run.workdir / "export" / "encoder"
    assert "eyes float32 [T, 2]" in (folder / "README.md").read_text()
    encoder = mmpretrain.load_encoder(folder)
    sound, eyes = np.ones(640 * 10, np.int16), np.ones((10, 2), np.float32)
    both, alone = encoder.features(audio=sound, eyes=eyes), encoder.features(eyes=eyes)
    assert both.shape == alone.shape == (10, 16)
    assert np.abs(both - encoder.features(audio=sound, eyes=30 * eyes)).max() > 1e-3, "the gaze is looked at"
    with pytest.raises(ValueError, match=r"this encoder is of audio and gaze: features\(\) needs audio or eyes"):
        encoder.features()
    none = np.zeros((0, 1, 1), np.uint8)
    assert encoder.takes(Clip("", sound[:0], none, none, {"eyes": eyes})), "by the track, whatever the modality's name"
    assert not encoder.takes(Clip("", sound[:0], none, none, {"nose": eyes}))


def test_a_modality_that_there_is_not_is_refused_before_anything_runs(config):
    config.model.modalities = ("audio", "smell")
    with pytest.raises(ValueError, match=r"model\.modalities=.*'smell' is none of audio, video, gaze"):
        Run(config)


def test_a_step_serves_two_tasks_and_a_clip_may_lack_one_label(config, values):
    config.rounds, config.finetune.encoder = (), "none"
    config.finetune.tasks += (TaskConfig(name="arousal", kind="value", weight=2.0),)
    config.finetune.select_by = "arousal/correlation"
    run = Run(config)
    finetune(run)
    evaluate(run)
    records = read_metrics(run.workdir / "metrics.jsonl")
    step = next(record for record in records if record["step"] == 4 and "train/loss" in record)
    whole = step["train/emotion/nll"] + 2 * step["train/arousal/squared_error"]
    assert 0 < step["train/loss"] <= whole * (1 + 1e-5), "a clip without arousal counts with its emotion alone"
    assert any("validation/arousal/correlation" in record for record in records)
