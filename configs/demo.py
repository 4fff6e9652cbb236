"""Every stage in minutes on two CPU cores, on the embedded corpus of drawn talking faces.

make demo
"""

from mmpretrain.config import (
    CheckpointConfig,
    CorpusConfig,
    DataConfig,
    FinetuneConfig,
    InputConfig,
    MaskingConfig,
    OptimizerConfig,
    RoundConfig,
    RunConfig,
    encoder_size,
    hidden,
    mfcc,
)


def get_config() -> RunConfig:
    optimizer = OptimizerConfig(peak_lr=2e-3, warmup_steps=40)
    masking = MaskingConfig(kind="feature", prob=0.8, span_frames=5)  # drawn speech is short: units of 60 to 200 ms
    shared = dict(masking=masking, num_steps=400, optimizer=optimizer, modality_dropout=0.25)
    fit = dict(fit_share=1.0, fit_restarts=3)
    return RunConfig(
        workdir="runs/demo",
        data=DataConfig(
            corpora=(CorpusConfig("runs/demo/data"),),
            batch_frames=800,
            bucket_frames=(60, 80),
            batch_multiple=1,
            num_workers=2,
        ),
        model=encoder_size("tiny", inputs=InputConfig(view="face", image_size=48), feature_grad_scale=1.0),
        rounds=(
            RoundConfig(targets=mfcc(num_clusters=50, **fit), **shared),
            RoundConfig(targets=hidden(layer=2, num_clusters=50, **fit), **shared),
        ),
        finetune=FinetuneConfig(
            classes=("neutral", "happy", "sad", "angry"),
            protocol="official",
            num_steps=300,
            batch_frames=800,
            eval_every=30,
            optimizer=OptimizerConfig(
                schedule="tri_stage", peak_lr=5e-4, warmup_steps=50, eps=1e-8, weight_decay=0.01, clip_norm=1.0
            ),
        ),
        checkpoint=CheckpointConfig(every_steps=50),
        log_every=20,
        valid_every=100,
    )
