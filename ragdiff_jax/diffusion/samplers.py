"""The samplers by the names that models and commands know them by."""

from functools import partial
from typing import Literal

from ragdiff_jax.diffusion.ddim import ddim
from ragdiff_jax.diffusion.dpm_solver import dpm_solver_pp_2m
from ragdiff_jax.diffusion.sampler import Sampler
from ragdiff_jax.diffusion.schedule import NoiseSchedule
from ragdiff_jax.errors import check_choice

SamplerName = Literal["ddim", "ddpm", "dpm"]
# `ddpm` adds fresh noise in each step (DDIM's eta = 1), which keeps a network that was trained briefly from drawing the
# noise that it began with.
SAMPLERS = {"ddim": ddim, "ddpm": partial(ddim, eta=1.0), "dpm": dpm_solver_pp_2m}


def named_sampler(name: str, schedule: NoiseSchedule, steps: int) -> Sampler:
    """The sampler of that name. Raises `UserError` for an unknown name and for steps that it can't take."""
    check_choice("sampler", name, SamplerName)
    return SAMPLERS[name](schedule, steps)
