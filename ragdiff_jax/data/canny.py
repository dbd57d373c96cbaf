"""Canny's edges (IEEE TPAMI 8(6), 1986), and what is compared of a flat-lay: where its edges are, its colours."""

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from scipy import ndimage

from ragdiff_jax.data.images import resize, square_mask

SIDE = 128  # pixels a side at which edges are found
FAINT = 0.02
CELLS = 32  # of the descriptor
BINS = 4  # of each colour


def canny(
    grey: UInt8[np.ndarray, "h w"], *, sigma: float = 1.4, low: float = 0.08, high: float = 0.2
) -> Bool[np.ndarray, "h w"]:
    """Edges one pixel wide. `low`, `high`: hysteresis thresholds, as shares of the picture's largest gradient, so that
    a pale garment on white has edges like a dark one; a gradient below FAINT (of black to white) is never strong.

    Gaussian blur, Sobel gradient, of each pixel only where it is a maximum along its own direction, then every weak
    edge that touches a strong one.
    """
    smooth = ndimage.gaussian_filter(grey.astype(np.float32) / 255.0, sigma, mode="nearest")
    down, right = (ndimage.sobel(smooth, axis=axis, mode="nearest") / 4.0 for axis in (0, 1))
    size = np.hypot(down, right)
    top = max(float(size.max()), FAINT / high)
    padded = np.pad(size, 1)
    h, w = size.shape

    def at(dy, dx):
        return padded[1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]

    # Four directions of 45 degrees; of equal neighbours the first is the edge.
    sector = np.round(np.arctan2(down, right) / (np.pi / 4)).astype(int) % 4
    steps = ((0, 1), (1, 1), (1, 0), (1, -1))
    behind = np.choose(sector, [at(-dy, -dx) for dy, dx in steps])
    ahead = np.choose(sector, [at(dy, dx) for dy, dx in steps])
    thin = (size > behind) & (size >= ahead)
    weak = thin & (size >= low * top)
    pieces, count = ndimage.label(weak, np.ones((3, 3)))
    strong = np.zeros(count + 1, bool)
    strong[np.unique(pieces[thin & (size >= high * top)])] = True
    strong[0] = False
    return strong[pieces]


def structure_descriptor(flat: UInt8[np.ndarray, "s s 3"]) -> Float32[np.ndarray, " d"]:
    """Where a square flat-lay's edges are: blurred onto a grid of cells, centred, of unit length; 0 without edges.

    The inner product of two is how well their edges lie on one another, within about a cell.
    """
    grey = resize(flat, SIDE).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    edges = canny(np.round(grey).clip(0, 255).astype(np.uint8))
    near = ndimage.gaussian_filter(edges.astype(np.float32), SIDE / CELLS / 2, mode="constant")
    cells = near.reshape(CELLS, SIDE // CELLS, CELLS, SIDE // CELLS).mean(axis=(1, 3)).ravel()
    # The root, so that a busy print doesn't outweigh an outline.
    cells = np.sqrt(np.maximum(cells, 0.0))
    cells = cells - cells.mean()
    length = np.linalg.norm(cells)
    return (cells / length if length > 1e-6 else np.zeros_like(cells)).astype(np.float32)


def colour_histogram(
    flat: UInt8[np.ndarray, "s s 3"], mask: Bool[np.ndarray, "s s"]
) -> Float32[np.ndarray, " bins"]:
    """Shares of the garment's pixels in BINS^3 colours, half of each pixel to its own bin and half to the next ones.

    Two garments' textures differ by 1 - sum(min(a, b)), in [0, 1].
    """
    small, inside = resize(flat, 64), square_mask(mask, 64)
    pixels = small[inside].astype(np.float32) / 256.0 * BINS
    if not len(pixels):
        return np.full(BINS**3, 1 / BINS**3, np.float32)
    counts = np.zeros(BINS**3)
    for shift in (-0.25, 0.25):
        bins = np.floor(np.clip(pixels + shift, 0, BINS - 1e-3)).astype(int)
        counts += np.bincount(bins @ np.array([BINS**2, BINS, 1]), minlength=BINS**3)
    return (counts / counts.sum()).astype(np.float32)
