"""One dispatcher for all attention.

`auto` takes XLA everywhere except where cuDNN's fused kernel is known to pay: an NVIDIA GPU from Ampere on, bf16 or
fp16, at least 1024 queries and keys, heads of a multiple of 8 up to 128. Text keys (77) and the VAE's one wide head
stay on XLA. No mask is ever passed: a missing reference is a shorter key length on cuDNN, because a masked fused kernel
is slower and, in several versions, wrong (jax issue 28974), and a share of zero on XLA (`reference_attention`).
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Implementation = Literal["auto", "xla", "cudnn"]


@functools.cache
def _has_cudnn() -> bool:
    """Of the default devices: NVIDIA's (AMD's are a "gpu" too), of Ampere or later."""
    if jax.default_backend() != "gpu":
        return False
    card = jax.devices()[0]
    return "cuda" in card.client.platform_version.lower() and float(getattr(card, "compute_capability", 0)) >= 8


def _prefers_cudnn(query: jax.Array, key: jax.Array) -> bool:
    head_dim = query.shape[-1]
    return (
        _has_cudnn()
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
    implementation = _resolve(implementation, query, key)
    if implementation == "xla" and key_lengths is None and not causal:
        return _attend(query, key, value)[0]
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        is_causal=causal,
        key_value_seq_lengths=key_lengths,
        implementation=implementation,
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


@jax.custom_vjp
def _attend(query, key, value):
    """Attention [b, q, n, d] and its log-sum-exp [b, q, n] in fp32, heads leading inside.

    jax.nn's own stops the gradient of the log-sum-exp. The backward pass is written out, because the one that is
    derived makes twice as many passes over [b, n, q, k], which is what attention costs on a CPU
    (benchmarks/layers.py).
    """
    return _attend_forward(query, key, value)[0]


def _attend_forward(query, key, value):
    scale = query.shape[-1] ** -0.5
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (query * scale, key, value))
    logits = jnp.einsum("bnqd,bnkd->bnqk", q, k, preferred_element_type=jnp.float32)
    peak = logits.max(axis=-1, keepdims=True)
    weights = jnp.exp(logits - peak)
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights.astype(v.dtype)
    out = jnp.einsum("bnqk,bnkd->bnqd", weights, v, preferred_element_type=jnp.float32) / total
    lse = (peak + jnp.log(total))[..., 0].transpose(0, 2, 1)
    return (out.transpose(0, 2, 1, 3).astype(query.dtype), lse), (q, k, v, weights, total, out)


def _attend_backward(residuals, cotangents):
    q, k, v, weights, total, out = residuals
    d_out, d_lse = cotangents
    d_out = d_out.astype(jnp.float32).transpose(0, 2, 1, 3) / total
    d_lse = d_lse.transpose(0, 2, 1)[..., None] / total
    shift = (d_out * out).sum(axis=-1, keepdims=True) - d_lse
    d_out = d_out.astype(v.dtype)
    d_value = jnp.einsum("bnqk,bnqd->bnkd", weights, d_out)
    d_weights = jnp.einsum("bnqd,bnkd->bnqk", d_out, v, preferred_element_type=jnp.float32)
    d_logits = (weights * (d_weights - shift)).astype(k.dtype)
    d_query = jnp.einsum("bnqk,bnkd->bnqd", d_logits, k) * q.shape[-1] ** -0.5
    d_key = jnp.einsum("bnqk,bnqd->bnkd", d_logits, q)
    return tuple(x.transpose(0, 2, 1, 3) for x in (d_query, d_key, d_value))


_attend.defvjp(_attend_forward, _attend_backward)


def _resolve(implementation: Implementation, query: jax.Array, key: jax.Array) -> Literal["xla", "cudnn"]:
    if implementation == "auto":
        return "cudnn" if _prefers_cudnn(query, key) else "xla"
    return implementation
