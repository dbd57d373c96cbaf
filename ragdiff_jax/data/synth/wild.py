"""The in-the-wild view: the very garment of the flat-lay, warped, worn, laid or hung, and lit."""

import dataclasses

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ragdiff_jax.data.synth.backgrounds import surface, wall
from ragdiff_jax.data.synth.colours import draw_colour, scaled
from ragdiff_jax.data.synth.flat import Sheets, make_sheets, smooth_noise
from ragdiff_jax.data.synth.garment import GarmentSpec
from ragdiff_jax.data.synth.labels import spec_attributes
from ragdiff_jax.data.synth.person import Painter, Person, draw_person, paint_behind, paint_front, paint_head

_GRID = 10


@dataclasses.dataclass(frozen=True)
class Pose:
    """How the garment lies in the photo: a similarity, a slow warp, its sleeves' turns."""

    centre: np.ndarray  # target pixel of the garment's middle
    middle: np.ndarray  # the garment's middle in its own units
    turn: float
    scale: tuple[float, float]  # target pixels a unit
    narrow: float
    bow: np.ndarray  # [_GRID + 1, _GRID + 1, 2] slow displacement, units
    sleeve_turn: tuple[float, float]
    sleeve_bend: tuple[float, float]
    shear: float = 0.0

    def to_target(self, points: np.ndarray) -> np.ndarray:
        """Posed units -> target pixels (without the slow warp)."""
        p = (points - self.middle) * self.scale
        p = np.stack([p[..., 0] + self.shear * p[..., 1], p[..., 1]], -1)
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return (
            np.stack([cos * p[..., 0] - sin * p[..., 1], sin * p[..., 0] + cos * p[..., 1]], -1) + self.centre
        )

    def from_target(self, pixels: np.ndarray) -> np.ndarray:
        p = pixels - self.centre
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        p = np.stack([cos * p[..., 0] + sin * p[..., 1], -sin * p[..., 0] + cos * p[..., 1]], -1)
        p = np.stack([p[..., 0] - self.shear * p[..., 1], p[..., 1]], -1)
        return p / self.scale + self.middle


def render_photo(spec: GarmentSpec, seed: int, size: int, sheets: Sheets | None = None):
    """A photo of the garment: (uint8 [size, size, 3], the attributes that can be seen in it).

    Same `spec` and `seed`: same photo. Attributes that the frame cuts off become "Uncertain" where Table 6
    has that value (Length), else they are left out.
    """
    rng = np.random.default_rng([seed, spec.seed & 0xFFFFFFFF, 3])
    sheets = sheets or make_sheets(spec, size)
    view = ("laid", "hung", "worn")[rng.choice(3, p=(0.45, 0.25, 0.3))]
    canvas = size
    person = draw_person(rng, spec) if view == "worn" else None
    frame = _draw_frame(rng)
    pose = _draw_pose(rng, spec, sheets, view, canvas, person, frame)
    image = surface(rng, canvas) if view == "laid" else wall(rng, canvas)
    tucked = False
    painter = Painter(image, pose.to_target)
    if view == "worn":
        tucked = bool(spec.shape.collar and spec.category not in ("Dress", "Jacket") and rng.random() < 0.15)
        paint_behind(painter, spec, person, None)
    elif view == "hung":
        _hanger(painter, rng, spec, pose)
    garment = {g: _warp(sheet, pose, sheets, spec, g, canvas) for g, sheet in sheets.images.items()}
    coverage = Image.new("L", (canvas, canvas), 0)
    for layer in garment.values():
        coverage.paste(255, (0, 0), layer.getchannel("A"))
    _shadow(image, coverage, rng, canvas, view)
    light = _drape(rng, canvas, view)
    order = ("back", "head", "left", "right", "body")
    folded = min(pose.sleeve_turn) + spec.shape.sleeve_angle < 0.05
    if spec.shape.sleeve_length > 0.5 and (folded or (view != "laid" and rng.random() < 0.65)):
        order = ("back", "head", "body", "left", "right")
    for group in order:
        if group == "head" and person is not None and spec.shape.collar:
            paint_head(painter, person)
        elif group in garment:
            layer = garment[group]
            shaded = np.asarray(layer.convert("RGB"), np.float32) * light[..., None]
            image.paste(
                Image.fromarray(np.clip(shaded, 0, 255).astype(np.uint8)), (0, 0), layer.getchannel("A")
            )
    if person is not None:
        if tucked:
            low = spec.shape.body_length * rng.uniform(0.8, 0.92)
            w = spec.shape.hem * person.narrow * 1.1
            painter.polygon([[-w, low], [w, low], [w, low + 0.5], [-w, low + 0.5]], person.other)
            painter.polygon(
                [[-w, low], [w, low], [w, low + 0.06], [-w, low + 0.06]], scaled(person.other, 0.7)
            )
        paint_front(painter, rng, spec, person)
    elif rng.random() < 0.12:
        _intruder(image, rng, canvas)
    photo = _pad(_photograph(rng, image, canvas), frame)
    return photo, _seen(spec, pose, sheets, view, canvas, tucked)


def _draw_frame(rng) -> tuple[float, float]:
    """Width and height as shares of the square: phones take 3:4, and photos are padded to squares."""
    kind = rng.random()
    share = float(rng.choice((0.667, 0.75, 0.75, 0.75)))
    return (share, 1.0) if kind < 0.45 else (1.0, share) if kind < 0.55 else (1.0, 1.0)


def _pad(photo: np.ndarray, frame: tuple[float, float]) -> np.ndarray:
    """Keep the middle `frame` and repeat its borders, as photos are squared before the networks see them."""
    size = len(photo)
    keep = [
        np.clip(np.arange(size), (size - n) // 2, (size + n) // 2 - 1)
        for n in (round(f * size) for f in frame)
    ]
    return photo[keep[1]][:, keep[0]]


def _draw_pose(
    rng,
    spec: GarmentSpec,
    sheets: Sheets,
    view: str,
    canvas: int,
    person: Person | None,
    frame: tuple[float, float],
) -> Pose:
    u, shape = rng.uniform, spec.shape
    x0, y0, x1, y1 = sheets.outline.bounds
    fill = u(0.66, 0.98) if u() < 0.85 else u(0.98, 1.2)
    narrow, turn, deltas, bends, shear = (
        1.0,
        u(-0.12, 0.12),
        u(-0.25, 0.25, 2),
        u(-0.06, 0.06, 2),
        u(-0.06, 0.06),
    )
    amount = 0.03
    if view == "laid":
        turn = u(-0.44, 0.44) if u() < 0.5 else u(-0.1, 0.1)
        if u() < 0.06:
            turn = u(-np.pi, np.pi)
        narrow, amount = u(0.9, 1.02), u(0.01, 0.06)
        deltas = np.maximum(deltas, 0.12 - shape.sleeve_angle)
        if shape.sleeve_length > 0.5 and u() < 0.25:  # a sleeve folded over the front
            deltas[int(rng.integers(2))] = -shape.sleeve_angle - u(0.1, 0.7)
    elif view == "hung":
        deltas = (u(0.5, 1.0, 2) if shape.sleeve_length < 0.5 else u(0.1, 0.36, 2)) - shape.sleeve_angle
        narrow, amount = u(0.78, 0.98), 0.025
    else:
        deltas = np.array(person.arms) + (0.25 if shape.sleeve_length < 0.5 else 0.04) - shape.sleeve_angle
        bends, narrow, amount = np.array(person.bend), person.narrow, 0.02
        fill = u(0.6, 0.95)
    if min(frame) < 1:
        fill = max(fill, 0.8)
    half = max(abs(x0), abs(x1)) * narrow
    if view != "laid" and shape.sleeve_length > 0:
        reach = (
            shape.shoulder * narrow + np.sin(max(shape.sleeve_angle + deltas.max(), 0)) * shape.sleeve_length
        )
        half = max(shape.hem, shape.chest, reach) * narrow
    if view == "laid" and abs(np.sin(turn)) > 0.8:  # lies across the frame
        frame = frame[::-1]
    low = max(y1, (shape.slope + shape.sleeve_length) if shape.collar else 0)
    scale = fill * canvas / max(2 * half / frame[0], (low - y0) / frame[1])
    middle = np.array([0.0, (y0 + low) / 2])
    shift = u(-0.5, 0.5, 2) * canvas * frame * (0.35 * max(0.0, 1 - fill) + 0.04)
    return Pose(
        centre=canvas / 2 + shift,
        middle=middle,
        turn=turn,
        scale=(scale * u(0.95, 1.05), scale * u(0.93, 1.05)),
        narrow=narrow,
        bow=_bow(rng, amount),
        sleeve_turn=(float(deltas[0]), float(deltas[1])),
        sleeve_bend=(float(bends[0]), float(bends[1])),
        shear=shear if view == "laid" else 0.0,
    )


def _bow(rng, amount: float) -> np.ndarray:
    n = _GRID + 1
    return amount * np.stack([smooth_noise(rng, (4, 4), n), smooth_noise(rng, (4, 4), n)], -1)


def _source(pixels: np.ndarray, pose: Pose, sheets: Sheets, spec: GarmentSpec, group: str) -> np.ndarray:
    """Target pixels [..., 2] -> pixels of the group's sheet."""
    g = pose.from_target(pixels)
    if pixels.shape == pose.bow.shape:
        g = g + pose.bow
    g = g / np.array([pose.narrow, 1.0])
    if group in ("left", "right"):
        side = 1.0 if group == "right" else -1.0
        which = 1 if group == "right" else 0
        s = spec.shape
        p = g * np.array([side, 1.0]) - np.array([s.shoulder, s.slope])
        angle = s.sleeve_angle + pose.sleeve_turn[which]
        along = p @ np.array([np.sin(angle), np.cos(angle)])
        across = p @ np.array([-np.cos(angle), np.sin(angle)])
        across = across + pose.sleeve_bend[which] * np.clip(along, 0, 2) ** 2
        a = s.sleeve_angle
        p = along[..., None] * np.array([np.sin(a), np.cos(a)]) + across[..., None] * np.array(
            [-np.cos(a), np.sin(a)]
        )
        g = (p + np.array([s.shoulder, s.slope])) * np.array([side, 1.0])
    return sheets.to_pixels(g)


def _warp(sheet: Image.Image, pose: Pose, sheets: Sheets, spec, group: str, canvas: int) -> Image.Image:
    ticks = np.linspace(0, canvas, _GRID + 1)
    nodes = np.stack(np.meshgrid(ticks, ticks), -1)
    source = _source(nodes, pose, sheets, spec, group)
    corners = (source[:-1, :-1], source[1:, :-1], source[1:, 1:], source[:-1, 1:])
    quads = np.stack(corners, 2).reshape(-1, 4, 2)
    hit = ((quads.max(1) > 0) & (quads.min(1) < sheet.size[0])).all(-1)
    edges = np.rint(ticks).astype(int)
    low_y, low_x = np.meshgrid(edges[:-1], edges[:-1], indexing="ij")
    high_y, high_x = np.meshgrid(edges[1:], edges[1:], indexing="ij")
    boxes = np.stack([low_x, low_y, high_x, high_y], -1).reshape(-1, 4)
    mesh = list(zip(map(tuple, boxes[hit].tolist()), quads[hit].reshape(-1, 8).tolist(), strict=True))
    return sheet.transform((canvas, canvas), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _shadow(image: Image.Image, coverage: Image.Image, rng, canvas: int, view: str) -> None:
    blur = canvas * (rng.uniform(0.008, 0.03) if view == "laid" else rng.uniform(0.02, 0.05))
    strength = rng.uniform(0.25, 0.7)
    dx, dy = (rng.uniform(-0.03, 0.03, 2) * canvas).astype(int)
    soft = coverage.filter(ImageFilter.GaussianBlur(blur)).point(lambda v: int(v * strength))
    image.paste((0, 0, 0), (int(dx), int(dy)), soft)


def _drape(rng, canvas: int, view: str) -> np.ndarray:
    """Creases and light that the flat-lay doesn't have, around 1: [canvas, canvas] float32."""
    strength = rng.uniform(0.4, 1.5)
    cells = (int(rng.integers(6, 14)), int(rng.integers(5, 12)))
    light = 0.05 * smooth_noise(rng, cells, canvas) + 0.05 * smooth_noise(rng, (4, 4), canvas)
    light += rng.uniform(0.0, 0.035) * smooth_noise(rng, (36, 30), canvas)
    n = 48
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
    creases = np.zeros((n, n), np.float32)
    spread = 0.35 if view == "hung" else 1.0
    for _ in range(int(rng.integers(3, 12))):
        cx, cy, angle = rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.9), rng.normal(0.0, spread)
        along = (x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
        across = (x - cx) * np.cos(angle) - (y - cy) * np.sin(angle) + rng.normal(0, 0.4) * along * along
        width = rng.uniform(0.012, 0.045)
        creases += (
            rng.uniform(-0.3, 0.3)
            * across
            / width
            * np.exp(-0.5 * (across / width) ** 2 - (along / rng.uniform(0.06, 0.25)) ** 2)
        )
    light = light + np.asarray(Image.fromarray(creases).resize((canvas, canvas), Image.BICUBIC))
    return (1 + strength * light).astype(np.float32)


def _hanger(painter: Painter, rng, spec: GarmentSpec, pose: Pose) -> None:
    s = spec.shape
    colour = ((40, 38, 38), (150, 110, 70), (225, 225, 225), (170, 170, 175))[rng.integers(4)]
    if s.collar:
        wide = s.shoulder * pose.narrow * 0.95
        painter.limb(
            [[-wide, s.slope + 0.03], [0, -0.06], [wide, s.slope + 0.03]], (0.02, 0.03, 0.02), colour
        )
        top = -0.06
    else:
        top = -0.1
        painter.limb([[-0.4, top], [0.4, top]], (0.02, 0.02), colour)
        for x in (-0.3, 0.3):
            painter.limb([[x, top], [x, 0.06]], (0.025, 0.025), scaled(colour, 0.8))
    hook = [[0, top], [0, top - 0.12], [0.06, top - 0.17], [0.05, top - 0.24], [-0.02, top - 0.25]]
    painter.limb(hook, (0.012,) * 5, (150, 150, 152))
    if rng.random() < 0.5:
        painter.limb([[-3, top - 0.26], [3, top - 0.26]], (0.03, 0.03), (120, 110, 105))


def _intruder(image: Image.Image, rng, canvas: int) -> None:
    """A hand, a foot, a phone's edge or some other thing that reaches into the frame."""
    draw = ImageDraw.Draw(image)
    angle, width = rng.uniform(0, 2 * np.pi), canvas * rng.uniform(0.03, 0.08)
    outer = canvas / 2 + canvas * 0.75 * np.array([np.cos(angle), np.sin(angle)])
    inner = canvas / 2 + canvas * rng.uniform(0.25, 0.5) * np.array(
        [np.cos(angle + 0.2), np.sin(angle + 0.2)]
    )
    colour = (224, 178, 148) if rng.random() < 0.6 else draw_colour(rng)
    draw.line([tuple(outer), tuple(inner)], fill=colour, width=int(2 * width))
    draw.ellipse((*(inner - width * 1.1), *(inner + width * 1.1)), fill=scaled(colour, 0.96))
    towards = (inner - outer) / np.linalg.norm(inner - outer)
    for spread in (-0.9, -0.3, 0.3, 0.9):
        tip = inner + width * 1.9 * (towards + 0.5 * spread * np.array([-towards[1], towards[0]]))
        root = inner + 0.7 * spread * width * np.array([-towards[1], towards[0]])
        draw.line([tuple(root), tuple(tip)], fill=scaled(colour, 0.93), width=max(1, int(width * 0.45)))


def _photograph(rng, image: Image.Image, canvas: int) -> np.ndarray:
    """Light falling off, colour temperature, exposure, contrast, blur and noise of a phone's photo."""
    u = rng.uniform
    if u() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(u(0.1, 0.6) * canvas / 128))
    pixels = np.asarray(image, np.float32) / 255
    y, x = np.mgrid[-1 : 1 : canvas * 1j, -1 : 1 : canvas * 1j].astype(np.float32)
    angle, slope = u(0, 2 * np.pi), u(0.0, 0.28)
    light = 1 + slope * (np.cos(angle) * x + np.sin(angle) * y)
    if u() < 0.4:
        light *= 1 - u(0.05, 0.25) * (x * x + y * y) / 2
    if u() < 0.12:  # a hard shadow edge across the frame
        edge = np.cos(angle) * x + np.sin(angle) * y - u(-0.6, 0.6)
        light *= 1 - u(0.15, 0.45) / (1 + np.exp(-edge / u(0.01, 0.08)))
    warm, tint = rng.normal(0, 0.06), rng.normal(0, 0.02)
    gain = np.array([1 + warm, 1 + tint, 1 - warm], np.float32) * u(0.78, 1.15)
    pixels = pixels * light[..., None] * gain
    contrast = u(0.88, 1.28)
    pixels = (pixels - 0.5) * contrast + 0.5 + u(-0.02, 0.05)
    pixels += u(0.0, 0.02) * rng.standard_normal((canvas, canvas, 1), np.float32)
    pixels += u(0.0, 0.012) * rng.standard_normal((canvas, canvas, 3), np.float32)
    return (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def _seen(
    spec: GarmentSpec, pose: Pose, sheets: Sheets, view: str, canvas: int, tucked: bool
) -> dict[str, str]:
    attributes = spec_attributes(spec)
    if view == "worn":
        attributes["Top Tuck In"] = "Yes" if tucked else "No"
    else:
        attributes.pop("Gender", None)
    low = pose.to_target(np.array([[0.0, sheets.outline.bounds[3]]]))[0]
    if tucked or not (0 <= low[0] < canvas and 0 <= low[1] < canvas):
        attributes["Length"] = "Uncertain"
    high = pose.to_target(np.array([[0.0, 0.02]]))[0]
    if not (0 <= high[0] < canvas and 0 <= high[1] < canvas):
        attributes.pop("Collar", None)
    return attributes
