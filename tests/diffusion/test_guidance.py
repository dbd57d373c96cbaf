"""Guidance: one batched network call a step that equals two, and nothing extra at scale 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ragdiff_jax.diffusion import NoiseSchedule, ddim, guided, sample
from ragdiff_jax.errors import UserError

RNG = np.random.default_rng(2)
LATENTS = jnp.asarray(RNG.normal(size=(3, 4, 4, 2)).astype(np.float32))
T = jnp.asarray([500, 500, 500], jnp.int32)


def conditions(seed):
    rng = np.random.default_rng(seed)
    return {
        "text": jnp.asarray(rng.normal(size=(3, 2)).astype(np.float32)),
        "gate": jnp.asarray(rng.integers(0, 2, size=3)),
        "none": None,
    }


def denoise(conditions, latents, t):
    shift = conditions["text"] * conditions["gate"][:, None]
    return jnp.tanh(latents + shift[:, None, None, :] + t[:, None, None, None] / 1000)


COND, UNCOND = conditions(0), conditions(1)


@pytest.mark.parametrize("scale", [0.0, 2.0, np.array([0.5, 1.0, 7.5], np.float32)])
def test_one_batched_call_equals_two_calls(scale):
    plain, conditional = denoise(UNCOND, LATENTS, T), denoise(COND, LATENTS, T)
    factor = np.reshape(scale, (-1, 1, 1, 1))
    result = guided(denoise, COND, UNCOND, scale if isinstance(scale, float) else jnp.asarray(scale))(
        LATENTS, T
    )
    np.testing.assert_allclose(result, plain + factor * (conditional - plain), rtol=1e-6, atol=1e-6)


def calls(function):
    batches = []

    def counting(conditions, latents, t):
        batches.append(latents.shape[0])
        return denoise(conditions, latents, t)

    function(counting)
    return batches


def test_scale_one_is_the_conditional_half_alone():
    result = guided(denoise, COND, UNCOND, 1.0)(LATENTS, T)
    np.testing.assert_array_equal(result, denoise(COND, LATENTS, T))
    assert calls(lambda count: guided(count, COND, UNCOND, 1.0)(LATENTS, T)) == [3]
    assert calls(lambda count: guided(count, COND, UNCOND, 2.0)(LATENTS, T)) == [6]


def test_outside_the_interval_guidance_is_off():
    function = guided(denoise, COND, UNCOND, 3.0, interval=(400, 600))
    full = guided(denoise, COND, UNCOND, 3.0)
    np.testing.assert_allclose(function(LATENTS, T), full(LATENTS, T), rtol=1e-5, atol=1e-6)
    for t in (399, 601):
        off = jnp.full_like(T, t)
        np.testing.assert_allclose(function(LATENTS, off), denoise(COND, LATENTS, off), rtol=1e-5, atol=1e-6)
    mixed = jnp.asarray([500, 601, 400])
    expected = np.stack([full(LATENTS, mixed)[0], denoise(COND, LATENTS, mixed)[1], full(LATENTS, mixed)[2]])
    np.testing.assert_allclose(function(LATENTS, mixed), expected, rtol=1e-5, atol=1e-6)


def test_conditions_may_carry_a_leading_layer_axis():
    """Cached keys of a scanned stack are [layers, batch, ...]."""

    def stacked(conditions, latents, t):
        return latents * conditions["kv"].sum(axis=0)[:, None, None, None] + 0 * t[:, None, None, None]

    a, b = ({"kv": jnp.asarray(np.random.default_rng(i).normal(size=(5, 3)))} for i in (0, 1))
    result = guided(stacked, a, b, 2.0, batch_axes={"kv": 1})(LATENTS, T)
    expected = 2 * stacked(a, LATENTS, T) - stacked(b, LATENTS, T)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_guidance_inside_a_jitted_sampler_with_a_traced_scale():
    @jax.jit
    def run(scale):
        return sample(guided(denoise, COND, UNCOND, scale), ddim(NoiseSchedule(), 4), LATENTS)

    expected = sample(guided(denoise, COND, UNCOND, 2.0), ddim(NoiseSchedule(), 4), LATENTS)
    np.testing.assert_allclose(run(jnp.float32(2.0)), expected, rtol=1e-4, atol=1e-5)


def test_halves_stay_on_their_devices():
    """A batch sharded over 8 devices is guided without a collective."""
    assert jax.device_count() >= 8, "tests/conftest.py gives 8 virtual devices"
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    latents = jax.device_put(jnp.ones((8, 4, 4, 2)), sharding)
    t = jax.device_put(jnp.ones(8, jnp.int32), sharding)
    pair = [{"text": jnp.ones((8, 2)), "gate": jnp.ones(8), "none": None} for _ in range(2)]
    pair = jax.device_put(pair, sharding)
    run = jax.jit(lambda a, b, x, t: guided(denoise, a, b, 2.0)(x, t), out_shardings=sharding)
    compiled = run.lower(*pair, latents, t).compile().as_text()
    for name in ("all-gather", "all-to-all", "collective-permute", "all-reduce"):
        assert name not in compiled


def test_a_bad_scale_or_interval_is_named():
    with pytest.raises(UserError, match="-1"):
        guided(denoise, COND, UNCOND, -1.0)
    with pytest.raises(UserError, match="nan"):
        guided(denoise, COND, UNCOND, float("nan"))
    with pytest.raises(UserError, match="600"):
        guided(denoise, COND, UNCOND, 2.0, interval=(600, 400))
