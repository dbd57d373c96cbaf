"""DINOv2's losses (arXiv 2304.07193), over the global batch: targets by Sinkhorn-Knopp, cross-entropies, KoLeo."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ragdiff_jax.models.unit_length import unit


def sinkhorn_targets(
    logits: Float[Array, "n k"],
    temperature: float | Float[Array, ""],
    weights: Float[Array, " n"] | None = None,
    iterations: int = 3,
) -> Float[Array, "n k"]:
    """Teacher's targets: every row sums to 1, every prototype is used alike (SwAV, arXiv 2006.09882).

    Rows of weight 0 (padding) don't count; their targets are 0. No gradient.
    """
    logits = jax.lax.stop_gradient(logits.astype(jnp.float32)) / temperature
    weights = jnp.ones(logits.shape[:1]) if weights is None else weights
    counted = weights[:, None] > 0
    top = jnp.where(counted, logits, -jnp.inf).max()
    # Before exp: what padding holds may be too large for it.
    table = jnp.exp(jnp.where(counted, logits - jnp.where(jnp.isfinite(top), top, 0.0), -jnp.inf)) * weights[:, None]
    rows, k = jnp.maximum(weights.sum(), 1.0), logits.shape[1]
    for _ in range(iterations):
        table = table / jnp.maximum(table.sum(axis=0, keepdims=True), 1e-30) / k
        table = table / jnp.maximum(table.sum(axis=1, keepdims=True), 1e-30) / rows
    return table * rows


def cross_entropy(
    targets: Float[Array, "*b k"], logits: Float[Array, "*b k"], temperature: float
) -> Float[Array, "*b"]:
    """- sum over prototypes of target * log softmax(logits / temperature)."""
    return -(targets * jax.nn.log_softmax(logits / temperature, axis=-1)).sum(axis=-1)


def koleo(features: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Kozachenko-Leonenko: - log of the distance to the nearest other row, rows made unit length."""
    x = unit(features)
    dots = jax.lax.stop_gradient(x) @ jax.lax.stop_gradient(x).T
    near = jnp.argmax(jnp.where(jnp.eye(len(x), dtype=bool), -2.0, dots), axis=1)
    return -jnp.log(jnp.sqrt(jnp.sum((x - x[near]) ** 2, axis=1) + 1e-12) + 1e-6)
