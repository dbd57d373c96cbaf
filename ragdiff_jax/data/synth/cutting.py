"""Polygons for the cutters: pieces, curves, hems, and the small skews of a garment that was laid by hand."""

import dataclasses
import functools

import numpy as np

from ragdiff_jax.data.synth.shape import Shape

GROUPS = ("back", "left", "right", "body")  # drawing order; each group moves as one sheet
ADDED = ("band", "panel")  # paints that show on the pieces before them only and add nothing to the silhouette


@dataclasses.dataclass(frozen=True)
class Piece:
    """One polygon [n, 2] of a group. `paint` is the cloth it's cut from.

    main, sleeve, trim, lining, dark and inner are cloth of the garment; "band" (trim) and "panel" (the sleeves' cloth)
    are sewn onto the pieces before them; a "hole" is cut out of all of them.
    """

    group: str
    paint: str
    polygon: np.ndarray


def curve(p0, p1, p2, p3, n: int = 10) -> np.ndarray:
    """A cubic curve from p0 to p3 with controls p1, p2, sampled without its last point: [n, 2]."""
    return (_weights(n) * np.array((p0, p1, p2, p3), float)).sum(1)


@functools.lru_cache
def _weights(n: int) -> np.ndarray:
    """Of the four points at each sample: [n, 4, 1]."""
    t = np.linspace(0, 1, n, endpoint=False)
    return np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], -1)[..., None]


def mirror(polygon: np.ndarray) -> np.ndarray:
    return polygon[::-1] * np.array([-1.0, 1.0])


def band(low: float, high: float, half: float = 3.0) -> np.ndarray:
    """Everything between two heights."""
    return np.array([[-half, low], [half, low], [half, high], [-half, high]])


def lay(s: Shape, points, *, sleeve: bool = False) -> np.ndarray:
    """Where `points` [n, 2] of the pattern lie, once the garment lies a little askew."""
    lain = np.array(points, float)
    x, y = lain[:, 0].copy(), lain[:, 1]
    t = np.minimum(np.maximum(y / s.body_length, 0.0), 1.3)
    lain[:, 0] += s.lean * y + s.bow * np.sin(np.pi * np.minimum(t, 1.0))
    if not sleeve:
        lain[:, 1] += s.tilt * np.minimum(np.maximum(x, -1.2), 1.2) * t * t
    return lain


def hem_line(s: Shape, x: float, side_y: float, drop: float) -> np.ndarray:
    """The right half of the hem, from the side (x, side_y) to just before the middle (0, drop)."""
    kind = s.hem_kind
    n = {"plain": 9, "tie": 9, "peplum": 16, "ruffle": 40, "fringe": 44}.get(kind, 30)
    line = curve((x, side_y), (x * 0.7, drop), (x * 0.3, drop), (0, drop), n)
    t = np.linspace(0, 1, n, endpoint=False)
    folds = s.pleats or 5
    if kind in ("wavy", "peplum", "ruffle"):
        line[:, 1] += 0.022 * np.sin(np.pi * t * (folds + 3 * (kind == "ruffle"))) ** 2 * (2 * (np.arange(n) > 0) - 1)
    elif kind == "scalloped":
        line[:, 1] += 0.04 * np.abs(np.sin(np.pi * t * 4))
    elif kind == "points" and s.category == "Waistcoat":
        line[:, 1] += (0.36 * s.panel - 0.03) * np.interp(t, (0, 0.72, 1), (0, 1, 0.1))
    elif kind == "points":
        line[:, 1] += 0.3 * (1 - np.abs(2 * ((t * 1.5 + 0.5) % 1.0) - 1)) * np.minimum(1, t * 6)
    elif kind == "fringe":
        line[:, 1] += 0.11 * (np.arange(n) % 2) * (np.arange(n) > 0)
    elif s.pleats:
        line = curve((x, side_y), (x * 0.7, drop), (x * 0.3, drop), (0, drop), 30)
        line[1:, 1] += 0.025 * np.sin(np.linspace(0, np.pi * s.pleats, 29))
    return line


def stuffed(s: Shape, side: np.ndarray, top: float) -> np.ndarray:
    """The side of a quilted garment bulges between its seams; `side` [n, 2] runs downwards from height `top`."""
    if not s.quilt or s.quilt_kind != "bands":
        return side
    y = np.linspace(side[0, 1], side[-1, 1], 6 * s.quilt)
    x = np.interp(y, side[:, 1], side[:, 0])
    return np.stack([x + 0.022 * np.abs(np.sin(np.pi * s.quilt * (y - top) / s.body_length)), y], -1)


def ragged(s: Shape, polygon: np.ndarray) -> np.ndarray:
    """`polygon` with the uneven edge of fur."""
    if not s.rough:
        return polygon
    closed = np.concatenate([polygon, polygon[:1]])
    steps = np.linalg.norm(np.diff(closed, axis=0), axis=1)
    at = np.concatenate([[0], np.cumsum(steps)])
    where = np.arange(0, at[-1], 0.03)
    dense = np.stack([np.interp(where, at, closed[:, i]) for i in (0, 1)], -1)
    rng = np.random.default_rng(int(s.rough * 1e9) + len(dense))
    return dense + rng.normal(0, s.rough, dense.shape)
