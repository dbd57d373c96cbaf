"""The in-the-wild view: the very garment of the flat-lay, laid, hung, held or worn, and lit."""

import dataclasses

import numpy as np
from PIL import ImageDraw

from ragdiff_jax.data.synth import occluders
from ragdiff_jax.data.synth.backgrounds import objects, surface
from ragdiff_jax.data.synth.flat import Sheets, make_sheets
from ragdiff_jax.data.synth.folds import draw_drape
from ragdiff_jax.data.synth.garment import GarmentSpec
from ragdiff_jax.data.synth.light import cast_shadow, photograph
from ragdiff_jax.data.synth.outfit import choose
from ragdiff_jax.data.synth.places import wall
from ragdiff_jax.data.synth.seen import Worn, seen_attributes
from ragdiff_jax.data.synth.shape import pick_index
from ragdiff_jax.data.synth.stage import LABELS, Painter, Stage, garment_label
from ragdiff_jax.data.synth.stance import keypoints
from ragdiff_jax.data.synth.stretch import NARROW, SCALES
from ragdiff_jax.data.synth.warp import Arm, Placement, Ready, Wear, sleeve_start, warp
from ragdiff_jax.data.synth.worn import is_bottom, stage_worn

VIEWS = ("laid", "hung", "held", "worn")
_VIEW_CHANCES = (0.45, 0.2, 0.03, 0.32)
_LEAST, _TRIES = 0.003, 8  # share of the photo that shows the garment; photos that are drawn to reach it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """A drawn photo and what is known of it.

    Attributes:
      photo: uint8 [size, size, 3].
      attributes: those of Table 6 that the photo shows (`seen.seen_attributes`).
      keypoints: COCO-18 joints, float32 [18, 3] (`stance.keypoints`), or None without a person.
      label_map: uint8 [size, size], ids of `stage.LABELS`.
      garment_mask: bool [size, size], the visible pixels of the garment: where `label_map` has its label.
      view: one of VIEWS.
    """

    photo: np.ndarray
    attributes: dict[str, str]
    keypoints: np.ndarray | None
    label_map: np.ndarray
    garment_mask: np.ndarray
    view: str


def render_photo(spec: GarmentSpec, seed: int, size: int, sheets: Sheets | None = None):
    """A photo of the garment: (uint8 [size, size, 3], the attributes that can be seen in it)."""
    scene = render_scene(spec, seed, size, sheets)
    return scene.photo, scene.attributes


def render_scene(
    spec: GarmentSpec,
    seed: int,
    size: int,
    sheets: Sheets | None = None,
    *,
    view: str | None = None,
    exposure: str | None = None,
) -> Scene:
    """Draw the garment in the wild; the same arguments give the same scene on every machine.

    A scene that hides the garment, e.g. shorts under a long top, is drawn anew from other random numbers, a few times.

    Args:
      sheets: `make_sheets(spec, size)` where the caller has them already.
      view: one of VIEWS; drawn if None (R 9.5 has worn, laid and hung ones).
      exposure: one of `light.EXPOSURES`; drawn if None.
    """
    ready = Ready(sheets or make_sheets(spec, size), spec.shape)
    for again in range(_TRIES):
        numbers = [seed, spec.seed & 0xFFFFFFFF, 3, *([again] if again else [])]
        scene = _draw_scene(np.random.default_rng(numbers), spec, ready, size, view, exposure)
        if scene.garment_mask.mean() >= _LEAST:
            break
    return scene


def _draw_scene(rng, spec: GarmentSpec, ready: Ready, size: int, view: str | None, exposure: str | None) -> Scene:
    drawn = VIEWS[pick_index(rng, _VIEW_CHANCES)]
    view = view or drawn
    frame = _draw_frame(rng)
    if view != "worn":  # phones are turned for wide garments, and nobody squeezes one into a narrow frame
        share = max(min(frame), 0.75 if 0.7 < ready.wide < 1.4 else 0.0)
        frame = (1.0, share) if ready.wide > 1.2 else (share, 1.0) if frame[0] < 1 else frame
    stance = None
    if view == "worn":
        stage, wear, worn, stance = stage_worn(rng, spec, ready, size, frame)
    elif view == "laid":
        stage, wear, worn = _stage_laid(rng, spec, ready, size, frame)
    else:
        stage, wear, worn = _stage_hung(rng, spec, ready, size, frame, held=view == "held")
    photo = photograph(rng, stage.image, exposure)
    labels, zones = np.array(stage.labels), np.asarray(stage.zones)
    (left, right), (top, bottom) = (_kept(share, size) for share in frame)
    if (left, right, top, bottom) != (0, size, 0, size):
        photo[:, :left], photo[:, right:] = photo[:, left : left + 1], photo[:, right - 1 : right]
        photo[:top], photo[bottom:] = photo[top], photo[bottom - 1]
        for outside in (labels[:top], labels[bottom:], labels[:, :left], labels[:, right:]):
            outside[:] = LABELS["background"]
    label = garment_label(spec.category)
    mask = labels == label
    joints = None
    if stance is not None:
        joints = keypoints(stance, wear.place.to_target, size)
        x, y = joints[:, 0], joints[:, 1]
        joints[(x < left) | (x >= right) | (y < top) | (y >= bottom)] = 0
    return Scene(
        photo=photo,
        attributes=seen_attributes(spec, ready, wear, zones * mask, worn),
        keypoints=joints,
        label_map=labels,
        garment_mask=mask,
        view=view,
    )


def _draw_frame(rng) -> tuple[float, float]:
    """Width and height as shares of the square: phones take 3:4, and photos are padded to squares."""
    kind = rng.random()
    share = (0.5625, 0.667, 0.75, 0.75, 0.75, 0.75)[rng.integers(6)]
    return (share, 1.0) if kind < 0.5 else (1.0, share) if kind < 0.6 else (1.0, 1.0)


def _kept(share: float, size: int) -> tuple[int, int]:
    n = round(share * size)
    return (size - n) // 2, (size - n) // 2 + n


def _half_width(ready: Ready, arms, narrow: float) -> float:
    """Half the width that the garment takes with its sleeves as they are turned, units."""
    s, half = ready.shape, ready.half * narrow
    if s.sleeve_length > 0:
        for arm in arms:
            below = max(s.sleeve_length - arm.elbow_at, 0.05)
            half = max(half, arm.elbow[0] + 0.5 * s.cuff, arm.beyond(below)[0] + 0.5 * s.cuff)
    return float(half)


def _place(rng, spec, ready, size, frame, arms, narrow, *, turn: float, tilted: float) -> Placement:
    """Fit the garment into the frame; one photo in eight is a close-up."""
    u, s = rng.uniform, spec.shape
    half = _half_width(ready, arms, narrow)
    top, low = ready.top, ready.low
    for arm in arms:
        if s.sleeve_length > 0:
            low = max(low, arm.beyond(max(s.sleeve_length - arm.elbow_at, 0.0))[1])
    fill = u(0.7, 1.0) if u() < 0.87 else u(1.0, 1.45)
    if min(frame) < 1:
        fill = max(fill, 0.82)
    sin, cos = abs(np.sin(turn)), abs(np.cos(turn))
    wide, high = 2 * half * cos + (low - top) * sin, (low - top) * cos + 2 * half * sin
    scale = fill * size / max(wide / frame[0], high / frame[1])
    shift = u(-0.5, 0.5, 2) * size * np.array(frame) * (0.35 * max(0.0, 1 - fill) + 0.06)
    across, along = SCALES["laid"]
    return Placement(
        centre=(float(size / 2 + shift[0]), float(size / 2 + shift[1])),
        middle=(0.0, float((top + low) / 2)),
        scale=(float(scale * u(*across)), float(scale * u(*along))),
        turn=turn,
        shear=u(-0.06, 0.06) if tilted else 0.0,
        tilt=tilted * u(-0.3, 0.6) / size,
    )


def _stage_laid(rng, spec: GarmentSpec, ready: Ready, size: int, frame):
    u, s = rng.uniform, spec.shape
    turn = u(-0.5, 0.5) if u() < 0.4 else u(-0.1, 0.1)
    if u() < 0.07:
        turn = u(-np.pi, np.pi)
    narrow, bent, arms, folded = u(*NARROW["laid"]), u() < 0.4, [], False
    for _ in range(2):
        upper = max(s.sleeve_angle + u(-0.3, 0.25), 0.1)
        fore = upper + (u(-0.9, 0.5) if bent else u(-0.12, 0.12))
        if s.sleeve_length > 0.5 and u() < 0.16:  # folded over the front
            folded = True
            upper, fore = (-u(0.1, 0.5), -u(0.0, 0.6)) if u() < 0.4 else (u(0.1, 0.4), -u(1.2, 2.3))
        start = sleeve_start(s, s.sleeve_angle)
        at = min(0.5, 0.5 * s.sleeve_length + 0.02)
        arms.append(Arm((start[0] * narrow, start[1]), upper, fore, elbow_at=at))
    place = _place(rng, spec, ready, size, frame, arms, narrow, turn=turn, tilted=float(u() < 0.35))
    messy = u()
    crumple = u(0.4, 1.3) if messy < 0.75 else u(1.3, 2.6)
    fold = None
    if messy > 0.93:  # the hem or a side turned over
        low = ready.low
        if u() < 0.6:
            fold = (0.0, low * u(0.68, 0.9), np.pi / 2 + u(-0.35, 0.35))
        else:
            fold = ((1 if u() < 0.5 else -1) * 0.5 * s.chest, low / 2, u(-0.25, 0.25))
            fold = fold if fold[0] > 0 else (fold[0], fold[1], fold[2] + np.pi)
    wear = Wear(
        place=place,
        drape=draw_drape(rng, size, slow=u(0.006, 0.03), crumple=crumple, fall=1.0),
        arms=(arms[0], arms[1]),
        narrow=narrow,
        legs=tuple((float(d), float(d + e)) for d, e in u(-0.07, 0.07, (2, 2))) if _is_pair(spec) else None,
        roll=_draw_roll(rng, spec, 0.05),
        fold=fold,
    )
    stage = Stage(surface(rng, size))
    if u() < 0.12:
        objects(rng, ImageDraw.Draw(stage.image), size)
    if u() < 0.06:
        _lay_beside(rng, stage, size, place, wear)
    if s.collar and u() < 0.07:
        _paint(stage, place, occluders.paint_hanger, rng, s, narrow, bottom=False)
    _lay(rng, stage, spec, ready, wear, size, sleeves_first=not folded and u() < 0.55, hard=0.3, far=0.02)
    if u() < 0.1:
        painter = Painter(stage, lambda p: p)
        occluders.paint_visitor(painter, rng, size)
        painter.flush()
    if u() < 0.05:
        _paint(stage, place, occluders.paint_tag, rng, s)
    return stage, wear, Worn()


def _stage_hung(rng, spec: GarmentSpec, ready: Ready, size: int, frame, *, held: bool):
    u, s = rng.uniform, spec.shape
    narrow, arms = u(*NARROW["held" if held else "hung"]), []
    for _ in range(2):
        upper = u(0.45, 0.9) if s.sleeve_length < 0.5 else u(0.04, 0.34)
        start = sleeve_start(s, upper)
        fore = upper + u(-0.3, 0.08)
        arms.append(Arm((start[0] * narrow, start[1]), upper, fore, elbow_at=min(0.5, 0.6 * s.sleeve_length + 0.02)))
    place = _place(rng, spec, ready, size, frame, arms, narrow, turn=rng.normal(0, 0.05), tilted=float(u() < 0.25))
    wear = Wear(
        place=place,
        drape=draw_drape(rng, size, slow=u(0.006, 0.025), crumple=u(0.4, 1.4), fall=0.3),
        arms=(arms[0], arms[1]),
        narrow=narrow,
        sleeve_narrow=u(0.75, 1.0),
        yaw=u(-0.5, 0.5) if u() < 0.2 and not is_bottom(spec) else 0.0,
        legs=tuple((float(d * 0.5), float(d)) for d in (u(0.0, 0.06), -u(0.0, 0.06))) if _is_pair(spec) else None,
        roll=_draw_roll(rng, spec, 0.05),
    )
    stage = Stage(wall(rng, size))
    if not held:
        if u() < 0.14:
            _paint(stage, place, occluders.paint_neighbours, rng, s)
        _paint(stage, place, occluders.paint_hanger, rng, s, narrow, bottom=is_bottom(spec))
    sleeves_first = s.sleeve_length < 0.5 or u() < 0.35
    _lay(rng, stage, spec, ready, wear, size, sleeves_first=sleeves_first, hard=0.45, far=0.05)
    if held:
        _paint(stage, place, occluders.paint_holders, rng, s, narrow)
    elif is_bottom(spec):
        _paint(stage, place, occluders.paint_clips, rng, narrow)
    if u() < 0.06:
        _paint(stage, place, occluders.paint_tag, rng, s)
    return stage, wear, Worn()


def _lay(rng, stage, spec, ready, wear, size, *, sleeves_first: bool, hard: float, far: float) -> None:
    order = ("back", "left", "right", "body") if sleeves_first else ("back", "body", "left", "right")
    cloths = [warp(ready, wear, size, group, zones=True) for group in order]
    cast_shadow(stage, cloths, rng, hard=hard, far=far)
    for cloth in cloths:
        stage.lay(cloth, garment_label(spec.category))


def _lay_beside(rng, stage: Stage, size: int, place: Placement, wear: Wear) -> None:
    """A part of another garment that lies next to this one, partly under it."""
    piece = choose(rng, "top" if rng.random() < 0.6 else "bottom", size)
    angle = rng.uniform(0, 2 * np.pi)
    away = size * rng.uniform(0.5, 0.75) * np.array([np.cos(angle), np.sin(angle)])
    there = dataclasses.replace(
        place, centre=(float(size / 2 + away[0]), float(size / 2 + away[1])), turn=rng.uniform(-np.pi, np.pi)
    )
    shape = piece.spec.shape
    start = sleeve_start(shape, shape.sleeve_angle)
    arm = Arm(start, shape.sleeve_angle, shape.sleeve_angle)
    laid = Wear(place=there, drape=wear.drape, arms=(arm, arm))
    for group in ("back", "left", "right", "body"):
        stage.lay(warp(piece.ready, laid, size, group), LABELS["layer"])


def _draw_roll(rng, spec: GarmentSpec, chance: float) -> float | None:
    """Where the sleeves of a shirt or a sweater are rolled up to, or None."""
    s = spec.shape
    return float(s.sleeve_length * rng.uniform(0.5, 0.75)) if s.sleeve_length > 0.9 and rng.random() < chance else None


def _is_pair(spec: GarmentSpec) -> bool:
    return spec.category in ("Trousers", "Shorts")


def _paint(stage: Stage, place: Placement, draw, *arguments, **options) -> None:
    painter = Painter(stage, place.to_target)
    draw(painter, *arguments, **options)
    painter.flush()
