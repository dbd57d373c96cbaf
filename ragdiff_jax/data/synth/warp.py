"""How a garment's flat sheets come to lie in a photo: placed, draped, bent at the elbows, wrapped round a body.

Every map runs backwards, from a pixel of the photo to a pixel of a sheet, so that the garment in the photo is
the very garment of the flat-lay and the visible pixels are known exactly.
"""

import dataclasses
import functools
import math

import numpy as np

from ragdiff_jax.data.synth.flat import Sheet, Sheets
from ragdiff_jax.data.synth.folds import Drape
from ragdiff_jax.data.synth.garment import Shape
from ragdiff_jax.data.synth.stage import Cloth

# Parts of a garment that the zones of a stage tell apart.
BODY, COLLAR, HEM, SLEEVE, CUFF = 1, 2, 3, 4, 5

_SLEEVES = ("left", "right")


@dataclasses.dataclass(frozen=True)
class Placement:
    """From garment units to pixels of the photo: a similarity, a shear and a tilt of the camera."""

    centre: tuple[float, float]  # pixel of `middle`
    middle: tuple[float, float]  # units
    scale: tuple[float, float]  # pixels a unit
    turn: float = 0.0
    shear: float = 0.0
    tilt: float = 0.0  # what lies lower is larger by this share a pixel

    def to_target(self, points: np.ndarray) -> np.ndarray:
        """Units [..., 2] -> pixels [..., 2]."""
        x, y = points[..., 0], points[..., 1]
        y = (y - self.middle[1]) * self.scale[1]
        x = (x - self.middle[0]) * self.scale[0] + self.shear * y
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        x, y = cos * x - sin * y, sin * x + cos * y
        depth = np.maximum(1 - self.tilt * y, 0.2)
        return np.stack([x / depth + self.centre[0], y / depth + self.centre[1]], -1)

    def from_target(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels -> units; float32 stays float32. A row of x [1, w] and a column of y [h, 1] cost least."""
        x, y = x - self.centre[0], y - self.centre[1]
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        (sx, sy), (mx, my) = self.scale, self.middle
        ax, bx = (cos + self.shear * sin) / sx, (sin - self.shear * cos) / sx
        ay, by = -sin / sy, cos / sy
        if not self.tilt:
            return (ax * x + mx) + bx * y, ay * x + (by * y + my)
        depth = 1 / np.maximum(1 + self.tilt * y, 0.2)
        return (ax * x + bx * y) * depth + mx, (ay * x + by * y) * depth + my


@dataclasses.dataclass(frozen=True)
class Arm:
    """A bent line for a sleeve, units, as the garment's right-hand side (x > 0) has it; angles from straight
    down, outwards positive. `reach` foreshortens its two parts."""

    shoulder: tuple[float, float]
    upper: float
    fore: float
    elbow_at: float = 0.56
    reach: tuple[float, float] = (1.0, 1.0)

    @property
    def elbow(self) -> np.ndarray:
        return self._go(np.array(self.shoulder), self.elbow_at * self.reach[0], self.upper)

    def beyond(self, length: float) -> np.ndarray:
        """The point `length` units of cloth below the elbow."""
        return self._go(self.elbow, length * self.reach[1], self.fore)

    @staticmethod
    def _go(start: np.ndarray, length: float, angle: float) -> np.ndarray:
        return start + np.array([length * math.sin(angle), length * math.cos(angle)])


@dataclasses.dataclass(frozen=True)
class Wear:
    """What happens to one garment's sheets between flat-lay and photo.

    `yaw` turns a worn body (radians); `legs` are sideways shifts (units) of the left and the right leg at knee
    and hem; `roll` cuts sleeves off at this length, `fold` turns everything beyond a line over (x, y, angle);
    `gap` opens the front: half-widths at neck and hem.
    """

    place: Placement
    drape: Drape
    arms: tuple[Arm, Arm]  # the left and the right sheet's
    origin: tuple[float, float] = (0.0, 0.0)  # of the garment, in the placement's units
    narrow: float = 1.0
    sleeve_narrow: float = 1.0
    yaw: float = 0.0
    legs: tuple[tuple[float, float], tuple[float, float]] | None = None
    roll: float | None = None
    fold: tuple[float, float, float] | None = None
    gap: tuple[float, float] | None = None


class Cut:
    """One group's sheet as numbers: packed pixels [h, w], the origin's pixel in it, its cloth's box in units.

    Each of `packed` is the mean of 2 x 2 pixels, for looking up points between them; bytes are averaged as packed.
    """

    def __init__(self, sheet: Sheet, unit: float, origin: tuple[float, float]):
        left, top, right, bottom = sheet.alpha.getbbox() or (0, 0, 1, 1)
        around = (left - 2, top - 2, right + 2, bottom + 2)
        image, alpha = sheet.image.crop(around), sheet.alpha.crop(around)
        image.putalpha(alpha)
        self.alpha = np.asarray(alpha)
        pixels = np.asarray(image).view(np.uint32)[..., 0]
        a, b, c, d = pixels[:-1, :-1], pixels[:-1, 1:], pixels[1:, :-1], pixels[1:, 1:]
        a, c = (a & b) + (((a ^ b) >> 1) & 0x7F7F7F7F), (c | d) - (((c ^ d) >> 1) & 0x7F7F7F7F)
        self.packed = (a & c) + (((a ^ c) >> 1) & 0x7F7F7F7F)
        x, y = origin[0] - sheet.at[0], origin[1] - sheet.at[1]
        self.at = (x - left + 2, y - top + 2)
        self.box = ((left - x) / unit, (top - y) / unit, (right - x) / unit, (bottom - y) / unit)


class Ready:
    """A garment's sheets as the warps read them, and what of the body's sheet is cloth."""

    def __init__(self, sheets: Sheets, shape: Shape):
        self.shape = shape
        self.unit = float(sheets.pixels_per_unit)
        origin = (float(sheets.offset[0]), float(sheets.offset[1]))
        self.sheets = {group: Cut(sheet, self.unit, origin) for group, sheet in sheets.groups.items()}
        x0, y0, x1, y1 = (float(v) for v in sheets.outline.bounds)
        self.top, self.wide = y0, (x1 - x0) / (y1 - y0)
        body = self.sheets["body"]
        self.solid, self.at = body.alpha > 127, body.at
        self.low = body.box[3]
        self.half = max(-body.box[0], body.box[2])
        self.collar = min(shape.neck_depth, 0.25) + 0.06 if shape.collar else -1e3
        self.hem = self.low - 0.14

    @functools.cached_property
    def half_widths(self) -> np.ndarray:
        """Of each of the body's rows, units, float32."""
        filled, width = self.solid.any(1), self.solid.shape[1]
        left = np.where(filled, self.solid.argmax(1), self.at[0])
        right = np.where(filled, width - self.solid[:, ::-1].argmax(1), self.at[0])
        return (np.maximum(right - self.at[0], self.at[0] - left) / self.unit).astype(np.float32)


def sleeve_start(shape: Shape, angle: float) -> tuple[float, float]:
    """Where the middle of a right-hand sleeve begins in the flat garment, units."""
    return float(shape.shoulder - 0.11 * math.cos(angle)), float(shape.slope + 0.11 * math.sin(angle))


def warp(ready: Ready, wear: Wear, size: int, group: str, *, zones: bool = False) -> Cloth | None:
    """One group's sheet as it lies in a photo of `size` pixels; None where nothing of it is in the frame.

    `zones` asks for the parts that the pixels belong to, too.
    """
    box = _reach(ready, wear, size, group) if group in ready.sheets else None
    if box is None:
        return None
    left, top, right, bottom = box
    x = (np.arange(left, right, dtype=np.float32) + np.float32(0.5))[None]
    y = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5))[:, None]
    window = (slice(top, bottom), slice(left, right))
    ux, uy, gone = _source(x, y, wear, ready, group, window)
    light = wear.drape.light[window]
    rgba = _sample(ready, group, ux, uy, gone)
    if wear.fold is not None:
        rgba, light, ux, uy = _fold_over(ready, rgba, light, ux, uy, x, y, wear, group, window)
    if wear.gap is not None and group == "body":
        half = wear.gap[0] + (wear.gap[1] - wear.gap[0]) * np.clip(uy / ready.shape.body_length, 0, 1)
        from_edge = np.abs(ux) - half
        rgba[..., 3][from_edge < 0] = 0
        light = light * np.where(from_edge < 0.03, np.float32(0.7), np.float32(1))
    if wear.roll is not None and group in _SLEEVES:
        along = _along(ux, uy, ready.shape, group)
        shade = np.where(along > wear.roll - 0.085, np.float32(0.94), np.float32(0.55))
        light = light * np.where(along > wear.roll - 0.1, shade, np.float32(1))
    parts = _zones(ux, uy, ready, wear, group) if zones else None
    return Cloth(left, top, _lit(rgba, light), rgba[..., 3], parts)


def _lit(rgba: np.ndarray, light: np.ndarray) -> np.ndarray:
    """The colours of `rgba` under `light` [h, w], at most 1.98: uint8 [h, w, 3]."""
    h, w = light.shape
    gain = np.repeat((light * 128).astype(np.uint16), 3, 1)
    gain *= rgba[..., :3].reshape(h, 3 * w)
    gain >>= 7
    return np.minimum(gain, 255, out=gain).astype(np.uint8).reshape(h, w, 3)


def _reach(ready: Ready, wear: Wear, size: int, group: str) -> tuple[int, int, int, int] | None:
    """A box of the photo that the sheet can't leave."""
    shape, (ox, oy) = ready.shape, wear.origin
    if group in _SLEEVES:
        side = 1 if group == "right" else -1
        arm = wear.arms[side > 0]
        line = np.array([arm.shoulder, arm.elbow, arm.beyond(max(shape.sleeve_length - arm.elbow_at, 0) + 0.05)])
        x0, y0, x1, y1 = ready.sheets[group].box
        room = 0.3 + 0.5 * max(shape.cuff, shape.sleeve_width, 0.3) + 0.4 * shape.sleeve_bulge
        room = min(room, max(x1 - x0, y1 - y0) + 0.1)
        line = line * (side, 1) + (ox, oy)
        (x0, y0), (x1, y1) = line.min(0) - room, line.max(0) + room
    else:
        x0, y0, x1, y1 = ready.sheets[group].box
        half = max(-x0, x1) * wear.narrow + (max(abs(s) for leg in wear.legs for s in leg) if wear.legs else 0)
        x0, x1, y0, y1 = ox - half - 0.1, ox + half + 0.1, y0 + oy - 0.1, y1 + oy + 0.1
    if wear.fold is not None:  # a flap may go further
        x0, x1, y0, y1 = x0 - 0.5, x1 + 0.5, y0 - 0.5, y1 + 0.5
    corners = wear.place.to_target(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    left, top = max(0, math.floor(left)), max(0, math.floor(top))
    right, bottom = min(size, math.ceil(right)), min(size, math.ceil(bottom))
    return (left, top, right, bottom) if right > left and bottom > top else None


def _source(x, y, wear: Wear, ready: Ready, group: str, window):
    """Pixels of the photo -> garment units of the sheet, and where there is nothing (bool, or None)."""
    x, y = wear.place.from_target(x, y)
    x = x + wear.drape.x[window]
    y = y + wear.drape.y[window]
    if wear.origin != (0.0, 0.0):
        x, y = x - wear.origin[0], y - wear.origin[1]
    if group in _SLEEVES:
        return _sleeve_source(x, y, wear, ready.shape, group)
    if wear.legs is not None:
        return _leg_source(x / wear.narrow, y, wear.legs, ready.shape)
    if wear.yaw:
        return _wrapped(x, y, wear, ready)
    return x / wear.narrow, y, None


def _sleeve_source(x, y, wear: Wear, shape: Shape, group: str):
    side = 1.0 if group == "right" else -1.0
    arm = wear.arms[side > 0]
    ax, ay, bx, by = math.sin(arm.upper), math.cos(arm.upper), math.sin(arm.fore), math.cos(arm.fore)
    upper, shoulder = float(arm.upper), [float(v) for v in arm.shoulder]  # NumPy's would make everything float64
    x, y = side * x - shoulder[0], y - shoulder[1]
    along = (x * ax + y * ay) / arm.reach[0]
    across, gone = y * ax - x * ay, None
    if arm.upper != arm.fore or arm.reach[0] != arm.reach[1]:
        ex, ey = x - arm.elbow_at * arm.reach[0] * ax, y - arm.elbow_at * arm.reach[0] * ay
        below = ex * (ax + bx) + ey * (ay + by) > 0  # beyond the line that halves the elbow
        after = (ex * bx + ey * by) / arm.reach[1]
        # Far from a sharp bend each half would show a piece of the other's cloth.
        gone = np.where(below, after < -0.22, along > arm.elbow_at + 0.22)
        along = np.where(below, arm.elbow_at + after, along)
        across = np.where(below, ey * bx - ex * by, across)
    across = across / wear.sleeve_narrow
    if wear.roll is not None:
        gone = along > wear.roll if gone is None else gone | (along > wear.roll)
    # Near the shoulder the cloth turns less than the arm, else it would tear from the body.
    far = np.minimum((x * x + y * y) * (1 / 0.34**2), 1)
    angle = (shape.sleeve_angle - upper) * far + upper
    sin, cos = np.sin(angle), np.cos(angle)
    # The middle of the sleeve begins 0.11 inwards of the shoulder's point and ends in the middle of the cuff.
    across = across + (0.5 * shape.cuff - 0.11) * np.clip(along / max(shape.sleeve_length, 0.3), 0, 1)
    start = sleeve_start(shape, shape.sleeve_angle)
    ux = start[0] + along * sin - across * cos
    return side * ux, start[1] + along * cos + across * sin, gone


def _leg_source(x, y, legs, shape: Shape):
    low = shape.body_length
    stations = (shape.crotch * 0.8, 0.5 * (shape.crotch + low), low)
    shifts = [np.interp(y[:, :1], stations, (0.0, *leg)).astype(np.float32) for leg in legs]
    ux = x - np.where(x > 0, shifts[1], shifts[0])
    return ux, y, (ux * x < 0) & (y > shape.crotch)


def _wrapped(x, y, wear: Wear, ready: Ready):
    """A body that turns away: each row of cloth is wound round an oval as wide as the row."""
    rows = np.clip(y * ready.unit + ready.at[1], 0, len(ready.half_widths) - 1).astype(np.int32)
    half = ready.half_widths.take(rows)
    share = x / np.maximum(half * wear.narrow, 1e-3)
    angle = np.arcsin(np.clip(share, -1, 1))
    around = 0.45 * share + (0.55 * 2 / math.pi) * angle + wear.yaw * (2 / math.pi)
    around = np.where(around > 1, 2 - around, np.where(around < -1, -2 - around, around))
    return around * half * 0.985, y, np.abs(share) > 1


def _sample(ready: Ready, group: str, ux, uy, gone) -> np.ndarray:
    """The mean of the 2 x 2 sheet pixels around each point: uint8 [h, w, 4]."""
    sheet = ready.sheets[group]
    h, w = sheet.packed.shape
    at = _whole(uy * ready.unit + (sheet.at[1] - 0.5), h - 1)
    at *= w
    at += _whole(ux * ready.unit + (sheet.at[0] - 0.5), w - 1)
    if gone is not None:
        at[gone] = 0
    mean = sheet.packed.reshape(-1).take(at)
    return mean.view(np.uint8).reshape(*mean.shape, 4)


def _whole(x: np.ndarray, most: int) -> np.ndarray:
    """`x`, which is lost, cut to 0 .. `most`, as int32."""
    return np.minimum(np.maximum(x, 0, out=x), most, out=x).astype(np.int32)


def _fold_over(ready: Ready, rgba, light, ux, uy, x, y, wear: Wear, group: str, window):
    """Turns what lies beyond a line over onto the garment: its inside, darker, shows."""
    px, py = wear.place.from_target(x, y)
    fx, fy, angle = wear.fold
    nx, ny = math.cos(angle), math.sin(angle)
    beyond = (px - fx) * nx + (py - fy) * ny
    mirrored = wear.place.to_target(np.stack([px - 2 * beyond * nx, py - 2 * beyond * ny], -1))
    mx, my, gone = _source(mirrored[..., 0], mirrored[..., 1], wear, ready, group, window)
    flap = _sample(ready, group, mx, my, gone)
    turned = (beyond < 0) & (flap[..., 3] > 127)
    rgba = np.where(turned[..., None], flap, rgba)
    rgba[..., 3][beyond > 0] = 0
    near = np.clip(1 + beyond * 12, 0, 1)  # the fold's own roundness
    light = light * np.where(turned, 0.8 - 0.2 * near, np.float32(1))
    return rgba, light, np.where(turned, mx, ux), np.where(turned, my, uy)


def _along(ux, uy, shape: Shape, group: str):
    side = 1.0 if group == "right" else -1.0
    sin, cos = math.sin(shape.sleeve_angle), math.cos(shape.sleeve_angle)
    return (side * ux - shape.shoulder) * sin + (uy - shape.slope) * cos


def _zones(ux, uy, ready: Ready, wear: Wear, group: str) -> np.ndarray:
    if group in _SLEEVES:
        end = ready.shape.sleeve_length if wear.roll is None else wear.roll
        return np.where(_along(ux, uy, ready.shape, group) > end - 0.12, CUFF, SLEEVE).astype(np.uint8)
    zones = np.where(uy > ready.hem, np.uint8(HEM), np.uint8(BODY))
    if ready.shape.collar:
        zones[(uy < ready.collar) & (np.abs(ux) < ready.shape.neck_width + 0.06)] = COLLAR
    return zones
