"""Colours in CIELAB (D65, 2 degrees) and CIEDE2000's distance between them."""

import numpy as np
from jaxtyping import Float, UInt8

# IEC 61966-2-1: linear sRGB -> XYZ, and white as its rows' sums.
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(rgb: UInt8[np.ndarray, "*shape 3"] | Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
    """CIELAB of sRGB colours: 8-bit, or numbers in [0, 1]."""
    values = rgb / 255.0 if rgb.dtype == np.uint8 else np.asarray(rgb, np.float64)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _TO_XYZ.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def ciede2000(a: Float[np.ndarray, "*shape 3"], b: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape"]:
    """CIEDE2000 of CIELAB colours, all weights 1 (Sharma, Wu, Dalal 2005, doi 10.1002/col.20070)."""
    l1, l2 = a[..., 0], b[..., 0]
    chroma = (np.hypot(a[..., 1], a[..., 2]) + np.hypot(b[..., 1], b[..., 2])) / 2
    stretch = 1.5 - 0.5 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7))
    c1, c2 = np.hypot(stretch * a[..., 1], a[..., 2]), np.hypot(stretch * b[..., 1], b[..., 2])
    h1 = np.degrees(np.arctan2(a[..., 2], stretch * a[..., 1])) % 360
    h2 = np.degrees(np.arctan2(b[..., 2], stretch * b[..., 1])) % 360
    grey = c1 * c2 == 0  # a grey has no hue
    turn = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    far = np.abs(h1 - h2) > 180
    hue = np.where(grey, h1 + h2, np.where(far, (h1 + h2 + 360) / 2 % 360, (h1 + h2) / 2))
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    d_hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    t = (
        1
        - 0.17 * np.cos(np.radians(hue - 30))
        + 0.24 * np.cos(np.radians(2 * hue))
        + 0.32 * np.cos(np.radians(3 * hue + 6))
        - 0.20 * np.cos(np.radians(4 * hue - 63))
    )
    s_l = 1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2)
    s_c, s_h = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    rotation = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7))
    rotation = rotation * np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    dl, dc, dh = (l2 - l1) / s_l, (c2 - c1) / s_c, d_hue / s_h
    return np.sqrt(np.maximum(dl**2 + dc**2 + dh**2 + rotation * dc * dh, 0))
