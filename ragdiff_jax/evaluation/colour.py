"""Colours in CIELAB (D65, 2 degrees) and CIEDE2000's distance between them; pure, on the devices, in float32."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num, UInt8

# IEC 61966-2-1: linear sRGB -> XYZ, and white as its rows' sums.
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_RELATIVE = np.float32(_TO_XYZ.T / _TO_XYZ.sum(axis=1))

Pictures = UInt8[Array, "b h w 3"] | UInt8[np.ndarray, "b h w 3"]
Masks = Bool[Array, "b h w"] | Bool[np.ndarray, "b h w"]
Colours = Num[Array, "*shape 3"] | Num[np.ndarray, "*shape 3"]


def lab(rgb: Colours) -> Float[Array, "*shape 3"]:
    """CIELAB of sRGB colours: 8-bit, or numbers in [0, 1]."""
    values = jnp.asarray(rgb)
    values = values / jnp.float32(255) if values.dtype == jnp.uint8 else values.astype(jnp.float32)
    linear = jnp.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    xyz = jnp.matmul(linear, _RELATIVE, precision="highest")
    f = jnp.where(xyz > (6 / 29) ** 3, jnp.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return jnp.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def ciede2000(a: Colours, b: Colours) -> Float[Array, "*shape"]:
    """CIEDE2000 of CIELAB colours, all weights 1 (Sharma, Wu, Dalal 2005, doi 10.1002/col.20070)."""
    a, b = (jnp.asarray(x, jnp.float32) for x in (a, b))
    l1, l2 = a[..., 0], b[..., 0]
    chroma = (jnp.hypot(a[..., 1], a[..., 2]) + jnp.hypot(b[..., 1], b[..., 2])) / 2
    stretch = 1.5 - 0.5 * jnp.sqrt(_saturation(chroma))
    c1, c2 = jnp.hypot(stretch * a[..., 1], a[..., 2]), jnp.hypot(stretch * b[..., 1], b[..., 2])
    h1 = jnp.degrees(jnp.arctan2(a[..., 2], stretch * a[..., 1])) % 360
    h2 = jnp.degrees(jnp.arctan2(b[..., 2], stretch * b[..., 1])) % 360
    grey = c1 * c2 == 0  # a grey has no hue
    turn = jnp.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    far = jnp.abs(h1 - h2) > 180
    hue = jnp.where(grey, h1 + h2, jnp.where(far, (h1 + h2 + 360) / 2 % 360, (h1 + h2) / 2))
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    d_hue = 2 * jnp.sqrt(c1 * c2) * jnp.sin(jnp.radians(turn / 2))
    t = (
        1
        - 0.17 * jnp.cos(jnp.radians(hue - 30))
        + 0.24 * jnp.cos(jnp.radians(2 * hue))
        + 0.32 * jnp.cos(jnp.radians(3 * hue + 6))
        - 0.20 * jnp.cos(jnp.radians(4 * hue - 63))
    )
    s_l = 1 + 0.015 * (lightness - 50) ** 2 / jnp.sqrt(20 + (lightness - 50) ** 2)
    s_c, s_h = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    rotation = -2 * jnp.sqrt(_saturation(chroma))
    rotation = rotation * jnp.sin(jnp.radians(60 * jnp.exp(-(((hue - 275) / 25) ** 2))))
    dl, dc, dh = (l2 - l1) / s_l, (c2 - c1) / s_c, d_hue / s_h
    return jnp.sqrt(jnp.maximum(dl**2 + dc**2 + dh**2 + rotation * dc * dh, 0))


def mean_lab(pictures: Pictures, masks: Masks) -> Float[Array, "b 3"]:
    """The mean CIELAB colour inside each picture's mask; of an empty mask that of the whole picture."""
    masks = jnp.asarray(masks)
    masks = (masks | ~masks.any(axis=(1, 2), keepdims=True)).astype(jnp.float32)[..., None]
    return (lab(pictures) * masks).sum(axis=(1, 2)) / masks.sum(axis=(1, 2))


def mean_ciede2000(a: Pictures, b: Pictures, masks: Masks) -> Float[Array, "b"]:
    """The mean over each mask's pixels of the distance between two pictures; 0 for an empty mask."""
    weights = jnp.asarray(masks).astype(jnp.float32)
    distance = ciede2000(lab(a), lab(b))
    return (distance * weights).sum(axis=(1, 2)) / jnp.maximum(weights.sum(axis=(1, 2)), 1)


def _saturation(chroma: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """c^7 / (c^7 + 25^7), which in float32 is best taken of a ratio."""
    power = (chroma / 25) ** 7
    return power / (power + 1)
