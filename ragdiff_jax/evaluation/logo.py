"""Is a logo the same? Inside its box of the true picture: PSNR, and the correlation of edges (R 3.3's claim)."""

import numpy as np
from jaxtyping import Float, UInt8

from ragdiff_jax.evaluation.alignment import Box

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
SAME = 100.0  # dB, of equal pictures, so that a mean exists


def psnr(real: UInt8[np.ndarray, "h w 3"], fake: UInt8[np.ndarray, "h w 3"], box: Box) -> float:
    """Peak signal to noise ratio in dB inside (top, left, bottom, right), at most 100."""
    a, b = (_cut(picture, box).astype(np.float64) for picture in (real, fake))
    error = np.mean((a - b) ** 2)
    return SAME if error == 0 else min(SAME, float(10 * np.log10(255**2 / error)))


def edge_correlation(real: UInt8[np.ndarray, "h w 3"], fake: UInt8[np.ndarray, "h w 3"], box: Box) -> float:
    """Pearson's correlation of the Sobel magnitudes of both, in [-1, 1]; 0 where one of them has no edges."""
    a, b = (_edges(_cut(picture, box)) for picture in (real, fake))
    a, b = a - a.mean(), b - b.mean()
    power = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / power) if power > 1e-9 else 0.0


def _cut(picture: UInt8[np.ndarray, "h w 3"], box: Box) -> UInt8[np.ndarray, "h2 w2 3"]:
    top, left, bottom, right = box
    if not (0 <= top < bottom <= picture.shape[0] and 0 <= left < right <= picture.shape[1]):
        raise ValueError(f"box {box} does not lie in a picture of {picture.shape[0]} x {picture.shape[1]}")
    return picture[top:bottom, left:right]


def _edges(picture: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    from scipy import ndimage

    grey = picture @ np.array(_GREY)
    return np.hypot(ndimage.sobel(grey, axis=0), ndimage.sobel(grey, axis=1))
