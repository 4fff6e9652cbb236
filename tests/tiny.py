"""The smallest models, recipes and batches that still have every part, for tests."""

import jax
import numpy as np
from flax import nnx

from mmpretrain.config import (
    AUDIO_DIM,
    CorpusConfig,
    DataConfig,
    FinetuneConfig,
    InputConfig,
    ModelConfig,
    OptimizerConfig,
    RoundConfig,
    RunConfig,
    emotion,
    hidden,
    mfcc,
)
from mmpretrain.randomness import keys_of
from mmpretrain.records import Batch

QUIET = dict(dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, input_dropout=0.0, layerdrop=0.0)
IMAGE_SIZE = 16
NUM_CLUSTERS = 7


def tiny_model(*modalities: str, **changes) -> ModelConfig:
    """An encoder of 16 dims, 2 layers and a ResNet-10, without dropout. Of sound only where no modality is named."""
    fields = dict(
        modalities=modalities or ("audio",), inputs=InputConfig(image_size=IMAGE_SIZE),
        width=16, num_layers=2, num_heads=2, mlp_dim=32, resnet_width=2, resnet_blocks=(1, 1, 1, 1),
        pos_conv_kernel=4, pos_conv_groups=2, proj_dim=8,
    )  # fmt: skip
    return ModelConfig(**fields | QUIET | changes)


def tiny_round(**changes) -> RoundConfig:
    """A round whose first update already has the full rate."""
    fields = dict(targets=mfcc(NUM_CLUSTERS), num_steps=100, optimizer=OptimizerConfig(peak_lr=1e-2, warmup_steps=0))
    return RoundConfig(**fields | changes)


def tiny_run(**changes) -> RunConfig:
    """A recipe of two rounds and fine-tuning that passes `check`. Its corpus does not exist."""
    fields = dict(
        workdir="runs/tiny",
        data=DataConfig(corpora=(CorpusConfig("no_such_corpus"),), batch_frames=200, bucket_frames=(20,)),
        model=tiny_model("audio", "video"),
        rounds=(tiny_round(), tiny_round(targets=hidden(layer=2, num_clusters=NUM_CLUSTERS))),
        finetune=FinetuneConfig(tasks=(emotion("neutral", "happy", "sad"),)),
    )
    return RunConfig(**fields | changes)


def random_batch(
    lengths=(12, 9), num_frames: int | None = None, *, model: ModelConfig, seed: int = 0, num_classes: int = 3,
    present: dict | None = None, emotions=None,
) -> Batch:  # fmt: skip
    """Clips of these lengths, in NumPy. Padding holds noise instead of zeros: nothing may depend on it.

    present: by modality, whether each clip has it (default: all do). emotions: the labels (default: random ones).
    """
    random, lengths = np.random.default_rng(seed), np.array(lengths)
    B, T = len(lengths), num_frames or int(lengths.max())
    valid_BT = np.arange(T) < lengths[:, None]
    S, inputs = model.inputs.image_size, {}
    if "audio" in model.modalities:
        inputs["audio"] = random.normal(size=(B, T, AUDIO_DIM)).astype(np.float32)
    if "video" in model.modalities:
        inputs["video"] = random.integers(0, 256, (B, T, S, S), np.uint8)
    targets_BT = np.where(valid_BT, random.integers(0, NUM_CLUSTERS, (B, T)), -1).astype(np.int32)
    emotion_B = random.integers(0, num_classes, B).astype(np.int32)
    return Batch(
        inputs=inputs,
        present={name: np.full(B, True) for name in inputs}
        | {name: np.array(has, bool) for name, has in (present or {}).items()},
        valid_BT=valid_BT,
        targets_BTS=targets_BT[..., None],
        labels={"emotion": emotion_B if emotions is None else np.array(emotions, np.int32)},
        clip_B=np.arange(B, dtype=np.int32),
        chance_B=np.arange(B, dtype=np.uint32),
    )


def clip_keys(batch: Batch, seed: int = 0) -> jax.Array:
    """As the trainer hands them to an objective."""
    return keys_of(jax.random.key(seed), batch.chance_B)


def with_inputs(batch: Batch, **inputs) -> Batch:
    """The batch with other inputs of these modalities."""
    return batch._replace(inputs=batch.inputs | inputs)


def with_present(batch: Batch, **present) -> Batch:
    """The batch with other clips that have these modalities."""
    return batch._replace(present=batch.present | {name: np.array(has, bool) for name, has in present.items()})


def initial(make, seed: int = 0):
    """Graph definition, random parameters and batch statistics of the module `make(rngs)`.

    Drawn with NumPy, since compiling the drawing of a ResNet takes longer than most tests; and unlike at the start of
    training nothing is zero, one or the same for all channels.
    """
    random = np.random.default_rng(seed)
    graphdef, params, stats = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param, nnx.BatchStat)

    def draw(path, leaf):
        name, value = path[-2].key, random.normal(size=leaf.shape)
        if leaf.ndim > 1 and name != "bias":
            value *= np.sqrt(leaf.shape[-1] / leaf.size)
        elif name in ("scale", "var", "g", "slope"):
            value = 1 + 0.3 * np.tanh(value)
        else:
            value *= 0.1
        return jax.numpy.asarray(value, leaf.dtype)

    return graphdef, *(jax.tree_util.tree_map_with_path(draw, state) for state in (params, stats))


def rows(batch: Batch, where) -> Batch:
    """Some clips of a batch."""
    return jax.tree.map(lambda x: x[where], batch)


def padded(batch: Batch, num_frames: int) -> Batch:
    """The same clips with `num_frames` more of padding, filled with ones (targets: -1)."""

    def extend(x, value=1):
        return np.pad(x, [(0, 0), (0, num_frames)] + [(0, 0)] * (x.ndim - 2), constant_values=value)

    return batch._replace(
        inputs={name: extend(x) for name, x in batch.inputs.items()},
        valid_BT=extend(batch.valid_BT, False),
        targets_BTS=extend(batch.targets_BTS, -1),
    )
