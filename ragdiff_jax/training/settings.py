"""How long and how a run trains; the same fields for every objective."""

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Any

from ragdiff_jax.errors import UserError

# What a resumed run may say differently: the rest decides what the arrays of the checkpoint are or which rows
# come next.
MAY_CHANGE = frozenset(
    (
        "steps seconds learning_rate warmup schedule weight_decay weight_decay_end clip_norm checkpoint_every "
        "checkpoint_seconds keep log_every sample_every validate_every evaluate_every evaluators learning_rates "
        "replicated_limit wandb"
    ).split()
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
        learning_rates: pairs (regular expression, factor): the rate of a parameter whose path the expression finds is
            multiplied by the factor; the first that finds it counts.
        schedule: `constant`, or `linear` or `cosine` down to 0 at the last step.
        optimizer: `adamw`; `muon`, which orthogonalises the kernels' momentum (arXiv 2502.16982) and leaves the rest
            to Adam; `adafactor`, whose second moments are a row and a column of each kernel; or `none` for the stages
            that sum over the data and take no gradient.
        beta1, beta2, epsilon: of AdamW, and of Adam beside Muon.
        weight_decay: of kernels and tables; norms and biases don't decay.
        weight_decay_end: where it ends after a cosine over all steps; 0: it stays.
        clip_norm: global gradient norm to clip at; 0 is off.
        ema_decay: of the fp32 average of the trained parameters; 0 is off. It rises as min(decay,
            (1+t)/(10+t)) with `ema_warmup`, so that early parameters are soon forgotten.
        ema_end: where the decay ends after a cosine over all steps (DINO's teacher: 1); 0: it stays.
        ema_every: steps between two updates of the average, the decay taken to that power.
        ema_dtype: `float32`, or `bfloat16`, which is rounded by chance: to nearest, an average never moves.
        ema_spread: lay the average over `data` as well as where the parameters lie; a step gathers nothing of it.
        frozen_dtype: `float32` or `bfloat16`, in which frozen parameters are kept.
        checkpoint_every: steps between checkpoints; 0 is off.
        checkpoint_seconds: seconds between checkpoints; 0 is off.
        keep: newest checkpoints kept.
        log_every, sample_every, validate_every, evaluate_every: steps between; 0 is off.
        evaluators: names of the objective's evaluators that run.
        replicated_limit: share of the bytes of parameters, optimizer and average that may lie whole on every device
            where `fsdp` or `tensor` splits them; above it, and above 64 MiB, the run is refused.
        wandb: project of Weights & Biases that the numbers go to as well; empty is none.
    """

    steps: int
    batch_size: int
    seconds: Number = 0.0
    accumulate: int = 1
    seed: int = 0
    learning_rate: Number = 1e-4
    warmup: int = 0
    learning_rates: tuple[tuple[str, Number], ...] = ()
    schedule: str = "constant"
    optimizer: str = "adamw"
    beta1: Number = 0.9
    beta2: Number = 0.999
    epsilon: Number = 1e-8
    weight_decay: Number = 0.01
    weight_decay_end: Number = 0.0
    clip_norm: Number = 1.0
    ema_decay: Number = 0.0
    ema_end: Number = 0.0
    ema_warmup: bool = True
    ema_every: int = 1
    ema_dtype: str = "float32"
    ema_spread: bool = False
    frozen_dtype: str = "float32"
    checkpoint_every: int = 0
    checkpoint_seconds: Number = 300.0
    keep: int = 2
    log_every: int = 20
    sample_every: int = 0
    validate_every: int = 0
    evaluate_every: int = 0
    evaluators: tuple[str, ...] = ()
    replicated_limit: Number = 0.02
    wandb: str = ""

    def __post_init__(self):
        for name in ("steps", "batch_size", "accumulate", "keep", "ema_every", "warmup"):
            least = 0 if name == "warmup" else 1
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)}: must be at least {least}")
        if self.batch_size % self.accumulate:
            raise UserError(f"batch_size={self.batch_size} does not divide by accumulate={self.accumulate}")
        for name, choices in (
            ("schedule", ("constant", "linear", "cosine")),
            ("optimizer", ("adamw", "muon", "adafactor", "none")),
            ("ema_dtype", ("float32", "bfloat16")),
            ("frozen_dtype", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in choices:
                raise UserError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(choices)}")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay={self.ema_decay}: must be at least 0 and below 1")
        if self.ema_end and not self.ema_decay <= self.ema_end <= 1:
            raise UserError(f"ema_end={self.ema_end}: must be 0 (off), or from ema_decay={self.ema_decay} to 1")

        for pattern, factor in self.learning_rates:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(f"learning_rates: {pattern!r} is not a regular expression: {error}") from error
            if factor < 0:
                raise UserError(f"learning_rates: factor {factor} of {pattern!r} must be at least 0")

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON has them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))
