"""Draw a garment: from a seed to its structure and look, within its category's recipe."""

import dataclasses

import numpy as np

from ragdiff_jax.data.synth.extremes import make_extreme
from ragdiff_jax.data.synth.looks import draw_look, loud_look
from ragdiff_jax.data.synth.recipe import (
    DRESS_LENGTHS,
    LEG_LENGTHS,
    SHAWL_LENGTHS,
    SKIRT_LENGTHS,
    SLEEVE_LENGTHS,
    SWIM_LENGTHS,
    TOP_LENGTHS,
    Recipe,
)
from ragdiff_jax.data.synth.recipes import CATEGORIES, RECIPES
from ragdiff_jax.data.synth.shape import GarmentSpec, Look, Shape, SleeveLay, pick, random_seed

__all__ = ["CATEGORIES", "GarmentSpec", "Look", "Shape", "garment_spec", "structure_partner"]

# The angle of long sleeves in the flat-lay, radians from straight down.
_LAID = {"straight": 0.32, "wide": 0.6, "bell": 0.5, "bishop": 0.38, "puff": 0.42, "cap": 0.5, "batwing": 0.75}
_WEIGHTS = {name: recipe.weight for name, recipe in RECIPES.items()}


def garment_spec(seed: int | np.random.Generator, category: str | None = None, *, extreme: bool = False) -> GarmentSpec:
    """Draw a garment; the same integer seed gives the same garment on every machine.

    `extreme` garments have a shape no ordinary one has (uneven hems, one shoulder, batwings, cut-outs, huge collars)
    and mostly a loud print (R Fig. 9).
    """
    rng = np.random.default_rng(seed)
    number = seed if isinstance(seed, int) else random_seed(rng)
    drawn = pick(rng, _WEIGHTS)
    shape = draw_shape(rng, category or drawn)
    if extreme:
        shape = make_extreme(rng, shape)
    look = loud_look(rng, shape) if extreme else draw_look(rng, shape)
    return GarmentSpec(seed=number, shape=shape, look=look, extreme=extreme)


def structure_partner(spec: GarmentSpec, seed: int) -> GarmentSpec:
    """The same structure in another texture, colour and print (R 3.1's positive of equal edges)."""
    rng = np.random.default_rng([seed, 77])
    draw = loud_look if spec.extreme else draw_look
    return dataclasses.replace(spec, look=draw(rng, spec.shape))


def laid_anew(spec: GarmentSpec, seed: int) -> GarmentSpec:
    """The same garment, laid down another time: how straight it lies and how its sleeves are bent is drawn anew."""
    shape = spec.shape
    lay = _draw_lay(np.random.default_rng([seed, 78]), vars(shape))
    return dataclasses.replace(spec, shape=dataclasses.replace(shape, **lay))


def draw_shape(rng: np.random.Generator, category: str) -> Shape:
    u, recipe = rng.uniform, RECIPES[category]
    fit, fabric = pick(rng, recipe.fits), pick(rng, recipe.fabrics)
    length = pick(rng, recipe.lengths)
    collar = pick(rng, recipe.collars) if recipe.collars else ""
    sleeve = pick(rng, recipe.sleeves) if recipe.sleeves else ""
    gender = "Female" if u() < recipe.female else "Male"
    if collar in ("Strapless", "Off-shoulder", "One-shoulder"):
        sleeve = "Sleeveless"
    parts = _draw_body(rng, recipe, category, fit, gender, collar, sleeve, length)
    parts |= _draw_sleeves(rng, recipe, fit, collar, sleeve, parts)
    parts |= _draw_front(rng, recipe, category, collar, fabric, parts)
    parts |= _draw_bottom(rng, recipe, category)
    parts |= _draw_lay(rng, parts)
    return Shape(
        category=category,
        family=recipe.family,
        fit=fit,
        collar=collar,
        sleeve=sleeve,
        length=length,
        gender=gender,
        fabric=fabric,
        **parts,
    )


def _draw_body(rng, recipe: Recipe, category, fit, gender, collar, sleeve, length) -> dict:
    u, family = rng.uniform, recipe.family
    female = gender == "Female"
    chest = 0.5 * {"Loose": u(1.06, 1.34), "Regular": u(0.94, 1.06), "Slim": u(0.78, 0.92)}[fit]
    taper = u(0.74, 1.0) if female else u(0.92, 1.04)
    hem = chest * (u(0.84, 1.28) if female else u(0.84, 1.06))
    rib = u(0.04, 0.1) if u() < recipe.rib else 0.0
    if rib:
        hem = chest * u(0.76, 1.0)
    if family == "dress":
        hem = chest * (u(1.0, 2.3) if u() < 0.8 else u(0.85, 1.1))
        taper = u(0.64, 0.95) if category == "Dress" else u(0.9, 1.05)
    if category in ("Suit", "Waistcoat"):
        hem, taper = chest * (u(0.9, 1.08) if category == "Suit" else u(0.7, 1.3)), u(0.78, 0.97)
    elif category in ("Tank", "Leather Long Coat") and female and u() < 0.5:  # they swing
        hem = chest * u(1.1, 1.65)
    neckline = {"V-neck": "v", "Square": "square", "Suit": "v", "Neckline": "boat", "Naval": "v", "Notched": "v"}.get(
        collar, "round"
    )
    depth = {"v": u(0.2, 0.46), "square": u(0.14, 0.28), "boat": u(0.04, 0.08)}.get(neckline, u(0.08, 0.2))
    if neckline == "round" and u() < 0.1 and collar == "Round":
        depth = u(0.22, 0.32)  # scooped
    if collar == "Suit":
        depth = u(0.5, 0.9)
    elif collar == "Notched":
        depth = u(0.22, 0.5)
    elif category == "Robe" or (category == "Knitted Coat" and neckline == "v"):
        depth = u(0.4, 0.85)
    shoulder = (0.38 if female else 0.42) * u(0.92, 1.08) + (0.09 * u() if fit == "Loose" else 0.0)
    if fit != "Slim":
        shoulder = max(shoulder, chest * u(0.76, 0.96))
    neck = u(0.13, 0.22)
    straps = bust = 0.0
    if (
        family != "shawl"
        and sleeve == "Sleeveless"
        and (
            collar in ("Strapless", "Off-shoulder")
            or (u() < recipe.strapped and collar in ("Round", "V-neck", "Square"))
        )
    ):
        bare = collar in ("Strapless", "Off-shoulder")
        straps = 0.0 if bare else u(0.008, 0.045)
        bust = u(0.16, 0.32)
        neck, shoulder = u(0.15, 0.24), u(0.24, 0.36)
        depth = u(0.06, 0.22)
        if collar == "Off-shoulder":
            neckline = "straight"
        elif collar in ("V-neck", "Strapless"):
            neckline = "heart" if u() < 0.4 else "straight" if bare else "v"
    elif sleeve == "Sleeveless" and (category in ("Tank", "Swimsuit") or family == "dress"):
        neck = u(0.15, 0.25)
        shoulder = neck + (u(0.04, 0.18) if u() < 0.75 else u(0.2, 0.3))
        depth = depth if neckline != "round" else u(0.12, 0.38)
    if collar == "Neckline" and family != "shawl":
        neck = shoulder * u(0.68, 0.82)
    if sleeve == "Sleeveless" and category in ("Vest", "Waistcoat"):
        shoulder, neck = neck + u(0.06, 0.3), u(0.12, 0.2)
        shoulder = max(shoulder, neck + 0.06)
    if family == "swimsuit":
        chest *= 0.86
    if family == "shawl":
        shoulder, neck, depth = u(0.55, 1.0), u(0.12, 0.2), u(0.1, 0.3) if collar != "V-neck" else u(0.3, 0.5)
        hem = shoulder * u(0.6, 1.25)
    lengths = {
        "dress": DRESS_LENGTHS,
        "skirt": SKIRT_LENGTHS,
        "legs": LEG_LENGTHS.get(category),
        "swimsuit": SWIM_LENGTHS,
        "shawl": SHAWL_LENGTHS,
    }.get(family, TOP_LENGTHS)
    armhole = u(0.36, 0.5) * (1.12 if fit == "Loose" else 1.0)
    if category in ("Vest", "Waistcoat"):
        armhole *= u(0.85, 1.35)
    if bust:
        armhole = max(armhole, bust + u(0.06, 0.16))
    return {
        "chest": chest,
        "waist": chest * taper,
        "waist_at": u(0.15, 0.6) if family == "dress" else u(0.3, 0.55),
        "hem": hem,
        "rib": rib,
        "neckline": neckline,
        "neck_depth": depth,
        "neck_width": neck,
        "shoulder": min(shoulder, chest * 1.04) if family != "shawl" else shoulder,
        "slope": u(0.05, 0.17) if family != "shawl" else u(0.08, 0.3),
        "straps": straps,
        "bust": bust,
        "body_length": u(*lengths[length]),
        "armhole": armhole,
        "hem_curve": u(-0.03, 0.05) if u() < 0.75 else u(0.05, 0.14),
        "hem_vent": u(0.03, 0.12) if category in ("Shirt", "Polo") and u() < 0.5 else 0.0,
        "hem_kind": "plain" if rib else pick(rng, recipe.hems),
        "train": u(0.05, 0.25) if family == "dress" and u() < 0.12 else 0.0,
    }


def _draw_sleeves(rng, recipe: Recipe, fit, collar, sleeve, parts) -> dict:
    u = rng.uniform
    shape = pick(rng, recipe.sleeve_shapes)
    length = u(*SLEEVE_LENGTHS.get(sleeve, (0.0, 0.0)))
    if collar == "One-shoulder" or parts["bust"]:
        length = 0.0
    if shape == "cap" and sleeve == "Short":
        length = u(0.12, 0.2)
    elif shape in ("cap", "bell", "bishop") and length < 0.5:
        shape = "straight" if shape != "bell" else shape
    # A studio lays the sleeves of one kind alike, so that a photo of the garment says where they go in the flat-lay.
    angle = _LAID[shape] + (0.5 - 0.6 * length if length < 0.5 else 0.08 * (fit == "Loose")) + rng.normal(0.0, 0.06)
    armhole = parts["armhole"]
    if shape == "batwing":
        armhole *= u(1.4, 1.8)
    if shape == "wide":
        armhole *= u(1.05, 1.25)
    width = armhole * u(0.85, 1.05)
    cuff = width * (u(0.72, 1.1) if length < 0.5 else u(0.36, 0.75))
    cuff *= {"bell": 1.5, "wide": 1.35, "bishop": 0.8, "puff": 0.85}.get(shape, 1.25 if u() < 0.08 else 1.0)
    return {
        "armhole": armhole,
        "sleeve_shape": shape,
        "sleeve_length": length,
        "sleeve_angle": angle,
        "sleeve_width": width,
        "cuff": cuff,
        "sleeve_bulge": u(-0.03, 0.1),
        "rolled": bool(sleeve == "Long" and u() < recipe.roll),
    }


def _draw_front(rng, recipe: Recipe, category, collar, fabric, parts) -> dict:
    u = rng.uniform
    opening = pick(rng, recipe.openings)
    if category == "Sweater" and opening == "quarter" and collar != "Stand-up":
        opening = "none"
    if collar == "Polo":
        opening = "quarter"
    if recipe.family == "dress" and collar in ("Shirt", "Notched"):
        opening = "buttons"
    if parts["bust"]:
        opening = "none"
    fronted = opening not in ("none", "quarter") and recipe.family == "top"
    is_open = bool(fronted and u() < recipe.open_share)
    panels = pick(rng, recipe.panels)
    if panels == "raglan" and (parts["sleeve_length"] < 0.28 or parts["sleeve_shape"] in ("batwing", "cap")):
        panels = "none"
    quilted = u() < recipe.quilt and fabric in ("Synthetic", "Coated", "Special Fabric", "Leather")
    kind = pick(rng, {"bands": 7, "diamonds": 2, "columns": 1})
    pockets = {"none": 1} if recipe.family == "top" and parts["body_length"] < 0.9 else recipe.pockets
    return {
        "opening": opening,
        "is_open": is_open,
        "inner": bool(is_open and u() < recipe.inner_share),
        "collar_size": u(0.8, 1.3),
        "hood": u(0.2, 0.44) if collar == "Hooded" else 0.0,
        "pocket": pick(rng, pockets),
        "gap": u(0.08, 0.32),
        "panel": u(0.3, 0.65),
        "panels": panels,
        "quilt": int(rng.integers(6, 15)) if quilted else 0,
        "quilt_kind": kind,
        "belt": bool(u() < recipe.belt),
        "side": 1 if u() < 0.5 else -1,
        "rough": u(0.006, 0.014) if fabric in ("Fur", "Fur Blend") else 0.0,
    }


def _draw_bottom(rng, recipe: Recipe, category) -> dict:
    """What skirts, dresses and legs have; every garment draws it, so that one's numbers don't depend on another's."""
    u = rng.uniform
    flowing = recipe.family in ("skirt", "dress")
    pleats = int(rng.integers(3, 11)) if u() < 0.35 and flowing else 0
    tiers = int(rng.integers(2, 5)) if u() < 0.15 and flowing else 0
    kinds = {"pencil": 2, "flared": 4, "circle": 2, "tulip": 1, "mermaid": 0.7}
    legs = {"straight": 4, "skinny": 2, "flared": 1, "wide": 1.5, "tapered": 2, "harem": 0.4}
    if category == "Shorts":
        legs = {"straight": 5, "wide": 3, "tapered": 1, "harem": 0.5}
    skirt = pick(rng, kinds)
    if pleats or tiers:
        skirt = "flared" if skirt in ("pencil", "tulip") else skirt
    return {
        "pleats": pleats if not tiers else 0,
        "tiers": tiers,
        "hip": u(1.05, 1.35),
        "crotch": u(0.48, 0.68),
        "leg_angle": u(0.02, 0.34),
        "knee": u(0.7, 1.15),
        "leg_shape": pick(rng, legs),
        "skirt_shape": skirt,
        "slit": u(0.15, 0.5) if flowing and u() < 0.12 and not tiers else 0.0,
    }


def _draw_lay(rng, parts) -> dict:
    """How it was laid down: nobody lays a garment quite straight."""
    u = rng.uniform
    lean, bow, tilt = rng.normal(0.0, (0.018, 0.012, 0.02))
    length, angle = parts["sleeve_length"], parts["sleeve_angle"]
    turns = rng.normal(0.0, 0.06, 2) * (u() < 0.4)
    kind = pick(rng, {"straight": 9, "both": 2.2, "one": 1, "folded": 0.8, "uneven": 1})
    bends, ats, side = u(0.35, 1.2, 2), u(0.42, 0.6, 2), int(rng.integers(2))
    folds = u(1.7, 2.5, 2)
    lays = [SleeveLay(turn=float(t)) for t in turns]
    if length > 0.9 and parts["sleeve_shape"] in ("straight", "wide"):
        for i in range(2):
            turn, at = float(turns[i]), float(ats[i])
            if kind == "both" or (kind in ("one", "folded") and i == side):
                name = "folded" if kind == "folded" else "bent"
                bend = float(folds[i] if kind == "folded" else bends[i])
                lays[i] = SleeveLay(kind=name, turn=turn + 0.15, angle=bend, at=at)
    if kind == "uneven" and length > 0.25:
        more = 0.25 if angle < 0.8 else -0.3
        lays[side] = SleeveLay(turn=float(turns[side] + more))
    return {"lean": float(lean), "bow": float(bow), "tilt": float(tilt), "lays": tuple(lays)}
