"""The standard flat-lay: the garment's sheets, drawn group by group, and their sum as an image."""

import dataclasses
import functools

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from ragdiff_jax.data.synth.colours import scaled
from ragdiff_jax.data.synth.cutting import ADDED, GROUPS
from ragdiff_jax.data.synth.needle import Needle
from ragdiff_jax.data.synth.outline import Outline, outline
from ragdiff_jax.data.synth.prints import UNPRINTED, cloth, plain_colour
from ragdiff_jax.data.synth.sewing import sew_body, sew_sleeve
from ragdiff_jax.data.synth.shading import light_on, rim
from ragdiff_jax.data.synth.shape import GarmentSpec, Shape
from ragdiff_jax.data.synth.sleeves import Flap
from ragdiff_jax.data.synth.styles import Style, dyed, get_style

FILL = 0.84  # the larger side of the garment, as a share of the frame
_OVERSAMPLING = 2
_BRIGHTEST = 250  # cloth is never as white as the paper


@dataclasses.dataclass(frozen=True)
class Sheet:
    """One group's cloth, cut to its box: RGB and L images of the same size and the pixel of their corner."""

    image: Image.Image
    alpha: Image.Image
    at: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Sheets:
    """The garment as cut: a sheet a group, in drawing order, on a square of `side` pixels.

    Sleeves are straight here; `flat_from_sheets` lays them as `outline.flaps` says.
    """

    groups: dict[str, Sheet]
    outline: Outline
    side: int
    pixels_per_unit: float
    offset: np.ndarray  # pixel of the origin

    def to_pixels(self, points) -> np.ndarray:
        return np.asarray(points, float) * self.pixels_per_unit + self.offset


def render_flat(spec: GarmentSpec, size: int, *, style: str = "drawn") -> tuple[np.ndarray, np.ndarray]:
    """The standard flat-lay: uint8 [size, size, 3] and its exact mask, bool [size, size].

    Centred, the larger side fills 84 % of the frame; outside the mask the image is pure white in every style.
    Raises `UserError` for an unknown style.
    """
    return flat_from_sheets(make_sheets(spec, size, style=style), size)


def flat_from_sheets(sheets: Sheets, size: int) -> tuple[np.ndarray, np.ndarray]:
    canvas = Image.new("RGB", (sheets.side, sheets.side), (255, 255, 255))
    coverage = Image.new("L", canvas.size, 0)
    upper = []
    for group, sheet in sheets.groups.items():
        flaps = sheets.outline.flaps.get(group, ())
        parts = [(flap.above, _laid(sheet, flap, sheets)) for flap in flaps] or [(False, sheet)]
        upper += [part for above, part in parts if above]
        for above, part in parts:
            if not above:
                canvas.paste(part.image, part.at, part.alpha)
                coverage.paste(255, part.at, part.alpha)
    for part in upper:
        small = part.alpha.reduce(4).filter(ImageFilter.GaussianBlur(1.2)).point(_SHADOW)
        canvas.paste((0, 0, 0), part.at, small.resize(part.alpha.size, Image.BILINEAR))
        canvas.paste(part.image, part.at, part.alpha)
        coverage.paste(255, part.at, part.alpha)
    canvas, coverage = canvas.reduce(_OVERSAMPLING), coverage.reduce(_OVERSAMPLING)
    canvas.paste((255, 255, 255), (0, 0), coverage.point(_OUTSIDE))
    return np.array(canvas), np.asarray(coverage) >= 128


_SHADOW = [int(0.3 * v) for v in range(256)]
_OUTSIDE = [255 * (v < 128) for v in range(256)]


def _laid(sheet: Sheet, flap: Flap, sheets: Sheets) -> Sheet:
    """The part of a sleeve's sheet that `flap` keeps, where it lies."""
    alpha, origin = sheet.alpha, sheets.offset - sheet.at
    if flap.normal is not None:
        far = 4 * sheets.pixels_per_unit
        point = flap.point * sheets.pixels_per_unit + origin
        along, inside = far * np.array([-flap.normal[1], flap.normal[0]]), far * flap.normal
        kept = Image.new("L", alpha.size, 0)
        corners = (point - along, point + along, point + along + inside, point - along + inside)
        ImageDraw.Draw(kept).polygon([tuple(p) for p in corners], fill=255)
        alpha = ImageChops.darker(alpha, kept)
    back = np.linalg.inv(flap.matrix)
    moved = sheets.offset + flap.shift * sheets.pixels_per_unit
    left, top, right, bottom = alpha.getbbox() or (0, 0, 1, 1)
    corners = np.array([(left, top), (right, top), (left, bottom), (right, bottom)]) - origin
    corners = corners @ flap.matrix.T + moved
    low = np.maximum(np.floor(corners.min(0)).astype(int) - 4, 0)
    high = np.minimum(np.ceil(corners.max(0)).astype(int) + 4, sheets.side)
    start = origin + back @ (low - moved)
    numbers = (back[0, 0], back[0, 1], start[0], back[1, 0], back[1, 1], start[1])
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    how = (size, Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR)
    return Sheet(sheet.image.transform(*how), alpha.transform(*how), (int(low[0]), int(low[1])))


@functools.lru_cache(maxsize=4)
def _cut(shape: Shape) -> Outline:
    """Kept for the structure twin, whose turn is next."""
    return outline(shape, FILL)


def make_sheets(spec: GarmentSpec, size: int, *, style: str = "drawn") -> Sheets:
    """Draw the garment's sheets at twice `size`, in a style of `styles.STYLES`.

    Raises `UserError` for an unknown style.
    """
    how = get_style(style)
    spec = dataclasses.replace(spec, look=dyed(spec.look, how))
    cut = _cut(spec.shape)
    r = size * _OVERSAMPLING
    x0, y0, x1, y1 = cut.laid_bounds
    scale = FILL * r / max(x1 - x0, y1 - y0)
    offset = np.array([r / 2 - scale * (x0 + x1) / 2, r / 2 - scale * (y0 + y1) / 2])
    placed = {
        group: [(p.paint, p.polygon * scale + offset) for p in cut.pieces if p.group == group] for group in GROUPS
    }
    boxes = {group: _box(pieces, r) for group, pieces in placed.items() if pieces}
    edges = np.array(list(boxes.values()))
    whole = (*edges[:, :2].min(0).tolist(), *edges[:, 2:].max(0).tolist())
    light = light_on(spec, how, r, whole, scale, offset)
    groups = {}
    for group, (left, top, right, bottom) in boxes.items():
        here = light[top - whole[1] : bottom - whole[1], left - whole[0] : right - whole[0]]
        at = (left, top)
        pieces = [(paint, [tuple(p) for p in (points - at).tolist()]) for paint, points in placed[group]]
        groups[group] = Sheet(*_drawn(spec, how, group, pieces, r, scale, offset - at, here, cut), at)
    return Sheets(groups, cut, r, scale, offset)


def _box(pieces, r: int) -> tuple[int, int, int, int]:
    """Even numbers around what the pieces cover, with a little air."""
    cloth = np.concatenate([points for paint, points in pieces if paint not in ADDED and paint != "hole"])
    (left, top), (right, bottom) = np.floor(cloth.min(0)).tolist(), np.ceil(cloth.max(0)).tolist()
    left, top = (max(int(v) - 3, 0) // 2 * 2 for v in (left, top))
    right, bottom = (min(-(-(int(v) + 3) // 2) * 2, r) for v in (right, bottom))
    return left, top, right, bottom


def _drawn(spec, style: Style, group, polygons, r, scale, offset, light, cut) -> tuple[Image.Image, Image.Image]:
    """One group's cloth and its alpha in its box; `offset` is the origin's pixel in the box."""
    look = spec.look
    size = (light.shape[1], light.shape[0])
    alpha = Image.new("L", size, 0)
    stencil = ImageDraw.Draw(alpha)
    for paint, points in polygons:
        if paint not in ADDED:
            stencil.polygon(points, fill=0 if paint == "hole" else 255)
    sleeve = group in ("left", "right")
    image = _cloth(spec, group, size, scale, offset)
    draw = ImageDraw.Draw(image)
    needle = Needle(draw, spec, style, r, scale, offset, sleeve)
    colours = {"lining": look.lining, "dark": scaled(look.lining, 0.6), "trim": look.trim, "band": look.trim}
    colours |= {"inner": look.inner, "panel": look.colours[1] if look.print == "Color Block" else None}
    late = []
    for paint, points in polygons:
        if paint == "trim" and not sleeve:
            late.append((paint, points))  # collars lie on seams and prints
        else:
            _paint(draw, image, look, paint, points, colours, needle)
    if group == "body":
        sew_body(needle, cut)
    elif sleeve:
        sew_sleeve(needle, 1 if group == "right" else -1)
    for paint, points in late:
        _paint(draw, image, look, paint, points, colours, needle)
    for paint, points in polygons:
        if paint == "dark" and group == "body":
            draw.polygon(points, fill=colours["dark"])
    shade = light * rim(alpha, r, style.rim * (1.0 if group == "body" else 1.35), style)
    if group == "back":
        shade *= 0.82
    return _shaded(image, shade), alpha


def _shaded(image: Image.Image, shade: np.ndarray) -> Image.Image:
    """Cloth under light around 1, [h, w] float32. In 16 bits, which is much faster than in floats."""
    pixels = np.asarray(image).astype(np.uint16)
    h, w, _ = pixels.shape
    pixels = pixels.reshape(h, 3 * w)
    # A little light is added before shading, else the folds of black cloth wouldn't show.
    pixels += 16
    pixels *= np.repeat((np.minimum(np.maximum(shade, 0), 1.8) * 128).astype(np.uint16), 3, 1)
    pixels >>= 7
    np.maximum(pixels, 10, out=pixels)
    pixels -= 10
    np.minimum(pixels, _BRIGHTEST, out=pixels)
    return Image.fromarray(pixels.astype(np.uint8).reshape(h, w, 3))


def _paint(draw, image, look, paint: str, points, colours, needle: Needle) -> None:
    if paint in ("main", "sleeve", "hole"):
        return
    if colours[paint] is not None:
        draw.polygon(points, fill=colours[paint])
    if paint == "inner" and look.inner_print:
        needle.inner_print(image, points)
    elif paint in ("trim", "band", "panel"):
        edge = look.trim if paint != "panel" else look.colours[0]
        draw.line(points + points[:1], fill=scaled(edge, 0.72), width=needle.thin)


def _cloth(spec: GarmentSpec, group: str, size: tuple[int, int], scale: float, offset) -> Image.Image:
    """Printed or plain cloth, RGB; a sleeve's print turns with it."""
    look, shape = spec.look, spec.shape
    part = "body" if group in ("back", "body") else "sleeve"
    pattern = None
    if look.print not in UNPRINTED and (group != "back" or shape.collar == "Hooded" or shape.train):
        x = ((np.arange(size[0], dtype=np.float32) + 0.5 - offset[0]) / scale).astype(np.float32)
        y = ((np.arange(size[1], dtype=np.float32) + 0.5 - offset[1]) / scale).astype(np.float32)
        u, v = x[None], y[:, None]
        if part == "sleeve":
            du, dv = (1 if group == "right" else -1) * u - np.float32(shape.shoulder), v - np.float32(shape.slope)
            cos, sin = np.float32(np.cos(shape.sleeve_angle)), np.float32(np.sin(shape.sleeve_angle))
            u, v = cos * du - sin * dv, sin * du + cos * dv
        pattern = cloth(look, shape, u, v, part)
    return Image.new("RGB", size, plain_colour(look, shape, part)) if pattern is None else pattern
