"""Encoders of random weights as exported folders, for tests of formats."""

import dataclasses
from pathlib import Path

from flax import nnx

from mmpretrain.config import ModelConfig, TaskConfig
from mmpretrain.encoders.folder import save_encoder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.models.heads import ClipHead
from tests.tiny import initial

TASK = TaskConfig(name="emotion", classes=("neutral", "happy", "sad"))
LINEAGE = {"fingerprint": "0123456789abcdef", "round": 2, "corpora": "tiny"}


def save(folder: Path, config: ModelConfig, *, head: bool = False, pooling: str = "attentive_statistics") -> None:
    """head: one for `TASK`, of that pooling."""
    task = dataclasses.replace(TASK, pooling=pooling)
    encoder = nnx.merge(*initial(lambda rngs: AVEncoder(config, rngs=rngs)))
    heads = nnx.Dict({task.name: nnx.merge(*initial(lambda rngs: ClipHead(config, 3, pooling, rngs=rngs)))})
    save_encoder(folder, encoder, lineage=LINEAGE, **dict(tasks=[task], heads=heads) if head else {})
