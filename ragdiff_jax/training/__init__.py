"""One loop; an objective says what trains, `objectives/` has one file a stage."""

from ragdiff_jax.training.loop import TrainResult, initial_state, make_plan, train
from ragdiff_jax.training.objective import Objective, Summing, blank
from ragdiff_jax.training.settings import TrainSettings
from ragdiff_jax.training.state import TrainState
from ragdiff_jax.training.step import jit_step, make_step

__all__ = [
    "Objective",
    "Summing",
    "TrainResult",
    "TrainSettings",
    "TrainState",
    "blank",
    "initial_state",
    "jit_step",
    "make_plan",
    "make_step",
    "train",
]
