"""DINOv2's views of a picture on the device: large and small crops, colours changed apart; pure functions of a key.

Pictures are [b, s, s, 3] in [-1, 1]; a view is [b, t, t, 3] in [-1, 1].
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ragdiff_jax.data.augment import Draws, shift_colours

Pictures = Float[Array, "b h w 3"]
Views = Float[Array, "b {size} {size} 3"]


def random_crop(key: Key[Array, ""], pictures: Pictures, size: int, scale: tuple[float, float]) -> Views:
    """A part of each picture, area in `scale`, aspect in 3/4 .. 4/3, at `size` pixels, flipped half the time."""
    b, h, w, _ = pictures.shape
    area_key, aspect_key, place, flip = jax.random.split(key, 4)
    area = jax.random.uniform(area_key, (b,), minval=scale[0], maxval=scale[1])
    aspect = jnp.exp(jax.random.uniform(aspect_key, (b,), minval=jnp.log(3 / 4), maxval=jnp.log(4 / 3)))
    high, wide = (jnp.minimum(jnp.sqrt(x), 1.0) for x in (area / aspect, area * aspect))
    top, left = jax.random.uniform(place, (2, b)) * (1 - jnp.stack([high, wide]))

    def one(picture, high, wide, top, left):
        zoom = jnp.stack([size / (high * h), size / (wide * w)])
        moved = -jnp.stack([top * h, left * w]) * zoom
        # Antialiased: small crops of large pictures are scaled down.
        return jax.image.scale_and_translate(picture, (size, size, 3), (0, 1), zoom, moved, "linear", antialias=True)

    views = jax.vmap(one)(pictures, high, wide, top, left)
    turned = jax.random.bernoulli(flip, 0.5, (b, 1, 1, 1))
    return jnp.clip(jnp.where(turned, views[:, :, ::-1], views), -1.0, 1.0)


def jitter(key: Key[Array, ""], views: Pictures, *, blur: float, solarize: float) -> Pictures:
    """Colours: brightness, contrast, saturation and hue (0.4, 0.4, 0.2, 0.1; four times of five), grey (one of five),
    blur and solarization with these chances.
    """
    b = views.shape[0]
    keys = jax.random.split(key, 9)

    def chance(number, p):
        return jax.random.bernoulli(keys[number], p, (b, 1, 1, 1))

    def factor(number, most):
        return jax.random.uniform(keys[number], (b, 1, 1, 1), minval=1 - most, maxval=1 + most)

    x = (views + 1) / 2 * factor(0, 0.4)
    x = (x - x.mean(axis=(1, 2, 3), keepdims=True)) * factor(1, 0.4) + x.mean(axis=(1, 2, 3), keepdims=True)
    x = (x - _grey(x)) * factor(2, 0.2) + _grey(x)
    hue = jax.random.uniform(keys[3], (b,), minval=-36.0, maxval=36.0)
    still = Draws(jnp.zeros((b,), bool), jnp.zeros((b,)), hue, jnp.ones((b,)))
    x = shift_colours(still, jnp.clip(x, 0, 1) * 2 - 1)
    x = jnp.where(chance(4, 0.8), x, views)
    x = jnp.where(chance(5, 0.2), jnp.broadcast_to(_grey(x), x.shape), x)
    x = jnp.where(chance(6, blur), _blurred(keys[7], x), x)
    return jnp.where(chance(8, solarize), jnp.where(x >= 0, -x, x), x)


def _grey(x):
    return (x * jnp.array([0.299, 0.587, 0.114])).sum(axis=-1, keepdims=True)


def _blurred(key, x):
    """Gaussian of a width in 0.1 .. 2 pixels at 224, in proportion at other sizes."""
    b, size = x.shape[:2]
    sigma = jax.random.uniform(key, (b,), minval=0.1, maxval=2.0) * size / 224
    away = jnp.arange(size)[:, None] - jnp.arange(size)[None]
    weights = jnp.exp(-(away[None] ** 2) / (2 * jnp.maximum(sigma, 0.05)[:, None, None] ** 2))
    weights = weights / weights.sum(axis=-1, keepdims=True)
    return jnp.einsum("bij,bjwc->biwc", weights, jnp.einsum("bij,bhjc->bhic", weights, x))


def block_masks(key: Key[Array, ""], batch: int, grid: int, ratio: tuple[float, float]) -> tuple[Array, Array]:
    """iBOT's masks: (masked bool [batch, grid^2], how many [batch]); in blobs, a share in `ratio` of the patches."""
    shape_key, share_key, fine_key = jax.random.split(key, 3)
    coarse = jax.random.normal(shape_key, (batch, max(2, grid // 4), max(2, grid // 4)))
    field = jax.image.resize(coarse, (batch, grid, grid), "linear")
    field += 0.05 * jax.random.normal(fine_key, field.shape)
    count = jax.random.uniform(share_key, (batch,), minval=ratio[0], maxval=ratio[1]) * grid**2
    count = jnp.maximum(1, count.astype(jnp.int32))
    order = jnp.argsort(jnp.argsort(-field.reshape(batch, -1), axis=1), axis=1)
    return order < count[:, None], count
