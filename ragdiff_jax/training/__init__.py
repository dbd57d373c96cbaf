"""One loop; an objective says what trains, `objectives/` has one file a stage."""

from ragdiff_jax.training.loop import TrainResult, train
from ragdiff_jax.training.objective import Objective
from ragdiff_jax.training.settings import TrainSettings

__all__ = ["Objective", "TrainResult", "TrainSettings", "train"]
