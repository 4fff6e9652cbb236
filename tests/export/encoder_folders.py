"""Encoders of random weights as exported folders, for tests of formats."""

from collections.abc import Sequence
from pathlib import Path

from flax import nnx

from mmpretrain.config import ModelConfig, TaskConfig
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.models.task_heads import make_head
from tests.tiny import initial

TASK = TaskConfig(name="emotion", classes=("neutral", "happy", "sad"))
LINEAGE = {"fingerprint": "0123456789abcdef", "round": 2, "corpora": "tiny"}


# Of every kind of labels; the first that transformers has a name for is `level`.
TASKS = (
    TaskConfig("place", kind="embedding", classes=("a", "b"), embedding_dim=4),
    TaskConfig("sound", kind="frames", classes=("vowel", "other", "none")),
    TaskConfig("valence", kind="values", range=(0.0, 7.0)),
    TaskConfig("level", kind="ordinal", classes=("0", "1", "2", "3"), pooling="attention"),
    TASK,
    TaskConfig("votes", kind="votes", classes=("x", "y")),
    TaskConfig("tags", kind="classes", classes=("smile", "frown", "nod"), pooling="mean"),
    TaskConfig("humour", kind="binary", classes=("no", "yes")),
    TaskConfig("arousal", kind="value", range=(1.0, 5.0)),
)


def save(folder: Path, config: ModelConfig, *, tasks: Sequence[TaskConfig] = (), form: str = "attentive") -> None:
    """tasks: that it has heads for, of that form."""

    def make(rngs: nnx.Rngs) -> nnx.Dict:
        return nnx.Dict({task.name: make_head(config, task, form, rngs) for task in tasks})

    encoder, heads = (nnx.merge(*initial(each)) for each in (lambda rngs: AVEncoder(config, rngs=rngs), make))
    save_encoder(folder, encoder, lineage=LINEAGE, tasks=tasks, heads=heads, form=form)
