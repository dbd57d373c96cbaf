"""From a garment's structure to its outlines: named polygons in chest widths, x to the right, y down.

The origin is the middle of the neck (tops, dresses) or of the waist (bottoms).
"""

import dataclasses

import numpy as np

from ragdiff_jax.data.synth.bottoms import bottom_pieces
from ragdiff_jax.data.synth.collars import collar_pieces
from ragdiff_jax.data.synth.cutting import ADDED, GROUPS, Piece, band, curve, lay, ragged
from ragdiff_jax.data.synth.shape import Shape
from ragdiff_jax.data.synth.sleeves import Flap, flaps, sleeve_pieces
from ragdiff_jax.data.synth.tops import CLOSED, trunk

Bounds = tuple[float, float, float, float]
_ROOM = 0.99 / 2  # half the sheet's side, less a little


@dataclasses.dataclass(frozen=True)
class Outline:
    """All pieces in drawing order, and what the folds, seams and warps need to know about them."""

    pieces: tuple[Piece, ...]
    shoulder: tuple[float, float]  # pivot of the right sleeve
    bounds: Bounds  # x0, y0, x1, y1 of the pieces as cut, before the sleeves are laid
    laid_bounds: Bounds  # and as the flat-lay shows them
    flaps: dict[str, tuple[Flap, ...]]  # the sleeves that are laid otherwise than they were cut
    neckline: np.ndarray | None
    armhole: np.ndarray | None


def outline(s: Shape, fill: float) -> Outline:
    """Cut the garment. `fill` is the share of the frame that its larger side takes in the flat-lay."""
    line = armhole = None
    if s.is_bottom:
        pieces = bottom_pieces(s)
    else:
        pieces, line, armhole = trunk(s)
        pieces += sleeve_pieces(s) + _front(s) + collar_pieces(s, line)
    pieces = [_lain(s, piece) for group in GROUPS for piece in pieces if piece.group == group]
    solid = [p for p in pieces if p.paint not in ADDED and p.paint != "hole"]
    bounds = _bounds([p.polygon for p in solid])
    laid = {group: flaps(s, group) for group in ("left", "right")}
    laid = {group: parts for group, parts in laid.items() if parts and any(p.group == group for p in pieces)}
    placed = [
        points
        for piece in solid
        for points in ([f.place(piece.polygon) for f in laid[piece.group]] if piece.group in laid else [piece.polygon])
        if len(points)
    ]
    laid_bounds = _bounds(placed)
    if laid and not _fits(bounds, laid_bounds, fill):  # the sheets hold the garment as cut too, for the photos
        laid, laid_bounds = {}, bounds
    return Outline(tuple(pieces), (s.shoulder, s.slope), bounds, laid_bounds, laid, line, armhole)


def _lain(s: Shape, piece: Piece) -> Piece:
    polygon = piece.polygon
    if piece.paint in ("main", "sleeve"):
        polygon = ragged(s, polygon)
    return Piece(piece.group, piece.paint, lay(s, polygon, sleeve=piece.group in ("left", "right")))


def _bounds(polygons: list[np.ndarray]) -> Bounds:
    everything = np.concatenate(polygons)
    low, high = everything.min(0), everything.max(0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _fits(bounds: Bounds, laid: Bounds, fill: float) -> bool:
    side = max(laid[2] - laid[0], laid[3] - laid[1]) / fill
    middle = ((laid[0] + laid[2]) / 2, (laid[1] + laid[3]) / 2)
    return all(abs(edge - middle[i % 2]) <= side * _ROOM for i, edge in enumerate(bounds))


def _front(s: Shape) -> list[Piece]:
    """Ribbed hems, and the inside or the inner wear that shows where the front stands open."""
    pieces = []
    drop = s.body_length + s.hem_curve
    if s.rib and s.family == "top":
        pieces.append(Piece("body", "band", band(s.body_length - s.rib, drop + 0.2)))
    if s.family == "dress" and s.slit:
        x, low = s.side * s.hem * 0.4, s.body_length
        pieces.append(
            Piece("body", "hole", np.array([[x, low - s.slit], [x + 0.07, low + 0.3], [x - 0.07, low + 0.3]]))
        )
    if not s.is_open:
        return pieces
    depth = min(s.neck_depth, 0.13) if s.collar in CLOSED else s.neck_depth
    top, low = s.neck_width * 0.75, s.gap
    start = depth * 0.6
    gap = np.array([[-top, start], [top, start], [low, drop], [-low, drop]])
    hem = curve(gap[2], (low, drop - 0.02), (-low, drop - 0.02), gap[3])
    pieces.append(Piece("body", "lining", np.concatenate([gap[:2], hem])))
    if s.inner:
        at = max(start, 0.06)
        end = min(drop - 0.02, 1.35 + 0.3 * s.panel) if s.body_length > 1.2 else drop - 0.01
        wide = (top + (low - top) * np.clip((np.array([at, end]) - start) / (drop - start), 0, 1)) * 0.98
        neck = curve((-wide[0], at), (-wide[0] * 0.6, at + 0.1), (wide[0] * 0.6, at + 0.1), (wide[0], at), 8)
        pieces.append(Piece("body", "inner", np.concatenate([neck, [[wide[0], at], [wide[1], end], [-wide[1], end]]])))
    return pieces
