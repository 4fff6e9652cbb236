"""Named parts of recipes: sizes of encoders, and what codebooks are made of."""

from __future__ import annotations

import dataclasses
from typing import Any

from mmpretrain.config.reference import ReferenceModelConfig, ReferenceRoundConfig
from mmpretrain.config.tasks import TaskConfig
from mmpretrain.config.tree import ModelConfig, RunConfig, TargetsConfig

_SIZES = {
    "tiny": dict(width=96, num_layers=3, num_heads=4, mlp_dim=384, resnet_width=8, proj_dim=64),
    "small": dict(width=256, num_layers=6, num_heads=4, mlp_dim=1024, resnet_width=16, proj_dim=128),
    "base": dict(width=768, num_layers=12, num_heads=12, mlp_dim=3072, resnet_width=64, proj_dim=256),
    "large": dict(width=1024, num_layers=24, num_heads=16, mlp_dim=4096, resnet_width=64, proj_dim=256),
}


def encoder_size(name: str, **changes: Any) -> ModelConfig:
    """The named size (tiny, small, base, large), with any other fields of `ModelConfig` changed."""
    if name not in _SIZES:
        raise ValueError(f"unknown encoder size {name!r}; known are {', '.join(_SIZES)}")
    position = {"tiny": (32, 4), "small": (64, 16)}.get(name, (128, 16))
    fields = _SIZES[name] | {"pos_conv_kernel": position[0], "pos_conv_groups": position[1]}
    return ModelConfig(**fields | changes)


def mfcc(num_clusters: int = 100, **changes: Any) -> tuple[TargetsConfig, ...]:
    """One codebook of MFCC-39: the targets of a first round. Several at once are a sum: mfcc(100) + prosody(50)."""
    return (TargetsConfig(features="mfcc", num_clusters=num_clusters, **changes),)


def cepstra(num_clusters: int = 100, **changes: Any) -> tuple[TargetsConfig, ...]:
    """One codebook of the cepstra of all four rows of a frame on the clip's own scale: what is said, not who speaks."""
    return (TargetsConfig(features="cepstra", num_clusters=num_clusters, **changes),)


def fbank(num_clusters: int = 100, **changes: Any) -> tuple[TargetsConfig, ...]:
    """One codebook of log filterbanks: sharper about phones than MFCC, and less about who speaks."""
    return (TargetsConfig(features="fbank", num_clusters=num_clusters, **changes),)


def prosody(num_clusters: int = 50, **changes: Any) -> tuple[TargetsConfig, ...]:
    """One codebook of pitch, voicing, loudness and brightness."""
    return (TargetsConfig(features="prosody", num_clusters=num_clusters, **changes),)


def face_appearance(num_clusters: int = 50, **changes: Any) -> tuple[TargetsConfig, ...]:
    """One codebook of how the picture of the face differs from the clip's mean."""
    return (TargetsConfig(features="face_appearance", num_clusters=num_clusters, **changes),)


def face_geometry(num_clusters: int = 50, **changes: Any) -> tuple[TargetsConfig, ...]:
    """One codebook of MediaPipe's blendshapes: how far each movement of the face goes."""
    return (TargetsConfig(features="face_geometry", num_clusters=num_clusters, **changes),)


def hidden(layer: int, num_clusters: int, **changes: Any) -> tuple[TargetsConfig, ...]:
    """One codebook of what `layer` (from 1) of an encoder makes: the previous round's, or that of `round.encoder`."""
    return (TargetsConfig(features="hidden", layer=layer, num_clusters=num_clusters, **changes),)


def emotion(*classes: str, **changes: Any) -> TaskConfig:
    """The task of telling these emotions apart."""
    return TaskConfig(**{"name": "emotion", "classes": classes} | changes)


def reference_quirks(config: RunConfig, *, unpublished: bool = False) -> RunConfig:
    """`config` with everything on that only the reference does (`config/reference.py`). No recipe has any of it.

    All pictures go through the ResNet, as they do there (`masking.visible_only`). Targets come at 100 Hz in the rounds
    where all are of MFCC. unpublished: also what its code can do but no released model has, with temperature 1. Several
    label sets, which no released model has either, are several `targets`.
    """
    model = dataclasses.replace(config.model, temperature=1.0, reference=ReferenceModelConfig(True, True, True))
    rounds = []
    for round_ in config.rounds:
        reference = ReferenceRoundConfig(
            targets_per_frame=4 if all(targets.features == "mfcc" for targets in round_.targets) else 1,
            dead_classes=4, equal_mask_counts=True, zero_lone_clip=round_.masking.kind == "input",
            whole_batch_dropout=True, count_padding=True,
        )  # fmt: skip
        masking = dataclasses.replace(round_.masking, visible_only=False)
        rounds.append(dataclasses.replace(round_, masking=masking, reference=reference))
    return dataclasses.replace(config, model=model if unpublished else config.model, rounds=tuple(rounds))
