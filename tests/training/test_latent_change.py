"""The mathematics of PGEA's stage I, on latents that are drawn here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit

from ragdiff_jax.diffusion.schedule import NoiseSchedule
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.layers import Conv
from ragdiff_jax.training.least_squares import (
    add_rows,
    as_convolution,
    as_matrix,
    patches,
    solve,
    total,
    zero_sums,
)
from ragdiff_jax.training.objectives.latent_change import (
    NoiseMoments,
    carried_conv_in,
    carried_conv_out,
    conv_in_error,
    fit_conv_in,
    nearest_isometry,
    noise_error,
    noise_moments,
)

SIDE, OLD, NEW, WIDTH = 6, 2, 3, 5
RNG = np.random.default_rng(0)
CONV = {
    "kernel": RNG.normal(size=(3, 3, OLD, WIDTH)).astype(np.float32),
    "bias": RNG.normal(size=WIDTH).astype(np.float32),
}
MATCHED = noise_moments(NoiseSchedule())


def pictures(count=24):
    """(new, old) latents: two new ones see the old ones blurred and loosely, a third one, small, sees one exactly."""
    old = RNG.normal(size=(count, SIDE, SIDE, OLD)).astype(np.float32) + 0.3
    mixed = old @ np.array([[1.0, 0.4], [-0.5, 1.2]], np.float32) + 0.3 * np.roll(old, 1, axis=1)
    mixed += 0.3 * RNG.normal(size=mixed.shape).astype(np.float32)
    exact = 0.05 * old[..., :1] + 0.005 * RNG.normal(size=mixed[..., :1].shape).astype(np.float32)
    return np.concatenate([mixed, exact], axis=-1), old


def columns(new, old):
    new, old = patches(jnp.asarray(new)), patches(jnp.asarray(old))
    return jnp.concatenate([new, old, jnp.ones_like(new[..., :1])], axis=-1)


def gram_of(new, old):
    return total(add_rows(zero_sums(9 * (new.shape[-1] + old.shape[-1]) + 1), columns(new, old)))


def least_squares(x, y):
    x = np.concatenate([x, np.ones_like(x[:, :1])], axis=1).astype(np.float64)
    return np.linalg.lstsq(x, y.astype(np.float64), rcond=None)[0]


def test_patches_times_a_matrix_is_the_convolution():
    _, old = pictures(2)
    expected = Conv(WIDTH).apply({"params": CONV}, old)
    matrix = as_matrix(CONV)
    np.testing.assert_allclose(np.asarray(patches(jnp.asarray(old))) @ matrix[:-1] + matrix[-1], expected, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, as_convolution(matrix), CONV)


def test_sums_of_many_batches_lose_nothing():
    rows = jnp.full((1, 2), 0.1, jnp.float32)
    sums, _ = jax.lax.scan(lambda sums, _: (add_rows(sums, rows), None), zero_sums(2), None, length=20_000)
    expected = 20_000 * float(np.float32(0.1) * np.float32(0.1))
    assert abs(total(sums)[0, 0] / expected - 1) < 1e-7
    plain = np.cumsum(np.full(20_000, np.float32(0.1) * np.float32(0.1), np.float32), dtype=np.float32)[-1]
    assert abs(float(plain) / expected - 1) > 1e-6


def test_the_closed_form_is_the_least_squares_solution():
    new, old = pictures()
    found = fit_conv_in(gram_of(new, old), CONV, NoiseMoments(), side=SIDE, ridge=1e-9)
    x = np.asarray(patches(jnp.asarray(new))).reshape(-1, 9 * NEW)
    y = np.asarray(Conv(WIDTH).apply({"params": CONV}, old)).reshape(-1, WIDTH)
    wanted = least_squares(x, y)
    error = np.square(x @ found[:-1] + found[-1] - y).mean()
    assert error <= np.square(x @ wanted[:-1] + wanted[-1] - y).mean() * 1.001 + 1e-8
    assert conv_in_error(gram_of(new, old), found, CONV, NoiseMoments()) == pytest.approx(error, rel=1e-2, abs=1e-6)


@pytest.mark.parametrize("moments", [NoiseMoments(), MATCHED], ids=["none", "matched"])
def test_latents_that_did_not_change_keep_their_conv_in(moments):
    _, old = pictures()
    gram = gram_of(old, old)
    isometry = nearest_isometry(gram, OLD, OLD)
    np.testing.assert_allclose(isometry, np.eye(OLD), atol=1e-6)
    found = fit_conv_in(gram, CONV, moments, side=SIDE, ridge=1e-6)
    np.testing.assert_allclose(found, as_matrix(CONV), atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), carried_conv_out(CONV, np.eye(WIDTH)), CONV)


def test_matched_noise_is_what_drawing_it_would_give():
    new, old = pictures(8)
    gram = gram_of(new, old)
    isometry = nearest_isometry(gram, NEW, OLD)
    np.testing.assert_allclose(isometry.T @ isometry, np.eye(OLD), atol=1e-9)
    found = fit_conv_in(gram, CONV, MATCHED, side=SIDE, ridge=0.0)

    abar = NoiseSchedule().alphas_cumprod
    draws = 600
    a = np.sqrt(abar[RNG.integers(0, len(abar), (draws, 8))])[..., None, None, None]
    noise = RNG.normal(size=(draws, *new.shape))
    s = np.sqrt(1 - a**2)
    noisy = (a * new + s * noise).reshape(-1, *new.shape[1:]).astype(np.float32)
    noisy_old = (a * old + s * (noise @ isometry)).reshape(-1, *old.shape[1:]).astype(np.float32)
    x = np.asarray(patches(jnp.asarray(noisy))).reshape(-1, 9 * NEW)
    y = np.asarray(patches(jnp.asarray(noisy_old))).reshape(-1, 9 * OLD) @ as_matrix(CONV)[:-1] + as_matrix(CONV)[-1]
    drawn = least_squares(x, y)
    assert np.abs(found - drawn).max() < 0.05 * np.abs(drawn).max()
    carried = carried_conv_in(CONV, isometry)
    expected = conv_in_error(gram, found, CONV, MATCHED) + noise_error(found, carried, MATCHED, side=SIDE)
    assert expected == pytest.approx(np.square(x @ found[:-1] + found[-1] - y).mean(), rel=0.03)
    shown = quick_jit(lambda gram: fit_conv_in(gram, CONV, MATCHED, side=SIDE, ridge=1e-5, xp=jnp))
    np.testing.assert_allclose(shown(jnp.asarray(gram, jnp.float32)), found, atol=0.01 * np.abs(found).max())
    start = fit_conv_in(jnp.zeros_like(jnp.asarray(gram)), CONV, MATCHED, side=SIDE, ridge=1e-5, xp=jnp)
    assert np.isfinite(start).all()  # before the first batch
    # Clean latents alone make conv_in amplify the noise of the channel that hardly varies.
    clean = fit_conv_in(gram, CONV, NoiseMoments(), side=SIDE, ridge=1e-9)
    assert noise_error(clean, carried, MATCHED, side=SIDE) > 3 * noise_error(found, carried, MATCHED, side=SIDE)


def test_a_conv_out_carried_over_predicts_the_old_directions():
    isometry = np.linalg.qr(RNG.normal(size=(4, WIDTH)).T)[0]  # [5, 4]: a conv_out from 4 old channels to 5
    old = {"kernel": RNG.normal(size=(3, 3, 2, 4)), "bias": RNG.normal(size=4)}
    x = RNG.normal(size=(7, 19))
    carried = x @ as_matrix(carried_conv_out(old, isometry))
    np.testing.assert_allclose(carried @ isometry, x @ as_matrix(old), atol=1e-5)


def test_sums_that_determine_nothing_say_what_to_raise():
    singular = np.array([[1.0, 1.0 + 1e-3], [1.0 + 1e-3, 1.0]])
    with pytest.raises(UserError, match="raise model.ridge or train.steps"):
        solve(singular, np.ones((2, 1)), np.zeros(2), np.zeros((2, 1)))
