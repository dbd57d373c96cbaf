"""Light on the cloth: folds, creases, stuffing, pleats and the weave of each fabric."""

import numpy as np
from PIL import Image, ImageFilter

from ragdiff_jax.data.synth.noise import smooth_noise, white_noise
from ragdiff_jax.data.synth.shape import GarmentSpec, Shape
from ragdiff_jax.data.synth.styles import Style

_N = 48  # folds are computed on a coarse grid
_SOFTNESS = {
    "Leather": 1.6,
    "Silk": 1.4,
    "Chiffon": 1.3,
    "Coated": 1.3,
    "PVC": 1.5,
    "Wool": 0.6,
    "Fleece": 0.6,
    "Fur": 0.5,
}
_GRAIN = {
    "Wool": 0.05, "Knitting": 0.04, "Tweed": 0.11, "Denim": 0.05, "Fleece": 0.035, "Linen": 0.03, "Fur": 0.05,
    "Fur Blend": 0.05, "Velvet": 0.025, "Micro-Suede": 0.03,
}  # fmt: skip
_RIDGES = {"Knitting": (0.045, 0.05), "Corduroy": (0.05, 0.08), "Wool": (0.03, 0.03), "Knit": (0.022, 0.02)}


def light_on(spec: GarmentSpec, style: Style, r: int, box, scale: float, offset) -> np.ndarray:
    """Light around 1 inside `box` (even numbers) of a sheet of r pixels, float32; `scale` pixels a chest width, origin
    at `offset`.
    """
    s, look = spec.shape, spec.look
    left, top, right, bottom = box
    rng = np.random.default_rng(look.fold_seed)
    strength = look.fold_strength * _SOFTNESS.get(s.fabric, 1.0)
    coarse = _folds(rng, style) * strength
    if s.fabric == "Denim" and look.variant % 2:  # washed along the middle of each leg or of the front
        y, x = np.mgrid[0:_N, 0:_N].astype(np.float32) / _N
        middle = np.minimum(np.abs(x - 0.36), np.abs(x - 0.64))
        coarse += 0.22 * np.exp(-((middle / 0.07) ** 2) - ((y - 0.4) / 0.25) ** 2)
    # Folds and grain are computed at half of the sheet's resolution, the flat-lay's own.
    width, height = (right - left) // 2, (bottom - top) // 2
    part = tuple(edge * _N / r for edge in box)
    half = _GRAIN.get(s.fabric, 0.012) * style.grain * white_noise(rng, height, width)
    half += np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC, part))
    if s.fabric in ("Fur", "Fur Blend"):  # hairs hang down
        hairs = white_noise(rng, max(1, height // 4), width) * np.float32(0.16 if s.fabric == "Fur" else 0.09)
        half += np.asarray(Image.fromarray(hairs).resize((width, height), Image.BILINEAR))
    half += 1
    full = np.repeat(np.repeat(half, 2, 1), 2, 0)
    x = ((np.arange(left, right, dtype=np.float32) + 0.5 - offset[0]) / scale).astype(np.float32)
    y = ((np.arange(top, bottom, dtype=np.float32) + 0.5 - offset[1]) / scale).astype(np.float32)
    _weave(full, s, x, y, style)
    _stuffing(full, s, x, y)
    if s.pleats:
        _pleats(full, s, x, y)
    return full


def _folds(rng: np.random.Generator, style: Style) -> np.ndarray:
    """Soft waves, creases and, in some styles, the surface of crumpled cloth: [48, 48] float32 around 0."""
    light = 0.07 * smooth_noise(rng, (4, 4), _N) + 0.05 * smooth_noise(rng, (12, 5), _N)
    u, shape = rng.uniform, (int(rng.integers(4, 11)), 1, 1)
    ticks = np.arange(_N, dtype=np.float32) / _N
    x = ticks[None, None, :] - u(0.2, 0.8, shape).astype(np.float32)
    y = ticks[None, :, None] - u(0.2, 0.9, shape).astype(np.float32)
    angle = rng.normal(0.0, 0.6, shape).astype(np.float32)
    sin, cos = np.sin(angle), np.cos(angle)
    along = x * sin + y * cos
    across = (x * cos - y * sin + 0.1 * along * along) / u(0.018, 0.05, shape).astype(np.float32)
    along /= u(0.08, 0.3, shape).astype(np.float32)
    crease = across * np.exp(-0.5 * across * across - along * along)
    light += (u(-0.16, 0.16, shape).astype(np.float32) * np.float32(style.creases) * crease).sum(0)
    if style.ridges:
        height = -np.abs(smooth_noise(rng, (9, 7), _N)) - 0.5 * np.abs(smooth_noise(rng, (16, 13), _N))
        slope = np.gradient(height)
        light += np.float32(0.22 * style.ridges) * (slope[0] + 0.7 * slope[1])
    return light.astype(np.float32)


def _weave(full: np.ndarray, s: Shape, x: np.ndarray, y: np.ndarray, style: Style) -> None:
    fabric, amount = s.fabric, style.grain
    if fabric in _RIDGES:
        period, depth = _RIDGES[fabric]
        full += (depth * amount) * np.sin(x * (2 * np.pi / period))[None]
    if fabric == "Knitting":  # stitches, and on every other garment cables
        full += 0.05 * amount * np.sin(x * (np.pi / 0.045))[None] * np.sin(y * (2 * np.pi / 0.05))[:, None]
        if int(s.chest * 1000) % 2:
            cable = np.abs(x) < 0.6 * s.chest
            full += 0.1 * (np.sin(x * (2 * np.pi / 0.2)) * cable)[None] * np.sin(y * (2 * np.pi / 0.16))[:, None]
    elif fabric == "Denim":
        full += 0.03 * amount * np.sin((x[None] + y[:, None]) * (2 * np.pi / 0.028))
    elif fabric == "Lace":
        net = np.cos(x * (2 * np.pi / 0.09))[None] * np.cos(y * (2 * np.pi / 0.09))[:, None]
        full += 0.14 * amount * np.sign(net - 0.25)
    elif fabric in ("Chiffon", "Gauze"):
        full += 0.04 * np.sin(x * (2 * np.pi / 0.13) + 2 * np.sin(3 * x))[None]
    elif fabric == "Linen":
        full += 0.02 * amount * (np.sin(x * 311) * np.sin(x * 97))[None]
        full += 0.02 * amount * (np.sin(y * 283) * np.sin(y * 119))[:, None]
    elif fabric == "Velvet":
        full += 0.08 * np.sin(x * 4 + 1)[None] * np.sin(y * 3)[:, None]


def _stuffing(full: np.ndarray, s: Shape, x: np.ndarray, y: np.ndarray) -> None:
    if not s.quilt:
        return
    step = np.pi * s.quilt / s.body_length
    if s.quilt_kind == "bands":
        full += (0.32 * np.abs(np.sin(step * y)) - 0.21)[:, None]
    elif s.quilt_kind == "columns":
        full += (0.3 * np.abs(np.sin(step * (x + 0.5 * s.body_length / s.quilt))) - 0.19)[None]
    else:
        a, b = 0.7 * step * x[None], 0.7 * step * y[:, None]
        full += 0.36 * np.sqrt(np.abs(np.sin(a + b) * np.sin(a - b))) - 0.2


def _pleats(full: np.ndarray, s: Shape, x: np.ndarray, y: np.ndarray) -> None:
    """Folds that fan out below the waist."""
    waist, wide, hem = s.slope + s.armhole + 0.3, s.waist, s.hem
    if s.is_bottom:
        waist, wide, hem = 0.1, 0.42, 0.42 * s.hip * 1.4
    t = np.clip((y - waist) / (s.body_length - waist), 0, 1)
    fan = x[None] / (wide + (hem - wide) * t)[:, None]
    wave = np.sin(fan * (np.pi * (s.pleats + 1)))
    full += (0.13 * (t > 0))[:, None] * np.sign(wave) * np.sqrt(np.abs(wave))


def rim(alpha: Image.Image, r: int, depth: float, style: Style) -> np.ndarray:
    """The light at the edges of a piece with this alpha, cut from a sheet of r pixels: darker there, which tells a
    white garment from white paper.
    """
    small = alpha.reduce(4)
    soft = Image.new("L", (small.width + 2 * _AIR, small.height + 2 * _AIR), 0)
    soft.paste(small, (_AIR, _AIR))
    soft = soft.filter(ImageFilter.GaussianBlur(r / 4 / 40))

    def edge(shift: float) -> np.ndarray:
        low = _AIR - shift
        part = (low, low, low + alpha.width / 4, low + alpha.height / 4)
        return np.asarray(soft.resize(alpha.size, Image.BILINEAR, part))

    here = edge(0.0).astype(np.float32)
    light = np.maximum(here * np.float32(depth / 127.5) + np.float32(1 - 2 * depth), np.float32(1 - depth))
    if not style.relief:
        return light
    light += np.clip((here - edge(max(1, r // 90) / 4)) * (2 * style.relief / 255), -0.25, 0.12)
    return light - 0.1 * np.clip(1.3 - here / 196, 0, 1)


_AIR = 4  # pixels around a piece, so that its edge is dark at the border of its box too
