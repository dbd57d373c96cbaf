"""What lies behind the garment: sheets, wood, carpet, tiles, patterned cloth, walls, wardrobes, clutter."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ragdiff_jax.data.synth.colours import draw_colour
from ragdiff_jax.data.synth.flat import smooth_noise
from ragdiff_jax.data.synth.garment import garment_spec
from ragdiff_jax.data.synth.prints import cloth


def surface(rng: np.random.Generator, size: int) -> Image.Image:
    """Something to lay a garment on: RGB [size, size]."""
    kind = rng.choice(6, p=(0.34, 0.2, 0.12, 0.1, 0.16, 0.08))
    return (_sheet, _wood, _carpet, _tiles, _patterned, _plain)[kind](rng, size)


def wall(rng: np.random.Generator, size: int) -> Image.Image:
    """Something to hang a garment before or stand in front of: RGB [size, size]."""
    kind = rng.choice(5, p=(0.3, 0.25, 0.2, 0.15, 0.1))
    return (_plain, _doors, _clutter, _sheet, _wood)[kind](rng, size)


def _finish(colour, light: np.ndarray) -> Image.Image:
    pixels = np.asarray(colour, np.float32) * light[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _tone(rng: np.random.Generator) -> tuple[int, int, int]:
    """A colour for rooms: often pale or warm, now and then anything."""
    if rng.random() < 0.3:
        return draw_colour(rng)
    value = rng.uniform(110, 240)
    warm = rng.uniform(-0.06, 0.16)
    return int(min(255, value * (1 + warm * 0.5))), int(value), int(value * (1 - warm))


def _plain(rng, size):
    light = 1 + 0.05 * smooth_noise(rng, (3, 3), size)
    return _finish(_tone(rng), light + 0.015 * rng.standard_normal((size, size), np.float32))


def _sheet(rng, size):
    light = 1 + 0.05 * smooth_noise(rng, (4, 4), size)
    strength = rng.uniform(0.02, 0.13)
    light += strength * smooth_noise(rng, (int(rng.integers(3, 12)), int(rng.integers(3, 12))), size)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    for _ in range(rng.integers(0, 6)):
        angle, width = rng.uniform(0, np.pi), rng.uniform(0.01, 0.05)
        across = (x - rng.random()) * np.cos(angle) + (y - rng.random()) * np.sin(angle)
        light += strength * 1.6 * across / width * np.exp(-0.5 * (across / width) ** 2)
    if rng.random() < 0.2:
        period = rng.uniform(0.1, 0.25)
        a, b = (x + y) / period, (x - y) / period
        light -= 0.12 * ((np.abs(a - np.rint(a)) < 0.05) | (np.abs(b - np.rint(b)) < 0.05))
    light += rng.uniform(0.0, 0.04) * rng.standard_normal((size, size), np.float32)
    return _finish(draw_colour(rng) if rng.random() < 0.45 else _tone(rng), light)


def _wood(rng, size):
    base = np.array([rng.uniform(120, 225), 0, 0])
    base[1] = base[0] * rng.uniform(0.68, 0.9)
    base[2] = base[1] * rng.uniform(0.62, 0.92)
    light = (
        1
        + 0.07 * smooth_noise(rng, (int(rng.integers(30, 60)), 4), size)
        + 0.04 * smooth_noise(rng, (3, 3), size)
    )
    planks = int(rng.integers(2, 8))
    rows = np.arange(size) * planks // size
    light *= (1 + 0.06 * rng.standard_normal(planks))[rows][:, None]
    edges = np.flatnonzero(np.diff(rows)) + 1
    light[edges] *= 0.62
    image = _finish(base, light)
    return image.transpose(Image.Transpose.ROTATE_90) if rng.random() < 0.5 else image


def _carpet(rng, size):
    noise = np.asarray(
        Image.fromarray(rng.standard_normal((size // 2, size // 2), np.float32)).resize((size, size))
    )
    light = 1 + rng.uniform(0.04, 0.13) * noise + 0.06 * smooth_noise(rng, (5, 5), size)
    return _finish(_tone(rng), light)


def _tiles(rng, size):
    n = int(rng.integers(2, 6))
    place = np.arange(size) * n / size + rng.random()
    joint = (place - np.floor(place)) < 0.03
    light = 1 + 0.04 * smooth_noise(rng, (6, 6), size) + 0.02 * rng.standard_normal((size, size), np.float32)
    light[joint] *= 0.75
    light[:, joint] *= 0.75
    return _finish(_tone(rng), light)


def _patterned(rng, size):
    for _ in range(8):
        spec = garment_spec(int(rng.integers(2**31)))
        if spec.look.print in ("Striped", "Plaid", "Polka Dot", "Floral", "Camouflage", "Geometric", "Star"):
            break
    angle, zoom = rng.uniform(-0.5, 0.5), rng.uniform(0.6, 2.0)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) * (2 * zoom / size)
    colours = cloth(
        spec.look,
        spec.shape,
        x * np.cos(angle) - y * np.sin(angle),
        x * np.sin(angle) + y * np.cos(angle),
        "body",
    )
    light = 1 + 0.07 * smooth_noise(rng, (5, 5), size) + 0.05 * smooth_noise(rng, (11, 7), size)
    return _finish(spec.look.colours[0] if colours is None else colours, light)


def _doors(rng, size):
    base = _tone(rng) if rng.random() < 0.4 else (int(rng.uniform(90, 200)), 0, 0)
    if base[1] == 0:
        base = (base[0], int(base[0] * rng.uniform(0.6, 0.85)), int(base[0] * rng.uniform(0.35, 0.7)))
    light = 1 + 0.05 * smooth_noise(rng, (3, 30), size)
    image = _finish(base, light)
    draw = ImageDraw.Draw(image)
    width = size * rng.uniform(0.35, 0.7)
    x = -width * rng.random()
    dark = tuple(int(c * 0.6) for c in base)
    pale = tuple(min(255, int(c * 1.2)) for c in base)
    while x < size:
        draw.line((x, 0, x, size), fill=dark, width=max(1, size // 64))
        inset = width * 0.14
        for top, bottom in ((0.05, 0.42), (0.5, 0.95)):
            box = (x + inset, size * top, x + width - inset, size * bottom)
            draw.rectangle(box, outline=dark, width=max(1, size // 90))
            draw.line((box[0], box[3], box[2], box[3]), fill=pale, width=max(1, size // 128))
        x += width
    return image


def _clutter(rng, size):
    """A room out of focus: furniture, shelves, other clothes."""
    image = _plain(rng, size)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(3, 14)):
        x, y = rng.uniform(-0.2, 1.0, 2) * size
        w, h = rng.uniform(0.06, 0.5, 2) * size
        colour = draw_colour(rng) if rng.random() < 0.5 else _tone(rng)
        if rng.random() < 0.7:
            draw.rectangle((x, y, x + w, y + h), fill=colour)
        else:
            draw.ellipse((x, y, x + w, y + h), fill=colour)
    if rng.random() < 0.5:
        floor = rng.uniform(0.65, 0.9) * size
        draw.rectangle((0, floor, size, size), fill=_tone(rng))
    return image.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.003, 0.025)))
