"""The body of the visual front-end: a 3-D convolutional stem and a ResNet over each frame (spec, section 7.2).

Dims: B clips, T frames, N = B*T pictures, H rows, W columns, C channels.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from mmpretrain.config import ModelConfig
from mmpretrain.models.convolution import convolve
from mmpretrain.models.layers import BatchNorm, PReLU, torch_uniform
from mmpretrain.models.sharing import Shares, Undivided

STEM_FRAMES = 5
# What is kept from the forward pass instead of being computed again.
REMAT_POLICIES = {
    "blocks": jax.checkpoint_policies.nothing_saveable,
    "convolutions": jax.checkpoint_policies.save_only_these_names("convolved", "moments"),
}


class Conv2D(nnx.Module):
    """A convolution without bias; starts from normal numbers of variance 2 / (kh kw C_out)."""

    def __init__(self, c_in: int, c_out: int, size: int, stride: int, *, rngs: nnx.Rngs):
        std = math.sqrt(2 / (size * size * c_out))
        kernel = std * jax.random.normal(rngs.params(), (size, size, c_in, c_out))
        self.kernel = nnx.Param(kernel, axes=(None, None, None, "channels"))
        self.stride = stride
        self.shares: Shares = Undivided()

    def __call__(self, x_NHWC: jax.Array) -> jax.Array:
        return checkpoint_name(convolve(x_NHWC, self.kernel[...], self.stride, self.shares), "convolved")


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions around a shortcut; each activation has its own slopes. 0 where a picture does not count.

    No statistics hold what does not count, so it would grow layer by layer; where deviations are small, as of dark
    pictures, to infinity, which no gate behind the network undoes: the gradient of what is thrown away is then 0 times
    infinity.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, *, rngs: nnx.Rngs):
        self.conv1 = Conv2D(c_in, c_out, 3, stride, rngs=rngs)
        self.bn1 = BatchNorm(c_out)
        self.act1 = PReLU(c_out)
        self.conv2 = Conv2D(c_out, c_out, 3, 1, rngs=rngs)
        self.bn2 = BatchNorm(c_out)
        self.act2 = PReLU(c_out)
        if stride != 1 or c_in != c_out:
            self.shortcut = Conv2D(c_in, c_out, 1, stride, rngs=rngs)
            self.shortcut_bn = BatchNorm(c_out)

    def __call__(self, x_NHWC: jax.Array, weight_N: jax.Array, *, train: bool) -> jax.Array:
        y = self.bn1(self.conv1(x_NHWC), weight_N, train=train, act=self.act1)
        if hasattr(self, "shortcut"):
            x_NHWC = self.shortcut_bn(self.shortcut(x_NHWC), weight_N, train=train)
        return self.bn2(self.conv2(y), weight_N, train=train, act=self.act2, beside_NHWC=x_NHWC)


class Stem(nnx.Module):
    """Convolution of 5 frames x 7 x 7 pixels, stride 2 in space; batch norm; PReLU; 3x3 max-pool of stride 2.

    With one input channel the 3-D convolution is a 2-D one over 5 neighbouring frames as channels: the same sums, and
    many times faster where 3-D convolutions are not tuned.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        init = torch_uniform(STEM_FRAMES * 7 * 7)
        self.kernel = nnx.Param(init(rngs.params(), (STEM_FRAMES, 7, 7, channels)), axes=(None, None, None, "channels"))
        self.bn = BatchNorm(channels)
        self.act = PReLU(channels)
        self.shares: Shares = Undivided()

    def __call__(self, neighbours_NHWC: jax.Array, weight_N: jax.Array, *, train: bool) -> jax.Array:
        kernel = self.kernel[...].transpose(1, 2, 0, 3)  # [7, 7, frame, C]
        x = checkpoint_name(convolve(neighbours_NHWC, kernel, 2, self.shares), "convolved")
        return self.bn(x, weight_N, train=train, act=self.act, pool=True)


def narrowest(model: nnx.Module) -> int:
    """The channels of the narrowest convolution of pictures within `model`; 0: there is none."""
    found = (module for _, module in nnx.iter_modules(model) if isinstance(module, Stem | Conv2D))
    return min((module.kernel.shape[-1] for module in found), default=0)


def neighbours(video_BTHW: jax.Array, at_BK: jax.Array | None = None) -> jax.Array:
    """Every picture, or those at some frames, with those around it, 0 beyond the ends, as channels: [B, T, H, W, 5].

    All that a picture's result depends on, statistics aside: from here on pictures are independent.
    """
    T, reach = video_BTHW.shape[1], STEM_FRAMES // 2
    padded = jnp.pad(video_BTHW, ((0, 0), (reach, reach), (0, 0), (0, 0)))
    if at_BK is not None:
        each = at_BK[..., None] + jnp.arange(STEM_FRAMES)
        found = jax.vmap(lambda video_THW, at_K5: video_THW[at_K5])(padded, each)
        return jnp.moveaxis(found, 2, -1)
    return jnp.stack([padded[:, i : i + T] for i in range(STEM_FRAMES)], axis=-1)


class ResNet(nnx.Module):
    """Grey pictures to one vector a frame, 8 * `resnet_width` wide; in training 0 for a frame that does not count.

    Its four stages have `resnet_blocks` blocks, numbered through. The first block of every later stage halves the
    picture and doubles the channels.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        channels = config.resnet_width
        self.stem = Stem(channels, rngs=rngs)
        widths = [channels, channels, 2 * channels, 4 * channels, 8 * channels]
        self.blocks = nnx.List(
            [
                BasicBlock(c_in if i == 0 else c_out, c_out, 2 if i == 0 and stage > 0 else 1, rngs=rngs)
                for stage, (c_in, c_out) in enumerate(itertools.pairwise(widths))
                for i in range(config.resnet_blocks[stage])
            ]
        )
        self.out_dim, self.remat = widths[-1], config.resnet_remat
        for _, module in nnx.iter_modules(self):
            if isinstance(module, BatchNorm):
                module.merged = config.batch_statistics == "global"
        self.shares: Shares = Undivided()

    def __call__(
        self, video_BTHW: jax.Array, counted_BT: jax.Array, *, train: bool, visible_BK: jax.Array | None = None
    ) -> jax.Array:
        """video_BTHW: normalised pixels, 0 where there is none. counted_BT: bool, the frames that statistics are of.

        visible_BK: int32, each clip's frames to be computed alone, T for none. Returns [B, T or K, C].
        """
        if visible_BK is not None:
            there_BK = visible_BK < counted_BT.shape[1]
            visible_BK = jnp.minimum(visible_BK, counted_BT.shape[1] - 1)
            counted_BT = there_BK & jnp.take_along_axis(counted_BT, visible_BK, axis=1)
        B, T = counted_BT.shape
        counted_BT = counted_BT if train else jnp.ones_like(counted_BT)  # the running averages do for all
        more = -T % self.shares.per_clip
        x, weight_N = (
            # Pictures that do not count fill the clips up, so that every device has as many.
            jnp.pad(a, ((0, 0), (0, more), *[(0, 0)] * (a.ndim - 2))).reshape(B * (T + more), *a.shape[2:])
            for a in (neighbours(video_BTHW, visible_BK), counted_BT.astype(jnp.float32))
        )
        x, weight_N = self.shares.share_out(x), self.shares.share_out(weight_N)

        def run(layer: Stem | BasicBlock, x: jax.Array, weight_N: jax.Array) -> jax.Array:
            return layer(x, weight_N, train=train)

        if self.remat != "none":
            run = nnx.remat(run, policy=REMAT_POLICIES[self.remat])
        for layer in (self.stem, *self.blocks):
            x = run(layer, x, weight_N)
        x_NC = self.shares.bring_back(x.mean((1, 2)))
        return x_NC.reshape(B, T + more, self.out_dim)[:, :T]
