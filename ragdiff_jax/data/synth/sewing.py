"""What is sewn onto the cloth: seams, neck ribs, openings, buttons, pockets, belts, marks."""

import numpy as np

from ragdiff_jax.data.synth.bottoms import leg_middle, waist_width, waistband_height
from ragdiff_jax.data.synth.colours import RGB, scaled
from ragdiff_jax.data.synth.looks import PLACED
from ragdiff_jax.data.synth.marks import draw_mark
from ragdiff_jax.data.synth.needle import Needle
from ragdiff_jax.data.synth.outline import Outline
from ragdiff_jax.data.synth.tops import CLOSED

_CORD = (232, 232, 228)


def sew_body(n: Needle, cut: Outline) -> None:
    s = n.s
    if s.is_bottom:
        _bottom(n)
    else:
        _mark(n)
        _neck(n, cut)
        _hem(n)
        _panels(n)
        _front(n)
        _pockets(n)
        if s.family == "dress":
            _dress(n)
    if s.belt:
        _belt(n)


def sew_sleeve(n: Needle, side: int) -> None:
    s, look = n.s, n.look
    along = np.array([np.sin(s.sleeve_angle), np.cos(s.sleeve_angle)])
    across = np.array([-along[1], along[0]])
    pivot, flip = np.array([s.shoulder, s.slope]), np.array([side, 1.0])
    end = pivot + along * s.sleeve_length

    def line(points, colour=None, width=1.0):
        n.line(np.asarray(points) * flip, colour, width)

    if s.category == "Sports Jacket" or (s.category in ("Hoodie", "Windbreaker") and look.variant % 6 == 0):
        for i in range(1 + look.variant % 3):
            shift = across * (0.05 + 0.05 * i)
            n.ribbon(np.stack([pivot + shift, end + shift]) * flip, look.trim if i % 2 else look.colours[1], 0.025)
    if s.fabric == "Denim" or s.category in ("Suit", "Leather Jacket"):
        line([pivot + across * 0.75 * s.armhole, end + across * 0.7 * s.cuff], n.stitch)
    if not (s.rib or s.rolled) and s.sleeve_shape not in ("puff", "bishop"):
        back = end - along * 0.06
        line([back - across * 0.3, back + across * (s.cuff + 0.3)], n.thread if n.denim else n.stitch)
        if s.category in ("Loungewear Top", "Robe") or (s.fabric == "Leather" and look.variant % 2):
            back = end - along * 0.1
            n.ribbon(np.stack([back - across * 0.3, back + across * (s.cuff + 0.3)]) * flip, look.trim, 0.018)
    if s.rib:
        feet = [end + across * t for t in np.arange(0.02, s.cuff, 0.045)]
        strokes = [((foot - along * s.rib) * flip, (foot + along * 0.02) * flip) for foot in feet]
        n.lines(strokes, scaled(look.trim, 0.85))
    if s.sleeve_shape in ("puff", "bishop"):
        for t in np.linspace(0.1, 0.9, 6):
            foot = end + across * s.cuff * t - along * 0.05
            line([foot, foot - along * 0.16 + across * 0.05 * (t - 0.5)], n.stitch)


def _mark(n: Needle) -> None:
    s, look = n.s, n.look
    if look.print not in PLACED or s.is_open or s.opening not in ("none", "quarter"):
        return
    x, y = look.logo_at
    room = s.body_length - s.neck_depth - 0.12
    width = min(look.logo_size, s.chest * 1.5, max(room * 0.8, 0.1))
    if width < 0.2:
        x = s.chest * 0.45
    low = s.neck_depth + (0.3 if s.opening == "quarter" else 0.06)
    y = max(y, low + width * 0.4) if width > 0.2 else y
    draw_mark(n.draw, look, n.at([(x, y)])[0], width * n.scale)


def _neck(n: Needle, cut: Outline) -> None:
    s, look = n.s, n.look
    line = cut.neckline
    plain = s.collar in ("Round", "V-neck", "Square", "Neckline", "Strapless")
    if line is not None and len(line) and plain and s.opening != "wrap" and s.family != "shawl":
        x, y = (s.shoulder, s.bust) if s.bust else (s.neck_width, 0.0)
        rib = np.concatenate([[[-x, y]], line, [[x, y]]])
        fine = s.family in ("dress", "swimsuit") or s.bust
        wide = 0.022 if fine else 0.035 + 0.03 * min(s.collar_size, 1.4)
        n.ribbon(rib, look.trim, wide * 2)
        n.line(rib + np.array([0, wide]), scaled(look.trim, 0.75))
        if s.category == "Innerwear" and look.variant % 2:  # lace along the edge
            t = np.linspace(-x * 0.95, x * 0.95, 13)
            edge = np.interp(t, rib[:, 0], rib[:, 1])
            for a, b in zip(t.tolist(), edge.tolist(), strict=True):
                n.dot(a, b + 0.045, 0.02, look.trim)
    if not s.sleeve_length and cut.armhole is not None and s.family != "shawl":
        start = 0 if s.bust else 2
        for side in (1, -1):
            edge = cut.armhole[start:] * np.array([side, 1.0])
            if s.collar == "One-shoulder" and side != s.side:
                continue
            n.ribbon(edge, look.trim, 0.05 if s.category == "Tank" else 0.026)
    if s.collar == "One-shoulder":
        foot = np.array([[s.neck_width * s.side, 0.0], [-s.chest * s.side, s.slope + s.armhole]])
        n.line(foot, n.stitch)


def _hem(n: Needle) -> None:
    s, look = n.s, n.look
    low, side = s.body_length + s.hem_curve, s.body_length - 0.07
    if s.rib:
        ribs = [x for x in np.arange(-s.hem - 0.05, s.hem + 0.05, 0.05) if not s.is_open or abs(x) > s.gap]
        n.lines([((x, low - s.rib), (x, low)) for x in ribs], scaled(look.trim, 0.85))
        return
    if s.family == "shawl" or s.hem_kind in ("fringe", "points") or s.quilt:
        return
    n.line([(-s.hem * 1.3, side), (0, low - 0.06), (s.hem * 1.3, side)], n.thread if n.denim else None)
    if s.hem_kind in ("ruffle", "peplum"):
        y = low - 0.16 if s.hem_kind == "ruffle" else s.slope + s.armhole + 0.55 * (low - s.slope - s.armhole)
        n.line([(-s.hem * 1.4, y), (s.hem * 1.4, y)], n.dark, 1.5)
        n.lines([((x * 0.95, y), (x, y + 0.09)) for x in np.linspace(-s.hem, s.hem, 15)])
    elif s.hem_kind == "tie":
        y = low - 0.08
        for a in (-0.16, 0.12):
            n.fill([(0, y), (a, y + 0.22), (a + 0.09, y + 0.2)], scaled(n.base, 0.85), n.dark)
        n.dot(0.0, y, 0.05, scaled(n.base, 0.9))
        for a in (-0.4, -0.2, 0.2, 0.4):
            n.line([(a * 0.15, y - 0.02), (a, y - 0.16)], n.dark)
    if s.train:
        n.line([(-s.hem * 1.1, low - 0.03), (0, low), (s.hem * 1.1, low - 0.03)], n.dark)


def _panels(n: Needle) -> None:
    s = n.s
    arm_y, low = s.slope + s.armhole, s.body_length + s.hem_curve
    seam = n.thread if n.denim else n.stitch
    if s.panels == "yoke":
        y = s.slope + s.armhole * (0.45 + 0.4 * s.panel)
        n.line([(-1, y), (1, y)], seam)
        if n.denim:
            n.line([(-1, y + 0.02), (1, y + 0.02)], seam)
    elif s.panels == "princess":
        for side in (1, -1):
            points = [
                (s.shoulder * 0.85, arm_y * 0.55),
                (s.chest * 0.55, arm_y),
                (s.waist * 0.5, arm_y + 0.35),
                (s.hem * 0.55, low),
            ]
            n.line([(side * x, y) for x, y in points], seam)
    elif s.panels == "raglan" and n.look.print != "Color Block":
        for side in (1, -1):
            n.line([(side * s.neck_width, 0.03), (side * (s.neck_width + 0.1), 0.22), (side * s.chest, arm_y)], seam)
    if s.category == "Suit" or (
        s.family == "dress" and s.opening == "none" and not s.tiers and n.look.variant % 3 == 0
    ):
        for side in (1, -1):
            n.line([(side * s.chest * 0.5, arm_y - 0.05), (side * s.waist * 0.5, arm_y + 0.3)], n.stitch)


def _front(n: Needle) -> None:
    s, look = n.s, n.look
    low = s.body_length + s.hem_curve
    if s.collar == "Hooded" and not s.is_open and s.category != "Robe":
        for side, end in ((-1, 0.42), (1, 0.38)):
            n.line([(side * 0.07, 0.15), (side * 0.085, end)], _CORD if look.variant % 3 else look.trim, 2)
    if s.opening == "none":
        return
    start = min(s.neck_depth, 0.13) if s.collar in CLOSED else s.neck_depth
    start = start + (0.04 if s.collar == "Hooded" else 0.0)
    end = start + 0.3 if s.opening == "quarter" else low
    edge = scaled(n.base, 0.62)
    if s.is_open:
        for side in (1, -1):
            n.line([(side * s.neck_width * 0.75, start * 0.6), (side * s.gap, low)], edge, 2)
            if s.opening in ("zip", "biker"):
                n.line([(side * s.neck_width * 0.8, start * 0.6), (side * (s.gap + 0.02), low)], look.hardware, 1.5)
        return
    if s.opening == "wrap":
        n.line([(0.0, start), (s.side * s.hem * 0.35, low)], edge, 2.5)
        if not s.belt and s.family == "top":
            n.dot(s.side * 0.12, min(start + 0.2, low - 0.1), 0.03, look.hardware)
        return
    metal = look.hardware if look.variant % 3 else scaled(n.base, 0.5)
    if s.opening == "biker":
        line = [(s.side * s.neck_width * 0.6, start * 0.7), (-s.side * 0.05, low)]
        n.line(line, edge, 5)
        n.line(line, metal, 2)
        return
    if s.opening == "zip" or (s.opening == "quarter" and s.collar not in ("Polo", "Shirt") and look.variant % 4):
        n.line([(0, start), (0, end)], edge, 5)
        n.line([(0, start), (0, end)], metal, 2)
        n.dot(0.0, start + 0.03, 0.012, metal)
        return
    _buttons(n, start, end)


def _buttons(n: Needle, start: float, end: float) -> None:
    s, look = n.s, n.look
    suit = s.collar == "Suit"
    half = 0.0 if suit else 0.035
    edge = n.thread if n.denim else scaled(n.base, 0.62)
    for x in {-half, half}:
        n.line([(x, start), (x, end)], edge)
    if s.opening == "quarter":
        n.line([(-half, end), (half, end)], edge)
    kinds: tuple[RGB, ...] = ((40, 36, 34), (236, 232, 222), scaled(look.trim, 0.6), look.hardware)
    button = kinds[3] if n.denim else kinds[look.variant % 3]
    count = (3 if look.variant % 2 else 2) if s.opening == "quarter" or suit else 5 + look.variant % 3
    double = (
        suit and look.variant % 4 == 0 or s.category in ("Leather Long Coat", "Knitted Coat") and look.variant % 3 == 0
    )
    last = end - (0.05 if s.opening == "quarter" else 0.15)
    if suit:
        last = min(last, start + 0.16 * count)
    for y in np.linspace(start + 0.05, max(last, start + 0.1), count):
        for x in (-0.11, 0.11) if double else (0.04 if suit else 0.0,):
            n.dot(x, y, 0.024 if suit or double else 0.015, button)


def _pockets(n: Needle) -> None:
    s, look = n.s, n.look
    low, arm_y = s.body_length + s.hem_curve, s.slope + s.armhole
    seam = n.thread if n.denim else n.dark
    if s.pocket == "kangaroo" and not s.is_open:
        y, wide = low - (s.rib or 0.06), s.chest * 0.62
        half = [(wide * 0.6, y - 0.34), (wide, y - 0.1), (wide, y)]
        n.line([*((-a, b) for a, b in half[::-1]), *half, (-wide, y)], n.dark, 2)
        if s.opening == "zip":
            n.line([(0, y - 0.34), (0, y)], look.hardware, 2)
    elif s.pocket == "chest":
        x, y, w = s.chest * 0.48, s.slope + s.armhole * 0.72, 0.13 if s.chest > 0.42 else 0.1
        both = s.is_outer or (s.category == "Shirt" and look.variant % 2)
        for side in (1, -1) if both else (1,):
            shape = [(x - w, y), (x + w, y), (x + w, y + 0.24), (x, y + 0.29), (x - w, y + 0.24), (x - w, y)]
            n.line([(side * a, b) for a, b in shape], seam, 1.5)
            if both:
                n.line([(side * a, b) for a, b in ((x - w, y + 0.07), (x, y + 0.1), (x + w, y + 0.07))], seam, 1.5)
                n.dot(side * x, y + 0.085, 0.013, look.hardware)
            elif s.category == "Loungewear Top":
                n.ribbon([(x - w, y), (x + w, y)], look.trim, 0.03)
    elif s.pocket == "sides":
        y = arm_y + 0.45 * (low - arm_y)
        for side in (1, -1):
            if s.category in ("Suit", "Waistcoat", "Leather Short Coat", "Leather Long Coat", "Jacket"):
                x, w = side * s.hem * 0.52, 0.11
                flap = [(x - w, y), (x + w, y), (x + w, y + 0.06), (x - w, y + 0.06)]
                n.fill(flap, scaled(n.base, 0.93), n.dark)
            else:
                colour = look.hardware if s.opening == "zip" and look.variant % 2 else n.dark
                n.line([(side * s.hem * 0.5, y), (side * s.hem * 0.72, y + 0.2)], colour, 3)
        if s.category in ("Suit", "Waistcoat"):
            n.line([(s.chest * 0.3, arm_y - 0.08), (s.chest * 0.58, arm_y - 0.1)], n.dark, 2)
    elif s.pocket == "patch":
        y = arm_y + 0.5 * (low - arm_y)
        w, deep = s.chest * 0.26, min(0.3, low - y - 0.08)
        for side in (1, -1):
            x = side * s.hem * 0.55
            n.line([(x - w, y), (x + w, y), (x + w, y + deep), (x - w, y + deep), (x - w, y)], seam, 1.5)
            n.line([(x - w, y + 0.04), (x + w, y + 0.04)], seam)
    if s.category == "Loungewear Top" and s.opening == "buttons":
        start = s.neck_depth if s.collar not in CLOSED else 0.13
        n.ribbon([(0.05, start), (0.05, low)], look.trim, 0.018)


def _dress(n: Needle) -> None:
    s, look = n.s, n.look
    low, y = s.body_length + s.hem_curve, s.slope + s.armhole + max(s.waist_at, 0.12) * 0.75
    if s.category == "Dress" and (look.variant % 2 or s.tiers or s.pleats):
        n.line([(-s.waist * 1.05, y), (0, y + 0.015), (s.waist * 1.05, y)], n.dark)
    for i in range(1, s.tiers):
        at = y + (low - y) * i / s.tiers
        n.line([(-s.hem * 1.1, at), (s.hem * 1.1, at)], n.dark, 1.5)
        _gathers(n, at, s.waist + (s.hem - s.waist) * (i / s.tiers) ** 0.8)
    for x in np.linspace(-0.85, 0.85, s.pleats + 2) if s.pleats else ():
        n.line([(x * s.waist, y), (x * s.hem * 1.05, low)], scaled(n.base, 0.8))


def _gathers(n: Needle, y: float, half: float) -> None:
    n.lines([((x, y), (x * 1.04, y + 0.08)) for x in np.linspace(-half, half, 13)])


def _belt(n: Needle) -> None:
    s, look = n.s, n.look
    if s.is_bottom:
        y, wide = waistband_height(s) * 0.5, 0.06
        half = waist_width(s) * 1.3
    else:
        y, wide, half = s.slope + s.armhole + 0.3 * (s.waist_at + 0.5), 0.08, s.chest * 1.5
        y = min(y, s.body_length * 0.7)
    colour = look.trim if s.category == "Robe" or look.variant % 2 else scaled(look.colours[0], 0.55)
    n.ribbon([(-half, y), (half, y)], colour, wide)
    for edge in (-0.5, 0.5):
        n.line([(-half, y + edge * wide), (half, y + edge * wide)], scaled(colour, 0.7))
    if s.category in ("Robe", "Knitted Coat", "Loungewear Dress"):
        for x in (-0.1, 0.07):
            n.ribbon([(0, y), (x, y + 0.34)], scaled(colour, 0.9), 0.05)
        n.dot(0, y, 0.055, scaled(colour, 0.95))
        return
    x = 0.0 if s.is_bottom else 0.05 * s.side
    n.fill(
        [(x - 0.05, y - 0.05), (x + 0.05, y - 0.05), (x + 0.05, y + 0.05), (x - 0.05, y + 0.05)],
        look.hardware,
        (60, 56, 50),
    )


def _bottom(n: Needle) -> None:
    s, look = n.s, n.look
    low, waist, height = s.body_length + s.hem_curve * (s.family == "skirt"), waist_width(s), waistband_height(s)
    seam = n.thread if n.denim else n.stitch
    if look.variant % 2 or n.denim:
        loops = [((x * waist, 0.0), (x * waist, height)) for x in (-0.75, -0.35, 0.35, 0.75)]
        n.lines(loops, scaled(look.trim, 0.7), 3)
        n.dot(0.0, height * 0.6, 0.022, look.hardware)
    else:
        n.lines([((x, 0.0), (x, height)) for x in np.arange(-waist, waist, 0.045)], scaled(look.trim, 0.82))
        if s.family == "legs" and look.variant % 4 == 0:
            n.line([(-0.03, 0.05), (-0.07, 0.3)], _CORD, 2)
            n.line([(0.03, 0.05), (0.05, 0.27)], _CORD, 2)
    if s.family == "skirt":
        _skirt(n, low, waist, height)
        return
    crotch = min(s.crotch, s.body_length - 0.08)
    n.line([(0, height), (0, crotch)], n.dark, 1.5)
    if look.variant % 2 or n.denim:
        n.line([(0.06, height), (0.06, crotch * 0.6), (0.0, crotch * 0.75)], seam)
    for side in (1, -1):
        n.line([(side * waist * 0.5, height), (side * waist * 0.7, 0.22), (side * waist * 1.2, 0.3)], seam, 1.5)
        x, y = leg_middle(s, low), low
        if s.pocket == "none" and look.variant % 3 == 0 and s.category == "Trousers":
            n.line([(side * leg_middle(s, crotch), crotch), (side * x, y)], scaled(n.base, 0.85))
        if s.pocket == "cargo":
            y = crotch + (0.3 if s.category == "Trousers" else 0.05)
            x = leg_middle(s, y) + 0.12
            pocket = [(x - 0.12, y), (x + 0.14, y), (x + 0.14, y + 0.28), (x - 0.12, y + 0.28), (x - 0.12, y)]
            n.line([(side * a, b) for a, b in pocket], n.dark, 1.5)
            n.line([(side * (x - 0.12), y + 0.08), (side * (x + 0.14), y + 0.08)], n.dark, 1.5)
        if n.denim and look.variant % 5 == 0 and s.category == "Trousers":  # torn knees
            y = (crotch + low) / 2
            for i in range(3):
                x = leg_middle(s, y)
                n.line([(side * (x - 0.1), y + 0.03 * i), (side * (x + 0.09), y + 0.03 * i)], (226, 226, 222), 1.5)
    n.line([(-2, low - 0.06), (2, low - 0.06)], seam)
    if s.hem_kind == "ruffle":
        n.line([(-2, low - 0.12), (2, low - 0.12)], n.dark)


def _skirt(n: Needle, low: float, waist: float, height: float) -> None:
    s = n.s
    hem = waist * s.hip * 1.5
    seam = n.thread if n.denim else n.stitch
    for i in range(1, s.tiers):
        at = (low - height) * i / s.tiers + height
        n.line([(-hem * 1.6, at), (hem * 1.6, at)], n.dark, 1.5)
        _gathers(n, at, waist + (hem - waist) * i / s.tiers)
    for x in np.linspace(-0.85, 0.85, s.pleats + 2) if s.pleats else ():
        n.line([(x * waist * 0.95, height), (x * hem, low)], scaled(n.base, 0.8))
    if s.opening == "buttons":
        n.line([(0.04, height), (0.04, low)], seam)
        n.line([(-0.04, height), (-0.04, low)], seam)
        for y in np.linspace(height + 0.08, low - 0.1, 6):
            n.dot(0.0, y, 0.018, n.look.hardware)
    elif s.opening == "wrap":
        n.line([(s.side * waist * 0.5, height), (s.side * waist * 0.3, low)], n.dark, 2.5)
    if s.pocket == "sides":
        for side in (1, -1):
            n.line([(side * waist * 0.5, height), (side * waist * 0.7, 0.24), (side * waist * 1.2, 0.3)], seam, 1.5)
    elif s.pocket == "patch":
        for side in (1, -1):
            x, y, w = side * waist * 0.6, min(0.3, low * 0.3), 0.11
            n.line([(x - w, y), (x + w, y), (x + w, y + 0.24), (x - w, y + 0.24), (x - w, y)], seam, 1.5)
    if s.panels == "princess":
        for side in (1, -1):
            n.line([(side * waist * 0.4, height), (side * hem * 0.45, low)], seam)
    if s.hem_kind == "ruffle":
        n.line([(-2, low - 0.14), (2, low - 0.14)], n.dark, 1.5)
        _gathers(n, low - 0.14, hem)
    elif s.hem_kind == "plain":
        n.line([(-2, low - 0.06), (2, low - 0.06)], seam)
