"""Photos in, flat-lays out: `GarmentGenerator` holds model, parameters and memory and runs batches."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32, UInt8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieved:
    """What the memory said to one photo: its K neighbours, nearest first, and the silhouette that is used.

    `rows` are rows of the memory. `choice` is the neighbour whose landmark is used; `landmark_source` says by whom it
    was chosen: `fused` (SLLE's blend) or `neighbour I` (asked for).
    """

    ids: tuple[str, ...]
    rows: tuple[int, ...]
    cosines: Float32[np.ndarray, " k"]
    weights: Float32[np.ndarray, " k"]
    landmark: Bool[np.ndarray, "h w"]
    choice: int
    landmark_source: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generated:
    """A flat-lay, what it was made from, and the seconds it took (its share of its batch)."""

    image: UInt8[np.ndarray, "h w 3"]
    retrieved: Retrieved
    seconds: Mapping[str, float]
