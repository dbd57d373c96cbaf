"""Things in front of and around a garment: hangers, rails, hands, straps, bags, phones, belts, scarves."""

import numpy as np

from ragdiff_jax.data.synth.colours import draw_colour, scaled
from ragdiff_jax.data.synth.garment import Shape
from ragdiff_jax.data.synth.person import Person, draw_person, paint_hand
from ragdiff_jax.data.synth.stage import LABELS, Painter
from ragdiff_jax.data.synth.stance import WAIST, Stance

_HANGERS = ((40, 38, 38), (150, 110, 70), (196, 160, 112), (225, 225, 225), (170, 170, 175), (230, 120, 150))


def paint_hanger(painter: Painter, rng, shape: Shape, narrow: float, *, bottom: bool) -> None:
    """A hanger behind the garment, its hook, and now and then the rail it hangs from."""
    colour = _HANGERS[rng.integers(len(_HANGERS))]
    if not bottom:
        wide = max(shape.shoulder, 0.3) * narrow * 0.95
        thick = rng.uniform(0.012, 0.035)
        painter.limb(
            [[-wide, shape.slope + 0.03], [0, -0.06], [wide, shape.slope + 0.03]],
            (thick * 0.7, thick, thick * 0.7),
            colour,
        )
        top = -0.06
    else:
        top = -0.1
        painter.limb([[-0.4, top], [0.4, top]], (0.02, 0.02), colour)
        for x in (-0.3, 0.3):
            painter.limb([[x, top], [x, 0.06]], (0.025, 0.025), scaled(colour, 0.8))
    hook = [[0, top], [0, top - 0.12], [0.06, top - 0.17], [0.05, top - 0.24], [-0.02, top - 0.25]]
    painter.limb(hook, (0.012,) * 5, (150, 150, 152))
    kind = rng.random()
    if kind < 0.25:
        painter.limb([[-3, top - 0.26], [3, top - 0.26]], (0.03, 0.03), (120, 110, 105))
    elif kind < 0.45:  # a hook or a handle on the door
        painter.limb([[0.0, top - 0.3], [0.02, top - 0.22]], (0.04, 0.03), scaled(colour, 0.6))


def paint_clips(painter: Painter, rng, narrow: float) -> None:
    """The clips of a bottom's hanger, in front of the waistband."""
    colour = _HANGERS[rng.integers(len(_HANGERS))]
    for x in (-0.3, 0.3):
        painter.limb([[x * narrow, -0.06], [x * narrow, 0.08]], (0.03, 0.026), colour, LABELS["background"])


def paint_neighbours(painter: Painter, rng, shape: Shape) -> None:
    """Other clothes on the same rail."""
    painter.limb([[-3, -0.27], [3, -0.27]], (0.03, 0.03), (128, 120, 114))
    for side in (-1, 1):
        for i in range(int(rng.integers(1, 4))):
            x = side * (max(shape.chest, shape.hem) + 0.12 + 0.22 * i + rng.uniform(0, 0.1))
            low, colour = rng.uniform(0.9, 2.2), draw_colour(rng)
            painter.limb([[x, 0.02], [x, -0.26]], (0.01, 0.01), (150, 150, 152))
            painter.polygon(
                [
                    [x - 0.05, 0.0],
                    [x + 0.05, 0.0],
                    [x + 0.12, 0.05],
                    [x + 0.15, 0.3],
                    [x + 0.13, low],
                    [x - 0.13, low - 0.05],
                    [x - 0.15, 0.3],
                    [x - 0.12, 0.05],
                ],
                colour,
            )
            painter.limb([[x + 0.04, 0.1], [x + 0.05, low]], (0.02, 0.03), scaled(colour, 0.8))


def paint_holders(painter: Painter, rng, shape: Shape, narrow: float) -> None:
    """Two hands that hold the garment up by its shoulders or waist."""
    person = draw_person(rng, "Female" if rng.random() < 0.6 else "Male")
    for side in (-1, 1):
        at = np.array([side * max(shape.shoulder - 0.08, 0.2) * narrow, shape.slope + 0.05])
        way = np.array([-side * rng.uniform(0.1, 0.5), rng.uniform(-0.2, 0.9)])
        way /= np.sqrt((way**2).sum())
        painter.limb(
            [at - way * 0.9, at - way * 0.1],
            (0.09, 0.055),
            person.skin,
            LABELS["right arm" if side < 0 else "left arm"],
        )
        paint_hand(painter, at - way * 0.1, way, person, LABELS["right arm" if side < 0 else "left arm"])


def paint_visitor(painter: Painter, rng, size: int) -> None:
    """A hand, a foot, a phone or some other thing that reaches into the frame (pixel coordinates)."""
    angle, width = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.03, 0.07)
    way = -np.array([np.cos(angle), np.sin(angle)])
    outer = size / 2 - size * 0.78 * way
    inner = size / 2 - size * rng.uniform(0.22, 0.5) * way
    across = np.array([-way[1], way[0]])
    kind = rng.random()
    if kind < 0.5:
        person = draw_person(rng, "Female")
        label = LABELS["right arm"]
        painter.limb(
            [outer, (outer + inner) / 2, inner],
            (width * 1.3, width * 1.1, width * 0.8),
            person.skin if rng.random() < 0.6 else person.under,
            label,
        )
        palm = np.stack(
            [
                inner - across * width,
                inner + across * width,
                inner + way * width * 2 + across * width * 1.1,
                inner + way * width * 2 - across * width * 1.1,
            ]
        )
        painter.polygon(palm, scaled(person.skin, 0.97), label)
        for spread in (-0.8, -0.28, 0.28, 0.8):
            root = inner + way * width * 1.9 + across * width * spread
            tip = root + (way + 0.4 * spread * across) * width * rng.uniform(1.2, 2.0)
            painter.limb([root, tip], (width * 0.27, width * 0.2), scaled(person.skin, 0.95), label)
    elif kind < 0.65:  # a foot or a shoe
        colour = draw_colour(rng)
        painter.limb([outer, inner], (width * 1.2, width * 1.5), draw_colour(rng), LABELS["left leg"])
        painter.ellipse(inner, (width * 1.5, width * 1.5), colour, LABELS["left shoe"])
    else:  # a box, a phone, a cup, a plant
        colour = draw_colour(rng)
        if rng.random() < 0.5:
            half = width * rng.uniform(1.2, 2.2)
            box = np.stack(
                [
                    inner - across * half,
                    inner + across * half,
                    inner + across * half - way * half * 3,
                    inner - across * half - way * half * 3,
                ]
            )
            painter.polygon(box, colour, LABELS["background"])
            painter.polygon(inner + (box - inner) * 0.8 - way * half * 0.3, scaled(colour, 0.6), None)
        else:
            painter.ellipse(inner, (width * 1.8, width * 1.8), colour, LABELS["background"])
            painter.ellipse(inner, (width * 1.3, width * 1.3), scaled(colour, 0.75))


def paint_tag(painter: Painter, rng, shape: Shape) -> None:
    """A paper tag on the cloth."""
    x, y = rng.uniform(-0.3, 0.3), rng.uniform(0.15, 0.6) * shape.body_length
    painter.polygon(
        [[x, y], [x + 0.12, y + 0.02], [x + 0.1, y + 0.22], [x - 0.02, y + 0.2]], (236, 230, 214), LABELS["background"]
    )
    painter.polygon(
        [[x + 0.02, y + 0.06], [x + 0.09, y + 0.07], [x + 0.08, y + 0.12], [x + 0.01, y + 0.11]], (90, 84, 80)
    )


def paint_bag(painter: Painter, rng, stance: Stance) -> None:
    """A bag: across the body, on a shoulder or in a hand."""
    colour, kind = draw_colour(rng), rng.random()
    bag, dark = LABELS["bag"], scaled(colour, 0.8)
    side = 1 if rng.random() < 0.5 else -1
    shoulder = stance.arm_line(1 if side > 0 else 0)[0]
    if kind < 0.4:  # across
        hip = np.array([side * 0.42, rng.uniform(0.95, 1.25)])
        start = stance.arm_line(0 if side > 0 else 1)[0] * [0.6, 1.0] - [0, 0.05]
        painter.limb([start, (start + hip) / 2 + [0, 0.03], hip], (0.022, 0.022, 0.022), dark, bag)
        at, half, high = hip, rng.uniform(0.13, 0.22), rng.uniform(0.2, 0.36)
    elif kind < 0.7:  # on the shoulder
        start = shoulder * [0.8, 1.0] - [0, 0.06]
        at = np.array([start[0] + side * 0.08, rng.uniform(0.5, 0.9)])
        painter.limb([start, at], (0.022, 0.022), dark, bag)
        half, high = rng.uniform(0.15, 0.28), rng.uniform(0.25, 0.5)
    else:  # in the hand
        wrist = stance.arm_line(1 if side > 0 else 0)[2] + [0, 0.14]
        at, half, high = wrist + [0, 0.2], rng.uniform(0.14, 0.26), rng.uniform(0.2, 0.4)
        painter.limb([wrist, at + [-half * 0.6, 0]], (0.016, 0.016), dark, bag)
        painter.limb([wrist, at + [half * 0.6, 0]], (0.016, 0.016), dark, bag)
    shape = at + np.array([[-half * 0.85, 0], [half * 0.85, 0], [half, high], [-half, high]])
    painter.polygon(shape, colour, bag)
    painter.polygon(
        at + np.array([[-half * 0.85, 0], [half * 0.85, 0], [half * 0.9, high * 0.4], [-half * 0.9, high * 0.4]]), dark
    )


def paint_straps(painter: Painter, rng, stance: Stance) -> None:
    """A backpack's two straps."""
    colour = draw_colour(rng)
    for side in (0, 1):
        top = stance.arm_line(side)[0] * [0.68, 1.0] - [0, 0.1]
        painter.limb([top, top + [0, 0.35], top * [1.25, 1] + [0, 0.62]], (0.04, 0.04, 0.03), colour, LABELS["bag"])


def paint_scarf(painter: Painter, rng, stance: Stance) -> None:
    colour, low = draw_colour(rng), rng.uniform(0.5, 1.1)
    x, side = 0.04 * np.sin(stance.yaw), 1 if rng.random() < 0.5 else -1
    painter.limb(
        [[side * 0.09, 0.06], [side * 0.11, low * 0.6], [side * 0.13, low]],
        (0.08, 0.085, 0.09),
        scaled(colour, 0.92),
        LABELS["scarf"],
    )
    painter.limb([[x - 0.2, -0.02], [x, 0.1], [x + 0.2, -0.02]], (0.09, 0.11, 0.09), colour, LABELS["scarf"])


def paint_belt(painter: Painter, rng, narrow: float) -> None:
    colour = draw_colour(rng)
    half = 0.42 * narrow
    painter.limb(
        [[-half, WAIST + 0.03], [0, WAIST + 0.06], [half, WAIST + 0.03]], (0.035, 0.035, 0.035), colour, LABELS["belt"]
    )
    painter.polygon(
        np.array([[-0.05, WAIST + 0.02], [0.05, WAIST + 0.02], [0.05, WAIST + 0.1], [-0.05, WAIST + 0.1]]),
        (196, 176, 120),
    )


def paint_phone(painter: Painter, stance: Stance, person: Person) -> None:
    wrist = stance.arm_line(stance.phone)[2]
    tip = wrist + [0, -0.12]
    colour = scaled(person.under, 0.5)
    painter.polygon(
        tip + np.array([[-0.08, -0.16], [0.08, -0.16], [0.08, 0.14], [-0.08, 0.14]]), colour, LABELS["background"]
    )
    painter.ellipse(tip + [-0.04, -0.11], (0.022, 0.022), (30, 30, 34))
    painter.limb(
        [tip + [-0.09, 0.03], tip + [0.09, 0.05]],
        (0.025, 0.025),
        person.skin,
        LABELS["right arm" if stance.phone == 0 else "left arm"],
    )
