"""Units from few labels: the stage's figures, what is chosen on what, and frames as a task of fine-tuning."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import CorpusConfig, TaskConfig, UnitsConfig, emotion
from mmpretrain.downstream.units import Units
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.observe.metric_log import read_metrics
from mmpretrain.records import SAMPLES_PER_FRAME
from mmpretrain.run.run import Run
from mmpretrain.stages.finetune import finetune
from mmpretrain.stages.report import report
from mmpretrain.stages.units import units
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_run

PITCH_HZ = (0, 400, 1100, 2600)
TASK = TaskConfig("units", kind="frames", classes=("_", "a", "b", "c"), silence="_")


def spoken(i, split):
    """A clip whose frames have the pitch of their unit."""
    random = np.random.default_rng(i)
    units = np.repeat(random.permutation(np.arange(8) % 4), random.integers(1, 4, 8)).astype(np.int32)[:16]
    samples = np.repeat(units, SAMPLES_PER_FRAME)
    phase = np.cumsum(np.array(PITCH_HZ)[samples]) * 2 * np.pi / 16_000
    sound = 3000 * np.sin(phase) * (samples > 0) + 100 * random.normal(size=len(samples))
    labels = {"emotion": ("happy", "sad")[i % 2]}
    clip = make_clip(
        f"c{i:02}", len(units), video=False, size=IMAGE_SIZE, split=split, speaker=f"{split}{i % 3}", labels=labels,
        tracks={"units": units},
    )  # fmt: skip
    return dataclasses.replace(clip, audio=sound.astype(np.int16))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    splits = ["train"] * 9 + ["validation"] * 4 + ["test"] * 6
    clips = [spoken(i, split) for i, split in enumerate(splits)]
    return write_corpus(tmp_path_factory.mktemp("corpora") / "spoken", clips, IMAGE_SIZE, IMAGE_SIZE + 16)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders") / "encoder"
    save_encoder(folder, AVEncoder(tiny_model("audio"), rngs=nnx.Rngs(5)), lineage={"fingerprint": "of the test"})
    return folder


def run_of(corpus, folder, path, **changes) -> Run:
    fields = dict(
        task=TASK, encoder=str(folder), labelled_clips=(0, 3), draws=2, inputs=("audio",), finetuned=True,
        num_steps=20, eval_every=10, batch_frames=100,
    )  # fmt: skip
    part = UnitsConfig(**fields | changes)
    part.optimizer.warmup_steps, part.optimizer.peak_lr = 0, 1e-2
    config = tiny_run(workdir=str(path), model=tiny_model("audio"), rounds=(), units=part)
    config.finetune = None
    config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(corpus)),), jax.device_count()
    return Run(config)


def test_every_classifier_has_its_errors_and_the_summary_has_them(corpus, encoder, tmp_path):
    run = run_of(corpus, encoder, tmp_path / "run")
    found = units(run)
    assert [entry["labelled_clips"] for entry in found["units"]] == [3, 9]
    for entry in found["units"]:
        for name in ("pretrained", "scratch", "mfcc", "untrained", "finetuned"):
            figure = entry[f"{name}_error"]
            assert figure.keys() == {"mean", "low", "high"}
            assert 0 <= figure["low"] <= figure["mean"] <= figure["high"]
            assert len(entry["chosen"][name]) == entry["draws"] == 2
    everything = found["units"][-1]
    assert everything["mfcc_error"]["mean"] < 0.25, "a pitch is easily told"
    assert everything["scratch_accuracy"] > 0.35, "and learned"
    ratio = everything["scratch_error"]["mean"] / everything["pretrained_error"]["mean"]
    assert everything["times_the_errors"]["scratch"]["mean"] == pytest.approx(ratio)
    assert (found["resampled"], found["unlabelled_test_seen"]) == ("3 speakers", "unknown (of the test)")
    assert units(run) == found, "what is done stays"
    report(run)
    summary = json.loads((run.workdir / "summary.json").read_text())
    assert summary["units"] == found["units"]
    assert "Units from few labels" in (run.workdir / "report.html").read_text()


def test_an_encoder_is_read_with_the_frames_beside_as_plain_features_are(corpus, encoder, tmp_path):
    of_run = Units(run_of(corpus, encoder, tmp_path / "run"))
    mine, plain = (of_run.features(name, ("audio",)) for name in ("pretrained", "mfcc"))
    ends = [{name.partition(",")[2] for name in features.names} for features in (mine, plain)]
    assert ends[0] == ends[1] == {"", " context 2"}
    alone, beside = (mine.of(mine.names.index(name), 3) for name in ("layer 1", "layer 1, context 2"))
    np.testing.assert_array_equal(beside[4], alone[2:7].ravel())


def test_more_clips_of_a_draw_hold_those_of_fewer_and_draws_differ(corpus, encoder, tmp_path):
    part = Units(run_of(corpus, encoder, tmp_path, labelled_clips=(3, 5, 100)))
    assert part.numbers == (3, 5, 9)
    for draw in (0, 1):
        few, more, most = (set(part.rows(clips, draw)) for clips in part.numbers)
        assert few < more < most
    assert set(part.rows(3, 0)) != set(part.rows(3, 1))
    assert not set(part.validation) & set(part.rows(9, 0)) | set(part.test) & set(part.rows(9, 0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ("video",)}, r"units\.inputs='video': 'video' is none of model\.modalities=\('audio',\)"),
        ({"task": dataclasses.replace(TASK, silence="x")}, r"units\.task\.silence='x'; it must be one of its classes"),
        ({"task": emotion("happy", "sad")}, r"units\.task\.kind='class'; it must be .*: 'frames'"),
        ({"task": dataclasses.replace(TASK, classes=())}, r"units\.task\.classes=\(\); it must be two or more"),
        ({"encoder": "last_round"}, r"units\.encoder='last_round', but this recipe has no rounds"),
        ({"protocol": "speakers-12"}, r"have only 9 speakers"),
    ],
)
def test_what_cannot_be_is_refused(corpus, encoder, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        units(run_of(corpus, encoder, tmp_path, **changes))


@pytest.mark.slow
def test_frames_are_a_task_of_finetuning_beside_classes(corpus, tmp_path):
    config = tiny_run(workdir=str(tmp_path / "run"), model=tiny_model("audio"), rounds=())
    config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(corpus)),), jax.device_count()
    config.finetune = dataclasses.replace(
        config.finetune, encoder="none", tasks=(emotion("happy", "sad"), TASK), select_by="units/error", num_steps=4,
        eval_every=2, batch_frames=100,
    )  # fmt: skip
    config.finetune.optimizer.warmup_steps, config.log_every = 0, 1
    run = Run(config)
    finetune(run)
    records = read_metrics(run.workdir / "metrics.jsonl")
    chosen = [record["validation/units/error"] for record in records if "validation/units/error" in record]
    assert len(chosen) == 2
    assert all(0 < record["train/units/accuracy"] < 1 for record in records if "train/units/accuracy" in record)
    result = json.loads((run.workdir / "finetune/scratch/fold1/result.json").read_text())
    assert result["validation/units/error"] == pytest.approx(min(chosen))
