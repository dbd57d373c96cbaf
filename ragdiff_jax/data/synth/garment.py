"""The parameters of one synthetic garment, drawn from a seed: what is structure and what is only its look."""

import dataclasses

import numpy as np

from ragdiff_jax.data.synth.colours import RGB, contrasting, draw_colour, scaled

TOPS = ("T-shirt", "Shirt", "Polo", "Tank", "Hoodie", "Sweater", "Jacket")
CATEGORIES = TOPS + ("Dress", "Skirt", "Trousers", "Shorts")
_CATEGORY_WEIGHTS = np.array([0.17, 0.12, 0.08, 0.07, 0.10, 0.11, 0.10, 0.10, 0.05, 0.06, 0.04])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """The structure: lengths are in chest widths, angles in radians from straight down."""

    category: str
    fit: str
    collar: str
    sleeve: str
    length: str
    fabric: str
    gender: str
    opening: str  # none, quarter, buttons, zip
    is_open: bool
    rolled: bool
    shoulder: float
    neck_width: float
    neck_depth: float
    slope: float
    chest: float
    waist: float
    waist_at: float
    hem: float
    body_length: float
    armhole: float
    hem_curve: float
    hem_vent: float
    sleeve_length: float
    sleeve_angle: float
    sleeve_width: float
    cuff: float
    sleeve_bulge: float
    rib: float
    collar_size: float
    pocket: str  # none, chest, kangaroo, sides
    gap: float
    pleats: int
    hip: float
    crotch: float
    leg_angle: float
    knee: float
    quilt: int  # bands of stuffing, 0 for none
    panel: float  # where seams and colour blocks lie, as a share of the length


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """Colours, print and the seed of the folds: everything that may change without changing the structure."""

    colours: tuple[RGB, RGB, RGB]
    print: str
    variant: int
    scale: float
    phase: float
    angle: float
    logo: str
    logo_size: float
    logo_at: tuple[float, float]
    trim: RGB
    lining: RGB
    fold_seed: int
    fold_strength: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class GarmentSpec:
    """One garment: `shape` decides the silhouette and the structural attributes, `look` the pixels in it."""

    seed: int
    shape: Shape
    look: Look

    @property
    def category(self) -> str:
        return self.shape.category


def garment_spec(seed: int | np.random.Generator, category: str | None = None) -> GarmentSpec:
    """Draw a garment; the same integer seed gives the same garment on every machine."""
    rng = np.random.default_rng(seed)
    number = seed if isinstance(seed, int) else int(rng.integers(2**31))
    drawn = CATEGORIES[rng.choice(len(CATEGORIES), p=_CATEGORY_WEIGHTS)]
    shape = _draw_shape(rng, category or drawn)
    return GarmentSpec(seed=number, shape=shape, look=_draw_look(rng, shape))


def structure_partner(spec: GarmentSpec, seed: int) -> GarmentSpec:
    """The same structure in another texture, colour and print (R 3.1's positive of equal edges)."""
    rng = np.random.default_rng([seed, 77])
    return dataclasses.replace(spec, look=_draw_look(rng, spec.shape))


_COLLARS = {
    "T-shirt": (("Round", 0.7), ("V-neck", 0.22), ("Square", 0.08)),
    "Shirt": (("Shirt", 0.85), ("Stand-up", 0.15)),
    "Polo": (("Polo", 1.0),),
    "Tank": (("Round", 0.55), ("V-neck", 0.25), ("Square", 0.2)),
    "Hoodie": (("Hooded", 1.0),),
    "Sweater": (("Round", 0.5), ("V-neck", 0.25), ("Stand-up", 0.25)),
    "Jacket": (("Stand-up", 0.3), ("Shirt", 0.25), ("Suit", 0.25), ("Hooded", 0.12), ("Baseball", 0.08)),
    "Dress": (("Round", 0.4), ("V-neck", 0.3), ("Square", 0.15), ("Shirt", 0.15)),
}
_SLEEVES = {
    "T-shirt": (("Short", 0.75), ("Long", 0.15), ("Mid", 0.1)),
    "Shirt": (("Long", 0.65), ("Short", 0.25), ("Mid", 0.1)),
    "Polo": (("Short", 0.8), ("Long", 0.2)),
    "Tank": (("Sleeveless", 1.0),),
    "Hoodie": (("Long", 0.85), ("Extra Long", 0.07), ("Short", 0.08)),
    "Sweater": (("Long", 0.8), ("Extra Long", 0.08), ("Mid", 0.12)),
    "Jacket": (("Long", 0.92), ("Sleeveless", 0.08)),
    "Dress": (("Sleeveless", 0.4), ("Short", 0.3), ("Long", 0.2), ("Mid", 0.1)),
}
_FABRICS = {
    "T-shirt": ("Stretch", "Knit", "Linen", "Synthetic"),
    "Shirt": ("Linen", "Denim", "Silk", "Synthetic", "Chiffon"),
    "Polo": ("Knit", "Stretch", "Synthetic"),
    "Tank": ("Stretch", "Knit", "Silk", "Linen"),
    "Hoodie": ("Fleece", "Stretch"),
    "Sweater": ("Wool", "Knitting", "Knit"),
    "Jacket": ("Denim", "Leather", "Synthetic", "Corduroy", "Tweed"),
    "Dress": ("Chiffon", "Silk", "Linen", "Knit", "Velvet"),
    "Skirt": ("Denim", "Silk", "Tweed", "Linen", "Leather"),
    "Trousers": ("Denim", "Linen", "Synthetic", "Corduroy"),
    "Shorts": ("Denim", "Linen", "Synthetic", "Stretch"),
}
_TOP_LENGTHS = {
    "Extra Short": (0.74, 1.0),
    "Short": (1.08, 1.24),
    "Medium": (1.3, 1.5),
    "Long": (1.55, 1.78),
    "Extra Long": (1.82, 2.1),
}
_DRESS_LENGTHS = {
    "Short": (1.55, 1.8),
    "Medium": (1.85, 2.2),
    "Long": (2.25, 2.6),
    "Extra Long": (2.65, 2.95),
}
_SLEEVE_LENGTHS = {
    "Sleeveless": (0.0, 0.0),
    "Short": (0.3, 0.5),
    "Mid": (0.58, 0.82),
    "Long": (0.98, 1.22),
    "Extra Long": (1.26, 1.42),
}


def _pick(rng: np.random.Generator, choices) -> str:
    names, weights = zip(*choices, strict=True)
    return names[rng.choice(len(names), p=np.array(weights) / sum(weights))]


def _draw_shape(rng: np.random.Generator, category: str) -> Shape:
    u = rng.uniform
    bottom = category in ("Skirt", "Trousers", "Shorts")
    fit = _pick(rng, (("Loose", 0.3), ("Regular", 0.45), ("Slim", 0.25)))
    gender = "Female" if category in ("Dress", "Skirt") or u() < 0.5 else "Male"
    collar = "" if bottom else _pick(rng, _COLLARS[category])
    sleeve = "" if bottom else _pick(rng, _SLEEVES[category])
    length = _draw_length(rng, category)
    opening, is_open = _draw_opening(rng, category, collar)
    chest = 0.5 * {"Loose": u(1.06, 1.3), "Regular": u(0.94, 1.06), "Slim": u(0.8, 0.92)}[fit]
    taper = {"Female": u(0.74, 1.0), "Male": u(0.92, 1.04)}[gender]
    hem = chest * u(0.86, 1.2 if gender == "Female" else 1.04)
    rib = u(0.05, 0.1) if category in ("Hoodie", "Sweater") or (category == "Jacket" and u() < 0.4) else 0.0
    if rib:
        hem = chest * u(0.78, 0.98)
    if category == "Dress":
        hem, taper = chest * u(1.0, 2.3), u(0.66, 0.95)
    neck_depth = {"V-neck": u(0.2, 0.46), "Square": u(0.14, 0.28), "Suit": u(0.5, 0.85)}.get(
        collar, u(0.09, 0.2)
    )
    shoulder = (0.42 if gender == "Male" else 0.38) * u(0.92, 1.08) + (0.09 * u() if fit == "Loose" else 0.0)
    if fit != "Slim":
        shoulder = max(shoulder, chest * u(0.76, 0.94))
    neck_width = u(0.13, 0.22)
    if category in ("Tank", "Dress") and sleeve == "Sleeveless":
        shoulder = neck_width + u(0.04, 0.16)
        neck_width = u(0.15, 0.25)
        shoulder, neck_depth = max(shoulder, neck_width + 0.04), u(0.12, 0.36)
    sleeve_length = u(*_SLEEVE_LENGTHS.get(sleeve, (0.0, 0.0)))
    sleeve_angle = u(0.5, 1.25) if sleeve_length < 0.5 else u(0.14, 0.62) if u() < 0.8 else u(0.5, 1.2)
    armhole = u(0.36, 0.5) * (1.12 if fit == "Loose" else 1.0)
    sleeve_width = armhole * u(0.85, 1.05)
    lengths = _DRESS_LENGTHS if category == "Dress" else _TOP_LENGTHS
    body_length = u(*lengths[length]) if not bottom else _bottom_length(rng, category, length)
    fabric = str(rng.choice(_FABRICS[category]))
    stuffed = category == "Jacket" and fabric == "Synthetic" and collar in ("Stand-up", "Hooded")
    return Shape(
        category=category,
        fit=fit,
        collar=collar,
        sleeve=sleeve,
        length=length,
        gender=gender,
        fabric=fabric,
        opening=opening,
        is_open=is_open,
        rolled=bool(category == "Shirt" and sleeve == "Long" and u() < 0.15),
        shoulder=min(shoulder, chest * 1.02),
        neck_width=neck_width,
        neck_depth=neck_depth,
        slope=u(0.05, 0.17),
        chest=chest,
        waist=chest * taper,
        waist_at=u(0.3, 0.55),
        hem=hem,
        body_length=body_length,
        armhole=armhole,
        hem_curve=u(-0.02, 0.04) if u() < 0.8 else u(0.05, 0.12),
        hem_vent=u(0.03, 0.1) if category in ("Shirt", "Polo") and u() < 0.5 else 0.0,
        sleeve_length=sleeve_length,
        sleeve_angle=sleeve_angle,
        sleeve_width=sleeve_width,
        cuff=sleeve_width
        * (u(0.72, 1.1) if sleeve_length < 0.5 else u(0.36, 0.75))
        * (1.25 if u() < 0.1 else 1),
        sleeve_bulge=u(-0.03, 0.1),
        rib=rib,
        collar_size=u(0.8, 1.3),
        pocket=_draw_pocket(rng, category),
        gap=u(0.08, 0.3),
        pleats=int(rng.integers(0, 9)) if category in ("Skirt", "Dress") and u() < 0.5 else 0,
        hip=u(1.05, 1.35),
        crotch=u(0.5, 0.66),
        leg_angle=u(0.02, 0.3),
        knee=u(0.7, 1.15),
        quilt=int(rng.integers(7, 15)) if stuffed else 0,
        panel=u(0.3, 0.65),
    )


def _draw_length(rng: np.random.Generator, category: str) -> str:
    if category == "Dress":
        return _pick(rng, (("Short", 0.3), ("Medium", 0.4), ("Long", 0.2), ("Extra Long", 0.1)))
    if category == "Skirt":
        return _pick(rng, (("Extra Short", 0.2), ("Short", 0.3), ("Medium", 0.3), ("Long", 0.2)))
    if category == "Trousers":
        return _pick(rng, (("Medium", 0.2), ("Long", 0.6), ("Extra Long", 0.2)))
    if category == "Shorts":
        return _pick(rng, (("Extra Short", 0.35), ("Short", 0.65)))
    long = 0.25 if category in ("Jacket", "Shirt") else 0.12
    return _pick(
        rng, (("Extra Short", 0.08), ("Short", 0.22), ("Medium", 0.55), ("Long", long), ("Extra Long", 0.03))
    )


def _bottom_length(rng: np.random.Generator, category: str, length: str) -> float:
    ranges = {
        "Skirt": {
            "Extra Short": (0.6, 0.8),
            "Short": (0.85, 1.1),
            "Medium": (1.2, 1.55),
            "Long": (1.65, 2.2),
        },
        "Trousers": {"Medium": (1.45, 1.75), "Long": (1.9, 2.3), "Extra Long": (2.35, 2.6)},
        "Shorts": {"Extra Short": (0.68, 0.82), "Short": (0.86, 1.2)},
    }
    return rng.uniform(*ranges[category][length])


def _draw_opening(rng: np.random.Generator, category: str, collar: str) -> tuple[str, bool]:
    if category == "Shirt":
        return "buttons", bool(rng.random() < 0.12)
    if category == "Polo":
        return "quarter", False
    if category == "Jacket":
        kind = "buttons" if collar == "Suit" or rng.random() < 0.4 else "zip"
        return kind, bool(rng.random() < 0.4)
    if category == "Hoodie" and rng.random() < 0.4:
        return "zip", bool(rng.random() < 0.35)
    if category == "Sweater" and collar == "V-neck" and rng.random() < 0.5:
        return "buttons", False
    if category == "Sweater" and collar == "Stand-up" and rng.random() < 0.3:
        return "quarter", False
    if category == "Dress" and collar == "Shirt":
        return "buttons", False
    return "none", False


def _draw_pocket(rng: np.random.Generator, category: str) -> str:
    if category == "Hoodie":
        return "kangaroo" if rng.random() < 0.8 else "none"
    chance = {"Shirt": 0.6, "T-shirt": 0.2, "Polo": 0.2, "Jacket": 0.85, "Dress": 0.1}.get(category, 0.0)
    if rng.random() >= chance:
        return "none"
    return "sides" if category == "Jacket" and rng.random() < 0.6 else "chest"


_PRINTS = (
    ("Solid Color", 0.36),
    ("Striped", 0.17),
    ("Plaid", 0.08),
    ("Polka Dot", 0.06),
    ("Color Block", 0.08),
    ("Logo", 0.06),
    ("Text", 0.05),
    ("Artistic", 0.06),
    ("Floral", 0.06),
    ("Tie-dye", 0.04),
    ("Camouflage", 0.02),
    ("Geometric", 0.03),
    ("Star", 0.01),
    ("Heart", 0.01),
)


def _draw_look(rng: np.random.Generator, shape: Shape) -> Look:
    u = rng.uniform
    base = draw_colour(rng)
    if shape.fabric == "Denim" and u() < 0.7:
        shade = u(0.45, 1.5)
        base = scaled((78, 106, 148), shade)
    print_ = _pick(rng, _PRINTS)
    plain = shape.fabric in ("Denim", "Leather", "Corduroy") or shape.collar == "Suit"
    if plain and u() < 0.75:
        print_ = "Solid Color"
    if shape.category in ("Skirt", "Trousers", "Shorts") and print_ in ("Logo", "Text", "Artistic"):
        print_ = "Solid Color"
    second = contrasting(rng, base)
    third = contrasting(rng, base, 40.0)
    same = u() < 0.6
    letters = "ABCDEFGHIJKLMNOPRSTUVWXYZ0123456789"
    text = "".join(letters[i] for i in rng.integers(0, len(letters), rng.integers(1, 6)))
    shapes = ("circle", "star", "heart", "triangle", "square", "ring", "bolt", "swoosh")
    return Look(
        colours=(base, second, third),
        print=print_,
        variant=int(rng.integers(0, 1000)),
        scale=float(2 ** u(-1, 1)),
        phase=u(),
        angle=u(-0.6, 0.6),
        logo=text if print_ == "Text" else str(rng.choice(shapes)),
        logo_size=u(0.12, 0.62) if u() < 0.75 else 0.1,
        logo_at=(u(-0.12, 0.12), u(0.25, 0.5)),
        trim=scaled(base, u(0.78, 1.2)) if same else contrasting(rng, base, 40.0),
        lining=scaled(base, u(0.45, 0.75)) if u() < 0.7 else scaled(third, 0.7),
        fold_seed=int(rng.integers(2**31)),
        fold_strength=u(0.5, 1.3),
    )
