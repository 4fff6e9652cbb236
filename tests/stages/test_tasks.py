"""Labels of every kind at once through fine-tuning and evaluation, on an encoder that learns by adapters alone."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

import mmpretrain
from mmpretrain.__main__ import main
from mmpretrain.config import CorpusConfig, FinetuneConfig, OptimizerConfig, TaskConfig, emotion
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.trained import trained_outputs
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.observe.metric_log import read_metrics
from mmpretrain.run.run import Run
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.finetune import finetune
from mmpretrain.stages.folds import run_folds
from mmpretrain.stages.report import report
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import IMAGE_SIZE, initial, tiny_model, tiny_run

COLUMNS = {
    "emotion": "class", "votes": "classes", "tags": "classes", "arousal": "value", "humour": "class", "stress": "value",
}  # fmt: skip
TASKS = (
    TaskConfig("perceived", "votes", kind="votes", classes=("happy", "sad"), class_weights="inverse", loss="focal"),
    emotion("happy", "sad", merge=("excited=happy",), pooling="mean", weight=0.5),
    TaskConfig("tags", kind="classes", classes=("x", "y"), pooling="attention"),
    TaskConfig("arousal", kind="value", range=(0.0, 1.0)),
    TaskConfig("humour", kind="binary", classes=("no", "yes")),
    TaskConfig("stress", kind="ordinal", classes=("0", "1", "2")),
    TaskConfig("valence", kind="values", loss="squared"),
    TaskConfig("likeness", "emotion", kind="embedding", classes=("happy", "sad"), embedding_dim=4),
)


def labels_of(i):
    votes = (("happy", "happy", "sad"), ("sad", "sad"), ("happy", "sad"))[i // 6 % 3]
    labels = {
        "emotion": ("happy", "sad", "excited")[i // 6 % 3], "votes": votes,
        "tags": (("x",), ("x", "y"), ("y",))[i // 6 % 3],
        "arousal": i / 36, "humour": ("no", "yes")[i // 6 % 2], "stress": i // 6 % 3,
    }  # fmt: skip
    return labels if i % 5 else {name: labels[name] for name in ("votes", "arousal")}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Sound of six people, a third of it with votes that tie, a fifth without most labels."""
    random, clips = np.random.default_rng(0), []
    splits = ("train", "train", "train", "train", "validation", "test")
    for i in range(36):
        curve = {} if i % 7 == 0 else {"valence": random.uniform(-1, 1, 12).astype(np.float32)}
        clip = make_clip(
            f"c{i}", 12, video=False, size=IMAGE_SIZE, speaker=f"s{i % 6}", split=splits[i % 6], labels=labels_of(i),
            tracks=curve,
        )  # fmt: skip
        clips.append(dataclasses.replace(clip, audio=(random.normal(size=len(clip.audio)) * 3000).astype(np.int16)))
    return write_corpus(tmp_path_factory.mktemp("tasks") / "corpus", clips, IMAGE_SIZE, IMAGE_SIZE + 16, COLUMNS)


def run_of(path, corpus, **changes):
    fields = dict(
        num_steps=2, eval_every=1, batch_frames=200, compare_from_scratch=False, dropout=0.0,
        optimizer=OptimizerConfig(schedule="tri_stage", peak_lr=1e-2, warmup_steps=0),
    )  # fmt: skip
    config = tiny_run(workdir=str(path / "run"), model=tiny_model(), rounds=())
    config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(corpus)),), jax.device_count()
    config.finetune = FinetuneConfig(**fields | changes)
    return Run(config)


@pytest.mark.slow
def test_every_kind_is_learned_and_tested_on_an_encoder_with_adapters(tmp_path, corpus):
    encoder = nnx.merge(*initial(lambda rngs: AVEncoder(tiny_model(), rngs=rngs)))
    save_encoder(tmp_path / "encoder", encoder, lineage={"fingerprint": "abc"})
    run = run_of(
        tmp_path, corpus, encoder=str(tmp_path / "encoder"), tasks=TASKS, select_by="arousal/ccc", lora_rank=2,
        sampling="balanced",
    )  # fmt: skip
    finetune(run)
    result = evaluate(run)
    assert result["task"] == "perceived"
    assert result["pretrained"]["support"] == [2, 2], "clips whose votes tie are not graded"
    figures = result["tasks"]["pretrained"]
    wanted = {
        "perceived": "ua", "emotion": "wf1", "tags": "auc", "arousal": "ccc", "humour": "auc", "stress": "qwk",
        "valence": "pearson", "likeness": "map",
    }  # fmt: skip
    for name, metric in wanted.items():
        of_task = figures[f"{name}/{metric}"]
        assert of_task["folds"] == [of_task["pooled"]]
        assert np.isfinite(of_task["mean"])
        assert of_task["std"] == 0
        assert ("low" in of_task) == (name != "likeness")
        assert of_task.get("low", -1) <= of_task["pooled"] <= of_task.get("high", 1)
    assert figures["perceived/ua"]["pooled"] == result["pretrained"]["ua"]
    folder = run.workdir / "finetune" / "pretrained" / "fold1" / "encoder"
    left = mmpretrain.load_encoder(folder)
    finetuning = Finetuning(run)
    rows = finetuning.fold(1).test
    said = trained_outputs(finetuning, "pretrained", folder.parent / "classifier", rows)
    for number, row in enumerate(rows):
        made = left.outputs(audio=finetuning.table.load(int(row)).audio).logits
        assert made.keys() == {task.name for task in TASKS}
        for name, logits in made.items():
            np.testing.assert_allclose(logits, said[name][number][: len(logits)], atol=2e-4, err_msg=name)
    card = (folder / "README.md").read_text()
    arousal = figures["arousal/ccc"]["pooled"]
    for words in (
        f"| arousal/ccc, test clips | {arousal:.3f} |", "It gives a number for valence, -1 to 1, of every frame.",
        "| chosen | the step that is best by arousal/ccc on the validation clips |", "| seed of fine-tuning |",
        "| tests | fine-tuned; official v1, fold 1 |", "(95% interval by speakers",
    ):  # fmt: skip
        assert words in card, words
    learned = left.module
    frontend, kernel = (
        lambda e: e.frontends["audio"].proj.kernel[...],
        lambda e: e.transformer.layers.mlp_in.kernel[...],
    )
    assert np.array_equal(frontend(learned), frontend(encoder))
    assert not np.array_equal(kernel(learned), kernel(encoder)), "the adapters are part of it now"
    steps = [record for record in read_metrics(run.workdir / "metrics.jsonl") if "validation/arousal/ccc" in record]
    assert {"validation/valence/mae", "validation/tags/macro_f1", "validation/stress/mae"} <= steps[-1].keys()


def test_a_number_alone_is_learned_tested_and_reported(tmp_path, corpus, capsys):
    task = TaskConfig("arousal", kind="value", range=(0.0, 1.0), loss="absolute")
    run = run_of(tmp_path, corpus, encoder="none", tasks=(task,), select_by="arousal/mae")
    finetune(run)
    result = evaluate(run)
    assert result["classes"] == []
    assert result["tasks"]["scratch"]["arousal/mae"]["pooled"] < 1
    assert result["folds"][0]["unlabelled_test_seen"] == "no"
    report(run)
    said = capsys.readouterr()
    assert "scratch, all test clips: arousal/ccc" in said.err
    assert "arousal/mae" in said.out
    main(["compare", str(run.workdir), str(run.workdir)])
    assert " ".join(capsys.readouterr().out.split()).count("not told apart") == 4, "of CCC, Pearson, MAE and RMSE"
    with pytest.raises(ValueError, match=r"tasks\[0\]\.kind='value': `folds` puts answers together that are right or"):
        run_folds(run)
