"""What is behind a garment that hangs and a person who stands: doors, wardrobes, walls, rooms, streets, parks."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ragdiff_jax.data.synth.backgrounds import lit, plain, sheet, tone, wood
from ragdiff_jax.data.synth.colours import draw_colour, scaled
from ragdiff_jax.data.synth.noise import smooth_noise
from ragdiff_jax.data.synth.shape import pick_index


def wall(rng: np.random.Generator, size: int) -> Image.Image:
    """Something to hang a garment on: RGB [size, size]."""
    kinds = (plain, _doors, _curtain, _bricks, _wallpaper, wood, sheet, _room)
    return kinds[pick_index(rng, (0.26, 0.28, 0.08, 0.04, 0.1, 0.06, 0.04, 0.14))](rng, size)


def place(rng: np.random.Generator, size: int, floor: float) -> Image.Image:
    """Somewhere for a person: RGB [size, size]. `floor` is the row, as a share, where feet stand."""
    kind = pick_index(rng, (0.4, 0.14, 0.22, 0.14, 0.1))
    if kind == 0:
        return _street(rng, size, floor)
    if kind == 1:
        return _park(rng, size, floor)
    if kind == 2:
        return _room(rng, size, floor)
    return plain(rng, size) if kind == 3 else wall(rng, size)


def _doors(rng, size):
    if rng.random() < 0.5:
        base = tone(rng)
    else:
        red = rng.uniform(70, 200)
        base = (int(red), int(red * rng.uniform(0.6, 0.88)), int(red * rng.uniform(0.35, 0.8)))
    grain = (3, int(rng.integers(20, 50))) if rng.random() < 0.6 else (3, 3)
    image = lit(base, 1 + 0.05 * smooth_noise(rng, grain, size))
    draw = ImageDraw.Draw(image)
    width = size * rng.uniform(0.35, 0.9)
    x = -width * rng.random()
    dark, pale = scaled(base, 0.62), scaled(base, 1.18)
    panels = ((), ((0.05, 0.42), (0.5, 0.95)), ((0.04, 0.3), (0.36, 0.62), (0.68, 0.94)), ((0.06, 0.94),))
    chosen = panels[rng.integers(len(panels))]
    while x < size:
        draw.line((x, 0, x, size), fill=dark, width=max(1, size // 64))
        inset = width * 0.14
        for top, bottom in chosen:
            box = (x + inset, size * top, x + width - inset, size * bottom)
            draw.rectangle(box, outline=dark, width=max(1, size // 90))
            draw.line((box[0], box[3], box[2], box[3]), fill=pale, width=max(1, size // 128))
        x += width
    if rng.random() < 0.5:  # a handle
        x, y = rng.uniform(0.05, 0.95) * size, rng.uniform(0.35, 0.7) * size
        draw.rectangle((x, y, x + size * 0.02, y + size * rng.uniform(0.03, 0.12)), fill=(190, 180, 150))
    return image


def _curtain(rng, size):
    x = np.linspace(0, 1, size, dtype=np.float32)
    bend = 0.02 * smooth_noise(rng, (3, 6), size)
    n = rng.uniform(4, 14)
    light = 0.85 + 0.2 * np.sin(2 * np.pi * n * (x[None] + bend)) + 0.05 * smooth_noise(rng, (3, 5), size)
    return lit(tone(rng), light)


def _bricks(rng, size):
    rows = rng.uniform(8, 18)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) * np.float32(rows / size)
    row = np.floor(y).astype(int)
    u = x / 2.4 + 0.5 * (row % 2)
    column = np.floor(u).astype(int)
    tones = rng.normal(1, 0.1, 64)
    joint = ((y - row) < 0.14) | ((u - column) < 0.06)
    light = tones[(row * 7 + column * 13) % 64] * (1 + 0.03 * smooth_noise(rng, (20, 20), size))
    red = rng.uniform(110, 220)
    base = (red, red * rng.uniform(0.5, 0.95), red * rng.uniform(0.4, 0.9))
    return lit(base, np.where(joint, rng.uniform(0.7, 1.3), light).astype(np.float32))


def _wallpaper(rng, size):
    """A small motif, repeated with an offset in every other row."""
    base = tone(rng)
    image = lit(base, 1 + 0.04 * smooth_noise(rng, (3, 3), size))
    draw = ImageDraw.Draw(image)
    colour = scaled(base, rng.uniform(0.7, 0.9)) if rng.random() < 0.6 else draw_colour(rng)
    step = size * rng.uniform(0.1, 0.25)
    motif = int(rng.integers(3))
    for i in range(int(size / step) + 2):
        if motif == 0:
            draw.line((i * step, 0, i * step, size), fill=colour, width=max(1, int(step * 0.3)))
            continue
        for j in range(int(size / step) + 2):
            x, y, r = (i + 0.5 * (j % 2)) * step, j * step, step * (0.3 if motif == 1 else 0.16)
            draw.ellipse((x - r, y - r * 0.6, x + r, y + r * 0.6), fill=colour)
            if motif == 2:
                draw.ellipse((x - r * 0.6, y - r * 2, x + r * 0.6, y), fill=colour)
    return image


def _room(rng, size, floor: float | None = None):
    """A room out of focus: a floor, furniture, shelves, other clothes."""
    n = (size + 1) // 2
    image = plain(rng, n)
    draw = ImageDraw.Draw(image)
    if floor is not None or rng.random() < 0.4:
        line = (min(floor, 1.3) - rng.uniform(0.1, 0.35) if floor is not None else rng.uniform(0.65, 0.95)) * n
        draw.rectangle((0, line, n, max(n, line)), fill=tone(rng))
        draw.line((0, line, n, line), fill=scaled(tone(rng), 0.8), width=max(1, n // 40))
    for _ in range(rng.integers(2, 11)):
        x, y = rng.uniform(-0.2, 1.0, 2) * n
        w, h = rng.uniform(0.05, 0.45, 2) * n
        colour = draw_colour(rng) if rng.random() < 0.4 else tone(rng)
        kind = rng.random()
        if kind < 0.6:
            draw.rectangle((x, y, x + w, y + h), fill=colour)
            if rng.random() < 0.5:
                draw.rectangle((x + w * 0.1, y + h * 0.1, x + w * 0.9, y + h * 0.9), fill=scaled(colour, 1.25))
        elif kind < 0.8:
            draw.ellipse((x, y, x + w, y + h), fill=colour)
        else:  # books or clothes side by side
            for i in range(5):
                draw.rectangle((x + i * w / 5, y, x + (i + 0.8) * w / 5, y + h), fill=draw_colour(rng))
    return _out_of_focus(rng, image, size)


def _street(rng, size, floor):
    n = (size + 1) // 2
    image = Image.new("RGB", (n, n), (int(rng.uniform(150, 245)),) * 2 + (int(rng.uniform(170, 252)),))
    draw = ImageDraw.Draw(image)
    line = float(np.clip(floor - rng.uniform(0.12, 0.4), 0.2, 0.97)) * n
    x = -rng.uniform(0, 0.3) * n
    while x < n:
        w, top = rng.uniform(0.15, 0.6) * n, rng.uniform(-0.3, 0.35) * n
        colour = tone(rng)
        colour = scaled(colour, rng.uniform(0.45, 1.0))
        if top < line:  # seen from above, a low house may lie behind the road
            draw.rectangle((x, top, x + w, line), fill=colour)
        pane = scaled(colour, rng.uniform(0.4, 1.5))
        step = max(3.0, n * rng.uniform(0.06, 0.16))
        for wx in np.arange(x + step * 0.3, x + w - step * 0.5, step):
            for wy in np.arange(max(top, -step) + step * 0.4, line - step, step * 1.4):
                draw.rectangle((wx, wy, wx + step * 0.5, wy + step * 0.8), fill=pane)
        x += w
    road = int(rng.uniform(70, 200))
    draw.rectangle((0, line, n, n), fill=(road, road, int(road * rng.uniform(0.92, 1.02))))
    if rng.random() < 0.5:
        pale = scaled((road,) * 3, 1.25)
        y = line + rng.uniform(0.05, 0.3) * n
        draw.line((0, y, n, y + rng.uniform(-0.2, 0.2) * n), fill=pale, width=max(1, n // 30))
    for _ in range(rng.integers(0, 4)):  # cars
        x, w = rng.uniform(-0.1, 0.9) * n, rng.uniform(0.15, 0.4) * n
        y, colour = line + rng.uniform(-0.02, 0.05) * n, draw_colour(rng)
        draw.rounded_rectangle((x, y - w * 0.28, x + w, y), radius=w * 0.08, fill=colour)
        draw.rounded_rectangle(
            (x + w * 0.2, y - w * 0.45, x + w * 0.75, y - w * 0.2), radius=w * 0.08, fill=scaled(colour, 0.5)
        )
        for wheel in (0.22, 0.78):
            at, r = x + w * wheel, w * 0.09
            draw.ellipse((at - r, y - r, at + r, y + r), fill=(24, 24, 26))
    for _ in range(rng.integers(0, 6)):  # passers-by
        x, h = rng.uniform(0, 1) * n, rng.uniform(0.15, 0.4) * n
        y = line + rng.uniform(0.0, 0.1) * n
        w = h * 0.13
        draw.rectangle((x - w * 0.7, y - h * 0.5, x + w * 0.7, y), fill=scaled(draw_colour(rng), 0.6))
        draw.rounded_rectangle((x - w, y - h * 0.85, x + w, y - h * 0.42), radius=w * 0.5, fill=draw_colour(rng))
        draw.ellipse((x - w * 0.5, y - h, x + w * 0.5, y - h * 0.83), fill=(190, 150, 120))
    if rng.random() < 0.35:
        _leaves(rng, draw, n, 0.3)
    return _out_of_focus(rng, image, size)


def _park(rng, size, floor):
    n = (size + 1) // 2
    green = (rng.uniform(60, 130), rng.uniform(95, 165), rng.uniform(40, 90))
    image = lit(green, 1 + 0.35 * smooth_noise(rng, (9, 9), n) + 0.2 * smooth_noise(rng, (24, 24), n))
    draw = ImageDraw.Draw(image)
    line = float(np.clip(floor - rng.uniform(0.08, 0.35), 0.2, 0.97)) * n
    if rng.random() < 0.5:
        draw.rectangle((0, 0, n, line * rng.uniform(0.2, 0.6)), fill=(190, 210, 235))
        _leaves(rng, draw, n, line / n * 0.7)
    ground = scaled(tone(rng), 0.9) if rng.random() < 0.5 else (110, 150, 70)
    draw.rectangle((0, line, n, n), fill=ground)
    for _ in range(rng.integers(0, 5)):
        x = rng.uniform(0, 1) * n
        draw.rectangle((x, 0, x + rng.uniform(0.01, 0.05) * n, line), fill=(76, 60, 48))
    return _out_of_focus(rng, image, size)


def _leaves(rng, draw, n, low):
    for _ in range(18):
        x, y, r = rng.uniform(0, 1) * n, rng.uniform(-0.05, low) * n, rng.uniform(0.02, 0.1) * n
        shade = rng.uniform(0.6, 1.2)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=scaled((80, 120, 56), shade))


def _out_of_focus(rng, image: Image.Image, size: int) -> Image.Image:
    n = image.width
    blur = n * rng.uniform(0.0, 0.03)
    if blur > 0.4:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    return image.resize((size, size), Image.Resampling.BICUBIC)
