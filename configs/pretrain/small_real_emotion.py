"""An emotion-aware extra round after `small_real`: clusters of its fine-tuned encoder, pretrained on again.

mmpretrain run --config=configs/pretrain/small_real.py  # leaves finetune/pretrained/fold2/encoder
mmpretrain run --config=configs/pretrain/small_real_emotion.py

The idea of HFLEA (arXiv 2312.16383) and GMP-ATL (arXiv 2405.02151), of which it has one codebook and no more. The
fine-tuned encoder has seen the labels of its fold's training and validation speakers, so only the same fold can be
tested with it: others are refused. The fold's test speakers are left out of pretraining here as in `small_real`.
docs/rounds.md has what came out.
"""

from configs.pretrain import small_real
from mmpretrain.config import RunConfig, hidden


def get_config() -> RunConfig:
    config = small_real.get_config()
    (fold,) = config.finetune.folds
    emotion_round = config.rounds[-1]
    emotion_round.encoder = f"{config.workdir}/finetune/pretrained/fold{fold}/encoder"
    emotion_round.targets = hidden(layer=config.model.num_layers, num_clusters=50, fit_share=1.0, fit_restarts=3)
    config.rounds = (emotion_round,)
    config.workdir = "runs/small_real_emotion"
    return config
