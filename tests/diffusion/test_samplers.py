"""Our samplers walk diffusers' trajectories, in one scan, at their order of convergence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from ragdiff_jax.diffusion import NoiseSchedule, ddim, dpm_solver_pp_2m, named_sampler, sample, sample_trajectory
from ragdiff_jax.errors import UserError

RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=(2, 4, 4, 16)).astype(np.float32)
MIX = (0.3 * RNG.normal(size=(16, 16))).astype(np.float32)
MAKE = {"ddim": ddim, "dpm": dpm_solver_pp_2m}


def our_network(latents, t):
    return jnp.tanh(latents @ MIX + t[:, None, None, None] / 1000)


our_trajectory = jax.jit(functools.partial(sample_trajectory, our_network))


def their_trajectory(scheduler, steps):
    scheduler.set_timesteps(steps)
    latents, trajectory = torch.tensor(NOISE), []
    for t in scheduler.timesteps:
        output = torch.tanh(latents @ torch.tensor(MIX) + float(t) / 1000)
        latents = scheduler.step(output, t, latents, return_dict=False)[0]
        trajectory.append(latents.numpy())
    return scheduler.timesteps.numpy(), np.stack(trajectory)


def relative_error(ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("steps", [1, 4, 7, 20, 30])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "zero_snr"])
@pytest.mark.parametrize("kind", ["ddim", "dpm"])
def test_trajectory_is_that_of_diffusers(kind, prediction, spacing, steps):
    config = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction" if prediction == "zero_snr" else prediction,
        "timestep_spacing": spacing,
        "rescale_betas_zero_snr": prediction == "zero_snr",
        "steps_offset": 1,
    }
    if kind == "ddim":
        scheduler = DDIMScheduler(**config, set_alpha_to_one=False, clip_sample=False)
    else:
        scheduler = DPMSolverMultistepScheduler(**config)
    timesteps, theirs = their_trajectory(scheduler, steps)
    sampler = MAKE[kind](NoiseSchedule(**config), steps)
    np.testing.assert_array_equal(sampler.timesteps, timesteps)
    assert relative_error(our_trajectory(sampler, jnp.asarray(NOISE)).latents, theirs) <= 1e-5


def test_sample_is_the_end_of_the_trajectory():
    sampler = dpm_solver_pp_2m(NoiseSchedule(), 6)
    trajectory = sample_trajectory(our_network, sampler, jnp.asarray(NOISE))
    np.testing.assert_array_equal(sample(our_network, sampler, jnp.asarray(NOISE)), trajectory.latents[-1])


def test_set_alpha_to_one_ends_ddim_without_noise():
    config = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "set_alpha_to_one": True}
    scheduler = DDIMScheduler(**config, clip_sample=False)
    _, theirs = their_trajectory(scheduler, 10)
    trajectory = sample_trajectory(
        our_network, ddim(NoiseSchedule(**config, steps_offset=0), 10), jnp.asarray(NOISE)
    )
    assert relative_error(trajectory.latents, theirs) <= 1e-5
    np.testing.assert_allclose(trajectory.latents[-1], trajectory.x0[-1], rtol=1e-6)


def test_ancestral_noise_is_that_of_diffusers():
    """eta > 0: diffusers' step, given the noise that our key draws."""
    schedule, key = NoiseSchedule(timestep_spacing="trailing"), jax.random.key(3)
    scheduler = DDIMScheduler.from_config(schedule.to_dict())
    scheduler.set_timesteps(8)
    latents, theirs = torch.tensor(NOISE), []
    for i, t in enumerate(scheduler.timesteps):
        fresh = torch.tensor(np.array(jax.random.normal(jax.random.fold_in(key, i), NOISE.shape)))
        output = torch.tanh(latents @ torch.tensor(MIX) + float(t) / 1000)
        latents = scheduler.step(output, t, latents, eta=0.7, variance_noise=fresh, return_dict=False)[0]
        theirs.append(latents.numpy())
    ours = sample_trajectory(our_network, ddim(schedule, 8, eta=0.7), jnp.asarray(NOISE), key=key)
    assert relative_error(ours.latents, theirs) <= 1e-5


def test_noise_without_a_key_is_a_user_error():
    with pytest.raises(UserError, match="key"):
        sample(our_network, ddim(NoiseSchedule(), 4, eta=1.0), jnp.asarray(NOISE))


def count_primitive(jaxpr, name):
    inner = [
        p for e in jaxpr.eqns for p in jax.tree.leaves(e.params) if hasattr(p, "jaxpr") or hasattr(p, "eqns")
    ]
    here = sum(e.primitive.name == name for e in jaxpr.eqns)
    return here + sum(count_primitive(getattr(p, "jaxpr", p), name) for p in inner)


@pytest.mark.parametrize("kind", ["ddim", "dpm"])
def test_sampling_is_one_scan_with_one_network_call(kind):
    jaxpr = jax.make_jaxpr(lambda x: sample(our_network, MAKE[kind](NoiseSchedule(), 30), x))(NOISE).jaxpr
    assert count_primitive(jaxpr, "scan") == 1
    assert count_primitive(jaxpr, "tanh") == 1


def test_a_sampler_is_an_argument_of_a_jitted_function():
    """Another schedule of the same number of steps needs no new compilation."""
    run = jax.jit(lambda sampler, x: sample(our_network, sampler, x))
    for spacing in ("leading", "trailing"):
        sampler = ddim(NoiseSchedule(timestep_spacing=spacing), 5)
        expected = sample(our_network, sampler, jnp.asarray(NOISE))
        np.testing.assert_allclose(run(sampler, jnp.asarray(NOISE)), expected, rtol=1e-5, atol=1e-5)
    assert run._cache_size() == 1


def gaussian_denoiser(schedule, mean=0.7, deviation=0.5):
    """The exact noise prediction for data of one Gaussian."""
    abar = jnp.asarray(schedule.alphas_cumprod, jnp.float32)

    def denoise(x, t):
        a = abar[t][:, None, None, None]
        return jnp.sqrt(1 - a) * (x - jnp.sqrt(a) * mean) / (a * deviation**2 + 1 - a)

    return denoise


def test_orders_of_convergence_on_an_exact_score():
    """Data N(m, s): the flow moves x_t with the marginal, so that the truth is known at every t.

    Errors are read half-way: DPM-Solver++ takes its last step at first order, which would cover its order at
    the end.
    """
    schedule = NoiseSchedule(timestep_spacing="trailing")
    mean, deviation, abar = 0.7, 0.5, schedule.alphas_cumprod

    def spread(t):
        return np.sqrt(abar[t] * deviation**2 + 1 - abar[t])

    standard = (NOISE - np.sqrt(abar[-1]) * mean) / spread(-1)

    def error(make, steps):
        sampler = make(schedule, steps)
        half = steps // 2
        t = sampler.timesteps[half]
        trajectory = sample_trajectory(gaussian_denoiser(schedule), sampler, jnp.asarray(NOISE))
        truth = np.sqrt(abar[t]) * mean + spread(t) * standard
        return float(np.sqrt(np.mean((np.asarray(trajectory.latents[half - 1]) - truth) ** 2)))

    first = [error(ddim, n) for n in (10, 20, 40)]
    second = [error(dpm_solver_pp_2m, n) for n in (10, 20, 40)]
    assert first[1] / first[2] == pytest.approx(2, abs=0.3)
    assert second[1] / second[2] == pytest.approx(4, abs=1)
    assert all(b < 0.5 * a for a, b in zip(first, second, strict=True))


def test_networks_in_bf16_keep_float32_latents():
    def half(x, t):
        return our_network(x, t).astype(jnp.bfloat16)

    assert sample(half, ddim(NoiseSchedule(), 4), jnp.asarray(NOISE, jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("make", "steps"),
    [(ddim, 0), (ddim, 1000), (ddim, 1001), (dpm_solver_pp_2m, 1000), (dpm_solver_pp_2m, -3)],
)
def test_steps_outside_the_schedule_are_named(make, steps):
    with pytest.raises(UserError, match=str(steps)):
        make(NoiseSchedule(), steps)


def test_a_name_that_no_sampler_has_is_told_with_those_there_are():
    with pytest.raises(UserError, match="sampler 'euler': choose ddim, ddpm, dpm"):
        named_sampler("euler", NoiseSchedule(), 4)


def test_eta_outside_zero_to_one_is_named():
    with pytest.raises(UserError, match="1.5"):
        ddim(NoiseSchedule(), 4, eta=1.5)


def test_with_a_key_a_row_its_place_in_the_batch_changes_nothing():
    table = ddim(NoiseSchedule(prediction_type="v_prediction"), 4, eta=1.0)
    noise = jax.random.normal(jax.random.key(0), (3, 5))
    keys = jax.random.split(jax.random.key(1), 3)

    def run(noise, keys):
        return np.asarray(sample(lambda x, t: 0.3 * x, table, noise, key=keys))

    whole = run(noise, keys)
    np.testing.assert_allclose(run(noise[::-1], keys[::-1])[::-1], whole, rtol=1e-6)
    np.testing.assert_allclose(run(noise[1:2], keys[1:2]), whole[1:2], rtol=1e-6)
    assert not np.allclose(run(noise, keys[::-1]), whole)
