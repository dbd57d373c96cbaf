"""Noise schedules, samplers, guidance and losses: pure functions of arrays."""

from ragdiff_jax.diffusion.ddim import ddim
from ragdiff_jax.diffusion.dpm_solver import dpm_solver_pp_2m
from ragdiff_jax.diffusion.guidance import check_scale, guided
from ragdiff_jax.diffusion.loss import min_snr_weights, mse_loss
from ragdiff_jax.diffusion.process import add_noise, snr, target, to_epsilon, to_x0, velocity
from ragdiff_jax.diffusion.sampler import Sampler, Trajectory, make_sampler, sample, sample_trajectory
from ragdiff_jax.diffusion.samplers import SamplerName, named_sampler
from ragdiff_jax.diffusion.schedule import NoiseSchedule

__all__ = [
    "NoiseSchedule",
    "Sampler",
    "SamplerName",
    "Trajectory",
    "add_noise",
    "check_scale",
    "ddim",
    "dpm_solver_pp_2m",
    "guided",
    "make_sampler",
    "min_snr_weights",
    "mse_loss",
    "named_sampler",
    "sample",
    "sample_trajectory",
    "snr",
    "target",
    "to_epsilon",
    "to_x0",
    "velocity",
]
