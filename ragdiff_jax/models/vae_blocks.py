"""Blocks of the autoencoder: residual block, one-head attention, down, middle and up stages; `[b, h, w, c]`.

Names of the submodules are diffusers' (`resnets_0/norm1`, `downsamplers_0/conv`, `attentions_0/to_q`).
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ragdiff_jax.models.attention import dot_product_attention
from ragdiff_jax.models.layers import Conv, Dense, GroupNorm

EPSILON = 1e-6  # diffusers' autoencoders use this, its U-Nets 1e-5
# Every residual branch starts at nothing, as in ADM: colours pass from the first step on, edges are learned on top.
ZEROS = nn.initializers.zeros_init()


class ResnetBlock(nn.Module):
    """Norm, SiLU, conv, twice, plus the input (through a 1x1 conv when the width changes).

    Norm, SiLU and the sum are fp32 whatever `dtype` is: at the full size and in bf16 the decoder's relative error is
    1.8 % so, 2.5 % otherwise (benchmarks/full_size).
    """

    features: int
    groups: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        h = GroupNorm(self.groups, EPSILON, name="norm1")(x)
        h = Conv(self.features, dtype=self.dtype, name="conv1")(nn.silu(h))
        h = GroupNorm(self.groups, EPSILON, name="norm2")(h)
        h = Conv(self.features, kernel_init=ZEROS, dtype=self.dtype, name="conv2")(nn.silu(h))
        if x.shape[-1] != self.features:
            x = Conv(self.features, kernel_size=1, padding=0, dtype=self.dtype, name="conv_shortcut")(x)
        return x.astype(jnp.float32) + h


class AttentionBlock(nn.Module):
    """Self-attention of one head over all pixels, added to the input."""

    groups: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        tokens = GroupNorm(self.groups, EPSILON, self.dtype, name="group_norm")(x).reshape(b, h * w, c)
        q, k, v = (
            Dense(c, axes=("embed", "heads"), dtype=self.dtype, name=name)(tokens)[:, :, None, :]
            for name in ("to_q", "to_k", "to_v")
        )
        out = dot_product_attention(q, k, v)[:, :, 0, :]
        out = Dense(c, axes=("heads", "embed"), kernel_init=ZEROS, dtype=self.dtype, name="to_out_0")(out)
        return x.astype(jnp.float32) + out.reshape(b, h, w, c)


class MidBlock(nn.Module):
    """Residual block, attention (unless `attention` is False), residual block."""

    features: int
    groups: int
    attention: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        x = ResnetBlock(self.features, self.groups, self.dtype, name="resnets_0")(x)
        if self.attention:
            x = AttentionBlock(self.groups, self.dtype, name="attentions_0")(x)
        return ResnetBlock(self.features, self.groups, self.dtype, name="resnets_1")(x)


class _Resampling(nn.Module):
    """A conv under the name `conv`, at stride 2 (down) or after doubling the pixels (up)."""

    features: int
    up: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        if self.up:
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            return Conv(self.features, dtype=self.dtype, name="conv")(x)
        # diffusers pads the encoder's strided convs at the bottom and right only.
        return Conv(self.features, strides=2, padding=((0, 1), (0, 1)), dtype=self.dtype, name="conv")(x)


class DownBlock(nn.Module):
    """`layers` residual blocks, then half the size unless `downsample` is False."""

    features: int
    layers: int
    groups: int
    downsample: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        for i in range(self.layers):
            x = ResnetBlock(self.features, self.groups, self.dtype, name=f"resnets_{i}")(x)
        if self.downsample:
            x = _Resampling(self.features, False, self.dtype, name="downsamplers_0")(x)
        return x


class UpBlock(nn.Module):
    """`layers` residual blocks, then twice the size unless `upsample` is False."""

    features: int
    layers: int
    groups: int
    upsample: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        for i in range(self.layers):
            x = ResnetBlock(self.features, self.groups, self.dtype, name=f"resnets_{i}")(x)
        if self.upsample:
            x = _Resampling(self.features, True, self.dtype, name="upsamplers_0")(x)
        return x
