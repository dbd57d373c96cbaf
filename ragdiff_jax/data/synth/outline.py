"""From a garment's structure to its outlines: named polygons in chest widths, x to the right, y down.

The origin is the middle of the neck (tops, dresses) or of the waist (bottoms).
"""

import dataclasses

import numpy as np

from ragdiff_jax.data.synth.garment import Shape

GROUPS = ("back", "left", "right", "body")  # drawing order; each group moves as one sheet


@dataclasses.dataclass(frozen=True)
class Piece:
    """One polygon [n, 2] of a group. `paint` is the cloth it's cut from: main, sleeve, trim, lining, dark.

    A "band" is trim sewn onto the pieces before it: it shows on them only and adds nothing to the silhouette.
    """

    group: str
    paint: str
    polygon: np.ndarray


@dataclasses.dataclass(frozen=True)
class Outline:
    """All pieces in drawing order, and what the folds, seams and warps need to know about them."""

    pieces: tuple[Piece, ...]
    shoulder: tuple[float, float]  # pivot of the right sleeve
    bounds: tuple[float, float, float, float]  # x0, y0, x1, y1 of the union
    neckline: np.ndarray | None
    body: np.ndarray


def curve(p0, p1, p2, p3, n: int = 10) -> np.ndarray:
    """A cubic curve from p0 to p3 with controls p1, p2, sampled without its last point: [n, 2]."""
    t = np.linspace(0, 1, n, endpoint=False)[:, None]
    p0, p1, p2, p3 = (np.asarray(p, float) for p in (p0, p1, p2, p3))
    return (1 - t) ** 3 * p0 + 3 * t * (1 - t) ** 2 * p1 + 3 * t**2 * (1 - t) * p2 + t**3 * p3


def mirror(polygon: np.ndarray) -> np.ndarray:
    return polygon[::-1] * np.array([-1.0, 1.0])


def outline(shape: Shape) -> Outline:
    """Cut the garment: its polygons, the sleeves' pivot and its bounds."""
    if shape.category in ("Trousers", "Shorts"):
        return _legs(shape)
    if shape.category == "Skirt":
        return _skirt(shape)
    return _top(shape)


def _finish(pieces: list[Piece], shoulder, neckline, body) -> Outline:
    everything = np.concatenate([p.polygon for p in pieces if p.paint != "band"])
    low, high = everything.min(0), everything.max(0)
    ordered = tuple(p for g in GROUPS for p in pieces if p.group == g)
    return Outline(ordered, shoulder, (low[0], low[1], high[0], high[1]), neckline, body)


def _top(s: Shape) -> Outline:
    nw, sw, y0 = s.neck_width, s.shoulder, s.slope
    arm_y = s.slope + s.armhole
    length = s.body_length
    waist_y = arm_y + (length - arm_y) * s.waist_at if s.category != "Dress" else arm_y + 0.42
    side_dip = -s.hem_vent - max(s.hem_curve, 0) * 0.3
    start = np.array([sw - 0.012, y0 + 0.05])
    straight = (sw - nw) * (0.55 if s.sleeve_length else 0.85)
    right = [
        np.array([[nw, 0.0]]),
        curve((nw + straight, y0 * straight / (sw - nw)), (sw - 0.04, y0 - 0.03), (sw - 0.015, y0), start, 5),
        curve(start, (sw - 0.05, y0 + 0.5 * s.armhole), (s.chest * 0.86, arm_y - 0.04), (s.chest, arm_y)),
    ]
    if s.category == "Dress":
        grow, skirt = s.hem - s.waist, length - waist_y
        right += [
            curve(
                (s.chest, arm_y), (s.chest * 0.95, arm_y + 0.15), (s.waist, waist_y - 0.2), (s.waist, waist_y)
            ),
            curve(
                (s.waist, waist_y),
                (s.waist * 1.02 + 0.1 * grow, waist_y + 0.2 * skirt),
                (s.waist + grow * (0.7 + s.sleeve_bulge), waist_y + 0.6 * skirt),
                (s.hem, length + side_dip),
                14,
            ),
        ]
    else:
        right.append(
            curve(
                (s.chest, arm_y),
                (s.chest * 0.98, arm_y + 0.1),
                (s.waist, waist_y),
                (s.hem, length + side_dip),
                14,
            )
        )
    drop = length + s.hem_curve
    right.append(curve((s.hem, length + side_dip), (s.hem * 0.7, drop), (s.hem * 0.3, drop), (0, drop), 8))
    if s.pleats:
        right[-1] = _wavy(right[-1], s.pleats)
    half = np.concatenate(right)
    neckline = _neckline(s)
    body = np.concatenate([half, mirror(half), neckline])
    pieces = [Piece("body", "main", body)]
    back_dip = min(0.05, s.neck_depth * 0.4)
    back = np.concatenate(
        [curve((-nw, 0), (-nw * 0.5, back_dip), (nw * 0.5, back_dip), (nw, 0)), [[nw, 0.0]], neckline[::-1]]
    )
    pieces.append(Piece("back", "lining", back))
    if s.sleeve_length > 0:
        sleeve, cuff = _sleeve(s)
        for group, flip in (("right", False), ("left", True)):
            pieces.append(Piece(group, "sleeve", mirror(sleeve) if flip else sleeve))
            if cuff is not None:
                pieces.append(Piece(group, "trim", mirror(cuff) if flip else cuff))
    if s.rib:
        at = length - s.rib
        pieces.append(Piece("body", "band", np.array([[-2, at], [2, at], [2, drop + 0.1], [-2, drop + 0.1]])))
    if s.is_open:
        pieces.append(_open_front(s, drop))
    pieces += _collar(s)
    return _finish(pieces, (sw, y0), neckline, body)


def _wavy(hem: np.ndarray, folds: int) -> np.ndarray:
    hem = hem.copy()
    hem[1:, 1] += 0.025 * np.sin(np.linspace(0, np.pi * folds, len(hem) - 1))
    return hem


def _neckline(s: Shape) -> np.ndarray:
    """The front neckline from the left neck point to the right one, the end points left out."""
    nw, depth = s.neck_width, s.neck_depth
    if s.collar in ("Shirt", "Polo", "Hooded", "Stand-up"):
        depth = min(depth, 0.13)
    if s.collar in ("V-neck", "Suit"):
        left = curve((-nw, 0), (-nw * 0.85, depth * 0.3), (-nw * 0.3, depth * 0.8), (0, depth), 8)
        return np.concatenate([left, [[0, depth]], mirror(left)])[1:-1]
    if s.collar == "Square":
        return np.array(
            [[-nw * 0.95, depth * 0.5], [-nw * 0.9, depth], [nw * 0.9, depth], [nw * 0.95, depth * 0.5]]
        )
    return curve((-nw, 0), (-nw, depth * 1.33), (nw, depth * 1.33), (nw, 0), 14)[1:]


def _sleeve(s: Shape) -> tuple[np.ndarray, np.ndarray | None]:
    """The right sleeve around the shoulder point, and its cuff or None."""
    top = np.array([s.shoulder - 0.07, s.slope * (1 - 0.07 / (s.shoulder - s.neck_width)) + 0.008])
    under = np.array([s.chest * 0.97, s.slope + s.armhole])
    along = np.array([np.sin(s.sleeve_angle), np.cos(s.sleeve_angle)])
    across = np.array([-along[1], along[0]])  # from the outer to the inner edge: left and down
    outer = np.array([s.shoulder, s.slope]) + along * s.sleeve_length + across * -0.01
    inner = outer + across * s.cuff
    bulge = -across * s.sleeve_bulge * s.sleeve_length
    middle = (np.array([s.shoulder, s.slope]) + outer) / 2
    shoulder_round = np.array([s.shoulder + 0.01, s.slope]) + along * 0.08 * s.sleeve_length
    polygon = np.concatenate(
        [
            top[None],
            curve(top, shoulder_round, middle + bulge, outer, 12),
            curve(outer, outer, inner, inner, 4),
            curve(inner, (inner * 0.65 + under * 0.35) - bulge * 0.4, under + along * 0.12, under, 10),
            under[None],
            np.array([[s.shoulder * 0.72, s.slope + s.armhole * 0.75]]),
        ]
    )
    if not (s.rib or s.rolled or (s.collar in ("Shirt", "Stand-up") and s.sleeve_length > 0.9)):
        return polygon, None
    depth = 0.17 if s.rolled else s.rib or 0.08
    grow = across * (0.02 if s.rolled else -0.004)
    back = outer - along * depth
    inner_back = inner - along * depth - across * -0.01
    cuff = np.stack([back - grow, outer - grow, inner + grow, inner_back + grow])
    return polygon, cuff


def _open_front(s: Shape, drop: float) -> Piece:
    """The inside that shows where the front stands open, from the neckline to the hem."""
    depth = s.neck_depth if s.collar == "Suit" else min(s.neck_depth, 0.13)
    top, bottom = s.neck_width * 0.75, s.gap
    gap = np.array([[-top, depth * 0.6], [top, depth * 0.6], [bottom, drop], [-bottom, drop]])
    hem = curve(gap[2], (bottom, drop - 0.02), (-bottom, drop - 0.02), gap[3])
    return Piece("body", "lining", np.concatenate([gap[:2], hem]))


def _collar(s: Shape) -> list[Piece]:
    nw, size = s.neck_width, s.collar_size
    depth = min(s.neck_depth, 0.13)
    if s.collar in ("Shirt", "Polo"):
        spread = s.gap * 0.4 if s.is_open else 0.0
        leaf = np.array(
            [
                [nw * 0.8, -0.055 * size],
                [nw + 0.045 * size, 0.03],
                [nw * 0.85 + 0.03 * size, depth + 0.11 * size],
                [nw * 0.1 + spread, depth + 0.015],
            ]
        )
        stand = np.concatenate(
            [
                curve(
                    (-nw * 0.9, -0.05 * size),
                    (-nw * 0.5, -0.085 * size),
                    (nw * 0.5, -0.085 * size),
                    (nw * 0.9, -0.05 * size),
                ),
                curve((nw * 0.9, 0.01), (nw * 0.5, 0.04), (-nw * 0.5, 0.04), (-nw * 0.9, 0.01)),
            ]
        )
        return [
            Piece("back", "lining", stand),
            Piece("body", "trim", leaf),
            Piece("body", "trim", mirror(leaf)),
        ]
    if s.collar == "Stand-up":
        height = 0.1 * size
        stand = np.concatenate(
            [
                curve(
                    (-nw * 1.02, 0.03),
                    (-nw * 1.0, -0.3 * height),
                    (-nw * 0.96, -height),
                    (-nw * 0.9, -height),
                    5,
                ),
                curve(
                    (-nw * 0.9, -height),
                    (-nw * 0.4, -height * 1.25),
                    (nw * 0.4, -height * 1.25),
                    (nw * 0.9, -height),
                ),
                curve((nw * 0.9, -height), (nw * 0.96, -height), (nw, -0.3 * height), (nw * 1.02, 0.03), 5),
                curve(
                    (nw * 1.02, 0.03), (nw * 0.7, depth * 1.4), (-nw * 0.7, depth * 1.4), (-nw * 1.02, 0.03)
                ),
            ]
        )
        hole = np.concatenate(
            [
                curve(
                    (-nw * 0.86, -height * 0.98),
                    (-nw * 0.4, -height * 1.2),
                    (nw * 0.4, -height * 1.2),
                    (nw * 0.86, -height * 0.98),
                ),
                curve(
                    (nw * 0.86, -height * 0.98),
                    (nw * 0.5, -height * 0.3),
                    (-nw * 0.5, -height * 0.3),
                    (-nw * 0.86, -height * 0.98),
                ),
            ]
        )
        return [Piece("body", "trim", stand), Piece("body", "dark", hole)]
    if s.collar == "Hooded":
        wide, high = nw * 1.35 + 0.03 * size, 0.3 * size
        hood = np.concatenate(
            [
                curve((-nw - 0.05, 0.05), (-wide - 0.06, -0.1), (-wide, -high), (-wide * 0.3, -high), 10),
                curve(
                    (-wide * 0.3, -high),
                    (-wide * 0.1, -high * 1.04),
                    (wide * 0.1, -high * 1.04),
                    (wide * 0.3, -high),
                    4,
                ),
                curve((wide * 0.3, -high), (wide, -high), (wide + 0.06, -0.1), (nw + 0.05, 0.05), 10),
                curve(
                    (nw + 0.05, 0.05), (nw * 0.6, depth + 0.1), (-nw * 0.6, depth + 0.1), (-nw - 0.05, 0.05)
                ),
            ]
        )
        hole = np.concatenate(
            [
                curve((0, -high * 0.8), (nw * 1.25, -high * 0.8), (nw * 1.1, 0.0), (0, depth + 0.03)),
                curve((0, depth + 0.03), (-nw * 1.1, 0.0), (-nw * 1.25, -high * 0.8), (0, -high * 0.8)),
            ]
        )
        return [Piece("back", "main", hood), Piece("back", "dark", hole)]
    if s.collar == "Suit":
        meet = 0.5 * (nw * 0.75 + s.gap) if s.is_open else 0.0
        lapel = np.array(
            [
                [nw * 0.8, -0.05],
                [nw + 0.05, 0.02],
                [nw + 0.07 * size, 0.17],
                [nw + 0.02, 0.2],
                [nw + 0.09 * size, 0.25],
                [meet + 0.02, s.neck_depth + 0.05],
                [meet, s.neck_depth],
                [nw * 0.62, s.neck_depth * 0.42],
            ]
        )
        stand = np.concatenate(
            [
                curve((-nw, 0), (-nw * 0.5, -0.07), (nw * 0.5, -0.07), (nw, 0)),
                curve((nw, 0), (nw * 0.5, 0.04), (-nw * 0.5, 0.04), (-nw, 0)),
            ]
        )
        return [
            Piece("back", "trim", stand),
            Piece("body", "trim", lapel),
            Piece("body", "trim", mirror(lapel)),
        ]
    return []


def _waistband(waist: float, height: float, dip: float) -> list[Piece]:
    band = np.concatenate(
        [
            curve((-waist, 0), (-waist * 0.4, dip), (waist * 0.4, dip), (waist, 0)),
            [[waist * 1.5, -0.05], [waist * 1.5, height]],
            curve(
                (waist * 1.02, height),
                (waist * 0.4, height + dip),
                (-waist * 0.4, height + dip),
                (-waist * 1.02, height),
            ),
            [[-waist * 1.5, height], [-waist * 1.5, -0.05]],
        ]
    )
    inside = np.concatenate(
        [
            curve((-waist, 0), (-waist * 0.4, -dip * 0.4), (waist * 0.4, -dip * 0.4), (waist, 0)),
            curve((waist, 0), (waist * 0.4, dip + 0.01), (-waist * 0.4, dip + 0.01), (-waist, 0)),
        ]
    )
    return [Piece("back", "lining", inside), Piece("body", "band", band)]


def _skirt(s: Shape) -> Outline:
    waist, length = 0.42 * s.chest / 0.5, s.body_length
    hip = waist * s.hip
    hem = max(hip * s.hem / s.chest * (0.75 + s.crotch), waist * 0.9) * (0.8 + s.hem_vent * 3 + s.gap * 1.4)
    side = length - max(s.hem_curve, 0.0)
    half = np.concatenate(
        [
            curve((waist, 0), (waist * 1.1, length * 0.12), (hip, length * 0.25), (hip, length * 0.38)),
            curve((hip, length * 0.38), (hip * 1.02, length * 0.6), (hem * 0.96, length * 0.8), (hem, side)),
            _wavy(
                curve(
                    (hem, side),
                    (hem * 0.6, length + s.hem_curve),
                    (hem * 0.3, length + s.hem_curve),
                    (0, length + s.hem_curve),
                    24,
                ),
                s.pleats,
            ),
        ]
    )
    dip = 0.03
    body = np.concatenate(
        [half, mirror(half), curve((-waist, 0), (-waist * 0.4, dip), (waist * 0.4, dip), (waist, 0))]
    )
    pieces = [Piece("body", "main", body)] + _waistband(waist, 0.06 + 0.05 * s.collar_size, dip)
    return _finish(pieces, (waist, 0.0), None, body)


def _legs(s: Shape) -> Outline:
    waist, length, crotch = 0.4 * s.chest / 0.5, s.body_length, s.crotch
    hip = waist * s.hip
    thigh = hip * 0.98
    lean = np.tan(s.leg_angle) * (length - crotch)
    width = max(thigh * s.knee * (0.62 if s.category == "Trousers" else 1.0), 0.17)
    inner = 0.012 + lean * 0.55
    outer = max(inner + width, hip * 0.75)
    hem_tilt = 0.1 * s.leg_angle
    middle = (crotch + length) / 2
    half = np.concatenate(
        [
            curve((waist, 0), (waist * 1.06, crotch * 0.3), (hip, crotch * 0.6), (hip, crotch * 0.85)),
            curve((hip, crotch * 0.85), (hip * 1.0, middle), (outer, middle), (outer, length - hem_tilt), 10),
            curve(
                (outer, length - hem_tilt),
                (outer, length - hem_tilt),
                (inner, length + 0.02),
                (inner, length),
                5,
            ),
            curve((inner, length), (inner, middle), (0.03, crotch + 0.15), (0.0, crotch), 8),
        ]
    )
    dip = 0.03 + 0.03 * s.gap
    body = np.concatenate(
        [half, mirror(half), curve((-waist, 0), (-waist * 0.4, dip), (waist * 0.4, dip), (waist, 0))]
    )
    pieces = [Piece("body", "main", body)] + _waistband(waist, 0.05 + 0.05 * s.collar_size, dip)
    return _finish(pieces, (waist, 0.0), None, body)
