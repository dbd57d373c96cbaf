"""Landmark fusion (RAGDiffusion 9.3): K neighbours' silhouettes [B,K,H,W] -> one of them [B,H,W]."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped


def binarise(masks: Shaped[Array, "*shape"]) -> Bool[Array, "*shape"]:
    """bool as it is, integers by != 0, floats by >= 0.5."""
    if masks.dtype == jnp.bool_:
        return masks
    return masks >= 0.5 if jnp.issubdtype(masks.dtype, jnp.floating) else masks != 0


def iou(a: Shaped[Array, "*batch h w"], b: Shaped[Array, "*batch h w"]) -> Float[Array, "*batch"]:
    """Intersection over union of masks, float32 in [0, 1]; two empty masks have 1."""
    a, b = binarise(a), binarise(b)
    intersection = jnp.sum(a & b, axis=(-2, -1), dtype=jnp.float32)
    union = jnp.sum(a | b, axis=(-2, -1), dtype=jnp.float32)
    return jnp.where(union > 0, intersection / jnp.maximum(union, 1.0), 1.0)


def blend_landmarks(masks: Shaped[Array, "b k h w"], weights: Float[Array, "b k"]) -> Float[Array, "b h w"]:
    """The weighted sum of the masks, clipped to [0, 1]: the soft shape before a neighbour is chosen."""
    blend = jnp.einsum(
        "bk,bkhw->bhw",
        weights.astype(jnp.float32),
        binarise(masks).astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.clip(blend, 0.0, 1.0)


def fuse_landmarks(
    masks: Shaped[Array, "b k h w"], weights: Float[Array, "b k"]
) -> tuple[Shaped[Array, "b h w"], Int[Array, " b"]]:
    """The neighbour mask that agrees most (IoU) with the weighted blend, thresholded at 0.5, of all K.

    Returns the mask in its own dtype and which of the K it is, int32. An empty mask is never chosen while
    there is another; on a tie the nearer neighbour (lower index) wins.
    """
    blend = blend_landmarks(masks, weights) >= 0.5
    binary = binarise(masks)
    # The broadcast is spelled out: jaxtyping binds the batch axes of both arguments of iou to one shape.
    scores = iou(binary, jnp.broadcast_to(blend[:, None], binary.shape))
    scores = jnp.where(jnp.any(binary, axis=(-2, -1)), scores, -1.0)
    choice = jnp.argmax(scores, axis=1).astype(jnp.int32)
    return jnp.take_along_axis(masks, choice[:, None, None, None], axis=1)[:, 0], choice
