"""Emotion clusters on RAVDESS speech: an encoder predicts clusters of itself as it was fine-tuned for the fold.

python -m data_prep ravdess --source RAVDESS --channel speech --output prepared/ravdess
mmpretrain adapt --config=configs/adapt/emotion_clusters_ravdess.py --method=emotion-clusters-inductive

For each fold: `ENCODER` is fine-tuned on its training actors (WORKDIR/plain), a layer of that is clustered, the encoder
as it was before is pretrained on the clusters, and fine-tuned again. The idea and the 50 clusters are HFLEA's (arXiv
2312.16383), which fine-tunes what was adapted to the corpus first and clusters the clips of the test session too: the
latter is `emotion-clusters-transductive`. What it came to over all six folds: docs/results.md.
"""

from configs.adapt import tapt_ravdess
from mmpretrain.config import RunConfig, hidden


def get_config() -> RunConfig:
    config = tapt_ravdess.get_config()
    layer = config.model.num_layers
    config.rounds[0].targets = hidden(layer=layer, num_clusters=50, fit_share=1.0, fit_restarts=3)
    config.workdir = "runs/emotion_clusters_ravdess"
    return config
