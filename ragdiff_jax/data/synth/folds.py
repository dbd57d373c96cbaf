"""Folds of cloth that isn't flat: how they move it and how they catch the light."""

import dataclasses

import numpy as np
from PIL import Image

from ragdiff_jax.data.synth.flat import smooth_noise

_NODES = 48  # side of the grid on which folds are drawn


@dataclasses.dataclass(frozen=True)
class Drape:
    """Displacements (x, y, units) and light (around 1): float32 [size, size] each."""

    x: np.ndarray
    y: np.ndarray
    light: np.ndarray


def draw_drape(rng: np.random.Generator, size: int, *, slow: float, crumple: float, fall: float) -> Drape:
    """Folds: a height field whose slopes move the cloth and light it.

    Args:
      slow: displacement of the large, soft waves in units; crumple: strength of the folds, 1 is usual.
      fall: spread of the creases' direction around straight down in radians (cloth that hangs has little).
    """
    n, u, count = _NODES, rng.uniform, int(rng.integers(4, 12))
    ticks = np.arange(n, dtype=np.float32) / n
    shape = (count, 1, 1)
    x = ticks[None, None, :] - u(0.1, 0.9, shape).astype(np.float32)
    y = ticks[None, :, None] - u(0.1, 0.9, shape).astype(np.float32)
    angle = rng.normal(0.0, fall, shape).astype(np.float32)
    sin, cos = np.sin(angle), np.cos(angle)
    along = x * sin + y * cos
    across = x * cos - y * sin + rng.normal(0, 0.5, shape).astype(np.float32) * along * along
    width = u(0.016, 0.05, shape).astype(np.float32)
    reach = u(0.07, 0.3, shape).astype(np.float32)
    ridges = np.exp(-0.5 * (across / width) ** 2 - (along / reach) ** 2)
    height = (u(-0.55, 0.55, shape).astype(np.float32) * width * ridges).sum(0)
    cells = int(rng.integers(7, 16))
    dents = smooth_noise(rng, (max(3, int(cells * u(0.4, 1.0))), cells), n)
    height += np.float32(u(0.05, 0.5) / cells * 0.2) * dents
    slope_y, slope_x = np.gradient(height * np.float32(n))
    angle, strength = u(0, 2 * np.pi), crumple * u(0.35, 1.0)
    light = np.float32(0.9 * strength) * (np.float32(np.cos(angle)) * slope_x + np.float32(np.sin(angle)) * slope_y)
    light += np.float32(u(0.02, 0.09)) * smooth_noise(rng, (4, 4), n)
    light += np.float32(u(0.0, 0.05)) * smooth_noise(rng, (16, 14), n)
    move, slow = np.float32(0.025 * crumple), np.float32(slow)
    fields = (
        slow * smooth_noise(rng, (4, 4), n) + move * slope_x,
        slow * smooth_noise(rng, (4, 4), n) + move * slope_y,
        np.clip(1 + light, 0.25, 1.75),
    )
    return Drape(*(np.asarray(Image.fromarray(f).resize((size, size), Image.Resampling.BICUBIC)) for f in fields))
