"""How much each retrieved garment counts: F leaves it open, and takes all alike one after another.

`concat` keeps F's way for the garments of a weight above 0; `pool` is one garment's words, the weighted mean of all, so
that any number of garments fits into the prompt.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Fusion = Literal["concat", "pool"]
Weighting = Literal["equal", "similarity", "agreement"]


def garment_weights(
    query: Float[Array, "b d"], garments: Float[Array, "b n d"], kind: Weighting, *, temperature: float = 0.05
) -> Float[Array, "b n"]:
    """Weights that sum to 1, of unit vectors of the text and of the garments.

    equal: all alike. similarity: softmax of the cosine with the text. agreement: softmax of the mean cosine with the
    other garments, so that one that contradicts the rest counts less: for garments without a text.
    """
    b, n, _ = garments.shape
    if kind == "equal" or n == 1:
        return jnp.full((b, n), 1 / n)
    if kind == "similarity":
        scores = jnp.einsum("bd,bnd->bn", query, garments)
    else:
        between = jnp.einsum("bnd,bmd->bnm", garments, garments)
        scores = (between.sum(axis=2) - 1.0) / (n - 1)
    return jax.nn.softmax(scores / temperature, axis=1)


def accepted(
    similarities: Float[Array, "b n"], margin: float | None, floor: float | None = None
) -> Float[Array, "b n"]:
    """1 for garments whose similarity to the text is at most `margin` below the best one's and at least `floor`, 0 for
    the rejected; None asks nothing. The margin always keeps the best; where none is right, only a floor can say so.
    """
    kept = jnp.ones_like(similarities, bool)
    if margin is not None:
        kept &= similarities >= similarities.max(axis=1, keepdims=True) - margin
    if floor is not None:
        kept &= similarities >= floor
    return kept.astype(jnp.float32)


def fuse_words(
    words: Float[Array, "b n t d"], weights: Float[Array, "b n"], fusion: Fusion
) -> tuple[Float[Array, "b v d"], Int[Array, "b"]]:
    """(words to splice into the prompt, how many of them count): see the module's words."""
    b, n, t, d = words.shape
    if fusion == "pool":
        share = weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        counts = jnp.where(weights.sum(axis=1) > 0, t, 0)
        return jnp.einsum("bntd,bn->btd", words, share), counts.astype(jnp.int32)
    kept = weights > 0
    order = jnp.argsort(~kept, axis=1, stable=True)  # those that count first, by rank
    words = jnp.take_along_axis(words, order[..., None, None], axis=1)
    return words.reshape(b, n * t, d), (kept.sum(axis=1) * t).astype(jnp.int32)
