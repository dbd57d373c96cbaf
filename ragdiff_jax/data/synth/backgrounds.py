"""What a garment is laid on: sheets, quilts, rugs, wood, parquet, carpets, tiles, stone, grass, patterned cloth."""

import functools
import math

import numpy as np
from PIL import Image, ImageDraw

from ragdiff_jax.data.synth.colours import draw_colour, scaled
from ragdiff_jax.data.synth.garment import GarmentSpec, garment_spec
from ragdiff_jax.data.synth.noise import smooth_noise, white_noise
from ragdiff_jax.data.synth.prints import cloth
from ragdiff_jax.data.synth.shape import pick_index

_LOUD = ("Striped", "Plaid", "Polka Dot", "Floral", "Camouflage", "Geometric", "Star")
_GROUNDS = 48  # patterned cloths there are; each is turned and scaled anew


def surface(rng: np.random.Generator, size: int) -> Image.Image:
    """Something to lay a garment on, seen from above: RGB [size, size]."""
    ground = _ground(rng, size)
    if rng.random() < 0.28:
        _second(rng, ground, size)
    return ground


def _ground(rng, size):
    kinds = (sheet, _quilt, _patterned, _rug, wood, _parquet, _carpet, _tiles, _stone, _grass, plain)
    kind = pick_index(rng, (0.24, 0.06, 0.13, 0.1, 0.1, 0.05, 0.1, 0.07, 0.05, 0.02, 0.08))
    return kinds[kind](rng, size)


def _second(rng, image: Image.Image, size: int) -> None:
    """The bed ends, a pillow or another cloth begins: a second ground beyond a line, with a shadow on it."""
    angle, far = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.24, 0.48)
    way = np.array([np.cos(angle), np.sin(angle)])
    side = np.array([-way[1], way[0]])
    near = size / 2 + far * way

    def half_plane(start):
        corners = (start - 2 * size * side, start + 2 * size * side)
        return np.concatenate([corners, np.array(corners)[::-1] + 2 * size * way]).ravel().tolist()

    mask = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(mask)
    draw.polygon(half_plane(near - way * size * 0.02), fill=120)
    image.paste((20, 16, 14), (0, 0), mask)
    mask = Image.new("L", (size, size), 0)
    ImageDraw.Draw(mask).polygon(half_plane(near), fill=255)
    image.paste((plain, sheet, wood, _carpet)[rng.integers(4)](rng, size), (0, 0), mask)


def lit(colour, light: np.ndarray) -> Image.Image:
    """A colour (or an image of colours) under light [size, size]."""
    h, w = light.shape
    pixels = np.asarray(colour, np.float32)
    pixels = (np.tile(pixels, w) if pixels.ndim == 1 else pixels.reshape(h, 3 * w)) * np.repeat(light, 3, 1)
    return Image.fromarray(np.minimum(np.maximum(pixels, 0), 255).astype(np.uint8).reshape(h, w, 3))


def tone(rng: np.random.Generator) -> tuple[int, int, int]:
    """A colour for rooms: often pale or warm, now and then anything."""
    if rng.random() < 0.25:
        return draw_colour(rng)
    value = rng.uniform(95, 245)
    warm = rng.uniform(-0.06, 0.2)
    return int(min(255, value * (1 + warm * 0.5))), int(value), int(value * (1 - warm))


def _speckle(rng, size: int, strength: float) -> np.ndarray:
    return np.float32(strength) * white_noise(rng, size, size)


def plain(rng, size):
    return lit(tone(rng), 1 + 0.05 * smooth_noise(rng, (3, 3), size) + _speckle(rng, size, 0.012))


def sheet(rng, size):
    """A bed sheet or a blanket with its folds."""
    n = 48
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
    strength = rng.uniform(0.02, 0.13)
    light = strength * smooth_noise(rng, (int(rng.integers(3, 12)), int(rng.integers(3, 12))), n)
    for _ in range(rng.integers(0, 8)):
        angle, width = rng.uniform(0, np.pi), rng.uniform(0.015, 0.06)
        cos, sin = math.cos(angle), math.sin(angle)
        across = (x - rng.random()) * cos + (y - rng.random()) * sin
        along = (y - rng.random()) * cos - (x - rng.random()) * sin
        across = across + rng.normal(0, 0.4) * along * along
        ends = np.exp(-((along / rng.uniform(0.2, 0.9)) ** 2))
        light += strength * 1.6 * ends * across / width * np.exp(-0.5 * (across / width) ** 2)
    light = 1 + np.asarray(Image.fromarray(light.astype(np.float32)).resize((size, size), Image.BICUBIC))
    weave = rng.random()
    if weave < 0.25:
        light += _speckle(rng, size, rng.uniform(0.01, 0.05))
    elif weave < 0.5:  # waffle or ribbed cloth
        wave = np.sin(np.arange(size, dtype=np.float32) * np.float32(2 * np.pi * rng.uniform(16, 60) / size))
        light += rng.uniform(0.01, 0.05) * (wave[:, None] + (wave[None] if rng.random() < 0.5 else 0))
    return lit(draw_colour(rng) if rng.random() < 0.45 else tone(rng), light)


def _quilt(rng, size):
    """Diamond or square stitching on a pale or coloured blanket."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    period = rng.uniform(0.1, 0.25)
    a, b = ((x + y) / period, (x - y) / period) if rng.random() < 0.7 else (x / period, y / period)
    puff = np.abs(np.sin(np.pi * a)) * np.abs(np.sin(np.pi * b))
    light = 0.86 + 0.16 * np.sqrt(puff) + 0.05 * smooth_noise(rng, (5, 5), size)
    return lit(tone(rng), light)


def wood(rng, size):
    base = np.array([rng.uniform(95, 225), 0, 0])
    base[1] = base[0] * rng.uniform(0.68, 0.92)
    base[2] = base[1] * rng.uniform(0.6, 0.95)
    grain = smooth_noise(rng, (int(rng.integers(30, 70)), 4), size)
    light = 1 + rng.uniform(0.03, 0.09) * grain + 0.04 * smooth_noise(rng, (3, 3), size)
    planks = int(rng.integers(1, 8))
    rows = np.arange(size) * planks // size
    light *= (1 + 0.06 * rng.standard_normal(planks))[rows][:, None]
    edges = np.flatnonzero(np.diff(rows)) + 1
    light[edges] *= rng.uniform(0.55, 0.9)
    for top in np.concatenate([[0], edges]).astype(int):
        at = int(rng.integers(size))
        light[top : top + size // planks, at : at + max(1, size // 128)] *= 0.75
    image = lit(base, light)
    return image.transpose(Image.Transpose.ROTATE_90) if rng.random() < 0.5 else image


def _parquet(rng, size):
    """Herringbone: strips in two directions, each in its own tone."""
    n = rng.uniform(5, 11)
    angle = np.pi / 4 * rng.integers(2)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) * np.float32(n / size)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = cos * x - sin * y + 20, sin * x + cos * y + 20
    cell_u, cell_v = np.floor(u).astype(int), np.floor(v).astype(int)
    step = (cell_u - cell_v) % 4
    across = step < 2
    strip = np.where(across, cell_v * 31 + (cell_u - step % 2) * 17, cell_u * 29 + (cell_v + step % 2) * 13 + 7)
    tones = rng.normal(1.0, 0.09, 64)
    light = tones[strip % 64] * (1 + 0.03 * smooth_noise(rng, (4, 4), size))
    edge = np.where(across, v - cell_v, u - cell_u)
    light = light * np.where(edge < 0.06, 0.75, 1)
    red = rng.uniform(130, 225)
    return lit((red, red * rng.uniform(0.68, 0.85), red * rng.uniform(0.4, 0.66)), light)


def _carpet(rng, size):
    noise = _speckle(rng, (size + 1) // 2, 1.0)
    noise = np.asarray(Image.fromarray(noise).resize((size, size), Image.BILINEAR))
    light = 1 + rng.uniform(0.05, 0.24) * noise + 0.07 * smooth_noise(rng, (6, 6), size)
    return lit(tone(rng), light)


def _tiles(rng, size):
    n = rng.uniform(1.2, 5)
    place = np.arange(size) * n / size + rng.random()
    joint = (place - np.floor(place)) < max(1.2 * n / size, 0.02)
    light = 1 + 0.04 * smooth_noise(rng, (6, 6), size) + _speckle(rng, size, 0.015)
    depth = rng.uniform(0.6, 0.9)
    light[joint] *= depth
    light[:, joint] *= depth
    image = lit(tone(rng), light)
    if rng.random() < 0.35:
        big = image.resize((size * 3 // 2, size * 3 // 2)).rotate(rng.uniform(10, 80), Image.BILINEAR)
        at = size // 4
        return big.crop((at, at, at + size, at + size)) if rng.random() < 0.5 else image
    return image


def _stone(rng, size):
    """Concrete, asphalt or terrazzo: grains of several tones."""
    base = np.array(tone(rng), np.float32)
    grains = rng.integers(0, 8, (max(2, size * 2 // 3),) * 2).astype(np.uint8)
    grains = np.asarray(Image.fromarray(grains).resize((size, size), Image.NEAREST))
    spread = rng.uniform(0.03, 0.3)
    tones = 1 + spread * rng.standard_normal((8, 3)) * (1, 0.9, 0.9)
    light = 1 + 0.05 * smooth_noise(rng, (5, 5), size)
    return lit((base * tones).astype(np.float32).take(grains, 0), light)


def _grass(rng, size):
    blades = smooth_noise(rng, (size // 2, size // 2), size)
    light = 1 + 0.3 * blades + 0.12 * smooth_noise(rng, (7, 7), size)
    return lit((rng.uniform(60, 120), rng.uniform(100, 160), rng.uniform(35, 70)), light)


def _rug(rng, size):
    """An ornament that mirrors itself, repeated, in three or four colours: oriental rugs, tablecloths."""
    n = int(rng.integers(7, 15))
    quarter = smooth_noise(rng, (n, n), 32)
    block = np.concatenate([quarter, quarter[:, ::-1]], 1)
    block = np.concatenate([block, block[::-1]], 0)
    count = int(rng.integers(3, 6))
    index = np.searchsorted(np.quantile(block, np.linspace(0, 1, count + 1)[1:-1]), block).astype(np.uint8)
    colours = [draw_colour(rng) if i < 2 else tone(rng) for i in range(count)]
    tile = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8)[index])
    side = max(8, int(size * rng.uniform(0.2, 0.6)))
    tile = np.asarray(tile.resize((side, side), Image.BILINEAR), np.float32)
    repeats = -(-size // side) + 1
    dy, dx = (int(v) for v in rng.integers(0, side, 2))
    full = np.tile(tile, (repeats, repeats, 1))[dy : dy + size, dx : dx + size]
    return lit(full, 1 + 0.06 * smooth_noise(rng, (5, 5), size) + _speckle(rng, size, rng.uniform(0.01, 0.07)))


@functools.lru_cache(maxsize=_GROUNDS)
def _cloth_spec(number: int) -> GarmentSpec:
    for seed in range(97 * number, 97 * number + 97):
        spec = garment_spec(seed, "T-shirt")
        if spec.look.print in _LOUD:
            break
    return spec


def _patterned(rng, size):
    """Printed cloth: the garments' own prints, turned and scaled."""
    spec = _cloth_spec(int(rng.integers(_GROUNDS)))
    angle, zoom = rng.uniform(-0.5, 0.5), rng.uniform(0.6, 2.0)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) * np.float32(2 * zoom / size)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    colours = cloth(spec.look, spec.shape, x * cos - y * sin, x * sin + y * cos, "body")
    light = 1 + 0.07 * smooth_noise(rng, (5, 5), size) + 0.05 * smooth_noise(rng, (11, 7), size)
    if colours is None:
        return lit(spec.look.colours[0], light)
    if rng.random() < 0.5:  # other colours than clothes wear
        red, green, blue = colours.split()
        colours = Image.merge("RGB", ((green, blue, red), (blue, red, green), (green, red, blue))[rng.integers(3)])
    return lit(colours, light)


def objects(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: int) -> None:
    """Things that lie about near the frame's edge: boxes, round things, cords."""
    for _ in range(int(rng.integers(1, 4))):
        angle = rng.uniform(0, 2 * np.pi)
        x, y = size / 2 + size * rng.uniform(0.42, 0.6) * np.array([np.cos(angle), np.sin(angle)])
        w, h = rng.uniform(0.04, 0.16, 2) * size
        colour = draw_colour(rng)
        kind = rng.integers(3)
        if kind == 0:
            draw.ellipse((x - w, y - w, x + w, y + w), fill=colour, outline=scaled(colour, 0.7))
            draw.ellipse((x - w * 0.6, y - w * 0.7, x + w * 0.4, y + w * 0.3), fill=scaled(colour, 1.1))
        elif kind == 1:
            draw.rectangle((x - w, y - h, x + w, y + h), fill=colour, outline=scaled(colour, 0.7))
        else:
            points = [(x + w * 3 * np.sin(2 * t + angle), y + h * 3 * np.cos(3 * t)) for t in np.linspace(0, 1, 8)]
            draw.line(points, fill=colour, width=max(1, size // 64), joint="curve")
