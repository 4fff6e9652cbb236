"""Which clips are expressive enough to go on pretraining with, as recipes say it."""

# No `from __future__ import annotations`: the command line reads the fields' types as objects.
import dataclasses

from mmpretrain.config.optimizer import LARGE, OptimizerConfig
from mmpretrain.config.ranges import above, each, setting, words
from mmpretrain.config.tasks import TaskConfig


@dataclasses.dataclass
class RetrievalConfig:
    """Expressive clips of `data.corpora`, found by an embedding of the labelled clips of `finetune`, for each fold of
    its protocol. The embedding is trained as `finetune` is, but for what is said here, with `sampling` "spread", and
    its last step is taken: it is chosen on nobody."""

    task: TaskConfig = dataclasses.field(default_factory=lambda: TaskConfig(name="likeness", kind="embedding"))
    neutral: tuple[str, ...] = setting(("neutral",), each(words(), least=1, distinct=True))  # what is not expressive
    hours: float = setting(100.0, above(0, most=1_000_000))  # how many are taken
    class_share: float = setting(1.0, above(0, most=1))  # of these, what clips nearest to one class may have
    speaker_share: float = setting(0.01, above(0, most=1))  # and what one speaker may have
    num_steps: int = setting(2_000, above(0, most=LARGE, text="above 0"))
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(
            schedule="tri_stage", peak_lr=1e-3, warmup_steps=200, eps=1e-8, weight_decay=0.0, clip_norm=1.0
        )
    )
