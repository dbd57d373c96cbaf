"""Attributes of a photo by StructureNet itself: a linear layer on what its photo tower sees, before it is told any.

R 9.2 asks Qwen2-VL. A tower that was trained with the attributes as a second task (`objectives/photo_tower.py`) has an
answer of its own, which costs 50 kB where a CLIP (`systems/zero_shot.py`) costs a tower. As there, an answer is given
only where it reaches its attribute's threshold.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from ragdiff_jax.data.attributes import ATTRIBUTES, STRUCTURAL
from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.models.structure_net import StructureNet, StructureNetConfig
from ragdiff_jax.systems.zero_shot import Calibration, Rows, sure_answers


def read_photos(config: StructureNetConfig, params: Any, photos: UInt8[Array, "b s s 3"]) -> Float[Array, "b v"]:
    """The head's logits for all ids of all attributes, side by side."""
    return StructureNet(config).apply({"params": params}, to_float(photos), method="read_attributes")


class HeadAttributes:
    """Predicts the ten attributes that have ids. `scales`: those that `calibrate` tries of its scores."""

    scales = np.geomspace(0.1, 4.0, 38)

    def __init__(self, read: Callable[[np.ndarray], Array], calibration: Mapping[str, Calibration]):
        """`read`: uint8 [b,s,s,3] -> logits [b,v]. An attribute that `calibration` leaves out is never said."""
        self._read = read
        self.calibration = {name: calibration.get(name, Calibration(threshold=None)) for name in STRUCTURAL}

    @classmethod
    def from_params(
        cls, config: StructureNetConfig, params: Any, calibration: Mapping[str, Calibration]
    ) -> "HeadAttributes":
        """With a StructureNet's parameters, jitted."""
        return cls(partial(jax.jit(partial(read_photos, config)), params), calibration)

    def predict(self, photos: UInt8[np.ndarray, "b s s 3"], given: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        """What is not given of each photo and can be said with confidence, names and values."""
        scores, nouns = self.scores(photos, [values.get("Category") for values in given])
        return sure_answers(scores, nouns, self.calibration, given)

    def scores(
        self, photos: UInt8[np.ndarray, "b s s 3"], categories: Sequence[str | None]
    ) -> tuple[dict[str, Rows], list[str]]:
        """({attribute: logits of its values [b, values]}, the category of each photo: the given, or the likeliest)."""
        logits = np.asarray(self._read(photos), np.float32)
        sizes = [1 + len(ATTRIBUTES[name]) for name in STRUCTURAL]  # id 0 is unknown
        parts = np.split(logits, np.cumsum(sizes)[:-1], axis=1)
        rows = {name: part[:, 1:] for name, part in zip(STRUCTURAL, parts, strict=True)}
        best = [ATTRIBUTES["Category"][row] for row in rows["Category"].argmax(axis=1)]
        return rows, [given or found for given, found in zip(categories, best, strict=True)]
