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
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        is_causal=causal,
        key_value_seq_lengths=key_lengths,
        implementation=_resolve(implementation, query, key),
    )


def reference_attention(
    query: Float[Array, "b q n d"],
    key: Float[Array, "b k n d"],
    value: Float[Array, "b k n d"],
    reference_key: Float[Array, "b r n d"],
    reference_value: Float[Array, "b r n d"],
    gate: Float[Array, "b"] | None = None,
    *,
    implementation: Implementation = "auto",
) -> Float[Array, "b q n d"]:
    """Self-attention over a token's own keys and, behind them, ReferenceNet's (R Eq. 4).

    A sample whose `gate` is 0 attends to its own keys alone: bit for bit the plain attention on XLA, where the two
    halves of the softmax are computed apart and joined by their log-sum-exp. cuDNN gets the joined keys and a key
    length, because its kernel drops the gradient of the log-sum-exp.
    """
    implementation = _resolve(implementation, query, key)
    if implementation == "cudnn":
        lengths = None
        if gate is not None:
            lengths = key.shape[1] + reference_key.shape[1] * (gate > 0.5).astype(jnp.int32)
        return dot_product_attention(
            query,
            jnp.concatenate([key, reference_key], axis=1),
            jnp.concatenate([value, reference_value], axis=1),
            key_lengths=lengths,
            implementation=implementation,
        )
    own, own_lse = _attend(query, key, value)
    other, other_lse = _attend(query, reference_key, reference_value)
    share = jax.nn.sigmoid(other_lse - own_lse)
    if gate is not None:
        share = share * gate[:, None, None]
    return own + share[..., None].astype(own.dtype) * (other - own)


def _attend(query, key, value):
    """Attention and its log-sum-exp [b, q, n] in fp32.

    jax.nn's `return_residual` stops the gradient of the log-sum-exp, so that is computed here; XLA merges the logits.
    """
    out = jax.nn.dot_product_attention(query, key, value, implementation="xla")
    logits = jnp.einsum("bqnd,bknd->bnqk", query, key, preferred_element_type=jnp.float32) * query.shape[-1] ** -0.5
    return out, jax.nn.logsumexp(logits, axis=-1).transpose(0, 2, 1)


def _resolve(implementation: Implementation, query: jax.Array, key: jax.Array) -> Literal["xla", "cudnn"]:
    if implementation == "auto":
        return "cudnn" if _prefers_cudnn(query, key) else "xla"
    return implementation
