import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ragdiff_jax.data.augment import Draws, augment_flat, augment_pair, draw, move, move_landmark, paste, shift_colours

ONLY = {f"{name}_probability": 0.0 for name in ("flip", "pad", "hue", "contrast")}


@pytest.fixture(scope="module")
def batch():
    """64 samples: a coloured garment on white, its photo on a busy ground, its silhouette; nothing
    symmetric.
    """
    random = np.random.default_rng(0)
    mask = np.zeros((64, 24, 24, 1), np.float32)
    mask[:, 4:18, 3:12] = 1
    flat = np.where(mask > 0, random.uniform(-0.9, 0.9, (64, 1, 1, 3)), 1.0).astype(np.float32)
    photo = np.where(mask > 0, flat, random.uniform(-1, 1, (64, 24, 24, 3))).astype(np.float32)
    return jnp.asarray(photo), jnp.asarray(flat), jnp.asarray(mask)


def draws(batch=1, *, flip=False, padding=0.0, hue=0.0, contrast=1.0):
    full = lambda value: jnp.full((batch,), value)  # noqa: E731
    return Draws(full(flip), full(padding), full(hue), full(contrast))


def test_nothing_drawn_changes_nothing(batch):
    whole = jax.jit(lambda key, *batch: augment_pair(draw(key, 64, **ONLY), *batch))(jax.random.key(0), *batch)
    for before, after in zip(batch, whole, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_retrieved_silhouette_keeps_the_pairs_size(batch):
    some = draw(jax.random.key(5), 64)
    _, _, mask = augment_pair(some._replace(flip=jnp.zeros(64, bool)), *batch)
    np.testing.assert_array_equal(move_landmark(some.padding, batch[2][..., 0]), mask[..., 0])
    assert (some.padding > 0).any() and not np.array_equal(mask, batch[2])


def test_flip_moves_photo_flat_and_mask_together(batch):
    photo, flat, mask = augment_pair(draw(jax.random.key(1), 64, **ONLY | {"flip_probability": 0.5}), *batch)
    flipped = np.array([not np.array_equal(a, b) for a, b in zip(mask, batch[2], strict=True)])
    assert 16 < flipped.sum() < 48
    for before, after in zip(batch, (photo, flat, mask), strict=True):
        expected = np.where(flipped[:, None, None, None], before[:, :, ::-1], before)
        np.testing.assert_array_equal(after, expected)


def test_everything_drawn_keeps_the_pair_together(batch):
    """The garment's colour stays the same in photo and flat-lay, and the mask stays the flat-lay's
    silhouette.
    """
    photo, flat, mask = jax.jit(augment_pair)(draw(jax.random.key(2), 64), *batch)
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert float(jnp.abs(photo).max()) <= 1 and float(jnp.abs(flat).max()) <= 1
    sure = (move(draw(jax.random.key(2), 64), batch[2], fill=0.0) == 1)[..., 0]
    np.testing.assert_allclose(np.asarray(photo)[sure], np.asarray(flat)[sure], atol=1e-5)
    background = (move(draw(jax.random.key(2), 64), batch[2], fill=0.0) == 0)[..., 0]
    np.testing.assert_allclose(
        np.asarray(flat)[background], 1.0, atol=1e-6
    )  # the standard's ground stays white
    assert (np.abs(np.asarray(flat) - 1).max(-1) > 1e-3)[np.asarray(mask)[..., 0] > 0].mean() > 0.99


def test_draws_are_half_and_in_range():
    found = draw(jax.random.key(3), 20_000)
    nothing = {"flip": False, "padding": 0.0, "hue": 0.0, "contrast": 1.0}
    happened = np.stack([np.asarray(getattr(found, name)) != value for name, value in nothing.items()])
    np.testing.assert_allclose(happened.mean(axis=1), 0.5, atol=0.02)
    np.testing.assert_allclose(np.corrcoef(happened), np.eye(4), atol=0.03)
    for values, low, high in ((found.padding, 0, 0.1), (found.hue, -5, 5), (found.contrast, 0.8, 1.2)):
        assert (
            low <= values.min() < low + 0.02 * (high - low)
            and high - 0.02 * (high - low) < values.max() <= high
        )


def test_padding_shrinks_about_the_centre():
    image = jnp.linspace(-1, 1, 40)[None, :, None, None] * jnp.ones((1, 40, 40, 3))
    moved = jax.jit(move, static_argnames="fill")
    white, edge = (np.asarray(moved(draws(padding=0.1), image, fill=fill)) for fill in (1.0, None))
    # 10 % on each side of 40 pixels is 4 of 48, which is 3.3 of the new 40.
    assert (white[0, :3] == 1).all() and (white[0, :, :3] == 1).all() and (white[0, 4:-4, 4:-4] < 1).all()
    np.testing.assert_allclose(edge[0, :3], -1.0, atol=1e-6)
    np.testing.assert_allclose(white[0, 4:-4, 4:-4], edge[0, 4:-4, 4:-4])
    np.testing.assert_allclose(edge[0, 20, 5, 0] - edge[0, 19, 5, 0], 1.2 * (2 / 39), rtol=1e-4)
    area = moved(draws(padding=0.1), jnp.ones((1, 40, 40, 1)), fill=0.0).mean()
    assert abs(float(area) - 1 / 1.2**2) < 0.03


@pytest.mark.parametrize("degrees", [-5.0, 5.0, 120.0])
def test_hue_turns_as_colorsys_does(degrees):
    colours = np.random.default_rng(4).uniform(0, 1, (1, 8, 8, 3)).astype(np.float32)
    colours[0, 0] = np.linspace(0, 1, 8)[:, None]  # greys keep still
    found = (np.asarray(jax.jit(shift_colours)(draws(hue=degrees), colours * 2 - 1)) + 1) / 2
    for before, after in zip(colours.reshape(-1, 3), found.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        np.testing.assert_allclose(
            after, colorsys.hsv_to_rgb((hue + degrees / 360) % 1, saturation, value), atol=1e-5
        )


def test_contrast_scales_about_mid_grey():
    image = jnp.asarray([-1.0, -0.5, 0.0, 0.5, 1.0]).reshape(1, 1, 5, 1) * jnp.ones((1, 1, 5, 3))
    run = jax.jit(shift_colours)
    for contrast, expected in ((0.8, [-0.8, -0.4, 0, 0.4, 0.8]), (1.2, [-1, -0.6, 0, 0.6, 1])):
        np.testing.assert_allclose(run(draws(contrast=contrast), image)[0, 0, :, 0], expected, atol=1e-6)


def test_partner_gets_the_same_draw(batch):
    """As the training step uses it: one key for the pair and for the partner's flat-lay."""
    key = jax.random.key(5)
    _, flat, mask = augment_pair(draw(key, 64), *batch)
    again, mask_again = augment_flat(draw(key, 64), batch[1], batch[2])
    np.testing.assert_array_equal(flat, again)
    np.testing.assert_array_equal(mask, mask_again)


def test_a_pasted_garment_keeps_its_colours_and_gets_another_photos_surroundings(batch):
    photo, flat, mask = batch
    still = {"max_turn": 0.0, "scale_range": (1.0, 1.0), "max_shift": 0.0}
    pasted, there = paste(jax.random.key(0), flat, mask, photo, **still)
    np.testing.assert_allclose(there, mask, atol=1e-5)
    behind = jnp.roll(jnp.roll(photo, 1, axis=0), (12, 12), axis=(1, 2))
    np.testing.assert_allclose(pasted, jnp.where(mask > 0, flat, behind), atol=1e-5)
    moved, there = paste(jax.random.key(0), flat, mask, photo)
    assert 0.3 < float(there.mean() / mask.mean()) < 1.2
    assert np.abs(moved - pasted).mean() > 0.05


def test_the_easiest_paste_is_the_flat_lay_and_the_hardest_the_plain_one(batch):
    photo, flat, mask = batch
    key, ones = jax.random.key(1), jnp.ones(64)
    np.testing.assert_allclose(paste(key, flat, mask, photo, ease=ones)[0], flat, atol=1e-5)
    np.testing.assert_allclose(
        paste(key, flat, mask, photo, ease=0 * ones)[0], paste(key, flat, mask, photo)[0], atol=1e-5
    )
    half = paste(key, flat, mask, photo, ease=0.5 * ones)[0]
    far = [float(jnp.abs(paste(key, flat, mask, photo, ease=e * ones)[0] - flat).mean()) for e in (0.0, 1.0)]
    assert far[1] < float(jnp.abs(half - flat).mean()) < far[0]
