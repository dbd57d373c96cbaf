"""Structure Locally Linear Embedding (RAGDiffusion 3.2): a photo's embedding drawn towards standard garments.

query [B,D] and its K neighbours [B,K,D] -> weights [B,K] -> fused embedding [B,D]. Everything is jnp, in
float32, differentiable, and runs inside a train step.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ragdiff_jax.errors import UserError


def slle_weights(
    query: Float[Array, "b d"], neighbours: Float[Array, "b k d"], reg: float | Float[Array, ""] = 1e-3
) -> Float[Array, "b k"]:
    """The weights that rebuild `query` from `neighbours` (equation 2), float32; they sum to 1 and may be
    negative.

    Solves (G + reg * trace(G) * I) w = 1 for the Gram matrix G of (neighbour - query) and divides by the sum,
    as scikit-learn's locally linear embedding does; the ridge is `reg` itself where trace(G) is 0. Finite,
    with finite gradients, for duplicate, collinear and zero neighbours, a query equal to a neighbour, and K >
    D. Vectors are taken as they are: for cosine neighbours pass unit vectors. Raises `UserError` unless reg >
    0.
    """
    if isinstance(reg, int | float) and not reg > 0:
        raise UserError(f"SLLE reg {reg} must be above 0")
    return _weights(query, neighbours, reg)


@jax.jit
def _weights(query, neighbours, reg):
    k = neighbours.shape[1]
    difference = neighbours.astype(jnp.float32) - query.astype(jnp.float32)[:, None, :]
    # The weights don't change with the scale; without it the squares of tiny differences would underflow.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(difference), axis=(1, 2), keepdims=True))
    difference = difference / jnp.where(largest > 0, largest, 1.0)
    gram = jnp.einsum("bkd,bjd->bkj", difference, difference, precision=jax.lax.Precision.HIGHEST)
    trace = jnp.trace(gram, axis1=1, axis2=2)
    ridge = jnp.where(trace > 0, reg * trace, reg)
    system = gram + ridge[:, None, None] * jnp.eye(k, dtype=jnp.float32)
    with jax.default_matmul_precision("highest"):
        weights = jnp.linalg.solve(system, jnp.ones((*system.shape[:2], 1), jnp.float32))[..., 0]
    # The system is positive definite, so the sum is at least k / (largest eigenvalue) > 0.
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def fuse_embeddings(
    embedding: Float[Array, "b d"],
    neighbours: Float[Array, "b k d"],
    weights: Float[Array, "b k"],
    alpha: float | int | Float[Array, ""] = 0.5,
    *,
    renormalise: bool = False,
) -> Float[Array, "b d"]:
    """alpha * sum_i w_i neighbour_i + (1 - alpha) * embedding (equation 3), float32.

    The result is not of unit length, as in the paper; `renormalise` makes it so.
    """
    rebuilt = jnp.einsum(
        "bk,bkd->bd",
        weights.astype(jnp.float32),
        neighbours.astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )
    fused = alpha * rebuilt + (1 - alpha) * embedding.astype(jnp.float32)
    if renormalise:
        fused = fused * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(fused), axis=-1, keepdims=True), 1e-12))
    return fused
