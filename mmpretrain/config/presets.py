"""Named parts of recipes: sizes of encoders, and what codebooks are made of."""

from __future__ import annotations

from typing import Any

from mmpretrain.config.tree import ModelConfig, TargetsConfig

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
    """One codebook of the previous round's stream after `layer` (counted from 1)."""
    return (TargetsConfig(features="hidden", layer=layer, num_clusters=num_clusters, **changes),)
