"""Vectors of unit length, as every embedding of this library is."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def unit(vectors: Float[Array, "..."], axis: int = -1) -> Float[Array, "..."]:
    """`vectors` in fp32, divided by their length along `axis`; zero stays zero, with a finite gradient."""
    vectors = vectors.astype(jnp.float32)
    return vectors * jax.lax.rsqrt(jnp.sum(jnp.square(vectors), axis=axis, keepdims=True) + 1e-12)
