"""Names in a recipe that nothing is registered under are refused when the run is opened."""

import jax
import pytest

from mmpretrain.config import TaskConfig
from mmpretrain.run.run import Run
from tests.tiny import tiny_run


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("model", "modalities", ("audio", "smell"), r"model\.modalities=.*: 'smell' is none of audio, video"),
        ("rounds", "objective", "guessing", r"rounds\[0\]\.objective='guessing'; it must be one of masked_prediction"),
        ("checkpoint", "best_by", "ua", r"checkpoint\.best_by='ua'; it must be one of loss, masked_loss, .*, or ''"),
        (
            "finetune",
            "select_by",
            "emotion/cer",
            r"finetune\.select_by='emotion/cer'; it must be one of emotion/loss",
        ),
        (
            "finetune",
            "tasks",
            (TaskConfig(kind="mood"),),
            r"finetune\.tasks\[0\]\.kind='mood'; it must be one of cl",
        ),
    ],
)
def test_an_unknown_name_is_refused(part, field, value, message):
    config = tiny_run()
    config.data.batch_multiple = jax.device_count()
    of = getattr(config, part)
    setattr(of[0] if part == "rounds" else of, field, value)
    with pytest.raises(ValueError, match=message):
        Run(config)
