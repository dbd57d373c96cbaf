"""The noise schedule: variance preserving, read from a diffusers `scheduler_config.json`.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise, t in 0 .. num_train_timesteps - 1.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from ragdiff_jax.errors import UserError

BetaSchedule = Literal["linear", "scaled_linear"]
PredictionType = Literal["epsilon", "v_prediction"]
TimestepSpacing = Literal["leading", "trailing", "linspace"]

# What diffusers takes for a key that a shipped config leaves out depends on the scheduler class.
_CLASS_SPACING: dict[str, TimestepSpacing] = {
    "DDIMScheduler": "leading",
    "DDPMScheduler": "leading",
    "PNDMScheduler": "leading",
    "EulerDiscreteScheduler": "linspace",
    "EulerAncestralDiscreteScheduler": "linspace",
    "LMSDiscreteScheduler": "linspace",
    "DPMSolverMultistepScheduler": "linspace",
    "UniPCMultistepScheduler": "linspace",
}
# Keys that would change the result: only the value that we compute is accepted.
_REQUIRED: dict[str, tuple[Any, ...]] = {
    "trained_betas": (None,),
    "clip_sample": (False,),
    "thresholding": (False,),
    "use_karras_sigmas": (False, None),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
    "use_flow_sigmas": (False, None),
    "use_dynamic_shifting": (False,),
    "interpolation_type": ("linear",),
    "timestep_type": ("discrete",),
    "sigma_min": (None,),
    "sigma_max": (None,),
    "lambda_min_clipped": (-np.inf, None),
    "final_sigmas_type": ("zero",),
}
# Keys of one solver's own or of switches that are off: they say nothing about the schedule.
_IGNORED = frozenset({
    "_class_name", "_diffusers_version", "skip_prk_steps", "clip_sample_range", "sample_max_value",
    "dynamic_thresholding_ratio", "variance_type", "solver_order", "solver_type", "algorithm_type",
    "lower_order_final", "euler_at_final", "flow_shift", "time_shift_type", "predict_x0", "solver_p",
    "disable_corrector",
})  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """A variance-preserving noise schedule; the defaults are SDXL's.

    Fields are named as in diffusers' `scheduler_config.json`. `set_alpha_to_one` sets what DDIM takes for
    abar after its last step: 1, or abar_0. `rescale_betas_zero_snr` makes abar of the last timestep 0 (arXiv
    2305.08891, algorithm 1); it needs `v_prediction`, as noise says nothing about x_0 there.

    Raises `UserError` for a value that is not supported, naming it.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: BetaSchedule = "scaled_linear"
    prediction_type: PredictionType = "epsilon"
    timestep_spacing: TimestepSpacing = "leading"
    steps_offset: int = 1
    set_alpha_to_one: bool = False
    rescale_betas_zero_snr: bool = False

    def __post_init__(self) -> None:
        _check(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "NoiseSchedule":
        """Reads a diffusers `scheduler_config.json` (already parsed).

        A missing key takes diffusers' default for the config's `_class_name`, but a missing `clip_sample` is
        false: clipping has no meaning for latents. Raises `UserError` naming each key or value that is not
        supported.
        """
        class_name = config.get("_class_name", "DDIMScheduler")
        if class_name not in _CLASS_SPACING:
            raise UserError(
                f"scheduler config: _class_name {class_name!r} is not supported; "
                f"use one of: {', '.join(_CLASS_SPACING)}"
            )
        names = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(config) - names - set(_REQUIRED) - _IGNORED)
        if unknown:
            raise UserError(f"scheduler config: unknown key {', '.join(map(repr, unknown))}; remove it")
        for name, allowed in _REQUIRED.items():
            if name in config and not any(
                config[name] is value or config[name] == value for value in allowed
            ):
                raise UserError(
                    f"scheduler config: {name} {config[name]!r} is not supported; set it to {allowed[0]!r}"
                )
        values: dict[str, Any] = {
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "beta_schedule": "linear",
            "timestep_spacing": _CLASS_SPACING[class_name],
            "steps_offset": 0,
            "set_alpha_to_one": class_name != "PNDMScheduler",
        }
        values.update({name: config[name] for name in names & set(config)})
        values = {field.name: values.get(field.name, field.default) for field in dataclasses.fields(cls)}
        _check(values)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The config as diffusers' `DDIMScheduler` reads it."""
        return {
            "_class_name": "DDIMScheduler",
            **dataclasses.asdict(self),
            "clip_sample": False,
            "thresholding": False,
            "trained_betas": None,
        }

    @property
    def alphas_cumprod(self) -> np.ndarray:
        """abar_t, float64 [num_train_timesteps], read-only."""
        return _alphas_cumprod(self)


def _check(values: Mapping[str, Any]) -> None:
    for name, allowed in (
        ("beta_schedule", BetaSchedule),
        ("prediction_type", PredictionType),
        ("timestep_spacing", TimestepSpacing),
    ):
        value = values[name]
        if value not in get_args(allowed):
            choices = ", ".join(get_args(allowed))
            raise UserError(f"noise schedule: {name} {value!r} is not supported; use one of: {choices}")
    for name in ("num_train_timesteps", "steps_offset"):
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, int):
            raise UserError(f"noise schedule: {name} {value!r} must be a whole number")
    for name in ("beta_start", "beta_end"):
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"noise schedule: {name} {value!r} must be a number")
    for name in ("set_alpha_to_one", "rescale_betas_zero_snr"):
        if not isinstance(values[name], bool):
            raise UserError(f"noise schedule: {name} {values[name]!r} must be true or false")
    if values["num_train_timesteps"] < 2:
        raise UserError(
            f"noise schedule: num_train_timesteps {values['num_train_timesteps']} must be at least 2"
        )
    if not 0 < values["beta_start"] <= values["beta_end"] < 1:
        raise UserError(
            f"noise schedule: beta_start {values['beta_start']} and beta_end {values['beta_end']} need "
            "0 < beta_start <= beta_end < 1"
        )
    if not 0 <= values["steps_offset"] < values["num_train_timesteps"]:
        last = values["num_train_timesteps"] - 1
        raise UserError(f"noise schedule: steps_offset {values['steps_offset']} must be in 0 .. {last}")
    if values["rescale_betas_zero_snr"] and values["prediction_type"] == "epsilon":
        raise UserError(
            "noise schedule: rescale_betas_zero_snr with prediction_type 'epsilon' has no x_0 at the last"
            " timestep; set prediction_type to 'v_prediction'"
        )


@functools.lru_cache(maxsize=32)
def _alphas_cumprod(schedule: NoiseSchedule) -> np.ndarray:
    power = 0.5 if schedule.beta_schedule == "scaled_linear" else 1.0
    first, last = schedule.beta_start**power, schedule.beta_end**power
    betas = np.linspace(first, last, schedule.num_train_timesteps, dtype=np.float64) ** (1 / power)
    alphas_cumprod = np.cumprod(1 - betas)
    if schedule.rescale_betas_zero_snr:
        root = np.sqrt(alphas_cumprod)
        root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
        alphas_cumprod = root**2
    alphas_cumprod.setflags(write=False)
    return alphas_cumprod
