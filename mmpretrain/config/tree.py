"""The typed tree of a run: every number of a recipe and its default.

A recipe (`configs/*.py`) returns a `RunConfig`; `--config.a.b=value` changes one field of it; `config/checks.py` says
what cannot work. Defaults follow the released AV-HuBERT Base recipe unless a comment says otherwise.
"""

# No `from __future__ import annotations`: the command line reads the fields' types as objects.
import copy
import dataclasses

from mmpretrain.config.reference import ReferenceModelConfig, ReferenceRoundConfig

AUDIO_DIM = 104  # four stacked 10 ms frames of 26 log filterbank energies: one row per 40 ms frame

# What clusters can be made of: of a clip's sound (three), of its face (two), or of an encoder's layer (the last).
FEATURES = ("mfcc", "fbank", "prosody", "face_appearance", "face_geometry", "hidden")


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
    exclude_speakers: tuple[str, ...] = ()  # left out of pretraining altogether
    exclude_folds: tuple[int, ...] = ()  # of finetune.protocol: their test speakers are left out of pretraining
    validation_share: float = 0.05  # held out by clip id from corpora that have no `validation` split
    batch_frames: int = 32_000  # frames per global batch, padding included; 32 GPUs x 1000 in the reference
    bucket_frames: tuple[int, ...] = (100, 200, 300, 400, 500)  # the lengths T that batches may have
    batch_multiple: int = 8  # every batch has a multiple of so many clips; devices and parts must divide it
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
    audio_normalization: str = "frame"  # each row by itself (the reference); or "level": see features/filterbank.py


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
    proj_dim: int = 256  # of the prediction head
    temperature: float = 0.1
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    input_dropout: float = 0.1
    layerdrop: float = 0.05
    feature_grad_scale: float = 0.1  # gradient into the two front-ends
    dtype: str = "float32"  # of activations; parameters, reductions and logits are always float32. Or "bfloat16"
    remat: str = "none"  # what the backward pass recomputes: "none", "layers" (everything), "dots" (all but matmuls)
    reference: ReferenceModelConfig = dataclasses.field(default_factory=ReferenceModelConfig)


@dataclasses.dataclass
class MaskingConfig:
    """Which frames are hidden. kind "feature": one mask over the fused features; "input": one mask per modality.

    `*_prob` is the share of frames that would be covered if spans never overlapped: 0.8 at span 10 masks about 55 %.
    """

    kind: str = "feature"
    prob: float = 0.8
    span_frames: int = 10
    audio_prob: float = 0.8
    audio_span_frames: int = 10
    video_prob: float = 0.3
    video_span_frames: int = 5
    video_source: str = "same_clip"  # where pictures put over masked ones are from; or "other_clip" of the batch


@dataclasses.dataclass
class TargetsConfig:
    """One codebook and what it is made of: one of `FEATURES` (docs/targets.md), "hidden" being a layer of the previous
    round's encoder. It labels the clips that have what it needs (sound, video)."""

    features: str = "mfcc"
    layer: int = 0  # of the previous round, counted from 1; for "hidden" only
    num_clusters: int = 100
    weight: float = 1.0  # of this codebook's loss beside those of the round's others
    fit_share: float = 0.1  # of the training clips, drawn by clip id
    fit_max_frames: int = 4_000_000  # at most; each takes 4 bytes a dim of the features in host memory
    fit_passes: int = 100
    fit_restarts: int = 5


@dataclasses.dataclass
class OptimizerConfig:
    """AdamW, of whatever learns. schedule "polynomial" (linear warm-up, linear decay to 0) or "tri_stage"."""

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
    """One refinement round: make targets, then pretrain on them."""

    objective: str = "masked_prediction"  # a name of `objectives.OBJECTIVES`
    targets: tuple[TargetsConfig, ...] = dataclasses.field(default_factory=lambda: (TargetsConfig(),))  # one a codebook
    encoder: str = "previous_round"  # whose layers "hidden" targets are of; or the path of an exported encoder
    init: str = "random"  # the weights that training starts from; or "previous_round": those of its encoder
    masking: MaskingConfig = dataclasses.field(default_factory=MaskingConfig)
    modality_dropout: float = 0.0  # probability that one modality is dropped
    audio_dropout: float = 0.5  # probability that the one that is dropped is the audio
    unmasked_weight: float = 0.0  # of the loss on unmasked frames
    feature_penalty: float = 10.0  # times the mean square of the fused features
    num_steps: int = 400_000
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    reference: ReferenceRoundConfig = dataclasses.field(default_factory=ReferenceRoundConfig)


@dataclasses.dataclass
class TaskConfig:
    """What one head learns to tell of labelled clips (data/labels.py)."""

    name: str = "emotion"  # of the head, and of its metrics: emotion/ua
    column: str = ""  # of the corpora's labels; "": the one called `name`
    kind: str = "class"  # of the labels, as the corpora declare it
    classes: tuple[str, ...] = ()  # those that are told apart; clips with another label are left out
    weight: float = 1.0  # of its loss beside those of other tasks


@dataclasses.dataclass
class FinetuneConfig:
    """Labelled tasks with the encoder of `encoder`, trained and chosen under a named protocol."""

    encoder: str = "last_round"  # of this run; "none": random weights; or the path of an exported encoder
    corpora: tuple[CorpusConfig, ...] = ()  # labelled clips; empty: those of `data`
    tasks: tuple[TaskConfig, ...] = ()  # a head each; the protocol deals out the clips that the first one labels
    protocol: str = "official"  # see mmpretrain/evaluation/protocols.py
    folds: tuple[int, ...] = ()  # counted from 1; empty: all of the protocol
    compare_from_scratch: bool = True  # train the same network from random weights too
    accept_seen_labels: bool = False  # test clips whose label was seen are tested all the same, and the figures say so
    num_steps: int = 2_000
    freeze_steps: int = 0  # first steps in which only the heads learn; num_steps: the encoder never does
    batch_frames: int = 4_000
    eval_every: int = 100  # steps between evaluations on validation, which choose the model
    select_by: str = "emotion/ua"  # TASK/METRIC on validation
    masking: MaskingConfig | None = None  # input masking as augmentation
    freq_mask: int = 0  # widest band of filterbank channels hidden as augmentation, of 26
    freq_warp: float = 0.0  # 0.1: frequencies are stretched by 0.9 to 1.1 as augmentation (other vocal tracts)
    dropout: float = 0.1
    label_smoothing: float = 0.0
    feature_grad_scale: float = 1.0
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(
            schedule="tri_stage", peak_lr=1e-3, warmup_steps=200, eps=1e-8, weight_decay=0.0, clip_norm=0.0
        )
    )


@dataclasses.dataclass
class ParallelConfig:
    """Shape of the device mesh; one axis may be -1 (all that is left)."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    slices: int = 1  # the data axis spans so many TPU slices, or GPU nodes, joined by a slower network
    micro_batches: int = 1  # parts that a step goes through one after another, to save memory; see docs/training.md
    lost_after_sec: int = 60  # a process that gives no sign for so long is lost, and the run ends


@dataclasses.dataclass
class CheckpointConfig:
    every_steps: int = 1_000
    keep: int = 2
    best_by: str = ""  # validation metric of pretraining whose best encoder is kept beside the last; "": none


@dataclasses.dataclass
class HealthConfig:
    """When training is not worth going on with: the run then stops with advice.

    A round has collapsed, or a step is bad: its loss is no number or explodes (train/guard.py).
    """

    min_clusters_used: float = 0.25  # share of each codebook's clusters that have a frame; 0: never stop for this
    min_accuracy_gain: float = 0.01  # of masked accuracy over always answering the commonest cluster; -1: never
    max_loss_rise: float = 5.0  # a loss above so many times the mean of the good steps is bad; 0: no finite one is
    skip_bad_steps: int = 0  # bad steps in a row that are passed over without an update; one more stops the run


@dataclasses.dataclass
class ObserveConfig:
    """What a run tells beside its JSON lines."""

    tensorboard: bool = True  # the same records as event files under WORKDIR/tensorboard
    wandb_project: str = ""  # the same records in Weights & Biases (extra `wandb`); "": not there
    peak_tflops: float = 0.0  # of one device, which MFU is measured against; 0: by its name, see cost/chips.py


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
    health: HealthConfig = dataclasses.field(default_factory=HealthConfig)
    observe: ObserveConfig = dataclasses.field(default_factory=ObserveConfig)
    log_every: int = 100  # steps
    validation_every: int = 10_000  # steps between evaluations on the validation clips in pretraining

    def __post_init__(self) -> None:
        # Rounds that were built with one optimizer or masking object must not change together under an override.
        self.rounds = tuple(copy.deepcopy(round_) for round_ in self.rounds)
