"""InfoNCE over the global batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def unit(vectors: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """Rows of unit length, fp32."""
    vectors = vectors.astype(jnp.float32)
    return vectors * jax.lax.rsqrt(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True) + 1e-12)


def info_nce(
    queries: Float[Array, "b d"],
    keys: Float[Array, "b d"],
    scale: float | Float[Array, ""],
    not_negative: Bool[Array, "b b"],
) -> tuple[Float[Array, "b"], Float[Array, ""]]:
    """(loss of each row, accuracy): row i's positive is key i, the other keys are its negatives (R Eq. 1).

    Unit vectors; `scale` is 1 / temperature. `not_negative[i, j]` leaves key j out of row i's sum.
    """
    logits = scale * jnp.einsum("id,jd->ij", queries, keys, precision=jax.lax.Precision.HIGHEST)
    logits = jnp.where(not_negative, -jnp.inf, logits)
    rows = jax.nn.logsumexp(logits, axis=1) - jnp.diagonal(logits)
    accuracy = (jnp.argmax(logits, axis=1) == jnp.arange(logits.shape[0])).mean()
    return rows, accuracy
