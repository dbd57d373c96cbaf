"""SynthGarments: parametric garments with exact silhouettes, as standard flat-lays and as in-the-wild photos.

Everything is a function of integers and the same on every machine; nothing is read from disk.
"""

import dataclasses
import functools

import numpy as np

from ragdiff_jax.data.synth.captions import caption
from ragdiff_jax.data.synth.flat import flat_from_sheets, make_sheets, render_flat
from ragdiff_jax.data.synth.garment import (
    CATEGORIES,
    GarmentSpec,
    garment_spec,
    structure_partner,
)
from ragdiff_jax.data.synth.labels import spec_attributes
from ragdiff_jax.data.synth.styles import STYLES
from ragdiff_jax.data.synth.wild import render_photo

__all__ = [
    "CATEGORIES",
    "STYLES",
    "GarmentSpec",
    "SynthGarment",
    "caption",
    "garment_id",
    "garment_spec",
    "render_flat",
    "render_photo",
    "spec_attributes",
    "structure_partner",
    "synth_garment",
    "synth_spec",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynthGarment:
    """One pair: images uint8 [size, size, 3], mask bool [size, size], attributes of each image alone."""

    id: str
    photo: np.ndarray
    flat: np.ndarray
    mask: np.ndarray
    photo_attributes: dict[str, str]
    flat_attributes: dict[str, str]
    caption: str
    category: str


def garment_id(index: int, seed: int, *, style: str = "drawn", extreme: bool = False) -> str:
    """E.g. "synth-0-0000012"; other styles and the extreme garments say so before the seed."""
    kinds = ["synth", *(["extreme"] if extreme else []), *([style] if style != "drawn" else [])]
    return f"{'-'.join(kinds)}-{seed}-{index:07d}"


def synth_spec(index: int, seed: int = 0, *, extreme: bool = False) -> GarmentSpec:
    """The garment number `index` of the data set `seed`, or of its series of extreme ones."""
    return _spec(index, seed, extreme)


@functools.lru_cache(maxsize=4)
def _spec(index: int, seed: int, extreme: bool) -> GarmentSpec:
    """Kept for the structure twin, whose turn is next."""
    numbers = [seed, index, 1] if extreme else [seed, index]  # not the ordinary ones, exaggerated
    return garment_spec(int(np.random.default_rng(numbers).integers(2**31)), extreme=extreme)


def synth_garment(
    index: int, seed: int = 0, size: int = 128, *, style: str = "drawn", extreme: bool = False
) -> SynthGarment:
    """Pair number `index` of the data set `seed`; deterministic in all arguments.

    Raises `UserError` for an unknown style.
    """
    spec = synth_spec(index, seed, extreme=extreme)
    sheets = make_sheets(spec, size, style=style)
    flat, mask = flat_from_sheets(sheets, size)
    photo, seen = render_photo(spec, index, size, sheets)
    return SynthGarment(
        id=garment_id(index, seed, style=style, extreme=extreme),
        photo=photo,
        flat=flat,
        mask=mask,
        photo_attributes=seen,
        flat_attributes=spec_attributes(spec),
        caption=caption(spec, seen),
        category=spec.category,
    )
