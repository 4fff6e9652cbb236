"""A small encoder of whole faces on a few hundred real clips: three rounds, then emotion, on two CPU cores.

python -m data_prep folder --source VIDEOS --manifest VIDEOS/manifest.csv --output prepared/small_real \
    --mouth-size 48 --face-size 56
mmpretrain run --config=configs/pretrain/small_real.py

For a quick look at a folder of one's own; not for a result. The test speakers of the fold that is tested (fold 2) are
left out of pretraining by `data.exclude_folds`, k-means and targets included: `unlabelled_test_seen: no`. Another fold
is another run: `--config.data.exclude_folds=(1,) --config.finetune.folds=(1,) --config.workdir=runs/fold1`. Where no
clip has a label there is nothing to leave out, and all clips are pretrained on.
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
    emotion,
    encoder_size,
    hidden,
    mfcc,
)


def get_config() -> RunConfig:
    # As in configs/demo.py: set for speed, since this is far less than a real round.
    shared = dict(
        masking=MaskingConfig(kind="feature", prob=0.6, span_frames=5),
        unmasked_weight=1.0,
        modality_dropout=0.25,
        num_steps=300,
        optimizer=OptimizerConfig(peak_lr=1e-3, warmup_steps=50, clip_norm=1.0),
    )
    fit = dict(fit_share=1.0, fit_restarts=3)
    return RunConfig(
        workdir="runs/small_real",
        data=DataConfig(
            corpora=(CorpusConfig("prepared/small_real"),),
            exclude_folds=(2,),
            batch_frames=800,
            bucket_frames=(100, 200),
            batch_multiple=1,
            num_workers=2,
        ),
        model=encoder_size(
            "tiny",
            resnet_width=4,
            inputs=InputConfig(view="face", image_size=40),
            feature_grad_scale=1.0,
        ),
        rounds=(
            RoundConfig(targets=mfcc(num_clusters=50, **fit), **shared),
            RoundConfig(targets=hidden(layer=2, num_clusters=50, **fit), **shared),
            RoundConfig(targets=hidden(layer=2, num_clusters=50, **fit), **shared),
        ),
        finetune=FinetuneConfig(
            tasks=(emotion("neutral", "happy", "sad", "angry", "fearful", "disgust", "surprised"),),
            protocol="speakers-3",
            folds=(2,),
            num_steps=100,
            batch_frames=800,
            eval_every=10,
            optimizer=OptimizerConfig(
                schedule="tri_stage", peak_lr=5e-4, warmup_steps=20, eps=1e-8, weight_decay=0.01, clip_norm=1.0
            ),
        ),
        checkpoint=CheckpointConfig(every_steps=100),
        log_every=20,
        validation_every=100,
    )
