"""DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2), as diffusers' `DPMSolverMultistepScheduler` by default.

Second order, multistep, midpoint, data prediction; the first and the last step are of first order, and the
last ends at noise 0 (`final_sigmas_type` zero), where it returns the predicted x_0.
"""

import numpy as np

from ragdiff_jax.diffusion.sampler import Sampler, make_sampler
from ragdiff_jax.diffusion.schedule import NoiseSchedule
from ragdiff_jax.diffusion.timesteps import spaced_timesteps


def dpm_solver_pp_2m(schedule: NoiseSchedule, steps: int) -> Sampler:
    """A DPM-Solver++(2M) sampler. Raises `UserError` if `steps` does not fit into the schedule."""
    timesteps = spaced_timesteps(schedule, steps, extra_end=True)
    abar = schedule.alphas_cumprod.copy()
    if schedule.rescale_betas_zero_snr:
        abar[-1] = 2.0**-24  # diffusers' value: log SNR has to stay finite
    abar_t = np.append(abar[timesteps], 1.0)
    signal, sigma = np.sqrt(abar_t), np.sqrt(1 - abar_t)
    lambdas = np.log(signal[:-1]) - np.log(sigma[:-1])
    # h of the last step is infinite: exp(-h) is 0.
    exp_minus_h = np.append(np.exp(-np.diff(lambdas)), 0.0)
    weight = signal[1:] * (1 - exp_minus_h)
    # 1 / (2 r), r = h_last / h: the share of the difference of the two last predictions.
    share = np.zeros(steps)
    if steps > 2:
        h = np.diff(lambdas)
        share[1:-1] = 0.5 * h[1:] / h[:-1]
    if schedule.prediction_type == "epsilon":
        columns = {"x0_x": 1 / signal[:-1], "x0_m": -sigma[:-1] / signal[:-1]}
    else:
        columns = {"x0_x": signal[:-1], "x0_m": -sigma[:-1]}
    return make_sampler(
        timesteps,
        next_x=sigma[1:] / sigma[:-1],
        next_x0=weight * (1 + share),
        next_x0_last=-weight * share,
        **columns,
    )
