"""AV-HuBERT Large on LRS3 (433 h): round 5, as released. Rounds 1 to 4 are those of avhubert_base_lrs3.

mmpretrain refine --config=configs/pretrain/avhubert_base_lrs3.py      # its first four rounds suffice
mmpretrain refine --config=configs/pretrain/avhubert_large_lrs3.py

The released files train Large in the last round only, from random weights, on clusters of Base's round 4; paper and
files do not disagree about that round. Targets of another encoder: `--config.rounds[0].encoder=PATH`. Different by
choice: as in avhubert_base_lrs3_vox. Expected: 400,000 steps; hours and losses: not yet run.
"""

from configs.pretrain import avhubert_base_lrs3
from mmpretrain.config import RunConfig, encoder_size


def get_config() -> RunConfig:
    config = avhubert_base_lrs3.get_config()
    last = config.rounds[-1]
    last.encoder = f"{config.workdir}/round4/pretrain/encoder"
    last.unmasked_weight = 1.0
    last.optimizer.peak_lr = 2e-3
    config.rounds = (last,)
    config.workdir = "runs/avhubert_large_lrs3"
    config.model = encoder_size("large", dtype="bfloat16")
    config.data.batch_frames = 64_000  # 64 GPUs x 1000 frames
    config.data.batch_multiple = 64
    config.data.bucket_frames = (80, 110, 150, 200, 260, 330, 400)  # 9 % padding, as benchmarks/loader.py has it
    config.data.long_clips = "crop"
    return config
