"""Named colours of SynthGarments: draw any colour, call it by the name a caption would use."""

import colorsys

import numpy as np

NAMED: dict[str, tuple[int, int, int]] = {
    "black": (24, 24, 27),
    "charcoal": (62, 64, 70),
    "grey": (128, 130, 134),
    "light grey": (186, 188, 192),
    "white": (240, 240, 238),
    "cream": (238, 228, 205),
    "beige": (214, 192, 160),
    "camel": (186, 138, 88),
    "brown": (104, 68, 46),
    "burgundy": (108, 24, 42),
    "red": (198, 32, 40),
    "coral": (236, 108, 92),
    "orange": (232, 120, 30),
    "mustard": (206, 158, 40),
    "yellow": (242, 214, 66),
    "olive": (102, 104, 54),
    "lime": (152, 206, 60),
    "green": (44, 142, 72),
    "dark green": (26, 72, 50),
    "mint": (164, 220, 194),
    "teal": (22, 116, 122),
    "turquoise": (60, 190, 196),
    "light blue": (150, 190, 226),
    "blue": (42, 98, 192),
    "denim blue": (78, 106, 148),
    "navy": (28, 38, 78),
    "purple": (104, 56, 146),
    "lavender": (186, 168, 218),
    "pink": (240, 174, 190),
    "hot pink": (226, 52, 128),
    "plum": (120, 50, 92),
    "taupe": (146, 128, 116),
}
_NAMES = tuple(NAMED)
_WEIGHTS = np.array(
    [
        3.4
        if n in ("black", "white", "navy", "grey")
        else 1.6
        if n in ("beige", "red", "blue", "charcoal", "light blue", "light grey", "pink", "olive")
        else 1.0
        for n in _NAMES
    ]
)
_UP_TO = np.cumsum(_WEIGHTS)

RGB = tuple[int, int, int]


def colour_name(rgb: RGB) -> str:
    """The nearest name; distance in a luma and two chroma axes, chroma counting a little more."""
    here = _opponent(rgb)
    return min(_OPPONENT, key=lambda name: _apart(_OPPONENT[name], here))


def draw_colour(rng: np.random.Generator) -> RGB:
    """A colour as clothes have it: mostly a named one, jittered; one in four from anywhere in the gamut."""
    if rng.random() < 0.2:
        hue, saturation, value = rng.random(), rng.beta(1.4, 1.7), rng.uniform(0.12, 0.97)
        rgb = [255 * part for part in colorsys.hsv_to_rgb(hue, saturation, value)]
    else:
        name = _NAMES[int(np.searchsorted(_UP_TO, rng.random() * _UP_TO[-1], side="right"))]
        light, jitter = rng.uniform(0.9, 1.06), rng.normal(0, 5, 3).tolist()
        rgb = [part * light + more for part, more in zip(NAMED[name], jitter, strict=True)]
    return as_rgb(rgb)


def contrasting(rng: np.random.Generator, other: RGB, least: float = 70.0) -> RGB:
    """A colour that can be told from `other`."""
    for _ in range(20):
        rgb = draw_colour(rng)
        if _apart(_opponent(rgb), _opponent(other)) > least * least:
            return rgb
    return (245, 245, 242) if sum(other) < 380 else (24, 24, 28)


# Plain numbers, not arrays: three of them are much faster so, and there are dozens of colours in a picture.
def scaled(rgb: RGB, factor: float) -> RGB:
    return as_rgb([part * factor for part in rgb])


def as_rgb(rgb) -> RGB:
    r, g, b = rgb
    return min(max(round(r), 6), 247), min(max(round(g), 6), 247), min(max(round(b), 6), 247)


def _opponent(rgb) -> tuple[float, float, float]:
    r, g, b = rgb
    luma = 0.3 * r + 0.59 * g + 0.11 * b
    return luma, 1.3 * (r - luma), 1.3 * (b - luma)


def _apart(a, b) -> float:
    return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2


_OPPONENT = {name: _opponent(rgb) for name, rgb in NAMED.items()}
