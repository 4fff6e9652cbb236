"""AV-HuBERT Large on LRS3 and the English part of VoxCeleb2 (1759 h): round 5, as released.

mmpretrain refine --config=configs/pretrain/avhubert_base_lrs3_vox.py  # its first four rounds suffice
mmpretrain refine --config=configs/pretrain/avhubert_large_lrs3_vox.py

As avhubert_large_lrs3, on the targets of avhubert_base_lrs3_vox. `--config=FILE:noise` is the noise-robust model (arXiv
2201.01763), on the same targets. Expected: 600,000 steps; hours and losses: not yet run.
"""

from configs.pretrain import avhubert_base_lrs3_vox, avhubert_large_lrs3
from mmpretrain.config import RunConfig

VARIANTS = ("released", "noise")


def get_config(variant: str = "released") -> RunConfig:
    if variant not in VARIANTS:
        raise ValueError(f"this recipe has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    base = avhubert_base_lrs3_vox.get_config()
    config = avhubert_large_lrs3.get_config()
    config.workdir = "runs/avhubert_large_lrs3_vox"
    config.data.corpora = base.data.corpora
    (last,) = config.rounds
    last.num_steps = 600_000
    last.optimizer.warmup_steps = 48_000
    last.encoder = f"{base.workdir}/round4/pretrain/encoder"
    return avhubert_base_lrs3_vox.with_noise(config) if variant == "noise" else config
