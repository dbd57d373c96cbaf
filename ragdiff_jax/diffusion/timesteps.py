"""Which timesteps a sampler visits: diffusers' three spacings (arXiv 2305.08891, table 2), to the
rounding.
"""

import numpy as np

from ragdiff_jax.diffusion.schedule import NoiseSchedule
from ragdiff_jax.errors import UserError


def spaced_timesteps(schedule: NoiseSchedule, steps: int, *, extra_end: bool = False) -> np.ndarray:
    """Descending timesteps, int64 [steps].

    `extra_end`: the grid has one more point, which is dropped, as diffusers does for DPM-Solver (`leading`,
    `linspace`). Raises `UserError` if `steps` does not fit into the schedule.
    """
    total = schedule.num_train_timesteps
    points = steps + 1 if extra_end and schedule.timestep_spacing != "trailing" else steps
    if steps < 1 or points > total:
        raise UserError(f"steps {steps} must be between 1 and {total - (points - steps)}")
    if schedule.timestep_spacing == "linspace":
        timesteps = np.linspace(0, total - 1, points).round()[::-1][:steps]
    elif schedule.timestep_spacing == "leading":
        timesteps = (np.arange(points) * (total // points))[::-1][:steps] + schedule.steps_offset
    else:
        # The cut drops an extra, negative timestep that arange can give when the stride isn't exact.
        timesteps = np.arange(total, 0, -total / steps)[:steps].round() - 1
    if timesteps[0] >= total:
        raise UserError(
            f"steps {steps} with steps_offset {schedule.steps_offset} goes past timestep {total - 1}; "
            "use fewer steps"
        )
    return timesteps.astype(np.int64)
