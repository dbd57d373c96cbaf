"""Schedules, the forward process, its inverses and the losses, beside diffusers."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.training_utils import compute_snr

from ragdiff_jax.diffusion import (
    NoiseSchedule,
    add_noise,
    min_snr_weights,
    mse_loss,
    snr,
    target,
    to_epsilon,
    to_x0,
    velocity,
)
from ragdiff_jax.errors import UserError

RNG = np.random.default_rng(1)
X0, NOISE = RNG.normal(size=(2, 5, 4, 4, 3)).astype(np.float32)
T = np.array([0, 1, 250, 998, 999], np.int32)
SDXL = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}
SD2_INPAINTING = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.8.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "zero_snr"])
def test_process_is_that_of_diffusers(schedule, prediction):
    zero = prediction == "zero_snr"
    ours = NoiseSchedule(
        beta_schedule=schedule,
        prediction_type="v_prediction" if zero else prediction,
        rescale_betas_zero_snr=zero,
    )
    theirs = DDIMScheduler.from_config(ours.to_dict())
    # Near a zero terminal SNR float32 has no digits left in diffusers' cumulative product; ours is float64.
    np.testing.assert_allclose(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-5, atol=1e-8)
    x0, noise, t = torch.tensor(X0), torch.tensor(NOISE), torch.tensor(T).long()
    arrays = (ours, jnp.asarray(X0), jnp.asarray(NOISE), jnp.asarray(T))
    tolerance = {"rtol": 1e-5, "atol": 1e-4 if zero else 1e-5}
    np.testing.assert_allclose(add_noise(*arrays), theirs.add_noise(x0, noise, t), **tolerance)
    np.testing.assert_allclose(velocity(*arrays), theirs.get_velocity(x0, noise, t), **tolerance)
    np.testing.assert_allclose(snr(ours, jnp.asarray(T)), compute_snr(theirs, t), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("prediction", "zero"), [("epsilon", False), ("v_prediction", False), ("v_prediction", True)]
)
def test_the_target_gives_back_what_was_mixed(prediction, zero):
    """At zero terminal SNR nothing is left of x_0 in x_T, and still v gives it back."""
    schedule = NoiseSchedule(prediction_type=prediction, rescale_betas_zero_snr=zero)
    x0, noise, t = jnp.asarray(X0), jnp.asarray(NOISE), jnp.asarray(T)
    x_t, output = add_noise(schedule, x0, noise, t), target(schedule, x0, noise, t)
    np.testing.assert_allclose(to_x0(schedule, output, x_t, t), x0, atol=1e-5)
    np.testing.assert_allclose(to_epsilon(schedule, output, x_t, t), noise, atol=1e-5)
    if zero:
        np.testing.assert_array_equal(x_t[-1], noise[-1])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_the_papers(prediction):
    schedule = NoiseSchedule(prediction_type=prediction)
    ratio = compute_snr(DDIMScheduler.from_config(schedule.to_dict()), torch.tensor(T).long()).numpy()
    expected = np.minimum(ratio, 5) / (ratio if prediction == "epsilon" else ratio + 1)
    np.testing.assert_allclose(min_snr_weights(schedule, jnp.asarray(T), 5.0), expected, rtol=1e-4)
    with pytest.raises(UserError, match="0"):
        min_snr_weights(schedule, jnp.asarray(T), 0)


def test_min_snr_weight_is_finite_at_zero_snr():
    schedule = NoiseSchedule(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    assert float(min_snr_weights(schedule, jnp.asarray([999]), 5.0)[0]) == 0.0


def test_mse_loss_is_per_sample_and_float32():
    loss = mse_loss(jnp.asarray(X0, jnp.bfloat16), jnp.asarray(NOISE))
    assert loss.shape == (5,) and loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, np.mean((X0 - NOISE) ** 2, axis=(1, 2, 3)), rtol=1e-2)


@pytest.mark.parametrize("config", [SDXL, SD2_INPAINTING])
def test_shipped_configs_are_read(config):
    schedule = NoiseSchedule.from_dict(config)
    assert schedule == NoiseSchedule()
    assert NoiseSchedule.from_dict(schedule.to_dict()) == schedule


def test_absent_keys_take_the_defaults_of_the_config_class():
    assert (
        NoiseSchedule.from_dict({"_class_name": "DPMSolverMultistepScheduler"}).timestep_spacing == "linspace"
    )
    schedule = NoiseSchedule.from_dict({"_class_name": "DDIMScheduler", "clip_sample": False})
    np.testing.assert_allclose(schedule.alphas_cumprod, DDIMScheduler().alphas_cumprod, rtol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"thresholding": True},
        {"clip_sample": True},
        {"trained_betas": [0.1, 0.2]},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"prediction_type": "sample"},
        {"timestep_spacing": "karras"},
        {"use_karras_sigmas": True},
        {"_class_name": "FlowMatchEulerDiscreteScheduler"},
        {"shift": 3.0},
        {"beta_start": 0.5},
        {"beta_end": "0.012"},
        {"num_train_timesteps": 1},
        {"num_train_timesteps": 12.5},
        {"steps_offset": 1000},
        {"set_alpha_to_one": "yes"},
        {"rescale_betas_zero_snr": True},
    ],
)
def test_unsupported_values_are_named(change):
    (name,) = change
    with pytest.raises(UserError, match=name):
        NoiseSchedule.from_dict({**SDXL, **change})
