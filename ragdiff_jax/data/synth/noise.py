"""Noise for cloth, grounds and cameras: white and smooth."""

import functools

import numpy as np
from PIL import Image

_SIDE = 512


@functools.lru_cache(maxsize=1)
def _sheet() -> np.ndarray:
    return np.random.default_rng(20240).standard_normal((_SIDE, _SIDE), np.float32)


def white_noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise of unit variance, read-only float32 [height, width]: a window of one sheet, faster than drawing anew."""
    sheet = _sheet()
    if max(height, width) > _SIDE - 64:
        repeats = -(-max(height, width) // _SIDE) + 1
        sheet = np.tile(sheet, (repeats, repeats))
    y, x = rng.integers(0, (sheet.shape[0] - height, sheet.shape[1] - width)).tolist()
    return sheet[y : y + height, x : x + width]


def smooth_noise(rng: np.random.Generator, cells: tuple[int, int], size: int) -> np.ndarray:
    """Low-frequency noise of unit variance at its nodes, [size, size] float32."""
    nodes = rng.standard_normal(cells).astype(np.float32)
    return np.asarray(Image.fromarray(nodes).resize((size, size), Image.BICUBIC))
