"""Heads of `modeling_mmpretrain.py`, beside which it is copied, of clips and of their frames, and what both put out.

Dims: B clips, T frames, L layers and the transformer's input, D width, K levels but the lowest.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import ModelOutput


@dataclasses.dataclass
class MMPretrainOutput(ModelOutput):
    """last_hidden_state: [B, T, D], after the last norm.

    extract_features: [B, T, D], the fused modalities, before the transformer. hidden_states: L + 1 of [B, T, D], what
    layer 1 is given and what each layer makes of it, without the last norm. attentions: L of [B, heads, T, T], how much
    of each real frame goes into each frame; None for a layer that was left out in training. frame_mask: bool [B, T],
    the frames that are real: what is said of others means nothing.
    """

    last_hidden_state: torch.Tensor | None = None
    extract_features: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor | None, ...] | None = None
    frame_mask: torch.Tensor | None = None


@dataclasses.dataclass
class MMPretrainHeadsOutput(ModelOutput):
    """loss: of the classifier, where labels were given. logits: [B, labels], of the classifier, None without one.

    hidden_states, attentions: as of the encoder. heads: by task what each head puts out, [B, N], of frames [B, T, N];
    a ModelOutput, which pipelines can take apart.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor | None, ...] | None = None
    heads: ModelOutput | None = None


def mix(layers: tuple[torch.Tensor, ...], weights_L: torch.Tensor) -> torch.Tensor:
    """[B, T, D] in float32: the mean of all layers by the softmax of the weights, each normalised in every frame."""
    layers_LBTD = torch.stack([functional.layer_norm(x.float(), x.shape[-1:], eps=1e-5) for x in layers])
    return torch.einsum("LBTD,L->BTD", layers_LBTD, weights_L.float().softmax(0))


class ClipHead(nn.Module):
    """A learned mix of all layers, pooled over the real frames, then one linear layer."""

    def __init__(self, config: PreTrainedConfig, outputs: int, pooling: str):
        super().__init__()
        width = config.hidden_size
        self.layer_weights = nn.Parameter(torch.empty(config.num_hidden_layers + 1))
        self.pooling = pooling
        if self.pooling != "mean":
            self.attend = nn.Linear(width, 1)
        self.out = nn.Linear(width * (1 + (self.pooling == "attentive_statistics")), outputs)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, layers: tuple[torch.Tensor, ...], valid_BT: torch.Tensor) -> torch.Tensor:
        """[B, outputs]."""
        mixed = mix(layers, self.layer_weights).to(self.out.weight.dtype)
        scores = mixed.new_zeros(1, dtype=torch.float32) if self.pooling == "mean" else self.attend(mixed).float()
        scores = torch.where(valid_BT[..., None], scores, torch.finfo(torch.float32).min)
        weight = torch.where(valid_BT[..., None], scores.softmax(1), 0)
        centre = (mixed * weight).sum(1)
        if self.pooling == "attentive_statistics":
            spread = ((mixed - centre[:, None]).square() * weight).sum(1).add(1e-5).sqrt()
            centre = torch.cat([centre, spread], -1)
        return self.out(self.dropout(centre.to(self.out.weight.dtype)))


class EmbeddingHead(ClipHead):
    """A point of length 1 for each clip."""

    def forward(self, layers: tuple[torch.Tensor, ...], valid_BT: torch.Tensor) -> torch.Tensor:
        return functional.normalize(super().forward(layers, valid_BT), dim=-1, eps=1e-6)


class OrdinalHead(nn.Module):
    """One score, and a threshold between each two levels: the log of how probable each level is, [B, K + 1].

    At or above level k a clip is with probability sigmoid(score - threshold k).
    """

    def __init__(self, config: PreTrainedConfig, levels: int, pooling: str):
        super().__init__()
        self.score = ClipHead(config, 1, pooling)
        self.first = nn.Parameter(torch.empty(1))
        self.gaps = nn.Parameter(torch.empty(levels - 2))  # softplus of it lies between two thresholds

    def forward(self, layers: tuple[torch.Tensor, ...], valid_BT: torch.Tensor) -> torch.Tensor:
        apart = functional.softplus(self.gaps.float())
        odds = self.score(layers, valid_BT).float() - torch.cat([self.first.float(), apart]).cumsum(0)
        above = functional.pad(functional.logsigmoid(odds), (1, 0))
        below = functional.pad(functional.logsigmoid(-odds), (0, 1))
        return above + below + functional.pad(torch.log(-torch.expm1(-apart)), (1, 1))


class LayersHead(nn.Module):
    """Mean and deviation over the real frames of every layer, each brought to a mean and scale, and a linear layer."""

    def __init__(self, config: PreTrainedConfig, outputs: int):
        super().__init__()
        size = (config.num_hidden_layers + 1) * 2 * config.hidden_size
        self.mean, self.scale = nn.Parameter(torch.empty(size)), nn.Parameter(torch.empty(size))
        self.out = nn.Linear(size, outputs)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, layers: tuple[torch.Tensor, ...], valid_BT: torch.Tensor) -> torch.Tensor:
        """[B, outputs]."""
        layers_BTLD = torch.stack([x.float() for x in layers], 2)
        weight_BT11 = (valid_BT / valid_BT.sum(1, keepdim=True).clamp(min=1))[..., None, None]
        mean_BLD = (layers_BTLD * weight_BT11).sum(1)
        variance_BLD = ((layers_BTLD - mean_BLD[:, None]).square() * weight_BT11).sum(1)
        x = torch.cat([mean_BLD, variance_BLD.clamp(min=1e-12).sqrt()], -1).flatten(1)
        x = (x - self.mean.float()) / self.scale.float()
        return self.out(self.dropout(x.to(self.out.weight.dtype)))


class FrameHead(nn.Module):
    """A learned mix of all layers, then one linear layer on every frame."""

    def __init__(self, config: PreTrainedConfig, outputs: int):
        super().__init__()
        self.layer_weights = nn.Parameter(torch.empty(config.num_hidden_layers + 1))
        self.out = nn.Linear(config.hidden_size, outputs)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, layers: tuple[torch.Tensor, ...], valid_BT: torch.Tensor) -> torch.Tensor:
        """[B, T, outputs]."""
        return self.out(self.dropout(mix(layers, self.layer_weights).to(self.out.weight.dtype)))


def head_of(config: PreTrainedConfig, kind: str, outputs: int, pooling: str) -> nn.Module:
    """kind: of the labels that it learned from."""
    if kind in ("frames", "values"):
        return FrameHead(config, outputs)
    if pooling == "all_layers":
        return LayersHead(config, outputs)
    kinds = {"ordinal": OrdinalHead, "embedding": EmbeddingHead}
    return kinds.get(kind, ClipHead)(config, outputs, pooling)


def loss_of(problem: str | None, logits: torch.Tensor | None, labels: torch.Tensor) -> torch.Tensor:
    """As transformers has it for a `problem_type`; cross-entropy where that says nothing."""
    if logits is None:
        raise ValueError("labels are those of a classifier, which this model does not have; its heads are `heads`")
    if problem == "regression":
        return functional.mse_loss(logits.float().squeeze(-1), labels.float())
    if problem == "multi_label_classification":
        return functional.binary_cross_entropy_with_logits(logits.float(), labels.float())
    return functional.cross_entropy(logits.float(), labels)


@torch.no_grad()
def begin(module: nn.Module) -> None:
    """What a part of a head starts from beside its linear layers; other modules are left alone."""
    if isinstance(module, (ClipHead, FrameHead)):
        initialization.zeros_(module.layer_weights)
        if getattr(module, "pooling", "mean") != "mean":
            initialization.zeros_(module.attend.weight)  # starts as the plain mean
    elif isinstance(module, LayersHead):
        initialization.zeros_(module.mean)
        initialization.ones_(module.scale)
    elif isinstance(module, OrdinalHead):
        initialization.constant_(module.first, -len(module.gaps) / 2)
        initialization.constant_(module.gaps, math.log(math.e - 1))  # softplus of it is 1
