"""Structural similarity of pictures (SSIM; Wang, Bovik, Sheikh, Simoncelli 2004, doi 10.1109/TIP.2003.819861)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SIDE, SIGMA = 11, 1.5  # the window of the paper's 3.B
K1, K2 = 0.01, 0.03


@jax.jit
def ssim(a: Float[Array, "b H W c"], b: Float[Array, "b H W c"]) -> Float[Array, " b"]:
    """Mean SSIM of each pair of pictures in [0, 1] (data range 1), in [-1, 1]; of several channels the mean of each's.

    Gaussian windows 11x11 with sigma 1.5, population moments, only windows that lie wholly inside: the numbers of the
    authors' program, and of scikit-image with `gaussian_weights=True, use_sample_covariance=False, data_range=1`.
    """
    if min(a.shape[1:3]) < SIDE:
        raise ValueError(f"pictures of {a.shape[1]} x {a.shape[2]} pixels are smaller than the window of {SIDE}")
    luminance, contrast = ssim_parts(a, b)
    return jnp.mean(luminance * contrast, axis=(1, 2, 3))


def ssim_parts(
    a: Float[Array, "b H W c"], b: Float[Array, "b H W c"]
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
    """(luminance, contrast with structure) of each window that lies wholly inside; SSIM is their product."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    # Moments about one half: the variances are differences of squares, and smaller squares cancel less in float32.
    x, y = a - 0.5, b - 0.5
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    cov = _blur(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + 0.5, mean_y + 0.5
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    return luminance, (2 * cov + K2**2) / (var_x + var_y + K2**2)


def _blur(x: Float[Array, "b H W c"]) -> Float[Array, "b h w c"]:
    """The window's weighted mean, down and then across."""
    places = np.arange(SIDE) - SIDE // 2
    weights = np.exp(-(places**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    for axis in (1, 2):
        valid = x.shape[axis] - SIDE + 1
        x = sum(float(weight) * jax.lax.slice_in_dim(x, at, at + valid, axis=axis) for at, weight in enumerate(weights))
    return x
