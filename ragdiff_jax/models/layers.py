"""The five layers every network is built from, with logical axis names on each parameter.

Names of the axes: `embed` (a layer's input width), `mlp`/`heads` (a wide output), `conv_in`, `conv_out`, `vocab`,
`norm`, `layers` (the leading axis of a scanned stack). `ragdiff_jax.parallel` maps them to mesh axes; a network never
sees a mesh.
Parameters are fp32; `dtype` is the dtype of the computation.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

Initializer = Callable


def dense_init(axes: tuple[str | None, ...], init: Initializer | None = None) -> Initializer:
    """An initializer whose parameter carries the logical `axes`."""
    return nn.with_logical_partitioning(init or nn.initializers.lecun_normal(), axes)


class Dense(nn.Module):
    """`[..., in] -> [..., features]`; kernel [in, out] with the axes named by `axes`."""

    features: int
    axes: tuple[str | None, str | None] = ("embed", "mlp")
    use_bias: bool = True
    kernel_init: Initializer | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        # Sharing the scope keeps the tree flat: <name>/kernel, not <name>/Dense_0/kernel.
        layer = nn.Dense(
            self.features,
            use_bias=self.use_bias,
            dtype=self.dtype,
            kernel_init=dense_init(self.axes, self.kernel_init),
            bias_init=dense_init((self.axes[1],), nn.initializers.zeros_init()),
        )
        nn.share_scope(self, layer)
        return layer(x)


class Conv(nn.Module):
    """`[b, h, w, in] -> [b, h', w', features]`; kernel HWIO. `padding` as in torch: one number, both sides."""

    features: int
    kernel_size: int = 3
    strides: int = 1
    padding: int | tuple[tuple[int, int], tuple[int, int]] = 1
    use_bias: bool = True
    kernel_init: Initializer | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        padding = self.padding
        if isinstance(padding, int):
            padding = ((padding, padding), (padding, padding))
        layer = nn.Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            strides=self.strides,
            padding=padding,
            use_bias=self.use_bias,
            dtype=self.dtype,
            kernel_init=dense_init((None, None, "conv_in", "conv_out"), self.kernel_init),
            bias_init=dense_init(("conv_out",), nn.initializers.zeros_init()),
        )
        nn.share_scope(self, layer)
        return layer(x)


class GroupNorm(nn.Module):
    """Group normalisation over `[b, h, w, c]` (statistics in fp32, two-pass variance as torch has it).

    Means are taken over the pixels of each channel first and then over a group's channels: Flax's one reduction over
    [h, w, c / groups] is several times slower on a CPU, six times in the backward pass (benchmarks/layers.py).
    """

    groups: int = 32
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        b, _, _, c = x.shape
        scale = self.param("scale", dense_init(("norm",), nn.initializers.ones_init()), (c,))
        bias = self.param("bias", dense_init(("norm",), nn.initializers.zeros_init()), (c,))

        def group_mean(x):
            per_group = x.mean(axis=(1, 2)).reshape(b, self.groups, -1).mean(axis=-1, keepdims=True)
            return jnp.broadcast_to(per_group, (b, self.groups, c // self.groups)).reshape(b, 1, 1, c)

        x = x.astype(jnp.float32)
        x = x - group_mean(x)
        inverse = jax.lax.rsqrt(group_mean(jnp.square(x)) + self.epsilon)
        return (x * (inverse * scale) + bias).astype(self.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (statistics in fp32)."""

    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        layer = nn.LayerNorm(
            epsilon=self.epsilon,
            dtype=self.dtype,
            use_fast_variance=False,
            scale_init=dense_init(("norm",), nn.initializers.ones_init()),
            bias_init=dense_init(("norm",), nn.initializers.zeros_init()),
        )
        nn.share_scope(self, layer)
        return layer(x)


class Embed(nn.Module):
    """A table `[count, features]`, looked up by integer ids of any shape."""

    count: int
    features: int
    axes: tuple[str | None, str | None] = ("vocab", "embed")
    embedding_init: Initializer | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, ids):
        layer = nn.Embed(
            self.count,
            self.features,
            dtype=self.dtype,
            embedding_init=dense_init(self.axes, self.embedding_init or nn.initializers.normal(0.02)),
        )
        nn.share_scope(self, layer)
        return layer(ids)
