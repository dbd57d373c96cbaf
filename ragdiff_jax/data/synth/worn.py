"""A garment worn by a drawn person, with the rest of the outfit, from the background to the bag in front."""

import dataclasses

import numpy as np

from ragdiff_jax.data.synth import occluders
from ragdiff_jax.data.synth.folds import Drape, draw_drape
from ragdiff_jax.data.synth.garment import GarmentSpec
from ragdiff_jax.data.synth.light import cast_shadow
from ragdiff_jax.data.synth.outfit import Piece, choose
from ragdiff_jax.data.synth.person import (
    Person,
    draw_person,
    paint_arm,
    paint_hair_behind,
    paint_hair_front,
    paint_head,
    paint_legs,
    paint_trunk,
)
from ragdiff_jax.data.synth.places import place as draw_place
from ragdiff_jax.data.synth.seen import Worn
from ragdiff_jax.data.synth.stage import LABELS, Painter, Stage, garment_label
from ragdiff_jax.data.synth.stance import ANKLE, WAIST, Stance, draw_stance
from ragdiff_jax.data.synth.stretch import SCALES
from ragdiff_jax.data.synth.warp import Placement, Ready, Wear, warp

_BOTTOMS = ("Skirt", "Trousers", "Shorts")
_OUTER = (
    "Jacket", "Suit", "Waistcoat", "Vest", "Windbreaker", "Down Jacket", "Shawl", "Knitted Coat", "Robe",
    "Leather Short Coat", "Leather Long Coat", "Denim Jacket", "Sports Jacket", "Knitted Cardigan",
    "Leather Jacket", "Hoodie",
)  # fmt: skip
_UNDER = ("T-shirt", "Shirt", "Polo", "Tank", "Sweater", "Dress", "Innerwear")  # what goes under a jacket


def is_bottom(spec: GarmentSpec) -> bool:
    """Worn from the waist down; its origin is the waist."""
    return spec.category in _BOTTOMS


@dataclasses.dataclass(frozen=True)
class Plan:
    """What else is worn, and how."""

    tucked: bool
    bottom: Piece | None
    top: Piece | None
    under: Piece | None
    over: Piece | None
    sleeves_first: bool


def stage_worn(
    rng: np.random.Generator, spec: GarmentSpec, ready: Ready, size: int, frame: tuple[float, float]
) -> tuple[Stage, Wear, Worn, Stance]:
    """Dress a person in the garment; returns what `wild` needs to photograph and to label it."""
    u, s, low_half = rng.uniform, spec.shape, is_bottom(spec)
    stance = draw_stance(rng, spec, bottom=low_half)
    person = draw_person(rng, s.gender)
    place = _frame_person(rng, spec, ready, stance, size, frame)
    plan = _draw_plan(rng, spec, size)
    drape = draw_drape(rng, size, slow=u(0.004, 0.02), crumple=u(0.4, 1.3), fall=0.6)
    wear = _wear(ready, stance, place, drape, spec.category)
    can_open = s.is_open and not s.inner and s.opening in ("zip", "buttons")
    roll = None
    if s.sleeve_length > 0.9 and plan.over is None and u() < 0.12:
        roll = float(s.sleeve_length * u(0.5, 0.75))
    gap = (s.neck_width * 0.7, s.gap * 0.95) if plan.under is not None and can_open else None
    wear = dataclasses.replace(wear, roll=roll, gap=gap)
    floor = float(place.to_target(np.array([0.0, ANKLE + 0.12]))[1] / size)
    stage = Stage(draw_place(rng, size, floor))
    dressing = _Dressing(rng, stage, place, stance, person, drape, size, roll is not None)
    dressing.behind(plan, spec)
    label = garment_label(spec.category)
    if low_half:
        dressing.outfit_bottom(spec, ready, wear, label, plan)
    else:
        dressing.outfit_top(spec, ready, wear, label, plan)
    dressing.front(spec)
    inner = False
    if plan.under is not None:
        labels = np.asarray(stage.labels)
        inner = int((labels == LABELS["layer"]).sum()) > 0.04 * int((labels == label).sum())
    return stage, wear, Worn(on_person=True, tucked=plan.tucked and not low_half, inner=inner), stance


def _draw_plan(rng, spec: GarmentSpec, size: int) -> Plan:
    u, s = rng.random, spec.shape
    male = "male bottom" if s.gender == "Male" else "bottom"
    first = s.sleeve_length < 0.5 or u() < 0.35
    outer, dress = spec.category in _OUTER, garment_label(spec.category) == LABELS["dress"]
    if is_bottom(spec):
        top = choose(rng, "top", size) if u() < 0.8 else None
        return Plan(u() < 0.5, None, top, None, None, u() < 0.5)
    bottom = choose(rng, male, size) if not dress and u() < 0.75 else None
    tucked = not outer and not dress and s.body_length > 1.05 and u() < 0.2
    under = over = None
    sleeveless_outer = spec.category in ("Vest", "Waistcoat")
    if (s.is_open and u() < 0.75) or (sleeveless_outer and u() < 0.7) or (outer and u() < 0.2):
        under = choose(rng, "under", size)
    elif spec.category in _UNDER and u() < 0.13:
        over = choose(rng, "over", size)
    return Plan(tucked, bottom, None, under, over, first)


def _frame_person(rng, spec, ready: Ready, stance: Stance, size: int, frame) -> Placement:
    """What the picture shows: the garment, the person from head to knee, or all of the person."""
    u, s = rng.uniform, spec.shape
    top, low = ready.top, ready.low
    if is_bottom(spec):
        top, low = top + WAIST, low + WAIST
    reach = max(abs(stance.arm_line(side)[:, 0]).max() + 0.1 for side in (0, 1))
    half = max(s.hem, s.chest, reach if u() < 0.75 else 0.5) * (0.9 if u() < 0.3 else 1.0)
    kind = u()
    if kind < 0.27:
        top, low, half = -0.72, ANKLE + 0.2, min(half, 0.75)
    elif kind < 0.45:
        top, low = min(top, -0.66), max(low, 1.5)
    fill = u(0.72, 0.98) if u() < 0.85 else u(0.98, 1.5)
    scale = fill * size / max(2 * half / frame[0], (low - top) / frame[1])
    shift = u(-0.5, 0.5, 2) * size * np.array(frame) * (0.3 * max(0.0, 1 - fill) + 0.05)
    across, along = SCALES["worn"]
    return Placement(
        centre=(float(size / 2 + shift[0]), float(size / 2 + shift[1])),
        middle=(0.0, float((top + low) / 2)),
        scale=(float(scale * u(*across)), float(scale * u(*along))),
        turn=float(rng.normal(0, 0.04)),
        tilt=u(-0.25, 0.25) / size if u() < 0.3 else 0.0,
    )


def _wear(ready: Ready, stance: Stance, place: Placement, drape: Drape, category: str) -> Wear:
    """The garment's sheets on this body."""
    shape, legs, bottom = ready.shape, None, category in _BOTTOMS
    if category in ("Trousers", "Shorts"):
        legs = tuple(_leg_shift(ready, stance, side) for side in (0, 1))
    arms = tuple(
        dataclasses.replace(arm, upper=max(arm.upper, 0.12) + (0.12 if shape.sleeve_length < 0.5 else 0.0))
        for arm in stance.arms
    )
    return Wear(
        place=place,
        drape=drape,
        arms=arms if shape.sleeve_length < 0.5 else stance.arms,
        origin=(0.0, WAIST if bottom else 0.0),
        narrow=stance.narrow,
        sleeve_narrow=0.8,
        yaw=0.0 if bottom else stance.yaw,
        legs=legs,
    )


def _leg_shift(ready: Ready, stance: Stance, side: int) -> tuple[float, float]:
    """How far sideways a leg's cloth moves at the middle and at the hem, so that it follows the person's leg."""
    shape, solid, (x, top) = ready.shape, ready.solid, ready.at
    sign, shifts = (-1, 1)[side], []
    for y in (0.5 * (shape.crotch + shape.body_length), shape.body_length * 0.97):
        columns = np.flatnonzero(solid[int(np.clip(y * ready.unit + top, 0, len(solid) - 1))])
        columns = columns[columns > x]
        middle = (columns.mean() - x) / ready.unit if len(columns) else 0.2
        leg = np.interp(y + WAIST, stance.legs[side][:, 1], stance.legs[side][:, 0])
        shifts.append(float(leg / stance.narrow - sign * middle))
    return shifts[0], shifts[1]


@dataclasses.dataclass
class _Dressing:
    """One person on one stage, dressed from back to front."""

    rng: np.random.Generator
    stage: Stage
    place: Placement
    stance: Stance
    person: Person
    drape: Drape
    size: int
    rolled: bool

    def __post_init__(self):
        self.painter = Painter(self.stage, self.place.to_target)
        near = self.stance.near()
        self.far = None if near is None else 1 - near
        self.before = [self.stance.front[side] or side == near for side in (0, 1)]

    def behind(self, plan: Plan, spec: GarmentSpec) -> None:
        """Skin, hair behind, arms that nothing hides, legs, and plain trousers if no garment is drawn there."""
        painter, stance, person = self.painter, self.stance, self.person
        paint_hair_behind(painter, stance, person)
        plain_legs = plan.bottom is None and not is_bottom(spec) and garment_label(spec.category) != LABELS["dress"]
        if stance.kind != "sitting":
            paint_legs(painter, stance, person, person.under if plain_legs else None)
        for side in (0, 1):
            if not self.before[side]:
                plain_sleeve = person.under if is_bottom(spec) and plan.top is None else None
                paint_arm(painter, stance, person, side, sleeve=self.sleeve(plan, spec), cloth=plain_sleeve)
        paint_trunk(painter, stance, person.skin, LABELS["head"], 0.85 if spec.shape.sleeve_length else 1.0)
        if is_bottom(spec) and plan.top is None:
            paint_trunk(painter, stance, person.under, LABELS["upper"])
        painter.flush()

    def outfit_top(self, spec, ready, wear, label, plan: Plan) -> None:
        sitting = self.stance.kind == "sitting"
        if sitting and not plan.tucked:
            self.lap(label)
        elif plan.bottom is not None and not plan.tucked:
            self.bottom(plan.bottom)
        under = plan.under
        if under is not None:
            self.garment(under.ready, self.other(under), LABELS["layer"], False, back=True)
        self.garment(ready, wear, label, True, back=True, groups=("back",))
        paint_head(self.painter, self.stance, self.person)
        self.painter.flush()
        if under is not None:
            bare = spec.shape.sleeve_length == 0
            groups = ("left", "right", "body") if bare else ("body",)
            self.garment(under.ready, self.other(under), LABELS["layer"], False, groups=groups)
        sleeves = ("left", "right")
        early = [
            g for side, g in enumerate(sleeves) if side == self.far or (plan.sleeves_first and not self.before[side])
        ]
        late = [g for g in sleeves if g not in early]
        self.garment(ready, wear, label, True, groups=(*early, "body"), shadow=True)
        if sitting and plan.tucked:
            self.lap(label)
        elif plan.tucked:
            self.bottom(plan.bottom)
            if self.rng.random() < 0.4:
                occluders.paint_belt(self.painter, self.rng, self.stance.narrow)
        if plan.over is not None:
            self.over(plan.over)
        else:
            self.arms_before(None, self.sleeve(plan, spec))
            self.garment(ready, wear, label, True, groups=late)
        if spec.shape.collar == "Hooded" or plan.over is not None:
            return
        self.hands()

    def outfit_bottom(self, spec, ready, wear, label, plan: Plan) -> None:
        top = plan.top
        if top is not None:
            self.garment(top.ready, self.other(top), LABELS["upper"], False, groups=("back",))
        paint_head(self.painter, self.stance, self.person)
        self.painter.flush()
        if not plan.tucked:
            self.garment(ready, wear, label, True, groups=("back", "body"), shadow=True)
        if top is not None:
            self.garment(top.ready, self.other(top), LABELS["upper"], False, groups=("left", "right", "body"))
        if plan.tucked:
            self.garment(ready, wear, label, True, groups=("body",), shadow=True)
            if self.rng.random() < 0.3:
                occluders.paint_belt(self.painter, self.rng, self.stance.narrow)
        self.arms_before(None if top is not None else self.person.under, self.sleeve(plan, spec))
        if top is not None:
            late = [("left", "right")[side] for side in (0, 1) if self.before[side]]
            self.garment(top.ready, self.other(top), LABELS["upper"], False, groups=late)

    def bottom(self, piece: Piece | None) -> None:
        if piece is None:  # plain trousers over a tucked hem
            paint_legs(self.painter, self.stance, self.person, self.person.under)
            self.painter.flush()
            return
        wear = self.other(piece)
        self.garment(piece.ready, wear, garment_label(piece.spec.category), False, groups=("body",))

    def lap(self, label: int) -> None:
        """The legs of one who sits, in plain trousers unless the garment is a dress: before a tucked top."""
        paint_legs(self.painter, self.stance, self.person, self.person.under if label != LABELS["dress"] else None)

    def over(self, piece: Piece) -> None:
        """An open jacket over the garment; its sleeves cover the garment's."""
        gap = self.rng.uniform(0.1, 0.24, 2) + (0.0, 0.06)
        worn = dataclasses.replace(
            self.other(piece), gap=(float(gap[0]), float(gap[1])), narrow=self.stance.narrow * 1.06, sleeve_narrow=0.95
        )
        early = [side for side in (0, 1) if not self.before[side]]
        groups = tuple(("left", "right")[side] for side in early)
        self.garment(piece.ready, worn, LABELS["layer"], False, groups=(*groups, "body"))
        self.arms_before(None, 1.0)
        late = tuple(g for g in ("left", "right") if g not in groups)
        self.garment(piece.ready, worn, LABELS["layer"], False, groups=late)

    def sleeve(self, plan: Plan, spec: GarmentSpec) -> float:
        """How much of the arms cloth will hide, units."""
        pieces = [piece.spec.shape.sleeve_length for piece in (plan.top, plan.over, plan.under) if piece is not None]
        own = spec.shape.sleeve_length if spec.shape.sleeve_length < 0.9 or not self.rolled else 0.0
        return max([own, *pieces])

    def other(self, piece: Piece) -> Wear:
        return _wear(piece.ready, self.stance, self.place, self.drape, piece.spec.category)

    def garment(self, ready, wear, label, shown, *, groups=(), back=False, shadow=False) -> None:
        self.painter.flush()
        groups = groups or (("back",) if back else ())
        cloths = [warp(ready, wear, self.size, group, zones=shown) for group in groups]
        if shadow:
            cast_shadow(self.stage, cloths[-1:], self.rng, hard=0.2, far=0.015)
        for cloth in cloths:
            self.stage.lay(cloth, label)

    def arms_before(self, cloth, sleeve: float) -> None:
        for side in (0, 1):
            if self.before[side]:
                paint_arm(self.painter, self.stance, self.person, side, sleeve=sleeve, cloth=cloth)
        self.painter.flush()

    def hands(self) -> None:
        """Hands on the hips lie on the cloth."""
        if self.stance.kind == "hips" and self.rng.random() < 0.6:
            for side in (0, 1):
                if self.stance.arms[side].fore < -0.5:
                    line = self.stance.arm_line(side)
                    way = np.array([-line[2][0] * 0.6, 0.3])
                    way /= np.sqrt((way**2).sum())
                    self.painter.limb(
                        [line[2] - way * 0.05, line[2] + way * 0.16],
                        (0.055, 0.035),
                        self.person.skin,
                        LABELS["left arm" if side else "right arm"],
                    )

    def front(self, spec: GarmentSpec) -> None:
        """What hides the garment now and then."""
        rng, painter = self.rng, self.painter
        if self.person.hair_length and rng.random() < 0.55:
            paint_hair_front(painter, self.stance, self.person)
        chance = rng.random()
        if chance < 0.16:
            occluders.paint_bag(painter, rng, self.stance)
        elif chance < 0.2 and not is_bottom(spec):
            occluders.paint_straps(painter, rng, self.stance)
        elif chance < 0.24:
            occluders.paint_scarf(painter, rng, self.stance)
        if self.stance.phone is not None:
            occluders.paint_phone(painter, self.stance, self.person)
        painter.flush()
