"""AV-HuBERT Base on LRS3 and the English part of VoxCeleb2 (1759 h), five rounds, as released.

mmpretrain refine --config=configs/pretrain/avhubert_base_lrs3_vox.py

Differs from avhubert_base_lrs3 in what stands below. Where sources disagree, beyond what is said there: the released
files have modality dropout 0.5 in rounds 2 to 5 (the authors say of LRS3 that rounds 1 to 4 had none, issue 41);
`--config=FILE:paper` has it in round 1 too, `--config.rounds[1].modality_dropout=0` and so on take it out.
`--config=FILE:noise` is the noise-robust model (arXiv 2201.01763): round 5 alone on targets of a clean round 4.

Different by choice: clips beyond 400 frames are cropped at random, as there, but shorter ones are padded to their
bucket where the released files crop a batch to its shortest clip; clips beyond 2000 frames are cropped, not left out.
Expected: 800,000 steps a round; hours and losses: not yet run.
"""

from configs.pretrain import avhubert_base_lrs3
from mmpretrain.config import CorpusConfig, NoiseConfig, RunConfig

VARIANTS = (*avhubert_base_lrs3.VARIANTS, "noise")


def get_config(variant: str = "released") -> RunConfig:
    if variant not in VARIANTS:
        raise ValueError(f"this recipe has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    config = avhubert_base_lrs3.get_config("paper" if variant == "paper" else "released")
    config.workdir = "runs/avhubert_base_lrs3_vox"
    # As in the reference, all of VoxCeleb2 is trained on: validation clips are of LRS3 alone.
    voxceleb2 = CorpusConfig("prepared/voxceleb2_english", validation_share=0.0)
    config.data.corpora = (CorpusConfig("prepared/lrs3"), voxceleb2)
    config.data.bucket_frames = (80, 110, 150, 200, 260, 330, 400)  # 9 % padding, as benchmarks/loader.py has it
    config.data.long_clips = "crop"
    for number, round_ in enumerate(config.rounds, start=1):
        round_.num_steps = 800_000
        round_.optimizer.peak_lr = 2e-3
        round_.optimizer.warmup_steps = 64_000
        if number > 1:
            round_.modality_dropout = 0.5
    if variant == "noise":
        last = config.rounds[-1]
        last.encoder = f"{config.workdir}/round4/pretrain/encoder"
        config.rounds = (last,)
        config = with_noise(config)
    return config


def with_noise(config: RunConfig) -> RunConfig:
    """`config` with noise at 0 dB under a quarter of the training clips."""
    config.workdir += "_noise"
    config.data.noise = NoiseConfig(prob=0.25, snr_db=0.0, path="prepared/noise")
    return config
