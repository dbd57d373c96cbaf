"""Shapes no ordinary garment has, as R's Fig. 9 shows them: one or two exaggerations on a drawn structure."""

import dataclasses

import numpy as np

from ragdiff_jax.data.synth.shape import Shape, SleeveLay, pick

_TOP = {
    "uneven hem": 3, "one shoulder": 2, "batwing": 2.5, "endless sleeves": 2.5, "cut-outs": 2.5, "huge collar": 2.5,
    "balloon": 2, "trumpet": 2, "train": 1.5, "giant": 1, "tiny": 0.7, "points": 1.5,
}  # fmt: skip
_SKIRT = {"uneven hem": 3, "cut-outs": 2, "tiers": 2, "tulip": 1, "giant": 2, "points": 2}
_LEGS = {"uneven hem": 2, "harem": 2, "bells": 3, "giant": 2, "cut-outs": 1.5}
_CLASHES = ({"batwing", "balloon", "trumpet", "one shoulder"}, {"uneven hem", "points", "train"}, {"giant", "tiny"})


def make_extreme(rng: np.random.Generator, shape: Shape) -> Shape:
    """`shape` with one or two exaggerations; its attributes stay those that can still be seen."""
    choices = {"skirt": _SKIRT, "legs": _LEGS}.get(shape.family, _TOP)
    if shape.category == "Shorts":
        choices = {name: weight for name, weight in choices.items() if name not in ("bells", "harem")}
    if not shape.sleeve_length or shape.family == "shawl":
        sleeved = ("batwing", "endless sleeves", "balloon", "trumpet")
        choices = {name: weight for name, weight in choices.items() if name not in sleeved}
    if shape.family != "top" and shape.family != "dress":
        choices = {k: v for k, v in choices.items() if k not in ("one shoulder", "huge collar", "train", "tiny")}
    elif shape.bust or shape.opening != "none":
        choices = {name: weight for name, weight in choices.items() if name != "one shoulder"}
    if shape.collar not in ("Shirt", "Polo", "Suit", "Notched", "Hooded", "Stand-up", "Rounded", "Ruffled", "Naval"):
        choices = {name: weight for name, weight in choices.items() if name != "huge collar"}
    first = pick(rng, choices)
    shape = _exaggerate(rng, shape, first)
    if rng.random() < 0.5:
        barred = {first}.union(*(clash for clash in _CLASHES if first in clash))
        shape = _exaggerate(rng, shape, pick(rng, {k: v for k, v in choices.items() if k not in barred}))
    return shape


def _exaggerate(rng, s: Shape, name: str) -> Shape:
    u = rng.uniform
    sign = 1 if u() < 0.5 else -1
    change: dict = {}
    if name == "uneven hem":
        change = {"tilt": sign * u(0.25, 0.6) * min(1.0, s.body_length / 1.3)}
    elif name == "one shoulder":
        change = {"collar": "One-shoulder", "sleeve_length": s.sleeve_length * (u() < 0.5), "panels": "none"}
        if not change["sleeve_length"]:
            change["sleeve"] = "Sleeveless"
    elif name == "batwing":
        change = {
            "sleeve_shape": "batwing",
            "armhole": u(0.75, 1.0) * min(s.body_length - 0.15, 1.0),
            "sleeve_angle": u(0.6, 1.1),
            "cuff": u(0.12, 0.25),
            "sleeve_length": max(s.sleeve_length, u(0.7, 1.1)),
            "panels": "none",
        }
        change["sleeve"] = "Long" if change["sleeve_length"] > 0.9 else "Mid"
    elif name == "endless sleeves":
        change = {"sleeve": "Extra Long", "sleeve_length": u(1.65, 2.2), "sleeve_angle": u(0.15, 0.7)}
    elif name == "cut-outs":
        change = {"cutouts": int(rng.integers(1, 4))}
    elif name == "huge collar":
        change = {"collar_size": u(2.0, 2.8), "hood": s.hood * 1.7}
    elif name == "balloon":
        change = {"sleeve_shape": "puff" if s.sleeve_length < 0.9 else "bishop", "sleeve_bulge": u(0.3, 0.5)}
    elif name == "trumpet":
        change = {"sleeve_shape": "bell", "cuff": s.armhole * u(1.7, 2.6)}
        change |= {"sleeve_length": max(s.sleeve_length, 0.7), "sleeve": "Mid" if s.sleeve_length < 0.9 else s.sleeve}
    elif name == "train":
        change = {"train": u(0.35, 0.7)}
    elif name == "giant":
        wide = u(1.4, 1.75)
        change = {"fit": "Loose", "chest": s.chest * wide, "waist": s.waist * wide, "hem": s.hem * wide * u(0.9, 1.2)}
        change |= {"shoulder": s.shoulder * (wide if not s.bust else 1.0)}
    elif name == "tiny":
        change = {"length": "Extra Short", "body_length": max(u(0.5, 0.62), s.armhole + 0.12)}
        if s.family == "dress":
            change = {"length": "Short", "body_length": u(1.2, 1.4)}
    elif name == "points":
        change = {"hem_kind": "points", "hem_curve": 0.0, "rib": 0.0}
    elif name == "tiers":
        change = {"tiers": int(rng.integers(4, 8)), "pleats": 0, "skirt_shape": "circle", "length": s.length}
    elif name == "tulip":
        change = {"skirt_shape": "tulip", "hip": u(1.7, 2.1)}
    elif name == "harem":
        change = {"leg_shape": "harem", "crotch": s.body_length * u(0.55, 0.7)}
    elif name == "bells":
        change = {"leg_shape": "flared", "knee": u(1.6, 2.3), "leg_angle": u(0.1, 0.3)}
    return dataclasses.replace(s, lays=tuple(SleeveLay(turn=lay.turn) for lay in s.lays), **change)
