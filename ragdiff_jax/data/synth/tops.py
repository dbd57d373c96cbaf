"""The trunks of tops, dresses, swimsuits and shawls, with their necklines and straps."""

import numpy as np

from ragdiff_jax.data.synth.cutting import Piece, band, curve, hem_line, mirror, stuffed
from ragdiff_jax.data.synth.shape import Shape

CLOSED = ("Shirt", "Polo", "Hooded", "Stand-up", "Rounded", "Ruffled", "Baseball")  # collars that meet under the chin


def trunk(s: Shape) -> tuple[list[Piece], np.ndarray, np.ndarray]:
    """The pieces of body and back, the front neckline [n, 2] (left to right) and the right armhole [m, 2]."""
    if s.family == "shawl":
        return _shawl(s)
    line = neckline(s)
    armhole = _armhole(s)
    low = _swim_side(s) if s.family == "swimsuit" else _side(s)
    half = np.concatenate([armhole, low])
    if s.collar == "One-shoulder":
        body = _one_shoulder(s, half, low)
    else:
        body = np.concatenate([half, mirror(half), line])
    pieces = [Piece("body", "main", body)]
    edge = abs(line[0, 0])
    if s.bust:
        back = np.concatenate([[[-s.shoulder * 0.97, s.bust], [s.shoulder * 0.97, s.bust]], line[::-1]])
        pieces += _straps(s)
    elif s.collar == "One-shoulder":
        back = body[:0]
    else:
        dip = min(0.05, s.neck_depth * 0.4)
        nw = s.neck_width
        rear = curve((-nw, 0), (-nw * 0.5, dip), (nw * 0.5, dip), (nw, 0))
        back = np.concatenate([rear, [[nw, 0.0]], line[::-1]])
    if len(back) and edge:
        pieces.insert(0, Piece("back", "lining", back))
    if s.family == "swimsuit" and s.length == "Extra Short":
        pieces = _bikini(s, pieces)
    if s.train:
        pieces.insert(0, Piece("back", "main", _train(s)))
    return pieces + _seamed(s), line, armhole


def neckline(s: Shape) -> np.ndarray:
    """The front neckline from the left neck point to the right one, the end points left out."""
    nw, depth, top = (s.shoulder, s.neck_depth, s.bust) if s.bust else (s.neck_width, s.neck_depth, 0.0)
    if s.collar in CLOSED:
        depth = min(depth, 0.13)
    if s.neckline == "v":
        left = curve((-nw, 0), (-nw * 0.85, depth * 0.3), (-nw * 0.3, depth * 0.8), (0, depth), 8)
        line = np.concatenate([left, [[0, depth]], mirror(left)])[1:-1]
    elif s.neckline == "square" and not s.bust:
        line = np.array([[-nw * 0.95, depth * 0.5], [-nw * 0.9, depth], [nw * 0.9, depth], [nw * 0.95, depth * 0.5]])
    elif s.neckline in ("square", "straight"):
        line = np.array([[-nw * 0.5, 0.012], [nw * 0.5, 0.012]])
    elif s.neckline == "heart":
        left = curve((-nw, 0), (-nw * 0.75, -0.09), (-nw * 0.15, -0.06), (0, 0.05), 10)
        line = np.concatenate([left, [[0, 0.05]], mirror(left)])[1:-1]
    else:
        line = curve((-nw, 0), (-nw, depth * 1.33), (nw, depth * 1.33), (nw, 0), 14)[1:]
    return line + np.array([0.0, top])


def _armhole(s: Shape) -> np.ndarray:
    """From the right neck point over the shoulder and down to the underarm."""
    nw, sw, y0, arm_y = s.neck_width, s.shoulder, s.slope, s.slope + s.armhole
    if s.bust:
        return curve(
            (sw, s.bust), (sw * 1.05, s.bust + 0.6 * (arm_y - s.bust)), (s.chest * 0.98, arm_y - 0.08), (s.chest, arm_y)
        )
    start = np.array([sw - 0.012, y0 + 0.05])
    straight = (sw - nw) * (0.55 if s.sleeve_length else 0.85)
    deep = 0.05 if s.sleeve_length or s.sleeve_shape == "batwing" else 0.05 + 0.06 * (sw > nw + 0.2)
    return np.concatenate(
        [
            [[nw, 0.0]],
            curve((nw + straight, y0 * straight / (sw - nw)), (sw - 0.04, y0 - 0.03), (sw - 0.015, y0), start, 5),
            curve(start, (sw - deep, y0 + 0.5 * s.armhole), (s.chest * 0.86, arm_y - 0.04), (s.chest, arm_y)),
        ]
    )


def _side(s: Shape) -> np.ndarray:
    """From the right underarm down the side and along the hem to the middle."""
    arm_y, length = s.slope + s.armhole, s.body_length
    length = max(length, arm_y + 0.06)
    side_y = length - s.hem_vent - max(s.hem_curve, 0) * 0.3
    drop = length + s.hem_curve
    if s.family == "dress":
        waist_y = arm_y + max(s.waist_at, 0.12) * 0.75
        grow, skirt = s.hem - s.waist, length - waist_y
        top = curve((s.chest, arm_y), (s.chest * 0.95, arm_y + 0.1), (s.waist, waist_y - 0.12), (s.waist, waist_y))
        side = [top, _skirt_side(s, waist_y, side_y, grow, skirt)]
    else:
        waist_y = arm_y + (length - arm_y) * s.waist_at
        if s.hem_kind == "peplum":
            y = arm_y + 0.55 * (length - arm_y)
            side = [
                curve((s.chest, arm_y), (s.chest, arm_y + 0.1), (s.waist * 0.95, y - 0.1), (s.waist * 0.95, y)),
                curve((s.waist * 0.95, y), (s.waist, y + 0.05), (s.hem * 1.1, side_y - 0.08), (s.hem * 1.25, side_y)),
            ]
            return np.concatenate([*side, hem_line(s, s.hem * 1.25, side_y, drop)])
        side = [curve((s.chest, arm_y), (s.chest * 0.98, arm_y + 0.1), (s.waist, waist_y), (s.hem, side_y), 14)]
        if s.rib:  # cloth blouses over the rib
            puffed = s.hem + 0.03
            side = [
                curve((s.chest, arm_y), (s.chest, arm_y + 0.1), (s.waist, waist_y), (puffed, side_y - s.rib), 12),
                np.array([[s.hem, side_y - s.rib * 0.9]]),
            ]
    return np.concatenate([stuffed(s, np.concatenate(side), 0.0), hem_line(s, s.hem, side_y, drop)])


def _skirt_side(s: Shape, waist_y: float, side_y: float, grow: float, skirt: float) -> np.ndarray:
    at = [(s.waist, waist_y), (s.hem, side_y)]
    if s.tiers:  # each tier is gathered onto the one above
        edge = []
        for i in range(s.tiers):
            low, high = i / s.tiers, (i + 1) / s.tiers
            wide = s.waist + grow * low**0.8
            edge += [
                [wide + 0.03 * (i > 0), waist_y + low * skirt],
                [s.waist + grow * high, waist_y + high * skirt - 0.01],
            ]
        edge[-1] = [s.hem, side_y]
        return np.array(edge)
    if s.skirt_shape == "mermaid":
        knee = (s.waist * 1.08, waist_y + 0.6 * skirt)
        return np.concatenate(
            [
                curve(at[0], (s.waist * 1.3, waist_y + 0.25 * skirt), (knee[0], knee[1] - 0.15), knee),
                curve(knee, (knee[0], knee[1] + 0.1), (s.hem * 0.9, side_y - 0.1), at[1]),
            ]
        )
    return curve(
        at[0],
        (s.waist * 1.02 + 0.1 * grow, waist_y + 0.2 * skirt),
        (s.waist + grow * (0.7 + s.sleeve_bulge), waist_y + 0.6 * skirt),
        at[1],
        14,
    )


def _one_shoulder(s: Shape, half: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Cloth over the right shoulder only; `side` -1 puts it on the left."""
    arm_y = s.slope + s.armhole
    across = curve((-s.chest, arm_y), (-s.chest * 0.6, arm_y - 0.12), (s.neck_width * 0.2, 0.3), (s.neck_width, 0), 14)
    body = np.concatenate([half, mirror(low)[:-1], across])
    return body if s.side > 0 else mirror(body)


def _straps(s: Shape) -> list[Piece]:
    if not s.straps:
        return []
    pieces = []
    for sign in (1, -1):
        top, foot = s.neck_width * 0.85, s.shoulder * 0.93
        w = s.straps
        front = np.array([[top - w, 0], [top + w, 0], [foot + w, s.bust + 0.02], [foot - w, s.bust + 0.02]])
        back = np.array(
            [[top - w, 0], [top + w, 0], [foot * 0.75 + w, s.bust + 0.05], [foot * 0.75 - w, s.bust + 0.05]]
        )
        flip = np.array([sign, 1.0])
        pieces += [Piece("back", "dark", back * flip), Piece("body", "trim", front * flip)]
    return pieces


def _swim_side(s: Shape) -> np.ndarray:
    arm_y, length = s.slope + s.armhole, s.body_length
    hip_y = arm_y + (length - arm_y) * (0.62 - 0.25 * s.waist_at)
    waist_y = arm_y + (hip_y - arm_y) * 0.6
    hip, crotch = s.chest * 0.98, 0.075
    return np.concatenate(
        [
            curve((s.chest, arm_y), (s.chest, arm_y + 0.1), (s.waist * 0.9, waist_y - 0.12), (s.waist * 0.9, waist_y)),
            curve((s.waist * 0.9, waist_y), (s.waist * 0.95, waist_y + 0.1), (hip, hip_y - 0.15), (hip, hip_y)),
            curve((hip, hip_y), (hip * 0.55, hip_y + 0.02), (crotch * 2.2, length - 0.12), (crotch, length), 12),
            [[crotch, length], [0, length + 0.01]],
        ]
    )


def _bikini(s: Shape, pieces: list[Piece]) -> list[Piece]:
    """The swimsuit without its middle: a gap through all of it."""
    arm_y = s.slope + s.armhole
    hip_y = arm_y + (s.body_length - arm_y) * (0.62 - 0.25 * s.waist_at)
    top = arm_y + 0.06
    return [*pieces, Piece("body", "hole", band(top, max(hip_y - 0.14, top + 0.1)))]


def _shawl(s: Shape) -> tuple[list[Piece], np.ndarray, np.ndarray]:
    """A cape, a poncho, a triangle or a stole, laid around the neck's hole."""
    nw, sw, low, drop = s.neck_width, s.shoulder, s.body_length, s.body_length + s.hem_curve
    line = neckline(s)
    if s.skirt_shape == "circle":
        edge = curve((nw, 0), (sw * 0.9, 0.0), (sw * 1.2, low * 0.55), (sw * 1.1, low * 0.7), 12)
        half = np.concatenate([edge, hem_line(s, sw * 1.1, low * 0.7, drop)])
    elif s.skirt_shape == "flared":
        tip = np.array([[sw * 1.15, s.slope + 0.12]])
        side = curve((nw, 0), (nw * 2, 0.02), (sw * 0.8, s.slope), tip[0], 8)
        half = np.concatenate([side, tip, _slanted(s, tip[0], drop)])
    elif s.skirt_shape == "pencil":
        edge = np.array([[nw, 0], [sw, s.slope], [sw * 1.02, low * 0.96]])
        half = np.concatenate([edge, hem_line(s, sw * 1.02, low * 0.96, drop)])
    else:  # two ends hang down in front
        inner = nw * 0.5
        shoulder = curve((nw, 0), (nw * 1.6, 0.0), (sw * 0.7, s.slope), (sw * 0.75, s.slope + 0.2), 8)
        ends = np.array([[sw * 0.75 + 0.1 * s.waist, low], [inner, low + s.hem_curve], [inner * 0.7, 0.35]])
        half = np.concatenate([shoulder, ends, [[0, 0.3]]])
        line = line[(np.abs(line[:, 0]) > nw * 0.2) & (line[:, 1] < 0.28)]
    body = np.concatenate([half, mirror(half), line])
    rear = curve((-nw, 0), (-nw * 0.5, 0.03), (nw * 0.5, 0.03), (nw, 0))
    back = np.concatenate([rear, [[nw, 0.0]], line[::-1]])
    return [Piece("back", "lining", back), Piece("body", "main", body)], line, half[:3]


def _slanted(s: Shape, tip: np.ndarray, drop: float) -> np.ndarray:
    """A straight edge from the tip to the lowest point in the middle, fringed where the hem is."""
    n = 60 if s.hem_kind == "fringe" else 20
    t = np.linspace(0, 1, n, endpoint=False)[:, None]
    line = tip + t * (np.array([0.0, drop * 1.15]) - tip)
    if s.hem_kind == "fringe":
        line[1::2] += np.array([0.02, 0.1])
    elif s.hem_kind == "scalloped":
        line += 0.035 * np.abs(np.sin(t * np.pi * 6)) * np.array([0.5, 1.0])
    return line


def _train(s: Shape) -> np.ndarray:
    low = s.body_length + s.hem_curve
    wide = s.hem * 1.02
    rear = curve((wide, low - 0.1), (wide * 1.05, low + s.train), (wide * 0.4, low + s.train * 1.2), (0, low + s.train))
    return np.concatenate([[[wide * 0.9, low - 0.3]], rear, mirror(rear), [[-wide * 0.9, low - 0.3]]])


def _seamed(s: Shape) -> list[Piece]:
    """Panels in the sleeves' cloth and the holes of cut-outs."""
    pieces = []
    arm_y, low = s.slope + s.armhole, s.body_length
    if s.panels == "raglan":
        nw = s.neck_width
        seam = np.array([[nw * 0.9, 0.02], [nw, -0.05], [s.shoulder + 0.1, s.slope - 0.1], [s.chest + 0.1, arm_y]])
        under = curve((s.chest, arm_y + 0.01), (s.chest * 0.7, arm_y * 0.7), (nw * 1.1, 0.2), (nw * 0.9, 0.06), 6)
        seam = np.concatenate([seam, under])
        pieces += [Piece("body", "panel", seam), Piece("body", "panel", mirror(seam))]
    elif s.panels == "sides":
        wide = s.chest * 0.72
        strip = np.array([[wide, arm_y - 0.02], [3, arm_y - 0.2], [3, low + 0.5], [wide * 0.95, low + 0.5]])
        pieces += [Piece("body", "panel", strip), Piece("body", "panel", mirror(strip))]
    elif s.panels == "yoke":
        pieces.append(Piece("body", "panel", band(-0.3, s.slope + s.armhole * (0.45 + 0.4 * s.panel))))
    elif s.panels == "band":
        pieces.append(Piece("body", "panel", band(low * (0.72 + 0.2 * s.panel), low + 1)))
    for i in range(s.cutouts):
        y = arm_y + (low - arm_y) * (0.2 + 0.55 * ((i * 0.37 + s.panel) % 1.0))
        wide = s.chest * (0.22 + 0.2 * ((i * 0.61 + s.gap) % 1.0))
        hole = np.array([[0, -0.6], [0.75, 0], [0, 0.6], [-0.75, 0]]) * wide
        if i % 2 == s.side % 2:
            t = np.linspace(0, 2 * np.pi, 16, endpoint=False)
            hole = np.stack([0.6 * np.cos(t), 0.45 * np.sin(t)], -1) * wide
        x = s.waist * (0.75, 0.0, -0.75)[(i + int(s.side > 0)) % 3]
        pieces.append(Piece("body", "hole", hole + np.array([x, y])))
        if i == 0 and abs(x) > 0:
            pieces.append(Piece("body", "hole", hole * np.array([-1, 1]) + np.array([-x, y])))
    return pieces
