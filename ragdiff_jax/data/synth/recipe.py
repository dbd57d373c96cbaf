"""What a category's garments are drawn from: the choices of a recipe, and the lengths that its words stand for."""

import dataclasses
from collections.abc import Mapping

Choices = Mapping[str, int | float] | tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One category: names with weights, or plain names of equal weight; shares are probabilities."""

    family: str
    weight: int | float
    lengths: Choices
    fabrics: Choices
    collars: Choices = ()
    sleeves: Choices = ()
    sleeve_shapes: Choices = ("straight",)
    openings: Choices = ("none",)
    open_share: float = 0.0
    inner_share: float = 0.0  # of the open ones
    pockets: Choices = ("none",)
    panels: Choices = ("none",)
    hems: Choices = ("plain",)
    fits: Choices = ("Loose", "Regular", "Regular", "Slim")
    strapped: float = 0.0  # share carried by straps
    rib: float = 0.0  # share with ribbed hem and cuffs
    belt: float = 0.0
    quilt: float = 0.0
    roll: float = 0.0
    female: float = 0.5


# Lengths in chest widths.
TOP_LENGTHS = {
    "Extra Short": (0.72, 1.0),
    "Short": (1.06, 1.24),
    "Medium": (1.3, 1.52),
    "Long": (1.58, 1.84),
    "Extra Long": (1.95, 2.5),
}
DRESS_LENGTHS = {"Short": (1.5, 1.8), "Medium": (1.85, 2.2), "Long": (2.25, 2.6), "Extra Long": (2.65, 3.0)}
SKIRT_LENGTHS = {"Extra Short": (0.55, 0.8), "Short": (0.85, 1.1), "Medium": (1.2, 1.55), "Long": (1.65, 2.2)}
LEG_LENGTHS = {
    "Trousers": {"Medium": (1.4, 1.75), "Long": (1.9, 2.3), "Extra Long": (2.35, 2.6)},
    "Shorts": {"Extra Short": (0.54, 0.8), "Short": (0.86, 1.35)},
}
SWIM_LENGTHS = {"Extra Short": (1.2, 1.45), "Short": (1.15, 1.35), "Medium": (1.4, 1.65)}
SHAWL_LENGTHS = {"Short": (0.75, 0.95), "Medium": (1.0, 1.25), "Long": (1.3, 1.7)}
SLEEVE_LENGTHS = {
    "Sleeveless": (0.0, 0.0),
    "Short": (0.28, 0.5),
    "Mid": (0.58, 0.82),
    "Long": (0.98, 1.22),
    "Extra Long": (1.28, 1.45),
}
