"""One dispatcher for all attention.

`auto` takes XLA everywhere except where cuDNN's fused kernel is known to pay: an NVIDIA GPU, bf16 or fp16, at least
1024 queries and keys, heads of a multiple of 8 up to 128. Text keys (77) and the VAE's one wide head stay on XLA. No
mask is ever passed: a missing reference is a shorter key length, because a masked fused kernel is slower and, in
several versions, wrong (jax issue 28974).
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Implementation = Literal["auto", "xla", "cudnn"]


def _prefers_cudnn(query: jax.Array, key: jax.Array) -> bool:
    head_dim = query.shape[-1]
    return (
        jax.default_backend() == "gpu"
        and query.dtype in (jnp.bfloat16, jnp.float16)
        and min(query.shape[1], key.shape[1]) >= 1024
        and head_dim % 8 == 0
        and head_dim <= 128
    )


def dot_product_attention(
    query: Float[Array, "b q n d"],
    key: Float[Array, "b k n d"],
    value: Float[Array, "b k n d"],
    *,
    key_lengths: Int[Array, "b"] | None = None,
    causal: bool = False,
    implementation: Implementation = "auto",
) -> Float[Array, "b q n d"]:
    """softmax(Q K^T / sqrt(d)) V with the softmax in fp32.

    Args:
      query, key, value: heads split, in the layout batch, tokens, heads, head width.
      key_lengths: number of leading keys a sample attends to; None means all.
      causal: query i sees keys 0..i only.
      implementation: `xla`, `cudnn` (asked for by name it is used or raises), or `auto`.
    """
    if implementation == "auto":
        implementation = "cudnn" if _prefers_cudnn(query, key) else "xla"
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        is_causal=causal,
        key_value_seq_lengths=key_lengths,
        implementation=implementation,
    )
