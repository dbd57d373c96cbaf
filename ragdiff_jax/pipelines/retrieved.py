"""What the memory says to a photo, and what is made of it."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Bool, Float32, UInt8

Image = UInt8[np.ndarray, "_ _ 3"]


@dataclasses.dataclass(frozen=True)
class NthAlternative:
    """Asks for the silhouette that stands in this place of each photo's `alternatives`, from 0."""

    place: int


# The rank of a neighbour, from 0, one of the alternatives, or a silhouette of any size.
Landmark = int | np.integer | NthAlternative | Bool[np.ndarray, "_ _"] | Bool[Array, "_ _"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alternative:
    """A garment whose silhouette may be the photo's: its id and row in the memory, its rank by cosine, from 0.

    `chance`, in [0, 1]: that the true silhouette is more like this one than like the other alternatives
    (`offered_landmarks`); None where the rule knows of none.
    """

    id: str
    row: int
    rank: int
    chance: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieved:
    """What the memory said to one photo: its K neighbours, nearest first, and the silhouette used.

    `rows` are rows of the memory. `choice` is the rank of the garment whose landmark is used, which may lie beyond the
    K, and `landmark_id` its id; `landmark_source` says how it was chosen: `fused` (SLLE's blend), `likeliest` (of many
    candidates, `LandmarkRule`), `neighbour I` or `alternative I` (asked for), or, with a `choice` of None, `file` (a
    mask was given), `predicted` (by a model that draws it from the photo) and `unused` (the model doesn't look at it).
    `attributes` are those used, and `attribute_sources` says of each of the ten: `given`, `predicted` or `unknown`.
    `alternatives`: the silhouettes that the rule finds in the memory, the one that it uses first; none to a model that
    draws its silhouette or looks at none. `warnings`: what is doubtful (`pipelines/doubts.py`).
    """

    ids: tuple[str, ...]
    rows: tuple[int, ...]
    cosines: Float32[np.ndarray, " k"]
    weights: Float32[np.ndarray, " k"]
    landmark: Bool[np.ndarray, "h w"]
    choice: int | None
    landmark_id: str | None
    landmark_source: str
    attributes: Mapping[str, str]
    attribute_sources: Mapping[str, str]
    alternatives: tuple[Alternative, ...]
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generated:
    """A flat-lay, what it was made from, and the seconds it took: its share of its batch.

    `seconds`: annotate, retrieve, denoise, decode, and total, which also has what compiling took.
    """

    image: Image
    retrieved: Retrieved
    seconds: Mapping[str, float]
