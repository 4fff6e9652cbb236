"""What of a task goes with which kind of labels, and with how it is learned, is said before anything runs."""

import dataclasses

import pytest

from mmpretrain.config import FinetuneConfig, RetrievalConfig, TaskConfig, emotion
from mmpretrain.config.checks import check
from mmpretrain.config.task_checks import unread
from tests.tiny import tiny_model, tiny_run


def test_fields_of_which_training_makes_nothing_are_told():
    finetune = FinetuneConfig(
        tasks=(TaskConfig("arousal", kind="value"),), freq_mask=4, modality_dropout=0.5, label_smoothing=0.1
    )
    assert unread(finetune, tiny_model("video")) == [
        "finetune.modality_dropout=0.5 (there is one modality)",
        "finetune.freq_mask=4 (there is no sound)",
        "finetune.label_smoothing=0.1 (no task asks for the probability of a class)",
    ]
    finetune.tasks = (*finetune.tasks, emotion("a", "b"))
    assert unread(finetune, tiny_model("audio", "video")) == []
    finetune.tracks = ("hands",)
    assert unread(finetune, tiny_model("audio")) == []


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ({"kind": "binary", "classes": ("a", "b", "c")}, {}, r"classes=.*; it must be two, the positive one last"),
        (
            {"kind": "value", "classes": ("a", "b")},
            {},
            r"classes=.*; it must be \(\) with .*kind='value', whose labels",
        ),
        ({"kind": "value", "classes": (), "range": (1.0, 1.0)}, {}, r"range=.*; it must be the lowest value and then"),
        ({"kind": "class", "loss": "squared"}, {}, r"loss='squared'; it must be one of usual, focal with"),
        ({"kind": "classes", "class_weights": "inverse"}, {}, r"class_weights='inverse'; it must be none with"),
        ({"kind": "votes", "reversal": 1.0}, {}, r"reversal=1\.0; it must be 0 with .*kind='votes'"),
        ({"kind": "votes", "classes": ("a",)}, {}, r"classes=.*; it must be two or more"),
        ({"pooling": "mean"}, {"head": "frozen_linear"}, r"pooling='mean'; it must be attentive_statistics with"),
        ({}, {"lora_rank": 4, "layer_decay": 0.9}, r"layer_decay=0\.9; it must be 1\.0 with finetune\.lora_rank=4"),
        ({"kind": "value", "classes": ()}, {"mixup": 0.2}, r"mixup=0\.2; it must be 0 where tasks are no classes"),
        ({"kind": "value", "classes": ()}, {"sampling": "balanced"}, r"sampling='balanced'; it must be as_it_is with"),
        ({"kind": "embedding"}, {"mixup": 0.2}, r"mixup=0\.2; it must be 0 where tasks are no classes"),
        ({"kind": "embedding", "loss": "focal"}, {}, r"loss='focal'; it must be one of usual, triplet with"),
        ({"loss": "triplet"}, {}, r"loss='triplet'; it must be one of usual, focal with"),
        (
            {"kind": "ordinal", "classes": ("0", "1")},
            {},
            r"classes=.*; it must be three or more with .*kind='ordinal': two are told apart with kind='binary'",
        ),
        ({"merge": ("excited",)}, {}, r"merge=\('excited',\); it must be WORD=CLASS, e\.g\. .* \(not 'excited'\)"),
        ({"merge": ("sad=happy",), "classes": ("happy", "sad")}, {}, r"and the word none of them \(not 'sad=happy'\)"),
        (
            {"merge": ("calm=sad", "calm=happy"), "classes": ("happy", "sad")},
            {},
            r"merge=.*; it must be of one class for each word, but 'calm' is taken for sad and happy",
        ),
    ],
)
def test_what_does_not_go_with_a_kind_of_labels_is_refused(task, changes, message):
    config = tiny_run()
    config.finetune.tasks = (dataclasses.replace(config.finetune.tasks[0], **task),)
    config.finetune = dataclasses.replace(config.finetune, **changes)
    with pytest.raises(ValueError, match=message):
        check(config)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"range": (0.0, 1.0)}, r"range=\(0\.0, 1\.0\); it must be \(-1\.0, 1\.0\) with finetune\.tasks\[0\]\.kind="
         r"'class', which does not read it: leave it out, or set kind 'value' or 'values' \(task emotion\)"),
        ({"kind": "value", "classes": (), "merge": ("a=b",)}, r"merge=.*'value', which does not .* set kind 'class'"),
        ({"silence": "sad"}, r"silence='sad'; it must be '' with .*set kind 'frames'"),
        ({"alignments": "w.csv"}, r"alignments='w\.csv'; it must be '' with .*set kind 'frames'"),
        ({"kind": "frames", "pooling": "mean"}, r"pooling='mean'; it must be 'attentive_statistics' with .*'frames'"),
        ({"focal_gamma": 1.0}, r"focal_gamma=1\.0; it must be 2\.0 with .* loss='usual', which .* and loss 'focal'"),
        ({"embedding_dim": 8}, r"embedding_dim=8; it must be 256 with .*set kind 'embedding'"),
        ({"kind": "embedding", "margin": 0.5}, r"margin=0\.5; .* and loss='usual', which .* and loss 'triplet'"),
        ({"kind": "embedding", "loss": "triplet", "temperature": 1.0}, r"temperature=1\.0; .* and loss 'usual'"),
    ],
)  # fmt: skip
def test_what_a_kind_of_labels_does_not_read_is_refused(task, message):
    config = tiny_run()
    config.finetune.tasks = (dataclasses.replace(config.finetune.tasks[0], **task),)
    with pytest.raises(ValueError, match=message):
        check(config)


def test_what_a_kind_of_labels_reads_is_let_pass():
    config = tiny_run()
    near = emotion("a", "b", name="near", kind="embedding", loss="triplet", margin=0.5, embedding_dim=8)
    rare = emotion("a", "b", "c", name="rare", loss="focal", focal_gamma=1.0, merge=("d=a", "e=a"))
    config.finetune.tasks = (config.finetune.tasks[0], near, rare, TaskConfig("level", kind="value", range=(0.0, 4.0)))
    check(config)


def test_one_modality_meets_nothing():
    config = tiny_run(model=tiny_model("audio"), rounds=())
    config.finetune.fusion = "gated"
    with pytest.raises(ValueError, match=r"fusion='gated'; it must be early with model\.modalities=\('audio',\)"):
        check(config)
    config.model = tiny_model("audio", "video")
    check(config)


def test_a_batch_of_parts_has_nothing_that_is_of_the_whole():
    config = tiny_run()
    config.parallel.micro_batches = 2
    config.finetune.tasks += (TaskConfig("arousal", kind="value"),)
    with pytest.raises(ValueError, match=r"tasks\[1\]\.loss='usual'; it must be squared or absolute with parallel"):
        check(config)
    config.finetune.tasks = (dataclasses.replace(config.finetune.tasks[0], kind="embedding"),)
    with pytest.raises(ValueError, match=r"tasks\[0\]\.kind='embedding'; it must be class, say, with parallel"):
        check(config)
    config.rounds[1].tasks, config.rounds[1].objective = config.finetune.tasks, "multitask_prediction"
    with pytest.raises(ValueError, match=r"rounds\[1\]\.tasks\[0\]\.kind='embedding'; it must be class, say, with par"):
        check(config)
    config.rounds[1].tasks, config.rounds[1].objective = (), "masked_prediction"
    config.finetune = dataclasses.replace(tiny_run().finetune, mixup=0.3)
    with pytest.raises(ValueError, match=r"finetune\.mixup=0\.3; it must be 0 with parallel\.micro_batches"):
        check(config)
    config.finetune = tiny_run().finetune
    config.retrieval = RetrievalConfig(task=emotion("neutral", "sad", name="near", kind="embedding"), num_steps=300)
    with pytest.raises(ValueError, match=r"retrieval\.task\.kind='embedding'; it must be class, say, with parallel"):
        check(config)
    config.parallel.micro_batches = 1
    check(config)


@pytest.mark.parametrize(
    ("objective", "tasks", "message"),
    [
        ("masked_prediction", (emotion("a", "b"),), r"tasks=\('emotion',\); it must be \(\) with .*masked_prediction'"),
        ("multitask_prediction", (), r"tasks=\(\); it must be one or more with .*multitask_prediction'"),
        ("multitask_prediction", (emotion("a", "b"),) * 2, r"tasks=.*; it must be tasks that each have a name of"),
        ("multitask_prediction", (emotion("a", "b", kind="votes"),), r"tasks\[0\]\.kind='votes'; it must be one of cl"),
        (
            "multitask_prediction",
            (emotion("a", "b", class_weights="inverse"),),
            r"weights='inverse'; it must be none: a",
        ),
        ("multitask_prediction", (TaskConfig("speaker"),), r"tasks\[0\]\.classes=\(\); it must be two or more"),
        ("multitask_prediction", (TaskConfig("corpus", reversal=0.1),), ""),
        (
            "multitask_prediction",
            (TaskConfig("corpus", reversal=0.1, merge=("a=b",)),),
            r"merge=\('a=b',\); it must be \(\) with .*classes=\(\), which are left open",
        ),
    ],
)
def test_what_a_round_can_learn_beside_its_clusters(objective, tasks, message):
    config = tiny_run()
    config.rounds[0].objective, config.rounds[0].tasks = objective, tasks
    if not message:
        check(config)
        return
    with pytest.raises(ValueError, match=message):
        check(config)
