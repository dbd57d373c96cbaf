"""Losses of the denoising objective, one number a sample; the caller averages."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ragdiff_jax.diffusion.process import snr
from ragdiff_jax.diffusion.schedule import NoiseSchedule
from ragdiff_jax.errors import UserError


def mse_loss(prediction: Float[Array, "b *rest"], target: Float[Array, "b *rest"]) -> Float[Array, " b"]:
    """Mean squared error over all but the batch axis, in float32."""
    difference = prediction.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(jnp.square(difference), axis=tuple(range(1, difference.ndim)))


def min_snr_weights(schedule: NoiseSchedule, t: Int[Array, " b"], gamma: float | int) -> Float[Array, " b"]:
    """Min-SNR-gamma weights (arXiv 2303.09556) for what the schedule's network predicts; the paper's gamma is
    5.

    min(SNR, gamma) / SNR for noise, / (SNR + 1) for velocity. Raises `UserError` unless gamma > 0.
    """
    if not gamma > 0:
        raise UserError(f"min-SNR gamma {gamma} must be above 0")
    ratio = snr(schedule, t)
    if schedule.prediction_type == "epsilon":
        return jnp.minimum(1.0, gamma / ratio)
    return jnp.minimum(ratio, gamma) / (ratio + 1)
