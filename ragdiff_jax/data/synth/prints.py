"""The cloth: prints as functions of cloth coordinates, logos as polygons, lettering of our own."""

import numpy as np
from PIL import ImageDraw

from ragdiff_jax.data.synth.colours import draw_colour
from ragdiff_jax.data.synth.garment import Look, Shape

# 3x5 letters, rows from the top, so that no font file decides what is drawn.
_ROWS = {
    "A": "25755",
    "B": "65656",
    "C": "34443",
    "D": "65556",
    "E": "74647",
    "F": "74644",
    "G": "34553",
    "H": "55755",
    "I": "72227",
    "J": "11152",
    "K": "55655",
    "L": "44447",
    "M": "57755",
    "N": "57775",
    "O": "25552",
    "P": "65644",
    "R": "65655",
    "S": "34216",
    "T": "72222",
    "U": "55557",
    "V": "55552",
    "W": "55775",
    "X": "55255",
    "Y": "55222",
    "Z": "71247",
    "0": "75557",
    "1": "26227",
    "2": "71747",
    "3": "71717",
    "4": "55711",
    "5": "74717",
    "6": "74757",
    "7": "71244",
    "8": "75757",
    "9": "75717",
}


PLACED = ("Logo", "Text", "Artistic")  # prints that sit in one place


def cloth(look: Look, shape: Shape, u: np.ndarray, v: np.ndarray, part: str) -> np.ndarray | None:
    """Colours [..., 3] uint8 of the cloth at coordinates u, v (chest widths), or None where it's plain.

    `part` is "body" or "sleeve"; some prints (colour blocks, sleeve stripes) differ between them.
    """
    if look.print == "Tie-dye":
        return _blended(look, u, v)
    index = _index(look, shape, u, v, part)
    return None if index is None else np.array(look.colours, np.uint8)[index]


def plain_colour(look: Look, part: str) -> tuple[int, int, int]:
    if look.print == "Color Block" and part == "sleeve" and look.variant % 3 != 1:
        return look.colours[1]
    return look.colours[0]


def _index(look: Look, shape: Shape, u, v, part) -> np.ndarray | None:
    kind, n, size = look.print, look.variant, look.scale
    if kind == "Striped":
        period = 0.14 * size
        along = (v, u, v, v)[n % 4] / period + look.phase
        if n % 4 == 3:  # one or a few broad bands on the chest
            at = shape.slope + 0.3 if part == "body" else 0.2
            inside = np.abs(v - at) < 0.12 * size
            return (inside + (inside & (np.abs(v - at) < 0.05 * size))).astype(np.uint8)
        place = along - np.floor(along)
        width = (0.5, 0.3, 0.16, 0.65)[n // 4 % 4]
        index = (place < width).astype(np.uint8)
        if n // 16 % 3 == 0:
            index[(place > 0.72) & (place < 0.84)] = 2
        return index
    if kind == "Plaid":
        period = 0.26 * size
        a, b = u / period + look.phase, v / period + look.phase
        a, b = a - np.floor(a), b - np.floor(b)
        wide = (a < 0.42).astype(np.uint8) + (b < 0.42)
        weave = (np.floor(u * 60) + np.floor(v * 60)) % 2
        index = np.where(wide == 2, 1, np.where(wide == 1, weave.astype(np.uint8), 0)).astype(np.uint8)
        index[(np.abs(a - 0.7) < 0.05) | (np.abs(b - 0.7) < 0.05)] = 2
        return index
    if kind == "Polka Dot":
        period = 0.15 * size
        row = np.floor(v / period)
        a = u / period + 0.5 * (row % 2) + look.phase
        radius = 0.2 + 0.15 * (n % 3) / 2
        return (((a - np.floor(a) - 0.5) ** 2 + (v / period - row - 0.5) ** 2) < radius**2).astype(np.uint8)
    if kind == "Color Block":
        if part == "sleeve":
            return None
        limit = shape.panel * shape.body_length
        if n % 3 == 0:
            return None
        if n % 3 == 1:
            return ((v > limit) if n % 2 else (v < limit)).astype(np.uint8)
        if n // 3 % 2:
            return (u > look.angle * 0.2).astype(np.uint8)
        return ((v > limit).astype(np.uint8) + (v > limit + 0.22 * size)).astype(np.uint8)
    if kind in ("Floral", "Star", "Heart"):
        return _scattered(look, u, v, kind)
    if kind == "Camouflage":
        a, b, c = u / size, v / size, look.phase * 7
        field = np.sin(9 * a + 3 * np.sin(7 * b + c)) + np.sin(8 * b + 3 * np.sin(6 * a - c))
        other = np.sin(11 * a + 2.5 * np.sin(8 * b - c) + 2) + np.sin(9 * b - 3 * np.sin(7 * a + c))
        return np.where(field > 0.5, 1, np.where(other > 0.7, 2, 0)).astype(np.uint8)
    if kind == "Geometric":
        period = 0.16 * size
        a, b = u / period + look.phase, v / period
        if n % 3 == 0:
            return ((np.floor(a) + np.floor(b)) % 2).astype(np.uint8)
        if n % 3 == 1:
            zig = b + np.abs(a - np.floor(a) - 0.5) * 1.2
            return ((zig - np.floor(zig)) < 0.45).astype(np.uint8)
        a, b = a + b, a - b
        return (((a - np.floor(a)) < 0.25) | ((b - np.floor(b)) < 0.25)).astype(np.uint8)
    return None


def _blended(look: Look, u, v) -> np.ndarray:
    """Tie-dye: two colours run into each other; every third one is a plain gradient down the garment."""
    if look.variant % 3 == 0:
        mix = np.clip((v - 0.2) / (0.6 + 0.6 * look.scale), 0, 1)
    else:
        a, b, c = u / look.scale, v / look.scale, look.phase * 7
        mix = 0.5 + 0.5 * np.sin(6 * a + 2.5 * np.sin(5 * b + c) + c) * np.cos(5 * b + 2 * np.sin(4 * a - c))
    first, second = (np.array(colour, np.float32) for colour in look.colours[:2])
    return (first + mix[..., None].astype(np.float32) * (second - first)).astype(np.uint8)


def _scattered(look: Look, u, v, kind) -> np.ndarray:
    """Flowers, stars or hearts on a grid with every cell shifted by its own hash."""
    period = (0.2 if kind == "Floral" else 0.26) * look.scale
    a, b = u / period + look.phase, v / period
    column, row = np.floor(a), np.floor(b)
    hashed = np.sin(column * 127.1 + row * 311.7 + look.variant) * 43.5453
    hashed = hashed - np.floor(hashed)
    x = a - column - 0.5 + 0.3 * (hashed - 0.5)
    y = b - row - 0.5 + 0.3 * (0.5 - hashed)
    radius, turn = np.hypot(x, y), np.arctan2(y, x)
    if kind == "Heart":
        return ((x**2 + (y + 0.1 - 0.8 * np.abs(x)) ** 2) < 0.075).astype(np.uint8)
    points = 5
    edge = 0.26 + (0.12 if kind == "Floral" else 0.13) * np.cos(points * turn + 6 * hashed + np.pi / 2)
    index = (radius < edge).astype(np.uint8)
    if kind == "Floral":
        index[radius < 0.1] = 2
        leaf = (np.abs(x - 0.33 * np.cos(hashed * 6)) < 0.1) & (np.abs(y - 0.33 * np.sin(hashed * 6)) < 0.06)
        index[leaf & (index == 0)] = 2
    return index


def draw_logo(draw: ImageDraw.ImageDraw, look: Look, centre: tuple[float, float], size: float) -> None:
    """The chest print: a shape or a word, `size` pixels wide, in the second and third colour."""
    x, y = centre
    if look.print == "Artistic":
        _draw_picture(draw, look, x, y, size)
        return
    if look.print == "Text":
        _draw_text(draw, look.logo, x, y, size, look.colours[1])
        return
    r = size / 2
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    colour, accent = look.colours[1], look.colours[2]
    if look.logo in ("circle", "ring"):
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        inner = r * 0.6
        fill = accent if look.logo == "circle" else look.colours[0]
        draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=fill)
        return
    unit = {
        "star": _star(),
        "heart": np.stack([16 * np.sin(t) ** 3, -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t)], -1)
        / 17,
        "triangle": np.array([[0, -0.9], [1, 0.8], [-1, 0.8]]),
        "square": np.array([[-1, -0.7], [1, -0.7], [1, 0.7], [-1, 0.7]]),
        "bolt": np.array(
            [[0.2, -1], [-0.6, 0.15], [-0.05, 0.15], [-0.25, 1], [0.6, -0.2], [0.05, -0.2], [0.4, -1]]
        ),
        "swoosh": np.array([[-1, 0], [-0.7, 0.4], [-0.3, 0.42], [1, -0.45], [-0.2, 0.1], [-0.7, 0.1]]),
    }[look.logo]
    draw.polygon([(x + r * a, y + r * b) for a, b in unit], fill=colour)
    if look.variant % 2:
        draw.polygon([(x + 0.5 * r * a, y + 0.5 * r * b) for a, b in unit], fill=accent)


def _draw_picture(draw, look: Look, x, y, size) -> None:
    """A picture as T-shirts carry: a framed or free heap of shapes in several colours."""
    rng = np.random.default_rng(look.variant + 5)
    tall = size * rng.uniform(0.7, 1.2)
    palette = [*look.colours[1:], draw_colour(rng), draw_colour(rng)]
    if look.variant % 2:
        draw.rectangle((x - size / 2, y - tall / 2, x + size / 2, y + tall / 2), fill=palette[0])
    for i in range(int(rng.integers(4, 11))):
        w, h = rng.uniform(0.06, 0.3, 2) * size
        a, b = x + rng.uniform(-0.5, 0.5) * (size - 2 * w), y + rng.uniform(-0.5, 0.5) * (tall - 2 * h)
        kind, fill = int(rng.integers(3)), palette[(i + 1) % 4]
        if kind == 0:
            draw.ellipse((a - w, b - h, a + w, b + h), fill=fill)
        elif kind == 1:
            draw.polygon([(a - w, b + h), (a + w * rng.uniform(-1, 1), b - h), (a + w, b + h)], fill=fill)
        else:
            draw.rectangle((a - w, b - h * 0.4, a + w, b + h * 0.4), fill=fill)


def _star() -> np.ndarray:
    t = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return np.stack([np.sin(t) * radius, -np.cos(t) * radius], -1)


def _draw_text(draw, text, x, y, width, colour) -> None:
    cell = width / (4 * len(text) - 1) if len(text) > 1 else width / 5
    tall = cell * 1.25
    left, top = x - cell * (4 * len(text) - 1) / 2, y - tall * 2.5
    for i, letter in enumerate(text):
        for row, bits in enumerate(_ROWS[letter]):
            for column in range(3):
                if int(bits) >> (2 - column) & 1:
                    x0, y0 = left + (4 * i + column) * cell, top + row * tall
                    draw.rectangle((x0, y0, x0 + cell, y0 + tall), fill=colour)
