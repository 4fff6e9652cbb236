"""`sound.py` with an embedding that retrieves, of the training clips."""

from mmpretrain.config import OptimizerConfig, RetrievalConfig, RunConfig, TaskConfig
from tests.multiprocess import sound


def get_config() -> RunConfig:
    config = sound.get_config()
    classes = config.finetune.tasks[0].classes
    config.rounds, config.finetune.encoder, config.units = (), "none", None
    config.retrieval = RetrievalConfig(
        TaskConfig("likeness", "emotion", kind="embedding", classes=classes, embedding_dim=4), neutral=classes[:1],
        hours=30 / 3600, speaker_share=0.5, num_steps=2, optimizer=OptimizerConfig(peak_lr=1e-3, warmup_steps=0),
    )  # fmt: skip
    config.health.max_loss_rise = 1_000.0
    return config
