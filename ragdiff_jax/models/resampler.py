"""The Perceiver resampler of IP-Adapter-plus: tokens `[b, l, c]` -> `[b, q, output_dim]`, q learned queries.

In each layer the queries attend to (tokens, queries), then comes a feed-forward; both are added.
Computation and names are those of the published IP-Adapter-plus checkpoints (51 tensors at depth 4): these
load as they are.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ragdiff_jax.models.attention import dot_product_attention
from ragdiff_jax.models.layers import Dense, LayerNorm


class _PerceiverAttention(nn.Module):
    heads: int
    dim_head: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, tokens, latents):
        inner = self.heads * self.dim_head
        b, queries, dim = latents.shape
        tokens = LayerNorm(dtype=self.dtype, name="norm1")(tokens)
        latents = LayerNorm(dtype=self.dtype, name="norm2")(latents)
        context = jnp.concatenate([tokens, latents], axis=1)
        q = Dense(inner, ("embed", "heads"), use_bias=False, dtype=self.dtype, name="to_q")(latents)
        kv = Dense(2 * inner, ("embed", "heads"), use_bias=False, dtype=self.dtype, name="to_kv")(context)
        q, k, v = (x.reshape(b, -1, self.heads, self.dim_head) for x in (q, *jnp.split(kv, 2, axis=-1)))
        out = dot_product_attention(q, k, v).reshape(b, queries, inner)
        return Dense(dim, axes=("heads", "embed"), use_bias=False, dtype=self.dtype, name="to_out")(out)


class Resampler(nn.Module):
    """`num_queries` learned vectors gather what they need from the tokens; the output is layer-normalised."""

    dim: int
    depth: int
    heads: int
    dim_head: int
    num_queries: int
    output_dim: int
    ff_mult: int = 4
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b l c"]) -> Float[Array, "b q d"]:
        init = nn.with_logical_partitioning(nn.initializers.normal(self.dim**-0.5), (None, None, "norm"))
        latents = self.param("latents", init, (1, self.num_queries, self.dim)).astype(self.dtype)
        latents = jnp.broadcast_to(latents, (x.shape[0], self.num_queries, self.dim))
        x = Dense(self.dim, dtype=self.dtype, name="proj_in")(x)
        for i in range(self.depth):
            # "layers_0_1_3" is `layers.0.1.3` on disk: layer 0, its second part, that part's fourth step.
            attention = _PerceiverAttention(self.heads, self.dim_head, self.dtype, name=f"layers_{i}_0")
            latents = latents + attention(x, latents)
            h = LayerNorm(dtype=self.dtype, name=f"layers_{i}_1_0")(latents)
            h = Dense(self.dim * self.ff_mult, use_bias=False, dtype=self.dtype, name=f"layers_{i}_1_1")(h)
            h = Dense(
                self.dim, axes=("mlp", "embed"), use_bias=False, dtype=self.dtype, name=f"layers_{i}_1_3"
            )(nn.gelu(h, approximate=False))
            latents = latents + h
        latents = Dense(self.output_dim, dtype=self.dtype, name="proj_out")(latents)
        return LayerNorm(dtype=self.dtype, name="norm_out")(latents)
