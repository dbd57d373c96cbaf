"""Between the bytes of a picture and what the networks see; pure jnp, in jit or out of it."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8


def to_float(images: UInt8[Array, "*b h w 3"] | UInt8[np.ndarray, "*b h w 3"]) -> Float[Array, "*b h w 3"]:
    """uint8 pictures as the networks see them, in [-1, 1]."""
    return jnp.asarray(images, jnp.float32) / 127.5 - 1.0


def to_uint8(images: Float[Array, "*b h w 3"]) -> UInt8[Array, "*b h w 3"]:
    """Pictures in [-1, 1], clipped, as bytes."""
    return jnp.round((jnp.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)
