"""Skirts, trousers and shorts. The origin is the middle of the waist."""

import numpy as np

from ragdiff_jax.data.synth.cutting import Piece, band, curve, hem_line, mirror
from ragdiff_jax.data.synth.shape import Shape


def bottom_pieces(s: Shape) -> list[Piece]:
    half, waist, dip = _skirt(s) if s.family == "skirt" else _legs(s)
    top = curve((-waist, 0), (-waist * 0.4, dip), (waist * 0.4, dip), (waist, 0))
    pieces = [Piece("body", "main", np.concatenate([half, mirror(half), top]))]
    return [_inside(waist, dip), *_sewn_on(s, pieces, waist, dip)]


def waistband_height(s: Shape) -> float:
    return (0.06 if s.family == "skirt" else 0.05) + 0.05 * min(s.collar_size, 1.5)


def waist_width(s: Shape) -> float:
    return (0.42 if s.family == "skirt" else 0.4) * s.chest / 0.5


def _sewn_on(s: Shape, pieces: list[Piece], waist: float, dip: float) -> list[Piece]:
    low = s.body_length
    if s.panels == "band":
        pieces.append(Piece("body", "panel", band(low * (0.68 + 0.2 * s.panel), low + 1)))
    elif s.panels == "sides":
        edge = waist * (1.0 if s.family == "skirt" else 0.95)
        lean = np.tan(s.leg_angle) * low if s.family == "legs" else 0.0
        strip = np.array([[edge, -0.1], [3, -0.1], [3, low + 0.5], [edge + lean * 0.85, low + 0.5]])
        pieces += [Piece("body", "panel", strip), Piece("body", "panel", mirror(strip))]
    height = waistband_height(s)
    belt = np.concatenate(
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
    pieces.append(Piece("body", "band", belt))
    if s.family == "skirt" and s.slit:
        x = s.side * waist * 0.45
        pieces.append(
            Piece("body", "hole", np.array([[x, low - s.slit], [x + 0.05, low + 0.3], [x - 0.05, low + 0.3]]))
        )
    if s.leg_shape == "tapered" and s.family == "legs" and s.category == "Trousers":
        pieces.append(Piece("body", "band", band(low - 0.11, low + 0.5)))
    for i in range(s.cutouts):
        y, wide = low * (0.3 + 0.16 * i), waist * 0.3
        hole = np.array([[0, -0.5], [0.6, 0], [0, 0.5], [-0.6, 0]]) * wide
        x = waist * (0.55 + 0.1 * i) * (1 if i % 2 else -1)
        pieces.append(Piece("body", "hole", hole + np.array([x, y])))
    return pieces


def _inside(waist: float, dip: float) -> Piece:
    inside = np.concatenate(
        [
            curve((-waist, 0), (-waist * 0.4, -dip * 0.4), (waist * 0.4, -dip * 0.4), (waist, 0)),
            curve((waist, 0), (waist * 0.4, dip + 0.01), (-waist * 0.4, dip + 0.01), (-waist, 0)),
        ]
    )
    return Piece("back", "lining", inside)


def skirt_widths(s: Shape) -> tuple[float, float, float]:
    """Half-widths at waist, hip and hem."""
    waist = waist_width(s)
    hip = waist * s.hip
    spread = 0.8 + 1.4 * s.gap
    flare = {"pencil": 0.88, "flared": 1.35, "circle": 2.0, "tulip": 0.8, "mermaid": 1.5}[s.skirt_shape]
    hem = hip * flare * (0.8 + 0.4 * s.crotch) * (spread if s.skirt_shape not in ("pencil", "tulip") else 1.0)
    return waist, hip, max(hem, waist * 0.75)


def _skirt(s: Shape) -> tuple[np.ndarray, float, float]:
    waist, hip, hem = skirt_widths(s)
    length = s.body_length
    side, drop, dip = length - max(s.hem_curve, 0.0), length + s.hem_curve, 0.03
    if s.skirt_shape == "circle" and not s.tiers:
        side -= 0.12 * length  # a wide circle's hem curves upwards at the sides
    if s.tiers:
        edge = [[waist, 0.0]]
        for i in range(s.tiers):
            low, high = i / s.tiers, (i + 1) / s.tiers
            wide = waist + (hem - waist) * low**0.7
            edge += [
                [wide + 0.05 * (i > 0), low * side + 0.02],
                [waist + (hem - waist) * high**0.7 + 0.03, high * side - 0.01],
            ]
        edge[-1] = [hem, side]
        return np.concatenate([edge, hem_line(s, hem, side, drop)]), waist, dip
    if s.skirt_shape == "tulip":
        line = [curve((waist, 0), (hip * 1.3, length * 0.1), (hip * 1.35, length * 0.6), (hem, side), 18)]
    elif s.skirt_shape in ("flared", "circle"):
        line = [curve((waist, 0), (waist * 1.12, length * 0.12), (hem * 0.85, length * 0.65), (hem, side), 18)]
    else:
        knee = (hip * (0.98 if s.skirt_shape == "pencil" else 0.85), length * 0.66)
        line = [
            curve((waist, 0), (waist * 1.1, length * 0.12), (hip, length * 0.22), (hip, length * 0.36)),
            curve((hip, length * 0.36), (hip, length * 0.5), (knee[0], knee[1] - 0.1), knee),
            curve(knee, (knee[0], knee[1] + 0.1), (hem * 0.96, length * 0.85), (hem, side)),
        ]
    return np.concatenate([*line, hem_line(s, hem, side, drop)]), waist, dip


def leg_middle(s: Shape, y: float) -> float:
    """The x of the middle of the right leg at height y, for creases and pockets."""
    waist = waist_width(s)
    return waist * 0.5 + np.tan(s.leg_angle) * max(y - s.crotch * 0.5, 0.0) * 0.55


def _legs(s: Shape) -> tuple[np.ndarray, float, float]:
    waist, length, crotch = waist_width(s), s.body_length, min(s.crotch, s.body_length - 0.08)
    hip = waist * (1 + 0.7 * (s.hip - 1))
    lean = np.tan(s.leg_angle) * (length - crotch)
    trousers = s.category == "Trousers"
    share = {"straight": 0.62, "skinny": 0.4, "flared": 0.82, "wide": 0.95, "tapered": 0.45, "harem": 0.36}
    width = max(hip * 0.98 * s.knee * (share[s.leg_shape] if trousers else 1.0), 0.15)
    if not trousers and s.leg_shape == "wide":
        width *= 1.35
    inner = 0.012 + lean * 0.55
    outer = max(inner + width, hip * (0.5 if s.leg_shape in ("skinny", "tapered", "harem") else 0.72))
    knee_y = crotch + 0.5 * (length - crotch)
    low = length - 0.1 * s.leg_angle
    if trousers:
        narrow = {"skinny": 0.9, "flared": 0.62, "tapered": 1.2, "harem": 1.5, "wide": 1.0}.get(s.leg_shape, 0.95)
        knee, shin = max((hip + outer) / 2 * narrow, inner * 0.5 + 0.14, hip * 0.55), low - knee_y
        side = [
            curve((waist, 0), (waist * 1.06, crotch * 0.3), (hip, crotch * 0.6), (hip, crotch * 0.85)),
            curve((hip, crotch * 0.85), (hip, crotch), (knee, (crotch + knee_y) / 2), (knee, knee_y), 10),
            curve((knee, knee_y), (knee, knee_y + 0.3 * shin), (outer, low - 0.3 * shin), (outer, low), 8),
        ]
    else:
        outer = min(outer, hip + 0.35 * (low - 0.3 * crotch))
        side = [curve((waist, 0), (hip * 1.02, low * 0.25), ((hip + outer) / 2, low * 0.6), (outer, low), 16)]
    if s.hem_kind in ("fringe", "ruffle"):
        t = np.linspace(0, 1, 24, endpoint=False)
        x = outer + (inner - outer) * t
        wave = 0.05 * (np.arange(24) % 2) if s.hem_kind == "fringe" else 0.03 * np.sin(t * 6 * np.pi)
        foot = np.stack([x, low + (length - low) * t + wave], -1)
    else:
        foot = curve((outer, low), (outer, low), (inner, length + 0.02), (inner, length), 5)
    half = np.concatenate(
        [
            *side,
            foot,
            curve((inner, length), (inner * 0.95, knee_y), (0.03, crotch + 0.15), (0.0, crotch), 10),
        ]
    )
    return half, waist, 0.03 + 0.03 * s.gap
