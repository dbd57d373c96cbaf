"""Draw a look: the colours, print and folds that may change while the structure stays."""

import dataclasses

import numpy as np

from ragdiff_jax.data.synth.colours import NAMED, RGB, as_rgb, contrasting, draw_colour, scaled
from ragdiff_jax.data.synth.shape import Look, Shape, pick, pick_index, random_seed

_PRINTS = {
    "Solid Color": 32, "Striped": 15, "Plaid": 8, "Polka Dot": 5, "Color Block": 8, "Logo": 7, "Text": 6, "Artistic": 4,
    "Floral": 7, "Tie-dye": 4, "Camouflage": 1.5, "Geometric": 3, "Star": 1, "Heart": 1, "Animal": 2.5, "Linear": 1.5,
    "Cartoon": 2.5, "Nature Scene": 1.5, "Objects": 2.5, "Mixed": 1.5, "Paisley": 1,
}  # fmt: skip
_LOUD = {
    "Mixed": 3, "Animal": 2, "Tie-dye": 2, "Floral": 2, "Geometric": 2, "Objects": 2, "Paisley": 1.5, "Striped": 2,
    "Plaid": 1, "Nature Scene": 1, "Camouflage": 1, "Color Block": 2, "Heart": 0.7, "Star": 0.7, "Linear": 1,
}  # fmt: skip
PLACED = ("Logo", "Text", "Artistic", "Cartoon", "Nature Scene")  # prints that sit in one place
_PLAIN_CLOTH = {
    "Denim": 0.8, "Leather": 0.93, "Corduroy": 0.8, "Fur": 0.7, "Coated": 0.6, "PVC": 0.7, "Lace": 0.85, "Velvet": 0.7,
    "Micro-Suede": 0.85, "Tweed": 0.6,
}  # fmt: skip
# What a category's cloth looks like most often, before anything else is drawn.
_DYES: dict[str, dict[str, float]] = {
    "Leather": {"black": 6, "brown": 3, "camel": 1.5, "burgundy": 1, "charcoal": 1, "cream": 0.4, "red": 0.4},
    "Tweed": {"grey": 2, "charcoal": 2, "brown": 2, "camel": 1, "taupe": 1, "navy": 1, "cream": 0.7},
    "Corduroy": {"brown": 2, "camel": 2, "olive": 1, "navy": 1, "beige": 1, "dark green": 1, "burgundy": 1},
}
_SUITED = {
    "navy": 3,
    "charcoal": 3,
    "black": 3,
    "grey": 2,
    "beige": 1,
    "light grey": 1,
    "white": 0.5,
    "dark green": 0.4,
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_SYLLABLES = ("NO", "VA", "LO", "RI", "KA", "TEX", "SUN", "MI", "ZEN", "GO", "PEX", "ARC", "UR", "BAN", "FLY", "SKY")
LOGOS = ("circle", "star", "heart", "triangle", "square", "ring", "bolt", "swoosh", "crown", "shield", "leaf", "badge")
_METALS: tuple[RGB, ...] = ((182, 182, 186), (186, 158, 96), (70, 70, 74), (150, 110, 80))


def draw_look(rng: np.random.Generator, shape: Shape) -> Look:
    u = rng.uniform
    base = _dye(rng, shape)
    print_ = pick(rng, _PRINTS)
    if u() < _PLAIN_CLOTH.get(shape.fabric, 0.0) or (shape.category == "Suit" and u() < 0.6):
        print_ = "Solid Color"
    unplaced = shape.is_bottom or shape.family in ("shawl", "swimsuit") or shape.category in ("Suit", "Waistcoat")
    if print_ in PLACED and (unplaced or shape.is_open or shape.opening not in ("none", "quarter") or shape.bust):
        print_ = pick(rng, ("Solid Color", "Striped", "Floral"))
    if shape.category in ("Suit", "Waistcoat") and print_ not in ("Solid Color", "Plaid", "Striped", "Linear"):
        print_ = "Solid Color"
    second = contrasting(rng, base)
    third = contrasting(rng, base, 40.0)
    fourth = draw_colour(rng)
    same = u() < 0.7
    variant = int(rng.integers(0, 5040))
    word = "".join(_SYLLABLES[i] for i in rng.integers(0, len(_SYLLABLES), int(rng.integers(1, 4))))[:7]
    if u() < 0.35:
        word = "".join(LETTERS[i] for i in rng.integers(0, len(LETTERS), int(rng.integers(1, 4))))
    logo = word if print_ == "Text" else pick(rng, LOGOS)
    small = u() < 0.28
    return Look(
        colours=(base, second, third, fourth),
        print=print_,
        variant=variant,
        scale=float(2 ** u(-1, 1)),
        phase=u(),
        angle=u(-0.6, 0.6),
        logo=logo,
        logo_size=0.1 if small and print_ in ("Logo", "Text") else u(0.2, 0.68),
        logo_at=(u(-0.1, 0.1), u(0.25, 0.5)),
        trim=scaled(base, u(0.78, 1.2)) if same else contrasting(rng, base, 40.0),
        lining=scaled(base, u(0.45, 0.75)) if u() < 0.7 else scaled(third, 0.7),
        inner=contrasting(rng, base, 50.0) if u() < 0.6 else as_rgb(np.array(NAMED["white"]) * u(0.92, 1.0)),
        inner_print=pick_index(rng, (0.6, 0.25, 0.15)),
        hardware=_METALS[int(rng.integers(len(_METALS)))],
        fold_seed=random_seed(rng),
        fold_strength=u(0.5, 1.3),
    )


def loud_look(rng: np.random.Generator, shape: Shape) -> Look:
    """Four colours far apart and, four times of five, a print of great contrast."""
    look = draw_look(rng, shape)
    print_ = pick(rng, _LOUD)
    if rng.random() < 0.2:
        return look
    vivid = [_vivid(rng) for _ in range(4)]
    if print_ in PLACED and (shape.is_bottom or shape.is_open or shape.opening != "none" or shape.bust):
        print_ = "Mixed"
    return dataclasses.replace(look, colours=tuple(vivid), print=print_, scale=float(2 ** rng.uniform(-0.6, 1.4)))


def _vivid(rng) -> RGB:
    names = ("red", "orange", "yellow", "lime", "green", "turquoise", "blue", "purple", "hot pink", "black", "white")
    return as_rgb(np.array(NAMED[names[int(rng.integers(len(names)))]]) * rng.uniform(0.85, 1.1))


def _dye(rng, shape: Shape) -> RGB:
    base = draw_colour(rng)
    shade, chance, jitter = rng.uniform(0.4, 1.55), rng.random(), rng.normal(0, 4, 3)
    if shape.fabric == "Denim" and chance < 0.75:
        return scaled(NAMED["denim blue"] if chance < 0.6 else (66, 72, 84), shade)
    names = _SUITED if shape.category in ("Suit", "Waistcoat") else _DYES.get(shape.fabric)
    name = pick(rng, names) if names else ""
    if name and chance < 0.85:
        return as_rgb(np.array(NAMED[name], float) * (0.8 + 0.25 * shade) + jitter)
    return base
