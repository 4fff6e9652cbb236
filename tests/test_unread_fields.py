"""A field that is set and that nothing would read is refused: who sets it means something by it."""

import re

import pytest

from mmpretrain.config import MaskingConfig, TaskConfig
from mmpretrain.config.checks import check
from tests.test_config import set_field
from tests.tiny import tiny_model, tiny_round, tiny_run


def test_what_nothing_would_read_is_refused():
    """Masks of the other kind, a layer where none is clustered, and augmentation of what is not there."""
    sound, picture, value = (
        {"model": tiny_model("audio")},
        {"model": tiny_model("video")},
        TaskConfig("arousal", kind="value"),
    )
    for changes, field, given, message in (
        ({}, "rounds[0].masking.video_prob", 0.5, "0.3 with rounds[0].masking.kind='feature', which does not read it: "
         "set prob, span_frames, or rounds[0].masking.kind='input'"),
        ({"rounds": (tiny_round(masking=MaskingConfig("input")),)}, "rounds[0].masking.span_frames", 5, "10 with"),
        ({}, "finetune.masking", MaskingConfig("input", prob=0.5), ".prob=0.5; it must be 0.8 with finetune"),
        ({}, "rounds[0].targets[0].layer", 9, "0 with features='mfcc'; layers are of 'hidden'"),
        (sound, "finetune.modality_dropout", 0.3, "0 with model.modalities=('audio',) and no finetune.text or tracks"),
        (picture, "finetune.freq_mask", 3, "0 with model.modalities=('video',), without sound"),
        (picture, "finetune.freq_warp", 0.1, "0 with model.modalities=('video',), without sound"),
        ({}, "finetune.label_smoothing", 0.1, "0 with tasks of kind 'value', whose labels are no classes"),
    ):  # fmt: skip
        config = tiny_run(**changes)
        if "label_smoothing" in field:
            config.finetune.tasks, config.finetune.select_by = (value,), "arousal/ccc"
        check(config)
        set_field(config, field, given)
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            check(config)
        assert str(caught.value).startswith(field)
    config = tiny_run()
    config.finetune.tasks = (*config.finetune.tasks, value)
    config.finetune.label_smoothing, config.finetune.modality_dropout = 0.1, 0.3
    config.finetune.freq_mask = 3
    check(config)
