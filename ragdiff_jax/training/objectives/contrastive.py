"""InfoNCE over the global batch, and its kin with silhouettes that say how alike two garments are."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped


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


def shape_info_nce(
    queries: Float[Array, "b d"],
    keys: Float[Array, "n d"],
    scale: float | Float[Array, ""],
    targets: Float[Array, "b n"],
) -> tuple[Float[Array, "b"], Float[Array, ""]]:
    """(loss of each row, accuracy): as `info_nce`, with a distribution over all keys in place of the one positive.

    Rows of `targets` sum to 1. The targets' own entropy is taken off, so that the least loss is 0.
    """
    logits = scale * jnp.einsum("id,jd->ij", queries, keys, precision=jax.lax.Precision.HIGHEST)
    rows = -(targets * (jax.nn.log_softmax(logits, axis=1) - jnp.log(jnp.maximum(targets, 1e-30)))).sum(axis=1)
    accuracy = (jnp.argmax(logits, axis=1) == jnp.argmax(targets, axis=1)).mean()
    return rows, accuracy


def overlaps(masks: Shaped[Array, "b h w"], others: Shaped[Array, "n h w"]) -> Float[Array, "b n"]:
    """IoU of each silhouette (in {0,1}) with each of the others."""
    one, other = (x.reshape(x.shape[0], -1).astype(jnp.float32) for x in (masks, others))
    both = one @ other.T
    return both / jnp.maximum(one.sum(axis=1)[:, None] + other.sum(axis=1)[None] - both, 1.0)


def shape_targets(masks: Float[Array, "b h w"], temperature: float) -> Float[Array, "b b"]:
    """softmax(IoU / temperature) of all pairs of silhouettes in {0,1}: how much each key is a positive of each row."""
    return jax.nn.softmax(overlaps(masks, masks) / temperature, axis=1)
