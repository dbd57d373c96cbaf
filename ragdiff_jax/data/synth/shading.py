"""Light on the cloth: folds, creases, stuffing, pleats and the weave of each fabric."""

import numpy as np
from PIL import Image, ImageFilter

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


def light_on(spec: GarmentSpec, style: Style, r: int, scale: float, offset) -> np.ndarray:
    """Light around 1 for a sheet of r pixels, float32 [r, r]; `scale` pixels a chest width, origin at `offset`."""
    s, look = spec.shape, spec.look
    rng = np.random.default_rng(look.fold_seed)
    strength = look.fold_strength * _SOFTNESS.get(s.fabric, 1.0)
    coarse = _folds(rng, style) * strength
    if s.fabric == "Denim" and look.variant % 2:  # washed along the middle of each leg or of the front
        y, x = np.mgrid[0:_N, 0:_N].astype(np.float32) / _N
        middle = np.minimum(np.abs(x - 0.36), np.abs(x - 0.64))
        coarse += 0.22 * np.exp(-((middle / 0.07) ** 2) - ((y - 0.4) / 0.25) ** 2)
    # Folds and grain are computed at half of the sheet's resolution, the flat-lay's own.
    half = np.asarray(Image.fromarray(coarse).resize((r // 2, r // 2), Image.BICUBIC))
    noise = rng.standard_normal((r // 2, r // 2), np.float32)
    noise *= _GRAIN.get(s.fabric, 0.012) * style.grain
    if s.fabric in ("Fur", "Fur Blend"):  # hairs hang down
        hairs = rng.standard_normal((r // 8, r // 2), np.float32) * (0.16 if s.fabric == "Fur" else 0.09)
        noise += np.asarray(Image.fromarray(hairs).resize((r // 2, r // 2), Image.BILINEAR))
    full = np.repeat(np.repeat(half + noise, 2, 0), 2, 1)
    x = ((np.arange(r, dtype=np.float32) + 0.5 - offset[0]) / scale).astype(np.float32)
    y = ((np.arange(r, dtype=np.float32) + 0.5 - offset[1]) / scale).astype(np.float32)
    _weave(full, s, x, y, style)
    _stuffing(full, s, x, y)
    if s.pleats:
        _pleats(full, s, x, y)
    return 1 + full


def _folds(rng: np.random.Generator, style: Style) -> np.ndarray:
    """Soft waves, creases and, in some styles, the surface of crumpled cloth: [48, 48] float32 around 0."""
    y, x = np.mgrid[0:_N, 0:_N].astype(np.float32) / _N
    light = 0.07 * smooth_noise(rng, (4, 4), _N) + 0.05 * smooth_noise(rng, (12, 5), _N)
    for _ in range(int(rng.integers(4, 11))):
        cx, cy, angle = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.9), rng.normal(0.0, 0.6)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        along = (x - cx) * sin + (y - cy) * cos
        across = ((x - cx) * cos - (y - cy) * sin + 0.1 * along * along) / np.float32(rng.uniform(0.018, 0.05))
        crease = across * np.exp(-0.5 * across * across - (along / np.float32(rng.uniform(0.08, 0.3))) ** 2)
        light += np.float32(rng.uniform(-0.16, 0.16) * style.creases) * crease
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


def rim(alpha: Image.Image, r: int, box, depth: float, style: Style) -> np.ndarray:
    """The light at the edges, inside `box`: darker there, which tells a white garment from white paper."""
    soft = alpha.reduce(4).filter(ImageFilter.GaussianBlur(r / 4 / 40))
    if not style.relief:  # only what lies inside the box is needed
        size, part = (box[2] - box[0], box[3] - box[1]), tuple(min(edge / 4, soft.size[0]) for edge in box)
        edge = np.asarray(soft.resize(size, Image.BILINEAR, part), np.float32)
        return 1 - depth * np.clip(2 - edge / 127.5, 0, 1)
    soft = soft.resize((r, r), Image.BILINEAR)
    edge = np.asarray(soft.crop(box), np.float32)
    light = 1 - depth * np.clip(2 - edge / 127.5, 0, 1)
    step = max(1, r // 90)
    shifted = np.asarray(soft.crop((box[0] - step, box[1] - step, box[2] - step, box[3] - step)), np.float32)
    light += np.clip((edge - shifted) * (2 * style.relief / 255), -0.25, 0.12)
    return light - 0.1 * np.clip(1.3 - edge / 196, 0, 1)


def smooth_noise(rng: np.random.Generator, cells: tuple[int, int], size: int) -> np.ndarray:
    """Low-frequency noise of unit variance at its nodes, [size, size] float32."""
    nodes = rng.standard_normal(cells).astype(np.float32)
    return np.asarray(Image.fromarray(nodes).resize((size, size), Image.BICUBIC))
