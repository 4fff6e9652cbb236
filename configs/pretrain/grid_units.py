"""What is said in every frame of GRID, from few labelled sentences: two rounds, on two CPU cores.

python -m data_prep folder --source GRID --manifest GRID/manifest.csv --output prepared/grid \
    --mouth-size 48 --face-size 56
mmpretrain refine --config=configs/pretrain/grid_units.py
mmpretrain units --config=configs/pretrain/grid_units.py

Of sound alone; `--config=FILE:lips` is of sound and lips, shown together and each alone. The manifest puts the
sentences that are tested into the split `test`, and those that are chosen on into `validation`: neither is pretrained
on. Of one speaker this says what other sentences of the same person say, and no more.
`--config.units.task.column=words --config.units.task.name=words` is of words in place of phones.
"""

from mmpretrain.config import (
    CheckpointConfig,
    CorpusConfig,
    DataConfig,
    InputConfig,
    MaskingConfig,
    OptimizerConfig,
    RoundConfig,
    RunConfig,
    TaskConfig,
    UnitsConfig,
    cepstra,
    encoder_size,
    hidden,
)

VARIANTS = ("sound", "lips")


def get_config(variant: str = "sound") -> RunConfig:
    if variant not in VARIANTS:
        raise ValueError(f"this recipe has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    lips = variant == "lips"
    shared = dict(
        masking=MaskingConfig(kind="feature", prob=0.5, span_frames=3, visible_only=lips),
        modality_dropout=0.25 if lips else 0.0,
        unmasked_weight=1.0,
        num_steps=600,
        optimizer=OptimizerConfig(peak_lr=4e-3, warmup_steps=50),
    )
    fit = dict(fit_share=1.0, fit_restarts=2)
    return RunConfig(
        workdir="runs/grid_lips" if lips else "runs/grid_units",
        data=DataConfig(
            corpora=(CorpusConfig("prepared/grid"),),
            batch_frames=800,
            bucket_frames=(80,),
            batch_multiple=1,
            num_workers=2,
        ),
        # Each band of the sound on the scale of its clip: what the speaker and the room add is taken off.
        model=encoder_size(
            "tiny",
            modalities=("audio", "video") if lips else ("audio",),
            inputs=InputConfig(audio_normalization="clip", image_size=40),
            feature_grad_scale=1.0,
        ),
        rounds=(
            RoundConfig(targets=cepstra(num_clusters=100, **fit), **shared),
            RoundConfig(targets=hidden(layer=2, num_clusters=100, **fit), init="previous_round", **shared),
        ),
        units=UnitsConfig(
            task=TaskConfig(
                name="phones", kind="frames", column="phones", alignments="GRID/alignments.csv", silence="sil"
            ),
            protocol="official-clips",
            labelled_clips=(5, 20, 80, 0),
            inputs=("audio", "video", "audio+video") if lips else ("audio",),
            num_steps=600,  # of networks from scratch, which 150 leave far from where they get to
            eval_every=50,
            batch_frames=400,
            optimizer=OptimizerConfig(
                schedule="tri_stage", peak_lr=2e-3, warmup_steps=20, eps=1e-8, weight_decay=0.01, clip_norm=1.0
            ),
        ),
        checkpoint=CheckpointConfig(every_steps=200),
        log_every=50,
        validation_every=300,
    )
