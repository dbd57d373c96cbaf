"""A drawn person who wears the garment: plain shapes with a little shading, each with its label."""

import dataclasses

import numpy as np

from ragdiff_jax.data.synth.colours import RGB, draw_colour, scaled
from ragdiff_jax.data.synth.stage import LABELS, Painter
from ragdiff_jax.data.synth.stance import ANKLE, HIP, WAIST, Stance, head_points

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
_ARM = (LABELS["right arm"], LABELS["left arm"])  # image left is the person's right
_LEG = (LABELS["right leg"], LABELS["left leg"])
_SHOE = (LABELS["right shoe"], LABELS["left shoe"])


@dataclasses.dataclass(frozen=True)
class Person:
    """The person's colours and what is worn besides the garments."""

    skin: RGB
    hair: RGB
    hair_length: float  # how far it falls below the chin, units; 0 for short hair
    hat: RGB | None
    glasses: bool
    shoes: RGB
    tights: RGB | None
    under: RGB  # plain cloth where no other garment is drawn
    nails: RGB | None


def draw_person(rng: np.random.Generator, gender: str) -> Person:
    """`gender` is Table 6's Female or Male."""
    u, female = rng.uniform, gender == "Female"
    long = u() < (0.72 if female else 0.1)
    return Person(
        skin=scaled(_SKIN[rng.integers(len(_SKIN))], u(0.92, 1.05)),
        hair=scaled(_HAIR[rng.integers(len(_HAIR))], u(0.8, 1.2)),
        hair_length=float(u(0.05, 0.55)) if long else 0.0,
        hat=draw_colour(rng) if u() < 0.12 else None,
        glasses=bool(u() < 0.18),
        shoes=draw_colour(rng),
        tights=draw_colour(rng) if female and u() < 0.25 else None,
        under=draw_colour(rng),
        nails=draw_colour(rng) if female and u() < 0.3 else None,
    )


def paint_arm(
    painter: Painter, stance: Stance, person: Person, side: int, *, sleeve: float = 0.0, cloth: RGB | None = None
) -> None:
    """Arm and hand, bare or (`cloth`) in a plain sleeve; `sleeve` units of it need no skin."""
    line = stance.arm_line(side)
    hand = line[2] - line[1]
    hand = hand / max(float(np.hypot(*hand)), 1e-6)
    smooth = np.stack(
        [
            line[0],
            line[0] * 0.5 + line[1] * 0.5,
            line[1] * 0.96 + line[0] * 0.04,
            line[1] * 0.5 + line[2] * 0.5,
            line[2],
        ]
    )
    skip = 0 if sleeve < 0.7 else 3
    painter.limb(smooth[skip:], (0.105, 0.095, 0.078, 0.072, 0.052)[skip:], person.skin, _ARM[side])
    paint_hand(painter, line[2], hand, person, _ARM[side])
    if cloth is not None:
        painter.limb(smooth, (0.13, 0.12, 0.105, 0.095, 0.08), cloth, LABELS["upper"])


def paint_hand(painter: Painter, wrist: np.ndarray, way: np.ndarray, person: Person, label: int) -> None:
    across = np.array([-way[1], way[0]])
    palm = np.array([wrist - across * 0.045, wrist + across * 0.045])
    palm = np.concatenate([palm, (wrist + way * 0.12 + np.outer((0.055, -0.055), across))])
    painter.polygon(palm, scaled(person.skin, 0.95), label)
    painter.limb([wrist + way * 0.1, wrist + way * 0.21], (0.05, 0.028), scaled(person.skin, 0.98), label)
    painter.limb(
        [wrist + way * 0.03 + across * 0.04, wrist + way * 0.13 + across * 0.075], (0.02, 0.016), person.skin, label
    )
    if person.nails is not None:
        painter.ellipse(wrist + way * 0.22, (0.016, 0.016), person.nails)


def paint_legs(painter: Painter, stance: Stance, person: Person, cloth: RGB | None) -> None:
    """Legs and shoes; `cloth` colours plain trousers."""
    skin = person.tights or person.skin
    for side, sign in ((0, -1), (1, 1)):
        hip, knee, ankle = stance.legs[side]
        line = np.stack([hip, (hip + knee) / 2, knee, (knee + ankle) / 2, ankle])
        painter.limb(line, (0.185, 0.165, 0.115, 0.1, 0.06), skin, _LEG[side])
        toe = ankle + np.array([(sign * 0.04 + 0.1 * np.sin(stance.yaw)), 0.12])
        painter.limb([ankle + [0, 0.01], toe], (0.075, 0.095), person.shoes, _SHOE[side])
        if cloth is not None:
            keep = line[:, 1] <= max(ANKLE, line[1, 1]) + 0.02
            widths = np.array([0.2, 0.19, 0.15, 0.13, 0.11])[keep]
            painter.limb(line[keep], widths, cloth, LABELS["pants"])
    if cloth is not None:
        wide = abs(stance.legs[:, 0, 0]).max() + 0.15
        low = HIP + 0.2
        shape = [[-wide * 0.85, WAIST - 0.05], [wide * 0.85, WAIST - 0.05], [wide, low], [-wide, low]]
        painter.polygon(shape, cloth, LABELS["pants"])


def paint_trunk(painter: Painter, stance: Stance, colour: RGB, label: int, share: float = 1.0) -> None:
    """Shoulders to hips: skin, or plain cloth."""
    right, left = stance.arm_line(0)[0], stance.arm_line(1)[0]
    y = right[1]
    half = ((left[0] - right[0]) / 2 + 0.05) * share
    hip = abs(stance.legs[:, 0, 0]).max() + 0.15
    shape = np.array(
        [
            [0.1, -0.02],
            [half * 0.75, y - 0.1],
            [half, y],
            [half * 0.92, y + 0.3],
            [half * 0.78, WAIST - 0.1],
            [hip, HIP + 0.1],
        ]
    )
    painter.polygon(np.concatenate([shape, shape[::-1] * np.array([-1, 1])]), colour, label)
    inner = shape * np.array([0.62, 1.0])
    painter.polygon(np.concatenate([inner, inner[::-1] * np.array([-1, 1])]), scaled(colour, 1.05))


def paint_hair_behind(painter: Painter, stance: Stance, person: Person) -> None:
    x = 0.04 * np.sin(stance.yaw)
    if person.hair_length:
        low = -0.1 + person.hair_length
        shape = [
            [x - 0.19, -0.42],
            [x + 0.19, -0.42],
            [x + 0.22, low * 0.6],
            [x + 0.14, low],
            [x - 0.14, low],
            [x - 0.22, low * 0.6],
        ]
        painter.polygon(shape, scaled(person.hair, 0.75), LABELS["hair"])


def paint_head(painter: Painter, stance: Stance, person: Person) -> None:
    """Neck, head, face and hair; the face's points are the keypoints."""
    points = head_points(stance)
    x, head = 0.04 * np.sin(stance.yaw), LABELS["head"]
    turn = float(np.clip(stance.yaw * 0.8 + stance.head, -1.3, 1.3))
    painter.limb([[x, -0.22], [x * 0.5, 0.0], [0, 0.1]], (0.095, 0.1, 0.15), scaled(person.skin, 0.9), head)
    painter.ellipse((x - 0.03 * np.sin(turn), -0.42), (0.185, 0.225), person.hair, LABELS["hair"])
    for name in ("right ear", "left ear"):
        at, seen = points[name]
        if seen:
            painter.ellipse(at, (0.025, 0.042), scaled(person.skin, 0.88), head)
    face = x + 0.035 * np.sin(turn)
    painter.ellipse((face, -0.36), (0.15, 0.205), person.skin, head)
    fringe = [
        [face - 0.155, -0.4],
        [face - 0.13, -0.58],
        [face + 0.12, -0.6],
        [face + 0.155, -0.4],
        [face + 0.06, -0.5],
    ]
    painter.polygon(fringe, person.hair, LABELS["hair"])
    for name in ("right eye", "left eye"):
        at, seen = points[name]
        if seen:
            painter.ellipse(at, (0.02, 0.012), (40, 34, 32))
            painter.limb([at - [0.03, 0.03], at + [0.03, -0.03]], (0.006, 0.006), scaled(person.hair, 0.7))
    nose, _ = points["nose"]
    painter.ellipse(nose + [0, 0.01], (0.02, 0.02), scaled(person.skin, 0.86))
    painter.ellipse((0.6 * face + 0.4 * nose[0], -0.235), (0.045, 0.014), (178, 84, 80))
    if person.glasses:
        for name in ("right eye", "left eye"):
            painter.ellipse(points[name][0], (0.05, 0.04), (24, 24, 28), LABELS["sunglasses"])
    if person.hat is not None:
        cap = [[face - 0.19, -0.46], [face - 0.16, -0.66], [face + 0.16, -0.66], [face + 0.19, -0.46]]
        painter.polygon(cap, person.hat, LABELS["hat"])
        brim = 0.1 * np.sin(turn)
        painter.limb(
            [[face - 0.2 + brim, -0.47], [face + 0.2 + brim, -0.47]],
            (0.025, 0.025),
            scaled(person.hat, 0.8),
            LABELS["hat"],
        )


def paint_hair_front(painter: Painter, stance: Stance, person: Person) -> None:
    """Locks that fall over the shoulders."""
    x = 0.04 * np.sin(stance.yaw)
    for side in (-1, 1):
        low = -0.15 + person.hair_length * (0.9 + 0.1 * side)
        painter.limb(
            [[x + side * 0.16, -0.44], [x + side * 0.185, -0.16], [side * 0.2, (low - 0.16) / 2], [side * 0.17, low]],
            (0.045, 0.06, 0.055, 0.02),
            person.hair,
            LABELS["hair"],
        )
