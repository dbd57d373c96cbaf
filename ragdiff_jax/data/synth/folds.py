"""Folds of cloth that isn't flat: how they move it and how they catch the light."""

import dataclasses
import functools

import numpy as np
from PIL import Image

from ragdiff_jax.data.synth.noise import smooth_noise

_NODES = 48  # side of the grid on which folds are drawn
_CELLS = (3, 4, 6, 12)


@dataclasses.dataclass(frozen=True)
class Drape:
    """Displacements (x, y, units) and light (around 1): float32 [size, size] each."""

    x: np.ndarray
    y: np.ndarray
    light: np.ndarray


@functools.lru_cache(maxsize=len(_CELLS))
def _sheet(cell: int) -> np.ndarray:
    """Smooth noise with a node every `cell` pixels; folds take windows of it, which is faster than drawing anew."""
    side = 5 * _NODES
    return smooth_noise(np.random.default_rng([7, cell]), (side // cell, side // cell), side)


def _waves(rng: np.random.Generator, cell: int) -> np.ndarray:
    sheet = _sheet(cell)
    y, x = (int(v) for v in rng.integers(0, len(sheet) - _NODES, 2))
    window = sheet[y : y + _NODES, x : x + _NODES]
    return window.T if rng.random() < 0.5 else window


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
    height += np.float32(u(0.003, 0.012)) * _waves(rng, _CELLS[rng.integers(1, 3)])
    height *= np.float32(n)
    slope_x, slope_y = np.zeros_like(height), np.zeros_like(height)
    slope_x[:, 1:-1], slope_y[1:-1] = 0.5 * (height[:, 2:] - height[:, :-2]), 0.5 * (height[2:] - height[:-2])
    angle, strength = u(0, 2 * np.pi), crumple * u(0.35, 1.0)
    light = np.float32(0.9 * strength) * (np.float32(np.cos(angle)) * slope_x + np.float32(np.sin(angle)) * slope_y)
    light += np.float32(u(0.02, 0.09)) * _waves(rng, 12)
    light += np.float32(u(0.0, 0.05)) * _waves(rng, 3)
    move, slow = np.float32(0.025 * crumple), np.float32(slow)
    fields = (
        slow * _waves(rng, 12) + move * slope_x,
        slow * _waves(rng, 12) + move * slope_y,
        np.clip(1 + light, 0.25, 1.75),
    )
    return Drape(*(np.asarray(Image.fromarray(f).resize((size, size), Image.Resampling.BICUBIC)) for f in fields))
