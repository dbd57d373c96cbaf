"""Prints that sit in one place: logos, words in lettering of our own, faces, landscapes, heaps of shapes."""

import numpy as np
from PIL import ImageDraw

from ragdiff_jax.data.synth.colours import draw_colour, scaled
from ragdiff_jax.data.synth.shape import Look

# Strokes on a grid of 3 x 5 nodes, "a" to "o" in reading order, so that no font file decides what is drawn.
_STROKES = {
    "A": "mdbfo gi", "B": "mabfhg hlnm", "C": "fbdjnl", "D": "mabflnm", "E": "camo gh", "F": "cam gh", "G": "fbdjnlih",
    "H": "am co gi", "I": "bn", "J": "clnj", "K": "am cgo", "L": "amo", "M": "maeco", "N": "maoc", "O": "bdjnlfb",
    "P": "mabfhg", "Q": "bdjnlfb ko", "R": "mabfhg ho", "S": "fbdhlnj", "T": "ac bn", "U": "ajnlc", "V": "anc",
    "W": "amkoc", "X": "ao cm", "Y": "ahc hn", "Z": "acmo", "0": "bdjnlfb fj", "1": "dbn", "2": "dbfmo", "3": "achlnj",
    "4": "agi co", "5": "caghlnm", "6": "cdjnlhg", "7": "acn", "8": "bdhfb hjnlh", "9": "fhdbflm",
}  # fmt: skip


def draw_mark(draw: ImageDraw.ImageDraw, look: Look, centre: tuple[float, float], size: float) -> None:
    """The print at `centre`, `size` pixels wide, in the second to fourth colour."""
    x, y = centre
    kinds = {"Artistic": _picture, "Cartoon": _face, "Nature Scene": _landscape, "Text": _words}
    kinds.get(look.print, _logo)(draw, look, x, y, size)


def _logo(draw, look: Look, x, y, size) -> None:
    r, colour, accent = size / 2, look.colours[1], look.colours[2]
    if look.logo in ("circle", "ring", "badge"):
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        inner = r * (0.6 if look.logo != "badge" else 0.84)
        fill = accent if look.logo != "ring" else look.colours[0]
        draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=fill)
        if look.logo == "badge" and r > 6:
            write(draw, _initials(look), x, y, r * 1.1, colour, bold=0.22)
        return
    unit = _UNIT[look.logo]
    draw.polygon([(x + r * a, y + r * b) for a, b in unit], fill=colour)
    if look.variant % 2:
        draw.polygon([(x + 0.5 * r * a, y + 0.5 * r * b) for a, b in unit], fill=accent)
    if look.variant % 3 == 0 and r > 8:
        write(draw, _initials(look) + "NA"[: look.variant % 2 + 1], x, y + r * 1.45, r * 1.7, colour)


def _initials(look: Look) -> str:
    letters = tuple(_STROKES)[:26]
    return letters[look.variant % 26] + letters[look.variant // 26 % 26]


def _words(draw, look: Look, x, y, size) -> None:
    """One to three lines; large or small, upright or slanted."""
    lines = 1 + (look.variant % 3 if size > 30 else 0)
    slant = 0.3 * (look.variant % 5 == 0)
    bold = (0.16, 0.24, 0.34)[look.variant // 3 % 3]
    tall = size * 1.1 / max(len(look.logo), 3)
    if look.variant % 7 == 0 and size > 30:
        draw.rectangle((x - size * 0.56, y - tall * 0.75, x + size * 0.56, y + tall * 0.75), fill=look.colours[2])
    for i in range(lines):
        text = look.logo if i == 0 else look.logo[::-1] if i == 1 else look.logo[1:] + look.logo[:1]
        wide = size if i == 0 else size * 0.7
        colour = look.colours[1] if i == 0 or look.variant % 2 else look.colours[3]
        write(draw, text, x, y + i * tall * 1.25, wide, colour, bold=bold, slant=slant)


def write(draw, text: str, x, y, width, colour, *, bold: float = 0.22, slant: float = 0.0) -> None:
    """`text` centred at (x, y); `bold` is the strokes' width and `slant` their lean, in letter widths."""
    step = width / (1.45 * max(len(text), 2) - 0.45)
    tall = step * 1.45 if len(text) > 1 else step * 1.2
    left, stroke = x - (1.45 * len(text) - 0.45) * step / 2, max(1, round(bold * step))
    for i, letter in enumerate(text):
        for line in _STROKES[letter].split():
            points = []
            for node in line:
                row, column = divmod(ord(node) - 97, 3)
                down = (row / 4 - 0.5) * tall
                points.append((left + (1.45 * i + column / 2) * step - slant * down, y + down))
            draw.line(points, fill=colour, width=stroke, joint="curve" if stroke > 2 else None)


def _picture(draw, look: Look, x, y, size) -> None:
    """A framed or free heap of shapes in several colours."""
    rng = np.random.default_rng(look.variant + 5)
    tall = size * rng.uniform(0.7, 1.2)
    palette = [*look.colours[1:], draw_colour(rng)]
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


def _face(draw, look: Look, x, y, size) -> None:
    """An animal's head: ears, eyes, nose, mouth."""
    rng = np.random.default_rng(look.variant + 9)
    r, skin, dark = size * 0.4, look.colours[1], (28, 26, 30)
    kind = int(rng.integers(4))
    for side in (-1, 1):
        if kind == 0:  # round ears
            a, b, w = x + side * 0.75 * r, y - 0.75 * r, 0.42 * r
            draw.ellipse((a - w, b - w, a + w, b + w), fill=skin)
            draw.ellipse((a - w / 2, b - w / 2, a + w / 2, b + w / 2), fill=look.colours[2])
        elif kind == 1:  # pointed ears
            draw.polygon(
                [(x + side * 0.95 * r, y - 0.3 * r), (x + side * 0.8 * r, y - 1.35 * r), (x, y - 0.8 * r)], fill=skin
            )
        elif kind == 2:  # long ears
            a = x + side * 0.4 * r
            draw.ellipse((a - 0.2 * r, y - 1.9 * r, a + 0.2 * r, y - 0.4 * r), fill=skin)
    draw.ellipse((x - r, y - 0.9 * r, x + r, y + 0.95 * r), fill=skin)
    for side in (-1, 1):
        a, w = x + side * 0.38 * r, 0.16 * r
        draw.ellipse((a - w * 1.3, y - 0.35 * r, a + w * 1.3, y + 0.1 * r), fill=(244, 244, 240))
        draw.ellipse((a - w * 0.7, y - 0.25 * r, a + w * 0.7, y + 0.08 * r), fill=dark)
    draw.ellipse((x - 0.45 * r, y + 0.1 * r, x + 0.45 * r, y + 0.75 * r), fill=scaled(skin, 1.25))
    draw.ellipse((x - 0.14 * r, y + 0.15 * r, x + 0.14 * r, y + 0.32 * r), fill=look.colours[3] if kind % 2 else dark)
    draw.arc((x - 0.3 * r, y + 0.15 * r, x + 0.3 * r, y + 0.62 * r), 20, 160, fill=dark, width=max(1, round(0.07 * r)))


def _landscape(draw, look: Look, x, y, size) -> None:
    """Hills or waves under a sun, in a frame or a disc."""
    rng = np.random.default_rng(look.variant + 13)
    w, h = size / 2, size * rng.uniform(0.35, 0.5)
    sky, sun, near, far = look.colours[2], look.colours[3], look.colours[1], scaled(look.colours[1], 1.5)
    draw.rectangle((x - w, y - h, x + w, y + h), fill=sky)
    r, a = h * rng.uniform(0.25, 0.5), x + rng.uniform(-0.4, 0.4) * w
    draw.ellipse((a - r, y - 0.7 * h, a + r, y - 0.7 * h + 2 * r), fill=sun)
    for fill, base, rise in ((far, 0.1, 0.45), (near, 0.45, 0.3)):
        t = np.linspace(-1, 1, 9)
        crest = y + h * (base - rise * rng.random(9))
        line = list(zip((x + w * t).tolist(), crest.tolist(), strict=True))
        draw.polygon([*line, (x + w, y + h), (x - w, y + h)], fill=fill)


def _star() -> np.ndarray:
    t = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return np.stack([np.sin(t) * radius, -np.cos(t) * radius], -1)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    rise = -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t)
    return np.stack([16 * np.sin(t) ** 3, rise], -1) / 17


_UNIT = {
    "star": _star(),
    "heart": _heart(),
    "triangle": np.array([[0, -0.9], [1, 0.8], [-1, 0.8]]),
    "square": np.array([[-1, -0.7], [1, -0.7], [1, 0.7], [-1, 0.7]]),
    "bolt": np.array([[0.2, -1], [-0.6, 0.15], [-0.05, 0.15], [-0.25, 1], [0.6, -0.2], [0.05, -0.2], [0.4, -1]]),
    "swoosh": np.array([[-1, 0], [-0.7, 0.4], [-0.3, 0.42], [1, -0.45], [-0.2, 0.1], [-0.7, 0.1]]),
    "crown": np.array([[-1, 0.6], [-1, -0.5], [-0.5, 0.1], [0, -0.8], [0.5, 0.1], [1, -0.5], [1, 0.6]]),
    "shield": np.array([[-0.8, -0.9], [0.8, -0.9], [0.8, 0.1], [0.45, 0.65], [0, 1], [-0.45, 0.65], [-0.8, 0.1]]),
    "leaf": np.array([[0, -1], [0.5, -0.55], [0.6, 0.1], [0.2, 0.6], [0, 1], [-0.2, 0.6], [-0.6, 0.1], [-0.5, -0.55]]),
}
