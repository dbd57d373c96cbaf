"""Under- and overexposed photos (R Fig. 12), and a remedy that looks at the photo alone."""

from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

Picture = UInt8[np.ndarray, "h w 3"]
GAINS = {"dark": 0.2, "bright": 2.5}  # of linear light: about two stops less, one and a third more
USUAL = (0.12, 0.35)
"""Mean linear light of the middle half of drawn photos, which are left alone; the others are brought to its border."""


def lit(photo: Picture, how: Literal["dark", "bright"]) -> Picture:
    """The photo with less or more light; what is too bright is cut off, as a sensor does."""
    return _encoded(_linear(photo) * GAINS[how])


def balanced(photo: Picture) -> Picture:
    """A photo whose mean linear light lies outside `USUAL`, times what brings it to the border; others as they are.

    Light that was cut off doesn't come back, so an overexposed photo is only made darker. At most eightfold.
    """
    linear = _linear(photo)
    mean = max(float(linear.mean()), 1e-4)
    gain = float(np.clip(mean, *USUAL)) / mean
    return photo if gain == 1 else _encoded(linear * min(gain, 8.0))


def _linear(photo: Picture) -> Float[np.ndarray, "h w 3"]:
    """sRGB to linear light in [0, 1] (IEC 61966-2-1)."""
    x = photo.astype(np.float64) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _encoded(linear: Float[np.ndarray, "h w 3"]) -> Picture:
    x = np.clip(linear, 0, 1)
    x = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return np.round(255 * x).astype(np.uint8)
