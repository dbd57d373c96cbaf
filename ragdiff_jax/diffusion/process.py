"""The forward process and the conversions between what a network may predict.

Pure functions; `t` holds one timestep a sample, latents are [b, ...] (any number of further axes).
Safe at zero terminal SNR (abar = 0) for v prediction: nothing divides by sqrt(abar) there.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ragdiff_jax.diffusion.schedule import NoiseSchedule


def _gather(table: np.ndarray, t: Int[Array, " b"], ndim: int) -> Float[Array, "b ..."]:
    # The table is float64 on the host, so that its square roots are exact to the last float32 bit.
    values = jnp.asarray(table.astype(np.float32))[t]
    return values.reshape(values.shape + (1,) * (ndim - 1))


def _signal_and_noise(schedule: NoiseSchedule, t: Int[Array, " b"], ndim: int) -> tuple[Array, Array]:
    abar = schedule.alphas_cumprod
    return _gather(np.sqrt(abar), t, ndim), _gather(np.sqrt(1 - abar), t, ndim)


def add_noise(
    schedule: NoiseSchedule, x0: Float[Array, "b *rest"], noise: Float[Array, "b *rest"], t: Int[Array, " b"]
) -> Float[Array, "b *rest"]:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise."""
    signal, sigma = _signal_and_noise(schedule, t, x0.ndim)
    return signal * x0 + sigma * noise


def velocity(
    schedule: NoiseSchedule, x0: Float[Array, "b *rest"], noise: Float[Array, "b *rest"], t: Int[Array, " b"]
) -> Float[Array, "b *rest"]:
    """v = sqrt(abar_t) noise - sqrt(1 - abar_t) x_0 (arXiv 2202.00512)."""
    signal, sigma = _signal_and_noise(schedule, t, x0.ndim)
    return signal * noise - sigma * x0


def target(
    schedule: NoiseSchedule, x0: Float[Array, "b *rest"], noise: Float[Array, "b *rest"], t: Int[Array, " b"]
) -> Float[Array, "b *rest"]:
    """What the network is trained to predict: the noise, or the velocity."""
    return noise if schedule.prediction_type == "epsilon" else velocity(schedule, x0, noise, t)


def to_x0(
    schedule: NoiseSchedule,
    output: Float[Array, "b *rest"],
    x_t: Float[Array, "b *rest"],
    t: Int[Array, " b"],
) -> Float[Array, "b *rest"]:
    """x_0 from the network's output at x_t."""
    signal, sigma = _signal_and_noise(schedule, t, x_t.ndim)
    if schedule.prediction_type == "epsilon":
        return (x_t - sigma * output) / signal
    return signal * x_t - sigma * output


def to_epsilon(
    schedule: NoiseSchedule,
    output: Float[Array, "b *rest"],
    x_t: Float[Array, "b *rest"],
    t: Int[Array, " b"],
) -> Float[Array, "b *rest"]:
    """The noise from the network's output at x_t."""
    if schedule.prediction_type == "epsilon":
        return output
    signal, sigma = _signal_and_noise(schedule, t, x_t.ndim)
    return signal * output + sigma * x_t


def snr(schedule: NoiseSchedule, t: Int[Array, " b"]) -> Float[Array, " b"]:
    """Signal-to-noise ratio abar_t / (1 - abar_t); 0 at a zero-SNR last timestep."""
    abar = schedule.alphas_cumprod
    return _gather(abar / (1 - abar), t, 1)
