"""DDIM (arXiv 2010.02502, equations 12 and 16), as diffusers' `DDIMScheduler` steps."""

import numpy as np

from ragdiff_jax.diffusion.sampler import Sampler, make_sampler
from ragdiff_jax.diffusion.schedule import NoiseSchedule
from ragdiff_jax.diffusion.timesteps import spaced_timesteps
from ragdiff_jax.errors import UserError


def ddim(schedule: NoiseSchedule, steps: int, eta: float | int = 0.0) -> Sampler:
    """A DDIM sampler; `eta` 0 is deterministic, 1 adds DDPM's noise.

    Raises `UserError` if `steps` does not fit into the schedule or `eta` is outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise UserError(f"eta {eta} must be between 0 and 1")
    timesteps = spaced_timesteps(schedule, steps)
    # As diffusers: one stride back, which for linspace is not exactly the next timestep visited.
    previous = timesteps - schedule.num_train_timesteps // steps
    abar = schedule.alphas_cumprod
    final = 1.0 if schedule.set_alpha_to_one else abar[0]
    abar_t = abar[timesteps]
    abar_next = np.where(previous >= 0, abar[np.maximum(previous, 0)], final)
    # Between equal noise levels (the last step with abar_0 as its end) the variance is 0 up to rounding.
    variance = np.maximum((1 - abar_next) / (1 - abar_t) * (1 - abar_t / abar_next), 0)
    deviation = eta * np.sqrt(variance)
    direction = np.sqrt(np.maximum(1 - abar_next - deviation**2, 0))
    signal, sigma = np.sqrt(abar_t), np.sqrt(1 - abar_t)
    if schedule.prediction_type == "epsilon":
        columns = {"x0_x": 1 / signal, "x0_m": -sigma / signal, "next_m": direction}
    else:
        columns = {"x0_x": signal, "x0_m": -sigma, "next_x": direction * sigma, "next_m": direction * signal}
    return make_sampler(
        timesteps, stochastic=eta > 0, next_x0=np.sqrt(abar_next), next_noise=deviation, **columns
    )
