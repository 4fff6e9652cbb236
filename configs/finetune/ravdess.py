"""RAVDESS speech, sound only: pretrain on the actors that no reported fold tests, then `ravdess-6x4`, folds 1 and 2.

python -m data_prep ravdess --source RAVDESS --channel speech --output prepared/ravdess
mmpretrain run --config=configs/finetune/ravdess.py

Actors 1 to 8 (the test actors of folds 1 and 2) are left out of pretraining by `data.exclude_folds`, so an encoder has
never heard them: `unlabelled_test_seen: no`. Other folds are a run each: give both fields the fold, and a workdir. The
floor to beat is an SVM on MFCC statistics: 53.1 % accuracy, 51.9 % UA over the six folds.
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
    optimizer = OptimizerConfig(peak_lr=3e-3, warmup_steps=80)
    shared = dict(
        masking=MaskingConfig(kind="feature", prob=0.6, span_frames=5),
        unmasked_weight=1.0,
        num_steps=800,
        optimizer=optimizer,
    )
    fit = dict(fit_share=0.5, fit_restarts=3)
    return RunConfig(
        workdir="runs/ravdess",
        data=DataConfig(
            corpora=(CorpusConfig("prepared/ravdess"),),
            exclude_folds=(1, 2),
            batch_frames=2_000,
            bucket_frames=(100, 150),
            batch_multiple=1,
            num_workers=2,
        ),
        model=encoder_size(
            "tiny",
            modalities=("audio",),
            # Emotion is heard in loudness too, which normalising every row would take away.
            inputs=InputConfig(audio_normalization="level"),
            feature_grad_scale=1.0,
        ),
        rounds=(
            RoundConfig(targets=mfcc(num_clusters=100, **fit), **shared),
            RoundConfig(targets=hidden(layer=2, num_clusters=100, **fit), **shared),
        ),
        finetune=FinetuneConfig(
            tasks=(emotion("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"),),
            protocol="ravdess-6x4",
            folds=(1, 2),
            num_steps=2_400,
            batch_frames=2_000,
            eval_every=100,
            masking=MaskingConfig(kind="input", audio_prob=0.2, audio_span_frames=5),
            freq_mask=4,
            freq_warp=0.1,
            dropout=0.1,
            label_smoothing=0.1,
            optimizer=OptimizerConfig(
                schedule="tri_stage", peak_lr=2e-3, warmup_steps=200, eps=1e-8, weight_decay=0.05, clip_norm=1.0
            ),
        ),
        checkpoint=CheckpointConfig(every_steps=100),
        log_every=20,
        validation_every=200,
    )
