"""Sinusoidal embeddings of numbers, and the two-layer MLP behind them.

timesteps [b] -> [b, dim] -> [b, time_embed_dim]
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from ragdiff_jax.models.layers import Dense


def sinusoidal_embedding(
    values: Num[Array, "n"], dim: int, *, flip_sin_to_cos: bool = True, freq_shift: float = 0.0
) -> Float[Array, "n dim"]:
    """The transformer's position embedding of real numbers, fp32 (Ho et al. 2020, as in the SD family).

    `flip_sin_to_cos` puts the cosines first; `freq_shift` shifts the divisor of the exponent, dim/2 - freq_shift.
    """
    half = dim // 2
    exponent = -math.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / (half - freq_shift)
    angles = values.astype(jnp.float32)[:, None] * jnp.exp(exponent)[None, :]
    parts = (jnp.cos(angles), jnp.sin(angles)) if flip_sin_to_cos else (jnp.sin(angles), jnp.cos(angles))
    embedding = jnp.concatenate(parts, axis=-1)
    return jnp.pad(embedding, ((0, 0), (0, dim % 2)))


class TimestepEmbedding(nn.Module):
    """`[b, in] -> [b, features]`: linear, SiLU, linear."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        x = Dense(self.features, dtype=self.dtype, name="linear_1")(x)
        return Dense(self.features, axes=("mlp", "embed"), dtype=self.dtype, name="linear_2")(jax.nn.silu(x))
