"""What of a task goes with which kind of labels, and with how it is learned, is said before anything runs."""

import dataclasses

import pytest

from mmpretrain.config import TaskConfig
from mmpretrain.config.checks import check
from tests.tiny import tiny_run


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
    ],
)
def test_what_does_not_go_with_a_kind_of_labels_is_refused(task, changes, message):
    config = tiny_run()
    config.finetune.tasks = (dataclasses.replace(config.finetune.tasks[0], **task),)
    config.finetune = dataclasses.replace(config.finetune, **changes)
    with pytest.raises(ValueError, match=message):
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
    config.finetune = dataclasses.replace(tiny_run().finetune, mixup=0.3)
    with pytest.raises(ValueError, match=r"finetune\.mixup=0\.3; it must be 0 with parallel\.micro_batches"):
        check(config)
