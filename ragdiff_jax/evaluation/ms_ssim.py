"""Multi-scale SSIM (Wang, Simoncelli, Bovik 2003, doi 10.1109/ACSSC.2003.1292216)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ragdiff_jax.evaluation.ssim import SIDE, ssim_parts

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # the paper's section 3.2
LEAST_SIDE = SIDE * 2 ** (len(WEIGHTS) - 1)


@jax.jit
def ms_ssim(a: Float[Array, "b H W c"], b: Float[Array, "b H W c"]) -> Float[Array, " b"]:
    """MS-SSIM of each pair of pictures in [0, 1] (data range 1), in [0, 1]; of several channels the mean of each's.

    Five scales, each half the last by 2x2 means; the contrast terms of the first four and SSIM of the last, negative
    ones taken as 0, to the powers of the paper. Raises ValueError below 176 pixels a side.
    """
    if min(a.shape[1:3]) < LEAST_SIDE:
        raise ValueError(f"pictures of {a.shape[1]} x {a.shape[2]} pixels; five scales need {LEAST_SIDE} a side")
    found = 1.0
    for scale, weight in enumerate(WEIGHTS):
        luminance, contrast = ssim_parts(a, b)
        last = scale == len(WEIGHTS) - 1
        value = jnp.mean(luminance * contrast if last else contrast, axis=(1, 2))  # [b, c]
        found = found * jnp.maximum(value, 0.0) ** weight
        if not last:
            a, b = _halved(a), _halved(b)
    return jnp.mean(found, axis=-1)


def _halved(x: Float[Array, "b H W c"]) -> Float[Array, "b h w c"]:
    height, width = (2 * (side // 2) for side in x.shape[1:3])
    x = x[:, :height, :width].astype(jnp.float32)
    return x.reshape(x.shape[0], height // 2, 2, width // 2, 2, x.shape[3]).mean(axis=(2, 4))
