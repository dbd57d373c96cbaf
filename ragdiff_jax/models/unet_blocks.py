"""The U-Net's blocks: [b, h, w, c] -> [b, h', w', c'].

A level is resnets, each with its transformer, and a resampling.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ragdiff_jax.models.attention import Implementation
from ragdiff_jax.models.layers import Conv, Dense, GroupNorm
from ragdiff_jax.models.transformer import Remat, Role, SpatialTransformer, rematerialised
from ragdiff_jax.models.unet_config import UNetConfig


class ResnetBlock(nn.Module):
    """GroupNorm, SiLU, conv; plus the time embedding; GroupNorm, SiLU, conv; plus the (projected) input."""

    features: int
    groups: int
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, time_embedding):
        residual = x
        # SiLU of fp32: one rounding before the convolution instead of three, in the same fused pass.
        x = jax.nn.silu(GroupNorm(self.groups, self.epsilon, name="norm1")(x))
        x = Conv(self.features, dtype=self.dtype, name="conv1")(x)
        shift = Dense(self.features, dtype=self.dtype, name="time_emb_proj")(jax.nn.silu(time_embedding))
        x = x + shift[:, None, None, :]
        x = jax.nn.silu(GroupNorm(self.groups, self.epsilon, name="norm2")(x))
        # Zero at the start, as in ADM: the block begins as its shortcut.
        x = Conv(self.features, kernel_init=nn.initializers.zeros_init(), dtype=self.dtype, name="conv2")(x)
        if residual.shape[-1] != self.features:
            residual = Conv(self.features, kernel_size=1, padding=0, dtype=self.dtype, name="conv_shortcut")(residual)
        return x + residual


class Downsample(nn.Module):
    """A stride-2 convolution: half the height and width."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        return Conv(x.shape[-1], strides=2, dtype=self.dtype, name="conv")(x)


class Upsample(nn.Module):
    """Nearest neighbour to `size` (twice as large, or the skip's odd size), then a convolution."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, size: tuple[int, int]):
        for axis, target in zip((1, 2), size, strict=True):
            length = x.shape[axis]
            if target == 2 * length:
                x = jnp.repeat(x, 2, axis=axis)
            else:
                x = jnp.take(x, jnp.arange(target) * length // target, axis=axis)
        return Conv(x.shape[-1], dtype=self.dtype, name="conv")(x)


class Level(nn.Module):
    """What down, mid and up blocks share: how one resnet and one transformer of a U-Net's level are made and called."""

    config: UNetConfig
    level: int
    role: Role = "main"
    remat: Remat = "none"
    attention: Implementation = "auto"
    dtype: DTypeLike = jnp.float32

    def resnet(self, index: int, x, emb):
        block = rematerialised(ResnetBlock, self.remat)
        features = self.config.block_out_channels[self.level]
        layer = block(
            features, self.config.norm_num_groups, self.config.norm_eps, self.dtype, name=f"resnets_{index}"
        )
        return layer(x, emb)

    def transformer(self, index: int, x, conditions, site: str, out: dict):
        """Runs one stack; in the reference role its keys and values go to `out[site]`, and the last returns None."""
        layer = SpatialTransformer(
            depth=max(1, self.config.transformer_layers[self.level]),
            heads=self.config.attention_heads[self.level],
            groups=self.config.norm_num_groups,
            linear_projection=self.config.use_linear_projection,
            role=self.role,
            last=self.role == "reference" and site == self.config.last_site,
            remat=self.remat,
            attention=self.attention,
            dtype=self.dtype,
            name=f"attentions_{index}",
        )
        context, reference, adapter, gates = conditions
        if isinstance(context, Mapping):
            context = context[site.split("/")[0]]
        x, keys_values = layer(
            x,
            context,
            reference=None if reference is None else reference[site],
            adapter=None if adapter is None else adapter[site],
            gates=gates,
        )
        if keys_values is not None:
            out[site] = keys_values
        return x


class DownBlock(Level):
    @nn.compact
    def __call__(self, x, emb, conditions, prefix: str):
        skips, out = [], {}
        for index in range(self.config.layers_per_block):
            x = self.resnet(index, x, emb)
            if self.config.down_attention[self.level]:
                x = self.transformer(index, x, conditions, f"{prefix}/attentions_{index}", out)
            skips.append(x)
        if self.level < len(self.config.block_out_channels) - 1:
            x = Downsample(self.dtype, name="downsamplers_0")(x)
            skips.append(x)
        return x, skips, out


class MidBlock(Level):
    @nn.compact
    def __call__(self, x, emb, conditions, prefix: str):
        out = {}
        x = self.resnet(0, x, emb)
        x = self.transformer(0, x, conditions, f"{prefix}/attentions_0", out)
        if x is not None:
            x = self.resnet(1, x, emb)
        return x, out


class UpBlock(Level):
    """Takes its skips from the end of `skips`; in the reference role x is None once the last site is reached."""

    @nn.compact
    def __call__(self, x, emb, conditions, prefix: str, skips: list):
        out = {}
        levels = len(self.config.block_out_channels)
        for index in range(self.config.layers_per_block + 1):
            x = self.resnet(index, jnp.concatenate([x, skips.pop()], axis=-1), emb)
            if self.config.up_attention[levels - 1 - self.level]:
                x = self.transformer(index, x, conditions, f"{prefix}/attentions_{index}", out)
                if x is None:
                    return None, out
        if self.level > 0:
            x = Upsample(self.dtype, name="upsamplers_0")(x, skips[-1].shape[1:3])
        return x, out
