"""Every stage in minutes on two CPU cores, on the embedded corpus of drawn talking faces.

make demo

Pretraining takes the train split of the corpus and validates on its validation split; the protocol tests the clips of
the test split, whose speakers are in no other: `unlabelled_test_seen: no`.
"""

from mmpretrain.config import (
    CheckpointConfig,
    CorpusConfig,
    DataConfig,
    FinetuneConfig,
    InputConfig,
    LabelEfficiencyConfig,
    MaskingConfig,
    OptimizerConfig,
    RoundConfig,
    RunConfig,
    TaskConfig,
    UnitsConfig,
    cepstra,
    emotion,
    encoder_size,
    hidden,
    prosody,
)


def get_config() -> RunConfig:
    # A few minutes are 0.3 % of a real round, so everything is set for speed: short spans (the drawn units last 60 to
    # 200 ms), a loss on unmasked frames as well (as AV-HuBERT Large has), a high rate, full gradient to the front-ends,
    # no picture of a masked frame through the ResNet, no dropout, which a few passes over the clips do not need.
    shared = dict(
        masking=MaskingConfig(kind="feature", prob=0.5, span_frames=3, visible_only=True),
        unmasked_weight=1.0,
        modality_dropout=0.25,
        num_steps=450,
        optimizer=OptimizerConfig(peak_lr=4e-3, warmup_steps=40),
    )
    fit = dict(fit_share=0.5, fit_restarts=2)
    # What is said, whoever speaks: cepstra on the scale of the clip, on which the sound is heard too. And how: prosody
    # relative to the speaker, which tells the drawn emotion.
    affect = prosody(num_clusters=30, relative_to="speaker", **fit)
    return RunConfig(
        workdir="runs/demo",
        data=DataConfig(
            corpora=(
                CorpusConfig(
                    "runs/demo/data",
                    prepare=("synthetic", "--clips", "1560", "--mouth-size", "26", "--face-size", "26"),
                ),
            ),
            batch_frames=800,
            bucket_frames=(60,),
            batch_multiple=1,
            num_workers=2,
        ),
        model=encoder_size(
            "tiny",
            resnet_width=4,
            resnet_blocks=(1, 1, 1, 1),
            inputs=InputConfig(view="face", image_size=24, audio_normalization="clip"),
            feature_grad_scale=1.0,
            dropout=0.0,
            attention_dropout=0.0,
            input_dropout=0.0,
            layerdrop=0.0,
        ),
        rounds=(
            RoundConfig(targets=cepstra(num_clusters=100, **fit) + affect, **shared),
            # Goes on from the first round's weights: a few minutes are too little to begin anew.
            RoundConfig(targets=hidden(layer=2, num_clusters=100, **fit) + affect, init="previous_round", **shared),
        ),
        finetune=FinetuneConfig(
            tasks=(emotion("neutral", "happy", "sad", "angry"),),
            protocol="official",
            select_by="emotion/loss",
            head="frozen_linear",
            encoder_rate=20,
            num_steps=12,
            batch_frames=400,
            eval_every=12,
            optimizer=OptimizerConfig(
                schedule="tri_stage", peak_lr=2e-5, warmup_steps=2, eps=1e-8, weight_decay=0.01, clip_norm=1.0
            ),
        ),
        label_efficiency=LabelEfficiencyConfig(shares=(0.1, 1.0)),
        # What masked prediction of clusters learns: the drawn units, told from few labelled clips by other people. By
        # sound alone, which costs a network from scratch a tenth of what pictures would. Small batches at a high rate
        # bring that network to its end in the time that there is.
        units=UnitsConfig(
            task=TaskConfig(name="units", kind="frames", classes=tuple("_aeioumnlwpbtkfvsx"), silence="_"),
            labelled_clips=(20, 80),
            inputs=("audio",),
            num_steps=250,
            eval_every=25,
            batch_frames=300,
            dropout=0.0,
            optimizer=OptimizerConfig(
                schedule="tri_stage", peak_lr=4e-3, warmup_steps=20, eps=1e-8, weight_decay=0.01, clip_norm=1.0
            ),
        ),
        checkpoint=CheckpointConfig(every_steps=50),
        log_every=20,
        validation_every=100,
    )
