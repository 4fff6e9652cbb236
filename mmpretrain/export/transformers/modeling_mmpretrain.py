"""Audio-visual encoder of talking faces for `transformers`, with heads of clips and of their frames.

This file and `heads_mmpretrain.py` are complete in themselves: they are copied beside the weights, and need torch and
transformers alone. The network is
that of AV-HuBERT (Shi et al. 2022): a front-end for each modality, fusion, and a transformer over 25 frames a second.
Dims: B clips, T frames, D width, N pictures, C channels.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel, initialization
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput

from .heads_mmpretrain import MMPretrainHeadsOutput, MMPretrainOutput, begin, head_of, loss_of

AUDIO_DIM = 104  # four rows of 26 log filterbank energies


class MMPretrainConfig(PreTrainedConfig):
    """What the network is made of. Rates of dropout and `feature_grad_scale` matter in training alone."""

    model_type = "mmpretrain"

    modalities: list[str] | tuple[str, ...] = ("audio", "video")
    image_size: int = 88
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    resnet_width: int = 64
    resnet_blocks: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    fusion: str = "concat"  # or "add"
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    post_norm: bool = False
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    input_dropout: float = 0.1
    layerdrop: float = 0.05
    feature_grad_scale: float = 0.1  # of the gradient into the front-ends
    # of the classifier; or "attention", "mean", "all_layers" (mean and deviation of every layer, see `LayersHead`)
    pooling: str = "attentive_statistics"
    classifier: bool = True  # whether there is one: the head whose outputs are `logits`
    ordinal: bool = False  # whether it tells levels of a scale, which are its labels in ascending order
    # of each head, by the name of its task: "kind", "classes" and the like; "outputs" of those beside the classifier
    heads: dict[str, dict] | None = None


def scale_gradient(x: torch.Tensor, scale: float) -> torch.Tensor:
    """x forward, `scale` times the gradient backward."""
    return x if scale == 1.0 else x * scale + x.detach() * (1 - scale)


class BatchNorm(nn.BatchNorm2d):
    """As PyTorch's, but a channel that was the same everywhere in training is its bias."""

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        if self.training and x_NCHW[:, 0].numel() > 1:
            return super().forward(x_NCHW)
        inverse_C = torch.where(self.running_var > 0, torch.rsqrt(self.running_var + self.eps), 0)
        slope_C = self.weight * inverse_C
        shift_C = self.bias - self.running_mean * slope_C
        return x_NCHW * slope_C[:, None, None] + shift_C[:, None, None]


class BasicBlock(nn.Module):
    """Two convolutions of 3 x 3 around a shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm(c_out)
        self.relu1 = nn.PReLU(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm(c_out)
        self.relu2 = nn.PReLU(c_out)
        self.downsample = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), BatchNorm(c_out))

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        y = self.relu1(self.bn1(self.conv1(x_NCHW)))
        return self.relu2(self.bn2(self.conv2(y)) + self.downsample(x_NCHW))


class ResNet(nn.Module):
    """Grey pictures to one vector a frame: a convolution over 5 frames x 7 x 7 pixels, then a ResNet of each frame."""

    def __init__(self, config: MMPretrainConfig):
        super().__init__()
        channels = config.resnet_width
        self.frontend3D = nn.Sequential(
            nn.Conv3d(1, channels, (5, 7, 7), (1, 2, 2), (2, 3, 3), bias=False), BatchNorm(channels), nn.PReLU(channels)
        )
        self.trunk, c_in = nn.Module(), channels
        for stage, num_blocks in enumerate(config.resnet_blocks):
            c_out, blocks = channels * 2**stage, []
            for i in range(num_blocks):
                blocks.append(BasicBlock(c_in, c_out, 2 if stage > 0 and i == 0 else 1))
                c_in = c_out
            setattr(self.trunk, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages, self.out_dim = len(config.resnet_blocks), c_in

    def forward(self, video_BTCHW: torch.Tensor, counted_BT: torch.Tensor) -> torch.Tensor:
        """[B, T, C]. In training statistics are of the counted pictures alone, and others are 0."""
        convolution, norm, activation = self.frontend3D
        x = convolution(video_BTCHW.transpose(1, 2)).transpose(1, 2)  # [B, T, C, H, W]
        x = x[counted_BT] if self.training else x.flatten(0, 1)
        x = functional.max_pool2d(activation(norm(x)), 3, 2, 1)
        for stage in range(self.stages):
            x = getattr(self.trunk, f"layer{stage + 1}")(x)
        x_NC = x.mean((2, 3))
        if not self.training:
            return x_NC.unflatten(0, (video_BTCHW.shape[0], video_BTCHW.shape[1]))
        return x_NC.new_zeros(*counted_BT.shape, self.out_dim).masked_scatter(counted_BT[..., None], x_NC)


class AudioFrontend(nn.Module):
    """One linear layer over a row of filterbanks."""

    def __init__(self, config: MMPretrainConfig):
        super().__init__()
        self.proj = nn.Linear(AUDIO_DIM, config.hidden_size)

    def forward(self, rows_BTF: torch.Tensor, counted_BT: torch.Tensor) -> torch.Tensor:
        return self.proj(torch.where(counted_BT[..., None], rows_BTF, 0))


class VideoFrontend(nn.Module):
    """A ResNet of each picture, and one linear layer."""

    def __init__(self, config: MMPretrainConfig):
        super().__init__()
        self.resnet = ResNet(config)
        self.proj = nn.Linear(self.resnet.out_dim, config.hidden_size)

    def forward(self, video_BTCHW: torch.Tensor, counted_BT: torch.Tensor) -> torch.Tensor:
        pictures = torch.where(counted_BT[..., None, None, None], video_BTCHW, 0)
        return self.proj(self.resnet(pictures, counted_BT))


class PositionalConv(nn.Module):
    """A grouped convolution over time whose weights are normalised per tap; then GELU."""

    def __init__(self, config: MMPretrainConfig):
        super().__init__()
        width, taps, self.groups = (
            config.hidden_size, config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups,
        )  # fmt: skip
        self.v = nn.Parameter(torch.empty(width, width // self.groups, taps))
        self.g = nn.Parameter(torch.empty(1, 1, taps))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        kernel = self.v * (self.g / self.v.square().sum((0, 1), keepdim=True).sqrt())
        before = kernel.shape[-1] // 2
        x_BDT = functional.pad(x_BTD.transpose(1, 2), (before, kernel.shape[-1] - 1 - before))
        return functional.gelu(functional.conv1d(x_BDT, kernel, self.bias, groups=self.groups)).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention to the real frames. Its weights are there where they are asked for, or it is "eager"."""

    def __init__(self, config: MMPretrainConfig):
        super().__init__()
        self.config, width = config, config.hidden_size
        self.num_heads, self.dropout = config.num_attention_heads, config.attention_dropout
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x_BTD: torch.Tensor, bias_B11T: torch.Tensor, weigh: bool) -> tuple[torch.Tensor | None, ...]:
        """[B, T, D], and the weights [B, heads, T, T], after their dropout in training."""
        heads = (each(x_BTD).unflatten(-1, (self.num_heads, -1)) for each in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (x_BTHK.transpose(1, 2) for x_BTHK in heads)
        rate = self.dropout if self.training else 0.0
        weights_BHTS = None
        if weigh or self.config._attn_implementation == "eager":
            logits_BHTS = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + bias_B11T
            weights_BHTS = functional.dropout(logits_BHTS.softmax(-1, dtype=torch.float32).to(v.dtype), rate)
            y_BHTK = weights_BHTS @ v
        else:
            y_BHTK = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias_B11T, dropout_p=rate)
        return self.out_proj(y_BHTK.transpose(1, 2).flatten(-2)), weights_BHTS


class MMPretrainLayer(GradientCheckpointingLayer):
    """Attention, then an MLP; each is a branch of the stream: x + Branch(LN(x)), or LN(x + Branch(x)) post-norm."""

    def __init__(self, config: MMPretrainConfig):
        super().__init__()
        width = config.hidden_size
        self.self_attn = Attention(config)
        self.self_attn_layer_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.fc1, self.fc2 = nn.Linear(width, config.intermediate_size), nn.Linear(config.intermediate_size, width)
        self.final_layer_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.dropout, self.activation_dropout = nn.Dropout(config.hidden_dropout), nn.Dropout(config.activation_dropout)
        self.post_norm = config.post_norm

    def forward(self, x_BTD: torch.Tensor, bias_B11T: torch.Tensor, weigh: bool) -> tuple[torch.Tensor | None, ...]:
        given_BTD = x_BTD if self.post_norm else self.self_attn_layer_norm(x_BTD)
        heard_BTD, weights_BHTS = self.self_attn(given_BTD, bias_B11T, weigh)
        x_BTD = x_BTD + self.dropout(heard_BTD)
        if self.post_norm:
            x_BTD = self.self_attn_layer_norm(x_BTD)
            return self.final_layer_norm(x_BTD + self.transform(x_BTD)), weights_BHTS
        return x_BTD + self.transform(self.final_layer_norm(x_BTD)), weights_BHTS

    def transform(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.fc2(self.activation_dropout(functional.gelu(self.fc1(x_BTD)))))


class Transformer(nn.Module):
    """Position, layers, and one norm: the last of all, or, post-norm, before the layers."""

    def __init__(self, config: MMPretrainConfig):
        super().__init__()
        self.pos_conv = PositionalConv(config)
        self.layers = nn.ModuleList(MMPretrainLayer(config) for _ in range(config.num_hidden_layers))
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout, self.layerdrop, self.post_norm = (
            nn.Dropout(config.hidden_dropout), config.layerdrop, config.post_norm,
        )  # fmt: skip

    def forward(
        self, x_BTD: torch.Tensor, valid_BT: torch.Tensor, weigh: bool
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor | None]]:
        """The output [B, T, D], what the first layer is given and each layer makes of it, and the weights of each."""
        x_BTD = torch.where(valid_BT[..., None], x_BTD, 0)
        x_BTD = x_BTD + self.pos_conv(x_BTD)
        x_BTD = self.dropout(self.layer_norm(x_BTD) if self.post_norm else x_BTD)
        # The least number, not -inf: a clip without a frame would become NaN.
        bias_BT = x_BTD.new_zeros(valid_BT.shape).masked_fill(~valid_BT, torch.finfo(x_BTD.dtype).min)
        streams, attentions = [x_BTD], []
        for layer in self.layers:
            weights_BHTS = None
            if not self.training or self.layerdrop == 0 or torch.rand(()) >= self.layerdrop:
                x_BTD, weights_BHTS = layer(x_BTD, bias_BT[:, None, None], weigh)
            streams.append(x_BTD)
            attentions.append(weights_BHTS)
        return (x_BTD if self.post_norm else self.layer_norm(x_BTD)), streams, attentions


class MMPretrainPreTrainedModel(PreTrainedModel):
    config_class = MMPretrainConfig
    base_model_prefix = "av_encoder"
    main_input_name = "input_values"
    input_modalities = ("audio", "video")
    supports_gradient_checkpointing = True
    _no_split_modules = ("MMPretrainLayer", "BasicBlock")
    _supports_sdpa = True

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True  # `Attention` reads the configuration at every call

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.PReLU):
            initialization.constant_(module.weight, 0.25)
        elif isinstance(module, nn.LayerNorm):
            initialization.ones_(module.weight)
            initialization.zeros_(module.bias)
        elif isinstance(module, PositionalConv):
            width, _, taps = module.v.shape
            initialization.normal_(module.v, std=(4 / (taps * width)) ** 0.5)
            initialization.copy_(module.g, module.v.square().sum((0, 1), keepdim=True).sqrt())
            initialization.zeros_(module.bias)
        else:
            begin(module)


class MMPretrainModel(MMPretrainPreTrainedModel):
    """25 frames a second of sound, pictures or both to `hidden_size` numbers a frame.

    input_values: [B, T, 104], rows of filterbanks as the feature extractor makes them. pixel_values_videos:
    [B, T, 1, H, W], grey crops as the processor makes them. attention_mask, padding_mask_videos: [B, T], 1 where there
    is sound, a picture; None: everywhere. A clip whose mask is 0 throughout lacks the modality, as do all clips if the
    input is None.
    """

    def __init__(self, config: MMPretrainConfig):
        super().__init__(config)
        self.concatenates, self.modalities = config.fusion == "concat", tuple(config.modalities)
        if "audio" in self.modalities:
            self.feature_extractor_audio = AudioFrontend(config)
        if "video" in self.modalities:
            self.feature_extractor_video = VideoFrontend(config)
        width = config.hidden_size * (len(self.modalities) if self.concatenates else 1)
        self.layer_norm = nn.LayerNorm(width, config.layer_norm_eps)
        if self.concatenates:
            self.post_extract_proj = nn.Linear(width, config.hidden_size)
        self.dropout_input = nn.Dropout(config.input_dropout)
        self.encoder = Transformer(config)
        self.post_init()

    def forward(
        self,
        input_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        padding_mask_videos: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: object,
    ) -> MMPretrainOutput | tuple:
        inputs = {"audio": (input_values, attention_mask), "video": (pixel_values_videos, padding_mask_videos)}
        inputs = {name: (x, mask) for name, (x, mask) in inputs.items() if x is not None}
        if not inputs or not set(inputs) <= set(self.modalities):
            raise ValueError(f"this encoder is of {' and '.join(self.modalities)}, but is given {list(inputs) or None}")
        masks = {name: (x.new_ones(x.shape[:2]) if mask is None else mask).bool() for name, (x, mask) in inputs.items()}
        first, *others = masks.values()
        if any(mask.shape != first.shape for mask in others):
            raise ValueError(
                f"sound and pictures have other clips or frames: {[list(m.shape) for m in masks.values()]}"
            )
        valid_BT = torch.stack(list(masks.values())).any(0)
        fused = [self.stream(name, *inputs.get(name, (None, None))[:1], masks.get(name), valid_BT)
                 for name in self.modalities]  # fmt: skip
        x_BTD = self.layer_norm(torch.cat(fused, -1) if self.concatenates else sum(fused))
        x_BTD = self.dropout_input(self.post_extract_proj(x_BTD) if self.concatenates else x_BTD)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        weigh = self.config.output_attentions if output_attentions is None else output_attentions
        y_BTD, streams, attentions = self.encoder(x_BTD, valid_BT, bool(weigh))
        output = MMPretrainOutput(
            y_BTD, x_BTD, tuple(streams) if wanted else None, tuple(attentions) if weigh else None, valid_BT
        )
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    def stream(
        self, name: str, x: torch.Tensor | None, mask_BT: torch.Tensor | None, valid_BT: torch.Tensor
    ) -> torch.Tensor:
        """[B, T, D] of one modality: 0 for a clip that lacks it."""
        weight = self.layer_norm.weight
        if x is None:
            return weight.new_zeros(*valid_BT.shape, self.config.hidden_size)
        frontend = self.feature_extractor_audio if name == "audio" else self.feature_extractor_video
        y_BTD = scale_gradient(frontend(x.to(weight.dtype), mask_BT), self.config.feature_grad_scale)
        return torch.where(mask_BT.any(1)[:, None, None], y_BTD, 0)


class MMPretrainForAudioClassification(MMPretrainPreTrainedModel):
    """The encoder with its heads, of sound, pictures or both.

    One is the classifier, for `config.id2label` or, with `config.problem_type` "regression", for a number; those of
    other tasks are `heads`, by the names in `config.heads`.
    """

    def __init__(self, config: MMPretrainConfig):
        super().__init__(config)
        self.av_encoder = MMPretrainModel(config)
        if config.classifier:
            kind = "ordinal" if config.ordinal else "class"
            self.classifier = head_of(config, kind, config.num_labels, config.pooling)
        others = {name: head for name, head in (config.heads or {}).items() if "outputs" in head}
        self.head_names = tuple(sorted(others))  # in whatever order a configuration that was saved again has them
        self.heads = nn.ModuleList(
            head_of(config, others[name]["kind"], others[name]["outputs"], others[name]["pooling"])
            for name in self.head_names
        )
        self.post_init()

    def forward(
        self,
        input_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        padding_mask_videos: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: object,
    ) -> MMPretrainHeadsOutput | tuple:
        """labels: of the classifier, int64 [B]; of "regression" float [B]; of "multi_label_classification" float
        [B, labels]. Else as the encoder."""
        encoded = self.av_encoder(
            input_values, pixel_values_videos, attention_mask, padding_mask_videos,
            output_attentions=output_attentions, output_hidden_states=True, return_dict=True,
        )  # fmt: skip
        layers, valid_BT = encoded.hidden_states, encoded.frame_mask
        said = {name: head(layers, valid_BT) for name, head in zip(self.head_names, self.heads, strict=True)}
        logits = self.classifier(layers, valid_BT) if self.config.classifier else None
        loss = None if labels is None else loss_of(self.config.problem_type, logits, labels)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = MMPretrainHeadsOutput(
            loss, logits, layers if wanted else None, encoded.attentions, ModelOutput(said) if said else None
        )
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()
