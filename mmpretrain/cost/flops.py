"""Floating-point operations of a training step by formula: what `plan` predicts with and what MFU is measured against.

Counted are matrix products and convolutions, a multiply-add as two; nothing is counted that a step does twice to save
memory. Padding counts like what is real, in clips and around pictures: the devices compute it. (XLA's own count
leaves out products with the zeros around a convolution's input, a fifth of the ResNet's at 88 pixels.)
"""

from __future__ import annotations

from collections.abc import Sequence

from mmpretrain.config import AUDIO_DIM, ModelConfig

FORMULA = """\
forward, per frame, with D width, L layers, M mlp_dim, T frames a clip, k, g of the positional convolution, P proj_dim:
  sound       2 * 104 * D
  stem        2 * 5 * 7 * 7 * C * (S/2)^2          C = resnet_width, S = image_size
  resnet      sum over its convolutions of 2 * size^2 * C_in * C_out * height * width, and 2 * 8C * D behind it
  fusion      2 * (2 D) * D                        for concatenated streams
  position    2 * k * (D / g) * D
  layers      L * (2 * 4 D^2 + 4 * T * D + 2 * 2 * D * M)
  head        2 * D * P + 2 * P * K                for each codebook of K clusters
backward: twice the forward, once for the stem, whose pixels need no gradient
with masking.visible_only: stem and resnet of the share of the frames that goes through them\
"""


def forward_flops_per_frame(model: ModelConfig, *, num_frames: int, num_clusters: Sequence[int]) -> dict[str, float]:
    """FLOPs of one frame of a clip of `num_frames`, by part of the network. num_clusters: of each codebook."""
    D, P, C = model.width, model.proj_dim, model.resnet_width
    flops: dict[str, float] = {}
    if "audio" in model.modalities:
        flops["sound"] = 2 * AUDIO_DIM * D
    if "video" in model.modalities:
        side = _halved(model.inputs.image_size)
        flops["stem"] = 2 * 5 * 7 * 7 * C * side**2
        flops["resnet"] = _resnet_flops(C, _halved(side), model.resnet_blocks) + 2 * 8 * C * D
    if model.fusion == "concat":
        flops["fusion"] = 2 * len(model.modalities) * D * D
    flops["position"] = 2 * model.pos_conv_kernel * (D // model.pos_conv_groups) * D
    flops["layers"] = model.num_layers * (2 * 4 * D * D + 4 * num_frames * D + 2 * 2 * D * model.mlp_dim)
    projections = 1 if model.reference.tied_projection else len(num_clusters)
    flops["head"] = projections * 2 * D * P + sum(2 * P * K for K in num_clusters)
    return flops


def step_flops(
    model: ModelConfig, *, num_clips: int, num_frames: int, num_clusters: Sequence[int], picture_share: float = 1.0
) -> dict[str, float]:
    """FLOPs of one training step on a global batch, forward and backward, by part of the network.

    picture_share: of the frames, those whose pictures go through stem and ResNet.
    """
    frames = num_clips * num_frames
    forward = forward_flops_per_frame(model, num_frames=num_frames, num_clusters=num_clusters)
    times = {"stem": 2 * picture_share, "resnet": 3 * picture_share}
    return {part: frames * flops * times.get(part, 3) for part, flops in forward.items()}


def mfu(flops_per_step: float, step_sec: float, peak_flops_per_sec: float) -> float:
    """The share of the peak of all chips together that the model's own operations make use of (arXiv 2204.02311)."""
    return flops_per_step / (step_sec * peak_flops_per_sec)


def _halved(side: int) -> int:
    """The side of a picture after a layer of stride 2: every such layer here pads its kernel by half."""
    return (side + 1) // 2


def _resnet_flops(channels: int, side: int, blocks: Sequence[int]) -> float:
    total, c_in = 0.0, channels
    for stage, num_blocks in enumerate(blocks):
        c_out = channels * 2**stage
        if stage:
            side = _halved(side)
            total += 2 * c_in * c_out * side**2  # shortcut
        total += 2 * 9 * (c_in + (2 * num_blocks - 1) * c_out) * c_out * side**2
        c_in = c_out
    return total
