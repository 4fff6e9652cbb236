"""The network of our pretraining step as one writes it in PyTorch today: what `benchmarks/train_step.py` compares with.

Channels-last convolutions, scaled_dot_product_attention, fused AdamW, autocast to bfloat16 where the recipe has it, and
torch.compile by parts: front-ends and fusion, one layer (its code serves all), head and loss, so that a dropped layer
is not computed. It takes our weights and equals our network's loss and gradients (`tests/test_torch_baseline.py`).
Batches have no padding here, so batch norm is PyTorch's own and attention needs no mask; pictures of clips whose video
is dropped for a step (round 5 of Base) count in its statistics, which ours leaves out.

Dims: B clips, T frames, S side of a picture, D width, K clusters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpretrain.config import AUDIO_DIM, ModelConfig, RoundConfig

Batch = dict[str, Tensor]


class BasicBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(c_out), nn.PReLU(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2, self.act2 = nn.BatchNorm2d(c_out), nn.PReLU(c_out)
        self.shortcut = None
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False)
            self.shortcut_bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        return self.act2(y + (x if self.shortcut is None else self.shortcut_bn(self.shortcut(x))))


class Video(nn.Module):
    """Pictures [B, T, S, S] to [B, T, D]: a 3-D stem, a ResNet over each frame, a linear layer.

    On a CPU Conv3d is a little faster than a 2-D convolution over five frames as channels, which ours is.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        C = config.resnet_width
        self.stem = nn.Conv3d(1, C, (5, 7, 7), (1, 2, 2), padding=(2, 3, 3), bias=False)
        self.bn, self.act, self.pool = nn.BatchNorm2d(C), nn.PReLU(C), nn.MaxPool2d(3, 2, padding=1)
        widths = [(C, C, 1), (C, 2 * C, 2), (2 * C, 4 * C, 2), (4 * C, 8 * C, 2)]
        self.blocks = nn.Sequential(
            *(
                BasicBlock(c if i else c_in, c, 1 if i else stride)
                for (c_in, c, stride), num_blocks in zip(widths, config.resnet_blocks, strict=True)
                for i in range(num_blocks)
            )
        )
        self.proj = nn.Linear(8 * C, config.width)
        self.stem.to(memory_format=torch.channels_last_3d)
        self.blocks.to(memory_format=torch.channels_last)

    def forward(self, video_BTSS: Tensor) -> Tensor:
        B, T, _, _ = video_BTSS.shape
        x = self.stem(video_BTSS[:, None].to(memory_format=torch.channels_last_3d))
        x = x.transpose(1, 2).flatten(0, 1)  # pictures; channels stay last in memory
        x = self.blocks(self.pool(self.act(self.bn(x))))
        return self.proj(x.mean((2, 3))).view(B, T, -1)


class Embed(nn.Module):
    """Both modalities through their front-ends, fused, what is masked hidden: [B, T, D], and the feature penalty."""

    def __init__(self, config: ModelConfig, masking_kind: str):
        super().__init__()
        D = config.width
        self.audio, self.video = nn.Linear(AUDIO_DIM, D), Video(config)
        self.norm, self.proj = nn.LayerNorm(2 * D), nn.Linear(2 * D, D)
        self.dropout = nn.Dropout(config.input_dropout)
        self.hides_inputs = masking_kind == "input"
        self.mask_embedding = nn.Parameter(torch.rand(AUDIO_DIM if self.hides_inputs else D))
        self.grad_scale, self.inputs = config.feature_grad_scale, config.inputs

    def forward(self, batch: Batch, masked: bool) -> tuple[Tensor, Tensor]:
        audio, video = batch["audio"], batch["video"]
        if masked and self.hides_inputs:
            video = torch.gather(video, 1, batch["source"][:, :, None, None].expand_as(video))
            audio = torch.where(batch["audio_mask"][..., None], self.mask_embedding, audio)
        pixels = (video.float() / 255 - self.inputs.pixel_mean) / self.inputs.pixel_std
        streams = {
            "use_audio": self.scale_gradient(self.audio(audio)),
            "use_video": self.scale_gradient(self.video(pixels)),
        }
        if masked:
            streams = {use: torch.where(batch[use][:, None, None], x, 0) for use, x in streams.items()}
        fused = torch.cat(list(streams.values()), -1)
        x = self.dropout(self.proj(self.norm(fused)))
        if masked and not self.hides_inputs:
            x = torch.where(batch["audio_mask"][..., None], self.mask_embedding.to(x.dtype), x)
        return x, fused.float().square().mean()

    def scale_gradient(self, x: Tensor) -> Tensor:
        return x * self.grad_scale + x.detach() * (1 - self.grad_scale)


class Position(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        D, size = config.width, config.pos_conv_kernel
        conv = nn.Conv1d(D, D, size, padding=size // 2, groups=config.pos_conv_groups)
        self.conv = nn.utils.parametrizations.weight_norm(conv, dim=2)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
        return self.dropout(x + functional.gelu(y))


class Layer(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        D = config.width
        self.attention_norm, self.qkv, self.out = nn.LayerNorm(D), nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.mlp_norm, self.mlp_in = nn.LayerNorm(D), nn.Linear(D, config.mlp_dim)
        self.mlp_out = nn.Linear(config.mlp_dim, D)
        self.dropout, self.activation_dropout = nn.Dropout(config.dropout), nn.Dropout(config.activation_dropout)
        self.num_heads, self.attention_dropout = config.num_heads, config.attention_dropout

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(B, T, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, dropout_p=self.attention_dropout if self.training else 0.0)
        x = x + self.dropout(self.out(y.transpose(1, 2).reshape(B, T, D)))
        y = self.activation_dropout(functional.gelu(self.mlp_in(self.mlp_norm(x))))
        return x + self.dropout(self.mlp_out(y))


class Score(nn.Module):
    """The cluster head of one codebook, and the cross-entropy of the frames that are to be predicted."""

    def __init__(self, config: ModelConfig, round_: RoundConfig):
        super().__init__()
        (targets,) = round_.targets
        self.norm, self.proj = nn.LayerNorm(config.width), nn.Linear(config.width, config.proj_dim)
        self.embeddings = nn.Parameter(torch.rand(targets.num_clusters, config.proj_dim))
        self.temperature, self.unmasked_weight = config.temperature, round_.unmasked_weight

    def forward(self, x: Tensor, targets_BT: Tensor, mask_BT: Tensor) -> Tensor:
        p = self.proj(self.norm(x)).float()
        p, e = functional.normalize(p, dim=-1, eps=1e-6), functional.normalize(self.embeddings, dim=-1)
        logits = functional.linear(p, e) / self.temperature
        nll = functional.cross_entropy(logits.flatten(0, 1), targets_BT.flatten(), reduction="none").view_as(targets_BT)
        weight = torch.where(mask_BT, 1.0, self.unmasked_weight)
        return (nll * weight).sum() / (mask_BT.sum() if self.unmasked_weight == 0 else mask_BT.numel())


class Pretraining(nn.Module):
    """The loss of a batch: audio [B, T, 104], video uint8 [B, T, S, S], targets [B, T], and the masks.

    audio_mask, video_mask: bool [B, T]; source: int64 [B, T], the frame whose picture stands at each place; use_audio,
    use_video: bool [B]. With feature masking both masks are the one of the fused frames.
    """

    def __init__(self, config: ModelConfig, round_: RoundConfig):
        super().__init__()
        self.embed, self.position = Embed(config, round_.masking.kind), Position(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.score = Score(config, round_)
        self.layerdrop, self.penalty = config.layerdrop, round_.feature_penalty
        self.dtype = config.dtype

    def compile_parts(self) -> None:
        for part in (self.embed, self.position, *self.layers, self.score):
            part.compile()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        kind = self.score.embeddings.device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.dtype == "bfloat16")

    def _context(self, x: Tensor) -> Tensor:
        x = self.position(x)
        for layer in self.layers:
            if not self.training or float(torch.rand(())) >= self.layerdrop:
                x = layer(x)
        return x

    def forward(self, batch: Batch) -> Tensor:
        with self.autocast():
            x, squares = self.embed(batch, True)
            x = self._context(x)
            loss = self.score(x, batch["targets"], batch["audio_mask"] | batch["video_mask"])
            return loss + self.penalty * squares

    @torch.no_grad()
    def features(self, batch: Batch) -> Tensor:
        """[B, T, D] of whole clips, as labelling and extraction take them."""
        with self.autocast():
            return self.score.norm(self._context(self.embed(batch, False)[0]))


def make_optimizer(model: nn.Module, round_: RoundConfig) -> torch.optim.Optimizer:
    """The recipe's AdamW at its peak rate; a schedule costs nothing."""
    o = round_.optimizer
    return torch.optim.AdamW(
        model.parameters(), lr=o.peak_lr, betas=(o.b1, o.b2), eps=o.eps, weight_decay=o.weight_decay, fused=True
    )


def train_step(model: Pretraining, optimizer: torch.optim.Optimizer, batch: Batch, clip_norm: float) -> Tensor:
    """One update. Returns the loss."""
    optimizer.zero_grad(set_to_none=True)
    loss = model(batch)
    loss.backward()
    if clip_norm > 0:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.detach()


def as_torch(ours: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Our network's arrays by path, such as encoder.fusion.proj.kernel, under the names and in the layouts of this one.

    Of weights, of batch statistics and of gradients alike.
    """
    return {name: torch.tensor(x) for path in ours for name, x in _renamed(path, ours[path])}


_PARTS = {
    "encoder.frontends.audio.proj": "embed.audio", "encoder.frontends.video.proj": "embed.video.proj",
    "encoder.frontends.video.resnet.stem": "embed.video", "encoder.frontends.video.resnet.blocks": "embed.video.blocks",
    "encoder.fusion": "embed", "mask_embedding": "embed.mask_embedding", "encoder.transformer.norm": "score.norm",
    "encoder.transformer.position": "position.conv", "head": "score",
}  # fmt: skip
_LEAVES = {"scale": "weight", "slope": "weight", "mean": "running_mean", "var": "running_var"}


def _renamed(path: str, x: np.ndarray) -> list[tuple[str, np.ndarray]]:
    layers = "encoder.transformer.layers."
    if path.startswith(layers):
        name = path.removeprefix(layers).removeprefix("attention.")
        return [pair for i, of_layer in enumerate(x) for pair in [_leaf(f"layers.{i}.{name}", of_layer)]]
    part = next(part for part in _PARTS if path == part or path.startswith(part + "."))
    return [_leaf(_PARTS[part] + path.removeprefix(part), x)]


def _leaf(name: str, x: np.ndarray) -> tuple[str, np.ndarray]:
    part, _, leaf = name.rpartition(".")
    if part == "position.conv":
        weight = "position.conv.parametrizations.weight.original"
        return {"v": (f"{weight}1", x.T), "g": (f"{weight}0", x[None, None]), "bias": (name, x)}[leaf]
    if part.endswith("qkv"):
        x = x.reshape(*x.shape[:-3], -1)  # [D, 3 H K] or [3 H K]
    if leaf == "kernel":
        if part == "embed.video":  # the stem: [5, 7, 7, C]
            return "embed.video.stem.weight", x.transpose(3, 0, 1, 2)[:, None]
        if x.ndim == 4:
            return f"{part}.weight", x.transpose(3, 2, 0, 1)
        return f"{part}.weight", x.reshape(-1, x.shape[-1]).T
    return f"{part}.{_LEAVES.get(leaf, leaf)}", x
