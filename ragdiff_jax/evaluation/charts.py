"""Charts, drawn with Pillow: histograms over cosines, pairs of points in a plane, curves over sizes."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

INK, FAINT, PAPER = (40, 40, 44), (170, 170, 176), (255, 255, 255)
PALETTE = (
    (200, 70, 40), (40, 98, 160), (60, 140, 80), (150, 90, 170), (190, 140, 30), (30, 150, 160), (210, 90, 140),
    (110, 110, 40), (90, 70, 50), (120, 140, 200), (230, 130, 80), (70, 70, 80), (150, 190, 90), (100, 30, 60),
)  # fmt: skip
SCALE = 2  # drawn twice as large and scaled down: smooth lines
WIDTH, MARGIN, LINE = 720, 48, 16


def draw_histograms(
    panels: Sequence[tuple[str, Mapping[str, Sequence[float | int]]]], *, height: int = 240
) -> UInt8[np.ndarray, "h w 3"]:
    """A panel under another: (title, {name: shares of the bins over [-1, 1]}), each curve to its own highest bin."""
    page, draw, font = _page(len(panels) * height)
    for number, (title, curves) in enumerate(panels):
        top, bottom = number * height + 2 * LINE, (number + 1) * height - 2 * LINE
        _text(draw, font, (MARGIN, number * height + 6), title, INK)
        for cosine in np.linspace(-1, 1, 9):
            x = _across(cosine)
            _line(draw, [(x, top), (x, bottom)], FAINT if cosine else INK, 1)
            _text(draw, font, (x - 10, bottom + 4), f"{cosine:g}", INK)
        for place, (name, shares) in enumerate(curves.items()):
            shares = np.asarray(shares) / max(max(shares), 1e-9)
            edges = np.linspace(-1, 1, len(shares) + 1)
            points = [(_across(edge), bottom - y * (bottom - top)) for edge, y in zip(edges[:-1], shares, strict=True)]
            stairs = [
                point for (x, y), end in zip(points, edges[1:], strict=True) for point in ((x, y), (_across(end), y))
            ]
            _line(draw, stairs, PALETTE[place], 2)
            _text(draw, font, (MARGIN + 8, top + 4 + place * LINE), name, PALETTE[place])
    return _shrunk(page)


def draw_pairs(
    panels: Sequence[tuple[str, Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]],
    categories: Sequence[str],
    *,
    height: int = 560,
) -> UInt8[np.ndarray, "h w 3"]:
    """A panel under another: (title, photos and flat-lays in [0, 1]^2), a line between the two of a pair.

    Coloured by category, the commonest first; those beyond the palette share its last colour as "other".
    """
    names = sorted(set(categories), key=lambda name: (-categories.count(name), name))
    shown = names if len(names) <= len(PALETTE) else [*names[: len(PALETTE) - 1], "other"]
    colours = {name: PALETTE[min(place, len(PALETTE) - 1)] for place, name in enumerate(names)}
    page, draw, font = _page(len(panels) * height)
    for number, (title, photos, flats) in enumerate(panels):
        top, side = number * height + 2 * LINE, height - 3 * LINE
        _text(draw, font, (MARGIN, number * height + 6), f"{title}   circle: photo, square: flat-lay", INK)
        places = [
            (MARGIN + xy * (side - 8) + 4) * (1, 0) + (top + xy * (side - 8) + 4) * (0, 1) for xy in (photos, flats)
        ]
        for one, other in zip(*places, strict=True):
            _line(draw, [tuple(one), tuple(other)], FAINT, 0.5)
        for points, shape in zip(places, (draw.ellipse, draw.rectangle), strict=True):
            for (x, y), category in zip(points, categories, strict=True):
                box = [SCALE * edge for edge in (x - 3, y - 3, x + 3, y + 3)]
                shape(box, fill=colours[category])
        for place, name in enumerate(shown):
            colour = PALETTE[min(place, len(PALETTE) - 1)]
            _text(draw, font, (MARGIN + side + 10, top + place * LINE), name or "no category", colour)
    return _shrunk(page)


def draw_lines(
    panels: Sequence[tuple[str, Mapping[str, Sequence[tuple[int, float]]]]], *, height: int = 260
) -> UInt8[np.ndarray, "h w 3"]:
    """A panel under another: (title, {name: (x, y) of its points}), x on a logarithmic scale, y in [0, 1]."""
    page, draw, font = _page(len(panels) * height)
    for number, (title, curves) in enumerate(panels):
        top, bottom, right = number * height + 2 * LINE, (number + 1) * height - 2 * LINE, WIDTH - 190
        places = sorted({x for points in curves.values() for x, _ in points})
        low, span = np.log(places[0]), max(np.log(places[-1]) - np.log(places[0]), 1e-9)

        def at(x, y, low=low, span=span, bottom=bottom, top=top, right=right):
            return MARGIN + (np.log(x) - low) / span * (right - MARGIN), bottom - y * (bottom - top)

        _text(draw, font, (MARGIN, number * height + 6), title, INK)
        for share in np.linspace(0, 1, 6):
            _line(draw, [(MARGIN, at(places[0], share)[1]), (right, at(places[0], share)[1])], FAINT, 1)
            _text(draw, font, (8, at(places[0], share)[1] - 7), f"{share:.1f}", INK)
        for x in places:
            _text(draw, font, (at(x, 0)[0] - 10, bottom + 4), f"{x:g}", INK)
        for place, (name, points) in enumerate(curves.items()):
            colour = PALETTE[place % len(PALETTE)]
            dots = [at(x, y) for x, y in sorted(points)]
            _line(draw, dots if len(dots) > 1 else [*dots, (dots[0][0] + 3, dots[0][1])], colour, 2)
            for x, y in dots:
                draw.ellipse([SCALE * edge for edge in (x - 3, y - 3, x + 3, y + 3)], fill=colour)
            _text(draw, font, (right + 14, top + place * LINE), name, colour)
    return _shrunk(page)


def _across(cosine: float) -> float:
    return MARGIN + (cosine + 1) / 2 * (WIDTH - 2 * MARGIN)


def _page(height: int):
    page = Image.new("RGB", (SCALE * WIDTH, SCALE * height), PAPER)
    return page, ImageDraw.Draw(page), ImageFont.load_default(size=12 * SCALE)


def _text(draw, font, place, text, colour):
    draw.text(tuple(SCALE * at for at in place), text, fill=colour, font=font)


def _line(draw, points, colour, width):
    draw.line([(SCALE * x, SCALE * y) for x, y in points], fill=colour, width=max(1, round(SCALE * width)))


def _shrunk(page: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    return np.asarray(page.resize((page.width // SCALE, page.height // SCALE), Image.Resampling.LANCZOS))
