"""The typed tree of a run: every number of a recipe and its default.

A recipe (`configs/*.py`) returns a `RunConfig`; `--config.a.b=value` changes one field of it. Beside each default
stands what the field may hold (`config/ranges.py`); `config/checks.py` says which fields do not go together. Devices,
checkpoints and the like are in `config/running.py`, tasks in `config/tasks.py`, others in files of their names.
Defaults follow the released AV-HuBERT Base recipe unless a comment says otherwise.
"""

# No `from __future__ import annotations`: the command line reads the fields' types as objects.
import copy
import dataclasses

from mmpretrain.config.optimizer import LARGE, OptimizerConfig
from mmpretrain.config.ranges import above, below, each, one_of, setting, within, words
from mmpretrain.config.reference import ReferenceModelConfig, ReferenceRoundConfig
from mmpretrain.config.retrieval import RetrievalConfig
from mmpretrain.config.running import CheckpointConfig, HealthConfig, ObserveConfig, ParallelConfig
from mmpretrain.config.tasks import TaskConfig, TextConfig

AUDIO_DIM = 104  # four stacked 10 ms frames of 26 log filterbank energies: one row per 40 ms frame

# What clusters can be made of: of a clip's sound (four), of its face (two), or of an encoder's layer (the last).
FEATURES = ("mfcc", "cepstra", "fbank", "prosody", "face_appearance", "face_geometry", "hidden")
RELATIVE_FEATURES = ("prosody", "face_appearance", "face_geometry")  # those that `relative_to` can be said of

# Rules of late fusion; the last two are fitted on the validation clips of a fold.
LATE_FUSIONS = ("late_mean", "late_max", "late_product", "late_weights", "late_stacked")
FITTED_FUSIONS = LATE_FUSIONS[3:]
FUSIONS = ("early", "intermediate", "bottleneck", "gated", *LATE_FUSIONS)

SHARE = within(0, 1)
RATE = below(1, least=0, text="between 0 and 1, and below 1")  # of what is left out; the rest is scaled up
WIDTH, SPAN = above(0, most=65_536), above(0, most=1_000_000)
STEPS = within(1, LARGE, f"a positive number of steps, up to {LARGE:_}")


@dataclasses.dataclass
class CorpusConfig:
    """One prepared corpus of the mixture.

    `weight` is how often each of its clips appears per epoch. `validation_share` of its clips are held out of
    pretraining by clip id, 0: none, whatever split the corpus has; -1: those of its split `validation`, or, where it
    has none, `DataConfig.validation_share`. Pretraining may take a part of it: the clips of `speakers`, those labelled
    with one of `languages`, those of the manifest in the folder `retrieved`, which `mmpretrain retrieve` left, and of
    these `hours` to train on, drawn by clip id, so that more hours hold all of fewer.
    `prepare`: what `python -m data_prep` is given beside --output where the folder is not there; none: it must be.
    """

    path: str = setting("", words("the folder of a prepared corpus"))
    weight: float = setting(1.0, above(0, most=1_000_000))
    validation_share: float = setting(-1.0, within(0, 1, "between 0 and 1, or -1", also=(-1,)))
    speakers: tuple[str, ...] = setting((), each(words()))  # empty: all
    languages: tuple[str, ...] = setting((), each(words()))  # of the label column `language`; empty: all
    retrieved: str = setting("", words("the folder of a manifest"))  # "": all clips
    hours: float = setting(0.0, within(0, 1_000_000))  # 0: all
    prepare: tuple[str, ...] = setting((), each(words()))


@dataclasses.dataclass
class NoiseConfig:
    """Sound mixed under the speech of training clips (arXiv 2201.01763): `prob` per clip, at `snr_db`."""

    prob: float = setting(0.0, SHARE)
    snr_db: float = setting(0.0, within(-100, 100))
    path: str = setting("", words("a folder of sounds"))  # a folder of sounds, searched to any depth


@dataclasses.dataclass
class DataConfig:
    corpora: tuple[CorpusConfig, ...] = setting((), each(None))
    exclude_speakers: tuple[str, ...] = setting((), each(words()))  # left out of pretraining altogether
    # of finetune.protocol: their test speakers are left out of pretraining
    exclude_folds: tuple[int, ...] = setting((), each(within(1, 1_000), distinct=True))
    validation_share: float = setting(0.05, SHARE)  # held out by clip id from corpora that have no `validation` split
    max_validation_clips: int = setting(2_000, within(0, LARGE))  # of each corpus, drawn by clip id; 0: all
    # frames per global batch, padding included; 32 GPUs x 1000 in the reference
    batch_frames: int = setting(32_000, within(1, LARGE))
    # the lengths T that batches may have
    bucket_frames: tuple[int, ...] = setting(
        (100, 200, 300, 400, 500),
        each(within(1, 1_000_000), least=1, text="positive lengths in frames, each at most 1_000_000"),
    )
    # every batch has a multiple of so many clips; devices and parts must divide it
    batch_multiple: int = setting(8, within(1, 65_536, "at least 1 and at most 65_536"))
    min_frames: int = setting(5, within(1, 1_000_000))
    # clips over the longest bucket: "crop" (a random stretch) or "drop"
    long_clips: str = setting("crop", one_of("crop", "drop"))
    flip: bool = True  # horizontal flip of the whole clip with probability 0.5
    random_crop: bool = True  # of the picture: one offset per clip; else the centre
    noise: NoiseConfig = dataclasses.field(default_factory=NoiseConfig)
    # of the clips, those that may be passed over because their records are damaged; more of them end the run
    max_unreadable_share: float = setting(0.01, SHARE)
    # processes that read and collate batches, beside each process of the run, where a thread would take long; 0: not
    # even a thread ahead of it. They decide nothing but the speed: a core loads about 40,000 frames/s
    num_workers: int = setting(4, within(0, 1_024, "0 (no processes) or more, up to 1_024"))


@dataclasses.dataclass
class InputConfig:
    """What the network sees; part of an exported encoder."""

    view: str = setting("mouth", one_of("mouth", "face"))  # the video: "mouth" or "face" crop
    image_size: int = setting(88, above(0, most=2_048))  # side of the (cropped) picture in pixels
    pixel_mean: float = setting(0.421, within(-1_000, 1_000))
    pixel_std: float = setting(0.165, above(0, most=1_000))
    # "frame": each row by itself (the reference); "level": with a share of its level; "clip": each band over the clip,
    # less the speaker and the channel: see features/filterbank.py
    audio_normalization: str = setting("frame", one_of("frame", "level", "clip"))


@dataclasses.dataclass
class ModelConfig:
    """An audio-visual encoder (spec: AV-HuBERT, sections 7 and 11). `encoder_size` gives the named sizes."""

    modalities: tuple[str, ...] = setting(
        ("audio", "video"),
        each(words(), least=1, distinct=True, text='one or more, each once, e.g. ("audio", "video")'),
    )
    inputs: InputConfig = dataclasses.field(default_factory=InputConfig)
    width: int = setting(768, WIDTH)
    num_layers: int = setting(12, above(0, most=1_024))
    num_heads: int = setting(12, WIDTH)
    mlp_dim: int = setting(3072, WIDTH)
    # channels of the stem; the four stages have 1, 2, 4 and 8 times as many
    resnet_width: int = setting(64, above(0, most=8_192))
    # basic blocks, of two convolutions each, in each of the four stages: ResNet-18, the reference's; (1, 1, 1, 1) is
    # ResNet-10, half the work on pictures and half as long to compile
    resnet_blocks: tuple[int, ...] = setting(
        (2, 2, 2, 2),
        each(within(1, 64), least=4, most=4, text="four numbers of blocks, each between 1 and 64, e.g. (2, 2, 2, 2)"),
    )
    fusion: str = setting("concat", one_of("concat", "add"))  # or "add"
    pos_conv_kernel: int = setting(128, WIDTH)
    pos_conv_groups: int = setting(16, WIDTH)
    proj_dim: int = setting(256, WIDTH)  # of the prediction head
    temperature: float = setting(0.1, above(0, most=1_000))
    dropout: float = setting(0.1, RATE)
    # of attention's probabilities. Above 0, training holds them, [B, H, T, T] a layer: no fused kernel drops any
    attention_dropout: float = setting(0.1, RATE)
    activation_dropout: float = setting(0.0, RATE)
    input_dropout: float = setting(0.1, RATE)
    layerdrop: float = setting(0.05, SHARE)
    feature_grad_scale: float = setting(0.1, within(0, 1_000))  # gradient into the two front-ends
    # of activations; parameters, reductions and logits are always float32. Or "bfloat16"
    dtype: str = setting("float32", one_of("float32", "bfloat16"))
    # what the backward pass recomputes of the layers: "none", "layers" (everything), "dots" (all but matmuls)
    remat: str = setting("none", one_of("none", "layers", "dots"))
    # and of the ResNet: "none", "blocks" (everything), "convolutions" (all but convolutions and batch statistics)
    resnet_remat: str = setting("none", one_of("none", "blocks", "convolutions"))
    # what batch norms normalise by in training: "global", the statistics of all pictures of the batch; or "device", of
    # each device's own, as the reference: nothing waits for an exchange, but results depend on how many devices there
    # are; the running averages follow the mean of all devices' statistics
    batch_statistics: str = setting("global", one_of("global", "device"))
    reference: ReferenceModelConfig = dataclasses.field(default_factory=ReferenceModelConfig)


@dataclasses.dataclass
class MaskingConfig:
    """Which frames are hidden. kind "feature": one mask over the fused features; "input": one mask per modality.

    `*_prob` is the share of frames that would be covered if spans never overlapped: 0.8 at span 10 masks about 55 %.
    """

    kind: str = setting("feature", one_of("feature", "input"))
    prob: float = setting(0.8, SHARE)
    span_frames: int = setting(10, SPAN)
    audio_prob: float = setting(0.8, SHARE)
    audio_span_frames: int = setting(10, SPAN)
    video_prob: float = setting(0.3, SHARE)
    video_span_frames: int = setting(5, SPAN)
    # kind "feature": the ResNet is run on the frames that are not masked alone, each with its true neighbours. Batch
    # statistics and the feature penalty are then of these, so that results differ from those without. For each clip a
    # fixed number of the T frames of a batch goes through it (`most_visible`); where more are visible, further ones are
    # masked: at prob 0.8 and span 10 in 6 % of clips 4 to 7 frames, which raises the masked share from 0.566 to 0.567
    visible_only: bool = False
    # where pictures put over masked ones are from; or "other_clip" of the batch
    video_source: str = setting("same_clip", one_of("same_clip", "other_clip"))


@dataclasses.dataclass
class TargetsConfig:
    """One codebook and what it is made of: one of `FEATURES` (docs/targets.md), "hidden" being a layer of the encoder
    that `RoundConfig.encoder` names. It labels the clips that have what it needs (sound, video)."""

    features: str = setting("mfcc", one_of(*FEATURES))
    # what is taken off: "clip", what the clip is all along; "speaker", what the speaker is over all of their clips to
    # train on and to validate on, so that a lasting expression stays (a clip of nobody named, or the only one of its
    # speaker, is relative to itself); "none"; or "usual": "none" of face_geometry, "clip" of the other two
    relative_to: str = setting("usual", one_of("usual", "clip", "speaker", "none"))
    layer: int = setting(0, within(0, 1_024))  # of that encoder, counted from 1; for "hidden" only
    num_clusters: int = setting(100, within(2, 65_536, "at least 2 and at most 65_536"))
    weight: float = setting(1.0, above(0, most=1_000_000))  # of this codebook's loss beside those of the round's others
    fit_share: float = setting(0.1, above(0, most=1))  # of the training clips, drawn by clip id
    # at most; each takes 4 bytes a dim of the features in host memory
    fit_max_frames: int = setting(4_000_000, within(1, LARGE))
    fit_passes: int = setting(100, above(0, most=100_000))
    fit_restarts: int = setting(5, above(0, most=10_000))


@dataclasses.dataclass
class RoundConfig:
    """One refinement round: make targets, then pretrain on them."""

    # a name of `objectives.OBJECTIVES`
    objective: str = setting("masked_prediction", words("the name of an objective"))
    targets: tuple[TargetsConfig, ...] = dataclasses.field(
        default_factory=lambda: (TargetsConfig(),),
        metadata={"range": each(None, least=1, text="at least one codebook, e.g. mfcc(100)")},
    )  # one a codebook
    # whose layers "hidden" targets are of; or the path of an exported encoder, or of a model of sound or pictures that
    # transformers saved (HuBERT, ViT), which needs the extra `torch`
    encoder: str = setting(
        "previous_round", words("previous_round, or the path of an exported encoder or a model of transformers")
    )
    # the weights that training starts from; or "previous_round": those of its encoder; or the path of an exported one
    init: str = setting("random", words("random, previous_round, or the path of an exported encoder"))
    masking: MaskingConfig = dataclasses.field(default_factory=MaskingConfig)
    modality_dropout: float = setting(0.0, SHARE)  # probability that one modality is dropped
    audio_dropout: float = setting(0.5, SHARE)  # probability that the one that is dropped is the audio
    unmasked_weight: float = setting(0.0, within(0, 1_000_000))  # of the loss on unmasked frames
    feature_penalty: float = setting(10.0, within(0, 1_000_000))  # times what `feature_penalty_of` says
    # "fused": the mean square of the fused features (the reference), which presses any stream to 0 that predicts the
    # targets less than another; "stream": how far each stream's own mean square is from 1, so that none is squeezed
    feature_penalty_of: str = setting("fused", one_of("fused", "stream"))
    # of objective "multitask_prediction": learned beside the clusters, of kind "class" or "embedding"; clips of a
    # retrieved corpus are of the class that the manifest's embedding hears (docs/rounds.md). One whose gradient is
    # reversed may leave its classes open: all that occur among the training clips, of the column "corpus" or "speaker"
    tasks: tuple[TaskConfig, ...] = setting((), each(None, text="tasks, each with a name of its own"))
    num_steps: int = setting(400_000, above(0, most=LARGE, text="above 0"))
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    reference: ReferenceRoundConfig = dataclasses.field(default_factory=ReferenceRoundConfig)


@dataclasses.dataclass
class FinetuneConfig:
    """Labelled tasks with the encoder of `encoder`, trained and chosen under a named protocol."""

    # of this run; "none": random weights; or the path of an exported encoder
    encoder: str = setting("last_round", words("last_round, none, or the path of an exported encoder"))
    corpora: tuple[CorpusConfig, ...] = setting((), each(None))  # labelled clips; empty: those of `data`
    # a head each; the protocol deals out the clips that the first one labels
    tasks: tuple[TaskConfig, ...] = setting((), each(None, least=1, text="one or more, each with a name of its own"))
    protocol: str = setting("official", words("the name of a protocol"))  # see mmpretrain/evaluation/protocols.py
    # counted from 1; empty: all of the protocol
    folds: tuple[int, ...] = setting((), each(within(1, 1_000), distinct=True))
    compare_from_scratch: bool = True  # train the same network from random weights too
    accept_seen_labels: bool = False  # test clips whose label was seen are tested all the same, and the figures say so
    # of the training clips of each fold, by the classes of the first task, how many are learned from; others are not
    # seen in fine-tuning at all. More of one draw hold all of fewer; validation and test clips stay whole
    label_share: float = setting(1.0, above(0, most=1))  # of each class, rounded, and at least one clip
    labels_per_class: int = setting(0, within(0, LARGE))  # in place of a share: so many, or all there are; 0: off
    label_draw: int = setting(0, within(0, LARGE))  # which draw of them, by clip id; the run's seed has no say in it
    # "trained": the heads, and the encoder with them; or "frozen_linear": logistic regression on mean and deviation of
    # all layers of the encoder as it is, its strength chosen by `select_by`: no steps, hence nothing below is read but
    # `select_by`
    classifier: str = setting("trained", one_of("trained", "frozen_linear"))
    num_steps: int = setting(2_000, above(0, most=LARGE, text="above 0"))
    # of tasks of classes: "attentive": a learned mix of layers, attentive mean and deviation, random weights; or
    # "frozen_linear": mean and deviation of all layers, starting as what the classifier `frozen_linear` comes to
    head: str = setting("attentive", one_of("attentive", "frozen_linear"))
    # times the learning rate, of a pretrained encoder; under the head `frozen_linear` of one from random weights too
    encoder_rate: float = setting(1.0, above(0, most=1_000))
    # first steps in which only the heads learn; num_steps: the encoder never does
    freeze_steps: int = setting(0, within(0, LARGE))
    # layer-wise decay: times the learning rate once for every layer from the top, the front-ends' once more
    layer_decay: float = setting(1.0, above(0, most=1))
    # gradual unfreezing: after `freeze_steps` the top layer learns, the next one so many steps later, and so on, the
    # front-ends last; 0: all at once
    unfreeze_every: int = setting(0, within(0, LARGE))
    # LoRA: the encoder stays as it is, but for a product of two matrices of this rank beside each matrix of its
    # layers, which is added to it in the end; 0: off
    lora_rank: int = setting(0, within(0, 65_536))
    batch_frames: int = setting(4_000, within(1, LARGE))
    # "balanced": of each class of the first task as many clips an epoch, over all as many as there are
    # "spread": so too, and every batch has of each class about as many, of as many corpora and speakers as there are
    sampling: str = setting("as_it_is", one_of("as_it_is", "balanced", "spread"))
    eval_every: int = setting(100, STEPS)  # steps between evaluations on validation, which choose the model
    select_by: str = setting("emotion/ua", words("TASK/METRIC"))  # TASK/METRIC on validation
    # how the model of a fold is chosen: "val": by `select_by` on its validation clips; "last": the last step is taken;
    # "test-best": by `select_by` on its TEST clips, which makes figures too good: to compare with papers that did so
    selection: str = setting("val", one_of("val", "last", "test-best"))
    masking: MaskingConfig | None = None  # input masking as augmentation
    # widest band of filterbank channels hidden as augmentation, of 26
    freq_mask: int = setting(0, within(0, 26, "0 to 26 filterbank channels"))
    # 0.1: frequencies are stretched by 0.9 to 1.1 as augmentation (other vocal tracts)
    freq_warp: float = setting(0.0, below(0.5, least=0))
    text: TextConfig | None = None  # heard beside the model's modalities
    # tracks of the corpora heard beside them too, some numbers a frame: ("hands",), ("hands", "blendshapes")
    tracks: tuple[str, ...] = setting((), each(words(), distinct=True))
    # where modalities meet. Text and tracks with sound and picture, which the encoder joins: "early": added to frames
    # before the transformer; "intermediate", "bottleneck" and "gated": in a task's head, by attention both ways, by
    # tokens that attend to all, or by a gate; without text and tracks, sound with picture. "late_RULE": a head of every
    # modality by itself, sound and picture too, and the rule that makes one answer of theirs (docs/training.md)
    fusion: str = setting("early", one_of(*FUSIONS))
    # in training each modality of a clip, its text and tracks too, is left out with this probability, but never all
    modality_dropout: float = setting(0.0, SHARE)
    # test figures with each of the modalities alone, and with every some of them, shown (7 with text)
    modality_table: bool = False
    # inputs and labels of two clips of a batch are mixed, by shares of Beta(mixup, mixup); 0: off
    mixup: float = setting(0.0, within(0, 100))
    dropout: float = setting(0.1, RATE)
    label_smoothing: float = setting(0.0, SHARE)
    feature_grad_scale: float = setting(1.0, within(0, 1_000))
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(
            schedule="tri_stage", peak_lr=1e-3, warmup_steps=200, eps=1e-8, weight_decay=0.0, clip_norm=0.0
        )
    )


# What a label-efficiency curve has a line of; the first two are trained by steps, which takes most of its time.
CLASSIFIERS = ("pretrained", "scratch", "frozen", "untrained_frozen", "sound_statistics", "picture_statistics")


@dataclasses.dataclass
class LabelEfficiencyConfig:
    """How well the first task of `finetune` is learned from a share of its labels (docs/evaluation.md)."""

    # of the training clips, as `FinetuneConfig.label_share`, which they stand in for; empty: nothing of it is done
    shares: tuple[float, ...] = setting((), each(above(0, most=1), distinct=True))
    # draws of the labels, each with a seed of its own: the run's first, then others drawn from it
    draws: int = setting(3, within(1, 1_000))
    classifiers: tuple[str, ...] = setting(
        CLASSIFIERS, each(one_of(*CLASSIFIERS), least=1, distinct=True, text=f"some of {', '.join(CLASSIFIERS)}")
    )


@dataclasses.dataclass
class UnitsConfig:
    """What is said in every frame, learned from few labelled clips: where pretraining must pay (docs/evaluation.md).

    A frozen probe of the encoder, of the untrained network and of plain features; and that network trained by steps.
    """

    # of kind "frames"; of alignments all that occur where no classes are named
    task: TaskConfig = dataclasses.field(default_factory=lambda: TaskConfig(name="units", kind="frames"))
    encoder: str = setting("last_round", words("last_round, or the path of an exported encoder"))
    corpora: tuple[CorpusConfig, ...] = setting((), each(None))  # labelled clips; empty: those of `data`
    protocol: str = setting("official", words("the name of a protocol"))  # the first of its folds
    # training clips to learn from; 0: all
    labelled_clips: tuple[int, ...] = setting(
        (5, 20, 80, 0), each(within(0, LARGE), least=1, distinct=True, text="numbers of clips, each once, 0: all")
    )
    validation_clips: int = setting(80, within(0, LARGE))  # at most, by clip id, to choose on; 0: all
    # of those clips, by clip id, and of the seeds of the networks
    draws: int = setting(3, within(1, 1_000))
    # modalities that are shown at once, joined by +; each must be the model's
    inputs: tuple[str, ...] = setting(
        ("audio+video",), each(words(), least=1, distinct=True, text='one or more, e.g. ("audio", "audio+video")')
    )
    finetuned: bool = False  # train the network from the pretrained encoder too, as from scratch
    num_steps: int = setting(300, above(0, most=LARGE, text="above 0"))  # of each network
    eval_every: int = setting(50, STEPS)  # steps between evaluations on validation, which choose the step
    batch_frames: int = setting(800, within(1, LARGE))
    dropout: float = setting(0.1, RATE)
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(
            schedule="tri_stage", peak_lr=1e-3, warmup_steps=30, eps=1e-8, weight_decay=0.01, clip_norm=1.0
        )
    )


@dataclasses.dataclass
class RunConfig:
    """Everything a run needs to know. One recipe serves every stage; a stage reads its part."""

    workdir: str = setting("", words("the folder of the run"))
    seed: int = setting(1337, within(0, 4_294_967_295))
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    rounds: tuple[RoundConfig, ...] = setting((), each(None))
    finetune: FinetuneConfig | None = None
    retrieval: RetrievalConfig | None = None
    label_efficiency: LabelEfficiencyConfig = dataclasses.field(default_factory=LabelEfficiencyConfig)
    units: UnitsConfig | None = None
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    health: HealthConfig = dataclasses.field(default_factory=HealthConfig)
    observe: ObserveConfig = dataclasses.field(default_factory=ObserveConfig)
    log_every: int = setting(100, STEPS)  # steps
    validation_every: int = setting(10_000, STEPS)  # steps between evaluations on the validation clips in pretraining

    def __post_init__(self) -> None:
        # Rounds that were built with one optimizer or masking object must not change together under an override.
        if isinstance(self.rounds, tuple | list):
            self.rounds = tuple(copy.deepcopy(round_) for round_ in self.rounds)
