"""The typed tree of a run: every number of a recipe, its default and the checks that need more than one field.

A recipe (`configs/*.py`) returns a `RunConfig`; `--config.a.b=value` changes one field of it; `RunConfig.check` speaks up
about what cannot work. Defaults follow the released AV-HuBERT Base recipe unless a comment says otherwise.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

AUDIO_DIM = 104  # four stacked 10 ms frames of 26 log filterbank energies: one row per 40 ms frame


@dataclasses.dataclass
class CorpusConfig:
    """One prepared corpus of the mixture. `weight` is how often each of its clips appears per epoch."""

    path: str = ""
    weight: float = 1.0


@dataclasses.dataclass
class NoiseConfig:
    """Sound mixed under the speech of training clips (arXiv 2201.01763): `prob` per clip, at `snr_db`."""

    prob: float = 0.0
    snr_db: float = 0.0
    path: str = ""  # a folder of sound files, searched recursively


@dataclasses.dataclass
class DataConfig:
    corpora: tuple[CorpusConfig, ...] = ()
    exclude_speakers: tuple[str, ...] = ()  # left out of pretraining altogether (e.g. the test actors of a protocol)
    valid_share: float = 0.05  # held out by clip id from corpora that have no `valid` split
    batch_frames: int = 32_000  # frames per global batch, padding included; 32 GPUs x 1000 in the reference
    bucket_frames: tuple[int, ...] = (100, 200, 300, 400, 500)  # the lengths T that batches may have
    min_frames: int = 5
    long_clips: str = "crop"  # clips over the longest bucket: "crop" (a random stretch) or "drop"
    flip: bool = True  # horizontal flip of the whole clip with probability 0.5
    random_crop: bool = True  # of the picture: one offset per clip; else the centre
    noise: NoiseConfig = dataclasses.field(default_factory=NoiseConfig)
    num_workers: int = 4  # threads that read and collate batches


@dataclasses.dataclass
class InputConfig:
    """What the network sees; part of an exported encoder."""

    view: str = "mouth"  # the video: "mouth" or "face" crop
    image_size: int = 88  # side of the (cropped) picture in pixels
    pixel_mean: float = 0.421
    pixel_std: float = 0.165
    audio_normalization: str = "frame"  # "frame": each row over its 104 values (the reference); "clip": see data/audio.py


@dataclasses.dataclass
class ModelConfig:
    """An audio-visual encoder (spec: AV-HuBERT, sections 7 and 11). `encoder_size` gives the named sizes."""

    modalities: tuple[str, ...] = ("audio", "video")
    inputs: InputConfig = dataclasses.field(default_factory=InputConfig)
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    resnet_width: int = 64  # channels of the stem; the four stages have 1, 2, 4 and 8 times as many
    fusion: str = "concat"  # or "add"
    pos_conv_kernel: int = 128
    pos_conv_groups: int = 16
    proj_dim: int = 256  # of the cosine prediction head
    temperature: float = 0.1
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    input_dropout: float = 0.1
    layerdrop: float = 0.05
    feature_grad_scale: float = 0.1  # gradient into the two front-ends
    dtype: str = "float32"  # of activations; parameters, reductions and logits are always float32. Or "bfloat16"
    remat: str = "none"  # what the backward pass recomputes: "none", "layers" (everything), "dots" (all but matmuls)


@dataclasses.dataclass
class MaskingConfig:
    """Which frames are hidden. kind "feature": one mask over the fused features; "input": one mask per modality.

    `*_prob` is the expected share of frames covered if spans never overlapped (they do: 0.8 at span 10 masks about 55 %).
    """

    kind: str = "feature"
    prob: float = 0.8
    span_frames: int = 10
    audio_prob: float = 0.8
    audio_span_frames: int = 10
    video_prob: float = 0.3
    video_span_frames: int = 5


@dataclasses.dataclass
class TargetsConfig:
    """What the clusters are made of. features "mfcc" (39-d) or "hidden" (a layer of the previous round's encoder)."""

    features: str = "mfcc"
    layer: int = 0  # of the previous round, counted from 1; for "hidden" only
    num_clusters: int = 100
    fit_share: float = 0.1  # of the training clips, drawn by clip id
    fit_max_frames: int = 2_000_000
    fit_passes: int = 100
    fit_restarts: int = 5


@dataclasses.dataclass
class OptimizerConfig:
    """AdamW on all parameters. schedule "polynomial" (linear warm-up, linear decay to 0) or "tri_stage"."""

    schedule: str = "polynomial"
    peak_lr: float = 5e-4
    warmup_steps: int = 32_000
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-6
    weight_decay: float = 0.01
    clip_norm: float = 10.0  # 0: off


@dataclasses.dataclass
class RoundConfig:
    """One refinement round: make targets, then pretrain from random weights on them."""

    targets: TargetsConfig = dataclasses.field(default_factory=TargetsConfig)
    masking: MaskingConfig = dataclasses.field(default_factory=MaskingConfig)
    modality_dropout: float = 0.0  # probability, per clip, that one modality is dropped
    audio_dropout: float = 0.5  # given that one is dropped, that it is the audio
    unmasked_weight: float = 0.0  # of the loss on unmasked frames
    feature_penalty: float = 10.0  # times the mean square of the fused features
    num_steps: int = 400_000
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)


@dataclasses.dataclass
class FinetuneConfig:
    """Emotion classification with the encoder of `encoder`, trained and chosen under a named protocol."""

    encoder: str = "last_round"  # of this run; "none": random weights; or the path of an exported encoder
    corpora: tuple[CorpusConfig, ...] = ()  # labelled clips; empty: those of `data`
    classes: tuple[str, ...] = ()
    protocol: str = "official"  # see mmpretrain/evaluation/protocols.py
    folds: tuple[int, ...] = ()  # counted from 1; empty: all of the protocol
    compare_from_scratch: bool = True  # train the same network from random weights too
    num_steps: int = 2_000
    freeze_steps: int = 0  # first steps in which only the head learns
    batch_frames: int = 4_000
    eval_every: int = 100  # steps between evaluations on validation, which choose the model
    select_by: str = "ua"
    masking: MaskingConfig | None = None  # input masking as augmentation
    freq_mask: int = 0  # widest band of filterbank channels hidden as augmentation, of 26
    dropout: float = 0.1
    label_smoothing: float = 0.0
    feature_grad_scale: float = 1.0
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(schedule="tri_stage", peak_lr=1e-3, warmup_steps=200, eps=1e-8, weight_decay=0.0, clip_norm=0.0)
    )


@dataclasses.dataclass
class ParallelConfig:
    """Shape of the device mesh; one axis may be -1 (all that is left)."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass
class CheckpointConfig:
    every_steps: int = 1_000
    keep: int = 2


@dataclasses.dataclass
class RunConfig:
    """Everything a run needs to know. One recipe serves every stage; a stage reads its part."""

    workdir: str = ""
    seed: int = 1337
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    rounds: tuple[RoundConfig, ...] = ()
    finetune: FinetuneConfig | None = None
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    log_every: int = 100  # steps
    valid_every: int = 10_000  # steps between evaluations on the validation clips in pretraining
