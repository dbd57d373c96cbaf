"""The samplers by the names that models and commands know them by: (schedule, steps) -> `Sampler`."""

from functools import partial
from typing import Literal

from ragdiff_jax.diffusion.ddim import ddim
from ragdiff_jax.diffusion.dpm_solver import dpm_solver_pp_2m

SamplerName = Literal["ddim", "ddpm", "dpm"]
# `ddpm` adds fresh noise in each step (DDIM's eta = 1), which keeps a network that was trained briefly from drawing the
# noise that it began with.
SAMPLERS = {"ddim": ddim, "ddpm": partial(ddim, eta=1.0), "dpm": dpm_solver_pp_2m}
