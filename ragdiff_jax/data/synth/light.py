"""What light and a phone's camera do to a scene."""

import math

import numpy as np
from PIL import Image, ImageFilter

from ragdiff_jax.data.synth.noise import smooth_noise, white_noise
from ragdiff_jax.data.synth.shape import pick_index
from ragdiff_jax.data.synth.stage import Stage

# Gains of red and blue against green.
CASTS = {
    "none": (1.0, 1.0),
    "tungsten": (1.22, 0.7),
    "warm white": (1.1, 0.86),
    "fluorescent": (0.94, 0.93),
    "shade": (0.88, 1.14),
    "evening": (1.16, 0.92),
}
_CAST_CHANCES = (0.5, 0.08, 0.18, 0.08, 0.11, 0.05)
EXPOSURES = ("normal", "dark", "bright")


def cast_shadow(stage: Stage, cloths, rng: np.random.Generator, *, hard: float, far: float) -> None:
    """Darken the ground beside what will be laid on it.

    `hard` is the chance of a sharp edge, `far` how far the shadow falls, as a share of the side.
    """
    size = stage.image.width
    thrown, strength = Image.new("L", (size, size), 0), int(255 * rng.uniform(0.25, 0.75))
    for cloth in cloths:
        if cloth is not None:
            height, width = cloth.alpha.shape
            box = (cloth.left, cloth.top, cloth.left + width, cloth.top + height)
            thrown.paste(strength, box, Image.fromarray(cloth.alpha))
    blur = size / 2 * (rng.uniform(0.004, 0.012) if rng.random() < hard else rng.uniform(0.015, 0.045))
    dx, dy = (rng.uniform(-far, far, 2) * size).astype(int).tolist()
    soft = thrown.reduce(2).filter(ImageFilter.GaussianBlur(blur))
    stage.image.paste((0, 0, 0), (dx, dy), soft.resize((size, size), Image.Resampling.BILINEAR))


def photograph(rng: np.random.Generator, image: Image.Image, exposure: str | None = None) -> np.ndarray:
    """A phone's photo of the scene, uint8 [size, size, 3]: light falling off, casts, shadows, flash, blur, noise.

    `exposure` is one of EXPOSURES; drawn if None. Very dark and very bright ones are R's Fig. 12.
    """
    size, u = image.width, rng.uniform
    exposure = exposure or EXPOSURES[pick_index(rng, (0.87, 0.07, 0.06))]
    image = _blur(rng, image)
    pixels = np.array(image, np.float32).reshape(size, 3 * size)  # rows of numbers: much faster than by channels
    light = _field(rng, size)
    red, blue = list(CASTS.values())[pick_index(rng, _CAST_CHANCES)]
    tint = rng.normal(0, 0.025, 3)
    gain = np.array([red + tint[0], 1 + tint[1], blue + tint[2]], np.float32)
    mean = float(pixels.mean()) / 255 + 1e-3
    if exposure == "dark":
        gain *= max(u(0.25, 0.55), 0.09 / mean)
    elif exposure == "bright":
        gain *= max(1.0, min(u(1.3, 2.0), 0.85 / mean))
    else:
        gain *= u(0.72, 1.16)
    contrast = u(0.86, 1.28)
    lift = 0.5 * (1 - contrast) * (0.5 if exposure == "dark" else 1) + u(-0.02, 0.06)
    pixels *= np.repeat(light, 3, 1)
    pixels *= np.tile(gain * np.float32(contrast), size)
    grey, chroma = u(0.0, 0.02), u(0.0, 0.014)
    if exposure == "dark":
        grey, chroma = u(0.005, 0.03), u(0.005, 0.02)
    noise = np.float32(255 * grey) * white_noise(rng, size, size)
    if u() < 0.3:
        noise += np.float32(255 * u(0.002, 0.008)) * _blocks(rng, size)
    noise += np.float32(255 * lift + 0.5)
    pixels += np.repeat(noise, 3, 1)
    if u() < 0.6:
        pixels += np.float32(255 * chroma) * white_noise(rng, size, 3 * size)
    np.maximum(pixels, 0, out=pixels)
    np.minimum(pixels, 255, out=pixels)
    pixels = pixels.astype(np.uint8).reshape(size, size, 3)
    return _subsampled(pixels) if u() < 0.35 else pixels


def _blur(rng, image: Image.Image) -> Image.Image:
    kind, size = rng.random(), image.width
    if kind < 0.25:
        spread = rng.uniform(0.25, 0.8) * size / 128
        return image.filter(ImageFilter.BoxBlur((math.sqrt(12 * spread * spread + 1) - 1) / 2))  # as wide as a Gaussian
    if kind < 0.31:  # the camera moved
        dx, dy = (rng.uniform(-0.02, 0.02, 2) * size).tolist()
        moved = image.transform(image.size, Image.Transform.AFFINE, (1, 0, dx, 0, 1, dy), Image.Resampling.BILINEAR)
        box = (max(0, -int(dx) + 1), max(0, -int(dy) + 1), size - max(0, int(dx) + 1), size - max(0, int(dy) + 1))
        blurred = image.copy()
        blurred.paste(Image.blend(image, moved, 0.5).crop(box), box)
        return blurred
    return image


def _field(rng, size: int) -> np.ndarray:
    """The light on the scene, around 1: [size, size] float32."""
    u = rng.uniform
    ticks = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = ticks[None], ticks[:, None]
    angle, slope = u(0, 2 * np.pi), u(0.0, 0.3)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    across, along = cos * x + sin * y, cos * y - sin * x
    light = 1 + np.float32(slope) * across
    if u() < 0.4:
        light *= 1 - np.float32(u(0.05, 0.3)) * (x * x + y * y) / 2
    kind = u()
    if kind < 0.08:  # a hard edge between sun and shade
        edge = (across - u(-0.6, 0.6)) / u(0.01, 0.06)
        light *= 1 - u(0.2, 0.55) * np.clip(0.5 + edge, 0, 1)
    elif kind < 0.13:  # sun through a window: bars of light
        period, share = u(0.35, 0.9), u(0.3, 0.6)
        bars = np.abs((along + 8) % period / period - 0.5) - share / 2
        inside = np.clip(0.5 - bars / 0.06, 0, 1) * np.clip(0.5 + (across + u(0, 0.5)) / 0.05, 0, 1)
        light *= 0.85 + u(0.15, 0.5) * inside
    elif kind < 0.19:  # the shadow of the one who takes the photo
        cx, width = u(-0.5, 0.5), u(0.25, 0.5)
        edge = np.maximum(np.abs(x - cx) / width, (u(-0.1, 0.6) - y) + 1)
        light *= 1 - u(0.15, 0.4) * np.clip((1 - edge) / 0.1 + 0.5, 0, 1)
    elif kind < 0.27:  # flash: bright in the middle, dark round it
        cx, cy = u(-0.3, 0.3, 2)
        light *= u(0.55, 0.8) + u(0.4, 0.75) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / np.float32(u(0.25, 0.8)))
    elif kind < 0.29:  # light through leaves or lace
        spots = smooth_noise(rng, (9, 9), size)
        light *= 1 - u(0.1, 0.3) * np.clip(0.5 + spots / 0.8, 0, 1)
    return light.astype(np.float32)


def _blocks(rng, size: int) -> np.ndarray:
    """Noise of 8 x 8 blocks, as strong compression leaves it: [size, size] float32."""
    n = -(-size // 8)
    wave = np.cos(np.pi * (np.arange(8) + 0.5) / 8 * np.arange(1, 4)[:, None]).astype(np.float32)
    noise = np.zeros((n * 8, n * 8), np.float32).reshape(n, 8, n, 8)
    for k in range(3):
        a, b = rng.standard_normal((2, n, n)).astype(np.float32)
        noise += a[:, None, :, None] * wave[k][:, None, None] + b[:, None, :, None] * wave[k]
    return noise.reshape(n * 8, n * 8)[:size, :size]


def _subsampled(pixels: np.ndarray) -> np.ndarray:
    """Colour at half the resolution of brightness, as JPEG stores it."""
    luma, *chroma = Image.fromarray(pixels).convert("YCbCr").split()
    low = [c.reduce(2).resize(luma.size, Image.Resampling.BILINEAR) for c in chroma]
    return np.array(Image.merge("YCbCr", (luma, *low)).convert("RGB"))
