"""PGEA stage I's mathematics (R 3.3): conv_in and conv_out moved from one autoencoder's latents to another's.

Pure functions of G, the sums over pictures of [3x3 patches of the new latents | of the old latents | 1] (see
`training/least_squares.py`), and of the old convolutions. From one G follow both choices of noise, every U-Net's
conv_in, and the error of any candidate.

What is matched: conv_in's features on the new latents x' = a z' + s n' to the old conv_in's on x = a z + s n of the
same picture, time and noise; a^2 = abar_t, s^2 = 1 - abar_t, t uniform. The two latents have different channels, so
"the same noise" is carried over: n = n' J, with J [new, old] the isometry nearest to a linear map from new latents to
old ones (`nearest_isometry`). If the new latents have at least as many channels, n is white as the old U-Net knows it.
The noise need not be drawn: its mean over n' is exactly a penalty on W - W_old J, as strong as the noise. Without
noise (a = 1, s = 0) conv_in is free to reach for directions in which the new latents hardly vary, and to amplify the
noise there.
"""

import dataclasses
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np

from ragdiff_jax.diffusion.schedule import NoiseSchedule
from ragdiff_jax.training.least_squares import TAPS, as_convolution, as_matrix, ridge_penalty, solve, tap_shares


@dataclasses.dataclass(frozen=True)
class NoiseMoments:
    """Means over the timesteps: of a, of a^2, of s^2."""

    signal: float = 1.0
    power: float = 1.0
    variance: float = 0.0


def noise_moments(schedule: NoiseSchedule) -> NoiseMoments:
    """The moments of the schedule's process at uniform times."""
    abar = schedule.alphas_cumprod
    return NoiseMoments(float(np.sqrt(abar).mean()), float(abar.mean()), float((1 - abar).mean()))


def nearest_isometry(gram: Any, new: int, old: int, xp: ModuleType = np) -> Any:
    """J [new, old]: the polar factor of the linear map that finds old latents in new ones under as much noise.

    (Without that noise the map would favour directions in which the new latents hardly vary.) Identity for latents that
    did not change. Means are taken off.
    """
    z = slice(TAPS // 2 * new, (TAPS // 2 + 1) * new)
    start = TAPS * new + TAPS // 2 * old
    y = slice(start, start + old)
    rows = xp.maximum(gram[-1, -1], 1.0)
    within = gram[z, z] - xp.outer(gram[z, -1], gram[-1, z]) / rows
    across = gram[z, y] - xp.outer(gram[z, -1], gram[-1, y]) / rows
    ridge = xp.trace(within) / new + 1e-6
    u, _, vt = xp.linalg.svd(xp.linalg.solve(within + ridge * xp.eye(new), across), full_matrices=False)
    return u @ vt


def carried_conv_in(old: Mapping[str, Any], isometry: Any, xp: ModuleType = np) -> Any:
    """The old conv_in on z' J, as a matrix [9 new + 1, f]: what noise passes through."""
    matrix = as_matrix(old, xp)
    kernel = matrix[:-1].reshape(TAPS, -1, matrix.shape[-1])
    return xp.concatenate([xp.einsum("no,tof->tnf", isometry, kernel).reshape(-1, matrix.shape[-1]), matrix[-1:]])


def carried_conv_out(old: Mapping[str, Any], isometry: np.ndarray) -> dict[str, np.ndarray]:
    """The old conv_out with its prediction carried over: n' = n J^T, and nothing where no old channel points.

    Needs no data; `objectives/pgea_conv_out.py` fits the rest.
    """
    return as_convolution(as_matrix(old) @ isometry.T)


def _moved(gram, moments: NoiseMoments, xp):
    """G of the noisy latents without the noise's own part."""
    patch = xp.arange(len(gram)) < len(gram) - 1
    weight = xp.where(patch[:, None] & patch[None], moments.power, moments.signal)
    return gram * xp.where(~patch[:, None] & ~patch[None], 1.0, weight)


def _noise_penalty(channels: int, side: int, moments: NoiseMoments) -> np.ndarray:
    """What a row of W pays for the noise that it passes otherwise than the carried conv_in, a pixel: [9 channels]."""
    return moments.variance * np.repeat(tap_shares(side, side), channels)


def fit_conv_in(
    gram: Any, old: Mapping[str, Any], moments: NoiseMoments, *, side: int, ridge: float, xp: ModuleType = np
) -> Any:
    """The new conv_in as a matrix [9 new + 1, f]: the exact minimum of the expected squared error of the features.

    Args:
      gram: G, [9 (new + old) + 1] squared.
      old: the old conv_in, kernel [3, 3, old, f] and bias [f].
      side: of the latents, in numbers.
      ridge: towards the carried conv_in, relative to the mean of X^T X's diagonal.
    """
    channels = old["kernel"].shape[2]
    new = (len(gram) - 1) // TAPS - channels
    inputs = np.r_[: TAPS * new, len(gram) - 1]
    targets = np.r_[TAPS * new : len(gram)]
    moved = _moved(gram, moments, xp)
    start = carried_conv_in(old, nearest_isometry(gram, new, channels, xp), xp)
    normal = moved[np.ix_(inputs, inputs)]
    noise = xp.asarray(np.append(_noise_penalty(new, side, moments), 0.0), gram.dtype)
    penalty = ridge_penalty(normal, ridge, xp) + gram[-1, -1] * noise
    return solve(normal, moved[np.ix_(inputs, targets)] @ as_matrix(old, xp), penalty, start, xp)


def noise_error(matrix: Any, carried: Any, moments: NoiseMoments, *, side: int, xp: ModuleType = np) -> Any:
    """The noise's part of the expected squared error, a number of the features."""
    penalty = _noise_penalty((len(matrix) - 1) // TAPS, side, moments)
    squares = xp.square(matrix[:-1] - carried[:-1])
    return (xp.asarray(penalty, matrix.dtype)[:, None] * squares).sum() / matrix.shape[1]


def conv_in_error(gram: np.ndarray, matrix: np.ndarray, old: Mapping[str, Any], moments: NoiseMoments) -> float:
    """The expected squared error of a conv_in's features without the noise's part, a number of them."""
    target = as_matrix(old)
    error = np.concatenate([matrix[:-1], -target[:-1], (matrix[-1] - target[-1])[None]])
    squares = np.einsum("if,ij,jf->", error, _moved(gram, moments, np), error, optimize=True)
    return float(squares / (gram[-1, -1] * matrix.shape[1]))


def row_errors(x: Any, y: Any, matrix: Any, old: Mapping[str, Any], moments: NoiseMoments) -> Any:
    """`conv_in_error` of each picture, [b], inside jit; x, y: patches of the new and old latents, [b, h, w, 9c]."""
    target = as_matrix(old, jnp)
    features = x @ matrix[:-1] - y @ target[:-1]
    shift = matrix[-1] - target[-1]
    squares = moments.power * features**2 + 2 * moments.signal * features * shift + shift**2
    return squares.mean((1, 2, 3))
