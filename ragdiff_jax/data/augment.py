"""R 9.5's augmentations on the device: flip, pad-and-resize, hue, contrast; pure functions of a key.

"Each of these operations occurs independently with a 50% probability. Moreover, these operations are
simultaneously applied to both": one draw per sample serves photo, flat-lay and silhouette.
Where R is silent: padding repeats the photo's border and is white around the flat-lay; hue is in degrees of
360; contrast turns about mid-grey, so that a colour that photo and flat-lay share stays shared; hue and
contrast leave the flat-lay's background as it is, so that the standard stays on its plain white.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key


class Draws(NamedTuple):
    """What was drawn for each sample of a batch; the values of "nothing happens" are False, 0, 0, 1."""

    flip: Bool[Array, " b"]
    padding: Float[Array, " b"]  # added on every side, as a share of the image
    hue: Float[Array, " b"]  # degrees
    contrast: Float[Array, " b"]  # factor


def draw(
    key: Key[Array, ""],
    batch: int,
    *,
    flip_probability: float = 0.5,
    pad_probability: float = 0.5,
    hue_probability: float = 0.5,
    contrast_probability: float = 0.5,
    max_padding: float = 0.1,
    max_hue: float = 5.0,
    contrast_range: tuple[float, float] = (0.8, 1.2),
) -> Draws:
    """One draw per sample: whether each operation happens, and how strongly (uniform in its range)."""
    keys = jax.random.split(key, 7)

    def maybe(switch, strength, probability, low, high, nothing):
        happens = jax.random.bernoulli(switch, probability, (batch,))
        return jnp.where(happens, jax.random.uniform(strength, (batch,), minval=low, maxval=high), nothing)

    return Draws(
        flip=jax.random.bernoulli(keys[0], flip_probability, (batch,)),
        padding=maybe(keys[1], keys[2], pad_probability, 0.0, max_padding, 0.0),
        hue=maybe(keys[3], keys[4], hue_probability, -max_hue, max_hue, 0.0),
        contrast=maybe(keys[5], keys[6], contrast_probability, *contrast_range, 1.0),
    )


def augment_pair(
    draws: Draws, photo: Float[Array, "b h w 3"], flat: Float[Array, "b h w 3"], mask: Float[Array, "b h w 1"]
) -> tuple[Float[Array, "b h w 3"], Float[Array, "b h w 3"], Float[Array, "b h w 1"]]:
    """The drawn operations on photo and flat-lay (in [-1,1]) and the flat-lay's silhouette (in {0,1}) alike."""
    return augment_photo(draws, photo), *augment_flat(draws, flat, mask)


def move_landmark(padding: Float[Array, " b"], landmark: Float[Array, "b h w"]) -> Float[Array, "b h w"]:
    """A silhouette of the memory beside a pair that was padded so: of the pair's size. It stays in {0,1}.

    What was retrieved by an augmented photo is turned as that is (flipped photos find flipped shapes, but not with a
    tower of `photo_mirrored`, to which both are one), but no memory holds smaller ones.
    """
    padded = Draws(jnp.zeros(padding.shape, bool), padding, jnp.zeros_like(padding), jnp.ones_like(padding))
    return _move_mask(padded, landmark[..., None])[..., 0]


def augment_photo(draws: Draws, photo: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """The drawn operations on photos in [-1,1]."""
    return shift_colours(draws, move(draws, photo, fill=None))


def augment_flat(
    draws: Draws, flat: Float[Array, "b h w 3"], mask: Float[Array, "b h w 1"]
) -> tuple[Float[Array, "b h w 3"], Float[Array, "b h w 1"]]:
    """The drawn operations on flat-lays in [-1,1] and their silhouettes, which stay in {0,1}."""
    mask = _move_mask(draws, mask)
    flat = move(draws, flat, fill=1.0)
    return jnp.where(mask > 0, shift_colours(draws, flat), flat), mask


def _move_mask(draws: Draws, mask: Float[Array, "b h w 1"]) -> Float[Array, "b h w 1"]:
    return (move(draws, mask, fill=0.0) >= 0.5).astype(mask.dtype)


def move(draws: Draws, image: Float[Array, "b h w c"], *, fill: float | None) -> Float[Array, "b h w c"]:
    """Flips, then pads by `padding` of the side on every side and scales back (bilinear).

    New pixels get the value `fill`; with None they repeat the border.
    """
    _, height, width, _ = image.shape
    image = jnp.where(draws.flip[:, None, None, None], image[:, :, ::-1], image)
    rows, inside_rows = _samples(draws.padding, height)
    columns, inside_columns = _samples(draws.padding, width)
    moved = jnp.einsum("bih,bhwc->biwc", rows, image.astype(jnp.float32), precision="highest")
    moved = jnp.einsum("bjw,biwc->bijc", columns, moved, precision="highest")
    if fill is not None:
        inside = inside_rows[:, :, None, None] & inside_columns[:, None, :, None]
        moved = jnp.where(inside, moved, fill)
    return moved.astype(image.dtype)


def _samples(padding, size):
    """Bilinear weights [b, size, size] of each new pixel over the old ones, and whether it lies on the old
    image.
    """
    place = (jnp.arange(size) + 0.5 - size / 2) * (1 + 2 * padding[:, None]) + size / 2 - 0.5
    inside = (place >= -0.5) & (place <= size - 0.5)
    distance = jnp.abs(jnp.clip(place, 0, size - 1)[:, :, None] - jnp.arange(size))
    return jnp.maximum(0.0, 1.0 - distance), inside


def shift_colours(draws: Draws, image: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Turns the hue (HSV) and scales the contrast about mid-grey; images in [-1,1], clipped to it."""
    turned = _turn_hue((image.astype(jnp.float32) + 1) / 2, draws.hue[:, None, None] / 360.0) * 2 - 1
    turned = jnp.where((draws.hue == 0)[:, None, None, None], image, turned)  # rounding is a change too
    return jnp.clip(turned * draws.contrast[:, None, None, None], -1.0, 1.0).astype(image.dtype)


def _turn_hue(rgb, turn):
    """HSV hue + turn (in whole turns), saturation and value kept: rgb in [0,1]."""
    value, low = rgb.max(axis=-1), rgb.min(axis=-1)
    chroma = value - low
    safe = jnp.where(chroma > 0, chroma, 1.0)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    hue = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = (hue + 6 * turn) % 6
    # Each channel is the value less the chroma times a trapezoid of the hue.
    place = (jnp.array([5.0, 3.0, 1.0]) + hue[..., None]) % 6
    return value[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)


class Placement(NamedTuple):
    """Where `paste_at` puts each garment of a batch: turned by radians, scaled, moved by shares of the side."""

    turn: Float[Array, " b"]
    scale: Float[Array, " b"]
    row: Float[Array, " b"]
    column: Float[Array, " b"]
    surroundings: Float[Array, " b"]  # how much of them is there: 1 all, 0 white


def draw_placement(
    key: Key[Array, ""],
    batch: int,
    *,
    max_turn: float = 45.0,
    scale_range: tuple[float, float] = (0.6, 1.05),
    max_shift: float = 0.15,
    ease: Float[Array, " b"] | None = None,
) -> Placement:
    """One placement a sample. `max_turn` in degrees, `max_shift` as a share of the side; `ease` as in `paste`."""
    turn, scale, row, column = (
        jax.random.uniform(k, (batch,), minval=low, maxval=high)
        for k, (low, high) in zip(
            jax.random.split(key, 4),
            ((-max_turn, max_turn), scale_range, (-max_shift, max_shift), (-max_shift, max_shift)),
            strict=True,
        )
    )
    left = jnp.ones((batch,)) if ease is None else 1.0 - ease
    if ease is not None:
        turn, row, column, scale = turn * left, row * left, column * left, 1.0 + (scale - 1.0) * left
    return Placement(jnp.deg2rad(turn), scale, row, column, left)


def paste(
    key: Key[Array, ""],
    flat: Float[Array, "b h w 3"],
    mask: Float[Array, "b h w 1"],
    photo: Float[Array, "b h w 3"],
    *,
    ease: Float[Array, " b"] | None = None,
    **fields,
) -> tuple[Float[Array, "b h w 3"], Float[Array, "b h w 1"]]:
    """The garment of each flat-lay cut out and pasted, turned, scaled and moved, on another photo's surroundings.

    Half-way between flat-lay and photo: an encoder learns from it to tell a garment from what is behind it. Images in
    [-1,1]; `fields` as in `draw_placement`. The surroundings are the next sample's photo. `ease` in [0,1] makes a
    sample easier: its surroundings fade to white and its move shrinks, until at 1 it is the flat-lay that it was.

    Returns (photos, where the garment is in them, in [0,1]).
    """
    placement = draw_placement(key, flat.shape[0], ease=ease, **fields)
    return paste_at(placement, flat, mask, jnp.roll(photo, 1, axis=0))


def paste_at(
    placement: Placement,
    flat: Float[Array, "b h w 3"],
    mask: Float[Array, "b h w 1"],
    other: Float[Array, "b h w 3"],
) -> tuple[Float[Array, "b h w 3"], Float[Array, "b h w 1"]]:
    """`paste` with what was drawn, row by row: on the surroundings of `other`.

    Those are rolled by half their sides, so that the borders, where there is seldom a garment, are in the middle.
    """
    _, h, w, _ = flat.shape
    behind = jnp.roll(other, (h // 2, w // 2), axis=(1, 2))
    behind = 1.0 + (behind - 1.0) * placement.surroundings[:, None, None, None]
    y, x = jnp.meshgrid(jnp.arange(h) - (h - 1) / 2, jnp.arange(w) - (w - 1) / 2, indexing="ij")

    def sample(image, angle, scale, row, column):
        down, right = (y - row * h) / scale, (x - column * w) / scale
        rows = jnp.cos(angle) * down - jnp.sin(angle) * right + (h - 1) / 2
        columns = jnp.sin(angle) * down + jnp.cos(angle) * right + (w - 1) / 2
        one = functools.partial(jax.scipy.ndimage.map_coordinates, coordinates=[rows, columns], order=1)
        return jax.vmap(one, in_axes=-1, out_axes=-1)(image)

    both = jax.vmap(sample)(jnp.concatenate([flat * mask, mask], axis=-1), *placement[:4])
    return both[..., :3] + (1 - both[..., 3:]) * behind, both[..., 3:]
