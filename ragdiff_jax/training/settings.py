"""How long and how a run trains; the same fields for every objective."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from ragdiff_jax.errors import UserError

# What a resumed run may say differently: the rest decides what the arrays of the checkpoint are or which rows
# come next.
MAY_CHANGE = frozenset(
    "steps seconds learning_rate warmup schedule weight_decay clip_norm checkpoint_every checkpoint_seconds keep "
    "log_every sample_every validate_every".split()
)


Number = int | float


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of a run.

    Attributes:
        steps: optimizer steps in all.
        seconds: of training after which a call ends as if the steps were done, and exports what there is; 0 is off.
            For a rented machine: with a constant learning rate the average (EMA) is as good at any time. A later call
            goes on.
        batch_size: rows of one optimizer step, over all devices and processes.
        accumulate: micro-batches that one step is cut into; each has batch_size / accumulate rows.
        seed: of the initial parameters, the data order and the noise.
        learning_rate: peak value.
        warmup: steps of linear rise from 0.
        schedule: `constant`, or `cosine` down to 0 at the last step.
        optimizer: `adamw`, or `none` for the stages that sum over the data and take no gradient.
        beta1, beta2, epsilon: of AdamW.
        weight_decay: of kernels and tables; norms and biases don't decay.
        clip_norm: global gradient norm to clip at; 0 is off.
        ema_decay: of the fp32 average of the trained parameters; 0 is off. It rises as min(decay,
            (1+t)/(10+t)).
        frozen_dtype: `float32` or `bfloat16`, in which frozen parameters are kept.
        checkpoint_every: steps between checkpoints; 0 is off.
        checkpoint_seconds: seconds between checkpoints; 0 is off.
        keep: newest checkpoints kept.
        log_every, sample_every, validate_every: steps between; 0 is off.
    """

    steps: int
    batch_size: int
    seconds: Number = 0
    accumulate: int = 1
    seed: int = 0
    learning_rate: Number = 1e-4
    warmup: int = 0
    schedule: str = "constant"
    optimizer: str = "adamw"
    beta1: Number = 0.9
    beta2: Number = 0.999
    epsilon: Number = 1e-8
    weight_decay: Number = 0.01
    clip_norm: Number = 1.0
    ema_decay: Number = 0.0
    frozen_dtype: str = "float32"
    checkpoint_every: int = 0
    checkpoint_seconds: Number = 300.0
    keep: int = 2
    log_every: int = 20
    sample_every: int = 0
    validate_every: int = 0

    def __post_init__(self):
        for name, least in (("steps", 1), ("batch_size", 1), ("accumulate", 1), ("keep", 1), ("warmup", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)}: must be at least {least}")
        if self.batch_size % self.accumulate:
            raise UserError(f"batch_size={self.batch_size} does not divide by accumulate={self.accumulate}")
        for name, choices in (
            ("schedule", ("constant", "cosine")),
            ("optimizer", ("adamw", "none")),
            ("frozen_dtype", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in choices:
                raise UserError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(choices)}")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay={self.ema_decay}: must be at least 0 and below 1")

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON has them."""
        return dataclasses.asdict(self)
