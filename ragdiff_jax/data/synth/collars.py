"""Collars, hoods and lapels: pieces around the neck, above the trunk."""

import numpy as np

from ragdiff_jax.data.synth.cutting import Piece, curve, mirror
from ragdiff_jax.data.synth.shape import Shape


def collar_pieces(s: Shape, line: np.ndarray) -> list[Piece]:
    """`line` is the front neckline, left to right."""
    if s.is_bottom or s.family == "shawl":
        return []
    draw = {
        "Shirt": _shirt,
        "Polo": _shirt,
        "Stand-up": _stand,
        "Hooded": _hood,
        "Suit": _lapels,
        "Notched": _camp,
        "Rounded": _peter_pan,
        "Ruffled": _ruffles,
        "Naval": _sailor,
        "Off-shoulder": _flounce,
        "Baseball": _rib,
    }.get(s.collar)
    if draw is None:
        return _shawl_collar(s, line) if s.opening == "wrap" else []
    return draw(s, line)


def _depth(s: Shape) -> float:
    return min(s.neck_depth, 0.13)


def _band_behind(nw: float, high: float, wide: float = 1.0) -> np.ndarray:
    """The collar's stand behind the neck."""
    x = nw * wide
    return np.concatenate(
        [
            curve((-x, 0), (-x * 0.5, -high), (x * 0.5, -high), (x, 0)),
            curve((x, 0), (x * 0.5, 0.04), (-x * 0.5, 0.04), (-x, 0)),
        ]
    )


def _both(group: str, paint: str, polygon: np.ndarray) -> list[Piece]:
    return [Piece(group, paint, polygon), Piece(group, paint, mirror(polygon))]


def _shirt(s: Shape, line) -> list[Piece]:
    nw, size, depth = s.neck_width, s.collar_size, _depth(s)
    spread = s.gap * 0.4 if s.is_open else 0.0
    leaf = np.array(
        [
            [nw * 0.8, -0.055 * min(size, 1.4)],
            [nw + 0.045 * size, 0.03],
            [nw * 0.85 + 0.03 * size + 0.12 * max(size - 1.4, 0), depth + 0.11 * size],
            [nw * 0.1 + spread, depth + 0.015],
        ]
    )
    stand = _band_behind(nw, 0.085 * size, 0.95) - np.array([0, 0.02])
    return [Piece("back", "lining", stand), *_both("body", "trim", leaf)]


def _stand(s: Shape, line) -> list[Piece]:
    nw, depth, height = s.neck_width, _depth(s), 0.1 * s.collar_size
    if s.fabric in ("Knitting", "Wool", "Knit") or s.quilt:
        height *= 1.3  # a turtleneck, a stuffed collar
    x = nw * 1.02
    stand = np.concatenate(
        [
            curve((-x, 0.03), (-nw, -0.3 * height), (-nw * 0.96, -height), (-nw * 0.9, -height), 5),
            curve((-nw * 0.9, -height), (-nw * 0.4, -height * 1.25), (nw * 0.4, -height * 1.25), (nw * 0.9, -height)),
            curve((nw * 0.9, -height), (nw * 0.96, -height), (nw, -0.3 * height), (x, 0.03), 5),
            curve((x, 0.03), (nw * 0.7, depth * 1.4), (-nw * 0.7, depth * 1.4), (-x, 0.03)),
        ]
    )
    y = -height
    hole = np.concatenate(
        [
            curve((-nw * 0.86, y * 0.98), (-nw * 0.4, y * 1.2), (nw * 0.4, y * 1.2), (nw * 0.86, y * 0.98)),
            curve((nw * 0.86, y * 0.98), (nw * 0.5, y * 0.3), (-nw * 0.5, y * 0.3), (-nw * 0.86, y * 0.98)),
        ]
    )
    return [Piece("body", "trim", stand), Piece("body", "dark", hole)]


def _hood(s: Shape, line) -> list[Piece]:
    nw, size, depth, high = s.neck_width, s.collar_size, _depth(s), s.hood
    wide = nw * 1.35 + 0.03 * size
    peak = 0.3 if s.collar_size < 1.1 else 0.05  # rounded or pointed
    hood = np.concatenate(
        [
            curve((-nw - 0.05, 0.05), (-wide - 0.06, -0.1), (-wide, -high), (-wide * peak, -high), 12),
            curve(
                (-wide * peak, -high), (-wide * 0.1, -high * 1.04), (wide * 0.1, -high * 1.04), (wide * peak, -high), 4
            ),
            curve((wide * peak, -high), (wide, -high), (wide + 0.06, -0.1), (nw + 0.05, 0.05), 12),
            curve((nw + 0.05, 0.05), (nw * 0.6, depth + 0.1), (-nw * 0.6, depth + 0.1), (-nw - 0.05, 0.05)),
        ]
    )
    top = -high * 0.82
    hole = np.concatenate(
        [
            curve((0, top), (nw * 1.25, top), (nw * 1.1, 0.0), (0, depth + 0.03)),
            curve((0, depth + 0.03), (-nw * 1.1, 0.0), (-nw * 1.25, top), (0, top)),
        ]
    )
    pieces = [Piece("back", "main", hood), Piece("back", "dark", hole)]
    if s.fabric in ("Coated", "Special Fabric") and s.quilt:  # a fur trim along the edge
        edge = np.concatenate([hole * 1.12 + np.array([0, 0.01]), hole[::-1]])
        pieces.insert(1, Piece("back", "trim", edge))
    return pieces


def _lapels(s: Shape, line) -> list[Piece]:
    nw, size, deep = s.neck_width, s.collar_size, s.neck_depth
    meet = 0.5 * (nw * 0.75 + s.gap) if s.is_open else 0.0
    lapel = np.array(
        [
            [nw * 0.8, -0.05],
            [nw + 0.05, 0.02],
            [nw + 0.07 * size, 0.17],
            [nw + 0.02, 0.2],
            [nw + 0.09 * size, 0.25 + 0.05 * max(size - 1.4, 0)],
            [meet + 0.02, deep + 0.05],
            [meet, deep],
            [nw * 0.62, deep * 0.42],
        ]
    )
    return [Piece("back", "trim", _band_behind(nw, 0.07)), *_both("body", "trim", lapel)]


def _camp(s: Shape, line) -> list[Piece]:
    """A collar laid open in a V: camp shirts, pyjamas, biker jackets."""
    nw, size, deep = s.neck_width, s.collar_size, s.neck_depth
    meet = 0.5 * (nw * 0.75 + s.gap) if s.is_open else 0.0
    upper = np.array([[nw * 0.75, -0.06], [nw + 0.06 * size, 0.0], [nw + 0.1 * size, 0.1], [nw * 0.75, deep * 0.4]])
    lower = np.array(
        [
            [nw * 0.72, deep * 0.36],
            [nw + 0.05 * size, deep * 0.42 + 0.02],
            [meet + 0.02, deep + 0.03],
            [meet, deep - 0.01],
        ]
    )
    behind = Piece("back", "trim", _band_behind(nw, 0.08))
    return [behind, *_both("body", "trim", lower), *_both("body", "trim", upper)]


def _peter_pan(s: Shape, line) -> list[Piece]:
    nw, size, depth = s.neck_width, s.collar_size, _depth(s)
    wide = 0.11 * size
    leaf = np.concatenate(
        [
            curve((nw * 0.9, -0.03), (nw + wide, 0.0), (nw + wide, depth + wide * 1.1), (nw * 0.45, depth + wide), 12),
            curve((nw * 0.45, depth + wide), (nw * 0.1, depth + wide * 0.9), (0.005, depth + 0.03), (0.005, depth), 5),
            curve((0.005, depth), (nw * 0.7, depth), (nw, depth * 0.4), (nw * 0.9, -0.03), 8),
        ]
    )
    return [Piece("back", "trim", _band_behind(nw, 0.06, 0.95)), *_both("body", "trim", leaf)]


def _ruffles(s: Shape, line) -> list[Piece]:
    nw, depth = s.neck_width, _depth(s)
    wide = 0.09 * s.collar_size
    t = np.linspace(np.pi * 1.02, -np.pi * 0.02, 49)
    inner = np.stack([nw * np.cos(t), depth * np.sin(t)], -1)
    wave = wide * (1 + 0.22 * np.cos(np.linspace(0, 24 * np.pi, 49)))
    outer = np.stack([(nw + wave) * np.cos(t), (depth + wave) * np.sin(t)], -1)
    return [Piece("back", "trim", _band_behind(nw, 0.08)), Piece("body", "trim", np.concatenate([inner, outer[::-1]]))]


def _sailor(s: Shape, line) -> list[Piece]:
    nw, deep = s.neck_width, max(s.neck_depth, 0.25)
    wide = min(nw + 0.13 * s.collar_size, s.shoulder * 0.95)
    leaf = np.array([[nw * 0.85, -0.03], [wide, s.slope * 0.6], [wide * 0.98, 0.2], [0.02, deep + 0.08], [0.0, deep]])
    tie = np.array([[0.0, deep], [0.1, deep + 0.2], [0.03, deep + 0.22], [0.0, deep + 0.1]])
    behind = Piece("back", "trim", _band_behind(nw, 0.05))
    return [behind, *_both("body", "trim", leaf), *_both("body", "dark", tie)]


def _flounce(s: Shape, line) -> list[Piece]:
    wide, top = max(s.shoulder, s.chest * 0.9) + 0.07, s.bust
    low = top + 0.16 * s.collar_size
    t = np.linspace(0, 1, 40)
    edge = np.stack([wide * (1.12 - 2.24 * t), low + 0.03 * np.cos(t * 20 * np.pi) + 0.05 * np.sin(np.pi * t)], -1)
    upper = curve((-wide, top + 0.03), (-wide * 0.4, top - 0.03), (wide * 0.4, top - 0.03), (wide, top + 0.03))
    return [Piece("body", "trim", np.concatenate([upper, edge]))]


def _rib(s: Shape, line) -> list[Piece]:
    """The knitted band of a bomber jacket: a low stand."""
    nw, depth = s.neck_width, _depth(s)
    t = np.linspace(np.pi, 0, 20)
    inner = np.stack([nw * np.cos(t), depth * np.sin(t)], -1)
    wide = 0.07
    outer = np.stack([(nw + wide * 0.4) * np.cos(t), (depth + wide) * np.sin(t)], -1)
    return [Piece("back", "trim", _band_behind(nw, 0.075)), Piece("body", "trim", np.concatenate([inner, outer[::-1]]))]


def _shawl_collar(s: Shape, line) -> list[Piece]:
    """The facing of a robe: a band that goes around the neck and down both edges."""
    nw, deep, wide = s.neck_width, max(s.neck_depth, 0.3), 0.06 + 0.04 * s.collar_size
    meet = s.gap * 0.5 if s.is_open else 0.0
    leaf = np.array([[nw * 0.8, -0.03], [nw + wide * 0.7, 0.02], [nw * 0.7 + wide, deep * 0.6]])
    foot = np.array([[meet + wide * 0.6, deep + 0.1], [meet - 0.02, deep + 0.04], [nw * 0.55, deep * 0.5]])
    return [Piece("back", "trim", _band_behind(nw, 0.06)), *_both("body", "trim", np.concatenate([leaf, foot]))]
