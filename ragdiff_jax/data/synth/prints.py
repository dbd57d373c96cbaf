"""The cloth: prints as functions of cloth coordinates."""

import numpy as np
from PIL import Image

from ragdiff_jax.data.synth.looks import PLACED
from ragdiff_jax.data.synth.shape import Look, Shape

UNPRINTED = ("Solid Color", *PLACED)  # the cloth is plain; a mark is sewn on
_MIXED = ("Striped", "Polka Dot", "Floral", "Plaid", "Geometric", "Animal")


def cloth(look: Look, shape: Shape, u: np.ndarray, v: np.ndarray, part: str) -> Image.Image | None:
    """The cloth, RGB, at coordinates u, v (chest widths), or None where it's plain.

    Where the cloth isn't turned, a row of u [1, w] and a column of v [h, 1] cost least.

    `part` is "body" or "sleeve"; some prints (colour blocks, sleeve stripes) differ between them.
    """
    size = np.broadcast_shapes(u.shape, v.shape)
    if look.print == "Tie-dye":
        colours = _blended(look, u, v)
        return Image.fromarray(np.ascontiguousarray(np.broadcast_to(colours, (*size, 3))))
    index = _index(look, shape, u, v, part, look.print)
    if index is None:
        return None
    painted = Image.fromarray(np.ascontiguousarray(np.broadcast_to(index, size)))
    painted.putpalette([part for colour in look.colours for part in colour])
    return painted.convert("RGB")


def plain_colour(look: Look, shape: Shape, part: str) -> tuple[int, int, int]:
    """The ground that prints lie on; with colour blocks, sleeves are cut from the second colour as a rule."""
    second = look.variant % 3 != 1 or shape.panels == "raglan"
    if look.print == "Color Block" and part == "sleeve" and second:
        return look.colours[1]
    return look.colours[0]


def _index(look: Look, shape: Shape, u, v, part: str, kind: str) -> np.ndarray | None:
    if kind in ("Floral", "Star", "Heart", "Objects", "Paisley", "Polka Dot"):
        return _scattered(look, u, v, kind)
    draw = {
        "Striped": _stripes,
        "Plaid": _plaid,
        "Color Block": _blocks,
        "Camouflage": _camouflage,
        "Geometric": _geometric,
        "Animal": _animal,
        "Linear": _lines,
        "Mixed": _patchwork,
    }.get(kind)
    return None if draw is None else draw(look, shape, u, v, part)


def _fraction(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)


def _stripes(look: Look, shape: Shape, u, v, part) -> np.ndarray:
    n, size = look.variant, look.scale
    if n % 5 == 3:  # one or a few broad bands on the chest
        at = shape.slope + 0.3 if part == "body" else 0.2
        far = np.abs(v - at)
        return (far < 0.12 * size).astype(np.uint8) + (far < 0.05 * size)
    along = (v, u, v, v, u + v)[n % 5] / (0.14 * size) + look.phase
    place = _fraction(along)
    index = (place < (0.5, 0.3, 0.16, 0.65)[n // 5 % 4]).astype(np.uint8)
    if n // 20 % 3 == 0:
        index[(place > 0.72) & (place < 0.84)] = 2
    elif n // 20 % 3 == 1 and size > 1:  # every band in the next colour
        index = (np.floor(along).astype(np.int32) % 4).astype(np.uint8)
    return index


def _plaid(look: Look, shape: Shape, u, v, part) -> np.ndarray:
    n, period = look.variant, 0.26 * look.scale * (0.35 if look.variant % 4 == 0 else 1.0)
    if n % 7 == 0:  # laid on the bias
        u, v = u + v, u - v
    a, b = _fraction(u / period + look.phase), _fraction(v / period + look.phase)
    wide = (a < 0.42).astype(np.uint8) + (b < 0.42)
    if n % 4 == 0:  # gingham
        return np.where(wide == 2, 1, np.where(wide == 1, 2, 0)).astype(np.uint8)
    weave = (np.floor(u * 60) + np.floor(v * 60)) % 2
    index = np.where(wide == 2, 1, np.where(wide == 1, weave.astype(np.uint8), 0)).astype(np.uint8)
    index[(np.abs(a - 0.7) < 0.05) | (np.abs(b - 0.7) < 0.05)] = 2
    if n % 3 == 0:
        index[(np.abs(a - 0.2) < 0.025) | (np.abs(b - 0.2) < 0.025)] = 3
    return index


def _blocks(look: Look, shape: Shape, u, v, part) -> np.ndarray | None:
    n, limit = look.variant, shape.panel * shape.body_length
    if part == "sleeve":
        if n % 6 != 1 or shape.panels == "raglan":
            return None
        return (v > 0.5 * shape.sleeve_length).astype(np.uint8)
    if (n % 3 == 0 and shape.sleeve_length > 0) or shape.panels in ("raglan", "yoke", "sides", "band"):
        return None  # the sleeves or the panels alone
    kind = n // 3 % 6
    if kind == 0:
        return (v > limit).astype(np.uint8)
    if kind == 1:
        return (u > look.angle * 0.2).astype(np.uint8)
    if kind == 2:
        return (v > limit).astype(np.uint8) + (v > limit + 0.22 * look.scale)
    if kind == 3:
        return (v > limit + look.angle * u * 2).astype(np.uint8)
    if kind == 4:
        return (np.abs(u) > shape.chest * 0.6).astype(np.uint8)
    return np.minimum(np.floor(v / shape.body_length * (3 + n % 2)), 3).clip(0).astype(np.uint8)


def _camouflage(look: Look, shape: Shape, u, v, part) -> np.ndarray:
    a, b, c = u / look.scale, v / look.scale, look.phase * 7
    field = np.sin(9 * a + 3 * np.sin(7 * b + c)) + np.sin(8 * b + 3 * np.sin(6 * a - c))
    other = np.sin(11 * a + 2.5 * np.sin(8 * b - c) + 2) + np.sin(9 * b - 3 * np.sin(7 * a + c))
    return np.where(field > 0.5, 1, np.where(other > 0.7, 2, 0)).astype(np.uint8)


def _geometric(look: Look, shape: Shape, u, v, part) -> np.ndarray:
    n, period = look.variant, 0.16 * look.scale
    a, b = u / period + look.phase, v / period
    if n % 5 == 0:
        return ((np.floor(a) + np.floor(b)) % 2).astype(np.uint8)
    if n % 5 == 1:
        zig = b + np.abs(_fraction(a) - 0.5) * 1.2
        if n % 2:
            return (np.floor(zig).astype(np.int32) % 4).astype(np.uint8)
        return (_fraction(zig) < 0.45).astype(np.uint8)
    if n % 5 == 2:  # argyle
        a, b = (a * 1.4 + b) / 2, (a * 1.4 - b) / 2
        index = (np.floor(a) + np.floor(b)).astype(np.int32) % 2
        lines = (np.abs(_fraction(a) - 0.5) < 0.04) | (np.abs(_fraction(b) - 0.5) < 0.04)
        return np.where(lines, 2, index).astype(np.uint8)
    if n % 5 == 3:  # rings
        far = np.hypot(_fraction(a / 1.5) - 0.5, _fraction(b / 1.5) - 0.5)
        return (far < 0.46).astype(np.uint8) + (far < 0.3) + (far < 0.14)
    a, b = a + b, a - b
    return ((_fraction(a) < 0.25) | (_fraction(b) < 0.25)).astype(np.uint8)


def _animal(look: Look, shape: Shape, u, v, part) -> np.ndarray:
    a, b, c = u / (0.1 * look.scale), v / (0.1 * look.scale), look.phase * 7
    if look.variant % 2:  # zebra
        waves = b * 0.9 + 0.9 * np.sin(0.7 * a + c) + 0.5 * np.sin(1.3 * b + 1.1 * a)
        return (_fraction(waves * 0.7) < 0.45).astype(np.uint8)
    column, row = np.floor(a), np.floor(b)
    hashed = _hash(column, row, look.variant)
    x, y = a - column - 0.5 + 0.35 * (hashed - 0.5), b - row - 0.5 + 0.5 * (0.5 - hashed)
    far = np.hypot(x, y * (0.8 + 0.5 * hashed)) + 0.07 * np.sin(3 * np.arctan2(y, x) + 12 * hashed)
    return np.where(far < 0.2, 2, np.where(far < 0.36, 1, 0)).astype(np.uint8)


def _lines(look: Look, shape: Shape, u, v, part) -> np.ndarray:
    """Pinstripes, or thin waving lines."""
    if look.variant % 2:
        return (_fraction(u / (0.07 * look.scale) + look.phase) < 0.16).astype(np.uint8)
    wave = v / (0.09 * look.scale) + 1.2 * np.sin(u * 7 + look.phase * 7) + 0.6 * np.sin(u * 17)
    return (_fraction(wave) < 0.18).astype(np.uint8)


def _patchwork(look: Look, shape: Shape, u, v, part) -> np.ndarray:
    """Two or three prints side by side."""
    n = look.variant
    kinds = [_MIXED[(n // 7**i + i) % len(_MIXED)] for i in range(3)]
    # the patches: halves, bands or a checkerboard
    where = (u > 0, v > 0.45 * shape.body_length, (np.floor(u / 0.4 + 0.5) + np.floor(v / 0.4)) % 2 > 0)[n % 3]
    index = np.where(where, _index(look, shape, u, v, "body", kinds[0]), _index(look, shape, u, v, "body", kinds[1]))
    # the second patch shows its ground in another colour, so that the patches differ
    return np.where(where, index, (index + 2) % 4).astype(np.uint8)


def _blended(look: Look, u, v) -> np.ndarray:
    """Tie-dye: colours run into each other; some are a gradient down the garment, some a spiral."""
    n, c = look.variant, look.phase * 7
    if n % 4 == 0:
        mix = np.clip((v - 0.2) / (0.6 + 0.6 * look.scale), 0, 1)
    elif n % 4 == 1:
        far, turn = np.hypot(u, v - 0.6), np.arctan2(v - 0.6, u)
        mix = 0.5 + 0.5 * np.sin(9 * far / look.scale + 3 * turn + c)
    else:
        a, b = u / look.scale, v / look.scale
        mix = 0.5 + 0.5 * np.sin(6 * a + 2.5 * np.sin(5 * b + c) + c) * np.cos(5 * b + 2 * np.sin(4 * a - c))
    stops = np.array(look.colours[: 2 + n // 4 % 2], np.float32)
    at = mix * (len(stops) - 1)
    low = np.minimum(at.astype(np.int32), len(stops) - 2)
    share = (at - low)[..., None].astype(np.float32)
    return (stops[low] + share * (stops[low + 1] - stops[low])).astype(np.uint8)


def _hash(column, row, seed: int) -> np.ndarray:
    hashed = np.sin(column * 127.1 + row * 311.7 + seed % 97) * 43.5453
    return _fraction(hashed)


def _scattered(look: Look, u, v, kind: str) -> np.ndarray:
    """Flowers, dots, stars, hearts, drops or things on a grid with every cell shifted by its own hash."""
    period = {"Floral": 0.2, "Polka Dot": 0.15, "Paisley": 0.22}.get(kind, 0.26) * look.scale
    n = look.variant
    row = np.floor(v / period)
    shifted = 0.5 * (row % 2) if kind == "Polka Dot" or n % 2 else 0.0
    a, b = u / period + look.phase + shifted, v / period
    column = np.floor(a)
    if kind == "Polka Dot":
        radius = 0.2 + 0.15 * (n % 3) / 2
        return (((a - column - 0.5) ** 2 + (b - row - 0.5) ** 2) < radius**2).astype(np.uint8)
    hashed = _hash(column, row, n)
    x = a - column - 0.5 + 0.3 * (hashed - 0.5)
    y = b - row - 0.5 + 0.3 * (0.5 - hashed)
    if kind == "Heart":
        return ((x**2 + (y + 0.1 - 0.8 * np.abs(x)) ** 2) < 0.075).astype(np.uint8)
    if kind == "Objects":
        return _objects(x, y, hashed, n)
    radius, turn = np.hypot(x, y), np.arctan2(y, x)
    if kind == "Paisley":
        tail = 0.13 * (turn + np.pi) / (2 * np.pi)
        edge = 0.2 + tail * 1.2
        return (radius < edge).astype(np.uint8) + (radius < edge * 0.72) + (radius < edge * 0.4)
    points = 5
    edge = 0.26 + (0.12 if kind == "Floral" else 0.13) * np.cos(points * turn + 6 * hashed + np.pi / 2)
    index = (radius < edge * (0.75 + 0.5 * hashed)).astype(np.uint8)
    if kind == "Floral":
        if n % 3 == 0:  # blossoms in two colours
            index[(index > 0) & (hashed > 0.5)] = 3
        index[radius < 0.1] = 2
        leaf = (np.abs(x - 0.33 * np.cos(hashed * 6)) < 0.1) & (np.abs(y - 0.33 * np.sin(hashed * 6)) < 0.06)
        index[leaf & (index == 0)] = 2
    return index


def _objects(x, y, hashed, n: int) -> np.ndarray:
    """Ice creams, fish, boats, cherries: each a few simple shapes."""
    kind = n % 4
    if kind == 0:  # an ice cream
        cone = (y > 0) & (np.abs(x) < 0.17 * (1 - y / 0.38)) & (y < 0.38)
        return np.where(cone, 2, (x**2 + (y + 0.1) ** 2 < 0.035)).astype(np.uint8)
    if kind == 1:  # a fish
        body = (x / 0.26) ** 2 + (y / 0.14) ** 2 < 1
        tail = (x > 0.2) & (x < 0.4) & (np.abs(y) < (x - 0.16) * 0.8)
        eye = (x + 0.13) ** 2 + (y + 0.03) ** 2 < 0.0012
        return np.where(eye, 3, np.where(body, 1, np.where(tail, 2, 0))).astype(np.uint8)
    if kind == 2:  # a boat
        hull = (y > 0.1) & (y < 0.26) & (np.abs(x) < 0.34 - (y - 0.1))
        sail = (y < 0.08) & (y > -0.34) & (x > 0) & (x < (y + 0.34) * 0.6)
        return np.where(hull, 2, sail).astype(np.uint8)
    cherries = ((np.abs(x) - 0.14) ** 2 + (y - 0.12) ** 2) < 0.016
    stalk = (np.abs(np.abs(x) - 0.14 * (y + 0.28) / 0.4) < 0.025) & (y > -0.28) & (y < 0.05)
    return np.where(cherries, 1, np.where(stalk, 2, 0)).astype(np.uint8)
