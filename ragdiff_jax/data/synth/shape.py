"""The parameters of one synthetic garment: what is structure and what is only its look."""

import dataclasses

import numpy as np

from ragdiff_jax.data.synth.colours import RGB


@dataclasses.dataclass(frozen=True, kw_only=True)
class SleeveLay:
    """How one sleeve lies in the flat-lay; in photos the scene turns sleeves itself.

    `turn` (radians, outwards) is about the shoulder. A "bent" sleeve turns inwards by `angle` at the elbow, which
    lies at the share `at` of its length; a "folded" one is laid over, so that the forearm points by `angle` inwards.
    """

    kind: str = "straight"
    turn: float = 0.0
    angle: float = 0.0
    at: float = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """The structure: lengths are in chest widths, angles in radians from straight down."""

    category: str  # a value of Table 6's Category
    family: str  # top, dress, skirt, legs, swimsuit, shawl: which pattern is cut
    fit: str
    collar: str  # "" for bottoms
    sleeve: str
    length: str
    fabric: str
    gender: str
    opening: str  # none, quarter, buttons, zip, biker, wrap
    is_open: bool
    inner: bool  # another garment shows in the open front
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
    pocket: str  # none, chest, kangaroo, sides, patch, cargo
    gap: float
    pleats: int
    hip: float
    crotch: float
    leg_angle: float
    knee: float
    quilt: int  # bands of stuffing, 0 for none
    panel: float  # where seams and colour blocks lie, as a share of the length
    panels: str = "none"  # none, yoke, sides, princess, raglan, band: pieces sewn together
    hem_kind: str = "plain"  # plain, wavy, scalloped, fringe, peplum, points, ruffle
    straps: float = 0.0  # half-width of the straps that carry a top; 0 where its cloth reaches the shoulders
    bust: float = 0.0  # where the cloth of a strapped top begins
    neckline: str = "round"  # round, v, square, straight, heart, boat, deep: the line itself, below any collar
    sleeve_shape: str = "straight"  # straight, puff, bishop, bell, cap, wide, batwing
    leg_shape: str = "straight"  # straight, skinny, flared, wide, tapered, harem
    skirt_shape: str = "flared"  # pencil, flared, circle, tulip, mermaid
    tiers: int = 0  # gathered bands of a dress or skirt
    belt: bool = False
    hood: float = 0.0  # height of the hood
    quilt_kind: str = "bands"  # bands, diamonds, columns
    cutouts: int = 0
    slit: float = 0.0  # height of the slit in a skirt's hem
    side: int = 1  # the side of one shoulder, of a slit, of a biker's zip
    lean: float = 0.0  # the lay isn't quite symmetric: x moves by lean * y,
    bow: float = 0.0  # and by bow at half length,
    tilt: float = 0.0  # and the hem's y by tilt * x
    train: float = 0.0  # the back's hem hangs lower by this
    rough: float = 0.0  # raggedness of the edge: fur and worn cloth
    lays: tuple[SleeveLay, SleeveLay] = (SleeveLay(), SleeveLay())  # left, right

    @property
    def is_bottom(self) -> bool:
        return self.family in ("skirt", "legs")

    @property
    def is_outer(self) -> bool:
        """Worn over other clothes, so never tucked in."""
        return self.category in _OUTER


_OUTER = (
    "Vest", "Windbreaker", "Down Jacket", "Jacket", "Suit", "Waistcoat", "Shawl", "Knitted Coat", "Leather Short Coat",
    "Leather Long Coat", "Denim Jacket", "Robe", "Sports Jacket", "Knitted Cardigan", "Leather Jacket",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """Colours, print and the seed of the folds: everything that may change without changing the structure."""

    colours: tuple[RGB, ...]  # base, second, third, fourth
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
    inner: RGB
    inner_print: int  # 0 plain, 1 striped, 2 a print
    hardware: RGB  # buttons, zips, buckles
    fold_seed: int
    fold_strength: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class GarmentSpec:
    """One garment: `shape` decides the silhouette and the structural attributes, `look` the pixels in it."""

    seed: int
    shape: Shape
    look: Look
    extreme: bool = False

    @property
    def category(self) -> str:
        return self.shape.category


def random_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def pick_index(rng: np.random.Generator, chances) -> int:
    """An index by its chance; they sum to 1. Ten times faster than `rng.choice`."""
    left = rng.random()
    for index, chance in enumerate(chances):
        left -= chance
        if left < 0:
            return index
    return len(chances) - 1


def pick(rng: np.random.Generator, choices) -> str:
    """One of the keys of `choices`, a mapping name -> weight, or of a plain tuple of names."""
    if not isinstance(choices, dict):
        return choices[int(rng.integers(len(choices)))]
    left = rng.random() * sum(choices.values())
    for name, weight in choices.items():
        left -= weight
        if left < 0:
            return name
    return name
