"""A drawn person who wears the garment: plain shapes, in the garment's own posed coordinates."""

import dataclasses

import numpy as np
from PIL import Image, ImageDraw

from ragdiff_jax.data.synth.colours import RGB, draw_colour, scaled
from ragdiff_jax.data.synth.garment import GarmentSpec

_SKIN = ((244, 208, 184), (232, 188, 156), (214, 164, 124), (180, 126, 88), (134, 88, 60), (92, 58, 42))
_HAIR = (
    (30, 24, 22),
    (64, 42, 30),
    (112, 76, 46),
    (180, 140, 88),
    (216, 186, 130),
    (120, 60, 36),
    (150, 150, 150),
)


@dataclasses.dataclass(frozen=True)
class Person:
    """The person's colours and stance; arms are angles from straight down, bend curves them outwards."""

    skin: RGB
    hair: RGB
    long_hair: bool
    other: RGB  # the garment on the other half
    other_long: bool
    shoes: RGB
    arms: tuple[float, float]
    bend: tuple[float, float]
    stance: float
    narrow: float


def draw_person(rng: np.random.Generator, spec: GarmentSpec) -> Person:
    skin = scaled(_SKIN[rng.integers(len(_SKIN))], rng.uniform(0.92, 1.05))
    arms = rng.uniform(0.06, 0.36, 2)
    if spec.shape.sleeve_length < 0.5 and rng.random() < 0.25:
        arms[int(rng.integers(2))] = rng.uniform(0.4, 0.9)
    return Person(
        skin=skin,
        hair=scaled(_HAIR[rng.integers(len(_HAIR))], rng.uniform(0.8, 1.2)),
        long_hair=bool(rng.random() < (0.7 if spec.shape.gender == "Female" else 0.1)),
        other=draw_colour(rng),
        other_long=bool(rng.random() < 0.7),
        shoes=draw_colour(rng),
        arms=(float(arms[0]), float(arms[1])),
        bend=(float(rng.uniform(-0.12, 0.2)), float(rng.uniform(-0.12, 0.2))),
        stance=float(rng.uniform(0.05, 0.2)),
        narrow=float(rng.uniform(0.74, 0.9)),
    )


class Painter:
    """Draws shapes given in posed garment units into an image, with a little body shading."""

    def __init__(self, image: Image.Image, to_target):
        self.draw = ImageDraw.Draw(image)
        self.to_target = to_target

    def polygon(self, points, colour: RGB) -> None:
        self.draw.polygon([tuple(p) for p in self.to_target(np.asarray(points, float))], fill=colour)

    def limb(self, points, widths, colour: RGB) -> None:
        """A tube along points [n, 2] with half-widths [n]: dark edge, base, light core."""
        points, widths = np.asarray(points, float), np.asarray(widths, float)[:, None]
        along = np.gradient(points, axis=0)
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
        across = np.stack([-along[:, 1], along[:, 0]], -1)
        for share, tone in ((1.0, 0.82), (0.72, 1.0), (0.3, 1.05)):
            edge = across * widths * share
            self.polygon(np.concatenate([points + edge, (points - edge)[::-1]]), scaled(colour, tone))

    def ellipse(self, centre, radii, colour: RGB) -> None:
        t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        self.polygon(
            np.stack([centre[0] + radii[0] * np.cos(t), centre[1] + radii[1] * np.sin(t)], -1), colour
        )


def arm_points(spec: GarmentSpec, person: Person, side: int, length: float) -> np.ndarray:
    """The middle of an arm from the shoulder down, [n, 2]; the sleeve's sheet is bent along the same line."""
    s = spec.shape
    angle, bend = person.arms[side], person.bend[side]
    t = np.linspace(0, length, 10)[:, None]
    along = np.array([np.sin(angle), np.cos(angle)])
    across = np.array([-along[1], along[0]])
    offset = 0.5 * s.cuff if s.sleeve_length > 0.5 else 0.1
    points = (
        np.array([s.shoulder * person.narrow - 0.03, s.slope + 0.07])
        + along * t
        + across * (offset - bend * t**2)
    )
    return points * np.array([1.0 if side else -1.0, 1.0])


def paint_behind(painter: Painter, spec: GarmentSpec, person: Person, tucked_from: float | None) -> None:
    """Everything that the garment covers."""
    s = spec.shape
    if s.collar == "":
        _torso(painter, spec, person)
        _legs(painter, person, 0.35, 2.35, s.body_length, skin=True)
        return
    if person.long_hair:
        painter.ellipse((0, -0.24), (0.25, 0.42), scaled(person.hair, 0.8))
    hip = s.body_length - 0.2 if tucked_from is None else tucked_from
    if s.category == "Dress":
        _legs(painter, person, min(hip, 1.3), 2.9, 9.0, skin=True)
    else:
        _legs(painter, person, 1.0, 2.7, 2.6 if person.other_long else 1.75, skin=False)
    for side in (0, 1):
        points = arm_points(spec, person, side, 1.16)
        painter.limb(points, np.linspace(0.1, 0.06, len(points)), person.skin)
        hand = points[-1] + (points[-1] - points[-2]) * 0.5
        painter.ellipse(hand, (0.07, 0.1), scaled(person.skin, 0.95))
    neck = np.array([[0, -0.25], [0, 0.3]])
    painter.limb(neck, (0.11, 0.16), scaled(person.skin, 0.92))
    painter.ellipse((0, 0.12), (s.shoulder * person.narrow * 0.55, 0.16), person.skin)


def paint_head(painter: Painter, person: Person) -> None:
    painter.limb([[0, -0.25], [0, 0.02]], (0.1, 0.1), scaled(person.skin, 0.85))
    painter.ellipse((0, -0.42), (0.19, 0.26), person.hair)
    painter.ellipse((0, -0.36), (0.155, 0.22), person.skin)
    painter.polygon([[-0.17, -0.42], [-0.12, -0.6], [0.1, -0.62], [0.17, -0.42], [0.06, -0.5]], person.hair)
    for x in (-0.06, 0.06):
        painter.ellipse((x, -0.37), (0.02, 0.012), (40, 34, 32))
    painter.ellipse((0, -0.25), (0.045, 0.012), scaled(person.skin, 0.72))


def paint_front(painter: Painter, rng: np.random.Generator, spec: GarmentSpec, person: Person) -> None:
    """What hides the garment now and then: hair, a hand, a bag with its strap."""
    s = spec.shape
    if s.collar and person.long_hair and rng.random() < 0.6:
        for side in (-1, 1):
            painter.limb(
                [[side * 0.17, -0.4], [side * 0.2, -0.1], [side * 0.19, rng.uniform(0.1, 0.4)]],
                (0.06, 0.07, 0.03),
                person.hair,
            )
    chance = rng.random()
    if chance < 0.12 and s.collar:
        colour = draw_colour(rng)
        painter.limb([[-0.25, 0.05], [0.1, 0.6], [0.42, 1.1]], (0.03, 0.03, 0.03), colour)
        painter.polygon([[0.28, 1.05], [0.62, 1.1], [0.6, 1.5], [0.26, 1.45]], scaled(colour, 0.9))
    elif chance < 0.26:
        y = rng.uniform(0.3, 0.9) * s.body_length
        side = 1 if rng.random() < 0.5 else -1
        painter.limb(
            [[side * 0.75, y + 0.35], [side * 0.4, y + 0.05], [side * 0.2, y]],
            (0.08, 0.07, 0.06),
            person.skin,
        )
        painter.ellipse((side * 0.15, y), (0.1, 0.065), person.skin)


def _torso(painter: Painter, spec: GarmentSpec, person: Person) -> None:
    waist = 0.4 * spec.shape.chest / 0.5 * person.narrow
    for side in (-1, 1):
        arm = np.array([[side * 0.42, -0.98], [side * 0.52, -0.5], [side * 0.56, -0.05], [side * 0.55, 0.2]])
        painter.limb(arm, (0.1, 0.09, 0.07, 0.06), person.other if person.other_long else person.skin)
        painter.ellipse(arm[-1], (0.07, 0.1), person.skin)
    shape = [
        [-0.15, -1.15],
        [-0.46, -1.02],
        [-0.42, -0.5],
        [-waist * 1.03, 0.08],
        [waist * 1.03, 0.08],
        [0.42, -0.5],
        [0.46, -1.02],
        [0.15, -1.15],
    ]
    painter.polygon(shape, person.other)
    painter.polygon(
        [[-0.34, -1.0], [-0.3, -0.4], [-waist * 0.5, 0.08], [waist * 0.2, 0.08], [0.1, -1.0]],
        scaled(person.other, 1.06),
    )


def _legs(
    painter: Painter, person: Person, top: float, bottom: float, cloth_to: float, *, skin: bool
) -> None:
    hip = 0.36
    for side in (-1, 1):
        foot = side * (0.12 + person.stance)
        line = np.array(
            [
                [side * 0.17, top],
                [side * 0.17, top + 0.3],
                [(foot + side * 0.17) / 2, (top + bottom) / 2],
                [foot, bottom],
            ]
        )
        painter.limb(line, (0.19, 0.18, 0.13, 0.08), person.skin)
        painter.ellipse((foot + side * 0.03, bottom + 0.05), (0.11, 0.08), person.shoes)
        if not skin:
            share = np.clip((cloth_to - line[:, 1]) / 0.5, 0, 1)
            covered = line[: max(2, int((share > 0).sum()))]
            painter.limb(covered, np.array([0.2, 0.2, 0.16, 0.11])[: len(covered)], person.other)
    if not skin:
        painter.polygon(
            [[-hip, top], [hip, top], [hip * 1.05, top + 0.35], [-hip * 1.05, top + 0.35]], person.other
        )
