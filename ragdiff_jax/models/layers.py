"""The five layers every network is built from, with logical axis names on each parameter.

Names of the axes: `embed` (a layer's input width), `mlp`/`heads` (a wide output), `conv_in`, `conv_out`, `vocab`,
`norm`, `layers` (the leading axis of a scanned stack). `ragdiff_jax.parallel` maps them to mesh axes; a network never
sees a mesh.
Parameters are fp32; `dtype` is the dtype of the computation, in which a split weight is gathered. What a layer returns
is constrained: rows (`act_batch`) with the batch, a wide output (`act_mlp`, `act_heads`) over `tensor`.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ScopeParamShapeError
from jax.typing import DTypeLike

from ragdiff_jax.axes import constrain, gathered

Initializer = Callable


def dense_init(axes: tuple[str | None, ...], init: Initializer | None = None) -> Initializer:
    """An initializer whose parameter carries the logical `axes`."""
    return nn.with_logical_partitioning(init or nn.initializers.lecun_normal(), axes)


def weight(
    module: nn.Module,
    name: str,
    axes: tuple[str | None, ...],
    init: Initializer | None,
    shape: tuple[int, ...],
    dtype: DTypeLike,
) -> jax.Array:
    """A parameter of `module` in the dtype of the computation, gathered for use where it is stored in pieces."""
    return gathered(jnp.asarray(parameter(module, name, axes, init, shape), dtype), axes)


def parameter(
    module: nn.Module, name: str, axes: tuple[str | None, ...], init: Initializer | None, shape: tuple[int, ...]
) -> jax.Array | np.ndarray:
    """As `module.param` gives it, without tracing the initializer where the parameter is there.

    Flax does that to compare shapes, a quarter of the time that a network takes to be traced.
    """
    if not module.has_variable("params", name):
        return module.param(name, dense_init(axes, init), shape)
    value = nn.meta.unbox(module.get_variable("params", name))
    if value.shape != shape:
        raise ScopeParamShapeError(name, module.scope.path_text, value.shape, shape)
    return value


class Dense(nn.Module):
    """`[..., in] -> [..., features]`; kernel [in, out] with the axes named by `axes`."""

    features: int
    axes: tuple[str | None, str | None] = ("embed", "mlp")
    use_bias: bool = True
    kernel_init: Initializer | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        kernel = weight(self, "kernel", self.axes, self.kernel_init, (x.shape[-1], self.features), self.dtype)
        x = jax.lax.dot_general(jnp.asarray(x, self.dtype), kernel, (((x.ndim - 1,), (0,)), ((), ())))
        if self.use_bias:
            x = x + weight(self, "bias", self.axes[1:], nn.initializers.zeros_init(), (self.features,), self.dtype)
        return constrain(x, ("act_batch", *(None,) * (x.ndim - 2), f"act_{self.axes[1]}"))


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
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        x = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            weight(self, "kernel", (None, None, "conv_in", "conv_out"), self.kernel_init, shape, self.dtype),
            (self.strides, self.strides),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        if self.use_bias:
            x = x + weight(self, "bias", ("conv_out",), nn.initializers.zeros_init(), (self.features,), self.dtype)
        return constrain(x, ("act_batch", None, None, None))


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
        scale = parameter(self, "scale", ("norm",), nn.initializers.ones_init(), (c,))
        bias = parameter(self, "bias", ("norm",), nn.initializers.zeros_init(), (c,))

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
        init = self.embedding_init or nn.initializers.normal(0.02)
        table = weight(self, "embedding", self.axes, init, (self.count, self.features), self.dtype)
        return jnp.take(table, ids, axis=0)
