"""The other garments of an outfit: a fixed wardrobe, drawn once in each process by the garments' own code."""

import dataclasses
import functools

import numpy as np

from ragdiff_jax.data.synth.flat import make_sheets
from ragdiff_jax.data.synth.garment import GarmentSpec, garment_spec
from ragdiff_jax.data.synth.warp import Ready

_PIECES = 24  # of each kind
_KINDS = {
    "top": ("T-shirt", "Shirt", "Sweater", "Tank", "T-shirt", "Polo", "Hoodie", "T-shirt"),
    "under": ("T-shirt", "T-shirt", "Shirt", "Tank"),
    "over": ("Jacket", "Hoodie", "Sweater", "Jacket"),
    "bottom": ("Trousers", "Trousers", "Skirt", "Trousers", "Shorts", "Trousers"),
    "male bottom": ("Trousers", "Trousers", "Trousers", "Shorts"),
}


@dataclasses.dataclass(frozen=True)
class Piece:
    """One piece of the wardrobe: its parameters and its sheets, ready to be laid."""

    spec: GarmentSpec
    ready: Ready


def choose(rng: np.random.Generator, kind: str, size: int) -> Piece:
    """A piece of the wardrobe for a photo of `size` pixels; kinds: top, under, over, bottom, male bottom."""
    return _piece(kind, int(rng.integers(_PIECES)), int(np.clip(size * 3 // 4, 48, 128)))


@functools.lru_cache(maxsize=256)
def _piece(kind: str, number: int, size: int) -> Piece:
    names = _KINDS[kind]
    seed = 7919 * (number + 1) + 101 * tuple(_KINDS).index(kind)
    spec = garment_spec(seed, names[number % len(names)])
    shape = spec.shape
    if kind == "over":  # long and wide enough to lie over another
        shape = dataclasses.replace(
            shape,
            is_open=False,
            sleeve_length=max(shape.sleeve_length, 1.0),
            chest=max(shape.chest, 0.52),
            hem=max(shape.hem, 0.5),
            shoulder=max(shape.shoulder, 0.43),
            body_length=max(shape.body_length, 1.3),
        )
    if kind in ("top", "under") and shape.is_open:
        shape = dataclasses.replace(shape, is_open=False)
    spec = dataclasses.replace(spec, shape=shape)
    return Piece(spec, Ready(make_sheets(spec, size), shape))
