"""The standard flat-lay: a garment cut, printed, sewn and lit, as movable sheets and as an image."""

import dataclasses

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ragdiff_jax.data.synth.colours import scaled
from ragdiff_jax.data.synth.garment import GarmentSpec
from ragdiff_jax.data.synth.outline import GROUPS, Outline, Piece, outline
from ragdiff_jax.data.synth.prints import PLACED, cloth, draw_logo, plain_colour

FILL = 0.84  # the larger side of the garment, as a share of the frame
_OVERSAMPLING = 2


@dataclasses.dataclass(frozen=True)
class Sheets:
    """The garment in its flat pose: one RGBA image [r, r] a group, in drawing order, and its place there."""

    images: dict[str, Image.Image]
    outline: Outline
    pixels_per_unit: float
    offset: np.ndarray  # pixel of the origin

    def to_pixels(self, points) -> np.ndarray:
        return np.asarray(points, float) * self.pixels_per_unit + self.offset


def render_flat(spec: GarmentSpec, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The standard flat-lay: uint8 [size, size, 3] and its exact mask, bool [size, size].

    Centred, the larger side fills 84 % of the frame; outside the mask the image is pure white.
    """
    return flat_from_sheets(make_sheets(spec, size), size)


def flat_from_sheets(sheets: Sheets, size: int) -> tuple[np.ndarray, np.ndarray]:
    canvas = Image.new("RGB", next(iter(sheets.images.values())).size, (255, 255, 255))
    coverage = Image.new("L", canvas.size, 0)
    for sheet in sheets.images.values():
        alpha = sheet.getchannel("A")
        canvas.paste(sheet, (0, 0), alpha)
        coverage.paste(255, (0, 0), alpha)
    flat = np.array(canvas.reduce(_OVERSAMPLING))
    mask = np.asarray(coverage.reduce(_OVERSAMPLING)) >= 128
    flat[~mask] = 255
    return flat, mask


def make_sheets(spec: GarmentSpec, size: int) -> Sheets:
    """Draw the garment's sheets at twice `size`."""
    cut = outline(spec.shape)
    r = size * _OVERSAMPLING
    x0, y0, x1, y1 = cut.bounds
    scale = FILL * r / max(x1 - x0, y1 - y0)
    offset = np.array([r / 2 - scale * (x0 + x1) / 2, r / 2 - scale * (y0 + y1) / 2])
    light = _folds(spec, cut, r, scale, offset)
    images = {}
    for group in GROUPS:
        pieces = [p for p in cut.pieces if p.group == group]
        if pieces:
            images[group] = _sheet(spec, group, pieces, r, scale, offset, light, cut)
    return Sheets(images, cut, scale, offset)


def _sheet(spec, group, pieces: list[Piece], r, scale, offset, light, cut) -> Image.Image:
    """One group's RGBA image [r, r]; only the box around its pieces is painted and shaded."""
    look = spec.look
    alpha = Image.new("L", (r, r), 0)
    stencil = ImageDraw.Draw(alpha)
    polygons = [[tuple(p) for p in (piece.polygon * scale + offset)] for piece in pieces]
    for piece, points in zip(pieces, polygons, strict=True):
        if piece.paint != "band":
            stencil.polygon(points, fill=255)
    box = alpha.getbbox()
    image = Image.new("RGB", (r, r), plain_colour(look, "sleeve" if group in ("left", "right") else "body"))
    if look.print != "Solid Color":
        pattern = _pattern(spec, group, box, scale, offset)
        if pattern is not None:
            image.paste(Image.fromarray(pattern), box)
    draw = ImageDraw.Draw(image)
    colours = {"lining": look.lining, "dark": scaled(look.lining, 0.6), "trim": look.trim, "band": look.trim}
    for piece, points in zip(pieces, polygons, strict=True):
        if piece.paint in colours:
            draw.polygon(points, fill=colours[piece.paint])
            if piece.paint in ("trim", "band"):
                draw.line(points + points[:1], fill=scaled(look.trim, 0.72), width=max(1, round(r / 170)))
    if group == "body":
        _sew(draw, spec, cut, scale, offset, r)
    left, top, right, bottom = box
    shade = light[top:bottom, left:right] * _rim(alpha, r, box, 0.2 if group == "body" else 0.27)
    if group == "back":
        shade *= 0.82
    # A little light is added before shading, else the folds of black cloth wouldn't show.
    pixels = (np.asarray(image.crop(box), np.float32) + 16) * shade[..., None] - 10
    image.paste(Image.fromarray(np.clip(pixels, 0, 250).astype(np.uint8)), box)
    image.putalpha(alpha)
    return image


def _pattern(spec: GarmentSpec, group: str, box, scale: float, offset) -> np.ndarray | None:
    """The printed cloth inside `box`, or None where it's plain; a sleeve's cloth turns with it."""
    shape = spec.shape
    if group == "back" and shape.collar != "Hooded":
        return None
    x = (np.arange(box[0], box[2], dtype=np.float32) + 0.5 - offset[0]) / scale
    y = (np.arange(box[1], box[3], dtype=np.float32) + 0.5 - offset[1]) / scale
    v, u = np.meshgrid(y.astype(np.float32), x.astype(np.float32), indexing="ij")
    if group in ("back", "body"):
        return cloth(spec.look, shape, u, v, "body")
    du, dv = (1 if group == "right" else -1) * u - shape.shoulder, v - shape.slope
    cos, sin = float(np.cos(shape.sleeve_angle)), float(np.sin(shape.sleeve_angle))
    return cloth(spec.look, shape, cos * du - sin * dv, sin * du + cos * dv, "sleeve")


def _rim(alpha: Image.Image, r: int, box, depth: float) -> np.ndarray:
    """Darker towards the edge: what tells a white garment from white paper. Only inside `box`."""
    soft = (
        alpha.reduce(4).filter(ImageFilter.GaussianBlur(r / 4 / 40)).resize((r, r), Image.BILINEAR).crop(box)
    )
    return 1 - depth * np.clip(2 - np.asarray(soft, np.float32) / 127.5, 0, 1)


def _folds(spec: GarmentSpec, cut: Outline, r: int, scale: float, offset) -> np.ndarray:
    """Light on the cloth, around 1: a soft gradient, creases and the fabric's own grain, [r, r] float32."""
    look, fabric = spec.look, spec.shape.fabric
    rng = np.random.default_rng(look.fold_seed)
    n = 64
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
    strength = look.fold_strength * {
        "Leather": 1.5,
        "Silk": 1.4,
        "Chiffon": 1.3,
        "Wool": 0.6,
        "Fleece": 0.6,
    }.get(fabric, 1.0)
    light = 0.07 * smooth_noise(rng, (4, 4), n) + 0.05 * smooth_noise(rng, (12, 5), n)
    for _ in range(int(rng.integers(4, 11))):
        cx, cy, angle = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.9), rng.normal(0.0, 0.6)
        along = (x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
        across = (x - cx) * np.cos(angle) - (y - cy) * np.sin(angle) + 0.1 * along * along
        width = rng.uniform(0.012, 0.05)
        crease = across / width * np.exp(-0.5 * (across / width) ** 2 - (along / rng.uniform(0.08, 0.3)) ** 2)
        light += rng.uniform(-0.16, 0.16) * crease
    if spec.shape.quilt:
        light += (0.3 * np.abs(np.sin(np.pi * y * spec.shape.quilt)) - 0.2) / strength
    if spec.shape.pleats:
        light += 0.1 * np.sin((x - 0.5) / np.maximum(0.35 + 0.65 * y, 0.1) * spec.shape.pleats * 12)
    if fabric == "Denim" and look.variant % 2:  # washed along the middle of each leg or of the front
        middle = np.minimum(np.abs(x - 0.36), np.abs(x - 0.64))
        light += 0.22 * np.exp(-((middle / 0.07) ** 2) - ((y - 0.4) / 0.25) ** 2) / strength
    full = np.asarray(Image.fromarray(light * strength).resize((r, r), Image.BICUBIC))
    grain = {"Wool": 0.05, "Knitting": 0.05, "Tweed": 0.09, "Denim": 0.05, "Fleece": 0.03, "Linen": 0.03}
    noise = rng.standard_normal((r // 2, r // 2), np.float32) * grain.get(fabric, 0.012)
    full = full + np.asarray(Image.fromarray(noise).resize((r, r), Image.BILINEAR))
    lines = {"Knitting": (0.045, 0.05), "Corduroy": (0.05, 0.08), "Wool": (0.03, 0.03)}.get(fabric)
    if lines:
        full = full + lines[1] * np.sin((np.arange(r) - offset[0]) / scale * 2 * np.pi / lines[0])[None]
    return 1 + full.astype(np.float32)


def smooth_noise(rng: np.random.Generator, cells: tuple[int, int], size: int) -> np.ndarray:
    """Low-frequency noise of unit variance at its nodes, [size, size] float32."""
    nodes = rng.standard_normal(cells).astype(np.float32)
    return np.asarray(Image.fromarray(nodes).resize((size, size), Image.BICUBIC))


def _sew(draw: ImageDraw.ImageDraw, spec: GarmentSpec, cut: Outline, scale, offset, r) -> None:
    """Seams, necklines, plackets, buttons, zips, pockets and prints on the body."""
    s, look = spec.shape, spec.look
    base = look.colours[0]
    stitch = (200, 150, 80) if s.fabric == "Denim" else scaled(base, 0.7 if sum(base) > 150 else 1.9)
    thin = max(1, round(r / 200))

    def at(points):
        return [tuple(p) for p in (np.asarray(points, float) * scale + offset)]

    def line(points, colour=stitch, width=thin):
        draw.line(at(points), fill=colour, width=width, joint="curve")

    top = s.collar != ""
    if top and look.print in PLACED and not s.is_open and s.opening in ("none", "quarter"):
        x, y = look.logo_at
        width = min(look.logo_size, s.chest * 1.5)
        if width < 0.2:
            x = s.chest * 0.45
        y = max(y, s.neck_depth + width * 0.4 + 0.06 if width > 0.2 else 0.0)
        draw_logo(draw, look, at([(x, y)])[0], width * scale)
    low = s.body_length + s.hem_curve
    if cut.neckline is not None and s.collar in ("Round", "V-neck", "Square", "Baseball"):
        rib = np.concatenate([[[-s.neck_width, 0]], cut.neckline, [[s.neck_width, 0]]])
        wide = max(thin, round((0.035 + 0.03 * s.collar_size * (s.category != "Dress")) * scale * 2))
        line(rib, look.trim, wide)
        line(
            rib * np.array([1.0, 1.0]) + np.array([0, 0.035 + 0.03 * s.collar_size]),
            scaled(look.trim, 0.75),
            thin,
        )
    if s.category == "Tank":
        edge = [p for p in cut.body if s.slope < p[1] < s.slope + s.armhole]
        for side in (1, -1):
            half = [p for p in edge if p[0] * side > 0.02 and abs(p[0]) > s.neck_width * 0.95]
            if len(half) > 2:
                line(sorted(half, key=lambda p: p[1]), look.trim, max(thin, round(0.05 * scale)))
    if top and not s.rib:
        line([(-s.hem * 1.3, s.body_length - 0.07), (0, low - 0.06), (s.hem * 1.3, s.body_length - 0.07)])
    if s.rib:
        for x in np.arange(-s.hem, s.hem, 0.05):
            if not s.is_open or abs(x) > s.gap:
                line([(x, low - s.rib), (x, low)], scaled(look.trim, 0.85), thin)
    _front(line, draw, at, s, look, low, scale, stitch, thin)
    _pockets(line, draw, at, s, look, low, stitch)
    if s.category in ("Trousers", "Shorts"):
        line([(0, 0.08), (0, s.crotch)], scaled(base, 0.6), thin * 2)
        hip = 0.4 * s.chest / 0.5
        for side in (1, -1):
            line(
                [(side * hip * 0.55, 0.1), (side * hip * 0.7, 0.24), (side * hip * 1.15, 0.32)],
                width=thin * 2,
            )
            if s.pocket == "none" and look.variant % 3 == 0 and s.category == "Trousers":
                middle = side * (0.02 + np.tan(s.leg_angle) * s.body_length * 0.3 + hip * 0.5)
                line([(middle, s.crotch), (middle * 1.25, low)], scaled(base, 0.85))
    if s.category in ("Trousers", "Shorts", "Skirt"):
        band = 0.06 + 0.05 * s.collar_size
        waist = 0.4 * s.chest / 0.5
        if look.variant % 2:
            for x in (-0.75, -0.35, 0.35, 0.75):
                line([(x * waist, 0.0), (x * waist, band)], scaled(look.trim, 0.7), thin * 3)
            x, y = at([(0.0, 0.06)])[0]
            draw.ellipse((x - 3 * thin, y - 3 * thin, x + 3 * thin, y + 3 * thin), fill=(190, 180, 160))
        else:
            for x in np.arange(-waist, waist, 0.045):
                line([(x, 0.0), (x, band)], scaled(look.trim, 0.82), thin)
            if s.category != "Skirt":
                line([(-0.03, 0.05), (-0.07, 0.3)], (235, 235, 230), thin * 2)
                line([(0.03, 0.05), (0.05, 0.27)], (235, 235, 230), thin * 2)
    if s.pleats:
        top_y = 0.1 if s.category == "Skirt" else s.slope + s.armhole + 0.45
        for x in np.linspace(-0.85, 0.85, s.pleats + 2):
            line([(x * s.waist * 0.8, top_y), (x * s.hem * 1.1, low)], scaled(base, 0.78))
    if s.category == "Dress":
        y = s.slope + s.armhole + 0.42
        if look.variant % 2:
            line([(-s.waist, y), (0, y + 0.02), (s.waist, y)], look.trim, round(thin + 0.05 * scale))


def _front(line, draw, at, s, look, low, scale, stitch, thin) -> None:
    if s.opening == "none":
        if s.collar == "Hooded":
            line([(-0.07, 0.15), (-0.09, 0.42)], (232, 232, 228), thin * 2)
            line([(0.07, 0.15), (0.08, 0.38)], (232, 232, 228), thin * 2)
        return
    start = s.neck_depth if s.collar in ("V-neck", "Suit") else min(s.neck_depth, 0.13)
    end = start + 0.3 if s.opening == "quarter" else low
    edge = scaled(look.colours[0], 0.62)
    if s.is_open:
        for side in (1, -1):
            line([(side * s.neck_width * 0.75, start * 0.6), (side * s.gap, low)], edge, thin * 2)
        return
    if s.opening == "zip":
        metal = (176, 176, 180) if look.variant % 2 else scaled(look.colours[0], 0.5)
        line([(0, start), (0, end)], edge, thin * 5)
        line([(0, start), (0, end)], metal, thin * 2)
        return
    half = 0.035 if s.collar != "Suit" else 0.0
    for x in {-half, half}:
        line([(x, start), (x, end)], edge)
    dark = look.variant % 3 == 0
    button = (40, 36, 34) if dark else (236, 232, 222) if look.variant % 3 == 1 else scaled(look.trim, 0.6)
    count = 3 if s.opening == "quarter" or s.collar == "Suit" else 6 + look.variant % 3
    radius = max(1.5, (0.014 if s.collar != "Suit" else 0.022) * scale)
    for y in np.linspace(start + 0.05, end - (0.05 if s.opening == "quarter" else 0.15), count):
        x, y = at([(0.0 if half else 0.04, y)])[0]
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=button, outline=scaled(button, 0.6)
        )


def _pockets(line, draw, at, s, look, low, stitch) -> None:
    base = look.colours[0]
    dark = scaled(base, 0.68 if sum(base) > 120 else 2.2)
    if s.pocket == "kangaroo" and not s.is_open:
        y = low - (s.rib or 0.06)
        wide = s.chest * 0.62
        shape = [
            (-wide * 0.6, y - 0.34),
            (wide * 0.6, y - 0.34),
            (wide, y - 0.1),
            (wide, y),
            (-wide, y),
            (-wide, y - 0.1),
            (-wide * 0.6, y - 0.34),
        ]
        line(shape, dark, 2)
    elif s.pocket == "chest":
        x, y, w = s.chest * 0.48, s.slope + s.armhole * 0.72, 0.13
        shape = [(x - w, y), (x + w, y), (x + w, y + 0.24), (x, y + 0.29), (x - w, y + 0.24), (x - w, y)]
        for side in (1, -1) if s.category == "Jacket" else (1,):
            line([(side * px, py) for px, py in shape], stitch if s.fabric == "Denim" else dark, 2)
            if s.category == "Jacket":
                line([(side * (x - w), y + 0.07), (side * x, y + 0.1), (side * (x + w), y + 0.07)], dark, 2)
    elif s.pocket == "sides":
        for side in (1, -1):
            line([(side * s.hem * 0.5, low * 0.62), (side * s.hem * 0.75, low * 0.62 + 0.22)], dark, 4)
