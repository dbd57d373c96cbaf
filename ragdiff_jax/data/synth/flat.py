"""The standard flat-lay: the garment's sheets, drawn group by group, and their sum as an image."""

import dataclasses

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from ragdiff_jax.data.synth.colours import scaled
from ragdiff_jax.data.synth.cutting import ADDED, GROUPS, Piece
from ragdiff_jax.data.synth.needle import Needle
from ragdiff_jax.data.synth.outline import Outline, outline
from ragdiff_jax.data.synth.prints import cloth, plain_colour
from ragdiff_jax.data.synth.sewing import sew_body, sew_sleeve
from ragdiff_jax.data.synth.shading import light_on, rim, smooth_noise
from ragdiff_jax.data.synth.shape import GarmentSpec
from ragdiff_jax.data.synth.sleeves import Flap
from ragdiff_jax.data.synth.styles import Style, dyed, get_style

__all__ = ["FILL", "Sheets", "flat_from_sheets", "make_sheets", "render_flat", "smooth_noise"]

FILL = 0.84  # the larger side of the garment, as a share of the frame
_OVERSAMPLING = 2
_BRIGHTEST = 250  # cloth is never as white as the paper


@dataclasses.dataclass(frozen=True)
class Sheets:
    """The garment as cut: one RGBA image [r, r] a group, in drawing order, and its place there.

    Sleeves are straight here; `flat_from_sheets` lays them as `outline.flaps` says.
    """

    images: dict[str, Image.Image]
    outline: Outline
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
    canvas = Image.new("RGB", next(iter(sheets.images.values())).size, (255, 255, 255))
    coverage = Image.new("L", canvas.size, 0)
    upper = []
    for group, sheet in sheets.images.items():
        parts = [(flap.above, *_laid(sheet, flap, sheets)) for flap in sheets.outline.flaps.get(group, ())]
        upper += [(part, at) for above, part, at in parts if above]
        box = sheet.getchannel("A").getbbox()
        below = [(part, at) for above, part, at in parts if not above] if parts else [(sheet.crop(box), box[:2])]
        for part, at in below:
            alpha = part.getchannel("A")
            canvas.paste(part, at, alpha)
            coverage.paste(255, at, alpha)
    for part, at in upper:
        alpha = part.getchannel("A")
        shadow = alpha.reduce(4).filter(ImageFilter.GaussianBlur(1.2)).resize(alpha.size, Image.BILINEAR)
        canvas.paste((0, 0, 0), at, shadow.point(_SHADOW))
        canvas.paste(part, at, alpha)
        coverage.paste(255, at, alpha)
    flat = np.array(canvas.reduce(_OVERSAMPLING))
    mask = np.asarray(coverage.reduce(_OVERSAMPLING)) >= 128
    flat[~mask] = 255
    return flat, mask


_SHADOW = [int(0.3 * v) for v in range(256)]


def _laid(sheet: Image.Image, flap: Flap, sheets: Sheets) -> tuple[Image.Image, tuple[int, int]]:
    """The part of a sleeve's sheet that `flap` keeps, and the pixel where its upper left corner lies."""
    if flap.normal is not None:
        far = 4 * sheets.pixels_per_unit
        point = sheets.to_pixels(flap.point)
        along, inside = far * np.array([-flap.normal[1], flap.normal[0]]), far * flap.normal
        kept = Image.new("L", sheet.size, 0)
        corners = (point - along, point + along, point + along + inside, point - along + inside)
        ImageDraw.Draw(kept).polygon([tuple(p) for p in corners], fill=255)
        sheet = sheet.copy()
        sheet.putalpha(ImageChops.darker(sheet.getchannel("A"), kept))
    back = np.linalg.inv(flap.matrix)
    moved = sheets.offset + flap.shift * sheets.pixels_per_unit
    left, top, right, bottom = sheet.getchannel("A").getbbox()
    corners = np.array([(left, top), (right, top), (left, bottom), (right, bottom)]) - sheets.offset
    corners = corners @ flap.matrix.T + moved
    low = np.maximum(np.floor(corners.min(0)).astype(int) - 4, 0)
    high = np.minimum(np.ceil(corners.max(0)).astype(int) + 4, sheet.size[0])
    start = sheets.offset + back @ (low - moved)
    numbers = (back[0, 0], back[0, 1], start[0], back[1, 0], back[1, 1], start[1])
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    part = sheet.transform(size, Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR)
    return part, (int(low[0]), int(low[1]))


def make_sheets(spec: GarmentSpec, size: int, *, style: str = "drawn") -> Sheets:
    """Draw the garment's sheets at twice `size`, in a style of `styles.STYLES`.

    Raises `UserError` for an unknown style.
    """
    how = get_style(style)
    spec = dataclasses.replace(spec, look=dyed(spec.look, how))
    cut = outline(spec.shape, FILL)
    r = size * _OVERSAMPLING
    x0, y0, x1, y1 = cut.laid_bounds
    scale = FILL * r / max(x1 - x0, y1 - y0)
    offset = np.array([r / 2 - scale * (x0 + x1) / 2, r / 2 - scale * (y0 + y1) / 2])
    light = light_on(spec, how, r, scale, offset)
    images = {}
    for group in GROUPS:
        pieces = [p for p in cut.pieces if p.group == group]
        if pieces:
            images[group] = _sheet(spec, how, group, pieces, r, scale, offset, light, cut)
    return Sheets(images, cut, scale, offset)


def _sheet(spec, style: Style, group, pieces: list[Piece], r, scale, offset, light, cut) -> Image.Image:
    """One group's RGBA image [r, r]; only the box around its pieces is painted and shaded."""
    look, shape = spec.look, spec.shape
    alpha = Image.new("L", (r, r), 0)
    stencil = ImageDraw.Draw(alpha)
    polygons = [(p.paint, [tuple(xy) for xy in (p.polygon * scale + offset).tolist()]) for p in pieces]
    for paint, points in polygons:
        if paint not in ADDED:
            stencil.polygon(points, fill=0 if paint == "hole" else 255)
    box = alpha.getbbox()
    sleeve = group in ("left", "right")
    image = Image.new("RGB", (r, r), plain_colour(look, shape, "sleeve" if sleeve else "body"))
    if look.print != "Solid Color":
        pattern = _pattern(spec, group, box, scale, offset)
        if pattern is not None:
            image.paste(Image.fromarray(pattern), box)
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
    left, top, right, bottom = box
    depth = style.rim * (1.0 if group == "body" else 1.35)
    shade = light[top:bottom, left:right] * rim(alpha, r, box, depth, style)
    if group == "back":
        shade *= 0.82
    image.paste(_shaded(image.crop(box), shade), box)
    image.putalpha(alpha)
    return image


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


def _pattern(spec: GarmentSpec, group: str, box, scale: float, offset) -> np.ndarray | None:
    """The printed cloth inside `box`, or None where it's plain; a sleeve's cloth turns with it."""
    shape = spec.shape
    if group == "back" and shape.collar != "Hooded" and not shape.train:
        return None
    x = (np.arange(box[0], box[2], dtype=np.float32) + 0.5 - offset[0]) / scale
    y = (np.arange(box[1], box[3], dtype=np.float32) + 0.5 - offset[1]) / scale
    v, u = np.meshgrid(y.astype(np.float32), x.astype(np.float32), indexing="ij")
    if group in ("back", "body"):
        return cloth(spec.look, shape, u, v, "body")
    du, dv = (1 if group == "right" else -1) * u - np.float32(shape.shoulder), v - np.float32(shape.slope)
    cos, sin = np.float32(np.cos(shape.sleeve_angle)), np.float32(np.sin(shape.sleeve_angle))
    return cloth(spec.look, shape, cos * du - sin * dv, sin * du + cos * dv, "sleeve")
